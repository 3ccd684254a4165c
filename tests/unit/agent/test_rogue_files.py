"""Files through an agent that is not ours, or that ends in the middle."""

from __future__ import annotations

import gc
import os
import stat
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import cast

import pytest

from podkit.agent.agent_command import AgentCommand
from podkit.agent.command_request import CommandRequest
from podkit.agent.file_records import Entry, Mark, encode_entry, encode_mark
from podkit.agent.file_transfers import upload
from podkit.agent.files import ContainerFiles
from podkit.agent.runner import Runner
from podkit.errors import FileError
from tests.unit.agent.local import LocalCommands, local_commands

PLACE = PurePosixPath("/workspace")


@pytest.fixture(scope="module")
def commands() -> Iterator[LocalCommands]:
    with local_commands() as found:
        yield found


class Instead:
    """What runs the same program, whatever is asked of the agent."""

    def __init__(self, commands: LocalCommands, *argv: str) -> None:
        self._commands, self._argv = commands, argv

    def prepare(self, container_id: str, request: CommandRequest, what: str) -> AgentCommand:
        return self._commands.prepare(container_id, CommandRequest(argv=self._argv, max_output_bytes=0), what)


def files_by(commands: LocalCommands, *argv: str) -> ContainerFiles:
    return ContainerFiles(cast("Runner", Instead(commands, *argv)))


def answer(*names: bytes) -> bytes:
    return b"".join(encode_entry(Entry(name, stat.S_IFREG | 0o644)) for name in names) + encode_mark(Mark.DONE)


def test_a_list_of_names_is_taken(commands: LocalCommands, tmp_path: Path) -> None:
    (tmp_path / "said").write_bytes(answer(b"a", b"\xff b"))
    found = files_by(commands, "/bin/cat", f"{tmp_path}/said").list("id", PLACE, 10)
    assert [entry.below for entry in found] == [b"a", b"\xff b"]


@pytest.mark.parametrize("names", [[b"../passwd"], [b"a", b"a"], [b".."], [b"."], [b""], [b"a/b"]])
def test_a_list_with_names_that_no_directory_has_is_refused(
    commands: LocalCommands, tmp_path: Path, names: list[bytes]
) -> None:
    """A caller may join them to a path of this host."""
    (tmp_path / "said").write_bytes(answer(*names))
    with pytest.raises(FileError, match="tampered"):
        files_by(commands, "/bin/cat", f"{tmp_path}/said").list("id", PLACE, 10)


def test_an_upload_that_is_broken_off_keeps_no_descriptor_open(commands: LocalCommands, tmp_path: Path) -> None:
    """Not even while its error is kept, whose traceback holds what was being read."""
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/f").write_bytes(bytes(8 << 20))
    before = os.listdir("/proc/self/fd")
    gc.disable()
    try:
        with pytest.raises(FileError) as kept:
            send(files_by(commands, "/bin/false"), tmp_path / "a")
        assert os.listdir("/proc/self/fd") == before, kept
    finally:
        gc.enable()


def send(files: ContainerFiles, local: Path) -> None:
    upload(files, "id", local, PLACE, user=None, timeout=None, progress=None)
