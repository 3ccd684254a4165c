"""Idle sessions: which have expired, and closing them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from podkit.core._session_entry import SessionEntry
from podkit.errors import PodkitError
from podkit.utils._clock import utc_now
from podkit.utils._deadline import tried

if TYPE_CHECKING:
    from podkit.core.models import Session

_logger = logging.getLogger("podkit.core.session")  # a public name, see docs/logging.md


def close_expired(entries: Iterable[SessionEntry], close: Callable[[SessionEntry, Session], object]) -> list[Session]:
    """Close the expired sessions and return them.

    One that cannot be closed is logged and tried again the next time.

    Args:
        entries: of one manager.
        close: closes a session; called with its entry locked.
    """
    closed = []
    for entry in entries:
        with tried(entry.lock) as locked:
            session = entry.session
            if not locked or session is None:  # it is being made, recovered or closed: so it is not idle
                continue
            try:
                if _is_over(entry, session):
                    close(entry, session)
                    closed.append(session)
            except PodkitError as exc:  # the others expire all the same
                _logger.warning("session %r could not be closed: %s", entry.session_id, exc)
    return closed


def _is_over(entry: SessionEntry, session: Session) -> bool:
    """Whether a session's idle time is over. A busy one's idle clock restarts."""
    # the engine is asked only about sessions whose clock has run out, and those that were busy at the last look
    if session.is_expired() or entry.was_busy:
        entry.was_busy = entry.is_busy()
    if entry.was_busy:
        session.last_active_at = utc_now()
        return False
    return session.is_expired()
