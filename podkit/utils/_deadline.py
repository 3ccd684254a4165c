"""Deadlines on the monotonic clock. Only here does podkit sleep."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from podkit.errors import EngineTimeout, PodkitError, SessionBusy

Clock = Callable[[], float]

ENGINE_CALL_SECONDS = 60.0
"""How long one call to an engine may take where the caller set no deadline."""

CLEAN_UP_SECONDS = 1.9
"""How long a call that failed may take back what it made: less than the 2 s by which a call may be late."""

_SHORTEST_SECONDS = 0.001


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, or never.

    Immutable, so safe to share between threads.

    Attributes:
        at: seconds of `clock` at which it expires; infinity means never.
        clock: where the time is read; tests pass their own.
    """

    at: float
    clock: Clock = time.monotonic

    @classmethod
    def after(cls, seconds: float | None, *, clock: Clock = time.monotonic) -> Deadline:
        """Return the deadline `seconds` from now; `None` means never."""
        return cls(math.inf if seconds is None else clock() + seconds, clock)

    @property
    def remaining(self) -> float:
        """Seconds left, never below 0; infinity for one that never expires."""
        return max(0.0, self.at - self.clock())

    @property
    def expired(self) -> bool:
        """Whether it lies in the past."""
        return self.clock() >= self.at

    def at_most(self, seconds: float) -> Deadline:
        """Return this deadline or the one in `seconds`, whichever is earlier."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)

    def sooner(self, other: Deadline) -> Deadline:
        """Return this deadline or the other, whichever is earlier."""
        return self if self.at <= other.at else other

    def wait_seconds(self, longest: float = math.inf) -> float | None:
        """Return the seconds left, at most `longest`, for system calls. `None` means for ever.

        Never 0, which some take for "do not wait" and others refuse: a deadline may expire at any moment.
        """
        seconds = min(self.remaining, longest)
        return None if math.isinf(seconds) else max(seconds, _SHORTEST_SECONDS)


NEVER = Deadline(math.inf)
"""A deadline that never expires."""


@contextmanager
def tried(lock: threading.RLock, seconds: float = 0) -> Iterator[bool]:
    """Hold a lock inside the block, if acquired in `seconds`. Yields whether it is.

    Whatever a signal's handler raises, and at whatever moment, the lock does not stay held. That takes an `RLock`: no
    other one refuses to be released by a thread that does not hold it.
    """
    try:
        acquired = lock.acquire(timeout=seconds)
    except BaseException:  # of such a handler, which may have run when the lock was held already
        with suppress(RuntimeError):  # it was not
            lock.release()
        raise
    try:
        yield acquired
    finally:
        if acquired:
            lock.release()


@contextmanager
def held(
    lock: threading.RLock, deadline: Deadline, what: str, *, late: type[PodkitError] = SessionBusy
) -> Iterator[None]:
    """Hold a lock, waiting for it until the deadline at most.

    Raises:
        SessionBusy: or `late`: another thread still held it; `what` says what it may be doing.
    """
    seconds = deadline.wait_seconds(threading.TIMEOUT_MAX)
    with tried(lock, threading.TIMEOUT_MAX if seconds is None else seconds) as acquired:
        if not acquired:
            raise late(f"another thread is still {what}: try again, or with a longer timeout")
        yield


def call_deadline(deadline: Deadline | None, longest: float = ENGINE_CALL_SECONDS) -> Deadline:
    """Return the deadline of an engine call: `longest` seconds, or the caller's if earlier.

    Raises:
        EngineTimeout: the caller's has expired already.
    """
    if deadline is None:
        return Deadline.after(longest)
    if deadline.expired:
        raise EngineTimeout("the deadline of this call expired before the engine was asked")
    return deadline.at_most(longest)


def wait_until(
    check: Callable[[], bool],
    *,
    deadline: Deadline,
    interval: float = 0.02,
    longest_interval: float = 0.5,
) -> bool:
    """Call `check` until it returns true or the deadline expires.

    The pause starts at `interval` seconds and doubles up to `longest_interval`. Blocks; the check is made at least
    once, and once more at the deadline.

    Returns:
        Whether the check came true.
    """
    while not check():
        if deadline.expired:
            return False
        time.sleep(min(interval, deadline.remaining))
        interval = min(interval * 2, longest_interval)
    return True
