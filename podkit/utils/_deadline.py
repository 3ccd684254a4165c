"""Time: deadlines on the monotonic clock, and the only place where podkit sleeps."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from podkit.errors import EngineTimeout

Clock = Callable[[], float]

ENGINE_CALL_SECONDS = 60.0
"""How long one call to the engine may take where the caller set no deadline."""

_SHORTEST_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, or never.

    Immutable, so safe to share between threads.

    Attributes:
        at: seconds of `clock` at which it is reached; infinity means never.
        clock: where the time is read; tests pass their own.
    """

    at: float
    clock: Clock = time.monotonic

    @classmethod
    def after(cls, seconds: float | None, *, clock: Clock = time.monotonic) -> Deadline:
        """Make the deadline that is `seconds` from now; `None` makes one that is never reached."""
        return cls(math.inf if seconds is None else clock() + seconds, clock)

    @property
    def remaining(self) -> float:
        """Seconds left, never below 0; infinity for a deadline that is never reached."""
        return max(0.0, self.at - self.clock())

    @property
    def reached(self) -> bool:
        """Whether it lies in the past."""
        return self.clock() >= self.at

    def at_most(self, seconds: float) -> Deadline:
        """Give the earlier of this deadline and the one `seconds` from now."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)

    def wait_seconds(self, longest: float = math.inf) -> float | None:
        """Give what remains, at most `longest`, as system calls take it: `None` means for ever.

        Never 0, which some take for "do not wait" and others refuse: a deadline may be reached at any moment.
        """
        seconds = min(self.remaining, longest)
        return None if math.isinf(seconds) else max(seconds, _SHORTEST_SECONDS)


class _Lock(Protocol):
    def acquire(self, blocking: bool = ..., timeout: float = ...) -> bool: ...  # noqa: FBT001

    def release(self) -> None: ...


_engine_deadline: ContextVar[Deadline | None] = ContextVar("podkit_engine_deadline", default=None)


@contextmanager
def held(lock: _Lock, deadline: Deadline, what: str) -> Iterator[None]:
    """Hold a lock, waiting for it until the deadline at most.

    Raises:
        EngineTimeout: another thread still held it; `what` says what it may be doing.
    """
    seconds = deadline.wait_seconds(threading.TIMEOUT_MAX)
    if not lock.acquire(timeout=threading.TIMEOUT_MAX if seconds is None else seconds):
        raise EngineTimeout(f"another thread is still {what}")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def engine_deadline(deadline: Deadline) -> Iterator[None]:
    """Bound every engine call inside the block, in this thread, by `deadline` as well.

    An outer block's deadline is never extended by an inner one.
    """
    outer = _engine_deadline.get()
    token = _engine_deadline.set(deadline if outer is None or deadline.at < outer.at else outer)
    try:
        yield
    finally:
        _engine_deadline.reset(token)


@contextmanager
def cleaning_up(seconds: float) -> Iterator[None]:
    """Give the engine calls inside the block this long, whatever deadline a caller has set or missed.

    For taking back what must not stay behind a call that failed.
    """
    token = _engine_deadline.set(Deadline.after(seconds))
    try:
        yield
    finally:
        _engine_deadline.reset(token)


def caller_deadline() -> Deadline:
    """Give the deadline that a caller of this thread has set, or one that is never reached."""
    return _engine_deadline.get() or Deadline.after(None)


def call_deadline(longest: float = ENGINE_CALL_SECONDS) -> Deadline:
    """Give the deadline of one engine call that starts now: `longest`, or less where a caller set one.

    Raises:
        EngineTimeout: the caller's deadline has been reached already.
    """
    outer = _engine_deadline.get()
    if outer is None:
        return Deadline.after(longest)
    if outer.reached:
        raise EngineTimeout("the deadline of this call was reached before the engine was asked")
    return outer.at_most(longest)


def wait_until(
    check: Callable[[], bool],
    *,
    deadline: Deadline,
    interval: float = 0.02,
    longest_interval: float = 0.5,
) -> bool:
    """Call `check` until it returns true or the deadline is reached.

    The pause starts at `interval` seconds and doubles up to `longest_interval`. Blocks; the check is made at least
    once, and once more at the deadline.

    Returns:
        Whether the check came true.
    """
    while not check():
        if deadline.reached:
            return False
        time.sleep(min(interval, deadline.remaining))
        interval = min(interval * 2, longest_interval)
    return True
