"""Files of a workspace, opened on the host while a hostile container may change them.

A container can put a symlink wherever the host is about to write, at any moment. So no path that it controls is ever
resolved by name: each step goes through a directory that is already open, by `openat2(RESOLVE_BENEATH)` where the
kernel has it (Linux 5.6) and else by a walk that follows no link at all. A name is looked at and acted on only through
such a directory, and what was opened is judged by its descriptor, never by a second look at its name.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path, PurePath

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
)

READ_LIMIT_BYTES = 256 << 20
"""The most that one read takes into memory."""


_AT_FDCWD = -100
_O_PATH = getattr(os, "O_PATH", 0)
DIRECTORY_FLAGS = os.O_DIRECTORY | _O_PATH | os.O_CLOEXEC
TEMPORARY = ".podkit-"
_ASIDE = "REMOVED-"  # upper case: the directory of no session, see `podkit.core._identity.workspace_component`
_TRIES = 5


def _openat2(directory: int, path: str, flags: int) -> int:
    from podkit.utils._openat2 import openat2  # late: see there

    return openat2(directory, path, flags)


@cache
def _has_openat2() -> bool:
    try:
        os.close(_openat2(_AT_FDCWD, ".", DIRECTORY_FLAGS))
    except (OSError, AttributeError):  # an old kernel, a seccomp profile that forbids it, or not Linux
        return False
    return True


def walk(directory: int, path: PurePath, flags: int) -> int:
    """Open `path` below `directory` component by component, following no link."""
    current = os.dup(directory)
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
        if stat.S_ISLNK(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP)) from None  # as openat2 says it
        raise


def _open_beneath(directory: int, path: PurePath, flags: int) -> int:
    if _has_openat2():
        return _openat2(directory, str(path), flags)
    return walk(directory, path, flags)


_DENIED = "permission denied for this process; it may be the container's user who made it, and is another"
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


_LINK = (
    "a symlink on the way leaves the workspace, is absolute, or loops; remove it, or use session.files, "
    "which follow it inside"
)


@contextmanager
def file_errors(path: PurePath, doing: str, *, link: str = _LINK) -> Iterator[None]:
    """Raise what the kernel refuses as podkit's errors; `link` says what a symlink in the way means."""
    try:
        yield
    except FileError:
        raise
    except OSError as exc:
        if exc.errno in (errno.EXDEV, errno.ELOOP):
            raise PathEscape(f"cannot {doing} '{path}': {link}") from exc
        kind, why = _REASONS.get(exc.errno or 0, (FileError, exc.strerror or str(exc)))
        raise kind(f"cannot {doing} '{path}': {why}", number=exc.errno, filename=str(path)) from exc


@contextmanager
def opened(fd: int) -> Iterator[int]:
    try:
        yield fd
    finally:
        os.close(fd)


def _open_root(root: str | os.PathLike[str]) -> int:
    # the root is chosen by podkit's caller, and no container can replace it: it is the top of its mount
    return os.open(root, DIRECTORY_FLAGS)


def _open_parent(root: int, path: PurePath, directory_mode: int) -> int:
    """Open the directory of `path`, making what is missing."""
    with suppress(FileNotFoundError):
        return _open_beneath(root, path.parent, DIRECTORY_FLAGS)
    for ancestor in reversed(path.parents):
        try:
            os.close(_open_beneath(root, ancestor, DIRECTORY_FLAGS))
        except FileNotFoundError:
            with opened(_open_beneath(root, ancestor.parent, DIRECTORY_FLAGS)) as above:
                with suppress(FileExistsError):
                    os.mkdir(ancestor.name, dir_fd=above)
                with opened(
                    os.open(ancestor.name, os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=above)
                ) as made:
                    os.fchmod(made, directory_mode)
    return _open_beneath(root, path.parent, DIRECTORY_FLAGS)


def write_file(
    root: str | os.PathLike[str], path: PurePath, content: bytes, *, mode: int = 0o644, directory_mode: int = 0o755
) -> None:
    """Write the file `path` below `root` in one step: a reader sees the old file or the new one.

    Missing directories are made; `root` itself as one that only this process's user may enter. A file that exists
    keeps its mode and, where this process may set it, its owner.

    Args:
        root: the top of the mount on the host.
        path: relative to `root`, without `..`.
        content: what to write.
        mode: of a new file.
        directory_mode: of new directories.

    Raises:
        PathEscape: a symlink on the way leaves `root`, or the file itself is one.
        NotAFile: a directory, device, FIFO or socket is there.
        FileError: the kernel refused: no space, no permission.
    """
    with file_errors(path, "write"):
        _make_private([directory for directory in (Path(root), *Path(root).parents) if not directory.exists()])
        with opened(_open_root(root)) as top, opened(_open_parent(top, path, directory_mode)) as parent:
            existing = check_replaceable(parent, path)
            temporary = TEMPORARY + os.urandom(8).hex()
            fd = os.open(
                temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent
            )
            try:
                with open(fd, "wb", buffering=0) as file:
                    write_all(file.fileno(), content)
                    if existing and (existing.st_uid, existing.st_gid) != (os.geteuid(), os.getegid()):
                        with suppress(PermissionError):
                            os.fchown(file.fileno(), existing.st_uid, existing.st_gid)
                    os.fchmod(file.fileno(), stat.S_IMODE(existing.st_mode) & 0o777 if existing else mode)
                os.rename(temporary, path.name, src_dir_fd=parent, dst_dir_fd=parent)
            except BaseException:
                with suppress(OSError):
                    os.unlink(temporary, dir_fd=parent)
                raise


def check_replaceable(parent: int, path: PurePath, doing: str = "write") -> os.stat_result | None:
    """Look at what a write would replace; whatever takes its place afterwards is replaced by name, never followed."""
    refused = f"cannot {doing} '{path}'"
    try:
        found = os.stat(path.name or ".", dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if stat.S_ISLNK(found.st_mode):
        raise PathEscape(f"{refused}: it is a symlink; remove it, or write the file that it names")
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectory(f"{refused}: a directory is there; give the whole path of the file", filename=str(path))
    if not stat.S_ISREG(found.st_mode):
        raise NotAFile(f"{refused}: {kind_of(found.st_mode)} is there; remove it", filename=str(path))
    return found


def write_all(fd: int, content: bytes | memoryview) -> None:
    view = memoryview(content)
    while view:
        view = view[os.write(fd, view[: 16 << 20]) :]


def read_file(root: str | os.PathLike[str], path: PurePath, *, limit_bytes: int = READ_LIMIT_BYTES) -> bytes:
    """Read the regular file `path` below `root`.

    Symlinks are followed as long as they stay below `root` (not at all on kernels before 5.6).

    Raises:
        FileMissing: there is no such file.
        PathEscape: a symlink on the way leaves `root`.
        NotAFile: it is a directory, a device, a FIFO or a socket.
        FileTooLarge: it has more than `limit_bytes`; memory stays flat.
    """
    with file_errors(path, "read"), opened(_open_root(root)) as top, opened(_open_for_reading(top, path)) as fd:
        size = os.fstat(fd).st_size
        if size > limit_bytes:
            raise FileTooLarge(f"cannot read '{path}': {over_read_limit(None, size)}", filename=str(path))
        chunks, left = [], limit_bytes + 1
        while left and (chunk := os.read(fd, min(left, 1 << 20))):
            chunks.append(chunk)
            left -= len(chunk)
        if not left:
            why = over_read_limit(None, limit_bytes + 1)
            raise FileTooLarge(f"cannot read '{path}': {why}", filename=str(path))
        return b"".join(chunks)


def _open_for_reading(top: int, path: PurePath) -> int:
    if not _O_PATH:  # not Linux: a device could react to the opening, but there no container can make one
        fd = walk(top, path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        return _require_regular(fd, path)
    with opened(_require_regular(_open_beneath(top, path, _O_PATH | os.O_CLOEXEC), path)) as found:
        # the second opening goes through the descriptor: the name may mean something else by now
        return os.open(f"/proc/self/fd/{found}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def _require_regular(fd: int, path: PurePath) -> int:
    mode = os.fstat(fd).st_mode
    if stat.S_ISREG(mode):
        return fd
    os.close(fd)
    if stat.S_ISLNK(mode):  # an O_PATH walk opens the link itself
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    kind = IsADirectory if stat.S_ISDIR(mode) else NotAFile
    raise kind(f"cannot read '{path}': it is {kind_of(mode)}", filename=str(path))


def over(unit: str, parameter: str, limit: int, found: int) -> str:
    """Say that a limit of the caller's is too small; what was found was counted no further than to that."""
    return f"there are at least {found} {unit}, and {parameter} is {limit}: pass a larger {parameter}"


def over_read_limit(max_bytes: int | None, found: int) -> str:
    """Say why a file is not read; without `max_bytes`, its caller cannot set the limit."""
    if max_bytes is not None:
        return over("bytes", "max_bytes", max_bytes, found)
    cure = "files.read_bytes takes a larger max_bytes, and files.download needs no memory for it"
    return f"there are at least {found} bytes, and the limit is {READ_LIMIT_BYTES}: {cure}"


def kind_of(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(mode), "no regular file")


def make_workspace(workspace: Path, parents: int) -> None:
    """Make a session's directory, with at most `parents` directories of podkit's above it.

    Whoever the container's user is, it owns the workspace: so that is open to all, behind parents that only this
    process's user may enter. What exists is left as it is.
    """
    with file_errors(workspace, "make the workspace"):
        for attempt in range(_TRIES):
            try:
                _make_private(workspace.parents[:parents])
                workspace.mkdir()
                workspace.chmod(0o777)  # mkdir's mode is cut by the umask
            except FileExistsError:
                return
            except FileNotFoundError:  # somebody has just removed a parent that was empty
                if attempt == _TRIES - 1:
                    raise
            else:
                return


def _make_private(directories: Sequence[Path]) -> None:
    for directory in reversed(directories):
        with suppress(FileExistsError):
            directory.mkdir(mode=0o700, parents=True)


def close_parents(workspace: Path, parents: int) -> None:
    """Keep the host's other users out of a workspace that somebody made: only its owner may enter its parents.

    A container's root may leave a set-user-id program in its workspace. A parent of another owner stays as it is.
    """
    for parent in workspace.parents[:parents]:
        with suppress(FileNotFoundError), opened(os.open(parent, os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
            found = os.fstat(directory)
            if found.st_uid == os.geteuid() and found.st_mode & 0o077:
                os.fchmod(directory, 0o700)


def set_aside(directory: Path) -> Path | None:
    """Give a directory a name that no session's has, so that whoever makes it anew gets an empty one.

    Returns:
        Where it is now; `None` where there was none.
    """
    aside = directory.with_name(_ASIDE + os.urandom(8).hex())
    with file_errors(directory, "set aside"):
        try:
            os.rename(directory, aside)
        except FileNotFoundError:
            return None
    return aside


def remove_set_aside(beside: Path) -> None:
    """Remove all that was set aside beside a directory, also by a process that was killed before it could do so."""
    with suppress(FileNotFoundError):
        for found in sorted(beside.parent.glob(f"{_ASIDE}*")):
            remove_tree(found)


def drop_empty_workspace(workspace: Path, parents: int) -> None:
    """Remove a session's directory if nothing is in it, and then its parents, as far as they are empty too."""
    with suppress(OSError):  # not empty
        for directory in (workspace, *workspace.parents[:parents]):
            with suppress(FileNotFoundError):
                directory.rmdir()


def remove_tree(directory: Path) -> None:
    """Remove `directory` and all below it, however deep, following no link; a missing one is no error.

    Each directory found below is first moved up to the top: neither the stack nor the number of open descriptors
    grows with the depth, and no path gets too long.

    Raises:
        FileError: something cannot be removed, such as another user's files.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with file_errors(directory, "remove"):
        try:
            fd = os.open(directory, flags)
        except FileNotFoundError:
            return
        with opened(fd) as top:
            pending = _empty(top, top)
            while pending:
                name = pending.pop()
                with suppress(FileNotFoundError):  # somebody else removes at the same time
                    with opened(os.open(name, flags, dir_fd=top)) as found:
                        pending += _empty(found, top)
                    os.rmdir(name, dir_fd=top)
        with suppress(FileNotFoundError):
            os.rmdir(directory)


def _empty(directory: int, top: int) -> list[str]:
    """Remove the files in `directory`, move its directories to `top`, and give their names there."""
    with os.scandir(directory) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    moved = []
    for name, is_directory in found:
        with suppress(FileNotFoundError):
            if not is_directory:
                os.unlink(name, dir_fd=directory)
            elif directory == top:
                moved.append(name)
            else:
                unique = TEMPORARY + os.urandom(16).hex()
                os.rename(name, unique, src_dir_fd=directory, dst_dir_fd=top)
                moved.append(unique)
    return moved
