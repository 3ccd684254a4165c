"""Deadlines on the monotonic clock. No other module of podkit sleeps."""

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
"""The limit of one call to an engine if the caller set no deadline."""

CLEAN_UP_SECONDS = 1.9
"""The time for cleaning up after a failed call. A call may be 2 s late in all, so this is less."""

_SHORTEST_SECONDS = 0.001  # for system calls, see `Deadline.wait_seconds`


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, or never.

    Immutable, so safe to share between threads.

    Attributes:
        at: the reading of `clock`, in seconds, at which it expires; infinity means never.
        clock: the source of the time; tests pass their own.
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
        """Whether the moment has come or passed."""
        return self.clock() >= self.at

    def at_most(self, seconds: float) -> Deadline:
        """Return this deadline or the one in `seconds`, whichever is earlier."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)

    def sooner(self, other: Deadline) -> Deadline:
        """Return this deadline or the other, whichever is earlier."""
        return self if self.at <= other.at else other

    def wait_seconds(self, longest: float = math.inf) -> float | None:
        """Return the seconds left, at most `longest`, for system calls. `None` means for ever.

        Never 0, even after the deadline expired: some system calls take 0 for "do not wait", and others refuse it.
        """
        seconds = min(self.remaining, longest)
        return None if math.isinf(seconds) else max(seconds, _SHORTEST_SECONDS)


NEVER = Deadline(math.inf)
"""A deadline that never expires."""


@contextmanager
def tried(lock: threading.RLock, seconds: float = 0) -> Iterator[bool]:
    """Hold a lock inside the block, if acquired in `seconds`. Yields whether it is.

    The lock does not stay held if a signal handler raises, at any moment. This needs an `RLock`: it refuses to be
    released by a thread that does not hold it, and other locks do not.
    """
    try:
        acquired = lock.acquire(timeout=seconds)
    except BaseException:  # such a handler raised, before or after the lock was acquired
        with suppress(RuntimeError):  # before: there is nothing to release
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
        SessionBusy: or `late`: another thread still holds it. `what` names the work of that thread.
    """
    # a lock takes no infinity: TIMEOUT_MAX is its longest wait
    seconds = deadline.wait_seconds(threading.TIMEOUT_MAX)
    with tried(lock, threading.TIMEOUT_MAX if seconds is None else seconds) as acquired:
        if not acquired:
            raise late(f"another thread is still {what}: try again, or pass a longer timeout")
        yield


def call_deadline(deadline: Deadline | None, longest: float = ENGINE_CALL_SECONDS) -> Deadline:
    """Return the deadline of an engine call: `longest` seconds, or the caller's if earlier.

    Raises:
        EngineTimeout: the caller's deadline has expired already.
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

    The pause starts at `interval` seconds and doubles up to `longest_interval`. Blocks. The check runs at least once,
    and once more at the deadline.

    Returns:
        Whether the check came true.
    """
    while not check():  # before the deadline is looked at: a late success is a success
        if deadline.expired:
            return False
        time.sleep(min(interval, deadline.remaining))  # never past the deadline: the last check comes right there
        interval = min(interval * 2, longest_interval)
    return True
