"""What may be asked for, and how much of the output is kept."""

from __future__ import annotations

import random
import tracemalloc
from typing import Any

import pytest

from podkit.agent.command_output import MAX_OUTPUT_BYTES, Outcome, OutputBuffer
from podkit.agent.command_request import CommandRequest
from podkit.errors import InvalidInput
from tests.unit.support import CANARY, everything_said

# --- what may be asked for -------------------------------------------------------------------------

REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "an empty command": ({"command": ""}, "command=''"),
    "an empty list": ({"command": []}, r"command=\[\]"),
    "NUL in an argument": ({"command": ["a", "b\0"]}, "NUL"),
    "a working_dir that leaves": ({"working_dir": "../src"}, "working_dir='../src'"),
    "a working_dir with ..": ({"working_dir": "/a/../b"}, "working_dir='/a/../b'"),
    "no time": ({"timeout": 0}, "timeout=0"),
    "negative time": ({"timeout": -1}, "timeout=-1"),
    "time that is no number": ({"timeout": float("nan")}, "timeout=nan"),
    "an empty user": ({"user": ""}, "user=''"),
    "a user with a space": ({"user": "a b"}, "user='a b'"),
    "a user that is no text": ({"user": 1000}, "user is 1000"),
    "a user below 0": ({"user": "-1"}, "user='-1'"),
    "a user of 32 bits": ({"user": "4294967296"}, "user='4294967296'"),
    "a group of 32 bits": ({"user": "0:2147483648"}, "user='0:2147483648'"),
    "a colon for a user": ({"user": ":"}, "user=':'"),
    "a group without a user": ({"user": ":1"}, "user=':1'"),
    "a user without its group": ({"user": "1:"}, "user='1:'"),
    "three numbers for a user": ({"user": "1:2:3"}, "user='1:2:3'"),
    "an environment name with =": ({"environment": {"A=": ""}}, "'A='"),
    "an empty environment name": ({"environment": {"": "x"}}, "''"),
    "an environment that is a list": ({"environment": ["A=1"]}, "environment"),
    "negative output": ({"max_output_bytes": -1}, "max_output_bytes=-1"),
    "output that is no number": ({"max_output_bytes": "10"}, "max_output_bytes"),
    "input that is no text": ({"input": 5}, "input"),
    "input with half of a surrogate pair": ({"input": "\ud800"}, "input"),
    "a callback that cannot be called": ({"on_stdout": "print"}, "on_stdout"),
}


@pytest.mark.parametrize("row", REFUSED)
def test_a_command_refuses(row: str) -> None:
    arguments, said = REFUSED[row]
    arguments = {"command": "ls"} | arguments
    with pytest.raises(InvalidInput, match=said):
        CommandRequest.checked(**arguments)


def test_a_refused_environment_does_not_tell_its_values() -> None:
    with pytest.raises(InvalidInput) as caught:
        CommandRequest.checked("ls", environment={"A": CANARY, "B=": CANARY})
    assert CANARY not in everything_said(caught.value)


def test_a_plain_command_has_no_limit_of_time_and_one_of_output() -> None:
    request = CommandRequest.checked("ls")
    assert request.timeout is None
    assert request.max_output_bytes == MAX_OUTPUT_BYTES == 10 << 20
    assert (request.input, request.user, request.working_dir) == (None, None, None)


@pytest.mark.parametrize(("input", "data"), [("é", "é".encode()), (b"\xff", b"\xff"), ("", b""), (None, None)])
def test_input_is_text_or_bytes(input: Any, data: bytes | None) -> None:
    assert CommandRequest.checked("cat", input=input).input == data


def test_no_output_may_be_kept_at_all() -> None:
    assert CommandRequest.checked("ls", max_output_bytes=0).max_output_bytes == 0


# --- output ----------------------------------------------------------------------------------------


def feed(buffer: OutputBuffer, *pieces: bytes) -> OutputBuffer:
    for piece in pieces:
        buffer.feed(piece)
    buffer.finish()
    return buffer


@pytest.mark.parametrize("limit", range(8))
def test_what_is_over_the_limit_is_dropped_and_said(limit: int) -> None:
    buffer = feed(OutputBuffer(limit), b"abc", b"def")
    assert buffer.data == b"abcdef"[:limit]
    assert buffer.truncated is (limit < 6)


def test_nothing_behind_a_gap_is_kept() -> None:
    buffer = feed(OutputBuffer(4), b"abc", b"defgh", b"i")
    assert buffer.data == b"abcd"


def test_a_flood_costs_no_memory() -> None:
    buffer, piece = OutputBuffer(1000), b"x" * 65536
    tracemalloc.start()
    try:
        for _ in range(1000):
            buffer.feed(piece)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert buffer.truncated
    assert len(buffer.data) == 1000


def test_bytes_that_are_no_utf8_never_raise_and_never_lose_what_follows() -> None:
    assert feed(OutputBuffer(100), b"a\xffb\xc3(c").text == "a\ufffdb\ufffd(c"


def test_a_character_that_is_never_completed_is_shown_as_broken() -> None:
    assert feed(OutputBuffer(100), b"a\xf0\x9f").text == "a\ufffd"


@pytest.mark.parametrize("limit", range(10))
def test_a_limit_never_shows_half_a_character(limit: int) -> None:
    text = feed(OutputBuffer(limit), "é🙂é€".encode()).text
    assert "é🙂é€".startswith(text)


@pytest.mark.parametrize("cut", range(12))
def test_a_callback_gets_whole_characters_however_they_are_cut(cut: int) -> None:
    data, told = "é🙂a€é".encode(), []
    feed(OutputBuffer(100, told.append), data[:cut], data[cut:])
    assert "".join(told) == "é🙂a€é"
    assert "\ufffd" not in "".join(told)


def test_a_callback_gets_the_text_as_it_comes() -> None:
    told: list[str] = []
    buffer = OutputBuffer(100, told.append)
    buffer.feed(b"a")
    assert told == ["a"]
    buffer.feed(b"\xc3")
    assert told == ["a"]
    buffer.feed(b"\xa9b")
    assert told == ["a", "éb"]


def test_a_callback_gets_all_of_it_also_past_the_limit() -> None:
    told: list[str] = []
    buffer = feed(OutputBuffer(2, told.append), b"abc", b"def")
    assert "".join(told) == "abcdef"
    assert buffer.text == "ab"


def test_a_callback_gets_the_rest_of_a_broken_character_at_the_end() -> None:
    told: list[str] = []
    feed(OutputBuffer(100, told.append), b"a\xf0\x9f")
    assert "".join(told) == "a\ufffd"


def test_a_callback_is_not_called_with_nothing() -> None:
    told: list[str] = []
    feed(OutputBuffer(100, told.append), b"", b"\xc3", b"")
    assert "" not in told


def test_what_a_callback_raises_is_not_swallowed() -> None:
    def callback(text: str) -> None:
        raise KeyError(text)

    with pytest.raises(KeyError):
        OutputBuffer(100, callback).feed(b"x")


def test_text_and_callback_agree_on_a_thousand_random_streams() -> None:
    dice = random.Random(3)
    for _ in range(1000):
        data = bytes(dice.choices([0x41, 0xC3, 0xA9, 0xE2, 0x82, 0xAC, 0xF0, 0x9F, 0xFF], k=dice.randint(0, 12)))
        cut, told = dice.randint(0, 12), []
        assert feed(OutputBuffer(100, told.append), data[:cut], data[cut:]).text == "".join(told)


# --- results ---------------------------------------------------------------------------------------


def outcome(**changes: Any) -> Outcome:
    return Outcome(stdout=feed(OutputBuffer(4), b"out"), stderr=feed(OutputBuffer(4), b"error"), **changes)


def test_a_result_has_the_output_and_whether_it_was_cut() -> None:
    result = outcome(exit_code=3, duration_seconds=1.5).to_result(None)
    assert (result.exit_code, result.stdout, result.stderr, result.duration_seconds) == (3, "out", "erro", 1.5)
    assert (result.stdout_truncated, result.stderr_truncated, result.timed_out) == (False, True, False)


def test_a_timeout_is_124_and_says_so_behind_the_output_so_far() -> None:
    result = outcome(timed_out=True, container_restarted=True).to_result(2.5)
    assert (result.exit_code, result.timed_out, result.container_restarted) == (124, True, True)
    assert result.stdout == "out"
    assert result.stderr.startswith("erro\n")
    assert "timed out after 2.5 s" in result.stderr


def test_a_timeout_is_124_whatever_the_command_ended_with() -> None:
    assert outcome(timed_out=True, exit_code=137).to_result(1).exit_code == 124


def test_an_exit_code_that_is_not_known_is_no_success() -> None:
    assert not outcome().to_result(None).ok
