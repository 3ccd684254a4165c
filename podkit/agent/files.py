"""Files inside a container, through the agent. A command reaches the same files; the image needs no programs for it.

Each call is one run of the agent's part for files (`native/files.c`), by the container's user or another one, and
speaks in the records of `records.py`. Where a container has no agent, a shell script reads and writes (`file_scripts`).
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from io import BytesIO
from pathlib import PurePosixPath
from typing import NoReturn, TypeVar

from podkit.agent import file_scripts
from podkit.agent.agent_command import AgentCommand, StillRunning
from podkit.agent.file_records import (
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
from podkit.agent.file_requests import FILE_SECONDS, NONSENSE, NOT_THE_OWNER, FileTask, renaming
from podkit.agent.runner import Runner
from podkit.backends.base import Deadline, Stream
from podkit.errors import CommandInterrupted, FileDenied, FileError, FileTimeout, NotSupported
from podkit.utils._checks import over

T = TypeVar("T")
Progress = Callable[[int, int], object]
"""Called with the number of files that are complete so far, and of bytes that have gone."""

READ_LIMIT_BYTES = 256 << 20
"""The most that one read takes into memory, where its caller sets no limit."""

STALL_SECONDS = 60.0
"""How long a task may stand still, and an engine be asked for a channel."""


class ContainerFiles:
    """The files of the containers of one engine. Safe to use from many threads.

    Paths are absolute, without `..`. `user` is who does it; `None` means the container's user. Every method raises, but
    for the errors listed there:

    - `NotSupported` where the container has no agent, but for `read`, `write` and `empty`;
    - `ContainerNotFound` and `ContainerNotRunning` before anything was sent;
    - `InvalidInput` where there is no such user;
    - `CommandInterrupted` where the container or the engine ended under it;
    - else a `FileError`.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    # --- contents -----------------------------------------------------------------------------------

    def read(
        self, container_id: str, path: PurePosixPath, *, max_bytes: int = READ_LIMIT_BYTES, user: str | None = None
    ) -> bytes:
        """Read a regular file of at most `max_bytes`. Links are followed."""
        task = FileTask(
            doing="read",
            path=path,
            argv=["get", str(path), str(max_bytes), "0"],
            user=user,
            limits={Refusal.TOO_LARGE: partial(_over_read_limit, max_bytes)},
        )

        def join(records: Iterator[Record]) -> bytes:
            data, first = BytesIO(), next(records, None)
            if not isinstance(first, Entry) or not stat.S_ISREG(first.mode):
                raise RecordViolation("no file")
            for record in records:
                if isinstance(record, Entry):
                    raise RecordViolation("a second file")
                if isinstance(record, memoryview):
                    data.write(record)
                if data.tell() > max_bytes:
                    raise RecordViolation("more bytes than were asked for")
            return data.getvalue()

        try:
            return self.get(container_id, task, join)
        except NotSupported:
            return file_scripts.read_file(self._runner, container_id, task, max_bytes)

    def write(
        self,
        container_id: str,
        path: PurePosixPath,
        content: bytes,
        *,
        mode: int | None = None,
        user: str | None = None,
    ) -> None:
        """Write a file in one step. Missing directories are made, a link is written through.

        It is written in place, where a reader may see half of it, if it is a mount itself, if its directory takes no
        new file, or if its owner is another one and would not stay.

        Args:
            container_id: of a running container.
            path: of the file.
            content: of the file.
            mode: its permissions; `None` keeps those of a file that exists.
            user: who writes it, and owns it if it is new.

        Raises:
            NotSupported: there is a `mode`, and the container has no agent.
        """
        reasons = {} if mode is None else NOT_THE_OWNER
        task = FileTask(doing="write", path=path, argv=["put", str(path)], user=user, reasons=reasons)
        begin = encode_entry(Entry(b"", KEEP_MODE if mode is None else mode)) + encode_data_header(len(content))
        try:
            self.put(container_id, task, [begin, content, encode_mark(Mark.END)])
        except NotSupported:
            if mode is not None:
                raise
            file_scripts.write_file(self._runner, container_id, task, content)

    # --- names --------------------------------------------------------------------------------------

    def stat(self, container_id: str, path: PurePosixPath, *, follow: bool, user: str | None = None) -> Entry:
        """Return a name's entry. `follow` looks through a link."""
        argv = ["stat", str(path), str(int(follow))]
        task = FileTask(doing="look at", path=path, argv=argv, user=user)
        entries = self._entries(container_id, task, 1)
        if len(entries) != 1:
            task.fail(FileError, NONSENSE)
        return entries[0]

    def list(self, container_id: str, path: PurePosixPath, most: int, *, user: str | None = None) -> Sequence[Entry]:
        """Return a directory's entries, at most `most`."""
        task = FileTask(
            doing="list",
            path=path,
            argv=["list", str(path), str(most)],
            user=user,
            limits={Refusal.TOO_MANY: partial(over, "names", "max_entries", most)},
        )
        entries = self._entries(container_id, task, most)
        names = {entry.below for entry in entries}
        if len(names) < len(entries) or any(not name or b"/" in name or name in (b".", b"..") for name in names):
            task.fail(FileError, NONSENSE)
        return entries

    def mkdir(
        self,
        container_id: str,
        path: PurePosixPath,
        mode: int,
        *,
        parents: bool,
        exist_ok: bool,
        user: str | None = None,
    ) -> None:
        """Make a directory."""
        argv = ["mkdir", str(path), str(mode), str(int(parents)), str(int(exist_ok))]
        reasons = {} if parents else {2: "a directory on the way to it is missing: pass parents=True"}
        task = FileTask(doing="make the directory", path=path, argv=argv, user=user, reasons=reasons)
        self._entries(container_id, task, 0)

    def remove(self, container_id: str, path: PurePosixPath, *, recursive: bool, user: str | None = None) -> None:
        """Remove a file, a link or a directory. `recursive` takes full ones."""
        reasons = {} if recursive else {39: "it is a directory that is not empty: pass recursive=True"}
        argv = ["remove", str(path), str(int(recursive))]
        self._entries(container_id, FileTask(doing="remove", path=path, argv=argv, user=user, reasons=reasons), 0)

    def rename(
        self, container_id: str, source: PurePosixPath, target: PurePosixPath, *, user: str | None = None
    ) -> None:
        """Rename a file or a directory. A file there is replaced."""
        argv, reasons = ["rename", str(source), str(target)], renaming(source, target)
        task = FileTask(doing="rename", path=source, argv=argv, user=user, reasons=reasons, target=target)
        self._entries(container_id, task, 0)

    def empty(self, container_id: str, path: PurePosixPath) -> None:
        """Empty a directory, except for mounts.

        It is done as root, who may lack the capability to go where only the owner may: so as the container's user, too.
        """
        try:
            self._empty(container_id, path, user="0")
        except FileDenied:
            with suppress(FileError):
                self._empty(container_id, path, user=None)
            self._empty(container_id, path, user="0")

    def _empty(self, container_id: str, path: PurePosixPath, user: str | None) -> None:
        task = FileTask(doing="empty", path=path, argv=["empty", str(path)], user=user)
        try:
            self._entries(container_id, task, 0)
        except NotSupported:
            file_scripts.empty_directory(self._runner, container_id, task)

    def open_to_all(
        self,
        container_id: str,
        path: PurePosixPath,
        *,
        if_empty: bool,
        but_for: Sequence[str] = (),
        deadline: Deadline | None = None,
    ) -> None:
        """Open root's directory to every user.

        It is made where it is missing. One of another user, of a read-only file system or behind a link stays as it is.

        Args:
            container_id: of a running container.
            path: of the directory.
            if_empty: only while nothing is in it.
            but_for: names that may be in it all the same; not where there is no agent.
            deadline: for all of it.
        """
        seconds = FILE_SECONDS if deadline is None else min(FILE_SECONDS, max(deadline.remaining, 0.001))
        argv = ["share", str(path), str(int(if_empty)), *but_for]
        task = FileTask(doing="open", path=path, argv=argv, user="0", timeout=seconds)
        try:
            self._entries(container_id, task, 0)
        except NotSupported:
            file_scripts.open_to_all(self._runner, container_id, task, if_empty=if_empty)

    def _entries(self, container_id: str, task: FileTask, most: int) -> Sequence[Entry]:
        def collect(records: Iterator[Record]) -> Sequence[Entry]:
            found: list[Entry] = []
            for record in records:
                if not isinstance(record, Entry) or len(found) == most:
                    raise RecordViolation("more names than were asked for")
                found.append(record)
            return found

        return self.get(container_id, task, collect, with_data=False)

    # --- the way there and back ---------------------------------------------------------------------

    def get(
        self, container_id: str, task: FileTask, use: Callable[[Iterator[Record]], T], *, with_data: bool = True
    ) -> T:
        """Do a task and return `use` of its records. They end before `DONE`."""
        execution = self._prepare(container_id, task)
        with _ending(execution, task):
            execution.send()
            return use(_records(execution, task, RecordDecoder(with_data=with_data)))

    def put(self, container_id: str, task: FileTask, pieces: Iterable[bytes | memoryview]) -> None:
        """Do a task that reads records. `pieces` are their bytes, without `DONE`."""
        execution = self._prepare(container_id, task, with_input=True)
        with _ending(execution, task):
            execution.send()
            for piece in _joined(pieces, encode_mark(Mark.DONE)):
                if not execution.feed(piece, STALL_SECONDS):
                    break  # its answer says why
            _await_answer(execution, task)

    def _prepare(self, container_id: str, task: FileTask, *, with_input: bool = False) -> AgentCommand:
        engine_has = Deadline.after(STALL_SECONDS if task.timeout is None else min(STALL_SECONDS, task.timeout))
        return self._runner.prepare(container_id, task.request(with_input=with_input), engine_has)


def _over_read_limit(max_bytes: int, found: int) -> str:
    if max_bytes != READ_LIMIT_BYTES:
        return over("bytes", "max_bytes", max_bytes, found)
    cure = "files.read_bytes takes a larger max_bytes, and files.download needs no memory for it"
    return f"there are at least {found} bytes, and the limit is {READ_LIMIT_BYTES}: {cure}"


@contextmanager
def _ending(execution: AgentCommand, task: FileTask) -> Iterator[None]:
    """End the task after an error, and translate that."""
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
        task.fail(FileError, f"{NONSENSE} ({exc})")
    except BaseException as exc:  # such as Ctrl-C, or a full disk of this host
        execution.abandon()
        if isinstance(exc, CommandInterrupted) and exc is execution.error:
            raise task.interrupted(exc) from exc
        raise


class _Answered(Exception):
    """The agent said why it does not do it."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused)
        self.refused = refused


def _records(execution: AgentCommand, task: FileTask, decoder: RecordDecoder) -> Iterator[Record]:
    """Yield the records as they come.

    Raises:
        _Answered: the agent refused.
        RecordViolation: the records make no sense.
        StillRunning: nothing came for too long.
    """
    deadline = Deadline.after(task.timeout)
    while True:
        piece = execution.take(patience=Deadline.after(STALL_SECONDS))
        if piece is None:
            _explain_end(execution, task)
        stream, data = piece
        if stream is not Stream.STDOUT:
            raise RecordViolation("it has an error stream")
        for record in decoder.feed(data):
            if isinstance(record, Refused):
                raise _Answered(record)
            if record is Mark.DONE:
                return
            if deadline.expired:  # a flood of records may already wait here
                task.too_late()
            yield record


def _await_answer(execution: AgentCommand, task: FileTask) -> None:
    """Wait for the record that answers a `put`. Some of it may have come already."""
    answer = execution.outcome.stdout
    while True:
        for record in RecordDecoder().feed(answer.data):
            if isinstance(record, Refused):
                raise _Answered(record)
            if record is Mark.DONE:
                return
            raise RecordViolation("it talks instead of listening")
        if answer.truncated or execution.outcome.stderr.truncated:
            raise RecordViolation("it does not come to an end")
        if execution.take(patience=Deadline.after(STALL_SECONDS)) is None:
            _explain_end(execution, task)


def _explain_end(execution: AgentCommand, task: FileTask) -> NoReturn:
    """Raise the error of a task that ended early."""
    outcome = execution.outcome
    if outcome.timed_out:
        task.too_late()
    if outcome.container_restarted:
        raise task.interrupted(
            "the container had to be restarted under it: something inside ended podkit's agent, perhaps the kernel for "
            "want of memory (memory_limit; a tmpfs counts)"
        )
    if outcome.oom_killed:
        task.fail(FileError, "the kernel killed it for memory: raise memory_limit, or end a process that uses it up")
    task.fail(FileError, f"the agent's part for files ended with exit code {outcome.exit_code}")


def _joined(pieces: Iterable[bytes | memoryview], last: bytes) -> Iterator[bytes | memoryview]:
    """Join small pieces: each costs system calls, here and inside."""
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
