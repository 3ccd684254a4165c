"""Files of a session, in the terms of `pathlib`."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal, Protocol, TypeVar

from podkit.agent.records import Entry
from podkit.core import _checks
from podkit.core._container_files import ContainerFiles
from podkit.errors import FileError, FileMissing, InvalidInput, NotText
from podkit.utils._hostfs import READ_LIMIT_BYTES
from podkit.utils.paths import resolve_container_path, resolve_file_path

__all__ = ["Downloaded", "FileInfo", "FileType", "SessionFiles"]

T = TypeVar("T")
PathLike = str | os.PathLike[str]
FileType = Literal["file", "directory", "symlink", "other"]

MAX_ENTRIES = 10_000
MAX_DOWNLOAD_BYTES = 1 << 30
MAX_DOWNLOAD_FILES = 10_000

_TYPES: dict[int, FileType] = {stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink"}
_NOTHING_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class FileInfo:
    """What is known of a file, a directory or anything else that has a name in a session.

    Attributes:
        path: absolute, inside.
        type: `other` is a device, a FIFO or a socket.
        size: in bytes.
        mode: its permission bits, such as `0o644`.
        uid: the number of its owner, inside.
        gid: the number of its group, inside.
        modified_at: when its content was changed the last time, UTC. The container says it: it may be any time.
        target: what a symlink names, as it stands there; `None` for anything else.
    """

    path: Path
    type: FileType
    size: int
    mode: int
    uid: int
    gid: int
    modified_at: datetime
    target: str | None = None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.name


@dataclass(frozen=True, slots=True)
class Downloaded:
    """What `download` has written.

    Attributes:
        path: where, on this host.
        files: how many regular files.
        size: how many bytes.
        skipped: what was left out, by its path below the one that was asked for: symlinks, devices, FIFOs, sockets.
    """

    path: Path
    files: int
    size: int
    skipped: tuple[str, ...] = ()


_FileInfos = list[FileInfo]  # in the class that name is a method


class _Manager(Protocol):
    @property
    def files(self) -> ContainerFiles: ...


class _Sessions(Protocol):
    @property
    def container_manager(self) -> _Manager: ...

    def in_container(self, user_id: str, session_id: str, action: Callable[[str], T]) -> T: ...


class SessionFiles:
    """The files of one session, as its user sees them from inside.

    Paths are those inside, and relative ones lie under `/workspace`. Symlinks are followed as any program inside
    follows them: they cannot lead to the host. Everything is done by the session's user, which is the `user` of its
    configuration or else the image's; its container is started or recreated first where that is needed. Safe to use
    from many threads; every call blocks, and takes 300 s at most (`FileTimeout`) unless it says otherwise.

    Besides what is said at the methods, all raise:

    - `InvalidInput` for a path that cannot be right, and of that `PathEscape` for one with a `..` that leaves
      `/workspace`, or in an absolute path;
    - a `FileError` for what is wrong with a file: `FileMissing`, `NotADirectory` (a part of the path is none),
      `FileDenied`, or another kind; it is an `OSError`, and has the system's `errno` and the `filename`;
    - `SessionNotFound` for a session that was closed;
    - `CommandInterrupted` where the container or the engine ended meanwhile;
    - `AgentUnavailable` where podkit's agent cannot run in the container. Reading and writing still work there, if the
      image has a shell, but without `mode` and `owner`.
    """

    def __init__(self, sessions: _Sessions, user_id: str, session_id: str) -> None:
        self._sessions = sessions
        self._key = user_id, session_id

    @property
    def _files(self) -> ContainerFiles:
        return self._sessions.container_manager.files

    def _use(self, action: Callable[[str], T]) -> T:
        return self._sessions.in_container(*self._key, action)

    # --- contents -----------------------------------------------------------------------------------

    def read_bytes(self, path: str | PurePath, *, max_bytes: int = READ_LIMIT_BYTES) -> bytes:
        """Read a regular file.

        Args:
            path: of the file.
            max_bytes: the most that is read, 256 MiB by default.

        Raises:
            FileTooLarge: it has more, or grows past that.
            IsADirectory: it is a directory.
            NotAFile: it is a device, a FIFO or a socket.
        """
        inside, most = _inside(path), _checks.check_size(max_bytes, "max_bytes")
        return self._use(lambda id: self._files.read(id, inside, max_bytes=most))

    def read_text(self, path: str | PurePath, *, max_bytes: int = READ_LIMIT_BYTES) -> str:
        """Read a UTF-8 file; see `read_bytes`.

        Raises:
            NotText: its bytes are not UTF-8.
        """
        return as_text(self.read_bytes(path, max_bytes=max_bytes), path)

    def write_bytes(
        self, path: str | PurePath, content: bytes, *, mode: int | None = None, owner: str | None = None
    ) -> Path:
        """Write a file in one step, and give its absolute path inside.

        A reader sees the old file or the new one, whoever is killed meanwhile. Missing directories are made, with the
        permissions `0o755`. Where the path is a symlink, what it names is written. It may be lost where the engine's
        host loses power in the next seconds.

        Args:
            path: of the file.
            content: what to write.
            mode: its permissions, exactly, such as `0o600`; by default those of a file that exists, else `0o644`.
            owner: `name`, `uid`, `name:group` or `uid:gid`; for root only. By default the owner of a file that exists,
                if the session's user may set it, else that user.

        Raises:
            IsADirectory: a directory is there, or the path ends in `/`; nothing is made.
            NotAFile: a device, a FIFO or a socket is there.
            NoSpace: the disk is full; the old file is still there.
            InvalidInput: there is no such owner in the container.
        """
        if not isinstance(content, bytes | bytearray | memoryview):
            raise InvalidInput(f"content is of type {type(content).__name__}: pass bytes, or use write_text")
        return self._write(path, bytes(content), mode, owner)

    def write_text(
        self, path: str | PurePath, content: str, *, mode: int | None = None, owner: str | None = None
    ) -> Path:
        """Write a file as UTF-8, in one step, and give its absolute path inside; see `write_bytes`."""
        if not isinstance(content, str):
            raise InvalidInput(f"content is of type {type(content).__name__}: pass str, or use write_bytes")
        return self._write(path, _checks.check_content(content, "content"), mode, owner)

    def _write(self, path: str | PurePath, data: bytes, mode: int | None, owner: str | None) -> Path:
        inside, bits = resolve_file_path(path, any_bytes=True), None if mode is None else _check_mode(mode)
        whose = None if owner is None else _checks.check_user(owner, "owner")
        self._use(lambda id: self._files.write(id, inside, data, mode=bits, owner=whose))
        return Path(inside)

    # --- names --------------------------------------------------------------------------------------

    def list(self, path: str | PurePath = ".", *, max_entries: int = MAX_ENTRIES) -> _FileInfos:
        """Look at all that lies in a directory, but not below that, sorted by name.

        A symlink in it is looked at itself.

        Args:
            path: of the directory, by default `/workspace`.
            max_entries: the most that may be in it.

        Raises:
            NotADirectory: it is none.
            TooManyFiles: more is in it.
        """
        inside, most = _inside(path), _check_count(max_entries, "max_entries")
        entries = self._use(lambda id: self._files.agent.list(id, inside, most))
        return [_info(inside / os.fsdecode(entry.below), entry) for entry in sorted(entries)]

    def stat(self, path: str | PurePath, *, follow_symlinks: bool = True) -> FileInfo:
        """Look at a file, or at anything else that has this name.

        Args:
            path: of it.
            follow_symlinks: look at what a symlink names, not at itself. The `path` of the answer is the one given.

        Raises:
            FileMissing: nothing has it, or the symlink leads nowhere.
        """
        inside = _inside(path)
        return _info(inside, self._use(lambda id: self._files.agent.stat(id, inside, follow=follow_symlinks)))

    def exists(self, path: str | PurePath, *, follow_symlinks: bool = True) -> bool:
        """Whether something has this name.

        A symlink that leads nowhere, or in a circle, has it only with `follow_symlinks=False`; nothing has a name that
        is too long for a file, or that goes on below a file.

        Raises:
            FileDenied: the session's user may not look.
        """
        try:
            self.stat(path, follow_symlinks=follow_symlinks)
        except FileError as exc:
            if exc.errno not in _NOTHING_THERE:
                raise
            return False
        return True

    def mkdir(self, path: str | PurePath, *, mode: int = 0o777, parents: bool = False, exist_ok: bool = False) -> Path:
        """Make a directory, and give its absolute path inside.

        Args:
            path: of the directory.
            mode: its permissions, from which the umask `0o022` is taken, as by `Path.mkdir`.
            parents: make what is missing above it, too, with the permissions `0o755`.
            exist_ok: it may exist already, and then keeps its permissions.

        Raises:
            FileExists: something is there already; with `exist_ok`, something else than a directory.
            FileMissing: the directory above it is missing, and `parents` is false.
        """
        inside, bits = _inside(path), _check_mode(mode)
        self._use(lambda id: self._files.agent.mkdir(id, inside, bits, parents=parents, exist_ok=exist_ok))
        return Path(inside)

    def remove(self, path: str | PurePath, *, recursive: bool = False, missing_ok: bool = False) -> None:
        """Remove a file, a symlink or an empty directory.

        Args:
            path: of what is to go; a symlink goes itself.
            recursive: remove a directory with all that is in it; no symlink in it is followed.
            missing_ok: it may be gone already.

        Raises:
            FileMissing: it is gone already, and `missing_ok` is false.
            FileError: it is a directory that is not empty (`errno.ENOTEMPTY`), and `recursive` is false; or it is in
                use as a mount (`errno.EBUSY`). With `recursive`, some of what is in it may be gone by then.
        """
        inside = _inside(path)
        try:
            self._use(lambda id: self._files.agent.remove(id, inside, recursive=recursive))
        except FileMissing:
            if not missing_ok:
                raise

    def rename(self, source: str | PurePath, target: str | PurePath) -> Path:
        """Give a file or a directory another name, in one step, and give its new absolute path inside.

        A file that has that name is replaced by a file, and an empty directory by a directory. A symlink is renamed
        itself. Both must lie on one file system: a file cannot be renamed into a mount, or out of one.

        Args:
            source: what is renamed.
            target: its whole new path, not the directory to put it in; the directory above it must exist. A relative
                one lies under `/workspace`, wherever the source is.

        Raises:
            FileMissing: there is no source, or no directory above the target.
            IsADirectory: the target is a directory, and the source is none.
            NotADirectory: the target is none, and the source is a directory.
            FileError: the target is a directory that is not empty (`errno.ENOTEMPTY`), lies on another file system
                (`errno.EXDEV`), or in the source (`errno.EINVAL`). It has both paths, as `filename` and `filename2`.
        """
        old, new = _inside(source), _inside(target)
        self._use(lambda id: self._files.agent.rename(id, old, new))
        return Path(new)

    # --- between the host and the session -----------------------------------------------------------

    def upload(self, local: PathLike, path: str | PurePath, *, timeout: float | None = None) -> Path:
        """Copy a file or a directory of this host into the session, and give its absolute path inside.

        In constant memory. Permissions are kept, owners and times are not: all belongs to the session's user. A symlink
        at `local` is followed, those below a directory are copied as symlinks. Each file appears in one step; what is
        in the target already stays, or is replaced by what has the same name. After an error, what was copied before
        stays.

        Args:
            local: what is copied, on this host.
            path: what it becomes inside, not the directory to put it in: `upload("a.txt", "in/a.txt")`. Missing
                directories are made.
            timeout: seconds for all of it; by default as long as it goes on.

        Raises:
            FileMissing: nothing is at `local`.
            IsADirectory: a directory inside is in the way of a file, or the path of a file ends in `/`.
            FileExists: something else inside is in the way of a directory.
            NotAFile: a device, a FIFO or a socket is at `local` or below it, or in the way inside.
            NoSpace: the disk is full.
            FileTimeout: it took longer than `timeout`, or stood still for a minute.
        """
        source = Path(_checks.check_path_text(local, "local", any_bytes=True))
        inside = _inside(path) if os.path.isdir(source) else resolve_file_path(path, any_bytes=True)
        seconds = _checks.check_timeout(timeout)
        from podkit.agent import transfers  # late: few programs move directories

        self._use(lambda id: transfers.upload(self._files.agent, id, source, inside, seconds))
        return Path(inside)

    def download(
        self,
        path: str | PurePath,
        local: PathLike,
        *,
        max_bytes: int = MAX_DOWNLOAD_BYTES,
        max_files: int = MAX_DOWNLOAD_FILES,
        timeout: float | None = None,
    ) -> Downloaded:
        """Copy a file or a directory of the session to this host.

        In constant memory. Only regular files and directories are made, below `local` and nowhere else, whatever the
        container sends; what else there is, is left out and told. Permissions are kept as far as your umask lets them,
        but you may always read and write; owners and times are not. Each file appears in one step; what is in the
        target already stays, or is replaced by what has the same name. Neither `local` itself nor anything below it may
        be a symlink; those above it are yours and are followed, so they must not lie where a container can write. After
        an error, what was copied before stays.

        Args:
            path: what is copied, inside; a symlink there is followed.
            local: what it becomes on this host, not the directory to put it in: `download("in/a.txt", "a.txt")`.
                Missing directories are made.
            max_bytes: of all files together, 1 GiB by default.
            max_files: how many names of any kind may be below a directory, 10,000 by default.
            timeout: seconds for all of it; by default as long as it goes on.

        Raises:
            FileTooLarge: there are more bytes.
            TooManyFiles: there are more names.
            NotAFile: `path` is a device, a FIFO or a socket, or one is in the way on this host.
            IsADirectory: a directory of this host is in the way of a file.
            FileExists: something else on this host is in the way of a directory.
            PathEscape: a symlink is in the way on this host, or the container sent a name that leaves `local`.
            NoSpace: the disk of this host is full.
            FileTimeout: it took longer than `timeout`, or stood still for a minute.
        """
        inside, seconds = _inside(path), _checks.check_timeout(timeout)
        target = Path(_checks.check_path_text(local, "local", any_bytes=True))
        most, names = _checks.check_size(max_bytes, "max_bytes"), _check_count(max_files, "max_files")
        from podkit.agent import transfers  # late: see `upload`

        task = transfers.download_task(inside, most, names, seconds)
        done = self._use(
            lambda id: transfers.download(self._files.agent, id, task, target, max_bytes=most, max_files=names)
        )
        return Downloaded(target, done.files, done.size, done.skipped)


def _inside(path: str | PurePath) -> PurePosixPath:
    return resolve_container_path(path, any_bytes=True)


def as_text(data: bytes, path: str | PurePath) -> str:
    """Decode a file.

    Raises:
        NotText: it is not UTF-8.
    """
    try:
        return data.decode()
    except UnicodeDecodeError as exc:
        why = f"is not UTF-8 (byte {exc.start}): read it as bytes, with files.read_bytes"
        raise NotText(f"'{path}' {why}", filename=str(path)) from exc


def _info(path: PurePosixPath, entry: Entry) -> FileInfo:
    kind = _TYPES.get(stat.S_IFMT(entry.mode), "other")
    return FileInfo(
        path=Path(path),
        type=kind,
        size=entry.size,
        mode=stat.S_IMODE(entry.mode),
        uid=entry.uid,
        gid=entry.gid,
        modified_at=_moment(entry.modified_seconds, entry.modified_nanoseconds),
        target=os.fsdecode(entry.link) if kind == "symlink" else None,
    )


def _moment(seconds: int, nanoseconds: int) -> datetime:
    """Give a time that the container has chosen; what no calendar holds becomes its end."""
    try:
        return _EPOCH + timedelta(seconds=seconds, microseconds=nanoseconds // 1000)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if seconds > 0 else datetime.min.replace(tzinfo=UTC)


def _check_mode(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o7777:
        raise InvalidInput(f"mode={_checks.shown(value)}: pass permission bits, such as 0o644")
    return value


def _check_count(value: object, what: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput(f"{what}={_checks.shown(value)}: pass a whole number, at least 1")
    return value
