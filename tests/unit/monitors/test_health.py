"""What the health monitor does about containers that are stopped, killed, lost or idle; one round at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus, Session
from podkit.core.session import BaseSessionManager
from podkit.errors import EngineError, EngineUnavailable
from podkit.monitors import base
from podkit.monitors.health import RESTARTS, ContainerHealthMonitor
from podkit.testing import FakeBackend, Pause, Steps
from tests.support.waiting import eventually, within
from tests.unit.support import Recorder, inspected, names_on

RUNNING, EXITED = ContainerStatus.RUNNING, ContainerStatus.EXITED


@pytest.fixture
def monitor(manager: SimpleContainerManager, sessions: BaseSessionManager) -> ContainerHealthMonitor:
    """A monitor of `sessions`, whose rounds the tests run themselves."""
    monitor = ContainerHealthMonitor(manager)
    monitor.register(sessions)
    return monitor


@pytest.fixture
def session(sessions: BaseSessionManager) -> Session:
    return sessions.create_session("bob", "1")


@pytest.fixture
def id(session: Session) -> str:
    assert session.container_id is not None
    return session.container_id


def chatter(run: object) -> Steps:
    yield "".join(f"line {number}\n" for number in range(100))
    yield Pause(60)
    return 0


# --- decisions -------------------------------------------------------------------------------------


def test_a_running_container_is_left_alone(fake: FakeBackend, monitor: ContainerHealthMonitor, id: str) -> None:
    fake.calls.clear()
    monitor.tick()
    assert set(fake.calls) == {"inspect_workload"}


@pytest.mark.parametrize("exit_code", [143, 1])
def test_a_container_that_was_stopped_or_failed_is_restarted_and_keeps_its_id(
    fake: FakeBackend, monitor: ContainerHealthMonitor, session: Session, id: str, exit_code: int
) -> None:
    fake.end(id, exit_code)
    monitor.tick()
    assert inspected(fake, id).status is RUNNING
    assert (session.container_id, session.status, session.metadata) == (id, RUNNING, {})


def test_a_container_that_ended_its_own_lifetime_is_left_as_it_is(
    fake: FakeBackend, monitor: ContainerHealthMonitor, sessions: BaseSessionManager, session: Session, id: str
) -> None:
    fake.end(id, 0)
    monitor.tick()
    assert inspected(fake, id).status is EXITED
    assert session.status is not ContainerStatus.ERROR
    assert sessions.execute_command("bob", "1", "echo hello").ok
    assert session.container_id == id


def test_a_paused_container_is_left_as_it_is(fake: FakeBackend, monitor: ContainerHealthMonitor, id: str) -> None:
    fake.pause(id)
    monitor.tick()
    assert inspected(fake, id).status is ContainerStatus.PAUSED


def test_a_container_that_ran_out_of_memory_marks_its_session_with_reason_and_log(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    fake.programs["chatter"] = chatter
    session = sessions.create_session("bob", "1", ContainerConfig(command=["chatter"]))
    monitor = ContainerHealthMonitor(manager, log_lines=3)
    monitor.register(sessions)
    fake.end(session.container_id or "", 137, oom=True)
    monitor.tick()
    assert (session.status, session.container_id) == (ContainerStatus.ERROR, None)
    assert session.metadata["failure_status"] == "exited"
    assert "out of memory" in session.metadata["failure_reason"]
    assert session.metadata["failure_log"] == "line 97\nline 98\nline 99\n"


def test_a_container_that_is_gone_marks_its_session(
    fake: FakeBackend, monitor: ContainerHealthMonitor, session: Session, id: str
) -> None:
    fake.vanish(id)
    monitor.tick()
    assert (session.status, session.container_id) == (ContainerStatus.ERROR, None)
    assert "gone" in session.metadata["failure_reason"]


def test_the_next_command_recreates_what_was_marked_and_clears_the_marks(
    fake: FakeBackend, monitor: ContainerHealthMonitor, sessions: BaseSessionManager, session: Session, id: str
) -> None:
    fake.vanish(id)
    monitor.tick()
    assert sessions.execute_command("bob", "1", "echo hello").stdout == "hello\n"
    assert session.container_id not in (None, id)
    assert (session.status, session.metadata) == (RUNNING, {})
    fake.end(session.container_id or "", 143)
    monitor.tick()
    assert inspected(fake, session.container_id or "").status is RUNNING


def test_a_session_that_was_marked_is_not_marked_again(
    fake: FakeBackend, monitor: ContainerHealthMonitor, session: Session, id: str
) -> None:
    fake.vanish(id)
    monitor.tick()
    session.metadata.clear()
    monitor.tick()
    assert session.metadata == {}


def test_a_session_that_was_marked_is_recreated_by_nobody_but_a_command(
    fake: FakeBackend, monitor: ContainerHealthMonitor, session: Session, id: str
) -> None:
    fake.vanish(id)
    for _ in range(3):
        monitor.tick()
    assert names_on(fake) == []


def test_a_session_that_expired_is_closed(
    fake: FakeBackend, monitor: ContainerHealthMonitor, session: Session, recorder: Recorder
) -> None:
    session.last_active_at = datetime.now(UTC) - timedelta(days=1)
    monitor.tick()
    assert names_on(fake) == []
    assert "on_session_expired" in recorder.names


def test_without_sessions_a_monitor_restarts_and_warns(
    fake: FakeBackend, manager: SimpleContainerManager, caplog: pytest.LogCaptureFixture
) -> None:
    config = ContainerConfig()
    ids = [manager.create_container("bob", str(number), config)[0] for number in range(2)]
    for id in ids:
        manager.start_container(id, config)
    fake.end(ids[0], 143)
    fake.vanish(ids[1])
    ContainerHealthMonitor(manager).tick()
    assert inspected(fake, ids[0]).status is RUNNING
    assert "failed" in caplog.text


# --- what does not stay up -------------------------------------------------------------------------


def test_a_container_that_does_not_come_up_is_restarted_a_bounded_number_of_times(
    fake: FakeBackend, monitor: ContainerHealthMonitor, session: Session, id: str
) -> None:
    for _ in range(RESTARTS):
        fake.end(id, 1)
        monitor.tick()
        assert session.status is RUNNING
    fake.end(id, 1)
    monitor.tick()
    assert (session.status, session.container_id) == (ContainerStatus.ERROR, None)
    assert "exit code 1" in session.metadata["failure_reason"]


def test_a_container_that_dies_soon_after_each_start_is_given_up_too(
    fake: FakeBackend, monitor: ContainerHealthMonitor, session: Session, id: str
) -> None:
    """It is seen running in between: that alone is no health. Bounded restarts, then ERROR."""
    for _ in range(10 * RESTARTS):
        if session.status is ContainerStatus.ERROR:
            break
        fake.end(id, 1)
        monitor.tick()
        monitor.tick()  # it runs, for now
    assert session.status is ContainerStatus.ERROR


def test_a_container_that_cannot_be_restarted_is_tried_again_and_then_given_up(
    fake: FakeBackend, monitor: ContainerHealthMonitor, session: Session, id: str
) -> None:
    fake.end(id, 143)
    fake.fail("start_workload", EngineError("no"), times=100)
    for _ in range(RESTARTS + 1):
        monitor.tick()
    assert session.status is ContainerStatus.ERROR


def test_a_container_that_another_process_brings_back_in_the_last_moment_is_not_given_up(
    fake: FakeBackend, monitor: ContainerHealthMonitor, session: Session, id: str
) -> None:
    fake.end(id, 137)
    fake.interpose("get_workload_logs", lambda: fake.start_workload(id))
    monitor.tick()
    assert session.status is not ContainerStatus.ERROR
    fake.end(id, 143)
    monitor.tick()
    assert inspected(fake, id).status is RUNNING


def test_a_container_that_was_given_up_and_runs_again_is_watched_again(
    fake: FakeBackend, manager: SimpleContainerManager, id: str
) -> None:
    alone = ContainerHealthMonitor(manager)  # of containers without sessions
    fake.end(id, 137)
    alone.tick()
    fake.start_workload(id)
    alone.tick()
    fake.end(id, 143)
    alone.tick()
    assert inspected(fake, id).status is RUNNING


# --- one for all -----------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [EngineError("broken"), RuntimeError("a defect"), RecursionError()], ids=repr)
def test_a_check_that_fails_does_not_keep_the_others(
    fake: FakeBackend, monitor: ContainerHealthMonitor, sessions: BaseSessionManager, error: Exception
) -> None:
    ids = [sessions.create_session("bob", str(number)).container_id or "" for number in range(3)]
    for id in ids:
        fake.end(id, 143)
    fake.fail("inspect_workload", error)
    monitor.tick()
    assert [inspected(fake, id).status for id in ids] == [EXITED, RUNNING, RUNNING]


@pytest.mark.parametrize("error", [ValueError("mine"), RecursionError(), SystemExit(1)], ids=repr)
@pytest.mark.parametrize("event", ["on_session_expired", "on_session_closing", "on_container_removed"])
def test_a_handler_that_raises_does_not_keep_the_others(
    fake: FakeBackend,
    monitor: ContainerHealthMonitor,
    sessions: BaseSessionManager,
    recorder: Recorder,
    error: BaseException,
    event: str,
) -> None:
    """It is logged, and the others are looked after; a thread takes SystemExit for its own end."""
    for number in range(3):
        sessions.create_session("bob", str(number)).last_active_at = datetime.now(UTC) - timedelta(days=1)
    recorder.raising[event] = error
    for _ in range(3):  # a round may end with what a handler raised, the next one must go further
        try:
            monitor.tick()
        except SystemExit:
            continue
    assert names_on(fake) == []


def test_an_engine_that_is_away_changes_nothing(
    fake: FakeBackend, monitor: ContainerHealthMonitor, sessions: BaseSessionManager
) -> None:
    made = [sessions.create_session("bob", str(number)) for number in range(10)]
    ids = [session.container_id for session in made]
    fake.go_down()
    for _ in range(3):
        try:
            monitor.tick()
        except EngineUnavailable:
            continue
    fake.recover()
    monitor.tick()
    assert [session.container_id for session in made] == ids
    assert {session.status for session in made} == {RUNNING}
    assert len(names_on(fake)) == 10


def test_a_session_that_is_closed_during_its_check_is_not_resurrected(
    fake: FakeBackend, monitor: ContainerHealthMonitor, sessions: BaseSessionManager, session: Session, id: str
) -> None:
    fake.end(id, 143)
    fake.interpose("inspect_workload", lambda: sessions.close_session("bob", "1"), after=True)
    monitor.tick()
    assert names_on(fake) == []
    assert sessions.get_session("bob", "1") is None


def test_closing_against_checking_never_resurrects_a_session(
    fake: FakeBackend, monitor: ContainerHealthMonitor, sessions: BaseSessionManager
) -> None:
    stop = threading.Event()

    def check() -> None:
        while not stop.is_set():
            monitor.tick()

    checker = threading.Thread(daemon=True, target=check)
    checker.start()
    for _ in range(50):
        session = sessions.create_session("bob", "1")
        fake.end(session.container_id or "", 143)
        sessions.close_session("bob", "1")
    stop.set()
    checker.join()
    assert names_on(fake) == []


def test_a_container_that_a_timed_out_command_kills_is_not_taken_for_a_broken_one(
    fake: FakeBackend, monitor: ContainerHealthMonitor, sessions: BaseSessionManager, session: Session, id: str
) -> None:
    check = threading.Thread(daemon=True, target=monitor.tick)

    def in_the_middle() -> None:
        fake.end(id, 137)
        check.start()

    fake.interpose("restart_workload", in_the_middle)
    result = sessions.execute_command("bob", "1", "sleep 60", timeout=0.05)
    check.join()
    assert result.timed_out
    assert (session.container_id, session.status, session.metadata) == (id, RUNNING, {})


# --- with its session manager ----------------------------------------------------------------------


@pytest.fixture
def watched(manager: SimpleContainerManager, recorder: Recorder) -> Iterator[BaseSessionManager]:
    """A session manager with a monitor that runs by itself."""
    monitor = ContainerHealthMonitor(manager, check_interval=0.01)
    yield BaseSessionManager(manager, health_monitor=monitor, event_handler=recorder)
    monitor.stop()


def monitor_of(sessions: BaseSessionManager) -> ContainerHealthMonitor:
    assert isinstance(sessions.health_monitor, ContainerHealthMonitor)
    return sessions.health_monitor


def test_a_monitor_that_is_handed_to_a_session_manager_is_registered_and_started(
    fake: FakeBackend, watched: BaseSessionManager
) -> None:
    assert monitor_of(watched).running
    session = watched.create_session("bob", "1")
    fake.vanish(session.container_id or "")
    assert eventually(lambda: session.status is ContainerStatus.ERROR, seconds=2)


def test_cleaning_up_stops_the_monitor(watched: BaseSessionManager) -> None:
    watched.create_session("bob", "1")
    watched.cleanup_all()
    assert not monitor_of(watched).running


def test_stopping_does_not_wait_for_a_frozen_engine(
    fake: FakeBackend, watched: BaseSessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "STOP_SECONDS", 0.1)  # it is 4 s: too long for a unit test
    watched.create_session("bob", "1")
    frozen = threading.Event()

    def freeze() -> None:
        fake.freeze()
        frozen.set()

    fake.interpose("inspect_workload", freeze)
    frozen.wait(2)
    with within(1):
        monitor_of(watched).stop()
    fake.recover()


def test_stopping_from_a_handler_does_not_wait_for_itself(watched: BaseSessionManager, recorder: Recorder) -> None:
    stopped = threading.Event()

    class Stopper(Recorder):
        def on_session_expired(self, session: Session) -> None:
            monitor_of(watched).stop()
            stopped.set()

    watched.event_handler = Stopper()
    watched.create_session("bob", "1").last_active_at = datetime.now(UTC) - timedelta(days=1)
    assert stopped.wait(2)
    assert not monitor_of(watched).running
