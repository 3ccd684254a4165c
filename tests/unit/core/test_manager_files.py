"""Files of a container, as it sees them: here one without an agent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, Mount
from podkit.errors import ContainerNotRunning, FileMissing, InvalidInput, IsADirectory, PodkitError
from podkit.testing import FakeBackend
from tests.unit.support import PATHS_THAT_LEAVE, PREFIX

WHO = ("bob", "1")


def start(manager: SimpleContainerManager, **fields: Any) -> str:
    config = ContainerConfig(**fields)
    id, _ = manager.create_container(*WHO, config)
    manager.start_container(id, config)
    return id


@pytest.fixture
def id(fake: FakeBackend, manager: SimpleContainerManager) -> str:
    """A container with a workspace on the host."""
    id = start(manager)
    fake.calls.clear()
    return id


@pytest.fixture
def workspace(manager: SimpleContainerManager, id: str) -> Path:
    found = manager.get_data_dir(*WHO)
    assert found is not None
    return found


# --- in the workspace ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["a.txt", "sub/dir/a.txt", "/workspace/a.txt", Path("a.txt"), "a b 🙂"])
@pytest.mark.parametrize("content", ["héllo", b"\x00\xff", "", b""])
def test_what_is_written_lands_in_the_workspace_and_is_read_back(
    manager: SimpleContainerManager, id: str, workspace: Path, path: Any, content: Any
) -> None:
    inside = manager.write_file(id, path, content, *WHO)
    assert inside == Path("/workspace") / path
    data = content.encode() if isinstance(content, str) else content
    assert (workspace / inside.relative_to("/workspace")).read_bytes() == data
    assert manager.read_file(id, path, *WHO) == data


def test_other_users_of_the_host_cannot_enter_the_workspaces(workspace: Path) -> None:
    assert workspace.parent.stat().st_mode & 0o077 == 0
    assert workspace.parent.parent.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("path", PATHS_THAT_LEAVE, ids=lambda path: path[:20])
def test_a_path_that_leaves_is_refused_and_makes_nothing(
    fake: FakeBackend, manager: SimpleContainerManager, id: str, workspace: Path, path: str
) -> None:
    with pytest.raises(InvalidInput):
        manager.write_file(id, path, "x", *WHO)
    with pytest.raises(InvalidInput):
        manager.read_file(id, path, *WHO)
    assert os.listdir(workspace) == []
    assert fake.calls == []


def test_a_missing_file_is_a_file_not_found_error(manager: SimpleContainerManager, id: str) -> None:
    with pytest.raises(FileMissing, match="'/workspace/a'"):
        manager.read_file(id, "a", *WHO)


# --- elsewhere -------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/etc/motd", "/root/a b", "/new/dir/a"])
def test_a_path_outside_of_the_workspace_is_written_through_the_container(
    fake: FakeBackend, manager: SimpleContainerManager, id: str, path: str
) -> None:
    assert manager.write_file(id, path, b"\x00x", *WHO) == Path(path)
    assert fake.files(id)[path] == b"\x00x"
    assert manager.read_file(id, path, *WHO) == b"\x00x"


def test_without_a_workspace_of_the_host_everything_goes_through_the_container(fake: FakeBackend) -> None:
    manager = SimpleContainerManager(fake, PREFIX, None)
    id = start(manager)
    manager.write_file(id, "a", "x", *WHO)
    assert fake.files(id)["/workspace/a"] == b"x"
    assert manager.read_file(id, "a", *WHO) == b"x"


def test_a_mount_inside_of_the_workspace_is_not_taken_for_the_workspace(
    fake: FakeBackend, manager: SimpleContainerManager, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    id = start(manager, volumes=[Mount(source=tmp_path / "shared", target="/workspace/shared")])
    manager.write_file(id, "shared/a", "x", *WHO)
    assert (tmp_path / "shared/a").read_text() == "x"
    workspace = manager.get_data_dir(*WHO)
    assert workspace is not None
    assert not (workspace / "shared/a").exists()
    assert manager.read_file(id, "shared/a", *WHO) == b"x"


def test_a_manager_that_found_the_container_knows_its_mounts_too(
    fake: FakeBackend, manager: SimpleContainerManager, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    id = start(manager, volumes=[Mount(source=tmp_path / "shared", target="/workspace/shared")])
    other = SimpleContainerManager(fake, PREFIX, manager.workspace_base)
    other.find_container(*WHO)
    other.write_file(id, "shared/a", "x", *WHO)
    assert (tmp_path / "shared/a").read_text() == "x"


def test_a_stopped_container_gives_no_file_of_its_own(
    fake: FakeBackend, manager: SimpleContainerManager, id: str
) -> None:
    fake.end(id)
    with pytest.raises(ContainerNotRunning):
        manager.read_file(id, "/etc/passwd", *WHO)


@pytest.mark.parametrize("path", ["/etc", "/workspace"])
def test_a_directory_is_no_file(manager: SimpleContainerManager, id: str, path: str) -> None:
    with pytest.raises(IsADirectory):
        manager.read_file(id, path, *WHO)
    for name in (path, f"{path}/"):
        with pytest.raises(IsADirectory):
            manager.write_file(id, name, "x", *WHO)


@pytest.mark.parametrize("path", ["a", "/etc/motd"])
@pytest.mark.parametrize("content", [None, 5, ["x"], "\ud800"])
def test_content_that_is_neither_text_nor_bytes_is_refused_and_writes_nothing(
    fake: FakeBackend, manager: SimpleContainerManager, id: str, workspace: Path, path: str, content: Any
) -> None:
    with pytest.raises(InvalidInput):
        manager.write_file(id, path, content, *WHO)
    assert os.listdir(workspace) == []
    assert fake.calls == []


# --- workspaces that go ----------------------------------------------------------------------------


def test_a_workspace_is_removed_with_all_that_is_in_it(
    manager: SimpleContainerManager, id: str, workspace: Path
) -> None:
    manager.write_file(id, "a/b/c", "x", *WHO)
    manager.remove_workspace(*WHO)
    manager.remove_workspace(*WHO)
    assert not workspace.exists()


def test_emptying_a_workspace_that_cannot_be_emptied_is_an_error(
    fake: FakeBackend, manager: SimpleContainerManager, id: str
) -> None:
    fake.end(id)
    with pytest.raises(PodkitError):
        manager.empty_workspace(id)
