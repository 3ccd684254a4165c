"""Waiting for what happens outside of this process."""

from __future__ import annotations

import time
from collections.abc import Callable


def eventually(check: Callable[[], object], *, seconds: float = 20.0, interval: float = 0.05) -> bool:
    """Ask again and again until the answer is true; whether it came to that."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() >= end:
            return False
        time.sleep(interval)
    return True


def within(seconds: float) -> _Within:
    """A block that must end in time: `with within(2): ...`."""
    return _Within(seconds)


class _Within:
    def __init__(self, seconds: float) -> None:
        self._limit = seconds

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        took = time.monotonic() - self._began
        if kind is None:
            assert took < self._limit, f"took {took:.2f} s, at most {self._limit} s were allowed"
