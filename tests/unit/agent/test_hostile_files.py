"""Files from a container whose agent was replaced: a typed error in time, in little memory, and nothing outside."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path, PurePosixPath
from typing import cast

import pytest

from podkit.agent.file_transfers import download, upload
from podkit.agent.files import ContainerFiles
from podkit.agent.runner import Runner
from podkit.errors import CommandInterrupted, FileError, PathEscape, TooManyFiles
from tests.support.waiting import within
from tests.unit.agent import hostile
from tests.unit.agent.local import local_commands

ID, PATH = "here", PurePosixPath("/some/path")
TYPED = (FileError, PathEscape, CommandInterrupted)


def fetch(files: ContainerFiles, local: Path) -> object:
    return download(
        files,
        ID,
        PATH,
        local,
        is_directory=False,
        max_bytes=1 << 20,
        max_files=1000,
        user=None,
        timeout=None,
        progress=None,
    )


def send(files: ContainerFiles, local: Path) -> object:
    upload(files, ID, local, PATH, user=None, timeout=None, progress=None)
    return None


ACTIONS: dict[str, Callable[[ContainerFiles, Path], object]] = {
    "read": lambda files, here: files.read(ID, PATH, max_bytes=1 << 20),
    "write": lambda files, here: files.write(ID, PATH, b"x" * (4 << 20)),
    "stat": lambda files, here: files.stat(ID, PATH, follow=True),
    "list": lambda files, here: files.list(ID, PATH, 1000),
    "remove": lambda files, here: files.remove(ID, PATH, recursive=True),
    "download": lambda files, here: fetch(files, here / "to"),
    "upload": lambda files, here: send(files, here / "from"),
}
HONEST = {("done", action) for action in ("write", "list", "remove", "upload")}
"""What is an answer after all."""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/f").write_bytes(bytes(4 << 20))
    return tmp_path


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("answer", hostile.ANSWERS)
def test_a_replaced_agent_makes_a_typed_error_in_time(here: Path, answer: str, action: str) -> None:
    outcome = nullcontext() if (answer, action) in HONEST else pytest.raises(TYPED)
    with local_commands(hostile.__file__, answer, program=Path(sys.executable)) as commands, within(20), outcome:
        ACTIONS[action](ContainerFiles(cast("Runner", commands)), here)
    assert sorted(os.listdir(here)) in (["from"], ["from", "to"])
    assert not (here / "to" / "l").exists()


def test_endless_names_end_at_the_limit(here: Path) -> None:
    with (
        local_commands(hostile.__file__, "names for ever", program=Path(sys.executable)) as commands,
        pytest.raises(TooManyFiles),
    ):
        fetch(ContainerFiles(cast("Runner", commands)), here / "to")
