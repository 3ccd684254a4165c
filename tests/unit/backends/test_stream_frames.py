"""Docker's frames, however they are cut, and whatever a hostile engine makes of them."""

from __future__ import annotations

import random
import struct
import tracemalloc

import pytest

from podkit.backends._stream_frames import FrameReader
from podkit.backends.base import Chunk, Stream
from podkit.errors import EngineError, PodkitError

OUT, ERR = Stream.STDOUT, Stream.STDERR


def frame(kind: int, data: bytes) -> bytes:
    return struct.pack(">BxxxL", kind, len(data)) + data


def joined(chunks: list[Chunk]) -> list[Chunk]:
    """Put together what was cut: neighbours of one stream."""
    whole: list[Chunk] = []
    for chunk in chunks:
        if whole and whole[-1].stream is chunk.stream:
            whole[-1] = Chunk(chunk.stream, whole[-1].data + chunk.data)
        else:
            whole.append(chunk)
    return whole


FRAMES = frame(1, b"out") + frame(2, b"err!") + frame(1, b"") + frame(2, b"") + frame(1, b"more")
CHUNKS = [Chunk(OUT, b"out"), Chunk(ERR, b"err!"), Chunk(OUT, b"more")]


def test_frames_that_come_at_once_are_cut_into_chunks() -> None:
    assert list(FrameReader().feed(FRAMES)) == CHUNKS


def test_frames_may_be_split_at_every_byte() -> None:
    for cut in range(len(FRAMES) + 1):
        reader = FrameReader()
        chunks = [*reader.feed(FRAMES[:cut]), *reader.feed(FRAMES[cut:])]
        assert joined(chunks) == CHUNKS, cut


def test_frames_may_come_byte_by_byte() -> None:
    reader = FrameReader()
    chunks = [chunk for byte in FRAMES for chunk in reader.feed(bytes([byte]))]
    assert joined(chunks) == CHUNKS


def test_a_reader_knows_whether_it_is_inside_a_frame() -> None:
    ends = [0]
    for data in (b"out", b"err!", b"", b"", b"more"):
        ends.append(ends[-1] + 8 + len(data))
    for cut in range(len(FRAMES) + 1):
        reader = FrameReader()
        list(reader.feed(FRAMES[:cut]))
        assert reader.inside_frame is (cut not in ends), cut


def test_an_empty_frame_gives_no_chunk() -> None:
    assert list(FrameReader().feed(frame(1, b"") * 3)) == []


def test_no_bytes_give_no_chunk() -> None:
    assert list(FrameReader().feed(b"")) == []


@pytest.mark.parametrize("kind", [0, 3, 4, 255])
def test_a_frame_of_unknown_kind_is_a_typed_error(kind: int) -> None:
    with pytest.raises(EngineError, match=f"unknown kind {kind}"):
        list(FrameReader().feed(frame(kind, b"x")))


def test_what_came_before_a_broken_frame_is_given_first() -> None:
    chunks = FrameReader().feed(frame(1, b"good") + frame(9, b"bad"))
    assert next(chunks) == Chunk(OUT, b"good")
    with pytest.raises(EngineError):
        next(chunks)


def test_a_frame_of_four_gigabytes_costs_no_memory() -> None:
    reader = FrameReader()
    piece = b"x" * 65536
    tracemalloc.start()
    try:
        list(reader.feed(struct.pack(">BxxxL", 1, 0xFFFFFFFF)))
        for _ in range(200):
            assert [len(chunk.data) for chunk in reader.feed(piece)] == [len(piece)]
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert reader.inside_frame


def test_ten_thousand_random_streams_end_in_chunks_or_a_typed_error() -> None:
    dice = random.Random(7)
    for _ in range(10_000):
        data = dice.randbytes(dice.randint(0, 40))
        if dice.random() < 0.5:
            data = bytes([dice.choice([1, 2]), 0, 0, 0, 0, 0, 0, dice.randint(0, 9)]) + data
        try:
            given = sum(len(chunk.data) for chunk in FrameReader().feed(data))
        except PodkitError:
            continue
        assert given <= len(data)
