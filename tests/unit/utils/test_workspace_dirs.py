"""Workspaces are made and removed on the host, whatever a container put into them."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from podkit.errors import PodkitError
from podkit.utils import _workspace_dirs
from tests.support.waiting import within
from tests.unit.support import at_once


def make_deep(directory: Path, levels: int) -> None:
    """Make so many directories inside of each other; the path is far too long to be named."""
    current = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(levels):
        os.mkdir("a-directory", dir_fd=current)
        below = os.open("a-directory", os.O_RDONLY | os.O_DIRECTORY, dir_fd=current)
        os.close(current)
        current = below
    os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=current))
    os.close(current)


def test_a_workspace_is_open_to_all_behind_parents_that_are_not(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        _workspace_dirs.make_workspace(tmp_path / "workspaces/bob/123")
    finally:
        os.umask(before)
    modes = [
        stat.S_IMODE((tmp_path / path).stat().st_mode)
        for path in ("workspaces/bob/123", "workspaces/bob", "workspaces")
    ]
    assert modes == [0o777, 0o700, 0o700]


def test_a_workspace_that_exists_is_left_as_it_is(tmp_path: Path) -> None:
    workspace = tmp_path / "workspaces/bob/123"
    workspace.mkdir(parents=True)
    (workspace / "f").write_text("kept")
    workspace.chmod(0o750)
    _workspace_dirs.make_workspace(workspace)
    assert (workspace / "f").read_text() == "kept"
    assert stat.S_IMODE(workspace.stat().st_mode) == 0o750


def test_sixteen_threads_make_one_workspace(tmp_path: Path) -> None:
    at_once(16, lambda _: _workspace_dirs.make_workspace(tmp_path / "a/b/c"))
    assert stat.S_IMODE((tmp_path / "a/b/c").stat().st_mode) == 0o777


def test_workspaces_are_made_while_the_last_of_others_take_their_parents_away(tmp_path: Path) -> None:
    def live(number: int) -> None:
        workspace = tmp_path / f"workspaces/bob/{number}"
        for _ in range(200):
            _workspace_dirs.make_workspace(workspace)
            assert workspace.is_dir()
            _workspace_dirs.drop_empty_workspace(workspace)

    at_once(8, live)
    assert list(tmp_path.iterdir()) == []


def test_a_workspace_that_cannot_be_made_is_a_file_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(PodkitError, match="cannot make the workspace"):
        _workspace_dirs.make_workspace(tmp_path / "file/bob/123")


def test_a_tree_is_removed_with_all_that_is_in_it(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for path in ("a/b/c", "a/d", "e/.hidden", "e/f g"):
        (tree / path).mkdir(parents=True)
        (tree / path / "file").write_text("x")
    os.mkfifo(tree / "a/fifo")
    (tree / "a/b").chmod(0o755)
    _workspace_dirs.remove_tree(tree)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_tree_is_no_error(tmp_path: Path) -> None:
    _workspace_dirs.remove_tree(tmp_path / "none")
    _workspace_dirs.remove_tree(tmp_path / "none/below")


def test_a_tree_of_three_thousand_levels_is_removed(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    make_deep(tmp_path / "tree", 3000)
    with within(20):
        _workspace_dirs.remove_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_removal_follows_no_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "f").write_text("kept")
    (tmp_path / "tree/sub").mkdir(parents=True)
    for link in ("tree/a", "tree/sub/b"):
        (tmp_path / link).symlink_to(victim)
    (tmp_path / "tree/sub/file").symlink_to(victim / "f")
    _workspace_dirs.remove_tree(tmp_path / "tree")
    assert [path.name for path in tmp_path.iterdir()] == ["victim"]
    assert (victim / "f").read_text() == "kept"


def test_a_tree_that_is_itself_a_link_is_refused(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "f").write_text("kept")
    (tmp_path / "tree").symlink_to(victim)
    with pytest.raises(PodkitError):
        _workspace_dirs.remove_tree(tmp_path / "tree")
    assert (victim / "f").read_text() == "kept"


def test_two_threads_that_remove_one_tree_leave_nothing(tmp_path: Path) -> None:
    for round in range(2):
        tree = tmp_path / f"tree{round}"
        for number in range(5):
            (tree / f"d{number}").mkdir(parents=True)
            for file in range(40):
                (tree / f"d{number}" / f"f{file}").touch()
        at_once(2, lambda _, tree=tree: _workspace_dirs.remove_tree(tree))
        assert not tree.exists()


def test_a_file_that_vanishes_during_the_removal_does_not_end_it(tmp_path: Path) -> None:
    """A container removes its own files while its workspace goes: success means that nothing is left."""
    for round in range(2):
        tree = tmp_path / f"tree{round}"
        tree.mkdir()
        for file in range(400):
            (tree / f"f{file}").touch()
        paths = sorted(tree.iterdir())
        others = threading.Thread(
            daemon=True, target=lambda paths=paths: [path.unlink(missing_ok=True) for path in paths]
        )
        others.start()
        _workspace_dirs.remove_tree(tree)
        others.join()
        assert not tree.exists()


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        (tmp_path / "tree/a/b").mkdir(parents=True)
        _workspace_dirs.remove_tree(tmp_path / "tree")
        _workspace_dirs.remove_tree(tmp_path / "tree")
    assert len(os.listdir("/proc/self/fd")) == before
