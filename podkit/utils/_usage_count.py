"""A count of calls under way. A raising signal handler never leaves it too high."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class UsageCount:
    """The uses of something. Safe to use from many threads; after a fork, make a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _uses
        self._uses: set[object] = set()  # and no number: taking back what was not counted yet does no harm

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count as a use as long as the block lasts."""
        use = object()
        try:
            with self._lock:
                self._uses.add(use)
            yield
        finally:
            with self._lock:
                self._uses.discard(use)

    def __bool__(self) -> bool:
        """Whether there is any."""
        return bool(self._uses)
