"""A manager's sessions by their ids."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from podkit.core._session_entry import BUSY, SessionEntry
from podkit.core.manager import BaseContainerManager
from podkit.utils import _checks
from podkit.utils._deadline import NEVER, Deadline, held
from podkit.utils._fork import renew_after_fork


class SessionTable:
    """Entries by (user_id, session_id). Safe to use from many threads and after a fork.

    Args:
        manager: of the sessions' containers.
    """

    def __init__(self, manager: BaseContainerManager) -> None:
        self._manager = manager
        self._entries: dict[tuple[str, str], SessionEntry] = {}
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards the dict only
        for entry in self._entries.values():
            entry.renew()

    @contextmanager
    def locked(self, user_id: str, session_id: str, *, deadline: Deadline = NEVER) -> Iterator[SessionEntry]:
        """Hold an entry's lock. A missing entry is added, and dropped again if it stays empty.

        Raises:
            InvalidInput: an id cannot be right.
            SessionBusy: another thread still held it at the deadline.
        """
        key = _checks.check_id(user_id, "user_id"), _checks.check_id(session_id, "session_id")
        while True:
            with self._lock:
                entry = self._entries.setdefault(key, SessionEntry(self._manager, user_id, session_id))
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
        return next((entry for entry in self.entries() if entry.serves(container_id)), None)
