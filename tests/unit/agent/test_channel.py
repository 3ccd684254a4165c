"""One stream and many commands: who reads it, what is believed of it, and what its end means."""

from __future__ import annotations

import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from podkit.agent.channel import Channel, ChannelBroken
from podkit.agent.channel_call import WINDOW_BYTES, Call
from podkit.agent.command_request import CommandRequest
from podkit.agent.protocol import DATA_MAX, INPUT_WINDOW, PROTOCOL, EndFlag, FromAgent, StartFlag, ToAgent
from podkit.backends.base import Stream
from podkit.errors import EngineTimeout, InvalidInput
from podkit.utils._deadline import Deadline
from tests.support.waiting import eventually, within
from tests.unit.agent.stream import END, ScriptedStream

COMMAND = CommandRequest(argv=["true"])


def frame(type: int, id: int, *numbers: int, data: bytes = b"") -> bytes:
    """What an agent says: numbers, or bytes."""
    data = data or struct.pack(f"<{len(numbers)}L", *numbers)
    return struct.pack("<LLB3x", len(data), id, type) + data


HELLO = frame(FromAgent.HELLO, 0, PROTOCOL)
BYE = frame(FromAgent.BYE, 0)


def output(id: int, data: bytes, type: FromAgent = FromAgent.STDOUT) -> bytes:
    return frame(type, id, data=data)


def ended(id: int, exit_code: int = 0, flags: int = 0) -> bytes:
    return frame(FromAgent.EXIT, id, exit_code, flags)


def soon() -> Deadline:
    return Deadline.after(10)


@pytest.fixture
def stream() -> ScriptedStream:
    return ScriptedStream(HELLO)


@pytest.fixture
def channel(stream: ScriptedStream) -> Channel:
    channel = Channel(stream)
    channel.greet(soon())
    return channel


def start(channel: Channel, request: CommandRequest = COMMAND) -> Call:
    call = channel.new_call()
    channel.start(call, request, user="", working_dir="/", flags=StartFlag(0), deadline=soon())
    return call


def finish(channel: Channel, call: Call) -> tuple[int, EndFlag] | None:
    assert channel.wait(call, lambda: call.over, soon())
    return call.ended


def all_output(call: Call) -> list[tuple[Stream, bytes]]:
    return list(iter(call.take_output, None))


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


# --- the beginning ----------------------------------------------------------------------------------


def test_an_agent_of_another_version_is_refused() -> None:
    stream = ScriptedStream(frame(FromAgent.HELLO, 0, PROTOCOL + 1))
    with pytest.raises(ChannelBroken, match=f"version {PROTOCOL + 1}"):
        Channel(stream).greet(soon())
    assert stream.closed


def test_an_agent_that_says_nothing_is_waited_for_until_the_deadline() -> None:
    with within(5), pytest.raises(EngineTimeout):
        Channel(ScriptedStream()).greet(Deadline.after(0.05))


def test_what_the_engine_printed_in_place_of_an_agent_stands_in_the_error() -> None:
    stream = ScriptedStream()
    stream.say(b"exec format error", stream=Stream.STDERR)
    stream.say(END)
    with pytest.raises(ChannelBroken, match="exec format error"):
        Channel(stream).greet(soon())


def test_what_is_no_agents_is_read_to_its_end_before_anybody_judges_it() -> None:
    stream = ScriptedStream(b"OCI runtime exec failed: exec failed: ", b"cannot exec in a stopped state", END)
    with pytest.raises(ChannelBroken, match=r"the agent has ended \(OCI runtime .* in a stopped state\)"):
        Channel(stream).greet(soon())


def test_a_second_greeting_breaks_the_channel(channel: Channel, stream: ScriptedStream) -> None:
    call = start(channel)
    stream.say(HELLO)
    with pytest.raises(ChannelBroken, match="HELLO"):
        finish(channel, call)


# --- one command -------------------------------------------------------------------------------------


def test_output_and_end_of_a_command_come_in_order(channel: Channel, stream: ScriptedStream) -> None:
    call = start(channel)
    stream.say(frame(FromAgent.STARTED, call.id, 17), output(call.id, b"a"), output(call.id, b"b"))
    stream.say(output(call.id, b"c", FromAgent.STDERR), output(call.id, b"d"), ended(call.id, 3))

    assert finish(channel, call) == (3, EndFlag(0))
    assert call.pid == 17
    assert all_output(call) == [(Stream.STDOUT, b"ab"), (Stream.STDERR, b"c"), (Stream.STDOUT, b"d")]


def test_frames_that_come_byte_by_byte_are_put_together() -> None:
    text = HELLO + output(1, b"hello" * 100) + ended(1)
    channel = Channel(ScriptedStream(*(text[at : at + 1] for at in range(len(text)))))
    channel.greet(soon())
    call = start(channel)

    assert finish(channel, call) == (0, EndFlag(0))
    assert all_output(call) == [(Stream.STDOUT, b"hello" * 100)]


def test_a_stream_that_ends_inside_of_a_frame_is_broken_and_not_ended(channel: Channel, stream: ScriptedStream) -> None:
    call = start(channel)
    stream.say(output(call.id, b"half"), ended(call.id)[:-1], END)

    with pytest.raises(ChannelBroken):
        finish(channel, call)
    assert all_output(call) == [(Stream.STDOUT, b"half")]
    assert not call.over


def test_a_command_that_does_not_fit_into_a_frame_is_refused_before_it_is_sent(
    channel: Channel, stream: ScriptedStream
) -> None:
    with pytest.raises(InvalidInput, match="4 MiB"):
        start(channel, CommandRequest(argv=["echo", "x" * (4 << 20)]))
    assert not stream.sent


def test_input_is_one_frame_and_counted(channel: Channel, stream: ScriptedStream) -> None:
    call = start(channel, CommandRequest(argv=["cat"], input=b"x"))
    del stream.sent[:]
    channel.send_input(call, memoryview(bytes(100_000)), soon())

    assert call.input_credit == INPUT_WINDOW - 100_000
    assert stream.sent == frame(ToAgent.INPUT, call.id, data=bytes(100_000))

    stream.say(frame(FromAgent.TAKEN, call.id, 100_000, 0), ended(call.id))
    finish(channel, call)
    assert call.input_credit == INPUT_WINDOW


# --- what cannot be right ----------------------------------------------------------------------------

HOSTILE = {
    "an unknown type": frame(99, 1),
    "a type of the other direction": frame(ToAgent.START, 1),
    "4 GiB": struct.pack("<LLB3x", 0xFFFF_FFFF, 1, FromAgent.STDOUT),
    "one byte too much": struct.pack("<LLB3x", DATA_MAX + 1, 1, FromAgent.STDOUT),
    "empty output": frame(FromAgent.STDOUT, 1),
    "an end without its numbers": frame(FromAgent.EXIT, 1, 0),
    "output of the channel itself": output(0, b"x"),
    "a greeting for a command": frame(FromAgent.HELLO, 1, PROTOCOL),
    "a farewell for a command": frame(FromAgent.BYE, 1),
    "more input taken than was sent": frame(FromAgent.TAKEN, 1, 1, 0),
    "started for ever": frame(FromAgent.STARTED, 1, 1) * 20,
    "more output than the window": output(1, bytes(DATA_MAX)) * (6 * WINDOW_BYTES // DATA_MAX),
}


@pytest.mark.parametrize("row", HOSTILE)
def test_a_channel_breaks_at(channel: Channel, stream: ScriptedStream, row: str) -> None:
    """AG-03."""
    call = start(channel)
    assert call.id == 1
    stream.say(HOSTILE[row], ended(1))

    with pytest.raises(ChannelBroken):
        finish(channel, call)
    assert channel.broken
    assert stream.closed


def test_what_comes_for_a_command_that_nobody_waits_for_is_dropped(channel: Channel, stream: ScriptedStream) -> None:
    given_up, call = start(channel), start(channel)
    channel.forget(given_up)
    stream.say(output(given_up.id, b"late"), ended(given_up.id), output(77, b"never begun"), ended(call.id))

    assert finish(channel, call) == (0, EndFlag(0))
    assert not given_up.output


def test_output_behind_the_end_of_a_command_is_dropped(channel: Channel, stream: ScriptedStream) -> None:
    first, second = start(channel), start(channel)
    stream.say(output(first.id, b"x") + ended(first.id) + output(first.id, b"y") + ended(second.id))

    finish(channel, second)
    assert all_output(first) == [(Stream.STDOUT, b"x")]


def test_a_window_of_single_bytes_is_no_violation_and_takes_little_memory(
    channel: Channel, stream: ScriptedStream
) -> None:
    call, count = start(channel), WINDOW_BYTES // 8
    pair = output(call.id, b"o") + output(call.id, b"e", FromAgent.STDERR)
    for _ in range(count // 1024):
        stream.say(pair * 1024)
    stream.say(ended(call.id))

    finish(channel, call)
    assert len(call.output) < 10_000
    pieces = all_output(call)
    for kind, byte in ((Stream.STDOUT, b"o"), (Stream.STDERR, b"e")):
        assert b"".join(data for stream_of, data in pieces if stream_of is kind) == byte * count


# --- deadlines ---------------------------------------------------------------------------------------


def test_a_flood_for_others_does_not_hold_up_a_deadline(channel: Channel, stream: ScriptedStream) -> None:
    call = start(channel)
    stream.endless = output(77, b"x")

    with within(3):
        assert not channel.wait(call, lambda: call.over, Deadline.after(0.1))
        assert channel.is_quiet()


def test_a_frame_that_comes_a_byte_at_a_time_does_not_hold_up_a_deadline(
    channel: Channel, stream: ScriptedStream, threads: ThreadPoolExecutor
) -> None:
    """AG-03."""
    call, over = start(channel), threading.Event()

    def dribble() -> None:
        for byte in output(call.id, bytes(1000)):
            stream.say(bytes([byte]))
            if over.wait(0.01):
                return

    dribbling = threads.submit(dribble)
    with within(3):
        assert not channel.wait(call, lambda: call.over, Deadline.after(0.2))
    over.set()
    dribbling.result(10)
    assert not call.output


def test_an_agent_that_takes_nothing_holds_up_nobody_past_the_deadline(
    channel: Channel, stream: ScriptedStream, threads: ThreadPoolExecutor
) -> None:
    first, second = start(channel), start(channel)
    stream.takes_input = False
    stuck = threads.submit(channel.send_signal, first, 15, Deadline.after(30))
    assert eventually(lambda: channel._is_sending)

    with within(3), pytest.raises(EngineTimeout):
        channel.kill(second, Deadline.after(0.1))

    stream.take_input()
    stuck.result(10)
    assert not channel.broken


def test_a_frame_that_may_have_been_cut_breaks_the_channel(channel: Channel, stream: ScriptedStream) -> None:
    call = start(channel)
    stream.takes_input = False
    with pytest.raises(EngineTimeout):
        channel.kill(call, Deadline.after(0.05))
    assert channel.broken


# --- the end -----------------------------------------------------------------------------------------


def test_an_agent_that_ends_breaks_the_channel_of_all_commands(
    channel: Channel, stream: ScriptedStream, threads: ThreadPoolExecutor
) -> None:
    calls = [start(channel) for _ in range(5)]
    waits = [threads.submit(finish, channel, call) for call in calls]
    stream.say(END)

    errors = [wait.exception(10) for wait in waits]
    assert all(isinstance(error, ChannelBroken) and not error.nothing_sent for error in errors)


def test_an_agent_that_said_farewell_ran_nothing_of_what_was_sent(channel: Channel, stream: ScriptedStream) -> None:
    call = start(channel)
    stream.say(BYE, END)
    with pytest.raises(ChannelBroken) as caught:
        finish(channel, call)
    assert caught.value.nothing_sent


def test_a_farewell_is_not_believed_of_a_command_that_was_begun(channel: Channel, stream: ScriptedStream) -> None:
    call = start(channel)
    stream.say(frame(FromAgent.STARTED, call.id, 17), BYE, END)
    with pytest.raises(ChannelBroken) as caught:
        finish(channel, call)
    assert not caught.value.nothing_sent


def test_a_farewell_is_heard_also_where_sending_failed(channel: Channel, stream: ScriptedStream) -> None:
    stream.say(BYE, END)
    stream.refuses = BrokenPipeError("it has ended")
    with pytest.raises(ChannelBroken) as caught:
        start(channel)
    assert caught.value.nothing_sent


def test_a_channel_whose_agent_said_farewell_is_not_quiet(channel: Channel, stream: ScriptedStream) -> None:
    assert channel.is_quiet()
    stream.say(BYE)
    assert not channel.is_quiet()


def test_an_interruption_of_the_waiting_reader_leaves_the_channel_to_the_others(
    channel: Channel, stream: ScriptedStream
) -> None:
    call = start(channel)
    stream.say(ended(call.id, 3))
    stream.interrupts = "wait"
    with pytest.raises(KeyboardInterrupt):
        channel.wait(call, lambda: call.over, soon())
    assert channel.wait(call, lambda: call.over, soon())
    assert call.ended == (3, EndFlag(0))


def test_an_interruption_that_may_have_lost_frames_breaks_the_channel(channel: Channel, stream: ScriptedStream) -> None:
    call = start(channel)
    stream.say(ended(call.id))
    stream.interrupts = "read"
    with pytest.raises(KeyboardInterrupt):
        channel.wait(call, lambda: call.over, soon())
    with pytest.raises(ChannelBroken, match="its reader was interrupted"):
        channel.wait(call, lambda: call.over, soon())


def test_closing_wakes_whoever_waits(channel: Channel, threads: ThreadPoolExecutor) -> None:
    waits = [threads.submit(finish, channel, start(channel)) for _ in range(3)]
    assert eventually(lambda: channel._reader is not None)
    channel.close()
    assert all(isinstance(wait.exception(10), ChannelBroken) for wait in waits)


# --- many threads ------------------------------------------------------------------------------------


def waiting(channel: Channel, count: int) -> Callable[[], bool]:
    return lambda: len(channel._waiting) == count and channel._reader is not None


def test_the_thread_that_reads_passes_that_on_when_it_has_what_it_waited_for(
    channel: Channel, stream: ScriptedStream, threads: ThreadPoolExecutor
) -> None:
    calls = [start(channel) for _ in range(4)]
    waits = [threads.submit(finish, channel, call) for call in calls]
    assert eventually(waiting(channel, 4))

    for call, wait in zip(calls, waits, strict=True):  # whichever of them reads
        stream.say(ended(call.id, call.id))
        assert wait.result(10) == (call.id, EndFlag(0))


def test_the_thread_that_reads_passes_that_on_when_it_gives_up(
    channel: Channel, stream: ScriptedStream, threads: ThreadPoolExecutor
) -> None:
    impatient, patient = start(channel), start(channel)
    first = threads.submit(channel.wait, impatient, lambda: impatient.over, Deadline.after(0.3))
    assert eventually(waiting(channel, 1))
    second = threads.submit(finish, channel, patient)

    assert not first.result(10)
    stream.say(ended(patient.id))
    assert second.result(10) == (0, EndFlag(0))


def test_a_writer_that_leaves_lets_the_reader_of_the_same_command_read(
    channel: Channel, stream: ScriptedStream, threads: ThreadPoolExecutor
) -> None:
    call = start(channel)
    channel.send_input(call, b"x", soon())
    writer = threads.submit(channel.wait, call, lambda: call.input_credit == INPUT_WINDOW, soon())
    assert eventually(waiting(channel, 1))
    reader = threads.submit(finish, channel, call)
    assert eventually(waiting(channel, 2))

    stream.say(frame(FromAgent.TAKEN, call.id, 1, 0))
    assert writer.result(10)
    stream.say(ended(call.id))
    assert reader.result(10) == (0, EndFlag(0))


def test_answers_reach_the_thread_that_they_are_for(
    channel: Channel, stream: ScriptedStream, threads: ThreadPoolExecutor
) -> None:
    calls = [start(channel) for _ in range(16)]
    waits = [threads.submit(finish, channel, call) for call in calls]
    for call in reversed(calls):
        stream.say(output(call.id, b"%d" % call.id), ended(call.id, call.id))

    assert [wait.result(10) for wait in waits] == [(call.id, EndFlag(0)) for call in calls]
    assert [all_output(call) for call in calls] == [[(Stream.STDOUT, b"%d" % call.id)] for call in calls]


def test_a_channel_that_nobody_waits_for_keeps_nothing_of_its_commands(
    channel: Channel, stream: ScriptedStream
) -> None:
    for _ in range(100):
        call = start(channel)
        stream.say(ended(call.id))
        finish(channel, call)
    assert not channel._calls
    assert not channel._waiting
    assert not call.waiting


def test_a_silent_agent_is_known_to_be_silent(channel: Channel, stream: ScriptedStream) -> None:
    before = channel.silent_seconds
    assert eventually(lambda: channel.silent_seconds > before)
    stream.say(output(77, b"x"))
    channel.is_quiet()
    assert channel.silent_seconds > before, "what lay there already is no sign of life of now"

    began = time.monotonic()
    call = start(channel)
    stream.say(ended(call.id))
    finish(channel, call)
    assert channel.silent_seconds <= time.monotonic() - began
