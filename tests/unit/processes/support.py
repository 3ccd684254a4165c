"""A container whose background processes are a dict, in the place of an agent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta

from podkit.agent.processes import BackgroundProcesses, Left, Piece, Row, State
from podkit.core.manager import SimpleContainerManager
from podkit.errors import ProcessNotFound
from tests.unit.support import MOMENT


def make_row(id: str, **changes: object) -> Row:
    """A process that runs, but for the changes."""
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


class FakeBackground(BackgroundProcesses):
    """The processes of one container.

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

    def start(
        self,
        id: str,
        argv: Sequence[str],
        *,
        note: bytes,
        environment: Mapping[str, str],
        working_dir: str | None,
        user: str | None,
        with_input: bool,
    ) -> Row:
        self.asked.append(("start", argv, dict(environment), working_dir, user, with_input))
        moment = MOMENT - timedelta(seconds=len(self.rows))  # so that who is started later is older
        self.rows[id] = make_row(id, note=note, started_at=moment)
        return self.rows[id]

    def look_at_all(self) -> list[Row]:
        return list(self.rows.values())

    def look(self, id: str) -> Row:
        return self._find(id)

    def stop(self, id: str, milliseconds: int) -> Row:
        self.asked.append(("stop", milliseconds))
        row = self._find(id)
        if row.state is not State.LOST:
            self.rows[id] = replace(row, state=State.ENDED, exit_code=143, left=Left.NOTHING)
        return self.rows[id]

    def signal(self, id: str, number: int) -> None:
        self.asked.append(("signal", number))

    def remove(self, id: str) -> None:
        self._find(id)
        del self.rows[id]

    def read(self, id: str, stream: str, *, offset: int, max_bytes: int, wait: float = 0) -> Piece:
        row, whole = self._find(id), self.logs.get((id, stream), b"")
        return Piece(offset, whole[offset:][:max_bytes], row.left is Left.NOTHING)

    def end_input(self, id: str) -> None:
        raise BrokenPipeError


class OneBackground(SimpleContainerManager):
    """A container manager whose containers all have the same background processes, until they are replaced."""

    inside: FakeBackground

    def background(self, container_id: str) -> BackgroundProcesses:
        return self.inside
