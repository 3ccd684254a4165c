"""Frames as pure code: what is taken from inside, and what is sent."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from podkit.agent import protocol
from podkit.agent.protocol import (
    DATA_MAX,
    START_MAX,
    EndFlag,
    Failure,
    Frame,
    FrameDecoder,
    FromAgent,
    ProtocolViolation,
    StartFlag,
    ToAgent,
    encode,
    encode_start,
)
from tests.support import frames

HEADER_FILE = Path(protocol.__file__).with_name("native") / "agent.h"

EXIT = frames.numbers(FromAgent.EXIT, 7, 3, 1)
OUTPUT = frames.encode(FromAgent.STDOUT, 7, b"hello")


def start_frame(argv: list[str], *, timeout: float | None = None) -> bytes | None:
    return encode_start(
        7,
        argv,
        user="nobody",
        working_dir="/tmp",
        environment={"A": "1", "B": "ü"},
        timeout=timeout,
        window=5,
        flags=StartFlag.INPUT | StartFlag.HOME,
    )


# --- what comes ----------------------------------------------------------------------------------------


def test_frames_come_out_in_the_order_of_the_bytes() -> None:
    assert list(FrameDecoder().feed(OUTPUT + EXIT)) == [
        Frame(FromAgent.STDOUT, 7, b"hello"),
        Frame(FromAgent.EXIT, 7, struct.pack("<LL", 3, 1)),
    ]


def test_numbers_of_a_frame_are_unsigned() -> None:
    [frame] = FrameDecoder().feed(frames.numbers(FromAgent.EXIT, 7, 0xFFFF_FFFF, 1))
    assert frame.numbers() == (0xFFFF_FFFF, 1)


@pytest.mark.parametrize("size", [1, 2, 11, 12, 13, 17, 18])
def test_it_does_not_matter_where_the_bytes_are_cut(size: int) -> None:
    decoder, text = FrameDecoder(), OUTPUT + EXIT
    found = [frame for at in range(0, len(text), size) for frame in decoder.feed(text[at : at + size])]
    assert found == list(FrameDecoder().feed(text))


def test_a_frame_of_the_largest_size_is_taken() -> None:
    [frame] = FrameDecoder().feed(frames.encode(FromAgent.STDOUT, 7, bytes(DATA_MAX)))
    assert len(frame.data) == DATA_MAX


@pytest.mark.parametrize("length", [0, DATA_MAX + 1, 1 << 31, 0xFFFF_FFFF])
def test_a_length_that_output_cannot_have_is_refused_by_its_header_alone(length: int) -> None:
    with pytest.raises(ProtocolViolation, match=f"STDOUT of {length} bytes"):
        list(FrameDecoder().feed(struct.pack("<LLB3x", length, 7, FromAgent.STDOUT)))


@pytest.mark.parametrize("type", [0, *ToAgent, 63, 73, 255])
def test_a_type_that_no_agent_sends_is_refused(type: int) -> None:
    with pytest.raises(ProtocolViolation, match=f"unknown type {type}"):
        list(FrameDecoder().feed(frames.encode(type, 7)))


NUMBERS = {
    FromAgent.HELLO: 1,
    FromAgent.STARTED: 1,
    FromAgent.TAKEN: 2,
    FromAgent.EXIT: 2,
    FromAgent.FAILED: 2,
    FromAgent.PONG: 1,
    FromAgent.BYE: 0,
}


@pytest.mark.parametrize("type", NUMBERS)
def test_a_frame_of_numbers_has_exactly_its_own_size(type: FromAgent) -> None:
    right = 4 * NUMBERS[type]
    [frame] = FrameDecoder().feed(frames.encode(type, 7, bytes(right)))
    assert len(frame.numbers()) == NUMBERS[type]
    for wrong in {*range(16)} - {right}:
        with pytest.raises(ProtocolViolation, match=f"{type.name} of {wrong} bytes"):
            list(FrameDecoder().feed(frames.encode(type, 7, bytes(wrong))))


def test_frames_before_one_that_is_refused_are_given() -> None:
    found = []
    with pytest.raises(ProtocolViolation):
        for frame in FrameDecoder().feed(OUTPUT + frames.encode(200, 7)):
            found.append(frame)
    assert found == list(FrameDecoder().feed(OUTPUT))


# --- what goes -------------------------------------------------------------------------------------------


def test_a_command_is_a_header_numbers_and_texts() -> None:
    frame = start_frame(["echo", "a b"], timeout=1.5)
    assert frame is not None
    length, id, type = struct.unpack_from("<LLB3x", frame)
    assert (length, id, type) == (len(frame) - 12, 7, ToAgent.START)
    assert struct.unpack_from("<LLLLL", frame, 12) == (1500, 5, StartFlag.INPUT | StartFlag.HOME, 2, 2)
    assert frame[32:].decode().split("\0") == ["nobody", "/tmp", "echo", "a b", "A=1", "B=ü", ""]


@pytest.mark.parametrize(
    ("timeout", "milliseconds"), [(None, 0), (0.0001, 1), (1, 1000), (4294967.2, 4294967200), (5e6, 0)]
)
def test_a_timeout_is_sent_in_milliseconds_where_they_fit(timeout: float | None, milliseconds: int) -> None:
    frame = start_frame(["true"], timeout=timeout)
    assert frame is not None
    assert struct.unpack_from("<L", frame, 12) == (milliseconds,)


def test_a_command_longer_than_a_frame_is_not_encoded() -> None:
    frame = start_frame(["true"])
    assert frame is not None
    room = START_MAX - (len(frame) - 12)
    largest = start_frame(["true" + "x" * room])
    assert largest is not None
    assert len(largest) - 12 == START_MAX
    assert start_frame(["true" + "x" * (room + 1)]) is None


def test_a_frame_without_data_is_its_header() -> None:
    assert encode(ToAgent.KILL, 7) == struct.pack("<LLB3x", 0, 7, 4)


# --- both sides agree ------------------------------------------------------------------------------------


def enumerators(text: str) -> dict[str, int]:
    """The numbers of a C enum's names."""
    found: dict[str, int] = {}
    number = -1
    for name, value in re.findall(r"(\w+)(?:\s*=\s*(\d+))?", text):
        number = int(value) if value else number + 1
        found[name] = number
    return found


def test_the_agents_source_has_the_same_types_failures_and_sizes() -> None:
    text = HEADER_FILE.read_text()
    for name, members in (("from_host", ToAgent), ("from_agent", FromAgent), ("failure", Failure)):
        found = re.search(rf"enum {name} {{([^}}]*)}}", text)
        assert found
        assert enumerators(found[1]) == {member.name: member.value for member in members}
    constants = {
        name: int(value) << int(shift or 0)
        for name, value, shift in re.findall(r"^#define (\w+) \(?(\d+)u?(?: << (\d+))?\)?\s", text, re.MULTILINE)
    }
    flags = {f"START_{flag.name}": flag.value for flag in StartFlag} | {
        f"ENDED_{flag.name}": flag.value for flag in EndFlag
    }
    names = "PROTOCOL", "DATA_MAX", "START_MAX", "INPUT_WINDOW", "NO_SUCH_USER", "NOT_ALLOWED"
    numbers = {name: getattr(protocol, name) for name in names}
    assert {name: constants[name] for name in flags | numbers} == flags | numbers
