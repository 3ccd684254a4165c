"""Files of a mount, written on the host beside a hostile container; whichever way they are opened."""

from __future__ import annotations

import errno
import os
import resource
import socket
import stat
import time
from contextlib import suppress
from pathlib import Path, PurePosixPath

import pytest

from podkit.errors import FileError, IsADirectory, NotADirectory, NotAFile, PathEscape, PodkitError
from podkit.utils import _host_files
from tests.support.waiting import within

pytestmark = pytest.mark.usefixtures("way")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The top of a mount."""
    root = tmp_path / "root"
    root.mkdir()
    return root


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """A file of the host, outside."""
    victim = tmp_path / "victim"
    victim.write_text("secret")
    return victim


def read(root: Path, path: str) -> bytes:
    return (root / path).read_bytes()


def write(root: Path, path: str, content: bytes = b"new") -> None:
    _host_files.write_file(root, PurePosixPath(path), content)


def names(root: Path) -> list[str]:
    return sorted(os.listdir(root))


# --- the plain case --------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["a", "a/b/c", "a b/🙂", "-rf", "a\nb", ".hidden", "...", "x" * 255])
def test_what_is_written_is_read_back(root: Path, path: str) -> None:
    write(root, path, b"\x00\xff bytes")
    assert read(root, path) == b"\x00\xff bytes"


def test_a_missing_root_is_made(tmp_path: Path) -> None:
    write(tmp_path / "a/b", "c")
    assert (tmp_path / "a/b/c").read_bytes() == b"new"


def test_ten_megabytes_come_back(root: Path) -> None:
    content = os.urandom(1 << 20) * 10
    write(root, "big", content)
    assert read(root, "big") == content


def test_an_empty_file_comes_back(root: Path) -> None:
    write(root, "empty", b"")
    assert read(root, "empty") == b""


def test_a_write_leaves_no_other_name_behind(root: Path) -> None:
    write(root, "a")
    write(root, "a", b"newer")
    assert names(root) == ["a"]


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o755, 0o400])
def test_a_file_that_exists_keeps_its_mode(root: Path, mode: int) -> None:
    (root / "a").write_text("old")
    (root / "a").chmod(mode)
    write(root, "a")
    assert stat.S_IMODE((root / "a").stat().st_mode) == mode
    assert (root / "a").read_bytes() == b"new"


def test_a_write_gives_no_file_the_set_uid_bit(root: Path) -> None:
    (root / "a").write_text("old")
    (root / "a").chmod(0o4755)
    write(root, "a")
    assert stat.S_IMODE((root / "a").stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_a_file_that_exists_keeps_its_owner(root: Path) -> None:
    (root / "a").write_text("old")
    os.chown(root / "a", 12345, 54321)
    write(root, "a")
    assert ((root / "a").stat().st_uid, (root / "a").stat().st_gid) == (12345, 54321)


def test_a_directory_that_exists_keeps_its_mode(root: Path) -> None:
    (root / "d").mkdir()
    (root / "d").chmod(0o700)
    write(root, "d/f")
    assert stat.S_IMODE((root / "d").stat().st_mode) == 0o700


def test_a_reader_that_has_the_old_file_open_keeps_it(root: Path) -> None:
    write(root, "a", b"old")
    with (root / "a").open("rb") as reader:
        write(root, "a", b"new")
        assert reader.read() == b"old"


def test_other_names_of_a_file_keep_the_old_content(root: Path, victim: Path) -> None:
    os.link(victim, root / "a")
    write(root, "a")
    assert victim.read_text() == "secret"


# --- links -----------------------------------------------------------------------------------------


def test_a_file_that_is_a_link_to_the_host_is_not_written(root: Path, victim: Path) -> None:
    (root / "a").symlink_to(victim)
    with pytest.raises(PathEscape, match="symlink"):
        write(root, "a")
    assert victim.read_text() == "secret"
    assert (root / "a").is_symlink()


def test_a_dangling_symlink_is_refused_and_creates_nothing(root: Path, tmp_path: Path) -> None:
    (root / "a").symlink_to(tmp_path / "not there")
    with pytest.raises(PodkitError):
        write(root, "a")
    assert names(tmp_path) == ["root"]
    assert names(root) == ["a"]


@pytest.mark.parametrize("target", ["..", "../..", "/", "{outside}"])
def test_a_link_in_a_parent_is_refused(root: Path, tmp_path: Path, target: str) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "f").write_text("secret")
    (root / "d").symlink_to(target.format(outside=outside))
    with pytest.raises(PathEscape):
        write(root, "d/f")
    with pytest.raises(PodkitError):
        write(root, "d/new/f")
    assert (outside / "f").read_text() == "secret"
    assert names(outside) == ["f"]


def test_a_dangling_link_in_a_parent_is_refused_and_creates_nothing(root: Path, tmp_path: Path) -> None:
    (root / "d").symlink_to(tmp_path / "not there")
    with pytest.raises(PodkitError):
        write(root, "d/f")
    assert names(tmp_path) == ["root"]


def test_a_chain_of_links_that_ends_outside_is_refused(root: Path, victim: Path) -> None:
    (root / "c").symlink_to(victim)
    (root / "b").symlink_to("c")
    (root / "a").symlink_to("b")
    with pytest.raises(PathEscape):
        write(root, "a")
    assert victim.read_text() == "secret"


def test_a_loop_of_links_is_refused_at_once(root: Path) -> None:
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    with within(0.1), pytest.raises(PathEscape):
        write(root, "a/x")


def test_a_link_that_leaves_and_comes_back_is_refused(root: Path) -> None:
    write(root, "real/f", b"inside")
    (root / "d").symlink_to("../root/real")
    with pytest.raises(PathEscape):
        write(root, "d/f")
    assert read(root, "real/f") == b"inside"


@pytest.mark.parametrize("link", ["/proc/self/root", "/proc/self/cwd", "/proc/self/fd"])
def test_a_link_into_proc_is_refused(root: Path, link: str) -> None:
    (root / "d").symlink_to(link)
    with pytest.raises(PathEscape):
        write(root, "d/tmp/podkit-escaped")


# --- what is no regular file -----------------------------------------------------------------------


def make_fifo(path: Path) -> None:
    os.mkfifo(path)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        before = os.getcwd()
        os.chdir(path.parent)  # the path of a socket must be short
        try:
            listener.bind(path.name)
        finally:
            os.chdir(before)


def make_device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero


KINDS = {"a directory": Path.mkdir, "a FIFO": make_fifo, "a socket": make_socket, "a device": make_device}


@pytest.mark.parametrize("kind", KINDS)
def test_only_regular_files_are_written_and_nothing_blocks(root: Path, kind: str) -> None:
    KINDS[kind](root / "a")
    with within(0.5), pytest.raises(NotAFile, match=kind):
        write(root, "a")
    assert names(root) == ["a"]


def test_a_part_of_the_path_that_is_a_file_is_named(root: Path) -> None:
    write(root, "a")
    with pytest.raises(NotADirectory, match="a part of it is not a directory"):
        write(root, "a/b")


def test_a_fifo_in_the_path_does_not_block(root: Path) -> None:
    os.mkfifo(root / "a")
    with within(0.5), pytest.raises(NotADirectory):
        write(root, "a/b")


@pytest.mark.parametrize("path", [".", ""])
def test_the_top_is_no_file(root: Path, path: str) -> None:
    with pytest.raises(IsADirectory):
        write(root, path)


# --- what is missing, large or forbidden -----------------------------------------------------------


def test_a_name_that_is_too_long_is_a_file_error(root: Path) -> None:
    with pytest.raises(FileError, match="too long"):
        write(root, "x" * 256)
    assert names(root) == []


def test_a_write_that_cannot_end_leaves_the_old_file_and_nothing_else(root: Path) -> None:
    write(root, "a", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # the nearest to a full disk that a test can have
    try:
        with pytest.raises(FileError):
            write(root, "a", b"x" * (2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert read(root, "a") == b"old"
    assert names(root) == ["a"]


def test_errors_have_the_kernels_as_their_cause(root: Path) -> None:
    with pytest.raises(FileError) as caught:
        write(root, "x" * 256)
    assert isinstance(caught.value.__cause__, OSError)
    assert (caught.value.errno, caught.value.filename) == (errno.ENAMETOOLONG, "x" * 256)


def test_no_descriptor_is_left_open(root: Path, victim: Path) -> None:
    (root / "link").symlink_to(victim)
    os.mkfifo(root / "fifo")
    before = len(os.listdir("/proc/self/fd"))
    for path in ("a/b/c", "link", "fifo", "none/x", "x" * 256, "link/x", "."):
        with suppress(PodkitError):
            write(root, path)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_hundred_levels_are_made_and_read(root: Path) -> None:
    path = "/".join(["d"] * 100 + ["f"])
    began = time.monotonic()
    write(root, path)
    assert read(root, path) == b"new"
    assert time.monotonic() - began < 1
