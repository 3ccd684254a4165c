"""For tests: `FakeBackend`, an engine in memory, and `suite`, the contract suite for backends."""

from podkit.testing._files import Files
from podkit.testing._programs import (
    Background,
    IgnoreSigterm,
    Input,
    Invocation,
    Pause,
    Program,
    Reply,
    Step,
    Steps,
    read_all,
)
from podkit.testing.fake import FakeBackend, ManualClock

__all__ = [
    "Background",
    "FakeBackend",
    "Files",
    "IgnoreSigterm",
    "Input",
    "Invocation",
    "ManualClock",
    "Pause",
    "Program",
    "Reply",
    "Step",
    "Steps",
    "read_all",
]
