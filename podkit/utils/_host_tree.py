"""File trees to and from a container, read and written on the host. No link is followed.

What is read may be changed meanwhile by a container that has it mounted, and what comes from a container is hostile:
every step goes through a directory that is already open, and each name is checked.
"""

from __future__ import annotations

import errno
import os
import stat
import unicodedata
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePath
from typing import NamedTuple, Self

from podkit.errors import FileError, FileExists, FileTooLarge, NotAFile, PathEscape, TooManyFiles
from podkit.utils._atomic_file import NewFile, temporary_name
from podkit.utils._checks import over
from podkit.utils._host_files import DIRECTORY_FLAGS, check_replaceable, file_errors, kind_of, opened, walk, write_all

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PIECE_BYTES = 1 << 20
_NAME_BYTES = 255
_PATH_BYTES = 4096
_KEPT_OPEN = 4  # directories of a tree that is written


class HostEntry(NamedTuple):
    """Something that is to be sent.

    Attributes:
        below: its path below the top; empty for the top itself.
        mode: type and permissions; a directory, a regular file or a symlink.
        link: what a symlink names.
    """

    below: bytes
    mode: int
    link: bytes = b""


# --- reading -----------------------------------------------------------------------------------------


def read_tree(top: Path) -> Iterator[HostEntry | bytes | None]:
    """Yield a file, or a directory tree, in constant memory.

    A regular file is followed by its bytes, in pieces, and by `None`. Symlinks below the top are given as links.

    Raises:
        FileMissing: there is no such file.
        NotAFile: it is a device, a FIFO or a socket, or one is below it.
        FileError: something cannot be read.
    """
    with file_errors(top, "upload", link="a part of it has become a symlink, which is not followed"):
        mode = _look_at(top)
        if not stat.S_ISDIR(mode):
            _require_regular(top, mode)
            # a link at the top is the caller's own
            yield from _read_file(os.open(top, _READ & ~os.O_NOFOLLOW), top, b"")
            return
        yield HostEntry(b"", mode)
        with opened(os.open(top, DIRECTORY_FLAGS)) as root:
            pending = [PurePath()]
            while pending:
                yield from _read_directory(root, top, pending.pop(), pending)


def _look_at(top: Path) -> int:
    try:
        return os.stat(top).st_mode
    except OSError as exc:
        if exc.errno != errno.ELOOP:
            raise
        why = "its symlinks lead in a circle"
        raise FileError(f"cannot upload '{top}': {why}", number=exc.errno, filename=str(top)) from exc


def _read_directory(
    root: int, top: Path, where: PurePath, pending: list[PurePath]
) -> Iterator[HostEntry | bytes | None]:
    """Yield a directory's entries. Its directories go to `pending`."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    with opened(walk(root, where, flags)) as directory, os.scandir(directory) as names:
        for name in names:
            below = where / name.name
            found = os.stat(name.name, dir_fd=directory, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                pending.append(below)
                yield HostEntry(os.fsencode(below), found.st_mode)
            elif stat.S_ISLNK(found.st_mode):
                text = os.readlink(name.name, dir_fd=directory)
                yield HostEntry(os.fsencode(below), found.st_mode, os.fsencode(text))
            else:
                _require_regular(top / below, found.st_mode)
                yield from _read_file(os.open(name.name, _READ, dir_fd=directory), top / below, os.fsencode(below))


def _read_file(fd: int, path: Path, below: bytes) -> Iterator[HostEntry | bytes | None]:
    with opened(fd):
        mode = os.fstat(fd).st_mode
        _require_regular(path, mode)
        yield HostEntry(below, mode)
        while piece := os.read(fd, _PIECE_BYTES):
            yield piece
        yield None


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotAFile(f"cannot upload '{path}': it is {kind_of(mode)}; leave it out", filename=str(path))


# --- writing -----------------------------------------------------------------------------------------

_DOING = "download to"
_LINK = "a symlink is there or on the way, and none is followed; remove it, or give the path that it names"


class TreeWriter:
    """Writes what a container sends: a file or a directory tree.

    Nothing outside of `top` is touched, whatever names come, and no link that stands there is followed. A file appears
    when it is complete. What is there already stays, or is replaced by what has the same name. As a context manager it
    takes back the file that is not complete.

    Args:
        top: what the first entry becomes; directories above it are made.
        max_bytes: of all files together.
        max_files: how many names may come below the top.

    Attributes:
        files: how many regular files were written.
        size: how many bytes.
        skipped: what is neither a directory nor a regular file, and was not made.
    """

    def __init__(self, top: Path, *, max_bytes: int, max_files: int) -> None:
        self.files = 0
        self.size = 0
        self.skipped: list[str] = []
        self._top = top
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._names = 0
        self._root: int | None = None  # of the tree
        self._opened: OrderedDict[PurePath, int] = OrderedDict()  # directories below it, the last used one last
        self._file: NewFile | None = None
        self._path = top  # of that file
        self._folds = False
        self._seen: set[bytes] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file:
            self._file.close()
        for fd in (self._root, *self._opened.values()):
            if fd is not None:
                os.close(fd)

    @property
    def begun(self) -> bool:
        """Whether anything has come."""
        return bool(self._seen)

    def begin(self, below: bytes, mode: int) -> None:
        """Take an entry. `write` and `end` follow for a regular file.

        Raises:
            PathEscape: its name leaves the top, or a link stands on the way or in its place.
            TooManyFiles: it is one too many.
            FileError: it cannot be made; a more exact class where one fits.
        """
        path = self._checked(below)
        with file_errors(self._top / path, _DOING, link=_LINK):
            if not below:
                self._begin_top(mode)
            elif stat.S_ISDIR(mode):
                self._make_directory(path, mode)
            elif stat.S_ISREG(mode):
                self._begin_file(os.dup(self._open_parent(path)), self._top / path, mode)
            else:
                self.skipped.append(str(path))

    def write(self, data: memoryview) -> None:
        """Take a piece of the file that was begun.

        Raises:
            FileTooLarge: all files together have more than `max_bytes`.
            NoSpace: the disk is full.
        """
        assert self._file is not None
        self.size += len(data)
        if self.size > self._max_bytes:
            why = over("bytes", "max_bytes", self._max_bytes, self.size)
            raise FileTooLarge(f"cannot download to '{self._top}': {why}", filename=str(self._path))
        with file_errors(self._path, _DOING):
            write_all(self._file.fd, data)

    def end(self) -> None:
        """Let the file that was begun appear."""
        assert self._file is not None
        with file_errors(self._path, _DOING):
            self._file.appear()
        self._file.close()
        self._file = None
        self.files += 1

    def _begin_top(self, mode: int) -> None:
        above = _open_above(self._top)
        if not stat.S_ISDIR(mode):
            self._begin_file(above, self._top, mode)
            return
        with opened(above):
            self._root = _enter_directory(above, self._top, mode)
        self._folds = _folds_case(self._root)

    def _begin_file(self, directory: int, path: Path, mode: int) -> None:
        """Begin a file in `directory`, a descriptor that the file owns from now on."""
        try:
            check_replaceable(directory, path, _DOING)
        except BaseException:
            os.close(directory)
            raise
        self._path = path
        self._file = NewFile(directory, path.name, (mode & 0o777) | 0o600)

    def _checked(self, below: bytes) -> PurePath:
        """Return the path of an entry. The container may have chosen it to do harm."""
        if bool(below) == (self._root is None) or (not below and self._seen):
            why = "the container sent entries in an order of its own"
            raise FileError(f"cannot download to '{self._top}': {why}", filename=str(self._top))
        parts = below.split(b"/") if below else []
        if len(below) >= _PATH_BYTES or any(
            part in (b"", b".", b"..") or b"\0" in part or len(part) > _NAME_BYTES for part in parts
        ):
            raise PathEscape(
                f"cannot download to '{self._top}': the container sent the name {os.fsdecode(below)[:200]!r}"
            )
        path = PurePath(os.fsdecode(below))
        if below:
            self._names += 1
        if self._names > self._max_files:
            why = over("names", "max_files", self._max_files, self._names)
            raise TooManyFiles(f"cannot download to '{self._top}': {why}", filename=str(self._top))
        known = unicodedata.normalize("NFC", str(path)).casefold() if self._folds else str(path)
        import hashlib  # late: it loads OpenSSL

        digest = hashlib.blake2b(os.fsencode(known), digest_size=8).digest()  # names may be long, and many
        if digest in self._seen:
            raise PathEscape(f"cannot download to '{self._top}': the name '{path}' came twice, perhaps in another case")
        self._seen.add(digest)
        return path

    def _make_directory(self, path: PurePath, mode: int) -> None:
        os.close(_enter_directory(self._open_parent(path), self._top / path, mode))

    def _open_parent(self, path: PurePath) -> int:
        """Open the directory of a path, following no link. The last few stay open.

        A tree comes depth first and may be deep: from the top, each step would cost as many as there are above it.
        """
        assert self._root is not None
        wanted = path.parent
        if wanted in self._opened:
            self._opened.move_to_end(wanted)
            return self._opened[wanted]
        above = self._opened.get(wanted.parent)
        if above is None:
            fd = walk(self._root, wanted, DIRECTORY_FLAGS)
        else:
            fd = walk(above, PurePath(wanted.name), DIRECTORY_FLAGS)
        self._opened[wanted] = fd
        if len(self._opened) > _KEPT_OPEN:
            os.close(self._opened.popitem(last=False)[1])
        return fd


def _open_above(top: Path) -> int:
    """Open the directory above the top, making a missing one. Links to it are the caller's."""
    try:
        os.makedirs(top.parent, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
    return os.open(top.parent, DIRECTORY_FLAGS)


def _enter_directory(parent: int, path: Path, mode: int) -> int:
    """Open a directory, making a missing one. A link there is not followed."""
    name = path.name or "."
    with suppress(FileExistsError):
        os.mkdir(name, (mode & 0o777) | 0o700, dir_fd=parent)
    try:
        return walk(parent, PurePath(name), DIRECTORY_FLAGS)
    except NotADirectoryError:
        why = "something else than a directory is there; remove it, or give another path"
        raise FileExists(f"cannot {_DOING} '{path}': {why}", filename=str(path)) from None


def _folds_case(directory: int) -> bool:
    """Whether two names that differ in case alone are one here."""
    name = temporary_name()
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory))
    try:
        os.stat(name.upper(), dir_fd=directory)
    except FileNotFoundError:
        return False
    finally:
        os.unlink(name, dir_fd=directory)
    return True
