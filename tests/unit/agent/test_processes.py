"""What the agent says of background processes: hostile input, parsed with bounds."""

from __future__ import annotations

import random
import struct
from datetime import UTC, datetime
from typing import Any

import pytest

from podkit.agent.processes import NOTE_MAX_BYTES, PROCESSES_MAX, Left, Row, State, parse_piece, parse_rows
from podkit.errors import ContainerError

ID = "01234567-89ab-cdef-0123-456789abcdef"
ROW = struct.Struct("<LLLLqqLLLL40s")
PORTS_AT, UNKNOWN = 40, 0xFFFF_FFFF


def row(ports: tuple[int, ...] = (), note: bytes = b"{}", **changes: Any) -> bytes:
    """A row as the agent writes it, but for the changes."""
    fields = {
        "size": ROW.size + 2 * len(ports) + len(note),
        "state": 1,
        "exit_code": 0,
        "pid": 7,
        "began": 1_000,
        "ended": 0,
        "descendants": 2,
        "left": 1,
        "ports": len(ports),
        "note": len(note),
        "id": ID.encode(),
    }
    return ROW.pack(*(fields | changes).values()) + struct.pack(f"<{len(ports)}H", *ports) + note


def test_a_row_is_read() -> None:
    assert parse_rows(row(ports=(80, 65535), note=b"note")) == [
        Row(
            id=ID,
            state=State.RUNNING,
            exit_code=None,
            pid=7,
            started_at=datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
            ended_at=None,
            descendants=2,
            left=Left.SOMETHING,
            ports=(80, 65535),
            note=b"note",
        )
    ]


def test_one_that_has_ended_has_an_exit_code_and_the_moment() -> None:
    [found] = parse_rows(row(state=3, exit_code=143, ended=2_500, left=0))
    assert (found.state, found.exit_code, found.left) == (State.ENDED, 143, Left.NOTHING)
    assert found.ended_at == datetime(1970, 1, 1, 0, 0, 2, 500_000, tzinfo=UTC)


def test_ports_that_nobody_could_look_at_are_not_known() -> None:
    data = bytearray(row(note=b"note"))
    struct.pack_into("<L", data, PORTS_AT, UNKNOWN)

    [found] = parse_rows(bytes(data))

    assert (found.ports, found.note) == (None, b"note")


def test_many_rows_are_read_in_order_and_none_is_none() -> None:
    assert [found.pid for found in parse_rows(row(pid=1) + row((80,), pid=2) + row(note=b"", pid=3))] == [1, 2, 3]
    assert parse_rows(b"") == []


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        row()[:-1],
        row() + b"x",
        row(size=1),
        row(size=ROW.size),
        row(size=0xFFFF_FFFF),
        row(note=b"x" * (NOTE_MAX_BYTES + 1000)),
        row(ports=(1,) * 300) + b"x" * 100_000,
        row(state=0),
        row(state=9),
        row(left=7),
        row(exit_code=256),
        row(began=-1),
        row(began=1 << 62),
        row(state=3, ended=-5),
        row(id=b"\xff" * 40),
        row(id=b""),
        row() * (PROCESSES_MAX + 1),
    ],
)
def test_what_cannot_be_right_is_an_error_of_the_container(data: bytes) -> None:
    with pytest.raises(ContainerError, match="cannot be right"):
        parse_rows(data)


def test_whatever_is_changed_in_an_answer_gives_rows_or_that_error() -> None:
    chance = random.Random(4)
    whole = row((80, 443), b'{"name": "x"}') + row(state=3, ended=5)
    for _ in range(20_000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.choice([0, 1, 255, chance.randrange(256)])
        del data[chance.choice([len(data), chance.randrange(len(data))]) :]
        try:
            parse_rows(bytes(data))
            parse_piece(bytes(data), "stdout")
        except ContainerError:
            continue


def test_a_piece_of_a_log_says_where_it_begins_and_whether_more_may_come() -> None:
    found = parse_piece(struct.pack("<QLL", 5, 1, 0) + b"bytes", "stdout")
    assert (found.offset, found.data, found.ended) == (5, b"bytes", True)


@pytest.mark.parametrize("data", [b"", b"x" * 15, struct.pack("<QLL", (1 << 64) - 1, 0, 0)])
def test_a_piece_that_cannot_be_right_is_an_error_of_the_container(data: bytes) -> None:
    with pytest.raises(ContainerError, match="cannot be right"):
        parse_piece(data, "stdout")
