"""Deadlines on the monotonic clock, and waiting for them."""

from __future__ import annotations

import math
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from podkit.errors import EngineTimeout, SessionBusy
from podkit.testing import ManualClock
from podkit.utils._deadline import NEVER, Deadline, call_deadline, held, tried, wait_until
from tests.support.waiting import within


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(now=100.0)


def test_a_deadline_is_reached_when_its_seconds_have_passed(clock: ManualClock) -> None:
    deadline = Deadline.after(5, clock=clock)
    assert (deadline.remaining, deadline.expired) == (5, False)
    clock.advance(5)
    assert (deadline.remaining, deadline.expired) == (0, True)
    clock.advance(5)
    assert deadline.remaining == 0


def test_a_deadline_of_none_is_never_reached(clock: ManualClock) -> None:
    deadline = Deadline.after(None, clock=clock)
    clock.advance(1e12)
    assert not deadline.expired
    assert deadline.remaining == math.inf


def test_the_earlier_of_two_deadlines_counts(clock: ManualClock) -> None:
    assert Deadline.after(5, clock=clock).at_most(2).remaining == 2
    assert Deadline.after(5, clock=clock).at_most(9).remaining == 5
    assert Deadline.after(None, clock=clock).at_most(9).remaining == 9
    late, soon = Deadline.after(5, clock=clock), Deadline.after(2, clock=clock)
    assert late.sooner(soon) is soon.sooner(late) is soon.sooner(NEVER) is soon


def test_system_calls_get_none_for_ever(clock: ManualClock) -> None:
    assert Deadline.after(None, clock=clock).wait_seconds() is None
    assert Deadline.after(None, clock=clock).wait_seconds(3) == 3
    assert Deadline.after(2, clock=clock).wait_seconds(3) == 2


def test_system_calls_never_get_0_for_a_deadline_that_expired_just_now(clock: ManualClock) -> None:
    """A socket would not wait at all, and the SDK raises `ValueError`."""
    assert 0 < (Deadline.after(0, clock=clock).wait_seconds() or 0) < 0.01


def test_a_deadline_reads_the_monotonic_clock_by_default() -> None:
    assert Deadline.after(0).clock is time.monotonic


# --- deadlines of calls ----------------------------------------------------------------------------


def test_a_call_has_the_callers_deadline_where_that_is_earlier() -> None:
    assert 4 < call_deadline(Deadline.after(5), 60).remaining <= 5
    assert call_deadline(Deadline.after(5), 1).remaining <= 1
    assert 59 < call_deadline(None, 60).remaining <= 60
    assert 59 < call_deadline(NEVER, 60).remaining <= 60


def test_a_call_after_its_deadline_is_not_made() -> None:
    with pytest.raises(EngineTimeout):
        call_deadline(Deadline.after(0))


# --- locks -----------------------------------------------------------------------------------------


def is_held_elsewhere(lock: threading.RLock) -> bool:
    """Whether another thread than one that is made for this holds it."""
    with ThreadPoolExecutor() as threads:
        return not threads.submit(take_and_release, lock).result()


def take_and_release(lock: threading.RLock) -> bool:
    with tried(lock) as taken:
        return taken


class InterruptedLock:
    """A lock whose waiter a signal's handler interrupts, before or after it has the lock."""

    def __init__(self, *, too_late: bool) -> None:
        self.inner = threading.RLock()
        self._too_late = too_late

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        if self._too_late:
            self.inner.acquire(blocking, timeout)
        raise KeyboardInterrupt

    def release(self) -> None:
        self.inner.release()


@pytest.mark.parametrize("too_late", [False, True])
def test_a_lock_does_not_stay_held_where_its_waiter_is_interrupted(too_late: bool) -> None:
    lock = InterruptedLock(too_late=too_late)
    with pytest.raises(KeyboardInterrupt), held(lock, Deadline.after(1), "busy"):
        raise AssertionError("unreachable")
    assert not is_held_elsewhere(lock.inner)


def test_a_lock_is_tried_without_waiting() -> None:
    lock = threading.RLock()
    with tried(lock) as taken:
        assert taken
        assert is_held_elsewhere(lock)
    assert not is_held_elsewhere(lock)


def test_a_lock_is_held_inside_the_block_alone() -> None:
    lock = threading.RLock()
    with held(lock, Deadline.after(None), "busy"):
        assert is_held_elsewhere(lock)
    assert not is_held_elsewhere(lock)


def test_a_lock_that_another_thread_holds_is_waited_for_until_the_deadline() -> None:
    lock = threading.RLock()

    def wait_for_it() -> None:
        with held(lock, Deadline.after(0.05), "closing it"):
            raise AssertionError("unreachable")

    with (
        ThreadPoolExecutor() as threads,
        lock,
        within(1),
        pytest.raises(SessionBusy, match="still closing it"),
    ):
        threads.submit(wait_for_it).result()
    assert not is_held_elsewhere(lock)


def test_a_lock_is_released_when_its_block_raises() -> None:
    lock = threading.RLock()
    with pytest.raises(KeyError), held(lock, Deadline.after(1), "busy"):
        raise KeyError
    assert not is_held_elsewhere(lock)


@pytest.mark.parametrize("seconds", [1e9, 1e300])
def test_a_very_long_deadline_is_no_error(seconds: float) -> None:
    with held(threading.RLock(), Deadline.after(seconds), "busy"):
        pass


# --- waiting ---------------------------------------------------------------------------------------


def test_waiting_ends_when_the_check_comes_true() -> None:
    answers = iter([False, False, True])
    assert wait_until(lambda: next(answers), deadline=Deadline.after(5), interval=0.001)


def test_waiting_ends_at_the_deadline() -> None:
    with within(1):
        assert not wait_until(lambda: False, deadline=Deadline.after(0.03), interval=0.001)


def test_the_check_is_made_once_even_after_the_deadline() -> None:
    assert wait_until(lambda: True, deadline=Deadline.after(-1))
    assert not wait_until(lambda: False, deadline=Deadline.after(-1))


def test_the_check_is_made_once_more_at_the_deadline() -> None:
    began = time.monotonic()
    assert wait_until(lambda: time.monotonic() >= began + 0.05, deadline=Deadline.after(0.06), interval=10)


def test_what_the_check_raises_ends_the_waiting() -> None:
    def check() -> bool:
        raise KeyError("gone")

    with pytest.raises(KeyError):
        wait_until(check, deadline=Deadline.after(5))


@pytest.mark.parametrize(("longest", "most"), [(0.5, 9), (0.01, 16)])
def test_the_pauses_double_up_to_their_limit(longest: float, most: int) -> None:
    moments: list[float] = []

    def check() -> bool:
        moments.append(time.monotonic())
        return False

    wait_until(check, deadline=Deadline.after(0.1), interval=0.001, longest_interval=longest)
    assert 3 < len(moments) <= most
