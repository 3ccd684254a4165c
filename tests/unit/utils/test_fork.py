"""What a child of `os.fork()` finds, where a thread of its parent held every lock at the fork."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from podkit.core._ports import PortPool
from podkit.core.session import BaseSessionManager
from podkit.monitors.base import BaseThreadMonitor
from podkit.testing import FakeBackend
from podkit.utils._fork import renew_after_fork
from tests.unit.support import in_child


@contextmanager
def held_by_another_thread(lock: Any) -> Iterator[None]:
    """Have a thread hold the lock."""
    ready, done = threading.Event(), threading.Event()

    def hold() -> None:
        with lock:
            ready.set()
            done.wait(5)

    thread = threading.Thread(daemon=True, target=hold)
    thread.start()
    ready.wait(5)
    try:
        yield
    finally:
        done.set()
        thread.join()


class Thing:
    def __init__(self) -> None:
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self.lock = threading.Lock()


def test_a_lock_that_was_held_at_the_fork_is_free_in_the_child() -> None:
    thing = Thing()

    def act() -> None:
        assert thing.lock.acquire(timeout=1)

    with held_by_another_thread(thing.lock):
        in_child(act)
        assert thing.lock.locked()


def test_control_a_lock_that_nobody_renews_stays_locked_in_the_child() -> None:
    lock = threading.Lock()

    def act() -> None:
        assert not lock.acquire(timeout=0.05)

    with held_by_another_thread(lock):
        in_child(act)


def test_a_thing_that_is_gone_is_not_renewed() -> None:
    class Gone(Thing):
        renewed = 0

        def _after_fork(self) -> None:
            Gone.renewed += 1

    Gone()
    gc.collect()

    def act() -> None:
        assert Gone.renewed == 1

    in_child(act)


def test_a_childs_child_is_a_child_too() -> None:
    thing = Thing()

    def act() -> None:
        assert thing.lock.acquire(timeout=1)

    with held_by_another_thread(thing.lock):
        in_child(lambda: in_child(act))


def test_a_child_that_is_forked_during_a_creation_can_use_the_same_managers(
    fake: FakeBackend, sessions: BaseSessionManager
) -> None:
    sessions.create_session("bob", "1")
    entered, leave = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        leave.wait(5)

    def act() -> None:
        assert sessions.execute_command("bob", "1", "echo hello").stdout == "hello\n"
        sessions.create_session("bob", "2")
        sessions.create_session("bob", "3")
        sessions.close_session("bob", "2")

    fake.interpose("create_workload", slow)
    thread = threading.Thread(daemon=True, target=sessions.create_session, args=("bob", "2"))
    thread.start()
    entered.wait(5)  # the fake and the entry of session 2 are locked now
    in_child(act)
    leave.set()
    thread.join()
    assert sessions.execute_command("bob", "2", "echo hello").ok


def test_a_port_pool_works_in_a_forked_child() -> None:
    pool = PortPool(1000, 1009, 2)

    def act() -> None:
        assert pool.allocate() == [1000, 1001]

    with held_by_another_thread(pool._lock):
        in_child(act)


class Monitor(BaseThreadMonitor):
    def __init__(self) -> None:
        super().__init__(60)
        self.ticked = threading.Event()

    def tick(self) -> None:
        self.ticked.set()


def test_a_monitor_does_not_run_in_a_forked_child_until_it_is_started_there() -> None:
    monitor = Monitor()
    monitor.start()
    assert monitor.ticked.wait(2)

    def act() -> None:
        monitor.ticked = threading.Event()
        assert not monitor.running
        monitor.start()
        assert monitor.ticked.wait(2)
        monitor.stop()

    in_child(act)
    assert monitor.running
    monitor.stop()
