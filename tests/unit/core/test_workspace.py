"""Directories that are removed, and made again under their names, while a container has them mounted."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from podkit.core._workspace import WorkspaceWatch


@pytest.fixture
def watch() -> WorkspaceWatch:
    return WorkspaceWatch()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


def test_a_container_without_a_workspace_has_what_it_needs(watch: WorkspaceWatch) -> None:
    assert watch.is_mounted("c")


def test_a_directory_that_is_written_to_stays_the_mounted_one(watch: WorkspaceWatch, directory: Path) -> None:
    watch.note("c", directory)
    (directory / "file").write_text("text")
    assert watch.is_mounted("c")


def test_a_directory_that_was_removed_is_not_mounted_any_more(watch: WorkspaceWatch, directory: Path) -> None:
    watch.note("c", directory)
    shutil.rmtree(directory)
    assert not watch.is_mounted("c")


def test_another_directory_of_the_same_name_is_not_the_mounted_one(watch: WorkspaceWatch, directory: Path) -> None:
    watch.note("c", directory)
    directory.rename(directory.with_name("old"))  # it lives on, as one that a container has mounted does
    directory.mkdir()
    assert not watch.is_mounted("c")
    watch.note("c", directory)
    assert watch.is_mounted("c")


def test_a_directory_that_was_missing_from_the_beginning_is_not_mounted(watch: WorkspaceWatch, tmp_path: Path) -> None:
    watch.note("c", tmp_path / "missing")
    assert not watch.is_mounted("c")


def test_a_container_that_was_removed_is_forgotten(watch: WorkspaceWatch, tmp_path: Path) -> None:
    watch.note("c", tmp_path / "missing")
    watch.forget("c")
    watch.forget("c")
    assert watch.is_mounted("c")
