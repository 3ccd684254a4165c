"""Sessions survive what happens to their containers: the next command starts or recreates them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus, Mount, Session
from podkit.core.session import BaseSessionManager
from podkit.errors import (
    CommandInterrupted,
    ContainerFailedToStart,
    ContainerNotFound,
    ContainerNotRunning,
    EngineError,
    EngineUnavailable,
    PodkitError,
    SessionNotFound,
)
from podkit.testing import FakeBackend, Pause, Steps
from tests.support.waiting import within
from tests.unit.support import Recorder, another, inspected, make_spec, names_on

CONFIG = ContainerConfig(ports=[8080], environment={"TOKEN": "s"}, volumes=[Mount(target="/scratch", type="tmpfs")])


@pytest.fixture
def session(fake: FakeBackend, sessions: BaseSessionManager) -> Session:
    """A session with a file, a port and an environment."""
    session = sessions.create_session("bob", "1", CONFIG)
    sessions.write_file("bob", "1", "a", "kept")
    fake.calls.clear()
    return session


def run(sessions: BaseSessionManager) -> str:
    return sessions.execute_command("bob", "1", "echo hello").stdout


LOST: dict[str, Callable[[FakeBackend, Session], object]] = {
    "removed": lambda fake, session: fake.vanish(id_of(session)),
    "out of memory": lambda fake, session: fake.end(id_of(session), 137, oom=True),
    "marked": lambda fake, session: setattr(session, "status", ContainerStatus.ERROR),
}
STOPPED: dict[str, Callable[[FakeBackend, Session], object]] = {
    "at the end of its lifetime": lambda fake, session: fake.end(id_of(session), 0),
    "by SIGTERM": lambda fake, session: fake.end(id_of(session), 143),
    "by its own failure": lambda fake, session: fake.end(id_of(session), 1),
}


def id_of(session: Session) -> str:
    assert session.container_id is not None
    return session.container_id


@pytest.mark.parametrize("how", STOPPED)
def test_a_container_that_stopped_is_started_by_the_next_command(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session, how: str
) -> None:
    before = session.container_id
    STOPPED[how](fake, session)
    assert run(sessions) == "hello\n"
    assert (session.container_id, session.status) == (before, ContainerStatus.RUNNING)


@pytest.mark.parametrize("how", LOST)
def test_a_container_that_is_lost_is_recreated_by_the_next_command_just_as_it_was(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session, how: str
) -> None:
    before, name = session.container_id, session.container_name
    LOST[how](fake, session)
    assert run(sessions) == "hello\n"
    assert session.container_id != before
    assert (session.container_name, session.status) == (name, ContainerStatus.RUNNING)
    assert names_on(fake) == [name]
    info = inspected(fake, id_of(session))
    assert info.environment["TOKEN"] == "s"
    assert sorted(target for _, target in info.mounts) == ["/scratch", "/workspace"]
    assert fake.get_accessible_ports(info.id) == {8080: 8080}
    assert sessions.read_file("bob", "1", "a") == "kept"


def test_a_container_that_was_killed_is_recreated_once_it_is_clear_that_nobody_starts_it(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    before = session.container_id
    fake.end(id_of(session), 137)
    with within(3):
        assert run(sessions) == "hello\n"
    assert session.container_id != before


# a mark is known to its own manager alone
@pytest.mark.parametrize("how", [how for how in (*LOST, *STOPPED) if how != "marked"])
def test_reconnecting_brings_back_what_is_lost(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager, session: Session, how: str
) -> None:
    (LOST | STOPPED)[how](fake, session)
    found = another(manager).create_session("bob", "1")
    assert inspected(fake, id_of(found)).status is ContainerStatus.RUNNING
    assert len(names_on(fake)) == 1


@pytest.mark.parametrize("how", ["removed", "out of memory"])
def test_creating_again_brings_back_the_same_object(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session, how: str
) -> None:
    LOST[how](fake, session)
    assert sessions.create_session("bob", "1", CONFIG) is session
    assert inspected(fake, id_of(session)).status is ContainerStatus.RUNNING


def test_a_new_manager_recreates_what_ran_out_of_memory_with_its_configuration(
    fake: FakeBackend, manager: SimpleContainerManager, session: Session
) -> None:
    fake.end(id_of(session), 137, oom=True)
    found = another(manager).create_session("bob", "1")
    assert found.config == session.config
    assert inspected(fake, id_of(found)).environment["TOKEN"] == "s"


def test_files_are_written_to_a_lost_session_too(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    fake.vanish(id_of(session))
    sessions.write_file("bob", "1", "/etc/motd", "x")
    assert sessions.read_file("bob", "1", "/etc/motd") == "x"


def test_what_an_event_handler_decided_stays_at_a_recreation(
    fake: FakeBackend, sessions: BaseSessionManager, recorder: Recorder
) -> None:
    ports = iter([[9000], [9001]])
    recorder.change = lambda config: config.model_copy(update={"ports": next(ports)})
    session = sessions.create_session("bob", "1")
    fake.vanish(id_of(session))
    run(sessions)
    assert fake.get_accessible_ports(id_of(session)) == {9000: 9000}
    assert recorder.names.count("on_container_creating") == 1
    assert recorder.names.count("on_session_created") == 1


def test_a_recreation_clears_what_the_health_monitor_noted(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    session.metadata["mine"] = "kept"
    fake.end(id_of(session), 137, oom=True)
    sessions.mark_failed(id_of(session), "last words")
    assert session.metadata["failure_log"] == "last words"
    run(sessions)
    assert session.metadata == {"mine": "kept"}


# --- what cannot be brought back -------------------------------------------------------------------


def test_a_paused_container_is_an_error_and_is_left_alone(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    fake.pause(id_of(session))
    with pytest.raises(ContainerNotRunning, match=r"paused.*unpause"):
        run(sessions)
    assert inspected(fake, id_of(session)).status is ContainerStatus.PAUSED
    fake.unpause(id_of(session))
    assert run(sessions) == "hello\n"


def test_a_paused_session_cannot_be_opened_again(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager, session: Session
) -> None:
    fake.pause(id_of(session))
    for asked in (sessions, another(manager)):
        with pytest.raises(ContainerNotRunning, match="paused"):
            asked.create_session("bob", "1")
    assert inspected(fake, id_of(session)).status is ContainerStatus.PAUSED


def test_a_paused_session_can_be_closed(fake: FakeBackend, sessions: BaseSessionManager, session: Session) -> None:
    fake.pause(id_of(session))
    sessions.close_session("bob", "1")
    assert names_on(fake) == []


def test_a_recreation_that_fails_is_tried_again_by_the_next_command(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    fake.vanish(id_of(session))
    fake.fail("create_workload", EngineError("no space"))
    with pytest.raises(EngineError, match="no space"):
        run(sessions)
    assert (session.status, session.container_id) == (ContainerStatus.ERROR, None)
    assert run(sessions) == "hello\n"
    assert session.status is ContainerStatus.RUNNING


def test_a_session_without_a_container_can_be_closed(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    fake.vanish(id_of(session))
    fake.fail("create_workload", EngineError("no space"))
    with pytest.raises(EngineError):
        run(sessions)
    sessions.close_session("bob", "1")
    assert sessions.get_session("bob", "1") is None


def test_a_stranger_that_took_the_name_is_not_touched(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    fake.vanish(id_of(session))
    stranger = fake.create_workload(make_spec(session.container_name))
    with pytest.raises(EngineError, match="not touched"):
        run(sessions)
    assert inspected(fake, stranger).status is ContainerStatus.CREATING


def test_a_container_that_is_lost_for_ever_is_given_up(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    fake.interpose("open_stream", lambda: fake.vanish(id_of(session)), times=1_000_000)
    with within(5), pytest.raises(PodkitError):
        sessions.execute_command("bob", "1", "echo hello", timeout=0.1)


def test_a_container_that_is_lost_again_and_again_is_given_up_also_by_who_set_no_timeout(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podkit.core._session_entry.LOST_SECONDS", 0.1)
    fake.interpose("open_stream", lambda: fake.vanish(id_of(session)), times=1_000_000)
    with within(5), pytest.raises(ContainerNotFound):
        run(sessions)


def test_a_session_that_is_closed_again_and_again_is_given_up(
    fake: FakeBackend, sessions: BaseSessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podkit.core._session_entry.LOST_SECONDS", 0.1)
    fake.fail("start_workload", ContainerNotFound("closed by another process"), times=1_000_000)
    with within(5), pytest.raises(ContainerNotFound):
        sessions.create_session("bob", "2")


def test_a_container_that_is_lost_many_times_in_a_row_is_brought_back_each_time(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    fake.interpose("open_stream", lambda: fake.vanish(id_of(session)), times=20)
    assert run(sessions) == "hello\n"


@pytest.mark.parametrize("exit_code", [0, 3])
def test_a_main_process_that_ends_after_each_start_is_given_up_after_three_ends(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session, exit_code: int
) -> None:
    fake.interpose("open_stream", lambda: fake.end(id_of(session), exit_code), times=3)
    with pytest.raises(ContainerFailedToStart, match=f"failed to start.*exit code {exit_code}"):
        run(sessions)
    assert run(sessions) == "hello\n"  # the next command tries again


@pytest.mark.parametrize("exit_code", [137, 143])
def test_a_container_that_is_stopped_again_and_again_from_outside_is_brought_back_each_time(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session, exit_code: int
) -> None:
    fake.interpose("open_stream", lambda: fake.end(id_of(session), exit_code), times=4)
    assert run(sessions) == "hello\n"


def test_a_container_whose_end_the_engine_notices_late_is_brought_back(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    """It refuses commands already, and still says that the container runs."""

    def refuse_again() -> None:
        fake.end(id_of(session), 0)
        raise ContainerNotRunning("about to end")

    fake.fail("open_stream", ContainerNotRunning("about to end"), times=4)
    fake.interpose("open_stream", refuse_again)
    assert run(sessions) == "hello\n"


def test_a_session_whose_container_another_process_keeps_closing_is_opened_in_the_end(
    fake: FakeBackend, sessions: BaseSessionManager
) -> None:
    fake.fail("start_workload", ContainerNotFound("closed by another process"), times=10)
    sessions.create_session("bob", "2")
    assert sessions.execute_command("bob", "2", "echo hello").stdout == "hello\n"


# --- commands --------------------------------------------------------------------------------------


def test_a_container_that_is_lost_right_before_its_command_is_recreated_and_the_command_runs_once(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    fake.interpose("open_stream", lambda: fake.vanish(id_of(session)))
    runs: list[str] = []

    def once(run: Any) -> Steps:
        runs.append(run.workload_id)
        yield "ran\n"
        return 0

    fake.programs["once"] = once
    assert sessions.execute_command("bob", "1", ["once"]).stdout == "ran\n"
    assert runs == [session.container_id]


@pytest.mark.parametrize("how", ["removed", "out of memory"])
def test_a_command_whose_container_is_lost_under_it_is_never_sent_again(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session, how: str
) -> None:
    runs: list[str] = []

    def doomed(run: Any) -> Steps:
        runs.append(run.workload_id)
        yield "so far"
        yield Pause(60)
        return 0

    fake.programs["doomed"] = doomed
    fake.interpose("read", lambda: None)
    fake.interpose("read", lambda: LOST[how](fake, session))
    with pytest.raises(CommandInterrupted) as caught:
        sessions.execute_command("bob", "1", ["doomed"])
    assert caught.value.result is not None
    assert caught.value.result.stdout == "so far"
    assert len(runs) == 1
    assert run(sessions) == "hello\n"


def test_an_engine_that_goes_away_and_comes_back_costs_no_second_container(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    before = session.container_id
    fake.go_down()
    with pytest.raises(EngineUnavailable):
        run(sessions)
    assert session.status is not ContainerStatus.ERROR
    fake.recover()
    assert run(sessions) == "hello\n"
    assert session.container_id == before
    assert len(names_on(fake)) == 1


def test_a_command_that_timed_out_leaves_the_session_usable_in_the_same_container(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    before = session.container_id
    result = sessions.execute_command("bob", "1", "sleep 60", timeout=0.1)
    assert (result.exit_code, result.timed_out, result.container_restarted) == (124, True, True)
    assert run(sessions) == "hello\n"
    assert session.container_id == before


# --- what the health monitor asks ------------------------------------------------------------------


def test_a_session_that_is_marked_has_its_reason_and_no_container(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    id = id_of(session)
    fake.end(id, 137, oom=True)
    sessions.mark_failed(id, "last words")
    assert (session.status, session.container_id) == (ContainerStatus.ERROR, None)
    assert session.metadata["failure_status"] == "exited"
    assert "out of memory" in session.metadata["failure_reason"]
    assert session.metadata["failure_log"] == "last words"


def test_a_container_that_was_recovered_meanwhile_is_not_marked(sessions: BaseSessionManager, session: Session) -> None:
    sessions.mark_failed(id_of(session), "old news")
    assert session.status is ContainerStatus.RUNNING
    assert session.metadata == {}


def test_a_session_that_is_being_recovered_is_not_marked_for_its_old_container(
    fake: FakeBackend, sessions: BaseSessionManager, session: Session
) -> None:
    """The health monitor found the old container lost, and had to wait for a command that recreates it."""
    old = id_of(session)
    late = threading.Thread(daemon=True, target=lambda: sessions.mark_failed(old, "old news"))

    def recovering() -> None:
        late.start()
        late.join(0.05)  # it waits for this recovery

    fake.vanish(old)
    fake.interpose("inspect_workload", lambda: None)
    fake.interpose("inspect_workload", recovering)
    assert run(sessions) == "hello\n"
    late.join()
    assert session.status is ContainerStatus.RUNNING
    assert session.container_id not in (None, old)
    assert session.metadata == {}


def test_a_container_that_nobody_knows_is_neither_marked_nor_started(
    fake: FakeBackend, sessions: BaseSessionManager
) -> None:
    sessions.mark_failed("f" * 64, "")
    sessions.restart_container("f" * 64)
    assert fake.calls == []


def test_a_closed_session_is_not_resurrected(fake: FakeBackend, sessions: BaseSessionManager, session: Session) -> None:
    id = id_of(session)
    sessions.close_session("bob", "1")
    sessions.restart_container(id)
    sessions.mark_failed(id, "")
    with pytest.raises(SessionNotFound):
        run(sessions)
    assert names_on(fake) == []
    assert session.metadata == {}
