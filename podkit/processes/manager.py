"""Background processes: started now, asked about later, by this podkit or by another one."""

from __future__ import annotations

import codecs
import re
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Literal, Protocol, Self, TypeVar, get_args

from podkit.agent.commands import CommandRequest
from podkit.agent.processes import BackgroundProcesses, Left, Row
from podkit.core import _checks
from podkit.core.command import check_signal
from podkit.core.manager import BaseContainerManager
from podkit.core.secret import Secret
from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted, InvalidInput, ProcessNotFound
from podkit.processes._names import NAME_MAX_BYTES, default_name
from podkit.processes.models import LogPiece, Process, ProcessStatus, bring_up_to_date, to_note, to_process
from podkit.utils._fork import renew_after_fork

T = TypeVar("T")

StreamName = Literal["stdout", "stderr"]

STOP_SECONDS = 10.0
PIECE_BYTES = 1 << 20
LOG_MAX_BYTES = (10 << 20) + (128 << 10)
"""More than is ever kept of a stream: 10 MiB, and what was printed while the oldest half of that is dropped."""

_FOLLOW_SECONDS = 10.0  # how long one question about a log waits for an answer
_LONGEST_SECONDS = 86_400.0
_OFFSET_MAX = 1 << 62
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class _Place(Protocol):
    """Where the processes are."""

    def use(self, action: Callable[[BackgroundProcesses], T]) -> T: ...


class _OneContainer:
    """A container, and no other."""

    def __init__(self, containers: BaseContainerManager, container_id: str) -> None:
        self._containers = containers
        self._container_id = container_id

    def use(self, action: Callable[[BackgroundProcesses], T]) -> T:
        return action(self._containers.background(self._container_id))


class _SessionsContainer:
    """Whatever container a session has; it is brought back first where it is lost."""

    def __init__(self, sessions: BaseSessionManager, user_id: str, session_id: str) -> None:
        self._sessions = sessions
        self._key = user_id, session_id

    def use(self, action: Callable[[BackgroundProcesses], T]) -> T:
        background = self._sessions.container_manager.background
        return self._sessions.in_container(*self._key, lambda id: action(background(id)))


class ProcessManager:
    """The background processes of one container: they go on while this podkit does something else, or ends.

    Each has a keeper inside the container, which notes how it ends and keeps what it prints, the last 5 to 10 MiB of
    each stream. Another manager, of another podkit, finds them all by `list_processes`. They end with their container,
    and do not extend its lifetime: only commands do, and the calls of this class, each of which is one. The container
    keeps the last 128 of those that have ended.

    Safe to use from many threads. Each call blocks for as long as the container takes to answer, some milliseconds, and
    raises `ProcessNotFound` for an unknown id. Where the channel to the container breaks, all but `start_process`,
    `write_stdin` and `send_signal` ask once more by themselves; those raise `CommandInterrupted`.

    Args:
        container_manager: runs the container.
        container_id: the engine's full id. `session.processes` follows its session to a new container instead.
        user_id: whose session it is.
        session_id: which of the user's sessions.
    """

    def __init__(
        self, container_manager: BaseContainerManager, container_id: str, user_id: str, session_id: str
    ) -> None:
        self._begin(
            _OneContainer(container_manager, _checks.check_text(container_id, "container_id")), user_id, session_id
        )

    @classmethod
    def of_session(cls, sessions: BaseSessionManager, user_id: str, session_id: str) -> Self:
        """Make the manager of a session, whatever container it has: one that is lost is brought back by each call.

        What ran in a container that was stopped or lost is `LOST`.
        """
        made = cls.__new__(cls)
        made._begin(_SessionsContainer(sessions, user_id, session_id), user_id, session_id)
        return made

    def _begin(self, place: _Place, user_id: str, session_id: str) -> None:
        self.user_id = _checks.check_id(user_id, "user_id")
        self.session_id = _checks.check_id(session_id, "session_id")
        self._place = place
        self._known: dict[str, Process] = {}
        self._started: set[str] = set()
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _known, the processes in it, and _started

    # --- starting -----------------------------------------------------------------------------------

    def start_process(
        self,
        command: str | Sequence[str],
        name: str | None = None,
        environment: Mapping[str, str | Secret] | None = None,
        working_dir: str | None = None,
        *,
        user: str | None = None,
        stdin: bool = False,
    ) -> Process:
        """Start a process and give it once it runs; it is `RUNNING` then, however soon it ends.

        Args:
            command: a `str` is run by `sh -c`, a list as it is.
            name: to be shown; by default the command's first word, without its directory. Need not be unique.
            environment: added to the container's; a value may be a `Secret`.
            working_dir: absolute; by default the container's.
            user: who runs it; by default the container's user. Another one needs a container whose user is root.
            stdin: give it an input for `write_stdin`. By default it finds its input empty.

        Raises:
            InvalidInput: a value cannot be right, or there is no such user or directory; nothing was run.
            ProcessFailedToStart: its program cannot be run: there is none of that name, or it is no program.
            AgentUnavailable: commands go through the engine's exec in this container.
            ContainerNotRunning: the container is stopped or paused.
            CommandInterrupted: the container or the engine ended meanwhile; it may run.
        """
        request = CommandRequest.checked(command, working_dir=working_dir, environment=environment, user=user)
        shown = check_name(default_name(command) if name is None else name)
        if not isinstance(stdin, bool):
            raise InvalidInput(f"stdin={_checks.shown(stdin)}: pass True to write to the process, else False")
        import uuid  # late: it looks for the platform's way to make one

        id = str(uuid.uuid4())
        row = self._place.use(
            lambda background: background.start(
                id,
                request.argv,
                note=to_note(shown, command),
                environment=request.environment,
                working_dir=request.working_dir,
                user=request.user,
                with_input=stdin,
            )
        )
        process = Process(
            id=id,
            pid=row.pid,
            name=shown,
            command=command if isinstance(command, str) else list(command),
            status=ProcessStatus.RUNNING,
            exit_code=None,
            ports=None if row.ports is None else list(row.ports),
            started_at=row.started_at,
        )
        with self._lock:
            self._known[id] = process
            self._started.add(id)
        return process

    def _repeat(self, action: Callable[[BackgroundProcesses], T]) -> T:
        """Do what may be done twice: once more, where the channel broke under it."""
        try:
            return self._place.use(action)
        except CommandInterrupted:
            return self._place.use(action)

    # --- looking ------------------------------------------------------------------------------------

    def get_process(self, id: str) -> Process:
        """Look at a process, and give its object: always the same one for an id.

        One that the container does not know any more, because it was made anew, is `LOST` where it was not seen to end.
        """
        check_process_id(id)
        try:
            row = self._repeat(lambda background: background.look(id))
        except ProcessNotFound:
            with self._lock:
                if id not in self._known:
                    raise
                return _vanished(self._known[id])
        return self._note(row)

    def get_status(self, id: str) -> ProcessStatus:
        """Look at a process, and give how it is."""
        return self.get_process(id).status

    def is_running(self, id: str) -> bool:
        """Look at a process, and say whether it has not ended; a paused one has not."""
        return self.get_process(id).is_running

    def list_processes(self) -> list[Process]:
        """Look at all processes, and give those that the container knows, whoever has started them, oldest first.

        Those of before a restart of the container are among them; those of a container that was made anew are not.
        """
        with self._lock:
            before = set(self._known)
        found = [self._note(row) for row in self._repeat(lambda background: background.look_at_all())]
        ids: Collection[str] = {process.id for process in found}
        with self._lock:
            for id in before - set(ids):
                if id in self._started and id in self._known:
                    _vanished(self._known[id])
                else:  # whoever may write there may name as many as they like
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

    # --- what it prints -----------------------------------------------------------------------------

    def get_logs(self, id: str) -> dict[str, str]:
        """Give all that is kept of what a process printed, as `{"stdout": ..., "stderr": ...}`.

        Bytes that are not UTF-8 appear as U+FFFD. Also after its end, and after a restart of the container.
        """
        check_process_id(id)
        return {name: self._read(id, name, offset=0, max_bytes=LOG_MAX_BYTES).text for name in get_args(StreamName)}

    def read_log(
        self, id: str, stream: StreamName = "stdout", *, offset: int = 0, max_bytes: int = PIECE_BYTES
    ) -> LogPiece:
        """Give a piece of what a process printed; without bytes where there are none at that place yet.

        Args:
            id: of the process.
            stream: `"stdout"` or `"stderr"`.
            offset: of the first byte, in all that it printed; a negative one counts from the end. Where older output
                was dropped, the piece begins later: see its `offset`.
            max_bytes: the most to give.
        """
        check_process_id(id)
        _check_stream(stream)
        if type(offset) is not int or abs(offset) > _OFFSET_MAX:
            raise InvalidInput(f"offset={_checks.shown(offset)}: pass a whole number of bytes")
        size = min(_checks.check_size(max_bytes, "max_bytes"), LOG_MAX_BYTES)
        return self._read(id, stream, offset=offset, max_bytes=size)

    def follow_log(self, id: str, stream: StreamName = "stdout", *, offset: int = 0) -> Iterator[str]:
        """Give the text that a process prints, as it comes, until neither it nor what it has started runs.

        Where it prints more than is kept while nobody reads, the oldest of that is missing.

        Args:
            id: of the process.
            stream: `"stdout"` or `"stderr"`.
            offset: where to begin, as in `read_log`.

        Each iteration blocks until something is printed; the container's lifetime does not end meanwhile.
        """
        piece = self.read_log(id, stream, offset=offset, max_bytes=PIECE_BYTES)
        return self._follow(id, stream, piece)

    def _follow(self, id: str, stream: StreamName, piece: LogPiece) -> Iterator[str]:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while piece.data or not piece.ended:
            if text := decoder.decode(piece.data):
                yield text
            piece = self._read(id, stream, offset=piece.next_offset, max_bytes=PIECE_BYTES, wait=_FOLLOW_SECONDS)
        if text := decoder.decode(b"", final=True):
            yield text

    def _read(self, id: str, stream: str, *, offset: int, max_bytes: int, wait: float = 0) -> LogPiece:
        found = self._repeat(
            lambda background: background.read(id, stream, offset=offset, max_bytes=max_bytes, wait=wait)
        )
        return LogPiece(found.data, found.offset, found.ended)

    # --- acting on it -------------------------------------------------------------------------------

    def write_stdin(self, id: str, data: str | bytes, timeout: float = STOP_SECONDS) -> int:
        """Write to a process that was started with `stdin=True`, text as UTF-8.

        Args:
            id: of the process.
            data: what to write.
            timeout: how many seconds to wait for it to read.

        Returns:
            How many bytes its pipe took: all, unless it did not read in time.

        Raises:
            BrokenPipeError: it has no input, it reads no more, or it has ended.
        """
        check_process_id(id)
        content, seconds = _checks.check_content(data, "data"), _check_seconds(timeout)
        return self._place.use(lambda background: background.write(id, content, seconds))

    def close_stdin(self, id: str) -> None:
        """Let a process that was started with `stdin=True` read the end of its input; twice is harmless."""
        check_process_id(id)

        def close(background: BackgroundProcesses) -> None:
            with suppress(BrokenPipeError):
                background.end_input(id)

        self._repeat(close)

    def send_signal(self, id: str, number: int | str) -> None:
        """Send a signal to the process group of a process; nothing happens where it has ended.

        Args:
            id: of the process.
            number: such as `signal.SIGINT`, 2, `"SIGINT"`, `"INT"` or `"int"`.
        """
        check_process_id(id)
        checked = check_signal(number)
        self._place.use(lambda background: background.signal(id, checked))

    def stop_process(self, id: str, timeout: float = STOP_SECONDS, force: bool = False) -> bool:  # noqa: FBT001, FBT002
        """End a process with all that it has started, and wait until nothing of that runs.

        Each gets a SIGTERM first, and a SIGKILL once the timeout is over: also those that left its process group. Twice
        is harmless, and so is one that has ended already: what it left running is ended.

        Args:
            id: of the process.
            timeout: seconds from SIGTERM to SIGKILL.
            force: send the SIGKILL at once.

        Returns:
            Whether nothing of it runs any more. False where the kernel does not let go of something within some
            seconds, and where it is `LOST` in a container that still runs: then nobody knows what it had started.
        """
        check_process_id(id)
        milliseconds = 0 if force else round(_check_seconds(timeout) * 1000)
        try:
            row = self._repeat(lambda background: background.stop(id, milliseconds))
        except ProcessNotFound:
            self.get_process(id)  # one of a container that was made anew is no error
            return True
        self._note(row)
        return row.left is Left.NOTHING

    def remove_process(self, id: str) -> None:
        """Forget a process that has ended, with its logs; one that is forgotten already is no error.

        Raises:
            InvalidInput: it, or what it has started, still runs.
        """
        check_process_id(id)
        with suppress(ProcessNotFound):
            self._repeat(lambda background: background.remove(id))
        with self._lock:
            self._known.pop(id, None)
            self._started.discard(id)

    def __repr__(self) -> str:
        return f"ProcessManager(user_id={self.user_id!r}, session_id={self.session_id!r})"


def _vanished(process: Process) -> Process:
    """Note that the container does not know a process any more."""
    if process.is_running:
        process.status, process.ports = ProcessStatus.LOST, None
    process.descendants = 0
    return process


def check_process_id(id: object) -> str:
    """Accept the id of a process."""
    text = _checks.check_text(id, "id")
    if not _UUID.fullmatch(text):
        raise InvalidInput(f"id={_checks.shown(text)} is no process's: pass the id of a Process, a UUID")
    return text


def check_name(value: object) -> str:
    """Accept a name to be shown: a line of text of 1 to 200 bytes."""
    name = _checks.check_text(value, "name")
    if not name or not name.isprintable() or len(name.encode()) > NAME_MAX_BYTES:
        raise InvalidInput(
            f"name={_checks.shown(name)}: pass 1 to {NAME_MAX_BYTES} bytes of text without control characters"
        )
    return name


def _check_stream(value: object) -> None:
    if value not in get_args(StreamName):
        raise InvalidInput(f"stream={_checks.shown(value)}: pass 'stdout' or 'stderr'")


def _check_seconds(value: object) -> float:
    seconds = _checks.check_age(value, "timeout")
    if isinstance(value, bool) or seconds > _LONGEST_SECONDS:
        raise InvalidInput(f"timeout={_checks.shown(value)}: pass seconds, at most {_LONGEST_SECONDS:g}")
    return seconds
