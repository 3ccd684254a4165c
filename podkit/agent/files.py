"""Files inside a container, through the agent: what the image holds does not matter, and no link reaches the host.

Each call is one run of the agent's part for files (`native/files.c`), by the container's user, and speaks in the
records of `records.py`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from io import BytesIO
from pathlib import PurePath, PurePosixPath
from typing import NoReturn, Protocol, TypeVar

from podkit.agent.commands import CommandRequest
from podkit.agent.execution import Execution, StillRunning
from podkit.agent.records import (
    KEEP_MODE,
    PIECE_BYTES,
    Entry,
    Mark,
    Record,
    RecordDecoder,
    RecordViolation,
    Refusal,
    Refused,
    encode_data_header,
    encode_entry,
    encode_mark,
)
from podkit.backends.base import Stream
from podkit.errors import (
    CommandInterrupted,
    FileDenied,
    FileError,
    FileExists,
    FileMissing,
    FileTimeout,
    FileTooLarge,
    InvalidInput,
    IsADirectory,
    NoSpace,
    NotADirectory,
    NotAFile,
    PathEscape,
    PodkitError,
    TooManyFiles,
)
from podkit.utils._deadline import Deadline
from podkit.utils._hostfs import READ_LIMIT_BYTES, over, over_read_limit

T = TypeVar("T")
Explain = Callable[[int], str]

FILE_SECONDS = 300.0
"""How long one call may take where its caller sets no limit."""

STALL_SECONDS = 60.0
"""How long a transfer may stand still."""

LATE = 110
"""Linux's error number for what is over its time."""

_WHAT = "this use of files"
_ANSWER_BYTES = 16 << 10  # the whole answer of a `put`

_ERRORS: dict[int, tuple[type[PodkitError], int | None, str]] = {
    1: (FileDenied, errno.EPERM, "the session's user may not do that"),
    2: (FileMissing, errno.ENOENT, "there is no such file or directory"),
    11: (NotAFile, errno.EAGAIN, "it is a special file of the kernel, which has nothing to read now"),
    13: (FileDenied, errno.EACCES, "permission denied for the session's user"),
    16: (FileError, errno.EBUSY, "it is in use: a mount, or the directory of a mount"),
    17: (FileExists, errno.EEXIST, "something is there already"),
    18: (FileError, errno.EXDEV, "it would have to move to another file system"),
    20: (NotADirectory, errno.ENOTDIR, "it, or a part of its path, is not a directory"),
    21: (IsADirectory, errno.EISDIR, "it is a directory"),
    22: (FileError, errno.EINVAL, "the system refuses it"),
    26: (FileError, errno.ETXTBSY, "it is a program that runs"),
    27: (FileTooLarge, errno.EFBIG, "the file would be larger than the file system or a limit of the container allows"),
    28: (
        NoSpace,
        errno.ENOSPC,
        "no space is left on the device: remove something, or make the disk or the tmpfs larger",
    ),
    30: (FileDenied, errno.EROFS, "the file system is read-only: write elsewhere, or mount something writable there"),
    36: (FileError, errno.ENAMETOOLONG, "a name is too long, or the tree is too deep"),
    39: (FileError, errno.ENOTEMPTY, "it is a directory that is not empty"),
    40: (FileError, errno.ELOOP, "its symlinks lead in a circle"),
    122: (NoSpace, errno.EDQUOT, "the disk quota is used up: remove something"),
    Refusal.NOT_REGULAR: (NotAFile, None, "a device, a FIFO or a socket is there"),
    Refusal.TOO_LARGE: (FileTooLarge, None, "it has more bytes than the limit"),
    Refusal.TOO_MANY: (TooManyFiles, None, "there are more names than the limit"),
    Refusal.NO_OWNER: (
        InvalidInput,
        None,
        "the container has no such user or group: name another owner, or a number",
    ),
    Refusal.CUT_SHORT: (FileError, None, "the agent did not get all of it"),
    Refusal.ESCAPES: (
        PathEscape,
        None,
        "it is a symlink, or one on the way leaves its directory; remove it, or use session.files, which follow it",
    ),
    Refusal.NO_PARENT: (FileMissing, errno.ENOENT, "a directory on the way to it is missing"),
}
"""Linux's error numbers, whatever this process runs on, and podkit's own: with the number that this process knows."""


@dataclass(frozen=True, slots=True)
class Task:
    """One call of the agent's part for files.

    Attributes:
        doing: what it does, for messages, such as `read`.
        path: absolute, inside.
        argv: verb and arguments.
        timeout: seconds, `None` for no limit.
        reasons: what an error number means here, of `path` itself, where that is more than it always does.
        limits: say what it means that so much was found, by podkit's own number.
        target: what `path` is to become, inside.
    """

    doing: str
    path: PurePosixPath
    argv: Sequence[str]
    timeout: float | None = FILE_SECONDS
    reasons: Mapping[int, str] = field(default_factory=dict)
    limits: Mapping[int, Explain] = field(default_factory=dict)
    target: PurePosixPath | None = None

    def request(self, *, with_input: bool = False) -> CommandRequest:
        """Give what is asked of the agent."""
        return CommandRequest(
            argv=["file", *self.argv],
            working_dir="/",
            timeout=self.timeout,
            input=b"" if with_input else None,
            max_output_bytes=_ANSWER_BYTES if with_input else 0,
            built_in=True,
        )

    def refuse(self, refused: Refused) -> NoReturn:
        """Raise what the agent's refusal means."""
        number = refused.number
        kind, known, why = _ERRORS.get(number, (FileError, number, os.strerror(number)))
        if explain := self.limits.get(number):
            why = explain(refused.found)
        elif not refused.below:
            why = self.reasons.get(number, why)
        self.fail(kind, why, refused.below, known)

    def fail(self, kind: type[PodkitError], why: str, below: bytes = b"", number: int | None = None) -> NoReturn:
        """Raise an error that names the path; `number` is the system's."""
        name = os.fsencode(self.path) + (b"/" + below if below else b"")
        where = shown(os.fsdecode(name))
        target = None if self.target is None else str(self.target)
        becoming = "" if target is None else f" to '{shown(target)}'"
        message = f"cannot {self.doing} '{where}'{becoming} in the container: {why}"
        if issubclass(kind, FileError):
            raise kind(message, number=number, filename=os.fsdecode(name), filename2=target) from None
        raise kind(message) from None


def _renaming(source: PurePosixPath, target: PurePosixPath) -> Mapping[int, str]:
    """Say what the system's error numbers mean of two paths: it does not tell which of them it refuses."""
    old, new = shown(source), shown(target)
    not_empty = f"'{new}' is a directory that is not empty: remove it first, with recursive=True"
    return {
        2: f"there is no '{old}'",
        Refusal.NO_PARENT: f"there is no directory '{shown(target.parent)}': make it first, with mkdir(parents=True)",
        17: not_empty,
        18: "they lie on different file systems: copy it, or move it by a command such as 'mv'",
        20: f"a part of a path is not a directory, or '{new}' is a file and '{old}' a directory",
        21: f"'{new}' is a directory: give the whole new path, such as '{shown(target / source.name)}'",
        22: "a directory cannot be moved into itself",
        39: not_empty,
    }


def shown(path: str | PurePath) -> str:
    """Give a path for a message, which is text whatever bytes a container has in its names."""
    return os.fsencode(path).decode(errors="replace")


class _Commands(Protocol):
    def prepare(self, container_id: str, request: CommandRequest, what: str) -> Execution: ...


class AgentFiles:
    """The files of the containers of one engine. Safe to use from many threads.

    Every method raises `AgentUnavailable` where commands go through the engine's exec, `ContainerNotFound` and
    `ContainerNotRunning` before anything was sent, `CommandInterrupted` where the container or the engine ended under
    it, and else a `FileError`. Paths are absolute, without `..`.
    """

    def __init__(self, commands: _Commands) -> None:
        self._commands = commands

    # --- single files -------------------------------------------------------------------------------

    def read(self, container_id: str, path: PurePosixPath, max_bytes: int | None, root: str = "") -> bytes:
        """Read a regular file.

        Args:
            container_id: of a running container.
            path: of the file; links are followed.
            max_bytes: the most that it may have; `None` for the usual, where the caller cannot set it.
            root: the directory that no link may leave; `""` for none.
        """
        most = READ_LIMIT_BYTES if max_bytes is None else max_bytes
        limits: dict[int, Explain] = {Refusal.TOO_LARGE: partial(over_read_limit, max_bytes)}
        task = Task("read", path, ["get", str(path), str(most), "0", root], limits=limits)

        def join(records: Iterator[Record]) -> bytes:
            data, first = BytesIO(), next(records, None)
            if not isinstance(first, Entry) or not stat.S_ISREG(first.mode):
                raise RecordViolation("no file")
            for record in records:
                if isinstance(record, Entry):
                    raise RecordViolation("a second file")
                if isinstance(record, memoryview):
                    data.write(record)
                if data.tell() > most:
                    raise RecordViolation("more bytes than were asked for")
            return data.getvalue()

        return self.get(container_id, task, join)

    def write(
        self,
        container_id: str,
        path: PurePosixPath,
        content: bytes,
        *,
        mode: int | None = None,
        owner: str | None = None,
        root: str = "",
    ) -> None:
        """Write a file in one step: a reader sees the old one or the new one. Missing directories are made.

        Args:
            container_id: of a running container.
            path: of the file; a link there is written through.
            content: what to write.
            mode: its permissions; `None` keeps those of a file that exists.
            owner: `user`, `uid` or `uid:gid`; `None` keeps the owner as far as the user may.
            root: the directory that no link may leave, and in which none is written through; `""` for none.
        """
        task = Task("write", path, ["put", str(path), owner or "", root])
        begin = encode_entry(Entry(b"", KEEP_MODE if mode is None else mode)) + encode_data_header(len(content))
        self.put(container_id, task, [begin, content, encode_mark(Mark.END)])

    # --- names --------------------------------------------------------------------------------------

    def stat(self, container_id: str, path: PurePosixPath, *, follow: bool) -> Entry:
        """Look at what has this name; `follow` says whether at what a link names."""
        task = Task("look at", path, ["stat", str(path), str(int(follow))])
        entries = self._entries(container_id, task, 1)
        if len(entries) != 1:
            task.fail(FileError, "the agent's answer makes no sense")
        return entries[0]

    def list(self, container_id: str, path: PurePosixPath, most: int) -> Sequence[Entry]:
        """Look at all that lies in a directory."""
        limits: dict[int, Explain] = {Refusal.TOO_MANY: partial(over, "names", "max_entries", most)}
        task = Task("list", path, ["list", str(path), str(most)], limits=limits)
        return self._entries(container_id, task, most)

    def mkdir(self, container_id: str, path: PurePosixPath, mode: int, *, parents: bool, exist_ok: bool) -> None:
        """Make a directory."""
        argv = ["mkdir", str(path), str(mode), str(int(parents)), str(int(exist_ok))]
        reasons = {} if parents else {2: "a directory on the way to it is missing: pass parents=True"}
        self._entries(container_id, Task("make the directory", path, argv, reasons=reasons), 0)

    def remove(self, container_id: str, path: PurePosixPath, *, recursive: bool) -> None:
        """Remove a file, a link or a directory, with `recursive` whatever is in it."""
        reasons = {} if recursive else {39: "it is a directory that is not empty: pass recursive=True"}
        argv = ["remove", str(path), str(int(recursive))]
        self._entries(container_id, Task("remove", path, argv, reasons=reasons), 0)

    def empty(self, container_id: str, path: PurePosixPath) -> None:
        """Remove all that is in a directory, but mounts and what is in them."""
        self._entries(container_id, Task("empty", path, ["empty", str(path), "0"]), 0)

    def rename(self, container_id: str, source: PurePosixPath, target: PurePosixPath) -> None:
        """Give a file or a directory another name; a file that has it is replaced."""
        argv = ["rename", str(source), str(target)]
        task = Task("rename", source, argv, reasons=_renaming(source, target), target=target)
        self._entries(container_id, task, 0)

    def _entries(self, container_id: str, task: Task, most: int) -> Sequence[Entry]:
        def collect(records: Iterator[Record]) -> Sequence[Entry]:
            found: list[Entry] = []
            for record in records:
                if not isinstance(record, Entry) or len(found) == most:
                    raise RecordViolation("more names than were asked for")
                found.append(record)
            return found

        return self.get(container_id, task, collect, with_data=False)

    # --- the way there and back ---------------------------------------------------------------------

    def get(self, container_id: str, task: Task, use: Callable[[Iterator[Record]], T], *, with_data: bool = True) -> T:
        """Do a task, and give what `use` makes of its records, which end with the last one before `DONE`."""
        execution = self._commands.prepare(container_id, task.request(), _WHAT)
        with _ending(execution, task):
            execution.send()
            return use(_records(execution, task, RecordDecoder(with_data=with_data)))

    def put(self, container_id: str, task: Task, pieces: Iterable[bytes | memoryview]) -> None:
        """Do a task that reads records; `pieces` are their bytes, but for `DONE`."""
        execution = self._commands.prepare(container_id, task.request(with_input=True), _WHAT)
        with _ending(execution, task):
            execution.send()
            execution.feed(_joined(pieces, encode_mark(Mark.DONE)), STALL_SECONDS)
            _await_answer(execution, task)


@contextmanager
def _ending(execution: Execution, task: Task) -> Iterator[None]:
    """See that nothing runs on after an error, and raise errors as callers know them."""
    try:
        yield
        execution.leave()
    except _Answered as exc:
        execution.leave()
        task.refuse(exc.refused)
    except StillRunning:
        execution.abandon()
        task.fail(FileTimeout, f"nothing of it came or went for {STALL_SECONDS:g} s")
    except RecordViolation as exc:
        execution.abandon()
        task.fail(FileError, f"the agent's answer makes no sense ({exc}): close the session, it was tampered with")
    except BaseException:  # such as Ctrl-C, or a full disk of this host
        execution.abandon()
        raise


class _Answered(Exception):
    """The agent said why it does not do it."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


def _records(execution: Execution, task: Task, decoder: RecordDecoder) -> Iterator[Record]:
    """Give the records as they come, until all is done.

    Raises:
        _Answered: the agent refused.
        RecordViolation: what came makes no sense.
        StillRunning: nothing came for too long.
    """
    deadline = Deadline.after(task.timeout)
    while True:
        piece = execution.take(patience=Deadline.after(STALL_SECONDS))
        if piece is None:
            _explain_end(execution, task)
        stream, data = piece
        if stream is not Stream.STDOUT:
            continue
        for record in decoder.feed(data):
            if isinstance(record, Refused):
                raise _Answered(record)
            if record is Mark.DONE:
                return
            if deadline.reached:  # what has come already may be much work here
                _too_late(task)
            yield record


def _await_answer(execution: Execution, task: Task) -> None:
    """Wait for the only record that answers a `put`; some of it may have come while it was fed."""
    answer = execution.outcome.stdout
    while True:
        for record in RecordDecoder().feed(answer.data):
            if isinstance(record, Refused):
                raise _Answered(record)
            if record is Mark.DONE:
                return
            raise RecordViolation("it talks instead of listening")
        if answer.truncated:
            raise RecordViolation("it does not come to an end")
        if execution.take(patience=Deadline.after(STALL_SECONDS)) is None:
            _explain_end(execution, task)


def _too_late(task: Task) -> NoReturn:
    task.fail(FileTimeout, task.reasons.get(LATE, f"it took longer than {task.timeout:g} s"))


def _explain_end(execution: Execution, task: Task) -> NoReturn:
    """Raise what it means that the agent's part ended without its last record."""
    outcome = execution.outcome
    if outcome.timed_out:
        _too_late(task)
    if outcome.container_restarted:
        raise CommandInterrupted(f"cannot {task.doing} '{task.path}': the container had to be restarted under it")
    if outcome.oom_killed:
        task.fail(FileError, "the kernel killed it for memory: raise memory_limit, or end what uses it up")
    task.fail(FileError, f"the agent's part for files ended with exit code {outcome.exit_code}")


def _joined(pieces: Iterable[bytes | memoryview], last: bytes) -> Iterator[bytes | memoryview]:
    """Give small pieces in larger ones: each costs a system call or more, here and inside."""
    small: list[bytes | memoryview] = []
    size = 0
    for piece in pieces:
        if len(piece) >= PIECE_BYTES:
            yield b"".join(small)
            yield piece
            small, size = [], 0
            continue
        small.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            yield b"".join(small)
            small, size = [], 0
    yield b"".join([*small, last])
