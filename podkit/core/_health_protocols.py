"""How session manager and health monitor see each other: neither imports the other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from podkit.core.models import Session


class SessionCare(Protocol):
    """A session manager, as a health monitor needs it."""

    def restart_container(self, container_id: str) -> None:
        """Restart a stopped container, unless its session was closed or recovered."""
        ...

    def mark_failed(self, container_id: str, log: str) -> bool:
        """Mark a broken container's session, to be recreated. Returns whether it was."""
        ...

    def cleanup_expired_sessions(self) -> list[Session]:
        """Close the sessions that were idle for too long."""
        ...


class HealthMonitor(Protocol):
    """A health monitor, as a session manager needs it."""

    def register(self, sessions: SessionCare) -> None:
        """Take note of whom to tell."""
        ...

    def start(self) -> None:
        """Begin to watch."""
        ...

    def stop(self) -> None:
        """Stop watching."""
        ...
