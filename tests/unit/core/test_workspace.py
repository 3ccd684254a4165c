"""Directories that are removed, and made again under their names, while a container has them mounted."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from podkit.core._container_record import ContainerRecord
from podkit.core._requested_config import Request
from podkit.core._workspace import MountedWorkspaces
from podkit.core.models import ContainerConfig

RECORD = ContainerRecord(
    id="c",
    name="n",
    user_id="bob",
    session_id="1",
    config=ContainerConfig(image="i"),
    requested=Request.of(ContainerConfig(image="i")),
    created_at=datetime.now(UTC),
    workspace="/srv/bob/1",
    mounts=[{"Type": "bind", "Source": "/srv/bob/1", "Target": "/workspace"}],
)


@pytest.fixture
def watch() -> MountedWorkspaces:
    return MountedWorkspaces()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "workspace"
    made.mkdir()
    return made


def test_a_container_without_a_workspace_has_what_it_needs(watch: MountedWorkspaces) -> None:
    assert watch.is_mounted("c")


def test_a_directory_that_is_written_to_stays_the_mounted_one(watch: MountedWorkspaces, directory: Path) -> None:
    watch.note_mounted(RECORD, directory)
    (directory / "file").write_text("text")
    assert watch.is_mounted("c")


def test_a_directory_that_was_removed_is_not_mounted_any_more(watch: MountedWorkspaces, directory: Path) -> None:
    watch.note_mounted(RECORD, directory)
    shutil.rmtree(directory)
    assert not watch.is_mounted("c")


def test_another_directory_of_the_same_name_is_not_the_mounted_one(watch: MountedWorkspaces, directory: Path) -> None:
    watch.note_mounted(RECORD, directory)
    directory.rename(directory.with_name("old"))  # it lives on, as one that a container has mounted does
    directory.mkdir()
    assert not watch.is_mounted("c")
    watch.note_mounted(RECORD, directory)
    assert watch.is_mounted("c")


def test_a_directory_that_was_missing_from_the_beginning_is_not_mounted(
    watch: MountedWorkspaces, tmp_path: Path
) -> None:
    watch.note_mounted(RECORD, tmp_path / "missing")
    assert not watch.is_mounted("c")


def test_a_container_that_was_removed_is_forgotten(watch: MountedWorkspaces, tmp_path: Path) -> None:
    watch.note_mounted(RECORD, tmp_path / "missing")
    watch.forget("c")
    watch.forget("c")
    assert watch.is_mounted("c")


def test_a_container_that_mounts_something_else_there_has_nothing_to_lose(
    watch: MountedWorkspaces, tmp_path: Path
) -> None:
    """A directory of the caller's own may take the workspace's place."""
    elsewhere = [{"Type": "bind", "Source": "/srv/other", "Target": "/workspace"}]
    watch.note_mounted(replace(RECORD, mounts=elsewhere), tmp_path / "missing")
    assert watch.is_mounted("c")
