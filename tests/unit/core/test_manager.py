"""Container managers: identity, mounts, translation, commands; bad input costs no engine call."""

from __future__ import annotations

import os
from pathlib import Path, PurePath
from typing import Any

import pytest

from podkit.core.manager import BaseContainerManager, SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus, Mount
from podkit.errors import (
    ContainerNotFound,
    EngineError,
    InvalidInput,
    PathEscape,
    PathNotMapped,
    PodkitError,
    SessionConflict,
)
from podkit.testing import FakeBackend
from podkit.utils.paths import write_to_mounted_path
from tests.unit.support import PREFIX, Recorder, inspected, names_on


class OwnMounts(BaseContainerManager):
    """What a user writes: mounts of their own."""

    mounts: list[dict[str, Any]]

    def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
        return self.mounts

    def write_file(
        self, container_id: str, container_path: str | PurePath, content: str | bytes, user_id: str, session_id: str
    ) -> Path:
        return write_to_mounted_path(container_path, content, lambda path: self.to_host_path(path, user_id, session_id))


def start(manager: BaseContainerManager, user_id: str = "bob", session_id: str = "1", **fields: Any) -> str:
    """Make and start a container; give its id."""
    config = ContainerConfig(**fields)
    id, _ = manager.create_container(user_id, session_id, config)
    manager.start_container(id, config)
    return id


def mounts_of(fake: FakeBackend, id: str) -> dict[str, str]:
    """Target -> source, as the engine sees them."""
    return {target: source for source, target in inspected(fake, id).mounts}


# --- making one ------------------------------------------------------------------------------------


def test_a_container_is_created_started_and_held(fake: FakeBackend, manager: SimpleContainerManager) -> None:
    config = ContainerConfig()
    id, name = manager.create_container("bob", "1", config)
    assert (inspected(fake, id).name, inspected(fake, id).status) == (name, ContainerStatus.CREATING)
    assert name.startswith(f"{PREFIX}-bob-1-")
    manager.start_container(id, config)
    assert manager.get_container_status(id) is ContainerStatus.RUNNING
    assert list(manager.containers) == [id]


def test_creating_again_gives_the_same_container(fake: FakeBackend, manager: SimpleContainerManager) -> None:
    assert start(manager) == start(manager)
    assert len(names_on(fake)) == 1


def test_a_second_manager_adopts_what_the_first_one_made(fake: FakeBackend, manager: SimpleContainerManager) -> None:
    id = start(manager)
    other = SimpleContainerManager(fake, PREFIX, manager.workspace_base)
    assert other.containers == {}
    assert start(other) == id
    assert list(other.containers) == [id]


def test_managers_with_different_prefixes_do_not_meet(fake: FakeBackend) -> None:
    one, other = (SimpleContainerManager(fake, prefix, None) for prefix in ("unit", "unit-x"))
    first, second = start(one), start(other)
    assert first != second
    assert other.find_container("bob", "1").id == second  # type: ignore[union-attr]  # it is there
    one.cleanup_all()
    assert len(names_on(fake)) == 1


def test_the_holders_mapping_is_a_copy(manager: SimpleContainerManager) -> None:
    held = manager.containers
    start(manager)
    assert held == {}


def test_a_container_that_was_never_made_is_not_found(manager: SimpleContainerManager) -> None:
    assert manager.find_container("bob", "1") is None
    with pytest.raises(ContainerNotFound):
        manager.get_container_status("f" * 64)


def test_the_configuration_is_copied_when_it_is_taken(fake: FakeBackend, manager: SimpleContainerManager) -> None:
    config = ContainerConfig(ports=[80])
    id, _ = manager.create_container("bob", "1", config)
    config.ports.append(81)
    assert manager.containers[id].config.ports == [80]


def test_the_environment_reaches_the_container_but_no_label(fake: FakeBackend, manager: SimpleContainerManager) -> None:
    id = start(manager, environment={"TOKEN": "canary-5"})
    info = inspected(fake, id)
    assert info.environment["TOKEN"] == "canary-5"
    assert "canary-5" not in str(info.labels)


# --- removing --------------------------------------------------------------------------------------


def test_removing_twice_is_harmless(fake: FakeBackend, manager: SimpleContainerManager, recorder: Recorder) -> None:
    id = start(manager)
    manager.remove_container(id)
    manager.remove_container(id)
    assert names_on(fake) == []
    assert manager.containers == {}
    assert recorder.names.count("on_container_removed") == 1


def test_the_workspace_outlives_its_container(manager: SimpleContainerManager) -> None:
    id = start(manager)
    manager.write_file(id, "a", "kept", "bob", "1")
    manager.remove_container(id)
    assert (manager.to_host_path("/workspace/a", "bob", "1")).read_text() == "kept"


def test_cleaning_up_removes_all_that_was_made_or_used_and_nothing_else(
    fake: FakeBackend, manager: SimpleContainerManager
) -> None:
    made = SimpleContainerManager(fake, PREFIX, manager.workspace_base)
    start(made, "bob", "used")
    start(manager, "bob", "made")
    start(made, "bob", "never seen")
    manager.find_container("bob", "used")
    manager.cleanup_all()
    manager.cleanup_all()
    [left] = names_on(fake)
    assert "never-seen" in left


def test_cleaning_up_goes_on_behind_an_error_and_raises_it(fake: FakeBackend, manager: SimpleContainerManager) -> None:
    for number in range(3):
        start(manager, "bob", str(number))
    fake.fail("remove_workload", EngineError("stuck"))
    with pytest.raises(EngineError, match="stuck"):
        manager.cleanup_all()
    assert len(names_on(fake)) == 1
    manager.cleanup_all()
    assert names_on(fake) == []


def test_cleaning_up_what_somebody_else_removed_is_no_error(fake: FakeBackend, manager: SimpleContainerManager) -> None:
    fake.vanish(start(manager))
    manager.cleanup_all()


# --- mounts ----------------------------------------------------------------------------------------


def test_the_workspace_is_made_and_mounted(fake: FakeBackend, manager: SimpleContainerManager) -> None:
    id = start(manager)
    workspace = manager.get_data_dir("bob", "1")
    assert workspace == manager.workspace_base / "workspaces/bob/1"  # type: ignore[operator]  # it has one
    assert workspace.is_dir()
    assert list(mounts_of(fake, id)) == ["/workspace"]


def test_the_engine_is_told_where_it_sees_the_workspaces(fake: FakeBackend, tmp_path: Path) -> None:
    manager = SimpleContainerManager(fake, PREFIX, tmp_path / "ours", "/theirs")
    id = start(manager)
    assert mounts_of(fake, id) == {"/workspace": "/theirs/workspaces/bob/1"}
    assert manager.to_host_path("/workspace/a", "bob", "1") == tmp_path / "ours/workspaces/bob/1/a"
    assert (tmp_path / "ours/workspaces/bob/1").is_dir()


def test_a_source_below_the_workspaces_is_translated_and_any_other_is_not(fake: FakeBackend, tmp_path: Path) -> None:
    manager = OwnMounts(fake, PREFIX, tmp_path / "ours", "/theirs")
    manager.mounts = [
        {"Type": "bind", "Source": str(tmp_path / "ours/shared"), "Target": "/shared", "ReadOnly": True},
        {"Type": "bind", "Source": "/theirs/workspaces/bob/1", "Target": "/workspace"},
        {"Type": "bind", "Source": str(tmp_path / "ours-evil"), "Target": "/other"},
        {"Source": "/srv", "Target": "/srv/"},
        {"Type": "volume", "Source": "data", "Target": "/data"},
    ]
    assert mounts_of(fake, start(manager)) == {
        "/shared": "/theirs/shared",
        "/workspace": "/theirs/workspaces/bob/1",
        "/other": str(tmp_path / "ours-evil"),
        "/srv": "/srv",
        "/data": "data",
    }


def test_without_a_base_nothing_of_the_host_is_mounted(fake: FakeBackend) -> None:
    manager = SimpleContainerManager(fake, PREFIX, None)
    assert mounts_of(fake, start(manager)) == {}
    assert manager.get_data_dir("bob", "1") is None


def test_the_volumes_of_the_configuration_are_mounted_beside_the_workspace(
    fake: FakeBackend, manager: SimpleContainerManager
) -> None:
    id = start(manager, volumes=[Mount(source="/srv", target="/srv"), Mount(target="/tmp", type="tmpfs")])
    assert sorted(mounts_of(fake, id)) == ["/srv", "/tmp", "/workspace"]


def test_workspaces_in_a_volume_are_mounted_one_by_one(fake: FakeBackend) -> None:
    manager = SimpleContainerManager(fake, PREFIX, None, volume_name="work")
    one, other = start(manager, "bob", "1"), start(manager, "eve", "1")
    manager.write_file(one, "a", "bob's", "bob", "1")
    assert "/workspace/a" not in fake.files(other)
    assert fake.volumes["work/workspaces/bob/1"] == {"a": b"bob's"}
    assert manager.get_data_dir("bob", "1") is None


BAD_MOUNTS: dict[str, list[Any]] = {
    "two on one target": [{"Source": "/a", "Target": "/t"}, {"Source": "/b", "Target": "/t/"}],
    "a relative target": [{"Source": "/a", "Target": "t"}],
    "no target": [{"Source": "/a"}],
    "the root as target": [{"Source": "/a", "Target": "/"}],
    "a relative source": [{"Source": "a", "Target": "/t"}],
    "no source": [{"Type": "bind", "Target": "/t"}],
    "dots in the source": [{"Source": "/a/../etc", "Target": "/t"}],
}


@pytest.mark.parametrize("mounts", BAD_MOUNTS.values(), ids=list(BAD_MOUNTS))
def test_a_mount_that_cannot_be_right_costs_no_engine_call(
    fake: FakeBackend, mounts: list[Any], recorder: Recorder
) -> None:
    manager = OwnMounts(fake, PREFIX, None, event_handler=recorder)
    manager.mounts = mounts
    with pytest.raises(InvalidInput):
        manager.create_container("bob", "1", ContainerConfig())
    assert fake.calls == []
    assert recorder.names == ["on_container_creating", "on_container_creation_failed"]


def test_a_second_mount_on_the_workspace_is_refused_and_leaves_no_directory(
    fake: FakeBackend, manager: SimpleContainerManager
) -> None:
    with pytest.raises(InvalidInput, match="/workspace"):
        start(manager, volumes=[Mount(source="/srv", target="/workspace")])
    assert "create_workload" not in fake.calls
    assert not manager.get_data_dir("bob", "1").exists()  # type: ignore[union-attr]  # it has one


def test_a_read_only_mount_above_the_agent_is_refused(fake: FakeBackend, manager: SimpleContainerManager) -> None:
    with pytest.raises(InvalidInput, match=r"'/run' is read-only.* on /run/podkit"):
        start(manager, volumes=[Mount(source="/srv", target="/run", read_only=True)])
    assert "create_workload" not in fake.calls
    start(manager, volumes=[Mount(source="/srv", target="/srv", read_only=True)])


# --- networks --------------------------------------------------------------------------------------


def test_networks_are_joined(fake: FakeBackend, manager: SimpleContainerManager) -> None:
    fake.networks |= {"front", "back"}
    assert inspected(fake, start(manager, networks=["front", "back"])).networks == ("front", "back")


def test_outside_of_a_container_there_is_nothing_to_inherit(fake: FakeBackend, manager: SimpleContainerManager) -> None:
    assert inspected(fake, start(manager, inherit_parent_networks=True)).networks == ("bridge",)


# --- translation -----------------------------------------------------------------------------------


def test_both_translations_are_pure(fake: FakeBackend, tmp_path: Path) -> None:
    manager = SimpleContainerManager(fake, PREFIX, tmp_path / "none")
    host = manager.to_host_path("/workspace/a/b", "bob", "A/B")
    assert manager.to_container_path(host, "bob", "A/B") == Path("/workspace/a/b")
    assert host.is_relative_to(tmp_path / "none")
    assert fake.calls == []
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("path", ["/etc/passwd", "/workspace-evil/x", "/"])
def test_a_path_that_is_not_mounted_is_not_mapped(manager: SimpleContainerManager, path: str) -> None:
    with pytest.raises(PathNotMapped):
        manager.to_host_path(path, "bob", "1")


@pytest.mark.parametrize("path", ["../x", "/workspace/../etc", "a/../../x"])
def test_a_path_that_leaves_is_an_escape(manager: SimpleContainerManager, path: str) -> None:
    with pytest.raises(PathEscape):
        manager.to_host_path(path, "bob", "1")


def test_another_sessions_path_is_not_mapped(manager: SimpleContainerManager) -> None:
    with pytest.raises(PathNotMapped):
        manager.to_container_path(manager.to_host_path("a", "bob", "2"), "bob", "1")


def test_without_a_workspace_there_is_nothing_to_translate(fake: FakeBackend) -> None:
    manager = SimpleContainerManager(fake, PREFIX, None)
    for translate in (manager.to_host_path, manager.to_container_path):
        with pytest.raises(PathNotMapped, match="workspace_base"):
            translate("/workspace/a", "bob", "1")


def test_a_relative_base_is_taken_from_where_the_program_stands(fake: FakeBackend, tmp_path: Path) -> None:
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        manager = SimpleContainerManager(fake, PREFIX, "ws")
    finally:
        os.chdir(before)
    assert manager.to_host_path("a", "bob", "1") == tmp_path / "ws/workspaces/bob/1/a"


# --- bad input -------------------------------------------------------------------------------------

BAD_CALLS: dict[str, Any] = {
    "no user": lambda manager: manager.create_container("", "1", ContainerConfig()),
    "no session": lambda manager: manager.create_container("bob", "", ContainerConfig()),
    "an overlong id": lambda manager: manager.create_container("x" * 1025, "1", ContainerConfig()),
    "an id that is no text": lambda manager: manager.create_container(5, "1", ContainerConfig()),
    "a config that is a dict": lambda manager: manager.create_container("bob", "1", {"image": "x"}),
    "no config": lambda manager: manager.create_container("bob", "1", None),
    "an empty command": lambda manager: manager.execute_command("f" * 64, ""),
    "NUL in a command": lambda manager: manager.execute_command("f" * 64, ["a\0"]),
    "a working_dir that leaves": lambda manager: manager.execute_command("f" * 64, "ls", "../src"),
    "a bad environment": lambda manager: manager.execute_command("f" * 64, "ls", None, {"A=": ""}),
    "no time": lambda manager: manager.execute_command("f" * 64, "ls", timeout=0),
    "a bad user": lambda manager: manager.execute_command("f" * 64, "ls", user=""),
    "a path that leaves": lambda manager: manager.write_file("f" * 64, "../x", "", "bob", "1"),
    "content that is no text": lambda manager: manager.write_file("f" * 64, "x", 5, "bob", "1"),
    "a read that leaves": lambda manager: manager.read_file("f" * 64, "../x", "bob", "1"),
    "a lookup of nobody": lambda manager: manager.find_container("", "1"),
}


@pytest.mark.parametrize("act", BAD_CALLS.values(), ids=list(BAD_CALLS))
def test_bad_input_costs_no_engine_call(fake: FakeBackend, manager: SimpleContainerManager, act: Any) -> None:
    with pytest.raises(InvalidInput):
        act(manager)
    assert fake.calls == []


BAD_MANAGERS: dict[str, dict[str, Any]] = {
    "a prefix with a space": {"container_prefix": "a b"},
    "a prefix without room": {"container_prefix": "x" * 41},
    "an empty base": {"workspace_base": ""},
    "a base with NUL": {"workspace_base": "/a\0"},
    "a relative base of the host": {"workspace_base_host": "srv"},
    "an empty base of the host": {"workspace_base_host": ""},
    "a path as a volume": {"volume_name": "/srv"},
    "a volume without a name": {"volume_name": ""},
}


@pytest.mark.parametrize("arguments", BAD_MANAGERS.values(), ids=list(BAD_MANAGERS))
def test_a_manager_refuses(fake: FakeBackend, tmp_path: Path, arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        SimpleContainerManager(
            **({"backend": fake, "container_prefix": PREFIX, "workspace_base": tmp_path} | arguments)
        )
    assert fake.calls == []


def test_a_manager_that_says_nothing_of_its_mounts_cannot_be_made(fake: FakeBackend) -> None:
    with pytest.raises(TypeError, match="abstract"):
        BaseContainerManager(fake, PREFIX, None)  # type: ignore[abstract]  # that is the point


# --- neighbours ------------------------------------------------------------------------------------


def test_a_creation_that_conflicts_leaves_the_living_containers_workspace_alone(
    fake: FakeBackend, manager: SimpleContainerManager
) -> None:
    """An empty workspace is mounted by the container that lives: another directory of its name would be another one."""
    start(manager)
    workspace = manager.get_data_dir("bob", "1")
    assert workspace is not None
    inode = workspace.stat().st_ino
    with pytest.raises(SessionConflict):
        manager.create_container("bob", "1", ContainerConfig(memory_limit="1g"))
    assert workspace.exists()
    assert workspace.stat().st_ino == inode


def test_a_failed_creation_removes_no_workspace_with_files_in_it(
    fake: FakeBackend, manager: SimpleContainerManager
) -> None:
    id = start(manager)
    manager.write_file(id, "a", "kept", "bob", "1")
    manager.remove_container(id)
    fake.fail("create_workload", EngineError("no space"))
    with pytest.raises(PodkitError):
        start(manager)
    assert manager.to_host_path("a", "bob", "1").read_text() == "kept"


def test_mounts_that_are_no_list_are_refused_by_name(fake: FakeBackend) -> None:
    class Forgetful(SimpleContainerManager):
        def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> Any:
            return None

    with pytest.raises(InvalidInput, match=r"get_mounts returned None.*\[\] for none"):
        Forgetful(fake, PREFIX, None).create_container("bob", "1", ContainerConfig())


def test_a_configuration_that_became_impossible_is_refused_also_when_looking_for_a_container(
    manager: SimpleContainerManager,
) -> None:
    manager.create_container("bob", "1", ContainerConfig())
    config = ContainerConfig()
    config.ports.append("http")  # type: ignore[arg-type]  # the mistake that is tested
    with pytest.raises(InvalidInput, match="ports"):
        manager.find_container("bob", "1", config)


def test_a_subclass_may_say_where_the_workspaces_are_after_the_base_class_was_made(
    fake: FakeBackend, tmp_path: Path
) -> None:
    class Late(SimpleContainerManager):
        def __init__(self) -> None:
            super().__init__(fake, PREFIX, None)
            self.workspace_base, self.workspace_base_host = tmp_path, Path("/engine")

    id, _ = Late().create_container("bob", "1", ContainerConfig())
    assert [source for source, _ in inspected(fake, id).mounts] == ["/engine/workspaces/bob/1"]


def test_a_mount_that_is_no_dict_is_refused_by_name(fake: FakeBackend) -> None:
    class Odd(SimpleContainerManager):
        def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
            return ["/data"]  # type: ignore[list-item]  # the mistake that is tested

    with pytest.raises(InvalidInput, match="get_mounts returned the mount '/data': pass a dict"):
        Odd(fake, PREFIX, None).create_container("bob", "1", ContainerConfig())
