"""Files that are not mounted from the host: the scripts' arguments, and what their exit codes mean."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from podkit.agent import files
from podkit.agent.engine_exec import EngineExec
from podkit.core._restarts import Restarts
from podkit.errors import (
    CommandInterrupted,
    ContainerNotRunning,
    EngineUnavailable,
    FileError,
    FileMissing,
    FileTooLarge,
    NotAFile,
    PathEscape,
    PodkitError,
)
from podkit.testing import FakeBackend, Reply
from tests.unit.support import make_spec

PATH = PurePosixPath("/data/a.txt")
CODES: dict[int, type[PodkitError]] = {
    77: PathEscape,
    78: NotAFile,
    79: FileTooLarge,
    80: FileMissing,
    1: FileError,
    126: FileError,
}


@pytest.fixture
def id(fake: FakeBackend) -> str:
    id = fake.create_workload(make_spec())
    fake.start_workload(id)
    fake.calls.clear()
    return id


@pytest.fixture
def engine_exec(fake: FakeBackend) -> EngineExec:
    return EngineExec(fake, Restarts(fake))


@pytest.mark.parametrize("content", [b"", b"\x00\xff bytes", b"x" * (1 << 20)])
def test_what_is_written_is_read_back(engine_exec: EngineExec, id: str, content: bytes) -> None:
    files.write_file(engine_exec, id, PATH, content, "")
    assert files.read_file(engine_exec, id, PATH, "", 2 << 20) == content


@pytest.mark.parametrize("name", ["a b", "-rf", "$(reboot)", "'", '"; rm -rf / "', "a\nb", "🙂"])
def test_an_odd_name_is_an_argument_and_no_part_of_the_script(
    fake: FakeBackend, engine_exec: EngineExec, id: str, name: str
) -> None:
    files.write_file(engine_exec, id, PurePosixPath("/data") / name, b"x", "/data")
    assert fake.files(id)[f"/data/{name}"] == b"x"


@pytest.mark.parametrize("code", CODES)
def test_a_scripts_exit_code_is_a_typed_error_that_names_the_path(
    fake: FakeBackend, engine_exec: EngineExec, id: str, code: int
) -> None:
    fake.programs[files.WRITE_SCRIPT] = fake.programs[files.READ_SCRIPT] = Reply(stderr="why\n", exit_code=code)
    for doing, act in (
        ("write", lambda: files.write_file(engine_exec, id, PATH, b"x", "")),
        ("read", lambda: files.read_file(engine_exec, id, PATH, "", 10)),
    ):
        with pytest.raises(CODES[code], match=f"cannot {doing} '/data/a.txt'") as caught:
            act()
        assert type(caught.value) is CODES[code]


def test_what_the_script_says_is_in_the_error(fake: FakeBackend, engine_exec: EngineExec, id: str) -> None:
    fake.programs[files.WRITE_SCRIPT] = Reply(stderr="cat: write error: No space left on device\n", exit_code=1)
    with pytest.raises(FileError, match="No space left on device"):
        files.write_file(engine_exec, id, PATH, b"x", "")


def test_a_missing_file_is_a_file_not_found_error(engine_exec: EngineExec, id: str) -> None:
    with pytest.raises(FileNotFoundError):
        files.read_file(engine_exec, id, PATH, "", 10)


def test_a_file_that_is_too_large_is_refused_also_where_it_grows_meanwhile(
    fake: FakeBackend, engine_exec: EngineExec, id: str
) -> None:
    files.write_file(engine_exec, id, PATH, b"x" * 200_000, "")
    with pytest.raises(FileTooLarge, match="100000"):
        files.read_file(engine_exec, id, PATH, "", 100_000)
    fake.programs[files.READ_SCRIPT] = Reply(b"x" * 200_000)
    with pytest.raises(FileTooLarge, match="100000"):
        files.read_file(engine_exec, id, PATH, "", 100_000)


def test_a_small_limit_holds_too(fake: FakeBackend, engine_exec: EngineExec, id: str) -> None:
    fake.programs[files.READ_SCRIPT] = Reply(b"x" * 20)  # as a file that grew between the look and the reading
    with pytest.raises(FileTooLarge):
        files.read_file(engine_exec, id, PATH, "", 10)


def test_a_stopped_container_is_an_error_of_the_container(fake: FakeBackend, engine_exec: EngineExec, id: str) -> None:
    fake.end(id)
    with pytest.raises(ContainerNotRunning):
        files.read_file(engine_exec, id, PATH, "", 10)


def test_an_engine_that_breaks_in_the_middle_of_a_write_is_no_success(
    fake: FakeBackend, engine_exec: EngineExec, id: str
) -> None:
    fake.fail("read", EngineUnavailable("broken"))
    with pytest.raises(CommandInterrupted):
        files.write_file(engine_exec, id, PATH, b"x", "")


def test_an_image_without_a_shell_is_a_file_error(fake: FakeBackend, engine_exec: EngineExec, id: str) -> None:
    for name in ("sh", files.WRITE_SCRIPT):
        del fake.programs[name]
    with pytest.raises(FileError, match="sh"):
        files.write_file(engine_exec, id, PATH, b"x", "")
