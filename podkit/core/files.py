"""Files of a session, in the terms of `pathlib`."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Protocol, TypeVar

from podkit.agent.files import READ_LIMIT_BYTES, ContainerFiles, Progress
from podkit.agent.runner import latest
from podkit.core._file_info import Downloaded, FileInfo, FileType, as_text, file_info
from podkit.errors import FileError, FileMissing, InvalidInput, NotADirectory
from podkit.utils import _checks
from podkit.utils._checks import StrPath
from podkit.utils._deadline import NEVER, Deadline
from podkit.utils.paths import resolve_container_path, resolve_file_path

__all__ = ["Downloaded", "FileInfo", "FileType", "Progress", "SessionFiles"]

T = TypeVar("T")
MAX_ENTRIES = 10_000
MAX_DOWNLOAD_BYTES = 1 << 30
MAX_DOWNLOAD_FILES = 10_000

_NOTHING_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_FileInfos = list[FileInfo]  # in the class that name is a method


class _Manager(Protocol):
    @property
    def files(self) -> ContainerFiles: ...


class _Sessions(Protocol):
    @property
    def container_manager(self) -> _Manager: ...

    def in_container(
        self, user_id: str, session_id: str, action: Callable[[str], T], deadline: Deadline = NEVER
    ) -> T: ...


class SessionFiles:
    """A session's files, as seen from inside.

    Paths are those inside, and relative ones lie under `/workspace`. Symlinks are followed as any program inside
    follows them: they cannot lead to the host. A stopped container is started first, a lost one made anew. Safe to use
    from many threads. Every call blocks, and ends with `FileTimeout` after 300 s, or earlier where nothing moves for
    60 s, unless it says otherwise.

    All of it is done by `user`: a name, a number, or either with a group, as in `"1000:1000"`; by default the `user` of
    the session's configuration, or else the image's.

    Besides the errors listed at each method, all raise:

    - `InvalidInput` for a value that cannot be right, such as a user that the container does not have;
    - `PathEscape` for a path with a `..` that leaves `/workspace`, or in an absolute path;
    - a `FileError` for a problem with the file: `FileMissing`, `NotADirectory` (a part of the path is none),
      `FileDenied`, or another kind; it is an `OSError`, and has the system's `errno` and the `filename`;
    - `SessionNotFound` for a session that was closed;
    - `CommandInterrupted` where the container or the engine ended meanwhile;
    - `NotSupported` where podkit's agent cannot run in the container. Reading and writing still work there, if the
      image has a shell, but without `mode`.
    """

    def __init__(self, sessions: _Sessions, user_id: str, session_id: str) -> None:
        self._sessions = sessions
        self._key = user_id, session_id

    def _use(self, action: Callable[[ContainerFiles, str], T], deadline: Deadline = NEVER) -> T:
        files = self._sessions.container_manager.files
        return self._sessions.in_container(*self._key, lambda id: action(files, id), deadline)

    # --- contents -----------------------------------------------------------------------------------

    def read_bytes(self, path: str | PurePath, *, max_bytes: int = READ_LIMIT_BYTES, user: str | None = None) -> bytes:
        """Read a regular file.

        Args:
            path: of the file.
            max_bytes: the most that is read, 256 MiB by default.
            user: see the class.

        Raises:
            FileTooLarge: it has more, or grows past that.
            IsADirectory: it is a directory.
            NotAFile: it is a device, a FIFO or a socket.
        """
        inside, most, who = resolve_container_path(path), _checks.check_size(max_bytes, "max_bytes"), _user(user)
        return self._use(lambda files, id: files.read(id, inside, max_bytes=most, user=who))

    def read_text(self, path: str | PurePath, *, max_bytes: int = READ_LIMIT_BYTES, user: str | None = None) -> str:
        """Read a UTF-8 file; see `read_bytes`.

        Raises:
            NotText: its bytes are not UTF-8.
        """
        return as_text(self.read_bytes(path, max_bytes=max_bytes, user=user), resolve_container_path(path))

    def write_bytes(
        self, path: str | PurePath, content: bytes, *, mode: int | None = None, user: str | None = None
    ) -> Path:
        """Write a file in one step and return its path inside.

        A reader sees the old file or the new one, even if a process is killed meanwhile. Missing directories are made,
        with the permissions `0o755`. A symlink is written through. A file that exists keeps its owner. It may be lost
        where the engine's host loses power in the next seconds.

        In three cases a file is written in place, and a reader may see half of it: it is a mount itself, such as
        `/etc/hosts`; its directory takes no new file; or it belongs to another user, which only root could keep.

        Args:
            path: of the file.
            content: of the file.
            mode: its permissions, exactly, such as `0o600`; by default those of a file that exists, else `0o644`.
            user: see the class; a new file is this user's.

        Raises:
            FileDenied: the user may not write the file, or not make one in its directory.
            IsADirectory: a directory is there, or the path ends in `/`; nothing is made.
            NotAFile: a device, a FIFO or a socket is there.
            NoSpace: the disk is full; the old file is still there, unless it was written in place.
        """
        if not isinstance(content, bytes | bytearray | memoryview):
            raise InvalidInput(f"content is of type {type(content).__name__}: pass bytes, or use write_text")
        return self._write(path, bytes(content), mode, user)

    def write_text(
        self, path: str | PurePath, content: str, *, mode: int | None = None, user: str | None = None
    ) -> Path:
        """Write a file as UTF-8 and return its path inside. See `write_bytes`."""
        if not isinstance(content, str):
            raise InvalidInput(f"content is of type {type(content).__name__}: pass str, or use write_bytes")
        return self._write(path, _checks.check_content(content, "content"), mode, user)

    def _write(self, path: str | PurePath, data: bytes, mode: int | None, user: str | None) -> Path:
        inside, who = resolve_file_path(path), _user(user)
        bits = None if mode is None else _checks.check_mode(mode)
        self._use(lambda files, id: files.write(id, inside, data, mode=bits, user=who))
        return Path(inside)

    # --- names --------------------------------------------------------------------------------------

    def list(
        self, path: str | PurePath = ".", *, max_entries: int = MAX_ENTRIES, user: str | None = None
    ) -> _FileInfos:
        """List a directory's entries, sorted by name.

        A symlink in it is looked at itself.

        Args:
            path: of the directory, by default `/workspace`.
            max_entries: the most that may be in it, 10,000 by default.
            user: see the class.

        Raises:
            NotADirectory: it is none.
            TooManyFiles: more is in it.
        """
        inside, most = resolve_container_path(path), _checks.check_count(max_entries, "max_entries")
        who = _user(user)
        entries = self._use(lambda files, id: files.list(id, inside, most, user=who))
        return [file_info(inside / os.fsdecode(entry.below), entry) for entry in sorted(entries)]

    def stat(self, path: str | PurePath, *, follow_symlinks: bool = True, user: str | None = None) -> FileInfo:
        """Return the `FileInfo` of a path.

        Args:
            path: of it.
            follow_symlinks: look at a symlink's target, not at the link itself. The `path` of the answer is the one
                given.
            user: see the class.

        Raises:
            FileMissing: nothing has it, or the symlink leads nowhere.
        """
        inside, who = resolve_container_path(path), _user(user)
        return file_info(inside, self._use(lambda files, id: files.stat(id, inside, follow=follow_symlinks, user=who)))

    def exists(self, path: str | PurePath, *, follow_symlinks: bool = True, user: str | None = None) -> bool:
        """Whether something has this name.

        A symlink that leads nowhere, or in a circle, has it only with `follow_symlinks=False`; nothing has a name that
        is too long for a file, or that goes on below a file.

        Raises:
            FileDenied: the user may not look.
        """
        try:
            self.stat(path, follow_symlinks=follow_symlinks, user=user)
        except FileError as exc:
            if exc.errno not in _NOTHING_THERE:
                raise
            return False
        return True

    def mkdir(
        self,
        path: str | PurePath,
        *,
        mode: int = 0o777,
        parents: bool = False,
        exist_ok: bool = False,
        user: str | None = None,
    ) -> Path:
        """Make a directory, and return its absolute path inside.

        Args:
            path: of the directory.
            mode: its permissions, from which the umask `0o022` is taken, as by `Path.mkdir`.
            parents: make missing directories above it too, with the permissions `0o755`.
            exist_ok: it may exist already, and then keeps its permissions.
            user: see the class.

        Raises:
            FileExists: something is there already; with `exist_ok`, something else than a directory.
            FileMissing: the directory above it is missing, and `parents` is false.
        """
        inside, bits, who = resolve_container_path(path), _checks.check_mode(mode), _user(user)
        self._use(lambda files, id: files.mkdir(id, inside, bits, parents=parents, exist_ok=exist_ok, user=who))
        return Path(inside)

    def remove(
        self, path: str | PurePath, *, recursive: bool = False, missing_ok: bool = False, user: str | None = None
    ) -> None:
        """Remove a file, a symlink or an empty directory.

        Args:
            path: of it; a symlink goes itself.
            recursive: remove a directory with all that is in it; no symlink in it is followed.
            missing_ok: it may be gone already.
            user: see the class.

        Raises:
            FileMissing: it is gone already, and `missing_ok` is false.
            FileError: it is a directory that is not empty (`errno.ENOTEMPTY`), and `recursive` is false; or it is in
                use as a mount (`errno.EBUSY`). With `recursive`, some of its content may be gone by then.
        """
        inside, who = resolve_container_path(path), _user(user)
        try:
            self._use(lambda files, id: files.remove(id, inside, recursive=recursive, user=who))
        except FileMissing:
            if not missing_ok:
                raise

    def rename(self, source: str | PurePath, target: str | PurePath, *, user: str | None = None) -> Path:
        """Rename a file or a directory and return its new path inside.

        A file that has that name is replaced by a file, and an empty directory by a directory. A symlink is renamed
        itself. Both must lie on one file system: a file cannot be renamed into a mount, or out of one.

        Args:
            source: the path that it has.
            target: its whole new path, not the directory to put it in; the directory above it must exist. A relative
                one lies under `/workspace`, wherever the source is.
            user: see the class.

        Raises:
            FileMissing: there is no source, or no directory above the target.
            IsADirectory: the target is a directory, and the source is none.
            NotADirectory: the target is none, and the source is a directory.
            FileError: the target is a directory that is not empty (`errno.ENOTEMPTY`), lies on another file system
                (`errno.EXDEV`), or in the source (`errno.EINVAL`). It has both paths, as `filename` and `filename2`.
        """
        old, new, who = resolve_container_path(source), resolve_container_path(target), _user(user)
        self._use(lambda files, id: files.rename(id, old, new, user=who))
        return Path(new)

    # --- between the host and the session -----------------------------------------------------------

    def upload(
        self,
        local: StrPath,
        path: str | PurePath,
        *,
        timeout: float | None = None,
        progress: Progress | None = None,
        user: str | None = None,
    ) -> Path:
        """Copy a file or a directory of this host into the session. Returns its path inside.

        In constant memory, but for the names of directories that are still to be read. Permissions are kept, owners and
        times are not: all belongs to the user. A symlink at `local` is followed, so it must not lie where a container
        can write; those below a directory are copied as symlinks. Each file appears in one step. Files already
        in the target stay, unless one of the same name replaces them. Below the target no symlink is followed. After an
        error, the files copied before it stay.

        Args:
            local: a file or a directory of this host.
            path: its path inside, not the directory to put it in: `upload("a.txt", "in/a.txt")`. Missing directories
                are made.
            timeout: seconds for all of it; by default as long as it goes on.
            progress: called after each piece and each file, in this thread. An exception of it ends the copying.
            user: see the class.

        Raises:
            FileMissing: nothing is at `local`.
            IsADirectory: a directory inside is in the way of a file, or the path of a file ends in `/`.
            FileExists: something else inside is in the way of a directory, such as a symlink.
            NotAFile: a device, a FIFO or a socket is at `local` or below it, or in the way inside.
            NoSpace: the disk is full.
            FileTimeout: it took longer than `timeout`, or stood still for 60 s.
        """
        text = _checks.check_path_text(local, "local", any_bytes=True)
        source, is_directory = Path(text), os.path.isdir(text)
        if text.endswith("/") and not is_directory and os.path.exists(source):
            why = "its path ends in '/', and it is no directory"
            raise NotADirectory(f"cannot upload '{text}': {why}", filename=text)
        inside = resolve_container_path(path) if is_directory else resolve_file_path(path)
        seconds, who = _checks.check_timeout(timeout), _user(user)
        _check_progress(progress)
        from podkit.agent import file_transfers  # late: few programs move directories

        self._use(
            lambda files, id: file_transfers.upload(
                files, id, source, inside, user=who, timeout=seconds, progress=progress
            ),
            latest(seconds),
        )
        return Path(inside)

    def download(
        self,
        path: str | PurePath,
        local: StrPath,
        *,
        max_bytes: int = MAX_DOWNLOAD_BYTES,
        max_files: int = MAX_DOWNLOAD_FILES,
        timeout: float | None = None,
        progress: Progress | None = None,
        user: str | None = None,
    ) -> Downloaded:
        """Copy a file or a directory to this host.

        In constant memory. Only regular files and directories are made, below `local` and nowhere else, whatever the
        container sends; the rest is skipped and listed. Permissions are kept as far as your umask lets them, but you
        may always read and write; owners and times are not. Each file appears in one step. Files already in the target
        stay, unless one of the same name replaces them. Neither `local` itself nor anything below it may be a symlink;
        those above it are yours and are followed, so they must not lie where a container can write. After an error, the
        files copied before it stay.

        Args:
            path: of a file or a directory inside; a symlink there is followed.
            local: its path on this host, not the directory to put it in: `download("in/a.txt", "a.txt")`. Missing
                directories are made.
            max_bytes: of all files together, 1 GiB by default.
            max_files: how many names of any kind may be below a directory, 10,000 by default.
            timeout: seconds for all of it; by default as long as it goes on.
            progress: called after each piece and each file, in this thread. An exception of it ends the copying.
            user: see the class.

        Raises:
            FileTooLarge: there are more bytes.
            TooManyFiles: there are more names.
            NotAFile: `path` is a device, a FIFO or a socket, or one is in the way on this host.
            IsADirectory: a directory of this host is in the way of a file, or `local` ends in `/`.
            FileExists: something else on this host is in the way of a directory.
            PathEscape: a symlink is in the way on this host, or the container sent a name that leaves `local`.
            NoSpace: the disk of this host is full.
            FileTimeout: it took longer than `timeout`, or stood still for 60 s.
        """
        inside, seconds, who = resolve_container_path(path), _checks.check_timeout(timeout), _user(user)
        text = _checks.check_path_text(local, "local", any_bytes=True)
        target = Path(text)
        _check_progress(progress)
        most, names = _checks.check_size(max_bytes, "max_bytes"), _checks.check_count(max_files, "max_files")
        from podkit.agent import file_transfers  # late: see `upload`

        done = self._use(
            lambda files, id: file_transfers.download(
                files,
                id,
                inside,
                target,
                is_directory=text.endswith("/"),
                max_bytes=most,
                max_files=names,
                user=who,
                timeout=seconds,
                progress=progress,
            ),
            latest(seconds),
        )
        return Downloaded(target, done.files, done.size, done.skipped)


def _check_progress(value: object) -> None:
    if value is not None and not callable(value):
        raise InvalidInput(f"progress={_checks.shown(value)}: pass a function of two numbers, or None")


def _user(value: str | None) -> str | None:
    return None if value is None else _checks.check_user(value)
