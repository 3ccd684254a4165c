"""Idle sessions expire; active ones never do, whatever the clock says."""

from __future__ import annotations

import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from podkit._models import session as session_model
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus, Session
from podkit.core.session import BaseSessionManager
from podkit.errors import EngineError
from podkit.testing import FakeBackend
from tests.unit.support import Recorder, names_on


@pytest.fixture
def session(sessions: BaseSessionManager) -> Session:
    return sessions.create_session("bob", "1", ContainerConfig(session_inactivity_timeout_seconds=100))


def make_idle(session: Session, seconds: float = 101) -> None:
    session.last_active_at = datetime.now(UTC) - timedelta(seconds=seconds)


def expired(sessions: BaseSessionManager) -> list[str]:
    return [session.session_id for session in sessions.cleanup_expired_sessions()]


def test_an_idle_session_is_closed_and_told(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session, recorder: Recorder
) -> None:
    recorder.events.clear()
    make_idle(session)
    assert sessions.cleanup_expired_sessions() == [session]
    assert names_on(fake) == []
    assert recorder.names == ["on_session_expired", "on_session_closing", "on_container_removed", "on_session_closed"]
    assert sessions.get_session("bob", "1") is None
    assert session.status is ContainerStatus.STOPPED


def test_the_workspace_of_an_expired_session_stays(sessions: BaseSessionManager, session: Session) -> None:
    sessions.write_file("bob", "1", "a", "kept")
    make_idle(session)
    assert expired(sessions) == ["1"]
    sessions.create_session("bob", "1")
    assert sessions.read_file("bob", "1", "a") == "kept"


def test_a_session_that_is_not_idle_for_long_enough_stays(sessions: BaseSessionManager, session: Session) -> None:
    make_idle(session, 99)
    assert expired(sessions) == []
    assert sessions.get_session("bob", "1") is session


def test_only_the_idle_ones_go(fake: FakeBackend, sessions: BaseSessionManager, session: Session) -> None:
    sessions.create_session("bob", "2")
    make_idle(session)
    assert expired(sessions) == ["1"]
    assert len(names_on(fake)) == 1


def test_an_assigned_timeout_counts(sessions: BaseSessionManager, session: Session) -> None:
    make_idle(session, 50)
    session.session_inactivity_timeout_seconds = 49
    assert expired(sessions) == ["1"]


@pytest.mark.parametrize("act", ["execute", "write", "read", "activity", "create"])
def test_whatever_uses_a_session_moves_its_idle_clock(sessions: BaseSessionManager, session: Session, act: str) -> None:
    sessions.write_file("bob", "1", "a", "x")
    make_idle(session)
    acts = {
        "execute": lambda: sessions.execute_command("bob", "1", "true"),
        "write": lambda: sessions.write_file("bob", "1", "a", "x"),
        "read": lambda: sessions.read_file("bob", "1", "a"),
        "activity": lambda: sessions.update_session_activity("bob", "1"),
        "create": lambda: sessions.create_session("bob", "1"),
    }
    acts[act]()
    assert expired(sessions) == []
    assert session.idle_seconds < 5


def test_looking_at_a_session_is_no_activity(sessions: BaseSessionManager, session: Session) -> None:
    make_idle(session)
    sessions.get_session("bob", "1")
    sessions.list_sessions()
    assert expired(sessions) == ["1"]


def test_a_session_with_a_running_command_is_not_idle(sessions: BaseSessionManager, session: Session) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold(text: str) -> None:
        entered.set()
        leave.wait(5)

    thread = threading.Thread(
        daemon=True, target=lambda: sessions.execute_command("bob", "1", "echo hello", on_stdout=hold)
    )
    thread.start()
    entered.wait(5)
    make_idle(session)
    assert expired(sessions) == []
    leave.set()
    thread.join()
    assert session.idle_seconds < 5


def test_a_command_that_runs_below_the_session_manager_keeps_a_session(
    sessions: BaseSessionManager, manager: SimpleContainerManager, session: Session
) -> None:
    running = threading.Event()
    thread = threading.Thread(
        daemon=True,
        target=lambda: manager.execute_command(
            session.container_id or "", "hello 0.3", on_stdout=lambda text: running.set()
        ),
    )
    thread.start()
    running.wait(5)
    make_idle(session)
    assert expired(sessions) == []
    thread.join()


@pytest.mark.parametrize("days", [30, -30, 1 / 24, -1 / 24])
def test_no_active_session_goes_when_the_clock_jumps(
    sessions: BaseSessionManager, session: Session, monkeypatch: pytest.MonkeyPatch, days: float
) -> None:
    # the wall clock is replaced in its module: a session has no seam for it
    monkeypatch.setattr(session_model, "utc_now", lambda: datetime.now(UTC) + timedelta(days=days))
    assert expired(sessions) == []


def test_a_clock_that_stands_still_removes_no_active_session(
    sessions: BaseSessionManager, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    still = datetime.now(UTC)
    monkeypatch.setattr(session_model, "utc_now", lambda: still)
    sessions.update_session_activity("bob", "1")
    assert expired(sessions) == []


def test_one_session_that_cannot_be_closed_does_not_keep_the_others(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    others = [sessions.create_session("bob", str(number)) for number in (2, 3)]
    for one in (session, *others):
        make_idle(one, 4000)
    fake.fail("remove_workload", EngineError("stuck"))
    with suppress(EngineError):
        sessions.cleanup_expired_sessions()
    assert len(names_on(fake)) == 1
    assert expired(sessions) == ["1"]


def test_a_session_that_is_being_made_does_not_keep_the_others_from_expiring(
    sessions: BaseSessionManager, recorder: Recorder, session: Session
) -> None:
    """Making one may take minutes, such as for pulling its image."""
    entered, leave, cleaned = threading.Event(), threading.Event(), threading.Event()

    def slow(config: ContainerConfig) -> ContainerConfig:
        entered.set()
        leave.wait(3)
        return config

    def clean() -> None:
        if expired(sessions) == ["1"]:
            cleaned.set()

    recorder.change = slow
    threads = [
        threading.Thread(daemon=True, target=lambda: sessions.create_session("eve", "0")),
        threading.Thread(target=clean),
    ]
    threads[0].start()
    entered.wait(5)
    make_idle(session)
    threads[1].start()
    in_time = cleaned.wait(0.5)
    leave.set()
    for thread in threads:
        thread.join()
    assert in_time


def test_a_session_expires_by_the_ids_that_it_was_made_with(fake: FakeBackend, sessions: BaseSessionManager) -> None:
    """Its object is its caller's, who may assign to it."""
    idle = sessions.create_session("bob", "1", ContainerConfig(session_inactivity_timeout_seconds=60))
    kept = sessions.create_session("bob", "2")
    idle.last_active_at -= timedelta(hours=1)
    idle.session_id = "2"

    assert sessions.cleanup_expired_sessions() == [idle]
    assert names_on(fake) == [kept.container_name]
