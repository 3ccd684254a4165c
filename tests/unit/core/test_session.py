"""Sessions: made, found again, used, closed; by whoever holds the same prefix."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from podkit.core.events import PodkitEventHandler
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus
from podkit.core.session import BaseSessionManager
from podkit.errors import ContainerNotFound, EngineError, NotText, SessionConflict, SessionNotFound
from podkit.testing import FakeBackend
from tests.unit.support import CANARY, PREFIX, Recorder, another, everything_said, inspected, names_on

# --- making and finding ----------------------------------------------------------------------------


def test_a_new_session_runs_and_says_what_it_is(
    fake: FakeBackend, sessions: BaseSessionManager, workspace_base: Path
) -> None:
    session = sessions.create_session("bob", "1")
    info = inspected(fake, session.container_id or "")
    assert (session.user_id, session.session_id) == ("bob", "1")
    assert (session.status, info.status) == (ContainerStatus.RUNNING, ContainerStatus.RUNNING)
    assert (session.container_id, session.container_name) == (info.id, info.name)
    assert session.data_dir == workspace_base / "workspaces/bob/1"
    assert session.metadata == {}
    assert abs((datetime.now(UTC) - session.created_at).total_seconds()) < 5


def test_creating_again_gives_the_same_object(sessions: BaseSessionManager) -> None:
    assert sessions.create_session("bob", "1") is sessions.create_session("bob", "1")


def test_getting_a_session_gives_the_live_object_without_an_engine_call(
    fake: FakeBackend, sessions: BaseSessionManager
) -> None:
    session = sessions.create_session("bob", "1")
    fake.calls.clear()
    assert sessions.get_session("bob", "1") is session
    assert fake.calls == []


def test_a_session_that_was_never_made_is_none(sessions: BaseSessionManager) -> None:
    assert sessions.get_session("bob", "1") is None
    assert sessions.list_sessions() == []


def test_odd_ids_are_different_sessions(fake: FakeBackend, sessions: BaseSessionManager) -> None:
    ids = ["a.b", "a-b", "a_b", "a/b", "A.B", "a b", "a:b", "..", "🙂", "é", "e\u0301"]
    for id in ids:
        sessions.create_session(id, id)
        sessions.write_file(id, id, "marker", id)
    assert [sessions.read_file(id, id, "marker") for id in ids] == ids
    assert len(set(names_on(fake))) == len(ids)


def test_the_default_image_is_that_of_sessions_without_a_configuration(manager: SimpleContainerManager) -> None:
    sessions = BaseSessionManager(manager, "mine:1")
    assert sessions.create_session("bob", "1").config.image == "mine:1"
    assert sessions.create_session("bob", "2", ContainerConfig(image="other:1")).config.image == "other:1"


def test_a_new_manager_finds_the_sessions_that_live(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    config = ContainerConfig(ports=[8080], environment={"A": "1"}, session_inactivity_timeout_seconds=77)
    made = sessions.create_session("bob", "1", config)
    sessions.write_file("bob", "1", "a", "kept")
    other = another(manager)
    found = other.get_session("bob", "1")
    assert found is not None
    assert found is not made
    assert (found.container_id, found.container_name) == (made.container_id, made.container_name)
    assert found.config == made.config
    assert found.status is ContainerStatus.RUNNING
    assert found.session_inactivity_timeout_seconds == 77
    assert (found.data_dir, other.read_file("bob", "1", "a")) == (made.data_dir, "kept")
    assert abs(found.created_at - made.created_at) < timedelta(seconds=5)


def test_a_new_manager_reconnects_with_the_same_or_without_a_configuration(
    sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    config = ContainerConfig(memory_limit="1g")
    id = sessions.create_session("bob", "1", config).container_id
    assert another(manager).create_session("bob", "1", config).container_id == id
    assert another(manager).create_session("bob", "1").container_id == id


def test_a_new_manager_starts_an_exited_container_again(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    id = sessions.create_session("bob", "1").container_id or ""
    fake.end(id)
    session = another(manager).create_session("bob", "1")
    assert session.container_id == id
    assert inspected(fake, id).status is ContainerStatus.RUNNING


def test_a_stopped_session_is_found_as_it_is(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    id = sessions.create_session("bob", "1").container_id or ""
    fake.end(id)
    found = another(manager).get_session("bob", "1")
    assert found is not None
    assert found.status is ContainerStatus.EXITED
    assert inspected(fake, id).status is ContainerStatus.EXITED


def test_another_prefix_is_another_world(fake: FakeBackend, sessions: BaseSessionManager) -> None:
    sessions.create_session("bob", "1")
    other = BaseSessionManager(SimpleContainerManager(fake, "other", None))
    assert other.get_session("bob", "1") is None
    other.close_session("bob", "1")
    assert len(names_on(fake)) == 1


@pytest.mark.parametrize("fresh", [False, True])
def test_another_configuration_is_a_conflict_that_tells_no_value(
    sessions: BaseSessionManager, manager: SimpleContainerManager, fresh: bool
) -> None:
    id = sessions.create_session("bob", "1", ContainerConfig(environment={"TOKEN": CANARY})).container_id
    asked = another(manager) if fresh else sessions
    with pytest.raises(SessionConflict, match="environment") as caught:
        asked.create_session("bob", "1", ContainerConfig(environment={"TOKEN": CANARY + "2"}))
    assert CANARY not in everything_said(caught.value)
    assert "close it first" in str(caught.value)
    assert sessions.create_session("bob", "1").container_id == id


def test_a_session_in_another_workspace_is_a_conflict(
    fake: FakeBackend, sessions: BaseSessionManager, tmp_path: Path
) -> None:
    sessions.create_session("bob", "1")
    elsewhere = BaseSessionManager(SimpleContainerManager(fake, PREFIX, tmp_path / "elsewhere"))
    fake.calls.clear()
    with pytest.raises(SessionConflict, match="workspace"):
        elsewhere.create_session("bob", "1")
    assert len(fake.calls) < 5, "it lasts, so nothing is tried again"
    elsewhere.close_session("bob", "1")
    assert names_on(fake) == []


# --- using -----------------------------------------------------------------------------------------


def test_a_command_runs_and_its_failure_is_a_result(sessions: BaseSessionManager) -> None:
    sessions.create_session("bob", "1")
    assert sessions.execute_command("bob", "1", "echo hello").stdout == "hello\n"
    assert sessions.execute_command("bob", "1", ["false"]).exit_code == 1


def test_a_commands_arguments_reach_it(sessions: BaseSessionManager) -> None:
    sessions.create_session("bob", "1", ContainerConfig(environment={"A": "config"}))
    run = sessions.execute_command
    assert run("bob", "1", "pwd", "/tmp").stdout == "/tmp\n"
    assert run("bob", "1", "printenv A").stdout == "config\n"
    assert run("bob", "1", "printenv A", None, {"A": "command"}).stdout == "command\n"
    assert run("bob", "1", ["cat"], input="hi").stdout == "hi"
    assert run("bob", "1", "whoami", user="nobody").stdout == "nobody\n"
    assert run("bob", "1", "echo hello", max_output_bytes=2).stdout == "he"


def test_files_are_written_and_read(sessions: BaseSessionManager) -> None:
    sessions.create_session("bob", "1")
    assert sessions.write_file("bob", "1", "a.txt", "héllo") == Path("/workspace/a.txt")
    assert sessions.read_file("bob", "1", "a.txt") == "héllo"
    sessions.write_file("bob", "1", "/etc/motd", b"\xff")
    assert sessions.read_bytes("bob", "1", "/etc/motd") == b"\xff"


def test_a_file_that_is_no_text_is_an_error_that_names_the_cure(sessions: BaseSessionManager) -> None:
    sessions.create_session("bob", "1")
    sessions.write_file("bob", "1", "a", b"ok \xff")
    with pytest.raises(NotText, match=r"'/workspace/a' as text: it is not UTF-8 \(byte 3\).*files\.read_bytes"):
        sessions.read_file("bob", "1", "a")


@pytest.mark.parametrize("act", ["execute", "write", "read", "activity"])
def test_a_session_that_does_not_exist_cannot_be_used(
    fake: FakeBackend, sessions: BaseSessionManager, act: str
) -> None:
    acts: dict[str, Any] = {
        "execute": lambda: sessions.execute_command("bob", "1", "ls"),
        "write": lambda: sessions.write_file("bob", "1", "a", "x"),
        "read": lambda: sessions.read_file("bob", "1", "a"),
        "activity": lambda: sessions.update_session_activity("bob", "1"),
    }
    with pytest.raises(SessionNotFound, match="create_session"):
        acts[act]()
    assert names_on(fake) == []
    assert sessions.list_sessions() == []


def test_a_session_of_another_process_can_be_used_at_once(
    sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    sessions.create_session("bob", "1")
    assert another(manager).execute_command("bob", "1", "echo hello").stdout == "hello\n"


# --- closing ---------------------------------------------------------------------------------------


def test_closing_removes_the_container_and_keeps_the_workspace(fake: FakeBackend, sessions: BaseSessionManager) -> None:
    session = sessions.create_session("bob", "1")
    sessions.write_file("bob", "1", "a", "kept")
    sessions.close_session("bob", "1")
    assert names_on(fake) == []
    assert sessions.get_session("bob", "1") is None
    assert sessions.list_sessions() == []
    assert (session.status, session.container_id) == (ContainerStatus.STOPPED, None)
    sessions.create_session("bob", "1")
    assert sessions.read_file("bob", "1", "a") == "kept"


def test_closing_twice_is_harmless_and_told_once(sessions: BaseSessionManager, recorder: Recorder) -> None:
    sessions.create_session("bob", "1")
    for _ in range(3):
        sessions.close_session("bob", "1")
    assert recorder.names.count("on_session_closing") == recorder.names.count("on_session_closed") == 1


def test_closing_what_was_never_made_is_harmless(sessions: BaseSessionManager, recorder: Recorder) -> None:
    sessions.close_session("bob", "1")
    assert recorder.names == []


def test_a_session_of_another_process_can_be_closed(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    sessions.create_session("bob", "1")
    another(manager).close_session("bob", "1")
    assert names_on(fake) == []


def test_closing_may_remove_the_workspace(sessions: BaseSessionManager) -> None:
    session = sessions.create_session("bob", "1")
    sessions.write_file("bob", "1", "d/a", "x")
    sessions.close_session("bob", "1", remove_workspace=True)
    assert session.data_dir is not None
    assert not session.data_dir.exists()


def test_closing_a_session_whose_container_is_gone_is_no_error(
    fake: FakeBackend, sessions: BaseSessionManager, recorder: Recorder
) -> None:
    session = sessions.create_session("bob", "1")
    fake.vanish(session.container_id or "")
    sessions.close_session("bob", "1")
    assert "on_session_closed" in recorder.names


def test_a_closing_that_fails_can_be_repeated(fake: FakeBackend, sessions: BaseSessionManager) -> None:
    session = sessions.create_session("bob", "1")
    fake.fail("remove_workload", EngineError("stuck"))
    with pytest.raises(EngineError, match="stuck"):
        sessions.close_session("bob", "1")
    assert sessions.get_session("bob", "1") is session
    sessions.close_session("bob", "1")
    assert names_on(fake) == []


def test_a_closed_session_cannot_be_used(sessions: BaseSessionManager) -> None:
    sessions.create_session("bob", "1")
    sessions.close_session("bob", "1")
    with pytest.raises(SessionNotFound):
        sessions.execute_command("bob", "1", "ls")


def test_cleaning_up_closes_all_that_is_held_and_goes_on_behind_an_error(
    fake: FakeBackend, sessions: BaseSessionManager
) -> None:
    for number in range(3):
        sessions.create_session("bob", str(number))
    fake.fail("remove_workload", EngineError("stuck"))
    with pytest.raises(EngineError, match="stuck"):
        sessions.cleanup_all()
    sessions.cleanup_all()
    assert names_on(fake) == []
    assert sessions.list_sessions() == []


def test_a_session_that_was_found_is_not_told_as_new_also_where_its_container_is_made_anew(
    fake: FakeBackend, manager: SimpleContainerManager, sessions: BaseSessionManager, recorder: Recorder
) -> None:
    session = sessions.create_session("bob", "1")
    assert session.container_id is not None
    fake.end(session.container_id, 137)
    recorder.events.clear()

    other = SimpleContainerManager(fake, manager.container_prefix, manager.workspace_base, event_handler=recorder)
    BaseSessionManager(other, event_handler=recorder).create_session("bob", "1")

    assert "on_container_created" in recorder.names
    assert "on_session_created" not in recorder.names


def test_a_session_whose_container_an_event_handler_removes_is_a_typed_error(
    fake: FakeBackend, workspace_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podkit.core._session_entry.LOST_SECONDS", 0.1)

    class Remover(PodkitEventHandler):
        def on_container_created(
            self, user_id: str, session_id: str, container_id: str, container_name: str, config: ContainerConfig
        ) -> None:
            manager.remove_container(container_id)

    manager = SimpleContainerManager(fake, PREFIX, workspace_base, event_handler=Remover())
    with pytest.raises(ContainerNotFound, match="removed right after its creation"):
        BaseSessionManager(manager).create_session("bob", "1")


def test_the_container_manager_of_a_session_manager_stays_the_same(
    manager: SimpleContainerManager, sessions: BaseSessionManager
) -> None:
    assert sessions.container_manager is manager
    with pytest.raises(AttributeError):
        sessions.container_manager = manager  # type: ignore[misc]  # the mistake that is tested
