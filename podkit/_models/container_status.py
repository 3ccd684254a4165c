"""The states of a container."""

from __future__ import annotations

from enum import StrEnum


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


# pickles and messages name the public module, wherever the class is defined
ContainerStatus.__module__ = "podkit.core.models"
