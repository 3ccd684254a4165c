"""Files through the agent, which runs as a process of this machine: no engine, no container."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import cast

import pytest

from podkit.agent.file_records import Entry, encode_data_header, encode_entry
from podkit.agent.file_requests import FileTask
from podkit.agent.file_transfers import Received, download, upload
from podkit.agent.files import ContainerFiles
from podkit.agent.runner import Runner
from podkit.errors import (
    CommandInterrupted,
    FileDenied,
    FileError,
    FileExists,
    FileMissing,
    FileTooLarge,
    IsADirectory,
    NotADirectory,
    NotAFile,
    TooManyFiles,
)
from tests.support.waiting import eventually, within
from tests.unit.agent.local import LocalCommands, local_commands

MIB = 1 << 20
NOBODY = 65534
ID = "here"


@pytest.fixture(scope="module")
def commands() -> Iterator[LocalCommands]:
    with local_commands() as found:
        yield found


@pytest.fixture
def files(commands: LocalCommands) -> ContainerFiles:
    return ContainerFiles(cast("Runner", commands))


@pytest.fixture
def place(tmp_path: Path) -> PurePosixPath:
    return PurePosixPath(tmp_path)


def left_in(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


# --- reading and writing -----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 3 * MIB + 7])
def test_what_is_written_is_read(files: ContainerFiles, place: PurePosixPath, size: int) -> None:
    data = os.urandom(size)
    files.write(ID, place / "f", data)
    assert Path(place, "f").read_bytes() == data
    assert files.read(ID, place / "f", max_bytes=size) == data


@pytest.mark.parametrize("name", ["a b", "-rf", "$(reboot)", "a\nb", "🙂", "x" * 255, os.fsdecode(b"\xff\xfe")])
def test_a_name_may_be_any(files: ContainerFiles, place: PurePosixPath, name: str) -> None:
    files.write(ID, place / name, b"x")
    assert left_in(Path(place)) == [name]
    assert [entry.below for entry in files.list(ID, place, 9)] == [os.fsencode(name)]
    assert files.read(ID, place / name, max_bytes=9) == b"x"


def test_missing_directories_are_made(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    files.write(ID, place / "a/b/c/f", b"x")
    assert (tmp_path / "a/b/c/f").read_bytes() == b"x"


def test_a_new_file_has_the_usual_mode_and_an_old_one_keeps_its_own(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    files.write(ID, place / "new", b"")
    (tmp_path / "old").touch(mode=0o640)
    files.write(ID, place / "old", b"x")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o666 & ~umask
    assert stat.S_IMODE((tmp_path / "old").stat().st_mode) == 0o640


def test_a_mode_may_be_asked_for(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    files.write(ID, place / "f", b"", mode=0o4750)
    assert stat.S_IMODE((tmp_path / "f").stat().st_mode) == 0o4750


def test_a_link_is_written_through_and_stays_a_link(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "first").symlink_to("d/second")
    (tmp_path / "d/second").symlink_to(tmp_path / "real")
    files.write(ID, place / "first", b"x")
    assert (tmp_path / "real").read_bytes() == b"x"
    assert (tmp_path / "first").is_symlink()


def test_links_in_a_circle_are_an_error(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    for act in (lambda: files.write(ID, place / "a", b""), lambda: files.read(ID, place / "a", max_bytes=1)):
        with pytest.raises(FileError, match="circle"):
            act()


def test_readers_see_whole_versions_while_two_write(files: ContainerFiles, place: PurePosixPath) -> None:
    versions = {letter * 100_000 for letter in (b"a", b"b")}
    files.write(ID, place / "f", min(versions))

    def write(version: bytes) -> None:
        for _ in range(100):
            files.write(ID, place / "f", version)

    writers = [threading.Thread(target=write, args=(version,)) for version in versions]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        seen.add(files.read(ID, place / "f", max_bytes=MIB))
        seen.add(Path(place, "f").read_bytes())
    assert seen <= versions
    assert left_in(Path(place)) == ["f"]


def test_a_client_that_is_killed_in_the_middle_of_a_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, place: PurePosixPath
) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with local_commands() as commands:

        def pieces() -> Iterator[bytes]:
            yield b"x" * 4 * MIB
            os.kill(commands.stream.process.pid, signal.SIGKILL)
            yield b"x"

        begin = encode_entry(Entry(b"", stat.S_IFREG)) + encode_data_header(8 * MIB)
        with pytest.raises(CommandInterrupted):
            task = FileTask(doing="write", path=place / "f", argv=["put", f"{place}/f"])
            ContainerFiles(cast("Runner", commands)).put(ID, task, [begin, *pieces()])
    assert eventually(lambda: left_in(tmp_path) == ["f"]), left_in(tmp_path)
    assert (tmp_path / "f").read_bytes() == b"old"


def test_a_large_file_takes_no_more_room_than_it_needs(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    content = os.urandom(4 * MIB + 1)
    (tmp_path / "f").write_bytes(b"old")
    files.write(ID, place / "f", content)
    assert (tmp_path / "f").read_bytes() == content
    assert (tmp_path / "f").stat().st_blocks * 512 < len(content) + MIB


# --- whose it is, and what is left behind ----------------------------------------------------------------


@pytest.fixture(scope="module")
def nobody() -> Iterator[ContainerFiles]:
    """The files of an agent that is not root."""
    if os.geteuid() != 0:
        pytest.skip("only root becomes another user")
    with local_commands("channel", "60", f"{NOBODY}:{NOBODY}") as found:
        yield ContainerFiles(cast("Runner", found))


@pytest.fixture
def shared() -> Iterator[Path]:
    """A directory in which all users may write; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        os.chmod(name, 0o777)
        yield Path(name)


def test_a_file_that_its_user_may_not_write_is_not_replaced_either(nobody: ContainerFiles, shared: Path) -> None:
    (shared / "f").write_bytes(b"root's")
    with pytest.raises(FileDenied) as caught:
        nobody.write(ID, PurePosixPath(shared, "f"), b"x")
    assert isinstance(caught.value, PermissionError)
    assert (shared / "f").read_bytes() == b"root's"


def test_a_file_of_somebody_else_stays_theirs(nobody: ContainerFiles, shared: Path) -> None:
    (shared / "f").write_bytes(b"a longer text of root's")
    (shared / "f").chmod(0o666)
    before = (shared / "f").stat()
    nobody.write(ID, PurePosixPath(shared, "f"), b"x")
    after = (shared / "f").stat()
    assert (shared / "f").read_bytes() == b"x"
    assert (after.st_uid, after.st_mode, after.st_ino) == (0, before.st_mode, before.st_ino)
    assert left_in(shared) == ["f"]


def test_a_file_in_a_directory_that_takes_no_new_one_is_written_in_place(nobody: ContainerFiles, shared: Path) -> None:
    (shared / "f").write_bytes(b"a longer text")
    os.chown(shared / "f", NOBODY, NOBODY)
    shared.chmod(0o755)
    nobody.write(ID, PurePosixPath(shared, "f"), b"x", mode=0o640)
    assert (shared / "f").read_bytes() == b"x"
    assert stat.S_IMODE((shared / "f").stat().st_mode) == 0o640
    with pytest.raises(FileDenied):
        nobody.write(ID, PurePosixPath(shared, "new"), b"x")
    assert left_in(shared) == ["f"]


def test_root_keeps_whose_a_file_was(files: ContainerFiles, shared: Path) -> None:
    (shared / "f").touch(mode=0o600)
    os.chown(shared / "f", NOBODY, NOBODY)
    files.write(ID, PurePosixPath(shared, "f"), b"x")
    after = (shared / "f").stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (NOBODY, NOBODY, 0o600)


def test_a_new_file_is_its_writers(nobody: ContainerFiles, shared: Path) -> None:
    nobody.write(ID, PurePosixPath(shared, "d/f"), b"x")
    assert [(shared / name).stat().st_uid for name in ("d", "d/f")] == [NOBODY, NOBODY]


def temporary_of(name: str, attempt: int = 0) -> str:
    """Under which name the agent writes a file that is not complete, where the file system knows none without."""
    hash = 14695981039346656037
    for byte in os.fsencode(name):
        hash = (hash ^ byte) * 1099511628211 % (1 << 64)
    return f".podkit-{hash + attempt:016x}"


@pytest.mark.parametrize("make", [Path.touch, lambda path: path.symlink_to("nowhere")])
def test_what_a_killed_writer_has_left_goes_with_the_next_one(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath, make: Callable[[Path], None]
) -> None:
    (tmp_path / "f").write_bytes(b"old")
    make(tmp_path / temporary_of("f"))
    files.write(ID, place / "f", b"new")
    assert left_in(tmp_path) == ["f"]


def test_what_another_writer_still_writes_is_left_alone(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    (tmp_path / "f").write_bytes(b"old")
    with (tmp_path / temporary_of("f")).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        files.write(ID, place / "f", b"new")
        assert left_in(tmp_path) == [temporary_of("f"), "f"]
    assert (tmp_path / "f").read_bytes() == b"new"


def test_names_that_somebody_has_taken_do_not_keep_a_file_from_being_written(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    (tmp_path / "f").write_bytes(b"old")
    for attempt in range(64):
        (tmp_path / temporary_of("f", attempt)).mkdir()
    before = (tmp_path / "f").stat().st_ino
    files.write(ID, place / "f", b"new")
    assert (tmp_path / "f").read_bytes() == b"new"
    assert (tmp_path / "f").stat().st_ino != before  # in one step all the same


def test_a_directory_of_roots_is_opened_to_all_where_nothing_speaks_against_it(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    for name in ("empty", "full", "theirs", "real"):
        (tmp_path / name).mkdir(mode=0o755)
    (tmp_path / "full/f").touch()
    os.chown(tmp_path / "theirs", NOBODY, NOBODY)
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/below").mkdir(mode=0o755)
    for name in ("empty", "full", "theirs", "link", "link/below", "link/new", "new", "no/parent"):
        files.open_to_all(ID, place / name, if_empty=True)

    expected = {"empty": 0o777, "full": 0o755, "theirs": 0o755, "real": 0o755, "real/below": 0o755, "new": 0o777}
    assert left_in(tmp_path / "real") == ["below"]
    assert {name: stat.S_IMODE((tmp_path / name).stat().st_mode) for name in expected} == expected
    files.open_to_all(ID, place / "full", if_empty=True, but_for=["other", "f"])
    assert stat.S_IMODE((tmp_path / "full").stat().st_mode) == 0o777


# --- what is no file -----------------------------------------------------------------------------------


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.parametrize("make", [Path.mkdir, make_fifo, make_socket])
def test_what_is_no_regular_file_is_neither_read_nor_replaced(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "x")
    before = (tmp_path / "x").stat()
    with within(5):
        with pytest.raises(NotAFile):
            files.read(ID, place / "x", max_bytes=9)
        with pytest.raises(NotAFile):
            files.write(ID, place / "x", b"text")
    assert (tmp_path / "x").stat().st_ino == before.st_ino


@pytest.mark.parametrize("device", ["/dev/zero", "/dev/null", "/dev/full"])
def test_a_device_is_neither_read_nor_replaced(files: ContainerFiles, device: str) -> None:
    for act in (
        lambda: files.read(ID, PurePosixPath(device), max_bytes=9),
        lambda: files.write(ID, PurePosixPath(device), b""),
        lambda: get(files, PurePosixPath(device), Path("/nowhere")),
    ):
        with pytest.raises(NotAFile):
            act()


def test_a_file_of_proc_is_read_up_to_the_limit_though_it_says_that_it_is_empty(files: ContainerFiles) -> None:
    assert files.read(ID, PurePosixPath("/proc/self/status"), max_bytes=MIB).startswith(b"Name:")
    with pytest.raises(FileTooLarge):
        files.read(ID, PurePosixPath("/proc/self/status"), max_bytes=10)


def test_a_sparse_giant_is_too_large(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    with (tmp_path / "giant").open("wb") as file:
        file.truncate(1 << 42)
    with within(5):
        with pytest.raises(FileTooLarge):
            files.read(ID, place / "giant", max_bytes=MIB)
        with pytest.raises(FileTooLarge):
            get(files, place, tmp_path / "to")


def test_a_file_that_grows_while_it_is_read_is_cut_off_at_the_limit(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    (tmp_path / "log").touch()
    grow = "import sys\nwith open(sys.argv[1], 'ab') as f:\n    while True: f.write(bytes(1 << 20))"
    writer = subprocess.Popen([sys.executable, "-c", grow, str(tmp_path / "log")])
    try:
        assert eventually(lambda: (tmp_path / "log").stat().st_size > 0)
        with within(20), pytest.raises(FileTooLarge):
            while True:  # a reader that is faster than the writer comes to an end of the file
                files.read(ID, place / "log", max_bytes=8 * MIB)
    finally:
        writer.kill()
        writer.wait()


def test_a_file_system_that_takes_no_files_says_so(files: ContainerFiles) -> None:
    with pytest.raises(FileDenied):
        files.write(ID, PurePosixPath("/proc/podkit"), b"")


# --- names -----------------------------------------------------------------------------------------------


def test_a_directory_is_listed_with_what_is_known_of_each(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    (tmp_path / "d").mkdir(mode=0o700)
    (tmp_path / "f").write_bytes(b"abc")
    os.utime(tmp_path / "f", ns=(0, 1_700_000_000_123_456_789))
    (tmp_path / "l").symlink_to("no/where")
    found = {entry.below: entry for entry in files.list(ID, place, 9)}
    assert found.keys() == {b"d", b"f", b"l"}
    assert (found[b"f"].size, stat.S_ISREG(found[b"f"].mode)) == (3, True)
    assert (found[b"f"].modified_seconds, found[b"f"].modified_nanoseconds) == (1_700_000_000, 123_456_789)
    assert found[b"d"].mode == stat.S_IFDIR | 0o700
    assert (stat.S_ISLNK(found[b"l"].mode), found[b"l"].link) == (True, b"no/where")
    assert (found[b"f"].uid, found[b"f"].gid) == (os.getuid(), os.getgid())


def test_more_names_than_the_limit_are_an_error(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    for number in range(5):
        (tmp_path / str(number)).touch()
    assert len(files.list(ID, place, 5)) == 5
    with pytest.raises(TooManyFiles):
        files.list(ID, place, 4)


def test_a_file_is_not_listed(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(NotADirectory) as caught:
        files.list(ID, place / "f", 9)
    assert isinstance(caught.value, NotADirectoryError)
    assert caught.value.errno == errno.ENOTDIR


def test_a_link_is_looked_through_or_at(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    (tmp_path / "l").symlink_to("f")
    assert stat.S_ISREG(files.stat(ID, place / "l", follow=True).mode)
    assert files.stat(ID, place / "l", follow=False).link == b"f"


def test_a_directory_is_made_as_asked(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    with pytest.raises(FileMissing):
        files.mkdir(ID, place / "a/b", 0o777, parents=False, exist_ok=False)
    files.mkdir(ID, place / "a/b", 0o700, parents=True, exist_ok=False)
    assert stat.S_IMODE((tmp_path / "a/b").stat().st_mode) == 0o700
    with pytest.raises(FileExists) as caught:
        files.mkdir(ID, place / "a/b", 0o777, parents=True, exist_ok=False)
    assert isinstance(caught.value, FileExistsError)
    files.mkdir(ID, place / "a/b", 0o777, parents=False, exist_ok=True)
    (tmp_path / "f").touch()
    with pytest.raises(FileExists):
        files.mkdir(ID, place / "f", 0o777, parents=False, exist_ok=True)


def test_only_what_was_named_is_removed(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/f").touch()
    (tmp_path / "tree/a/b").mkdir(parents=True)
    (tmp_path / "tree/a/b/f").touch()
    (tmp_path / "tree/l").symlink_to("../kept")
    (tmp_path / "link").symlink_to("kept")
    files.remove(ID, place / "link", recursive=True)
    with pytest.raises(FileError, match="recursive=True"):
        files.remove(ID, place / "tree", recursive=False)
    assert (tmp_path / "tree/a/b/f").exists()
    files.remove(ID, place / "tree", recursive=True)
    assert left_in(tmp_path) == ["kept"]
    assert left_in(tmp_path / "kept") == ["f"]


def test_a_tree_of_three_thousand_levels_is_removed_and_not_fetched(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    deep = "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(3000): os.mkdir('dir'); os.chdir('dir')"
    subprocess.run([sys.executable, "-c", deep, str(tmp_path)], check=True)
    with pytest.raises(FileError):
        get(files, place / "dir", tmp_path / "to")
    files.remove(ID, place / "to", recursive=True)
    files.remove(ID, place / "dir", recursive=True)
    assert left_in(tmp_path) == []


def test_a_renamed_file_replaces_another_but_no_directory(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    (tmp_path / "d/e").mkdir(parents=True)
    files.rename(ID, place / "a", place / "b")
    assert (tmp_path / "b").read_text() == "a"
    with pytest.raises(NotAFile):
        files.rename(ID, place / "b", place / "d")
    with pytest.raises(FileMissing):
        files.rename(ID, place / "a", place / "c")


RENAMINGS: dict[str, tuple[str, str, type[FileError], int, str]] = {
    "a directory that is not empty": ("empty", "full", FileError, errno.ENOTEMPTY, "{new}' is .* not empty: remove it"),
    "a missing parent": ("f", "no/f", FileMissing, errno.ENOENT, "no directory '{above}': make it .*parents=True"),
    "a missing source": ("no", "f", FileMissing, errno.ENOENT, "there is no '{old}'"),
    "a file onto a directory": ("f", "full", IsADirectory, errno.EISDIR, "pass the whole new path, such as '{new}/f'"),
    "a directory onto a file": ("full", "f", NotADirectory, errno.ENOTDIR, "'{new}' is a file"),
    "a directory into itself": ("full", "full/x", FileError, errno.EINVAL, "into itself"),
}


@pytest.mark.parametrize("case", RENAMINGS)
def test_a_renaming_that_fails_names_both_paths_and_the_cure(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath, case: str
) -> None:
    (tmp_path / "full/sub").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    (tmp_path / "f").touch()
    source, target, kind, number, cure = RENAMINGS[case]
    old, new = str(place / source), str(place / target)
    said = f"cannot rename '{old}' to '{new}' .*" + cure.format(old=old, new=new, above=os.path.dirname(new))
    with pytest.raises(kind, match=said) as caught:
        files.rename(ID, place / source, place / target)
    error = caught.value
    assert (type(error), error.errno, error.filename, error.filename2) == (kind, number, old, new)


@pytest.mark.parametrize("name", ["no/d", "no/way/d"])
def test_a_directory_whose_parent_is_missing_says_how_to_make_that(
    files: ContainerFiles, place: PurePosixPath, name: str
) -> None:
    with pytest.raises(FileMissing, match="pass parents=True"):
        files.mkdir(ID, place / name, 0o777, parents=False, exist_ok=True)


def test_an_error_names_what_is_wrong_below(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    (tmp_path / "tree/a").mkdir(parents=True)
    with (tmp_path / "tree/a/giant").open("wb") as file:
        file.truncate(1 << 42)
    with pytest.raises(FileTooLarge, match=r"tree/a/giant"):
        get(files, place / "tree", tmp_path / "to")


def full_directory(top: Path) -> None:
    (top / "d/sub").mkdir(parents=True)
    (top / "f").touch()
    (top / "loop").symlink_to("loop")


BY_NUMBER: dict[int, tuple[str, Callable[[ContainerFiles, PurePosixPath], object]]] = {
    errno.ENOENT: ("no", lambda files, path: files.read(ID, path, max_bytes=1)),
    errno.ENOTDIR: ("f/x", lambda files, path: files.read(ID, path, max_bytes=1)),
    errno.EISDIR: ("d", lambda files, path: files.read(ID, path, max_bytes=1)),
    errno.ELOOP: ("loop", lambda files, path: files.stat(ID, path, follow=True)),
    errno.ENAMETOOLONG: ("x" * 256, lambda files, path: files.write(ID, path, b"")),
    errno.EEXIST: ("d", lambda files, path: files.mkdir(ID, path, 0o777, parents=False, exist_ok=False)),
    errno.ENOTEMPTY: ("d", lambda files, path: files.remove(ID, path, recursive=False)),
}


@pytest.mark.parametrize("number", BY_NUMBER)
def test_an_error_of_the_system_has_its_number_and_the_path(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath, number: int
) -> None:
    full_directory(tmp_path)
    name, act = BY_NUMBER[number]
    with pytest.raises(FileError) as caught:
        act(files, place / name)
    error = caught.value
    assert (error.errno, error.strerror, error.filename) == (number, os.strerror(number), f"{place}/{name}")


def test_what_only_podkit_refuses_has_no_number(files: ContainerFiles) -> None:
    with pytest.raises(NotAFile) as caught:
        files.read(ID, PurePosixPath("/dev/null"), max_bytes=1)
    assert (caught.value.errno, caught.value.strerror, caught.value.filename) == (None, None, "/dev/null")


def test_a_directory_is_caught_as_pythons_own_error_and_a_device_is_not(
    files: ContainerFiles, place: PurePosixPath
) -> None:
    for path, expected in ((place, True), (PurePosixPath("/dev/null"), False)):
        with pytest.raises(NotAFile) as caught:
            files.write(ID, path, b"")
        assert isinstance(caught.value, IsADirectoryError) is expected


def test_a_limit_that_is_too_small_is_named_with_what_was_found(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    for name in "abc":
        (tmp_path / "t" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "t" / name).write_bytes(b"x" * 40)
    for act, found, parameter, limit in (
        (lambda: files.read(ID, place / "t/a", max_bytes=39), "40 bytes", "max_bytes", 39),
        (lambda: files.list(ID, place / "t", 2), "3 names", "max_entries", 2),
        (lambda: get(files, place / "t", tmp_path / "to", 100, 9), "120 bytes in all", "max_bytes", 100),
        (lambda: get(files, place / "t", tmp_path / "to", 100, 1), "2 names in all", "max_files", 1),
    ):
        expected = f"at least {found}, and {parameter} is {limit}: pass a larger {parameter}"
        with pytest.raises((FileTooLarge, TooManyFiles), match=expected):
            act()


def test_a_limit_that_the_caller_cannot_set_names_what_else_there_is(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(FileTooLarge, match=f"{1 << 40} bytes, and the limit is {256 << 20}: files.read_bytes takes"):
        files.read(ID, place / "large")


# --- trees -----------------------------------------------------------------------------------------------


def get(
    files: ContainerFiles, path: PurePosixPath, local: Path, max_bytes: int = 64 * MIB, max_files: int = 100
) -> Received:
    return download(
        files,
        ID,
        path,
        local,
        is_directory=False,
        max_bytes=max_bytes,
        max_files=max_files,
        user=None,
        timeout=None,
        progress=None,
    )


def send(files: ContainerFiles, local: Path, path: PurePosixPath) -> None:
    upload(files, ID, local, path, user=None, timeout=None, progress=None)


def make_tree(top: Path) -> None:
    (top / "sub/empty").mkdir(parents=True)
    (top / "run").write_text("#!/bin/sh\n")
    (top / "run").chmod(0o755)
    (top / "sub/private").write_bytes(os.urandom(MIB))
    (top / "sub/private").chmod(0o600)
    (top / "sub/zero").touch()
    (top / os.fsdecode(b"\xff name")).write_text("x")


def seen(top: Path) -> dict[str, tuple[int, bytes | None]]:
    """Every path below, with its mode and, of a file, its bytes."""
    found = {}
    for path in sorted(top.rglob("*")):
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else None
        found[str(path.relative_to(top))] = path.lstat().st_mode, content
    return found


def test_a_tree_goes_there_and_comes_back_as_it_was(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    make_tree(tmp_path / "from")
    send(files, tmp_path / "from", place / "in/side")
    assert seen(tmp_path / "in/side") == seen(tmp_path / "from")
    received = get(files, place / "in/side", tmp_path / "back")
    assert seen(tmp_path / "back") == seen(tmp_path / "from")
    assert (received.files, received.size, received.skipped) == (4, MIB + 11, ())


def test_an_upload_sends_links_as_links(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "from/l").symlink_to("/etc/passwd")
    (tmp_path / "to").mkdir()
    (tmp_path / "to/l").symlink_to("something else")
    send(files, tmp_path / "from", place / "to")
    assert os.readlink(tmp_path / "to/l") == "/etc/passwd"


@pytest.mark.parametrize("name", ["sub", "sub/f", "sub/deep/f"])
def test_an_upload_follows_no_link_below_its_target(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath, name: str
) -> None:
    source = tmp_path / "from" / name
    source.mkdir(parents=True) if name == "sub" else source.parent.mkdir(parents=True)
    if name != "sub":
        source.write_text("attack")
    (tmp_path / "outside").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to/sub").symlink_to("../outside")
    with pytest.raises(FileExists):
        send(files, tmp_path / "from", place / "to")
    assert left_in(tmp_path / "outside") == []


def test_an_upload_goes_into_a_directory_that_exists(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    make_tree(tmp_path / "from")
    (tmp_path / "to/sub").mkdir(parents=True)
    (tmp_path / "to/sub/zero").write_text("old")
    (tmp_path / "to/kept").write_text("kept")
    send(files, tmp_path / "from", place / "to")
    assert (tmp_path / "to/sub/zero").read_text() == ""
    assert (tmp_path / "to/kept").read_text() == "kept"


def test_an_upload_to_a_directory_asks_for_the_whole_path(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    (tmp_path / "f").touch()
    (tmp_path / "to").mkdir()
    with pytest.raises(IsADirectory, match=f"pass the whole path of the file, such as '{place}/to/f'"):
        send(files, tmp_path / "f", place / "to")


def test_an_upload_of_a_directory_does_not_replace_a_file(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    (tmp_path / "from").mkdir()
    (tmp_path / "to").write_text("kept")
    with pytest.raises(FileExists, match="something else than a directory is there: remove it"):
        send(files, tmp_path / "from", place / "to")
    assert (tmp_path / "to").read_text() == "kept"


def test_an_uploaded_directory_has_the_mode_that_it_had(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    (tmp_path / "from/sub").mkdir(parents=True)
    (tmp_path / "from").chmod(0o700)
    (tmp_path / "from/sub").chmod(0o775)
    send(files, tmp_path / "from", place / "new/to")
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("new/to", "new/to/sub")] == [0o700, 0o775]


def test_a_special_file_is_not_uploaded(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    (tmp_path / "from").mkdir()
    os.mkfifo(tmp_path / "from/fifo")
    with within(5), pytest.raises(NotAFile, match="fifo"):
        send(files, tmp_path / "from", place / "to")


def test_nothing_to_upload_is_a_missing_file(files: ContainerFiles, tmp_path: Path, place: PurePosixPath) -> None:
    with pytest.raises(FileMissing, match="no/such"):
        send(files, tmp_path / "no/such", place / "to")
    assert left_in(tmp_path) == []


def test_a_download_leaves_out_and_tells_what_is_no_file(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath
) -> None:
    (tmp_path / "from/sub").mkdir(parents=True)
    (tmp_path / "from/sub/l").symlink_to("/etc/passwd")
    make_fifo(tmp_path / "from/fifo")
    make_socket(tmp_path / "from/socket")
    (tmp_path / "from/f").write_text("text")
    with within(5):
        received = get(files, place / "from", tmp_path / "to")
    assert sorted(received.skipped) == ["fifo", "socket", "sub/l"]
    assert sorted(seen(tmp_path / "to")) == ["f", "sub"]


@pytest.mark.parametrize(("max_bytes", "max_files", "error"), [(100, 100, FileTooLarge), (MIB, 2, TooManyFiles)])
def test_a_download_that_is_over_a_limit_ends(
    files: ContainerFiles, tmp_path: Path, place: PurePosixPath, max_bytes: int, max_files: int, error: type[FileError]
) -> None:
    (tmp_path / "from").mkdir()
    for name in "abc":
        (tmp_path / "from" / name).write_bytes(b"x" * 40)
    with pytest.raises(error):
        get(files, place / "from", tmp_path / "to", max_bytes, max_files)
    assert not [name for name in left_in(tmp_path / "to") if name.startswith(".")]


def test_the_channel_goes_on_after_every_error(files: ContainerFiles, commands: LocalCommands) -> None:
    assert not commands.channel.broken
    assert files.read(ID, PurePosixPath("/proc/self/comm"), max_bytes=99)
