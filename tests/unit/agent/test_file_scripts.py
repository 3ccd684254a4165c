"""Files where there is no agent: the scripts' arguments, and what their exit codes mean."""

from __future__ import annotations

from pathlib import PurePosixPath

import pytest

from podkit.agent import file_scripts as scripts
from podkit.agent.agent_runner import AgentRunner
from podkit.agent.files import ContainerFiles
from podkit.core._restarts import Restarts
from podkit.errors import (
    CommandInterrupted,
    ContainerNotRunning,
    EngineUnavailable,
    FileDenied,
    FileError,
    FileMissing,
    FileTooLarge,
    IsADirectory,
    NotADirectory,
    NotAFile,
    NotSupported,
    PodkitError,
)
from podkit.testing import FakeBackend, Invocation, Reply
from tests.unit.support import make_spec

PATH = PurePosixPath("/data/a.txt")
CODES: dict[int, type[PodkitError]] = {
    78: NotAFile,
    80: FileMissing,
    81: IsADirectory,
    82: NotADirectory,
    83: FileDenied,
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
def files(fake: FakeBackend) -> ContainerFiles:
    return ContainerFiles(AgentRunner(fake, Restarts(fake)))


@pytest.mark.parametrize("content", [b"", b"\x00\xff bytes", b"x" * (1 << 20)])
def test_what_is_written_is_read_back(files: ContainerFiles, id: str, content: bytes) -> None:
    files.write(id, PATH, content)
    assert files.read(id, PATH, max_bytes=2 << 20) == content


@pytest.mark.parametrize("name", ["a b", "-rf", "$(reboot)", "'", '"; rm -rf / "', "a\nb", "🙂"])
def test_an_odd_name_is_an_argument_and_no_part_of_the_script(
    fake: FakeBackend, files: ContainerFiles, id: str, name: str
) -> None:
    files.write(id, PurePosixPath("/data") / name, b"x")
    assert fake.files(id)[f"/data/{name}"] == b"x"


@pytest.mark.parametrize("code", CODES)
def test_a_scripts_exit_code_is_a_typed_error_that_names_the_path(
    fake: FakeBackend, files: ContainerFiles, id: str, code: int
) -> None:
    fake.programs[scripts.WRITE_SCRIPT] = fake.programs[scripts.READ_SCRIPT] = Reply(stderr="why\n", exit_code=code)
    for doing, act in (
        ("write", lambda: files.write(id, PATH, b"x")),
        ("read", lambda: files.read(id, PATH, max_bytes=10)),
    ):
        with pytest.raises(CODES[code], match=f"cannot {doing} '/data/a.txt'") as caught:
            act()
        assert type(caught.value) is CODES[code]


def test_what_the_script_says_is_in_the_error(fake: FakeBackend, files: ContainerFiles, id: str) -> None:
    fake.programs[scripts.WRITE_SCRIPT] = Reply(stderr="cat: write error: No space left on device\n", exit_code=1)
    with pytest.raises(FileError, match="No space left on device"):
        files.write(id, PATH, b"x")


def test_a_missing_file_is_a_file_not_found_error(files: ContainerFiles, id: str) -> None:
    with pytest.raises(FileNotFoundError):
        files.read(id, PATH, max_bytes=10)


def test_a_file_that_is_too_large_is_refused_also_where_it_grows_meanwhile(
    fake: FakeBackend, files: ContainerFiles, id: str
) -> None:
    files.write(id, PATH, b"x" * 200_000)
    with pytest.raises(FileTooLarge, match="100000"):
        files.read(id, PATH, max_bytes=100_000)
    fake.programs[scripts.READ_SCRIPT] = Reply(b"x" * 200_000)
    with pytest.raises(FileTooLarge, match="100000"):
        files.read(id, PATH, max_bytes=100_000)


def test_a_small_limit_holds_too(fake: FakeBackend, files: ContainerFiles, id: str) -> None:
    fake.programs[scripts.READ_SCRIPT] = Reply(b"x" * 20)  # as a file that grew between the look and the reading
    with pytest.raises(FileTooLarge):
        files.read(id, PATH, max_bytes=10)


def test_a_stopped_container_is_an_error_of_the_container(fake: FakeBackend, files: ContainerFiles, id: str) -> None:
    fake.end(id)
    with pytest.raises(ContainerNotRunning):
        files.read(id, PATH, max_bytes=10)


def test_an_engine_that_breaks_in_the_middle_of_a_write_is_no_success(
    fake: FakeBackend, files: ContainerFiles, id: str
) -> None:
    fake.fail("read", EngineUnavailable("broken"))
    with pytest.raises(CommandInterrupted):
        files.write(id, PATH, b"x")


def test_an_image_without_a_shell_is_a_file_error(fake: FakeBackend, files: ContainerFiles, id: str) -> None:
    for name in ("sh", scripts.WRITE_SCRIPT):
        del fake.programs[name]
    with pytest.raises(FileError, match="sh"):
        files.write(id, PATH, b"x")


def test_what_only_the_agent_can_do_is_not_supported(files: ContainerFiles, id: str) -> None:
    for act in (
        lambda: files.write(id, PATH, b"x", mode=0o600),
        lambda: files.stat(id, PATH, follow=True),
        lambda: files.list(id, PATH, 10),
    ):
        with pytest.raises(NotSupported, match="needs podkit's agent"):
            act()


def test_a_directory_is_emptied(fake: FakeBackend, files: ContainerFiles, id: str) -> None:
    for name in ("/data/a", "/data/b/c", "/database"):
        files.write(id, PurePosixPath(name), b"x")
    files.empty(id, PurePosixPath("/data"))
    assert [name for name in fake.files(id) if name.startswith("/data")] == ["/database"]


def test_only_an_empty_directory_is_opened_also_where_something_may_be_mounted_below(
    fake: FakeBackend, files: ContainerFiles, id: str
) -> None:
    asked: list[str] = []

    def opened(run: Invocation) -> Reply:
        asked.extend(run.argv[4:])
        return Reply()

    fake.programs[scripts.OPEN_SCRIPT] = opened
    files.open_to_all(id, PurePosixPath("/etc"), if_empty=True, but_for=["mounted"])
    assert asked == ["/etc", "1"]
