"""A container whose background processes are a dict, in the place of an agent."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from podkit.agent.command_request import CommandRequest
from podkit.agent.processes import ContainerProcesses, Left, Piece, Row, State
from podkit.core.manager import SimpleContainerManager
from podkit.errors import ProcessNotFound
from podkit.utils._deadline import NEVER, Deadline

MOMENT = datetime(2026, 1, 1, tzinfo=UTC)


def make_row(id: str, **changes: object) -> Row:
    """Return a process that runs, but for the changes."""
    row = Row(
        id=id,
        state=State.RUNNING,
        exit_code=None,
        pid=7,
        started_at=MOMENT,
        ended_at=None,
        descendants=0,
        left=Left.SOMETHING,
        ports=(),
        note=b'{"name": "n", "command": "c"}',
    )
    return replace(row, **changes)  # type: ignore[arg-type]  # whatever the test wants


class FakeProcesses(ContainerProcesses):
    """The same processes in every container.

    Attributes:
        rows: what there is, by id; a test may change it.
        logs: what they have printed, by id and stream.
        asked: the questions, with their arguments.
    """

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.logs: dict[tuple[str, str], bytes] = {}
        self.asked: list[tuple[object, ...]] = []

    def _find(self, id: str) -> Row:
        if id not in self.rows:
            raise ProcessNotFound(id)
        return self.rows[id]

    def start(self, container_id: str, id: str, command: CommandRequest, *, note: bytes, with_input: bool) -> Row:
        asked = command.argv, dict(command.environment), command.working_dir, command.user, with_input
        self.asked.append(("start", *asked))
        moment = MOMENT - timedelta(seconds=len(self.rows))  # so that who is started later is older
        self.rows[id] = make_row(id, note=note, started_at=moment)
        return self.rows[id]

    def look_at_all(self, container_id: str) -> list[Row]:
        return list(self.rows.values())

    def look(self, container_id: str, id: str, *, wait: float = 0, deadline: Deadline = NEVER) -> Row:
        if wait:
            self.asked.append(("wait", wait))
        return self._find(id)

    def stop(self, container_id: str, id: str, milliseconds: int) -> Row:
        self.asked.append(("stop", milliseconds))
        row = self._find(id)
        if row.state is not State.LOST:
            self.rows[id] = replace(row, state=State.ENDED, exit_code=143, left=Left.NOTHING)
        return self.rows[id]

    def signal(self, container_id: str, id: str, number: int) -> None:
        self.asked.append(("signal", number))

    def remove(self, container_id: str, id: str) -> None:
        self._find(id)
        del self.rows[id]

    def read(self, container_id: str, id: str, stream: str, *, offset: int, max_bytes: int, wait: float = 0) -> Piece:
        row, whole = self._find(id), self.logs.get((id, stream), b"")
        return Piece(offset, whole[offset:][:max_bytes], row.left is Left.NOTHING)

    def end_input(self, container_id: str, id: str) -> None:
        raise BrokenPipeError


class FakeProcessesManager(SimpleContainerManager):
    """A container manager whose containers all have the same processes.

    Attributes:
        inside: those processes.
    """

    inside: FakeProcesses

    @property
    def processes(self) -> ContainerProcesses:
        return self.inside
