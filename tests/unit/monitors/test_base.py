"""A monitor's thread: it starts, goes on whatever a round raises, and stops in time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from podkit.errors import InvalidInput
from podkit.monitors import base
from podkit.monitors.base import BaseThreadMonitor
from tests.support.waiting import eventually, within


class Monitor(BaseThreadMonitor):
    """Calls `act` each round."""

    def __init__(self, act: Callable[[], object] = lambda: None, check_interval: float = 0.01) -> None:
        super().__init__(check_interval)
        self.rounds = 0
        self.act = act

    def tick(self) -> None:
        self.rounds += 1
        self.act()


@pytest.fixture
def make() -> Iterator[Callable[..., Monitor]]:
    """Make monitors, and stop them after the test."""
    made: list[Monitor] = []

    def new(*arguments: Any, **more: Any) -> Monitor:
        made.append(Monitor(*arguments, **more))
        return made[-1]

    yield new
    for monitor in made:
        monitor.stop()


def raising(error: BaseException) -> Callable[[], None]:
    def act() -> None:
        raise error

    return act


def test_a_started_monitor_runs_its_rounds(make: Callable[..., Monitor]) -> None:
    monitor = make()
    assert not monitor.running
    monitor.start()
    assert monitor.running
    assert eventually(lambda: monitor.rounds >= 3, seconds=2)
    monitor.stop()
    assert not monitor.running


def test_the_first_round_comes_at_once(make: Callable[..., Monitor]) -> None:
    monitor = make(check_interval=60)
    monitor.start()
    assert eventually(lambda: monitor.rounds == 1, seconds=2)


def test_a_stopped_monitor_runs_no_more_rounds(make: Callable[..., Monitor]) -> None:
    monitor = make()
    monitor.start()
    eventually(lambda: monitor.rounds >= 1, seconds=2)
    monitor.stop()
    rounds = monitor.rounds
    time.sleep(0.05)
    assert monitor.rounds == rounds


def test_stopping_does_not_wait_for_the_next_round(make: Callable[..., Monitor]) -> None:
    monitor = make(check_interval=60)
    monitor.start()
    eventually(lambda: monitor.rounds == 1, seconds=2)
    with within(1):
        monitor.stop()


def test_starting_twice_starts_one_thread(make: Callable[..., Monitor]) -> None:
    before = threading.active_count()
    monitor = make(check_interval=60)
    for _ in range(3):
        monitor.start()
    assert threading.active_count() == before + 1


def test_stopping_twice_or_before_the_start_is_harmless(make: Callable[..., Monitor]) -> None:
    monitor = make()
    monitor.stop()
    monitor.start()
    monitor.stop()
    monitor.stop()
    assert not monitor.running


def test_a_stopped_monitor_can_start_again(make: Callable[..., Monitor]) -> None:
    monitor = make()
    monitor.start()
    monitor.stop()
    rounds = monitor.rounds
    monitor.start()
    assert monitor.running
    assert eventually(lambda: monitor.rounds > rounds, seconds=2)


def test_its_thread_does_not_keep_the_interpreter_alive(make: Callable[..., Monitor]) -> None:
    found: list[bool] = []
    monitor = make(lambda: found.append(threading.current_thread().daemon))
    monitor.start()
    assert eventually(lambda: found, seconds=2)
    assert found[0]


@pytest.mark.parametrize(
    "error", [ValueError("mine"), SystemExit(1), RecursionError(), KeyboardInterrupt(), GeneratorExit()], ids=repr
)
def test_whatever_a_round_raises_is_logged_and_the_next_one_comes(
    make: Callable[..., Monitor], caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    monitor = make(raising(error))
    with caplog.at_level(logging.ERROR):
        monitor.start()
        assert eventually(lambda: monitor.rounds >= 3, seconds=2)
    assert monitor.running
    assert type(error).__name__ in caplog.text


def test_the_interval_is_that_between_the_beginnings_of_two_rounds(make: Callable[..., Monitor]) -> None:
    began: list[float] = []

    def act() -> None:
        began.append(time.monotonic())
        time.sleep(0.1)

    monitor = make(act, check_interval=0.12)
    monitor.start()
    assert eventually(lambda: len(began) >= 5, seconds=3)
    assert began[4] - began[0] < 0.12 * 4 + 0.2


def test_a_round_that_takes_longer_than_the_interval_is_followed_by_one_round_and_no_crowd(
    make: Callable[..., Monitor],
) -> None:
    at_once, most = [0], [0]

    def act() -> None:
        at_once[0] += 1
        most[0] = max(most[0], at_once[0])
        time.sleep(0.03)
        at_once[0] -= 1

    monitor = make(act, check_interval=0.001)
    monitor.start()
    assert eventually(lambda: monitor.rounds >= 3, seconds=2)
    assert most == [1]
    assert monitor.rounds < 10


# --- rounds that hang ------------------------------------------------------------------------------


def test_stop_is_allowed_less_than_five_seconds() -> None:
    assert base.STOP_SECONDS < 5


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constant above stands for the wait of these tests, which would take 4 s each."""
    monkeypatch.setattr(base, "STOP_SECONDS", 0.1)


@pytest.mark.usefixtures("impatient")
def test_a_round_that_hangs_is_left_behind_with_a_warning(
    make: Callable[..., Monitor], caplog: pytest.LogCaptureFixture
) -> None:
    leave = threading.Event()
    monitor = make(leave.wait, check_interval=60)
    monitor.start()
    eventually(lambda: monitor.rounds == 1, seconds=2)
    with within(1):
        monitor.stop()
    assert not monitor.running
    assert "left behind" in caplog.text
    leave.set()


@pytest.mark.usefixtures("impatient")
def test_a_round_that_was_left_behind_knows_it_also_when_the_monitor_was_started_again(
    make: Callable[..., Monitor],
) -> None:
    leave, seen = threading.Event(), []

    def act() -> None:
        if monitor.rounds == 1:
            leave.wait(5)
        seen.append(monitor.stopping)

    monitor = make(act)
    monitor.start()
    eventually(lambda: monitor.rounds == 1, seconds=2)
    monitor.stop()
    monitor.start()
    assert eventually(lambda: seen[:1] == [False], seconds=2)
    seen.clear()
    leave.set()
    assert eventually(lambda: True in seen, seconds=2)
    assert seen.count(True) == 1


def test_outside_of_a_round_nothing_is_stopping(make: Callable[..., Monitor]) -> None:
    monitor = make()
    assert not monitor.stopping
    monitor.start()
    monitor.stop()
    assert not monitor.stopping
    monitor.tick()


def test_a_round_may_stop_its_own_monitor(make: Callable[..., Monitor]) -> None:
    monitor = make(lambda: monitor.stop())
    monitor.start()
    assert eventually(lambda: not monitor.running, seconds=2)
    time.sleep(0.03)
    assert monitor.rounds == 1


def test_starting_and_stopping_from_many_threads_ends_in_one_state(make: Callable[..., Monitor]) -> None:
    monitor = make()
    threads = [
        threading.Thread(daemon=True, target=monitor.start if number % 2 else monitor.stop) for number in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    monitor.stop()
    rounds = monitor.rounds
    time.sleep(0.03)
    assert monitor.rounds == rounds


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf"), None, "30"])
def test_an_impossible_interval_is_refused(interval: Any) -> None:
    with pytest.raises(InvalidInput, match="check_interval"):
        Monitor(check_interval=interval)


def test_a_monitor_that_says_nothing_of_its_rounds_cannot_be_made() -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseThreadMonitor(1)  # type: ignore[abstract]  # that is the point
