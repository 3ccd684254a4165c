"""Background processes inside a container, through `native/background.c`.

The agent starts a keeper for each process, which outlives the channel, podkit and the network. Its files lie in
the container, where its users can change them: every answer is parsed as hostile input, with bounds.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any, NoReturn

from podkit.agent.agent_command import StillRunning
from podkit.agent.command_output import Outcome
from podkit.agent.command_request import CommandRequest
from podkit.agent.communicate import communicate
from podkit.agent.protocol import Failure
from podkit.agent.runner import Runner, latest
from podkit.agent.start_failure import why_no_program, why_not_started
from podkit.errors import (
    CommandInterrupted,
    ContainerError,
    EngineTimeout,
    InvalidInput,
    ProcessFailedToStart,
    ProcessNotFound,
)
from podkit.utils._deadline import NEVER, Deadline, wait_until

NOTE_MAX_BYTES = 16 << 10
PROCESSES_MAX = 1024
"""The most that one answer lists."""

_ANSWER_SECONDS = 20.0  # the answer takes a millisecond
_KILL_SECONDS = 5.0
_ROW = struct.Struct("<LLLLqqLLLL40s")
_PIECE = struct.Struct("<QLL")
_WHY = struct.Struct("<ll")
_TAKEN = struct.Struct("<Q")
_ID_LENGTH = 36
_ID = re.compile(r"[0-9a-f-]{36}")
_PORTS_MAX = 256
_ROW_MAX_BYTES = _ROW.size + _PORTS_MAX * 2 + NOTE_MAX_BYTES
_UNKNOWN = 0xFFFF_FFFF
_OFFSET_MAX = (1 << 63) - 1
_LATEST_MS = 253_402_300_799_000  # the end of the year 9999, as far as Python goes


class _Result(IntEnum):
    DONE = 0
    NO_SUCH = 65
    NO_PLACE = 66
    NOT_STARTED = 67
    NO_INPUT = 68
    STILL_RUNS = 69
    NO_ANSWER = 70


class State(IntEnum):
    """The state of a process."""

    RUNNING = 1
    PAUSED = 2
    ENDED = 3
    LOST = 4


class Left(IntEnum):
    """Whether anything of a process's tree runs."""

    NOTHING = 0
    SOMETHING = 1
    UNKNOWN = 2


_STATES, _LEFT = frozenset(State), frozenset(Left)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One process, as the agent sees it.

    Attributes:
        id: chosen by podkit.
        state: of the process itself.
        exit_code: `None` while it runs, and where it is lost.
        pid: inside the container.
        started_at: UTC.
        ended_at: `None` as for `exit_code`.
        descendants: how many processes that it has started run.
        left: whether it or any of those runs.
        ports: the TCP ports that it or any of those listens on; `None` where that is not known.
        note: podkit's, of its start; it may have been changed.
    """

    id: str
    state: State
    exit_code: int | None
    pid: int
    started_at: datetime
    ended_at: datetime | None
    descendants: int
    left: Left
    ports: tuple[int, ...] | None
    note: bytes


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a log.

    Attributes:
        offset: of its first byte.
        data: the bytes.
        ended: whether nothing follows, now or ever.
    """

    offset: int
    data: bytes
    ended: bool


def parse_rows(data: bytes) -> list[Row]:
    """Read the rows of an answer.

    Raises:
        ContainerError: no agent of ours says this.
    """
    rows: list[Row] = []
    at = 0
    while at < len(data):
        if len(data) - at < _ROW.size or len(rows) == PROCESSES_MAX:
            raise _nonsense(f"{len(data) - at} bytes too many")
        fields = _ROW.unpack_from(data, at)
        size, ports, note = fields[0], fields[8], fields[9]
        listed = 0 if ports == _UNKNOWN else ports
        if size != _ROW.size + listed * 2 + note or size > _ROW_MAX_BYTES or size > len(data) - at:
            raise _nonsense(f"a row of {size} bytes")
        rows.append(_row(fields, data[at + _ROW.size : at + size]))
        at += size
    return rows


def _row(fields: tuple[Any, ...], rest: bytes) -> Row:
    _, state, exit_code, pid, began, ended, descendants, left, ports, _, id = fields
    text = id[:_ID_LENGTH].decode(errors="replace")
    if not _ID.fullmatch(text) or state not in _STATES or left not in _LEFT or exit_code > 255:
        raise _nonsense(f"state {state}, exit code {exit_code} of {text!r}")
    split = 0 if ports == _UNKNOWN else ports * 2
    has_ended = state == State.ENDED
    return Row(
        id=text,
        state=State(state),
        exit_code=exit_code if has_ended else None,
        pid=pid,
        started_at=_moment(began),
        ended_at=_moment(ended) if has_ended else None,
        descendants=descendants,
        left=Left(left),
        ports=None if ports == _UNKNOWN else struct.unpack(f"<{ports}H", rest[:split]),
        note=rest[split:],
    )


def _moment(milliseconds: int) -> datetime:
    if not 0 <= milliseconds <= _LATEST_MS:
        raise _nonsense(f"a time of {milliseconds} ms")
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def parse_piece(data: bytes, stream: str) -> Piece:
    """Read a piece of a log. Raises as `parse_rows`."""
    if len(data) < _PIECE.size:
        raise _nonsense(f"{len(data)} bytes of {stream}")
    offset, ended, _ = _PIECE.unpack_from(data)
    if offset + len(data) > _OFFSET_MAX:
        raise _nonsense(f"the offset {offset}")
    return Piece(offset, data[_PIECE.size :], bool(ended))


def _nonsense(what: str) -> ContainerError:
    return ContainerError(f"the container's answer about its background processes cannot be right: {what}")


class ContainerProcesses:
    """The background processes in the containers of one engine.

    Safe to use from many threads. Every method blocks until the agent has answered, and raises, besides the errors
    listed there:

    - `NotSupported` where the container has no agent;
    - `ContainerNotFound` and `ContainerNotRunning` before anything was sent;
    - `CommandInterrupted` where the container or the engine ended meanwhile; the request may have succeeded;
    - `ProcessNotFound` where there is no such process;
    - `EngineTimeout` where nothing answers before the deadline, 20 s where there is none;
    - `ContainerError` where the keeper does not answer, or its answer cannot be right.
    """

    def __init__(self, runner: Runner) -> None:
        self._runner = runner

    def start(
        self,
        container_id: str,
        id: str,
        command: CommandRequest,
        *,
        note: bytes,
        with_input: bool,
    ) -> Row:
        """Start a process. Only `argv`, `environment`, `working_dir` and `user` count.

        Raises:
            InvalidInput: there is no such user or directory, or the command is too long.
            ProcessFailedToStart: its program cannot be run.
        """
        argv = ["start", id, note.decode(), command.user or "", str(int(with_input)), *command.argv]
        outcome = self._ask(container_id, argv, working_dir=command.working_dir, environment=command.environment)
        if outcome.exit_code == _Result.NOT_STARTED:
            _not_started(command, outcome.stdout.data)
        [row] = self._rows(outcome, id, limit=1)
        return row

    def look_at_all(self, container_id: str) -> list[Row]:
        """Look at all processes that the container knows."""
        outcome = self._ask(container_id, ["list"], max_output_bytes=_ROW_MAX_BYTES * PROCESSES_MAX)
        return self._rows(outcome, "", limit=PROCESSES_MAX)

    def look(self, container_id: str, id: str, *, wait: float = 0, deadline: Deadline = NEVER) -> Row:
        """Look at one process, waiting `wait` seconds for its end."""
        argv = ["look", id, str(round(wait * 1000))]
        [row] = self._rows(self._ask(container_id, argv, wait=wait, deadline=deadline), id, limit=1)
        return row

    def stop(self, container_id: str, id: str, milliseconds: int) -> Row:
        """End a process's tree and look at it. SIGKILL follows after so many milliseconds."""
        seconds = milliseconds / 1000
        deadline = Deadline.after(seconds + _KILL_SECONDS)
        found: list[Row] = []

        def stopped() -> bool:
            try:
                argv = ["stop", id, str(milliseconds)]
                outcome = self._ask(container_id, argv, wait=seconds, deadline=latest(seconds + _KILL_SECONDS))
                found[:] = self._rows(outcome, id, limit=1)
            except ContainerError as exc:
                # where it has left no process to be made, the agent itself tells its keeper, and can say more soon
                if type(exc) is not ContainerError or deadline.expired:
                    raise
            return bool(found)

        return found[0] if wait_until(stopped, deadline=deadline) else self.look(container_id, id)

    def signal(self, container_id: str, id: str, number: int) -> None:
        """Signal a process's group. Harmless once it has ended."""
        self._check(self._ask(container_id, ["signal", id, str(number)]), id)

    def remove(self, container_id: str, id: str) -> None:
        """Forget a process that has ended.

        Raises:
            InvalidInput: it, or a child of it, still runs.
        """
        outcome = self._ask(container_id, ["remove", id])
        if outcome.exit_code == _Result.STILL_RUNS:
            raise InvalidInput(f"process {id!r}, or a child of it, still runs: stop it first")
        self._check(outcome, id)

    def read(self, container_id: str, id: str, stream: str, *, offset: int, max_bytes: int, wait: float = 0) -> Piece:
        """Read a log, waiting `wait` seconds for output. A negative offset counts from the end."""
        number = {"stdout": "1", "stderr": "2"}[stream]
        argv = ["log", id, number, str(offset), str(max_bytes), str(round(wait * 1000))]
        outcome = self._ask(container_id, argv, wait=wait, max_output_bytes=_PIECE.size + max_bytes)
        self._check(outcome, id)
        piece = parse_piece(outcome.stdout.data, stream)
        return replace(piece, ended=piece.ended and len(piece.data) < max_bytes)  # else there may be more

    def write(self, container_id: str, id: str, data: bytes, wait: float, *, deadline: Deadline = NEVER) -> int:
        """Write to a process's input. Returns the bytes taken within `wait` seconds.

        Raises:
            BrokenPipeError: it reads no input.
        """
        argv = ["input", id, str(round(wait * 1000))]
        outcome = self._ask(container_id, argv, wait=wait, input=data, deadline=deadline)
        self._check(outcome, id)
        if len(outcome.stdout.data) != _TAKEN.size:
            raise _nonsense(f"{len(outcome.stdout.data)} bytes about its input")
        (taken,) = _TAKEN.unpack(outcome.stdout.data)
        return min(int(taken), len(data))

    def end_input(self, container_id: str, id: str) -> None:
        """Let a process read the end of its input.

        Raises:
            BrokenPipeError: it reads no input.
        """
        self._check(self._ask(container_id, ["end-input", id]), id)

    # --- asking -------------------------------------------------------------------------------------

    def _ask(
        self,
        container_id: str,
        argv: Sequence[str],
        *,
        working_dir: str | None = "/",
        environment: Mapping[str, str] | None = None,
        wait: float = 0,
        input: bytes | None = None,
        max_output_bytes: int = _ROW_MAX_BYTES,
        deadline: Deadline = NEVER,
    ) -> Outcome:
        request = CommandRequest(
            argv=["process", *argv],
            working_dir=working_dir,
            environment=environment or {},
            timeout=wait + _ANSWER_SECONDS,
            input=input,
            max_output_bytes=max_output_bytes,
            built_in=True,
        )
        deadline = deadline.sooner(latest(request.timeout))
        execution = self._runner.prepare(container_id, request, deadline)
        try:
            return communicate(execution, deadline)
        except StillRunning:
            raise EngineTimeout("the container did not answer in time; where its engine does, try again") from None

    def _rows(self, outcome: Outcome, id: str, *, limit: int) -> list[Row]:
        self._check(outcome, id)
        rows = parse_rows(outcome.stdout.data)
        if len(rows) > limit or (id and [row.id for row in rows] != [id]):
            raise _nonsense(f"{len(rows)} rows")
        return rows

    def _check(self, outcome: Outcome, id: str) -> None:
        code = outcome.exit_code
        if outcome.container_restarted:
            raise CommandInterrupted("the container was restarted under it: something inside had ended podkit's agent")
        if outcome.timed_out or code == _Result.NO_ANSWER:
            raise ContainerError(f"the keeper of process {id!r} does not answer: somebody in the container stopped it")
        if code == _Result.NO_SUCH:
            raise ProcessNotFound(
                f"the container knows no background process {id!r}: it was removed, or forgotten, or the "
                "container was made anew"
            )
        if code == _Result.NO_INPUT:
            known = "it has ended, its input was closed, or it was started without stdin=True"
            raise BrokenPipeError(errno.EPIPE, f"process {id!r} reads no input: {known}")
        if code == _Result.NO_PLACE:
            why = _why(outcome.stdout.data)[1]
            raise ContainerError(
                f"the container has no room for the files of process {id!r}: {os.strerror(why)}; "
                "it needs /run, /tmp or /dev/shm to be writable for the container's user"
            )
        if code or outcome.stdout.truncated:
            raise ContainerError(f"the agent in the container ended with exit code {code}")


def _why(data: bytes) -> tuple[int, int]:
    if len(data) != _WHY.size:
        raise _nonsense(f"{len(data)} bytes about an error")
    failure, error = _WHY.unpack(data)
    return failure, error


def _not_started(command: CommandRequest, data: bytes) -> NoReturn:
    failure, error = _why(data)
    if failure == Failure.NO_USER and error == errno.EPERM:
        raise InvalidInput(
            f"the process cannot run as user {command.user!r}: the container's own user is not root, and becomes no "
            "other; name no user, or make the session with that one"
        )
    if failure == Failure.NO_PROGRAM and error != errno.E2BIG:
        code, why = why_no_program(command.argv[0], error)
        raise ProcessFailedToStart(why, exit_code=code)
    raise why_not_started(command, failure, error)
