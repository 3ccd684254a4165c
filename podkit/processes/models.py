"""Background processes as callers see them, and their notes."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from podkit.agent.processes import NOTE_MAX_BYTES, Left, Row, State
from podkit.processes._names import is_name

_STOPPED_UNDER_IT = "its container was stopped or restarted under it"
_KEEPER_KILLED = "its keeper was killed inside the container"
_FORGOTTEN = "its container was made anew, or has forgotten it"
_CUT = "…"
_WORDS_MAX = 100  # the container's note may be hostile, and many short strings take much memory


class ProcessStatus(StrEnum):
    """The state of a background process.

    It is that of its own process, whatever that has started. A signal that ends it makes it `FAILED`, with an exit code
    of 128 and the signal's number: also the one of `stop_process`.
    """

    RUNNING = "running"
    PAUSED = "paused"
    """It was stopped, such as by SIGSTOP or a debugger; SIGCONT lets it go on."""
    STOPPED = "stopped"
    """It ended with 0."""
    FAILED = "failed"
    """It ended with anything else."""
    LOST = "lost"
    """Nobody knows how it ended: see `Process.failure_reason`."""


@dataclass(eq=False, kw_only=True, slots=True)
class Process:
    """A background process, as last seen. Each look updates the same object.

    Attributes:
        id: a UUID, chosen by podkit.
        pid: its number inside the container.
        name: as given at the start, else the program's.
        command: as given at the start; the end is missing where it has more than some thousand characters.
        status: its state.
        exit_code: 128 + n after signal n; `None` while it runs, and where it is lost.
        failure_reason: why it is `LOST`; else `None`.
        ports: the TCP ports that its tree listens on; `None` if unknown.
        started_at: UTC, by the engine's clock.
        ended_at: the same; `None` as `exit_code`.
        descendants: how many processes that it has started run; they may run on after its end.
    """

    id: str
    pid: int
    name: str
    command: str | list[str]
    status: ProcessStatus
    exit_code: int | None
    ports: list[int] | None
    started_at: datetime
    ended_at: datetime | None = None
    descendants: int = 0
    failure_reason: str | None = None

    @property
    def display_name(self) -> str:
        """The name and the id's first 8 characters."""
        return f"{self.name} ({self.id[:8]})"

    @property
    def is_running(self) -> bool:
        """Whether it ran when last seen. A paused one does."""
        return self.status in (ProcessStatus.RUNNING, ProcessStatus.PAUSED)


@dataclass(frozen=True, slots=True)
class LogPiece:
    """A piece of a process's output.

    Attributes:
        data: the bytes.
        offset: of the first of them in all that was printed; later than asked for where older bytes were dropped.
        ended: whether nothing will follow: the process and its whole tree have ended.
    """

    data: bytes
    offset: int
    ended: bool

    @property
    def next_offset(self) -> int:
        """The offset to read on from."""
        return self.offset + len(self.data)

    @property
    def text(self) -> str:
        """The bytes as text. All that is not UTF-8 appears as U+FFFD."""
        return self.data.decode("utf-8", "replace")


def to_note(name: str, command: str | list[str]) -> bytes:
    """Encode a process's note for a later podkit, cut to its limit."""
    kept = command
    while True:
        note = json.dumps({"name": name, "command": kept}).encode()
        if len(note) <= NOTE_MAX_BYTES:
            return note
        text = kept if isinstance(kept, str) else " ".join(kept)
        kept = text[: min(len(text) - 1, NOTE_MAX_BYTES) // 2] + _CUT


def from_note(row: Row) -> tuple[str, str | list[str]]:
    """Decode name and command. Nonsense becomes the id's first 8 characters and an empty command."""
    try:
        note = json.loads(row.note)
    except (ValueError, RecursionError):
        note = None
    known = note if isinstance(note, dict) else {}
    name, command = known.get("name"), known.get("command")
    if isinstance(command, list) and all(isinstance(part, str) for part in command):
        words = [_valid(part) for part in command]
        return _name(name, row), words if len(words) <= _WORDS_MAX else " ".join(words)
    return _name(name, row), _valid(command) if isinstance(command, str) else ""


def _name(name: object, row: Row) -> str:
    return name if isinstance(name, str) and is_name(name) else row.id[:8]


def _valid(text: str) -> str:
    """Return text without halves of surrogate pairs."""
    return text.encode(errors="replace").decode()


def to_process(row: Row) -> Process:
    """Return the object of another podkit's process."""
    name, command = from_note(row)
    process = Process(
        id=row.id,
        pid=row.pid,
        name=name,
        command=command,
        status=ProcessStatus.RUNNING,
        exit_code=None,
        ports=None,
        started_at=row.started_at,
    )
    bring_up_to_date(process, row)
    return process


def bring_up_to_date(process: Process, row: Row) -> None:
    """Update a process's object."""
    process.pid = row.pid
    process.started_at = row.started_at
    process.exit_code = row.exit_code
    process.ended_at = row.ended_at
    process.ports = None if row.ports is None else list(row.ports)
    process.descendants = row.descendants
    process.status = _status(row)
    process.failure_reason = None
    if row.state is State.LOST:
        process.failure_reason = _STOPPED_UNDER_IT if row.left is Left.NOTHING else _KEEPER_KILLED


def vanish(process: Process) -> Process:
    """Mark a process that the container forgot, and return it."""
    if process.is_running:
        process.status, process.ports, process.failure_reason = ProcessStatus.LOST, None, _FORGOTTEN
    process.descendants = 0
    return process


def _status(row: Row) -> ProcessStatus:
    if row.state is State.ENDED:
        return ProcessStatus.STOPPED if row.exit_code == 0 else ProcessStatus.FAILED
    return {
        State.RUNNING: ProcessStatus.RUNNING,
        State.PAUSED: ProcessStatus.PAUSED,
        State.LOST: ProcessStatus.LOST,
    }[row.state]
