"""Files from a container whose agent was replaced: a typed error in time, in little memory, and nothing outside."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path, PurePosixPath

import pytest

from podkit.agent.files import AgentFiles
from podkit.agent.transfers import download, download_task, upload
from podkit.errors import CommandInterrupted, FileError, PathEscape, TooManyFiles
from tests.support.waiting import within
from tests.unit.agent import hostile
from tests.unit.agent.local import local_commands

ID, PATH = "here", PurePosixPath("/some/path")
TYPED = (FileError, PathEscape, CommandInterrupted)


def fetch(files: AgentFiles, local: Path) -> object:
    task = download_task(PATH, 1 << 20, 1000, None)
    return download(files, ID, task, local, max_bytes=1 << 20, max_files=1000)


ACTIONS: dict[str, Callable[[AgentFiles, Path], object]] = {
    "read": lambda files, here: files.read(ID, PATH, 1 << 20),
    "write": lambda files, here: files.write(ID, PATH, b"x" * (4 << 20)),
    "stat": lambda files, here: files.stat(ID, PATH, follow=True),
    "list": lambda files, here: files.list(ID, PATH, 1000),
    "remove": lambda files, here: files.remove(ID, PATH, recursive=True),
    "download": lambda files, here: fetch(files, here / "to"),
    "upload": lambda files, here: upload(files, ID, here / "from", PATH, None),
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
        ACTIONS[action](AgentFiles(commands), here)
    assert sorted(os.listdir(here)) in (["from"], ["from", "to"])
    assert not (here / "to" / "l").exists()


def test_endless_names_end_at_the_limit(here: Path) -> None:
    with (
        local_commands(hostile.__file__, "names for ever", program=Path(sys.executable)) as commands,
        pytest.raises(TooManyFiles),
    ):
        fetch(AgentFiles(commands), here / "to")
