"""Container path <-> host path: by whole components, and without a look at any file."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from podkit.errors import FileError, InvalidInput, NotAFile, PathEscape, PathNotMapped
from podkit.utils.paths import (
    container_to_host_path,
    get_workspace_path,
    host_to_container_path,
    resolve_container_path,
    write_to_mounted_path,
)
from tests.unit.support import PATHS_THAT_LEAVE

# --- workspaces ------------------------------------------------------------------------------------


def test_a_workspace_lies_below_workspaces_by_user_and_session() -> None:
    assert get_workspace_path("/srv", "bob", "123") == Path("/srv/workspaces/bob/123")


def test_asking_for_a_workspace_creates_nothing(tmp_path: Path) -> None:
    get_workspace_path(tmp_path, "bob", "123")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("id", ["", "a\0b", "x" * 1025, None, 5])
def test_a_workspace_of_an_impossible_id_is_refused(id: Any) -> None:
    with pytest.raises(InvalidInput, match="user_id"):
        get_workspace_path("/srv", id, "s")
    with pytest.raises(InvalidInput, match="session_id"):
        get_workspace_path("/srv", "u", id)


# --- paths inside ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "absolute"),
    [
        ("a.txt", "/workspace/a.txt"),
        ("./a//b/../c", "/workspace/a/c"),
        ("a/..", "/workspace"),
        (".", "/workspace"),
        ("/etc/hosts", "/etc/hosts"),
        ("//etc/./hosts/", "/etc/hosts"),
        ("/", "/"),
        (Path("a/b"), "/workspace/a/b"),
        ("a/~b", "/workspace/a/~b"),
        ("...", "/workspace/..."),
        ("a\nb 🙂", "/workspace/a\nb 🙂"),
    ],
)
def test_a_relative_path_starts_at_the_workspace(path: Any, absolute: str) -> None:
    assert resolve_container_path(path) == PurePosixPath(absolute)


@pytest.mark.parametrize("path", PATHS_THAT_LEAVE, ids=lambda path: path[:20])
def test_a_path_that_leaves_is_refused(path: str) -> None:
    with pytest.raises(InvalidInput):
        resolve_container_path(path)


@pytest.mark.parametrize("path", ["..", "../x", "a/../../x", "a/../..", "/..", "/a/../b", "/workspace/.."])
def test_a_path_with_dots_that_leave_is_an_escape_and_the_message_names_it(path: str) -> None:
    with pytest.raises(PathEscape) as caught:
        resolve_container_path(path)
    assert repr(path) in str(caught.value)
    assert "'..'" in str(caught.value)


# --- translation -----------------------------------------------------------------------------------

HOST = Path("/srv/ws/bob/123")


@pytest.mark.parametrize(
    ("inside", "host"),
    [
        ("/workspace/a/b", "/srv/ws/bob/123/a/b"),
        ("/workspace", "/srv/ws/bob/123"),
        ("/workspace/", "/srv/ws/bob/123"),
        ("a/b", "/srv/ws/bob/123/a/b"),
        ("/workspace/..a", "/srv/ws/bob/123/..a"),
    ],
)
def test_a_path_inside_is_translated_to_the_host(inside: str, host: str) -> None:
    assert container_to_host_path(inside, "/workspace", HOST) == Path(host)


@pytest.mark.parametrize("path", ["/workspace-evil", "/workspace-evil/x", "/workspac", "/", "/etc", "/x/workspace/y"])
def test_a_path_beside_the_mount_is_not_mapped(path: str) -> None:
    with pytest.raises(PathNotMapped, match="is not below /workspace"):
        container_to_host_path(path, "/workspace", HOST)


@pytest.mark.parametrize("path", ["/workspace/../etc", "../etc", "/workspace/a/../../etc"])
def test_a_path_that_leaves_the_mount_by_dots_is_refused(path: str) -> None:
    with pytest.raises(PathEscape):
        container_to_host_path(path, "/workspace", HOST)


@pytest.mark.parametrize(
    ("host", "inside"),
    [
        ("/srv/ws/bob/123/a/b", "/workspace/a/b"),
        ("/srv/ws/bob/123", "/workspace"),
        (HOST / "x", "/workspace/x"),
    ],
)
def test_a_path_on_the_host_is_translated_to_the_one_inside(host: Any, inside: str) -> None:
    found = host_to_container_path(host, "/workspace", HOST)
    assert found == Path(inside)
    assert isinstance(found, Path)


@pytest.mark.parametrize("path", ["/srv/ws/bob/1234", "/srv/ws/bob/12", "/srv/ws/bob", "/etc", "/"])
def test_a_path_beside_the_workspace_is_not_mapped(path: str) -> None:
    with pytest.raises(PathNotMapped, match="is not below"):
        host_to_container_path(path, "/workspace", HOST)


def test_a_host_path_that_leaves_by_dots_is_refused() -> None:
    with pytest.raises(PathEscape):
        host_to_container_path("/srv/ws/bob/123/../124/x", "/workspace", HOST)


@pytest.mark.parametrize("root", ["/srv/ws", "ws"])
@pytest.mark.parametrize("inside", ["/workspace", "/workspace/a b/🙂"])
def test_there_and_back_again(root: str, inside: str) -> None:
    host = container_to_host_path(inside, "/workspace", root)
    assert host_to_container_path(host, "/workspace", root) == Path(inside)


def test_translation_resolves_no_link_and_looks_at_no_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc")
    assert container_to_host_path("/workspace/link/passwd", "/workspace", tmp_path) == tmp_path / "link" / "passwd"
    assert container_to_host_path("/workspace/x", "/workspace", "/does/not/exist") == Path("/does/not/exist/x")


@pytest.mark.parametrize("path", ["", "a\0", "x" * 5000, "~/x", None, 5])
def test_translation_refuses_what_is_no_path(path: Any) -> None:
    with pytest.raises(InvalidInput):
        container_to_host_path(path, "/workspace", HOST)


# --- writing through a mount -----------------------------------------------------------------------


@pytest.fixture
def to_host(tmp_path: Path) -> Callable[[Path], Path]:
    """Two mounts: /workspace, and /workspace/shared inside of it from another directory."""
    mounts = {"/workspace/shared": tmp_path / "shared", "/workspace": tmp_path / "ws"}
    for directory in mounts.values():
        directory.mkdir()

    def translate(path: Path) -> Path:
        for target, directory in mounts.items():
            if path.is_relative_to(target):
                return container_to_host_path(path, target, directory)
        raise PathNotMapped(f"{path} is not mounted")

    return translate


@pytest.mark.parametrize("content", ["héllo\n", "héllo\n".encode()])
def test_a_file_is_written_at_its_place_on_the_host(tmp_path: Path, to_host: Any, content: str | bytes) -> None:
    inside = write_to_mounted_path("a/b.txt", content, to_host)
    assert inside == Path("/workspace/a/b.txt")
    assert (tmp_path / "ws/a/b.txt").read_bytes() == "héllo\n".encode()


def test_a_file_in_a_mount_inside_of_a_mount_lands_in_the_inner_one(tmp_path: Path, to_host: Any) -> None:
    write_to_mounted_path("/workspace/shared/x", "1", to_host)
    assert (tmp_path / "shared/x").read_text() == "1"
    assert list((tmp_path / "ws").iterdir()) == []


def test_a_path_that_is_not_mounted_is_refused_and_creates_nothing(tmp_path: Path, to_host: Any) -> None:
    with pytest.raises(PathNotMapped):
        write_to_mounted_path("/elsewhere/x", "1", to_host)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["shared", "ws"]


@pytest.mark.parametrize("path", PATHS_THAT_LEAVE, ids=lambda path: path[:20])
def test_a_write_to_a_path_that_leaves_is_refused_before_it_is_translated(path: str) -> None:
    def never(path: Path) -> Path:
        raise AssertionError(f"asked for {path}")

    with pytest.raises(InvalidInput):
        write_to_mounted_path(path, "x", never)


def test_a_write_through_a_link_out_of_the_mount_is_refused(tmp_path: Path, to_host: Any) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (tmp_path / "ws/out").symlink_to(victim)
    with pytest.raises(PathEscape):
        write_to_mounted_path("out/x", "1", to_host)
    assert list(victim.iterdir()) == []


def test_a_link_from_one_mount_to_another_is_an_escape_too(tmp_path: Path, to_host: Any) -> None:
    (tmp_path / "ws/link").symlink_to(tmp_path / "shared")
    with pytest.raises(PathEscape):
        write_to_mounted_path("link/x", "1", to_host)
    assert list((tmp_path / "shared").iterdir()) == []


def test_the_top_of_a_mount_is_no_file(to_host: Any) -> None:
    with pytest.raises(NotAFile):
        write_to_mounted_path("/workspace", "1", to_host)


@pytest.mark.parametrize("content", ["\ud800", 5])
def test_content_that_is_neither_text_nor_bytes_is_refused_and_writes_nothing(
    tmp_path: Path, to_host: Any, content: Any
) -> None:
    (tmp_path / "ws/a").write_text("old")
    with pytest.raises(InvalidInput):
        write_to_mounted_path("a", content, to_host)
    assert (tmp_path / "ws/a").read_text() == "old"
    assert os.listdir(tmp_path / "ws") == ["a"]


def test_a_name_that_no_file_system_takes_is_a_file_error(to_host: Any) -> None:
    with pytest.raises(FileError):
        write_to_mounted_path("x" * 300, "1", to_host)
