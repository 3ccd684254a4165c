"""Background processes, started now and asked about later."""

from __future__ import annotations

import codecs
import os
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import suppress
from typing import Protocol, Self, TypeVar, get_args

from podkit.agent.command_request import CommandRequest
from podkit.agent.processes import PROCESSES_MAX, ContainerProcesses, Left, Row
from podkit.agent.runner import latest
from podkit.core.command import check_signal
from podkit.core.manager import BaseContainerManager
from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted, InvalidInput, PodkitError, ProcessNotFound, ProcessStillRunning
from podkit.processes._arguments import StreamName, check_name, check_process_id, check_seconds, check_stream
from podkit.processes._names import default_name
from podkit.processes.models import LogPiece, Process, ProcessStatus, bring_up_to_date, to_note, to_process, vanish
from podkit.utils import _checks
from podkit.utils._checks import CommandLike, StrPath
from podkit.utils._deadline import NEVER, Deadline
from podkit.utils._fork import renew_after_fork

T = TypeVar("T")
Action = Callable[[ContainerProcesses, str], T]  # its second argument is the container's id

STOP_SECONDS = 10.0
PIECE_BYTES = 1 << 20
LOG_MAX_BYTES = (10 << 20) + (128 << 10)
"""More than is ever kept of a stream: 10 MiB, and the output that comes while the oldest half is dropped."""

_WAIT_SECONDS = 10.0  # how long one question waits for an answer
_OFFSET_MAX = 1 << 62


class _InContainer(Protocol):
    """Calls an action with the container's id. A session's lost container is made anew."""

    def __call__(self, action: Callable[[str], T], deadline: Deadline) -> T: ...


class ProcessManager:
    """The background processes of one container. They outlive this podkit.

    Each has a keeper inside the container, which records its end and keeps its output, the last 5 to 10 MiB of
    each stream. Another manager, of another podkit, finds them all by `list_processes`. While one runs, its container
    does not reach the end of its lifetime, and its session does not expire. The container remembers the last 128 of
    those that have ended.

    Safe to use from many threads. Each call blocks until the container has answered, some milliseconds, and raises
    `ProcessNotFound` for an unknown id. Where the channel to the container breaks, all but `start_process`,
    `write_stdin` and `send_signal` ask once more by themselves; those raise `CommandInterrupted`. All raise
    `NotSupported` where podkit's agent cannot run in the container.

    Args:
        container_manager: runs the container.
        container_id: the engine's full id. `session.processes` follows its session to a new container instead.
        user_id: whose session it is.
        session_id: which of the user's sessions.
    """

    def __init__(
        self, container_manager: BaseContainerManager, container_id: str, user_id: str, session_id: str
    ) -> None:
        id = _checks.check_text(container_id, "container_id")
        if not isinstance(container_manager, BaseContainerManager):
            raise InvalidInput(
                f"container_manager is of type {type(container_manager).__name__}: pass a container manager"
            )
        record = container_manager.containers.get(id)
        if record is not None and (record.user_id, record.session_id) != (user_id, session_id):
            raise InvalidInput(
                f"container {record.name} is that of session {record.session_id!r} of user {record.user_id!r}: "
                "pass these, or the container of the session"
            )
        self._begin(container_manager, lambda action, deadline: action(id), user_id, session_id)

    @classmethod
    def of_session(cls, sessions: BaseSessionManager, user_id: str, session_id: str) -> Self:
        """Return a session's manager. It follows the session to a new container, and brings a lost one back.

        Processes of a container that was stopped or lost are `LOST`.
        """
        made = cls.__new__(cls)
        made._begin(
            sessions.container_manager,
            lambda action, deadline: sessions.in_container(user_id, session_id, action, deadline),
            user_id,
            session_id,
        )
        return made

    def _begin(
        self,
        containers: BaseContainerManager,
        in_container: _InContainer,
        user_id: str,
        session_id: str,
    ) -> None:
        self.user_id = _checks.check_id(user_id, "user_id")
        self.session_id = _checks.check_id(session_id, "session_id")
        self._containers = containers
        self._in_container = in_container
        self._known: dict[str, Process] = {}
        self._started: dict[str, str] = {}
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _known, the processes in it, and _started: the container of each

    # --- starting -----------------------------------------------------------------------------------

    def start_process(
        self,
        command: CommandLike,
        name: str | None = None,
        environment: Mapping[str, str] | None = None,
        working_dir: StrPath | None = None,
        *,
        user: str | None = None,
        stdin: bool = False,
    ) -> Process:
        """Start a process and return it once it runs. It is `RUNNING` then, however soon it ends.

        Args:
            command: a `str` is run by `sh -c`, a list as it is.
            name: to be shown; by default the command's first word, without its directory. Need not be unique.
            environment: added to the container's.
            working_dir: absolute, or below the container's, which is the default.
            user: who runs it; by default the container's user. Another one needs a container whose user is root.
            stdin: open an input for `write_stdin`. By default it finds its input empty.

        Raises:
            InvalidInput: a value cannot be right, or there is no such user or directory; nothing was run.
            ProcessFailedToStart: its program cannot be run: there is none of that name, or it is no program.
            NotSupported: there is no agent in this container.
            ContainerNotRunning: the container is stopped or paused.
            CommandInterrupted: the container or the engine ended meanwhile; it may run.
        """
        request = CommandRequest.checked(command, working_dir=working_dir, environment=environment, user=user)
        shown = check_name(default_name(command) if name is None else name)
        if not isinstance(stdin, bool):
            raise InvalidInput(f"stdin={_checks.shown(stdin)}: pass True to write to the process, else False")
        kept = command if isinstance(command, str) else [os.fspath(part) for part in command]
        import uuid  # late: it loads platform modules

        id, note = str(uuid.uuid4()), to_note(shown, kept)

        def start(processes: ContainerProcesses, container: str) -> tuple[str, Row]:
            return container, processes.start(container, id, request, note=note, with_input=stdin)

        try:
            container, row = self._use(start)
            process = Process(
                id=id,
                pid=row.pid,
                name=shown,
                command=kept,
                status=ProcessStatus.RUNNING,
                exit_code=None,
                ports=None if row.ports is None else list(row.ports),
                started_at=row.started_at,
            )
            with self._lock:
                self._known[id] = process
                self._started[id] = container
        except PodkitError:
            raise
        except BaseException:  # such as Ctrl-C: nobody would know its id
            with suppress(PodkitError):
                self._use(lambda processes, container: processes.stop(container, id, 0), latest(0))
            raise
        return process

    def _use(self, action: Action[T], deadline: Deadline = NEVER) -> T:
        return self._in_container(lambda id: action(self._containers.processes, id), deadline)

    def _repeat(self, action: Action[T], deadline: Deadline = NEVER) -> T:
        """Use the container, once more if the channel broke."""
        try:
            return self._use(action, deadline)
        except CommandInterrupted:
            return self._use(action, deadline)

    # --- looking ------------------------------------------------------------------------------------

    def get_process(self, id: str) -> Process:
        """Look at a process and return its one object.

        One that the container has forgotten, because it was made anew, is `LOST` unless it was seen to end.
        """
        return self._look(check_process_id(id))

    def _look(self, id: str, wait: float = 0, deadline: Deadline = NEVER) -> Process:
        def look(processes: ContainerProcesses, container: str) -> Row:
            return processes.look(container, id, wait=wait, deadline=deadline)

        try:
            row = self._repeat(look, deadline)
        except ProcessNotFound:
            with self._lock:
                if id not in self._known:
                    raise
                return vanish(self._known[id])
        return self._note(row)

    def get_status(self, id: str) -> ProcessStatus:
        """Look at a process and return its state."""
        return self.get_process(id).status

    def is_running(self, id: str) -> bool:
        """Look at a process and return whether it runs. A paused one does."""
        return self.get_process(id).is_running

    def wait(self, id: str, timeout: float | None = None) -> Process:
        """Wait for a process to end or be `LOST`. Returns its object.

        Its children may still run and print; `follow_log` goes on until they have ended too.

        Args:
            id: of the process.
            timeout: how many seconds to wait, 0 to look only, `None` for as long as it takes. Waiting takes a command's
                place in the container.

        Raises:
            ProcessStillRunning: it runs on; it is a `TimeoutError` too.
            EngineTimeout: the engine does not say so within two seconds of that.
        """
        check_process_id(id)
        seconds = None if timeout is None else check_seconds(timeout)
        patience, answered = Deadline.after(seconds), latest(seconds)
        while True:
            process = self._look(id, min(_WAIT_SECONDS, patience.remaining), answered)
            if not process.is_running:
                return process
            if patience.expired:
                raise ProcessStillRunning(f"process {process.display_name} still runs after {timeout:g} s")

    def list_processes(self) -> list[Process]:
        """List the container's processes, oldest first, from any podkit.

        Those of before a restart of the container are among them; those of a container that was made anew are not.
        """
        with self._lock:
            before = set(self._known)
        found = [self._note(row) for row in self._repeat(lambda processes, container: processes.look_at_all(container))]
        # a full list may leave some out: absent means gone only in a whole one
        is_whole = len(found) < PROCESSES_MAX
        ids = {process.id for process in found}
        with self._lock:
            for id in before - ids if is_whole else ():
                if id in self._started and id in self._known:
                    vanish(self._known[id])
                else:  # forged by a user inside: remember none of them
                    self._known.pop(id, None)
        return sorted(found, key=lambda process: process.started_at)

    def _note(self, row: Row) -> Process:
        with self._lock:
            process = self._known.get(row.id)
            if process is None:
                process = self._known[row.id] = to_process(row)
            else:
                bring_up_to_date(process, row)
            return process

    # --- output -------------------------------------------------------------------------------------

    def get_logs(self, id: str) -> dict[str, str]:
        """Return a process's kept output, as `{"stdout": ..., "stderr": ...}`.

        Bytes that are not UTF-8 appear as U+FFFD. Also after its end, and after a restart of the container.
        """
        check_process_id(id)
        return {name: self._read(id, name, offset=0, max_bytes=LOG_MAX_BYTES).text for name in get_args(StreamName)}

    def read_log(
        self, id: str, stream: StreamName = "stdout", *, offset: int = 0, max_bytes: int = PIECE_BYTES
    ) -> LogPiece:
        """Return a piece of a process's output. Empty if nothing is there yet.

        Args:
            id: of the process.
            stream: `"stdout"` or `"stderr"`.
            offset: of the first byte, in all that was printed; a negative one counts from the end. Where older output
                was dropped, the piece begins later: see its `offset`.
            max_bytes: the most to return, 1 MiB by default.
        """
        check_process_id(id)
        check_stream(stream)
        if type(offset) is not int or abs(offset) > _OFFSET_MAX:
            raise InvalidInput(f"offset={_checks.shown(offset)}: pass a whole number of bytes, from -2**62 to 2**62")
        size = min(_checks.check_size(max_bytes, "max_bytes"), LOG_MAX_BYTES)
        return self._read(id, stream, offset=offset, max_bytes=size)

    def follow_log(self, id: str, stream: StreamName = "stdout", *, offset: int = 0) -> Generator[str]:
        """Yield a process's output as it comes, until its whole tree has ended.

        Each step blocks until something is printed, and takes a command's place in the container meanwhile. Where more
        is printed than is kept while nobody reads, the oldest of that is missing, wherever that cuts; `read_log` tells.

        Args:
            id: of the process.
            stream: `"stdout"` or `"stderr"`.
            offset: where to begin, as in `read_log`.
        """
        piece = self.read_log(id, stream, offset=offset, max_bytes=PIECE_BYTES)
        return self._follow(id, stream, piece)

    def _follow(self, id: str, stream: StreamName, piece: LogPiece) -> Generator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while piece.data or not piece.ended:
            if text := decoder.decode(piece.data):
                yield text
            piece = self._read(id, stream, offset=piece.next_offset, max_bytes=PIECE_BYTES, wait=_WAIT_SECONDS)
        if text := decoder.decode(b"", final=True):
            yield text

    def _read(self, id: str, stream: str, *, offset: int, max_bytes: int, wait: float = 0) -> LogPiece:
        found = self._repeat(
            lambda processes, container: processes.read(
                container, id, stream, offset=offset, max_bytes=max_bytes, wait=wait
            )
        )
        return LogPiece(found.data, found.offset, found.ended)

    # --- acting on it -------------------------------------------------------------------------------

    def write_stdin(self, id: str, data: str | bytes | bytearray, timeout: float = STOP_SECONDS) -> int:
        """Write to a process started with `stdin=True`, text as UTF-8.

        Args:
            id: of the process.
            data: the input.
            timeout: seconds to wait for it to read.

        Returns:
            How many bytes its pipe took: all, unless it did not read in time.

        Raises:
            BrokenPipeError: it has no input, it reads no more, or it has ended.
            EngineTimeout: the engine does not answer within two seconds of that; some may have been written.
        """
        check_process_id(id)
        content, seconds = _checks.check_content(data, "data"), check_seconds(timeout)
        answered = latest(seconds)
        return self._use(
            lambda processes, container: processes.write(container, id, content, seconds, deadline=answered), answered
        )

    def close_stdin(self, id: str) -> None:
        """Close a process's input. Harmless if that is closed, or missing."""
        check_process_id(id)
        with suppress(BrokenPipeError):
            self._repeat(lambda processes, container: processes.end_input(container, id))

    def send_signal(self, id: str, number: int | str) -> None:
        """Signal a process's group. Harmless once the process itself has ended.

        Args:
            id: of the process.
            number: such as `signal.SIGINT`, 2, `"SIGINT"`, `"INT"` or `"int"`.
        """
        check_process_id(id)
        checked = check_signal(number)
        self._use(lambda processes, container: processes.signal(container, id, checked))

    def stop_process(self, id: str, timeout: float = STOP_SECONDS, force: bool = False) -> bool:  # noqa: FBT001, FBT002
        """End a process's whole tree and wait for that.

        Each gets a SIGTERM first, and a SIGKILL once the timeout is over: also those that left its process group. Twice
        is harmless. If the process has ended already, its leftover children are ended.

        Args:
            id: of the process.
            timeout: seconds from SIGTERM to SIGKILL.
            force: send the SIGKILL at once.

        Returns:
            Whether nothing of it runs any more. False where the kernel does not let go of something within some
            seconds, and where it is `LOST` in a container that still runs: nobody knows then.
        """
        check_process_id(id)
        if not isinstance(force, bool):
            raise InvalidInput(f"force={_checks.shown(force)}: pass True to kill at once, else False")
        milliseconds = 0 if force else round(check_seconds(timeout) * 1000)

        def stop(processes: ContainerProcesses, container: str) -> bool:
            try:
                row = processes.stop(container, id, milliseconds)
            except ProcessNotFound:
                # the container has no record of it: it was made anew, or something inside deleted the record
                with self._lock:
                    if id not in self._known:
                        raise
                    was_seen_to_end = vanish(self._known[id]).status is not ProcessStatus.LOST
                    return was_seen_to_end or self._started.get(id, container) != container  # it ended with that one
            self._note(row)
            return row.left is Left.NOTHING

        return self._repeat(stop)

    def remove_process(self, id: str) -> None:
        """Forget a process that has ended, with its logs. Twice is harmless.

        Raises:
            InvalidInput: it, or a child of it, still runs.
        """
        check_process_id(id)
        with suppress(ProcessNotFound):
            self._repeat(lambda processes, container: processes.remove(container, id))
        with self._lock:
            self._known.pop(id, None)
            self._started.pop(id, None)

    def __repr__(self) -> str:
        return f"ProcessManager(user_id={self.user_id!r}, session_id={self.session_id!r})"
