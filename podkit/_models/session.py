"""A session, in its caller's view."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import Field, PrivateAttr
from pydantic import field_validator as validates

from podkit._models.base import Model
from podkit._models.config import ContainerConfig
from podkit._models.container_status import ContainerStatus
from podkit.errors import InvalidInput
from podkit.utils._clock import utc_now


class Session(Model):
    """One (user_id, session_id) and the container that serves it.

    Attributes:
        user_id: the user of the session.
        session_id: tells it from the user's other sessions.
        container_id: the engine's full id. Only a recreation changes it; `None` while there is no container.
        container_name: the name on the engine, the same after a recreation.
        status: the container's last known state.
        config: the configuration of the container. An event handler may have changed the requested one.
        data_dir: the workspace on podkit's file system, `None` without one.
        created_at: when the session was created, UTC.
        last_active_at: when the last command began or ended, UTC; assigning moves the idle clock.
        session_inactivity_timeout_seconds: idle seconds after which the session may be cleaned up.
        metadata: free for the caller, apart from `failure_status`, `failure_reason` and `failure_log`, which the health
            monitor sets and a recreation clears.
    """

    user_id: str
    session_id: str
    container_id: str | None = None
    container_name: str
    status: ContainerStatus = ContainerStatus.CREATING
    config: ContainerConfig
    data_dir: Path | None = None
    created_at: datetime = Field(default_factory=utc_now)
    last_active_at: datetime = Field(default_factory=utc_now)
    session_inactivity_timeout_seconds: int = Field(default=3600, ge=0)
    metadata: dict[str, Any] = Field(default_factory=dict)

    # idle time is counted on the monotonic clock, because the wall clock may jump by hours
    _active_monotonic: float = PrivateAttr(default_factory=time.monotonic)

    @validates("created_at", "last_active_at")
    @classmethod
    def _aware(cls, value: datetime) -> datetime:
        if value.tzinfo is None:
            raise InvalidInput(f"{value!r} has no time zone: use datetime.now(UTC)")
        return value.astimezone(UTC)

    def model_post_init(self, context: Any, /) -> None:
        """Set the idle clock to `last_active_at`."""
        self._move_idle_clock()

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "last_active_at":  # both clocks move together
            self._move_idle_clock()

    def _move_idle_clock(self) -> None:
        # a moment of the wall clock as one of the monotonic clock, by its age
        self._active_monotonic = time.monotonic() - (utc_now() - self.last_active_at).total_seconds()

    @property
    def idle_seconds(self) -> float:
        """Seconds since the last activity, at least 0."""
        return max(0.0, time.monotonic() - self._active_monotonic)

    def is_expired(self) -> bool:
        """Whether the session's idle time exceeds its timeout."""
        return self.idle_seconds > self.session_inactivity_timeout_seconds


# pickles and messages name the public module, wherever the class is defined
Session.__module__ = "podkit.core.models"
