"""Files of a mount, written on the host beside a hostile container.

A container can put a symlink wherever the host is about to write, at any moment. So podkit never resolves by name a
path that the container controls. Each step goes through a directory that is already open: by `openat2(RESOLVE_BENEATH)`
on Linux 5.6 and later, else by a walk that follows no link at all. podkit then checks the open file by its descriptor,
and never looks at its name a second time.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from functools import cache
from pathlib import PurePath

from podkit.errors import (
    FileDenied,
    FileError,
    FileExists,
    FileMissing,
    IsADirectory,
    NoSpace,
    NotADirectory,
    NotAFile,
    PathEscape,
)
from podkit.utils._atomic_file import NewFile

_AT_FDCWD = -100  # the kernel's number for the current directory
_O_PATH = getattr(os, "O_PATH", 0)
DIRECTORY_FLAGS = os.O_DIRECTORY | _O_PATH | os.O_CLOEXEC


@cache  # one try for each process
def _has_openat2() -> bool:
    from podkit.utils._openat2 import openat2  # late: it loads ctypes

    try:
        os.close(openat2(_AT_FDCWD, ".", DIRECTORY_FLAGS))
    except (OSError, AttributeError):  # an old kernel, a seccomp profile that forbids it, or not Linux
        return False
    return True


def walk(directory: int, path: PurePath, flags: int) -> int:
    """Open `path` below `directory` component by component, following no link."""
    current = os.dup(directory)  # always one open directory: the next one is opened before this one is closed
    try:
        for part in path.parts[:-1]:
            below = _step(current, part, DIRECTORY_FLAGS)
            os.close(current)
            current = below
        return _step(current, path.name or ".", flags)
    finally:
        os.close(current)


def _step(directory: int, name: str, flags: int) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=directory)
    except NotADirectoryError:
        # O_DIRECTORY reports a link as "not a directory"; openat2 reports ELOOP, and so does this
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None
        raise


def _open_beneath(directory: int, path: PurePath, flags: int) -> int:
    if _has_openat2():
        from podkit.utils._openat2 import openat2

        return openat2(directory, str(path), flags)
    return walk(directory, path, flags)


_DENIED = "permission denied to this process; the container's user may own it"
_REASONS: dict[int, tuple[type[FileError], str]] = {
    errno.ENOENT: (FileMissing, "there is no such file"),
    errno.EEXIST: (FileExists, "something is there already"),
    errno.EISDIR: (IsADirectory, "it is a directory"),
    errno.ENOTDIR: (NotADirectory, "a part of it is not a directory"),
    errno.EACCES: (FileDenied, _DENIED),
    errno.EPERM: (FileDenied, _DENIED),
    errno.EROFS: (FileDenied, "the file system is read-only; choose a place on another one"),
    errno.ENOSPC: (NoSpace, "no space is left on the device; make room on the host"),
    errno.EDQUOT: (NoSpace, "the disk quota is used up; make room on the host"),
}
_LINK = "a symlink on the way leaves the mount, is absolute, or loops; remove it, or use session.files, which follow it"


@contextmanager
def file_errors(path: PurePath, doing: str, *, link: str = _LINK) -> Iterator[None]:
    """Raise the kernel's refusals as podkit's errors. `link` is the reason for a symlink in the way."""
    try:
        yield
    except FileError:
        raise
    except OSError as exc:
        if exc.errno in (errno.EXDEV, errno.ELOOP):
            raise PathEscape(f"cannot {doing} '{path}': {link}", number=exc.errno, filename=str(path)) from exc
        kind, why = _REASONS.get(exc.errno or 0, (FileError, exc.strerror or str(exc)))
        raise kind(f"cannot {doing} '{path}': {why}", number=exc.errno, filename=str(path)) from exc


@contextmanager
def opened(fd: int) -> Iterator[int]:
    """Close a descriptor at the end of the block."""
    try:
        yield fd
    finally:
        os.close(fd)


def _open_root(root: str | os.PathLike[str]) -> int:
    # by name: podkit's caller chose it, and no container can replace the top of its mount
    return os.open(root, DIRECTORY_FLAGS)


def _open_parent(root: int, path: PurePath) -> int:
    """Open the directory of `path`, making missing ones."""
    with suppress(FileNotFoundError):
        return _open_beneath(root, path.parent, DIRECTORY_FLAGS)
    for ancestor in reversed(path.parents):
        try:
            os.close(_open_beneath(root, ancestor, DIRECTORY_FLAGS))
        except FileNotFoundError:
            with opened(_open_beneath(root, ancestor.parent, DIRECTORY_FLAGS)) as above:
                with suppress(FileExistsError):  # somebody else was faster
                    os.mkdir(ancestor.name, dir_fd=above)
                # the umask may have cut the mode; changed by descriptor, for the name may be a link by now
                with opened(
                    os.open(ancestor.name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
                ) as made:
                    os.fchmod(made, 0o755)
    return _open_beneath(root, path.parent, DIRECTORY_FLAGS)


def write_file(root: str | os.PathLike[str], path: PurePath, content: bytes) -> None:
    """Write a file below `root` in one step. A reader sees the old file or the new one.

    Missing directories are made, `root` included. A file that is replaced keeps its mode and, if this process may set
    it, its owner.

    Args:
        root: the top of the mount on the host.
        path: relative to `root`, without `..`.
        content: the bytes to write.

    Raises:
        PathEscape: a symlink on the way leaves `root`, or the file itself is one.
        NotAFile: a directory, device, FIFO or socket is there.
        FileError: the kernel refused: no space, no permission.
    """
    with file_errors(path, "write"):
        os.makedirs(root, exist_ok=True)
        with opened(_open_root(root)) as top, opened(_open_parent(top, path)) as parent:
            existing = check_replaceable(parent, path)
            with closing(NewFile(os.dup(parent), path.name, 0o600)) as file:
                write_all(file.fd, content)
                if existing and (existing.st_uid, existing.st_gid) != (os.geteuid(), os.getegid()):
                    with suppress(PermissionError):
                        os.fchown(file.fd, existing.st_uid, existing.st_gid)
                os.fchmod(file.fd, stat.S_IMODE(existing.st_mode) & 0o777 if existing else 0o644)
                file.appear()  # nothing -> complete, or old file -> new one


def check_replaceable(parent: int, path: PurePath, doing: str = "write") -> os.stat_result | None:
    """Return the stat of the file to replace, if any.

    If the container swaps the file after this check, the write replaces the new one and follows no link.
    """
    refused = f"cannot {doing} '{path}'"
    try:
        found = os.stat(path.name or ".", dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        why = "it is a symlink; remove it, or write the file that it names"
        raise PathEscape(f"{refused}: {why}", filename=str(path))
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectory(f"{refused}: a directory is there; pass the whole path of the file", filename=str(path))
    if not stat.S_ISREG(found.st_mode):
        raise NotAFile(f"{refused}: {kind_of(found.st_mode)} is there; remove it", filename=str(path))
    return found


def write_all(fd: int, content: bytes | memoryview) -> None:
    """Write all of `content`, in pieces. One system call takes at most 2 GiB."""
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view[: 16 << 20]) :]


def kind_of(mode: int) -> str:
    """Return a special file's type in words, for messages."""
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")
