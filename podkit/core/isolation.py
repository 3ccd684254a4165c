"""How a session is isolated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Isolation"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """How a session's commands run. More will be told here: limits, capabilities, networks.

    Attributes:
        commands: through podkit's agent, or through the engine's exec: then a command over its time is ended by
            restarting its container, and every command costs some 80 ms.
        commands_reason: why not through the agent; `None` where they do.
    """

    commands: Literal["agent", "engine exec"]
    commands_reason: str | None
