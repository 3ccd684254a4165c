"""Words and constants that every layer shares, without the models that are made of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from types import MappingProxyType

DEFAULT_IMAGE = "python:3.11-alpine"
DEFAULT_WORKING_DIR = "/workspace"
TIMEOUT_EXIT_CODE = 124
"""The exit code of a command that was over its time, as of coreutils' `timeout`."""

NO_VARIABLES: Mapping[str, str] = MappingProxyType({})
"""The environment of what is given none: one for all, so nobody can change it."""


def utc_now() -> datetime:
    """Give the present time, timezone-aware."""
    return datetime.now(UTC)


class ContainerStatus(StrEnum):
    """The state of a container, the same words for every engine."""

    CREATING = "creating"
    RUNNING = "running"
    PAUSED = "paused"
    RESTARTING = "restarting"
    EXITED = "exited"
    STOPPED = "stopped"
    DEAD = "dead"
    ERROR = "error"
    UNKNOWN = "unknown"
