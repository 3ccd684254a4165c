"""A count of calls under way. It stays right when a signal handler raises."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class UsageCount:
    """Counts the uses of an object. Safe to use from many threads; after a fork, make a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _uses
        self._uses: set[object] = set()  # a set, not a number: discarding a use that was never added is harmless

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count as a use as long as the block lasts."""
        use = object()
        try:  # before the use is added: a handler may raise right after that
            with self._lock:
                self._uses.add(use)
            yield
        finally:
            with self._lock:
                self._uses.discard(use)

    def __bool__(self) -> bool:
        """Whether there are any uses."""
        return bool(self._uses)
