"""Terms that all layers share: container states, the usual directory, the time."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum

DEFAULT_WORKING_DIR = "/workspace"


class ContainerStatus(StrEnum):
    """A container's state, the same for every engine."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    STOPPED = "stopped"
    DEAD = "dead"
    ERROR = "error"
    UNKNOWN = "unknown"


def utc_now() -> datetime:
    """Return the present time, timezone-aware."""
    return datetime.now(UTC)
