"""The records of the agent's part for files: what is taken, and what is refused."""

from __future__ import annotations

import itertools
import random
import stat
import struct
import tracemalloc

import pytest

from podkit.agent.file_records import (
    PIECE_BYTES,
    Entry,
    Mark,
    Record,
    RecordDecoder,
    RecordViolation,
    Refused,
    encode_data_header,
    encode_entry,
    encode_mark,
)
from tests.support import corpus

FILE = Entry(b"a/b", stat.S_IFREG | 0o644, 3, 1_700_000_000, 5, 1000, 1001)
LINK = Entry(b"l", stat.S_IFLNK | 0o777, link=b"where to")
DIRECTORY = Entry(b"", stat.S_IFDIR | 0o755)
REFUSED = struct.pack("<LB3xlQ", 12 + 3, 5, 28, 1 << 40) + b"a/b"
STREAM = b"".join(
    [
        encode_entry(DIRECTORY),
        encode_entry(LINK),
        encode_entry(FILE),
        encode_data_header(3) + b"abc",
        encode_mark(Mark.END),
        encode_mark(Mark.DONE),
    ]
)


def raw(type: int, length: int) -> bytes:
    return struct.pack("<LB3x", length, type)


def decoded(*pieces: bytes, with_data: bool = True) -> list[Record]:
    decoder = RecordDecoder(with_data=with_data)
    found: list[Record] = []
    for piece in pieces:
        for record in decoder.feed(piece):
            found.append(bytes(record) if isinstance(record, memoryview) else record)  # type: ignore[arg-type]
    return found


def test_a_stream_becomes_its_records() -> None:
    assert decoded(STREAM) == [DIRECTORY, LINK, FILE, b"abc", Mark.END, Mark.DONE]


def test_it_does_not_matter_how_a_stream_is_cut() -> None:
    pieces = [STREAM[at : at + 1] for at in range(len(STREAM))]
    assert decoded(*pieces) == [DIRECTORY, LINK, FILE, b"a", b"b", b"c", Mark.END, Mark.DONE]


def test_data_is_given_before_all_of_it_has_come() -> None:
    assert decoded(encode_entry(FILE), encode_data_header(3) + b"ab") == [FILE, b"ab"]


def test_a_refusal_has_its_numbers_and_its_path() -> None:
    assert decoded(encode_entry(FILE), REFUSED) == [FILE, Refused(28, 1 << 40, b"a/b")]


def test_entries_without_data_follow_each_other() -> None:
    assert decoded(encode_entry(FILE) * 2 + encode_mark(Mark.DONE), with_data=False) == [FILE, FILE, Mark.DONE]


@pytest.mark.parametrize(
    "data",
    {
        "an unknown type": raw(9, 0),
        "no type": raw(0, 0),
        "an entry of 4 GiB": raw(1, 0xFFFF_FFFF),
        "a large entry": raw(1, 9000),
        "data of 4 GiB": encode_entry(FILE) + raw(2, 0xFFFF_FFFF),
        "large data": encode_entry(FILE) + raw(2, PIECE_BYTES + 1),
        "data of nothing": encode_entry(FILE) + raw(2, 0),
        "data without a file": raw(2, 3),
        "data of a directory": encode_entry(DIRECTORY) + raw(2, 3),
        "an end without a file": raw(3, 0),
        "a file in a file": encode_entry(FILE) * 2,
        "done in a file": encode_entry(FILE) + raw(4, 0),
        "an end with something in it": encode_entry(FILE) + raw(3, 1) + b"x",
        "more after the end": raw(4, 0) * 2,
        "more after a refusal": REFUSED + raw(4, 0),
        "a refusal without its numbers": raw(5, 11) + bytes(11),
        "an entry that is too short": raw(1, 10) + bytes(10),
        "an entry without texts": raw(1, 32) + bytes(32),
        "an entry with one text": raw(1, 34) + bytes(32) + b"a\0",
        "an entry with three texts": raw(1, 38) + bytes(32) + b"a\0b\0c\0",
        "an entry whose last text does not end": raw(1, 35) + bytes(32) + b"a\0b",
    }.items(),
    ids=lambda case: case[0],
)
def test_what_no_agent_sends_is_refused(data: tuple[str, bytes]) -> None:
    with pytest.raises(RecordViolation):
        decoded(data[1])


def test_twenty_thousand_garbled_streams_end_or_are_refused_in_little_memory() -> None:
    dice, outcomes = random.Random(4), {"taken": 0, "refused": 0}
    tracemalloc.start()
    try:
        for _ in range(20_000):
            data = bytearray(STREAM)
            for _ in range(dice.randint(1, 4)):
                data[dice.randrange(len(data))] = dice.randrange(256)
            outcomes[outcome(bytes(data), dice.randrange(len(data)))] += 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert min(outcomes.values()) > 500


@pytest.mark.parametrize("kind", ["transfer", "listing"])
def test_the_corpus_and_what_becomes_of_it_end_or_are_refused_in_little_memory(kind: str) -> None:
    """AG-03: lengths of 4 GiB, records out of order, names and numbers at every edge."""
    dice, outcomes = random.Random(5), {"taken": 0, "refused": 0}
    spoiled = (corpus.mutated(dice, kind) for _ in range(10_000))
    tracemalloc.start()
    try:
        for data in itertools.chain(corpus.seeds(kind), spoiled):
            outcomes[outcome(data, dice.randrange(len(data) + 1), with_data=kind == "transfer")] += 1
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert min(outcomes.values()) > 500


def outcome(data: bytes, cut: int, *, with_data: bool = True) -> str:
    try:
        decoded(data[:cut], data[cut:], with_data=with_data)
    except RecordViolation:
        return "refused"
    return "taken"
