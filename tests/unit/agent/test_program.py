"""The agent's program as a process here: many commands at once, what they leave, and what is done to it."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from podkit.agent import agent_program
from podkit.agent.channel import Channel, ChannelBroken
from podkit.agent.channel_call import WINDOW_BYTES, Call
from podkit.agent.command_request import CommandRequest
from podkit.agent.protocol import DATA_MAX, IN_WANT, INPUT_WINDOW, EndFlag, Failure, StartFlag, ToAgent, encode
from podkit.backends.base import Stream
from podkit.utils._deadline import Deadline
from tests.support.agent import SECONDS, ProcessStream, local_channel, soon
from tests.support.waiting import eventually, within
from tests.unit.agent.local import local_commands

TOLD = StartFlag(0)
STORM_SECONDS = 100.0
"""A thousand processes need some 3 s of a processor, of which a busy machine may leave the tests' container a tenth."""


@pytest.fixture
def channel() -> Iterator[Channel]:
    with local_channel() as channel:
        yield channel


def run(channel: Channel, *argv: str, timeout: float | None = None, input: bytes | None = None) -> Call:
    return start(channel, CommandRequest(argv=argv, timeout=timeout, input=input))


def start(channel: Channel, request: CommandRequest, *, user: str = "", flags: StartFlag = TOLD) -> Call:
    call = channel.new_call()
    channel.start(call, request, user=user, working_dir="/", flags=flags, deadline=soon(STORM_SECONDS))
    return call


def send(channel: Channel, call: Call, data: bytes) -> None:
    channel.send_input(call, memoryview(data), soon())


def shell(channel: Channel, command: str, *, timeout: float | None = None, input: bytes | None = None) -> Call:
    return run(channel, "/bin/sh", "-c", command, timeout=timeout, input=input)


def finish(channel: Channel, call: Call, seconds: float = SECONDS) -> tuple[int, EndFlag]:
    assert channel.wait(call, lambda: call.over, soon(seconds))
    assert call.ended is not None, call.failed
    return call.ended


def output(channel: Channel, call: Call, size: int) -> int:
    """Read so many bytes at least, giving credit for them."""
    total = 0
    while total < size:
        assert channel.wait(call, lambda: call.output, soon())
        taken = sum(len(data) for _, data in iter(call.take_output, None))
        channel.give_credit(call, taken, soon())
        total += taken
    return total


def new_mark() -> str:
    """Something that stands in no other command line of this machine."""
    return f"9{uuid.uuid4().int % 10**8:08d}"


def processes_of(mark: str) -> list[int]:
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):  # not a glob: that trips over processes that end
        with suppress(OSError):
            if mark.encode() in Path(f"/proc/{name}/cmdline").read_bytes():  # a shell's child has the shell's at first
                found.append(int(name))
    return found


def is_running(mark: str) -> bool:
    return bool(processes_of(mark))


def kill_all(mark: str) -> None:
    """End what only a container's end would."""
    for pid in processes_of(mark):
        os.kill(pid, signal.SIGKILL)
    assert eventually(lambda: not is_running(mark), interval=0.002)


def supervisor_of(channel: Channel, call: Call) -> int:
    assert channel.wait(call, lambda: call.pid, soon())
    return int(Path(f"/proc/{call.pid}/stat").read_text().rpartition(")")[2].split()[1])


def status_bytes(pid: int, field: str) -> int:
    [line] = [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(f"{field}:")]
    return int(line.split()[1]) * 1024


# --- many at once ---------------------------------------------------------------------------------------


@pytest.mark.xdist_group("a thousand processes")  # one such storm at a time
def test_a_thousand_commands_run_at_once_and_each_gives_its_own_end(channel: Channel) -> None:
    calls = [shell(channel, f"read line; exit {number % 100}", input=b"") for number in range(1000)]
    for call in calls:
        assert channel.wait(call, lambda call=call: call.pid, soon(STORM_SECONDS))  # type: ignore[misc]
    for call in calls:
        send(channel, call, b"go\n")

    ends = [finish(channel, call, STORM_SECONDS)[0] for call in calls]
    assert ends == [number % 100 for number in range(1000)]


@pytest.mark.xdist_group("a thousand processes")  # one such storm at a time
def test_more_commands_than_it_holds_are_refused_and_the_others_go_on(channel: Channel) -> None:
    mark = new_mark()
    calls = [shell(channel, f"read line # {mark}", input=b"") for _ in range(1030)]
    for call in calls:
        assert channel.wait(call, lambda call=call: call.pid or call.over, soon(STORM_SECONDS))  # type: ignore[misc]
    refused = [call for call in calls if call.failed]

    assert len(refused) == 1030 - 1024
    assert {call.failed[0] for call in refused if call.failed} == {Failure.NO_PROCESS}
    send(channel, calls[0], b"go\n")
    assert finish(channel, calls[0]) == (0, EndFlag(0))

    channel.close()  # a thousand supervisors end their commands at once
    assert eventually(lambda: not is_running(mark), seconds=STORM_SECONDS)


def test_output_that_nobody_reads_stops_its_own_command_alone(channel: Channel) -> None:
    unread, read = run(channel, "/bin/cat", "/dev/zero"), run(channel, "/bin/cat", "/dev/zero")

    assert channel.wait(unread, lambda: sum(len(data) for _, data in unread.output) == WINDOW_BYTES, soon())
    assert output(channel, read, 20 << 20) >= 20 << 20

    assert output(channel, unread, 5 << 20) >= 5 << 20
    channel.kill(unread, soon())
    channel.kill(read, soon())
    assert finish(channel, unread)[0] == finish(channel, read)[0] == 128 + signal.SIGKILL


def test_input_that_is_not_read_stops_at_its_window_and_nobody_else(channel: Channel) -> None:
    deaf = run(channel, "/bin/sleep", "60", input=b"")
    sent = 0
    while channel.wait(deaf, lambda: deaf.input_credit > 0, Deadline.after(0.2)):
        sent += (size := min(deaf.input_credit, DATA_MAX))
        send(channel, deaf, bytes(size))
    other = run(channel, "/bin/cat", input=b"")
    send(channel, other, b"hello")
    send(channel, other, b"")

    assert INPUT_WINDOW <= sent <= INPUT_WINDOW + (64 << 10)  # and what the pipe holds
    assert finish(channel, other) == (0, EndFlag(0))
    channel.kill(deaf, soon())
    assert finish(channel, deaf)[0] == 128 + signal.SIGKILL


def test_input_to_a_command_that_closes_it_is_refused(channel: Channel) -> None:
    call = shell(channel, "exec <&-; echo closed; sleep 60", input=b"")
    assert channel.wait(call, lambda: call.output, soon())
    while not channel.wait(call, lambda: call.input_refused, Deadline.after(0.01)):
        send(channel, call, b"x")  # the first ones may find its supervisor's end of the pipe
    assert call.input_credit == INPUT_WINDOW
    channel.kill(call, soon())
    finish(channel, call)


def begin_of_input(call: Call, data: bytes, size: int) -> bytes:
    """A frame of input of `size` bytes, of which no more than `data` comes."""
    call.sent_input(size)
    return encode(ToAgent.INPUT, call.id, data + bytes(size - len(data)))[: len(data) - size]


def test_input_is_given_to_its_command_before_its_frame_is_complete() -> None:
    with local_commands() as commands:
        call = run(commands.channel, "/bin/cat", input=b"")
        commands.stream.write(begin_of_input(call, b"hello", INPUT_WINDOW), soon())
        assert commands.channel.wait(call, lambda: call.output, soon())
        assert call.take_output() == (Stream.STDOUT, b"hello")


def test_a_command_that_ends_in_the_middle_of_a_frame_costs_nobody_else_a_byte() -> None:
    with local_commands() as commands:
        channel, stream = commands.channel, commands.stream
        short, other = shell(channel, "read line; exit 3", input=b""), run(channel, "/bin/cat", input=b"")
        stream.write(begin_of_input(short, b"line\n", 100_000), soon())
        assert finish(channel, short)[0] == 3
        stream.write(bytes(100_000 - 5), soon())
        send(channel, other, b"hello")
        send(channel, other, b"")
        assert finish(channel, other) == (0, EndFlag(0))
        assert other.take_output() == (Stream.STDOUT, b"hello")


def test_input_that_comes_in_any_pieces_gives_its_commands_the_same_bytes() -> None:
    rng, text = random.Random(1), b""
    with local_commands() as commands:
        channel, stream = commands.channel, commands.stream
        calls = [run(channel, "/usr/bin/sha256sum", input=b"") for _ in range(3)]
        digests = [hashlib.sha256() for _ in calls]
        for _ in range(4):
            for call, digest in zip(calls, digests, strict=True):
                data = rng.randbytes(rng.choice((1, 500, 40_000, 250_000)))  # four are less than the window
                call.sent_input(len(data))
                text += encode(ToAgent.INPUT, call.id, data)
                digest.update(data)
        text += b"".join(encode(ToAgent.INPUT, call.id) for call in calls)
        while text:
            piece = text[: rng.choice((1, 11, 12, 13, 5000, 60_000))]
            stream.write(piece, soon())
            assert eventually(lambda: stream.unread_bytes() == 0, interval=0)
            text = text[len(piece) :]
        for call, digest in zip(calls, digests, strict=True):
            assert finish(channel, call) == (0, EndFlag(0))
            assert call.take_output() == (Stream.STDOUT, f"{digest.hexdigest()}  -\n".encode())


# --- the end --------------------------------------------------------------------------------------------


def test_a_command_that_closes_its_output_and_goes_on_ends_when_it_ends(channel: Channel) -> None:
    call = shell(channel, "exec >&- 2>&-; sleep 0.3; exit 7")
    began = time.monotonic()
    assert finish(channel, call) == (7, EndFlag(0))
    assert time.monotonic() - began > 0.2


def test_a_child_that_holds_the_pipes_does_not_hold_up_the_end(channel: Channel) -> None:
    mark = new_mark()
    call = shell(channel, f"echo before; sleep {mark} & echo after")
    with within(5):
        assert finish(channel, call) == (0, EndFlag(0))
    assert b"".join(data for _, data in iter(call.take_output, None)) == b"before\nafter\n"
    assert eventually(lambda: is_running(mark))  # until it has become `sleep`, it bears the shell's name
    kill_all(mark)


def test_a_timeout_at_the_moment_of_the_end_either_ends_all_or_nothing(channel: Channel) -> None:
    for number in range(100):
        mark = new_mark()  # its own: a child that was not `sleep` yet when a round ended is not the next one's
        command = f"sleep {mark} > /dev/null 2>&1 & exec sleep 0.02"
        _, flags = finish(channel, shell(channel, command, timeout=0.02 + number % 15 / 2000))
        assert EndFlag.LOST not in flags
        if EndFlag.TIMED_OUT in flags:
            assert not is_running(mark)
        else:
            kill_all(mark)


def test_a_signal_that_crosses_the_end_of_a_command_does_not_lose_it(channel: Channel) -> None:
    for _ in range(300):
        call = run(channel, "/bin/true")
        assert channel.wait(call, lambda call=call: call.pid or call.over, soon())  # type: ignore[misc]
        for _ in range(3):
            channel.send_signal(call, signal.SIGURG, soon())
        assert finish(channel, call) == (0, EndFlag(0))


def test_what_runs_ends_with_its_host(channel: Channel) -> None:
    mark = new_mark()
    call = shell(channel, f"setsid sleep {mark} & (setsid sh -c 'sleep {mark} &' &); echo ready; sleep {mark}")
    assert channel.wait(call, lambda: call.output, soon())
    assert eventually(lambda: is_running(mark))
    channel.close()
    assert eventually(lambda: not is_running(mark))


# --- arguments ------------------------------------------------------------------------------------------


def test_arguments_that_the_kernel_refuses_are_a_failure_and_the_memory_is_given_back(channel: Channel) -> None:
    stream = channel._stream
    assert isinstance(stream, ProcessStream)
    call = run(channel, "/bin/true", *["x" * 100_000] * 40)
    assert channel.wait(call, lambda: call.over, soon())
    assert call.failed is not None
    assert call.failed[0] == Failure.NO_PROGRAM

    assert finish(channel, run(channel, "/bin/true")) == (0, EndFlag(0))
    assert status_bytes(stream.process.pid, "VmRSS") < 2 << 20


def test_a_directory_that_is_missing_or_a_file_is_a_failure(channel: Channel) -> None:
    for directory in ("/proc/nonexistent", "/etc/passwd"):
        request = CommandRequest(argv=["/bin/true"], working_dir=directory)
        call = start(channel, request)
        assert channel.wait(call, lambda call=call: call.over, soon())  # type: ignore[misc]
        assert call.failed is not None
        assert call.failed[0] == Failure.NO_DIRECTORY


@pytest.mark.parametrize("user", ["nosuchuser", "root:nosuchgroup", "99999999999", "-1", ":", "0:-1", "x" * 300])
def test_a_user_that_is_missing_is_a_failure(channel: Channel, user: str) -> None:
    call = start(channel, CommandRequest(argv=["/bin/true"]), user=user)
    assert channel.wait(call, lambda: call.over, soon())
    assert call.failed is not None
    assert call.failed[0] == Failure.NO_USER


# --- what is done to it ---------------------------------------------------------------------------------

HARMLESS = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE, signal.SIGALRM]


@pytest.mark.parametrize("number", HARMLESS)
def test_a_signal_ends_neither_a_channel_nor_a_supervisor(channel: Channel, number: signal.Signals) -> None:
    stream = channel._stream
    assert isinstance(stream, ProcessStream)
    call = shell(channel, "read line; exit 5", input=b"")
    for pid in (supervisor_of(channel, call), stream.process.pid):
        os.kill(pid, number)
    send(channel, call, b"go\n")
    assert finish(channel, call) == (5, EndFlag(0))


def test_a_supervisor_that_was_stopped_goes_on(channel: Channel) -> None:
    call = shell(channel, "read line; exit 5", input=b"")
    os.kill(supervisor_of(channel, call), signal.SIGSTOP)
    send(channel, call, b"go\n")
    assert finish(channel, call) == (5, EndFlag(0))


def test_a_supervisor_that_was_killed_is_said_to_be_lost(channel: Channel) -> None:
    mark = new_mark()
    call = run(channel, "/bin/sleep", mark)
    os.kill(supervisor_of(channel, call), signal.SIGKILL)
    assert finish(channel, call) == (128 + signal.SIGKILL, EndFlag.LOST)
    assert call.pid is not None
    os.kill(call.pid, signal.SIGKILL)


def test_a_timeout_is_kept_while_the_channel_is_stopped(channel: Channel) -> None:
    stream = channel._stream
    assert isinstance(stream, ProcessStream)
    mark = new_mark()
    call = run(channel, "/bin/sleep", mark, timeout=0.3)
    assert channel.wait(call, lambda: call.pid, soon())
    os.kill(stream.process.pid, signal.SIGSTOP)
    assert eventually(lambda: not is_running(mark))
    os.kill(stream.process.pid, signal.SIGCONT)
    assert finish(channel, call) == (128 + signal.SIGKILL, EndFlag.TIMED_OUT)


def test_a_channel_that_was_killed_ends_its_commands() -> None:
    mark = new_mark()
    with local_channel() as channel:
        stream = channel._stream
        assert isinstance(stream, ProcessStream)
        call = shell(channel, f"setsid sleep {mark} & sleep {mark}")
        assert channel.wait(call, lambda: call.pid, soon())
        stream.process.kill()
        with pytest.raises(ChannelBroken):
            finish(channel, call)
        assert eventually(lambda: not is_running(mark))


def test_a_command_that_nobody_wants_the_number_of_says_nothing_of_its_start(channel: Channel) -> None:
    call = start(channel, CommandRequest(argv=["/bin/sh", "-c", "exit 3"]), flags=StartFlag.QUIET)
    assert finish(channel, call) == (3, EndFlag(0))
    assert call.pid is None


# --- time and size --------------------------------------------------------------------------------------


def test_an_idle_channel_takes_no_time_and_little_memory(channel: Channel) -> None:
    stream = channel._stream
    assert isinstance(stream, ProcessStream)
    finish(channel, run(channel, "/bin/true"))

    def cpu_ticks() -> int:
        fields = Path(f"/proc/{stream.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    before = cpu_ticks()
    assert not channel.wait(Call(0), lambda: False, Deadline.after(2))
    assert cpu_ticks() - before <= 1
    assert status_bytes(stream.process.pid, "VmHWM") < 2 << 20


@pytest.mark.parametrize("arguments", [["sleep", "x"], ["sleep", "-1"], ["channel", ""], ["channel"], ["other"], []])
def test_arguments_that_make_no_sense_are_refused(arguments: list[str]) -> None:
    assert subprocess.run([agent_program.file_for(), *arguments], check=False, capture_output=True).returncode == 64


def test_a_channel_that_lacks_what_another_one_may_get_ends_with_a_code_of_its_own() -> None:
    limited = ["sh", "-c", 'ulimit -n 3; exec "$0" channel 60', agent_program.file_for()]
    ended = subprocess.run(limited, check=False, capture_output=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr.startswith(b"signalfd4: ")) == (IN_WANT, b"", True)


DRAIN = """
import os, sys, time
open(sys.argv[1], "w").write(str(os.getpid()))
time.sleep(1)
os.read(0, 1 << 20)
time.sleep(600)
"""


def test_what_something_else_has_read_of_a_commands_last_words_does_not_hold_up_its_end(
    channel: Channel, tmp_path: Path
) -> None:
    """The channel had no room for them, and so did not see them go; the reader holds the pipe open."""
    (tmp_path / "drain.py").write_text(DRAIN)
    drain = f"{sys.executable} {tmp_path}/drain.py {tmp_path}/pid"
    call = shell(channel, f"sleep 0.5; head -c 60000 /dev/zero; (exec </proc/self/fd/1; exec {drain}) & exit 5")
    floods = [shell(channel, "cat /dev/zero & cat /dev/zero >&2", timeout=60) for _ in range(8)]
    time.sleep(2.5)  # what is on its way fills all pipes: nothing can be waited for there
    try:
        assert finish(channel, call)[0] == 5
    finally:
        assert eventually(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
        os.kill(int((tmp_path / "pid").read_text()), signal.SIGKILL)
        for flood in floods:
            channel.kill(flood, soon())
