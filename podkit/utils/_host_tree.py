"""File trees to and from a container, read and written on the host. No link is followed.

A container may change a tree that podkit reads, if it has the tree mounted, and may send hostile names. So every step
goes through a directory that is already open, and podkit checks each name.
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

# O_NONBLOCK: a FIFO must not block the open; O_NOCTTY: a terminal must not become podkit's own
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_PIECE_BYTES = 1 << 20
_NAME_BYTES = 255
_PATH_BYTES = 4096
_KEPT_OPEN = 4  # directories of a tree that is being written


class HostEntry(NamedTuple):
    """A file, directory or symlink to send.

    Attributes:
        below: the path below the top; empty for the top itself.
        mode: type and permissions; a directory, a regular file or a symlink.
        link: the target of a symlink.
    """

    below: bytes
    mode: int
    link: bytes = b""


# --- reading -----------------------------------------------------------------------------------------


def read_tree(top: Path) -> Iterator[HostEntry | bytes | None]:
    """Yield a file, or a directory tree, in constant memory.

    After a regular file's entry come its bytes, in pieces, and `None`. Symlinks below the top stay links.

    Raises:
        FileMissing: there is no such file.
        NotAFile: the top is a device, a FIFO or a socket, or the tree contains one.
        FileError: something cannot be read.
    """
    with file_errors(top, "upload", link="a part of it has become a symlink, which is not followed"):
        mode = _look_at(top)
        if not stat.S_ISDIR(mode):
            _require_regular(top, mode)
            # a link at the top is followed: the caller named it
            yield from _read_file(os.open(top, _READ & ~os.O_NOFOLLOW), top, b"")
            return
        yield HostEntry(b"", mode)
        with opened(os.open(top, DIRECTORY_FLAGS)) as root:
            pending = [PurePath()]  # a list, not recursion: a tree may be deep
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
    """Yield a directory's entries. Adds its directories to `pending`."""
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
                # checked before the open: opening a device may already act on it
                _require_regular(top / below, found.st_mode)
                yield from _read_file(os.open(name.name, _READ, dir_fd=directory), top / below, os.fsencode(below))


def _read_file(fd: int, path: Path, below: bytes) -> Iterator[HostEntry | bytes | None]:
    with opened(fd):
        mode = os.fstat(fd).st_mode
        _require_regular(path, mode)  # again, by descriptor: the file may have been swapped since
        yield HostEntry(below, mode)
        while piece := os.read(fd, _PIECE_BYTES):
            yield piece
        yield None


def _require_regular(path: Path, mode: int) -> None:
    if not stat.S_ISREG(mode):
        raise NotAFile(f"cannot upload '{path}': it is {kind_of(mode)}; leave it out", filename=str(path))


# --- writing -----------------------------------------------------------------------------------------

_DOING = "download to"
_LINK = "a symlink is there or on the way, and none is followed; remove it, or pass the path that it names"


class TreeWriter:
    """Writes a file or a directory tree that a container sends.

    It touches nothing outside of `top`, whatever names the container sends, and follows no link below it. A file
    appears when it is complete. It replaces a file of the same name; all others stay. Leaving the `with` block removes
    an incomplete file.

    Args:
        top: the path of the first entry; missing directories above it are made.
        max_bytes: the limit of all files together.
        max_files: the limit of names below the top.

    Attributes:
        files: the number of regular files that were written.
        size: their bytes.
        skipped: the paths of entries that were not made, because they are neither directories nor regular files.
    """

    def __init__(self, top: Path, *, max_bytes: int, max_files: int) -> None:
        self.files = 0
        self.size = 0
        self.skipped: list[str] = []
        self._top = top
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._names = 0
        self._root: int | None = None  # the descriptor of the tree's top; `None` for a single file
        self._opened: OrderedDict[PurePath, int] = OrderedDict()  # directories below it, the last used one last
        self._file: NewFile | None = None  # between `begin` and `end`
        self._path = top  # of that file
        self._folds = False  # whether the file system folds case
        self._seen: set[bytes] = set()  # digests of the names that have come

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
        """Whether an entry has come."""
        return bool(self._seen)

    def begin(self, below: bytes, mode: int) -> None:
        """Take an entry. `write` and `end` follow for a regular file.

        Raises:
            PathEscape: its name leaves the top, or one of its components is a link.
            TooManyFiles: more names than `max_files` have come.
            FileError: it cannot be made; a subclass says why, if one fits.
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
        """Write a piece of the present file.

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
        """Complete the present file, which then appears."""
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
        """Begin a file in `directory`, a descriptor that the file then owns."""
        try:
            check_replaceable(directory, path, _DOING)
        except BaseException:
            os.close(directory)
            raise
        self._path = path
        self._file = NewFile(directory, path.name, (mode & 0o777) | 0o600)  # the user can always read and remove it

    def _checked(self, below: bytes) -> PurePath:
        """Return the path of an entry. The container may have chosen it to do harm."""
        # the top comes first and only once; other entries follow only if it is a directory
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
        # where case is folded, two such names would be one file, and the second would replace the first
        known = unicodedata.normalize("NFC", str(path)).casefold() if self._folds else str(path)
        import hashlib  # late: it loads OpenSSL

        digest = hashlib.blake2b(os.fsencode(known), digest_size=8).digest()  # names may be long and many
        if digest in self._seen:
            raise PathEscape(f"cannot download to '{self._top}': the name '{path}' came twice, perhaps in another case")
        self._seen.add(digest)
        return path

    def _make_directory(self, path: PurePath, mode: int) -> None:
        os.close(_enter_directory(self._open_parent(path), self._top / path, mode))

    def _open_parent(self, path: PurePath) -> int:
        """Open the directory of a path, following no link. The last few stay open.

        A tree comes depth first and may be deep. A walk from the top for each entry would take time in proportion to
        the depth.
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
        if len(self._opened) > _KEPT_OPEN:  # close the one that was not used for the longest time
            os.close(self._opened.popitem(last=False)[1])
        return fd


def _open_above(top: Path) -> int:
    """Open the directory above the top, making a missing one. The caller's own links are followed."""
    try:
        os.makedirs(top.parent, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)) from None
    return os.open(top.parent, DIRECTORY_FLAGS)


def _enter_directory(parent: int, path: Path, mode: int) -> int:
    """Open a directory, making a missing one. A link there is not followed."""
    name = path.name or "."
    with suppress(FileExistsError):
        os.mkdir(name, (mode & 0o777) | 0o700, dir_fd=parent)  # this process has to write below it
    try:
        return walk(parent, PurePath(name), DIRECTORY_FLAGS)
    except NotADirectoryError:
        why = "something else than a directory is there; remove it, or pass another path"
        raise FileExists(f"cannot {_DOING} '{path}': {why}", filename=str(path)) from None


def _folds_case(directory: int) -> bool:
    """Whether this file system ignores the case of names."""
    name = temporary_name()
    os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=directory))
    try:
        os.stat(name.upper(), dir_fd=directory)
    except FileNotFoundError:
        return False
    finally:
        os.unlink(name, dir_fd=directory)
    return True
