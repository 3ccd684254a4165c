"""A session manager's table of sessions, with a lock for each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from podkit.core._record import ContainerRecord
from podkit.utils import _checks
from podkit.utils._clock import utc_now
from podkit.utils._deadline import NEVER, Deadline, held
from podkit.utils._fork import renew_after_fork
from podkit.utils._usage import UsageCount

if TYPE_CHECKING:
    from podkit.core.models import Session

BUSY = "making, recovering or closing the session"


class SessionEntry:
    """A session's place in the table.

    Attributes:
        user_id: whose session.
        session_id: which one.
        lock: held while the container is made, recovered or removed.
        session: `None` before it is made and after it was closed.
        record: what is known of its container.
        was_busy: whether a command or a background process ran when its idle clock had run out.
    """

    def __init__(self, user_id: str, session_id: str) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self.session: Session | None = None
        self.record: ContainerRecord | None = None
        self.was_busy = False
        self.renew()

    def renew(self) -> None:
        """Make new locks in a forked child, where nothing runs."""
        self.lock = threading.RLock()
        self.depth = 0  # how often the thread that has the lock holds the entry
        self._uses = UsageCount()

    @contextmanager
    def using(self) -> Iterator[None]:
        """Keep the session from expiring. The idle clock restarts at the end."""
        try:
            with self._uses.counted():
                yield
        finally:
            session = self.session
            if session is not None:
                session.last_active_at = utc_now()

    @property
    def in_use(self) -> bool:
        """Whether a thread of this process uses the session."""
        return bool(self._uses)


class SessionTable:
    """Entries by (user_id, session_id). Safe to use from many threads and after a fork."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], SessionEntry] = {}
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards the dict only
        for entry in self._entries.values():
            entry.renew()

    @contextmanager
    def locked(self, user_id: str, session_id: str, *, deadline: Deadline = NEVER) -> Iterator[SessionEntry]:
        """Hold an entry's lock. A missing entry is made; one that stays empty is dropped.

        Raises:
            InvalidInput: an id cannot be right.
            SessionBusy: another thread still held it at the deadline.
        """
        key = _checks.check_id(user_id, "user_id"), _checks.check_id(session_id, "session_id")
        while True:
            with self._lock:
                entry = self._entries.setdefault(key, SessionEntry(user_id, session_id))
            with held(entry.lock, deadline, BUSY):
                with self._lock:
                    if self._entries.get(key) is not entry:
                        continue  # it was dropped while this thread waited for it
                entry.depth += 1
                try:
                    yield entry
                finally:
                    entry.depth -= 1
                    if entry.session is None and not entry.depth:
                        with self._lock:
                            self._entries.pop(key, None)
                return

    def entries(self) -> list[SessionEntry]:
        """Return all entries of the moment, unlocked."""
        with self._lock:
            return list(self._entries.values())

    def serving(self, container_id: str) -> SessionEntry | None:
        """Return the entry whose session has this container."""
        return next((e for e in self.entries() if e.session and e.session.container_id == container_id), None)
