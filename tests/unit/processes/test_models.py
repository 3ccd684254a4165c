"""What a container keeps of a process for a later podkit, and what comes back of it."""

from __future__ import annotations

from typing import Any

import pytest

from podkit.agent.processes import NOTE_MAX_BYTES
from podkit.processes.models import LogPiece, from_note, to_note
from tests.unit.processes.support import make_row

ID = "01234567-89ab-cdef-0123-456789abcdef"


@pytest.mark.parametrize("command", ["echo 'ünï' \\ \n", ["a b", "", "--c=\u2028"], "x" * 8000])
def test_a_command_comes_back_as_it_was_given(command: Any) -> None:
    assert from_note(make_row(ID, note=to_note("näme", command))) == ("näme", command)


@pytest.mark.parametrize(
    "command", ["x" * 100_000, "\n" * 100_000, "🙂" * 30_000, ["echo", "y" * 200_000], ["a"] * 50_000]
)
def test_a_long_one_is_cut_to_what_the_container_keeps(command: Any) -> None:
    note = to_note("n", command)
    assert len(note) <= NOTE_MAX_BYTES
    name, kept = from_note(make_row(ID, note=note))
    assert name == "n"
    assert isinstance(kept, str)
    assert kept.endswith("…")
    assert (command if isinstance(command, str) else " ".join(command)).startswith(kept[:-1])
    assert len(kept) > 500


@pytest.mark.parametrize(
    "note",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"5",
        b"{",
        b"[" * 16_000,
        b'{"name": 5, "command": {}}',
        b'{"command": ["a", 1]}',
    ],
)
def test_a_note_that_was_changed_into_nonsense_is_an_empty_command(note: bytes) -> None:
    assert from_note(make_row(ID, note=note)) == (ID[:8], "")


def test_half_of_a_surrogate_pair_does_not_come_back() -> None:
    name, command = from_note(make_row(ID, note=b'{"name": "a\\ud800", "command": ["\\udfff"]}'))
    assert (name, command) == (ID[:8], ["?"])


def test_a_piece_says_where_to_read_on() -> None:
    piece = LogPiece("ü".encode() + b"\xff", 10, ended=False)
    assert (piece.next_offset, piece.text) == (13, "ü�")
