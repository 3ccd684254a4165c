"""Whoever asks at once for one session gets one container; nothing is half done."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator

import pytest

from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus
from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted, ContainerError, PodkitError, SessionConflict, SessionNotFound
from podkit.testing import FakeBackend
from tests.support.waiting import within
from tests.unit.support import Recorder, another, at_once, inspected, names_on


@pytest.fixture
def nervous() -> Iterator[None]:
    """Let threads interrupt each other far more often than they would."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


# --- one of many -----------------------------------------------------------------------------------


def test_sixteen_threads_that_create_one_session_get_one_container_and_one_object(
    fake: FakeBackend, sessions: BaseSessionManager, recorder: Recorder
) -> None:
    found = at_once(16, lambda _: sessions.create_session("bob", "1"))
    assert len({id(session) for session in found}) == 1
    assert len(names_on(fake)) == 1
    assert recorder.names.count("on_container_created") == recorder.names.count("on_session_created") == 1


def test_sixteen_managers_that_create_one_session_get_one_container(
    fake: FakeBackend, manager: SimpleContainerManager
) -> None:
    ids = at_once(16, lambda _: another(manager).create_session("bob", "1").container_id)
    assert len(set(ids)) == 1
    assert len(names_on(fake)) == 1


def test_of_two_that_create_one_session_in_two_ways_one_gets_a_conflict(
    fake: FakeBackend, manager: SimpleContainerManager
) -> None:
    def create(number: int) -> str:
        try:
            config = ContainerConfig(memory_limit=f"{64 + number}m")
            return another(manager).create_session("bob", "1", config).container_id or ""
        except SessionConflict:
            return "conflict"

    found = at_once(8, create)
    assert sorted(found)[:-1] != []
    assert len([id for id in found if id != "conflict"]) == 1
    assert len(names_on(fake)) == 1


def test_who_asks_for_any_configuration_gets_what_another_process_has_just_created(
    fake: FakeBackend, manager: SimpleContainerManager, sessions: BaseSessionManager, recorder: Recorder
) -> None:
    theirs = another(manager)
    fake.interpose("create_workload", lambda: theirs.create_session("bob", "1", ContainerConfig(cpu_limit=0.5)))
    assert sessions.create_session("bob", "1").config.cpu_limit == 0.5
    assert len(names_on(fake)) == 1
    assert "on_session_created" not in recorder.names


def test_who_asks_for_any_configuration_creates_it_where_another_process_has_closed_its_own_again(
    fake: FakeBackend, manager: SimpleContainerManager, sessions: BaseSessionManager
) -> None:
    theirs = another(manager)

    def create() -> None:
        theirs.create_session("bob", "1", ContainerConfig(cpu_limit=0.5))
        fake.interpose("inspect_workload", lambda: theirs.close_session("bob", "1"), after=True)

    fake.interpose("create_workload", create)
    assert sessions.create_session("bob", "1").config.cpu_limit == ContainerConfig().cpu_limit
    assert len(names_on(fake)) == 1


def test_sixteen_threads_that_use_a_lost_session_recreate_it_once(
    fake: FakeBackend, sessions: BaseSessionManager, recorder: Recorder
) -> None:
    session = sessions.create_session("bob", "1")
    fake.vanish(session.container_id or "")
    found = at_once(16, lambda number: sessions.execute_command("bob", "1", f"echo {number}").stdout)
    assert found == [f"{number}\n" for number in range(16)]
    assert recorder.names.count("on_container_created") == 2
    assert len(names_on(fake)) == 1


def test_sixteen_managers_that_use_a_lost_session_end_with_one_container(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    session = sessions.create_session("bob", "1")
    others = [another(manager) for _ in range(16)]
    for other in others:
        other.get_session("bob", "1")
    fake.vanish(session.container_id or "")

    def use(number: int) -> str:
        try:
            return others[number].execute_command("bob", "1", f"echo {number}").stdout
        except CommandInterrupted:  # another process recreated the container under it
            return "interrupted"

    assert set(at_once(16, use)) <= {*(f"{number}\n" for number in range(16)), "interrupted"}
    assert len(names_on(fake)) == 1


def test_sixteen_threads_on_sixteen_sessions_get_their_own_answers(sessions: BaseSessionManager) -> None:
    def use(number: int) -> bool:
        sessions.create_session("bob", str(number))
        return all(
            sessions.execute_command("bob", str(number), f"echo {number}-{round}").stdout == f"{number}-{round}\n"
            for round in range(10)
        )

    assert at_once(16, use) == [True] * 16


def test_commands_in_one_session_run_side_by_side(sessions: BaseSessionManager) -> None:
    sessions.create_session("bob", "1")
    with within(0.7):
        at_once(8, lambda _: sessions.execute_command("bob", "1", "sleep 0.1"))


def test_making_one_session_does_not_keep_another_one_waiting(sessions: BaseSessionManager, recorder: Recorder) -> None:
    sessions.create_session("bob", "1")
    leave = threading.Event()

    def slow(config: ContainerConfig) -> ContainerConfig:
        leave.wait(3)
        return config

    recorder.change = slow
    maker = threading.Thread(daemon=True, target=lambda: sessions.create_session("bob", "2"))
    maker.start()
    with within(0.5):
        assert sessions.execute_command("bob", "1", "echo hello").ok
        assert sessions.get_session("bob", "1") is not None
        assert len(sessions.list_sessions()) == 1
    leave.set()
    maker.join()


# --- create against close --------------------------------------------------------------------------


def test_closing_during_a_command_interrupts_it(fake: FakeBackend, sessions: BaseSessionManager) -> None:
    sessions.create_session("bob", "1")
    running, errors = threading.Event(), []

    def use() -> None:
        try:
            sessions.execute_command("bob", "1", "hello 60", on_stdout=lambda text: running.set())
        except PodkitError as exc:
            errors.append(exc)

    thread = threading.Thread(daemon=True, target=use)
    thread.start()
    running.wait(5)
    with within(1):
        sessions.close_session("bob", "1")
    thread.join(3)
    assert [type(error) for error in errors] == [CommandInterrupted]
    assert errors[0].result.stdout == "hello\n"
    assert names_on(fake) == []


@pytest.mark.usefixtures("nervous")
def test_creating_against_closing_leaves_no_half_state(fake: FakeBackend, sessions: BaseSessionManager) -> None:
    """Whoever comes last, the manager and the engine agree on whether the session lives."""

    def create() -> None:
        for _ in range(150):
            session = sessions.create_session("bob", "1")
            assert session.user_id == "bob"

    def close() -> None:
        for _ in range(150):
            sessions.close_session("bob", "1")

    acts = [create, close, create, close]
    at_once(4, lambda number: acts[number]())
    found = sessions.get_session("bob", "1")
    assert len(names_on(fake)) == (0 if found is None else 1)
    if found is not None:
        assert inspected(fake, found.container_id or "").status is ContainerStatus.RUNNING
        sessions.close_session("bob", "1")
    assert names_on(fake) == []
    assert sessions.container_manager.containers == {}


@pytest.mark.usefixtures("nervous")
def test_using_against_closing_never_resurrects_a_closed_session(
    fake: FakeBackend, sessions: BaseSessionManager
) -> None:
    def use() -> None:
        for _ in range(60):
            try:
                assert sessions.execute_command("bob", "1", "echo hello").stdout == "hello\n"
            except (SessionNotFound, CommandInterrupted, ContainerError):
                continue

    def churn() -> None:
        for _ in range(30):
            sessions.create_session("bob", "1")
            sessions.close_session("bob", "1")

    acts = [use, use, churn]
    at_once(3, lambda number: acts[number]())
    assert names_on(fake) == []
    assert sessions.list_sessions() == []


@pytest.mark.usefixtures("nervous")
def test_asking_for_a_session_while_it_is_made_never_splits_it(fake: FakeBackend, sessions: BaseSessionManager) -> None:
    """The live object is one, also for those who asked before it was there."""
    stop = threading.Event()

    def ask() -> None:
        while not stop.is_set():
            try:
                sessions.update_session_activity("bob", "1")
            except SessionNotFound:
                continue

    askers = [threading.Thread(daemon=True, target=ask) for _ in range(3)]
    for asker in askers:
        asker.start()
    split = 0
    end = time.monotonic() + 0.2
    while time.monotonic() < end and not split:
        session = sessions.create_session("bob", "1")
        if sessions.get_session("bob", "1") is not session or sessions.list_sessions() != [session]:
            split += 1
        sessions.close_session("bob", "1")
    stop.set()
    for asker in askers:
        asker.join()
    assert split == 0


def test_a_session_that_is_closed_while_its_workspace_is_emptied_is_closed(
    fake: FakeBackend, sessions: BaseSessionManager
) -> None:
    sessions.create_session("bob", "1")
    at_once(4, lambda _: sessions.close_session("bob", "1", remove_workspace=True))
    assert names_on(fake) == []
    assert sessions.get_session("bob", "1") is None


def test_a_write_is_never_seen_in_half(sessions: BaseSessionManager) -> None:
    """Two writers and a reader: always a whole version."""
    sessions.create_session("bob", "1")
    versions = [letter * 50_000 for letter in "ab"]
    sessions.write_file("bob", "1", "f", versions[0])
    stop, torn = threading.Event(), []

    def write(version: str) -> None:
        while not stop.is_set():
            sessions.write_file("bob", "1", "f", version)

    writers = [threading.Thread(daemon=True, target=write, args=(version,)) for version in versions]
    for writer in writers:
        writer.start()
    for _ in range(200):
        if (found := sessions.read_file("bob", "1", "f")) not in versions:
            torn.append(found[:10])
    stop.set()
    for writer in writers:
        writer.join()
    assert torn == []
