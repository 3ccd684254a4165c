"""Trees on the host: what a hostile container sends stays below the target, and what it links to is not followed."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from podkit.errors import (
    FileDenied,
    FileError,
    FileExists,
    FileMissing,
    FileTooLarge,
    IsADirectory,
    NoSpace,
    NotADirectory,
    NotAFile,
    PathEscape,
    TooManyFiles,
)
from podkit.utils._host_files import file_errors
from podkit.utils._host_tree import HostEntry, TreeWriter, read_tree
from tests.support.waiting import within

FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


def everything_below(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*"))


def writer(top: Path, max_bytes: int = 1000, max_files: int = 100) -> TreeWriter:
    return TreeWriter(top, max_bytes=max_bytes, max_files=max_files)


def put(tree: TreeWriter, below: bytes, data: bytes = b"attack") -> None:
    tree.begin(below, FILE)
    tree.write(memoryview(data))
    tree.end()


NAMES = {
    "up": b"../x",
    "up from below": b"sub/../../x",
    "a name that is up": b"..",
    "the same": b".",
    "absolute": b"/tmp/x",
    "an empty part": b"sub//x",
    "a slash at the end": b"sub/",
    "NUL": b"a\0b",
    "a long name": b"x" * 256,
    "a long path": b"/".join([b"sub"] * 2000),
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", [FILE, DIRECTORY, LINK])
def test_a_name_that_leaves_is_refused_and_makes_nothing(tmp_path: Path, name: str, mode: int) -> None:
    with pytest.raises(PathEscape), writer(tmp_path / "to") as tree:
        tree.begin(b"", DIRECTORY)
        tree.begin(b"sub", DIRECTORY)
        tree.begin(NAMES[name], mode)
    assert everything_below(tmp_path) == ["to", "to/sub"]


@pytest.mark.parametrize("below", [b"link/x", b"link", b"link/sub/x"])
def test_a_link_that_stands_in_the_target_is_never_followed(tmp_path: Path, below: bytes) -> None:
    (tmp_path / "outside/sub").mkdir(parents=True)
    (tmp_path / "outside/victim").write_text("secret")
    (tmp_path / "to").mkdir()
    (tmp_path / "to/link").symlink_to("../outside")
    with pytest.raises(PathEscape), writer(tmp_path / "to") as tree:
        tree.begin(b"", DIRECTORY)
        put(tree, below)
    assert everything_below(tmp_path / "outside") == ["sub", "victim"]
    assert everything_below(tmp_path / "to") == ["link"]


def test_a_directory_is_not_made_of_a_link_that_stands_in_its_place(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "to").mkdir()
    (tmp_path / "to/sub").symlink_to("../outside")
    with pytest.raises(PathEscape), writer(tmp_path / "to") as tree:
        tree.begin(b"", DIRECTORY)
        tree.begin(b"sub", DIRECTORY)
    assert everything_below(tmp_path / "outside") == []


def test_a_link_in_the_place_of_a_single_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "victim").write_text("secret")
    (tmp_path / "to").symlink_to("victim")
    with pytest.raises(PathEscape), writer(tmp_path / "to") as tree:
        put(tree, b"")
    assert (tmp_path / "victim").read_text() == "secret"


@pytest.mark.parametrize("names", ["outside", "nowhere", "victim", "to"])
def test_a_link_in_the_place_of_the_whole_tree_is_refused(tmp_path: Path, names: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "victim").write_text("secret")
    (tmp_path / "to").symlink_to(names)
    with pytest.raises(PathEscape, match="/to': a symlink is there"), writer(tmp_path / "to") as tree:
        tree.begin(b"", DIRECTORY)
    assert everything_below(tmp_path) == ["outside", "to", "victim"]


def test_a_link_on_the_way_to_the_target_is_the_callers_own(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with writer(tmp_path / "link/to") as tree:
        tree.begin(b"", DIRECTORY)
        put(tree, b"f")
    assert everything_below(tmp_path / "real") == ["to", "to/f"]


def test_the_current_directory_may_be_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with writer(Path()) as tree:
        tree.begin(b"", DIRECTORY)
        put(tree, b"f")
    assert everything_below(tmp_path) == ["f"]


@pytest.mark.parametrize("mode", [LINK, stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK, 0, 0xFFFF_FFFF])
def test_what_is_neither_a_file_nor_a_directory_is_told_and_not_made(tmp_path: Path, mode: int) -> None:
    with writer(tmp_path / "to") as tree:
        tree.begin(b"", DIRECTORY)
        tree.begin(b"odd", mode)
        assert tree.skipped == ["odd"]
    assert everything_below(tmp_path / "to") == []


def test_a_name_that_comes_twice_is_refused(tmp_path: Path) -> None:
    with writer(tmp_path / "to") as tree:
        tree.begin(b"", DIRECTORY)
        put(tree, b"a")
        put(tree, b"A")  # another one, on a file system that tells them apart
        with pytest.raises(PathEscape, match="twice"):
            tree.begin(b"a", FILE)


@pytest.mark.parametrize("entries", [[b"x"], [b"", b""], [b"", b"no/such"]])
def test_entries_out_of_their_order_are_refused(tmp_path: Path, entries: list[bytes]) -> None:
    with pytest.raises(FileError), writer(tmp_path / "to") as tree:
        for below in entries:
            tree.begin(below, FILE if below else DIRECTORY)


def test_nothing_may_follow_a_single_file(tmp_path: Path) -> None:
    for below in (b"", b"x"):
        with pytest.raises(FileError), writer(tmp_path / "to") as tree:
            put(tree, b"")
            tree.begin(below, FILE)


def test_more_names_than_the_limit_are_refused(tmp_path: Path) -> None:
    with writer(tmp_path / "to", max_files=2) as tree:
        tree.begin(b"", DIRECTORY)
        tree.begin(b"a", DIRECTORY)
        tree.begin(b"b", LINK)
        with pytest.raises(TooManyFiles, match="at least 3 names, and max_files is 2: pass a larger max_files"):
            tree.begin(b"c", FILE)


def test_more_bytes_than_the_limit_are_refused_whatever_was_promised(tmp_path: Path) -> None:
    with (
        pytest.raises(FileTooLarge, match="at least 11 bytes, and max_bytes is 10: pass a larger max_bytes"),
        writer(tmp_path / "to", max_bytes=10) as tree,
    ):
        tree.begin(b"", DIRECTORY)
        put(tree, b"a", b"12345678")
        put(tree, b"b", b"123")
    assert everything_below(tmp_path / "to") == ["a"]


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    (tmp_path / "to").write_text("old")
    with writer(tmp_path / "to") as tree:
        tree.begin(b"", FILE)
        tree.write(memoryview(b"half of "))
        assert (tmp_path / "to").read_text() == "old"
    assert (tmp_path / "to").read_text() == "old"
    assert everything_below(tmp_path) == ["to"]


def test_modes_are_kept_but_never_those_that_lend_rights_or_lock_the_caller_out(tmp_path: Path) -> None:
    with writer(tmp_path / "to") as tree:
        tree.begin(b"", DIRECTORY)
        tree.begin(b"d", stat.S_IFDIR | 0o7000)
        tree.begin(b"d/f", stat.S_IFREG | 0o6111)
        tree.end()
    assert stat.S_IMODE((tmp_path / "to/d").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "to/d/f").stat().st_mode) == 0o711


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_is_not_replaced_by_one(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "to")
    with within(5), pytest.raises(NotAFile), writer(tmp_path / "to") as tree:
        tree.begin(b"", FILE)


@pytest.mark.parametrize("below", [b"", b"f"])
def test_a_file_that_stands_where_a_directory_is_to_be_exists_already(tmp_path: Path, below: bytes) -> None:
    top = tmp_path / "to" if below else tmp_path / "to/f"
    (tmp_path / "to").mkdir()
    (tmp_path / "to/f").write_text("kept")
    with (
        pytest.raises(FileExists, match="/to/f': something else than a directory is there; remove it") as caught,
        writer(top) as tree,
    ):
        tree.begin(b"", DIRECTORY)
        tree.begin(below or b"sub", DIRECTORY)
    assert (caught.value.errno, caught.value.filename) == (errno.EEXIST, str(tmp_path / "to/f"))
    assert (tmp_path / "to/f").read_text() == "kept"


@pytest.mark.parametrize("mode", [FILE, DIRECTORY])
@pytest.mark.parametrize("way", ["f", "f/sub"])
def test_a_file_on_the_way_to_the_target_is_no_directory(tmp_path: Path, way: str, mode: int) -> None:
    (tmp_path / "f").touch()
    with pytest.raises(NotADirectory), writer(tmp_path / way / "to") as tree:
        tree.begin(b"", mode)


def test_a_directory_in_the_place_of_a_file_asks_for_the_whole_path(tmp_path: Path) -> None:
    (tmp_path / "to").mkdir()
    with pytest.raises(IsADirectory, match="pass the whole path of the file"), writer(tmp_path / "to") as tree:
        tree.begin(b"", FILE)


def test_a_new_target_has_the_mode_of_the_directory_that_it_is_made_of(tmp_path: Path) -> None:
    with writer(tmp_path / "to") as tree:
        tree.begin(b"", stat.S_IFDIR | 0o700)
    assert stat.S_IMODE((tmp_path / "to").stat().st_mode) == 0o700


def test_ten_thousand_long_names_cost_little_memory(tmp_path: Path) -> None:
    tracemalloc.start()
    try:
        with writer(tmp_path / "to", max_files=10_000) as tree:
            tree.begin(b"", DIRECTORY)
            for number in range(10_000):
                with pytest.raises(FileError):  # there is no such directory
                    tree.begin(b"%d/" % number + b"x" * 255, FILE)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


def test_a_read_only_file_system_is_an_error_of_its_class() -> None:
    with (
        pytest.raises(FileDenied, match="the file system is read-only"),
        file_errors(Path("/where"), "write"),
    ):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_of_the_host_is_said(number: int) -> None:
    with pytest.raises(NoSpace, match="'/where'") as caught, file_errors(Path("/where"), "download to"):
        raise OSError(number, os.strerror(number))
    assert caught.value.errno == number


# --- reading ---------------------------------------------------------------------------------------------


def test_a_tree_is_read_with_every_directory_before_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "a/b").mkdir(parents=True)
    (tmp_path / "a/b/f").write_text("text")
    (tmp_path / "a/l").symlink_to("/etc/passwd")
    items = list(read_tree(tmp_path))
    names = [item.below for item in items if isinstance(item, HostEntry)]
    assert names[:2] == [b"", b"a"]
    assert sorted(names) == [b"", b"a", b"a/b", b"a/b/f", b"a/l"]
    assert names.index(b"a/b") < names.index(b"a/b/f")
    at = items.index(next(item for item in items if isinstance(item, HostEntry) and item.below == b"a/b/f"))
    assert items[at + 1 : at + 3] == [b"text", None]
    assert next(item.link for item in items if isinstance(item, HostEntry) and item.below == b"a/l") == b"/etc/passwd"


def test_a_directory_that_becomes_a_link_while_it_is_read_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").write_text("secret")
    (tmp_path / "from/sub").mkdir(parents=True)
    items = read_tree(tmp_path / "from")
    assert [next(items), next(items)][1] == HostEntry(b"sub", (tmp_path / "from/sub").stat().st_mode)
    (tmp_path / "from/sub").rmdir()
    (tmp_path / "from/sub").symlink_to("../outside")
    with pytest.raises(PathEscape):
        list(items)


def test_a_link_to_itself_at_the_top_is_an_error_that_says_so(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(FileError, match="in a circle") as caught:
        list(read_tree(tmp_path / "loop"))
    assert (caught.value.errno, caught.value.filename) == (errno.ELOOP, str(tmp_path / "loop"))


def test_a_link_at_the_top_is_the_callers_own(tmp_path: Path) -> None:
    (tmp_path / "real").write_text("text")
    (tmp_path / "link").symlink_to("real")
    assert list(read_tree(tmp_path / "link"))[1:] == [b"text", None]


def test_a_missing_or_a_special_file_is_an_error_and_no_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with within(5):
        with pytest.raises(FileMissing):
            list(read_tree(tmp_path / "no"))
        with pytest.raises(NotAFile, match="FIFO"):
            list(read_tree(tmp_path / "fifo"))
        with pytest.raises(NotAFile, match="FIFO"):
            list(read_tree(tmp_path))


def test_a_tree_keeps_no_more_descriptors_open_than_a_few(tmp_path: Path) -> None:
    deep = "import os, sys\nos.chdir(sys.argv[1])\nfor _ in range(500): os.mkdir('d'); os.chdir('d')"
    subprocess.run(["python3", "-c", deep, str(tmp_path)], check=True)
    before = len(os.listdir("/proc/self/fd"))
    most = max(len(os.listdir("/proc/self/fd")) for _ in read_tree(tmp_path))
    assert most <= before + 5
