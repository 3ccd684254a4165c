"""Both ends of a channel under frames that cannot be right: nothing hangs, nothing grows, nothing else is raised."""

from __future__ import annotations

import itertools
import os
import random
import re
import resource
import struct
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from podkit.agent.channel import Channel, ChannelBroken
from podkit.agent.channel_call import WINDOW_BYTES, Call
from podkit.agent.command_request import CommandRequest
from podkit.agent.protocol import DATA_MAX, PROTOCOL, FromAgent, StartFlag, ToAgent, encode, encode_number, encode_start
from podkit.errors import EngineTimeout
from podkit.utils._deadline import Deadline
from tests.support import corpus, frames
from tests.support.agent import ProcessStream, soon
from tests.unit.agent.stream import ScriptedStream

_COMMANDS = 4
_MOST_BYTES = _COMMANDS * (WINDOW_BYTES + (4 << 20) + DATA_MAX)
"""What the commands of one channel may have unread: each its window, and what a pipe or two still held at the end."""

PROGRAMS = (["/bin/true"], ["/bin/cat"], ["/bin/echo", "x" * 5000], ["/nonexistent"], ["/bin/sleep", "5"])
"""Programs that do no harm, whatever a changed bit makes of their arguments."""


@dataclass
class Figures:
    """What a fuzz test saw.

    Attributes:
        frames: how many were sent; of what podkit hears, only the mutated ones are counted.
        rounds: through how many channels.
        ends: how those ended.
        seconds: the time it took.
        longest_seconds: of a processor, that one round took: a machine that is busy changes little of it.
        most_bytes: of output that was kept unread at a time, or of the agent's memory.
        grown_bytes: of this process's memory, at its peak.
    """

    frames: int = 0
    rounds: int = 0
    ends: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    longest_seconds: float = 0.0
    most_bytes: int = 0
    grown_bytes: int = 0

    def __str__(self) -> str:
        time = f"{self.seconds:.1f} s (longest {self.longest_seconds:.3f})"
        ends = ", ".join(f"{count} {end}" for end, count in self.ends.most_common())
        return (
            f"{self.frames:,} frames, {self.rounds:,} channels, {time}, "
            f"most {self.most_bytes / 1024:,.0f} KiB, grown {self.grown_bytes / 1024:,.0f} KiB\n  ends: {ends}"
        )


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _processor_seconds() -> float:
    """What this process and the agents that it has waited for have used. One that only waits is found by `soon()`."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def _rounds(figures: Figures, count: int, rng: random.Random, per_round: int) -> Iterator[int]:
    """Yield the number of frames of each round, and keep the time."""
    before, began = _peak_bytes(), time.monotonic()
    while figures.frames < count:
        size = min(rng.randint(1, per_round), count - figures.frames)
        used = _processor_seconds()
        yield size
        figures.longest_seconds = max(figures.longest_seconds, _processor_seconds() - used)
        figures.frames += size
        figures.rounds += 1
    figures.seconds = time.monotonic() - began
    figures.grown_bytes = _peak_bytes() - before


# --- podkit's end ---------------------------------------------------------------------------------------


def fuzz_host(count: int, seed: int) -> Figures:
    """Let agents say so many mutated frames, and honest ones between; any error but a channel's crosses.

    First each seed of the corpus as it is; later every fourth agent says one that was spoiled.
    """
    rng, figures = random.Random(seed), Figures()
    for text in corpus.seeds("from-agent"):
        _say(rng, text, figures)
    for size in _rounds(figures, count, rng, 3):
        if rng.random() < 0.25:
            _say(rng, corpus.mutated(rng, "from-agent", most=size), figures)
        else:
            _say(rng, b"".join(frames.fuzzed(rng, size, ids=_COMMANDS)), figures)
    return figures


def _say(rng: random.Random, text: bytes, figures: Figures) -> None:
    stream = ScriptedStream(frames.numbers(FromAgent.HELLO, 0, PROTOCOL), *frames.cut(rng, text))
    channel = Channel(stream)
    channel.greet(soon())
    calls = [_start(channel) for _ in range(_COMMANDS)]
    figures.ends[_hear(rng, channel, calls, figures)] += 1
    channel.close()


def _start(channel: Channel) -> Call:
    call, request = channel.new_call(), CommandRequest(argv=["true"], input=b"")
    channel.start(call, request, user="", working_dir="", flags=StartFlag(0), deadline=soon())
    return call


def _hear(rng: random.Random, channel: Channel, calls: list[Call], figures: Figures) -> str:
    """Read all that the agent says, as commands do of which some read their output and some do not; how that ended."""
    reading, nobody = [call for call in calls if rng.random() < 0.7], Call(0)
    quiet = False
    while not quiet:
        stop, asked = rng.randint(1, 50), itertools.count()
        try:
            quiet = not channel.wait(nobody, lambda stop=stop, asked=asked: next(asked) >= stop, Deadline.after(0))
            for call in calls:
                if call.input_credit > 0 and not call.over:
                    channel.send_input(call, bytes(min(call.input_credit, 1000)), soon())
        except ChannelBroken as exc:
            return re.sub(r"\d+", "N", str(exc).split("broke: ")[1])
        size = sum(len(data) for call in calls for _, data in call.output)
        figures.most_bytes = max(figures.most_bytes, size)
        assert size <= _MOST_BYTES
        for call in reading:
            taken = sum(len(data) for _, data in iter(call.take_output, None))
            channel.give_credit(call, taken, soon())
    return "none"


# --- the agent's end ------------------------------------------------------------------------------------


def _to_agent(rng: random.Random) -> bytes:
    id = rng.randint(0, 8)
    kind = rng.choices(list(ToAgent), weights=(8, 20, 10, 4, 20, 4))[0]
    if kind is ToAgent.START:
        flags = StartFlag(rng.choice((0, 1, 2, 3)))
        timeout = rng.choice((None, 0.001, 0.1, 1, 1e6))
        frame = encode_start(
            id,
            rng.choice(PROGRAMS),
            user="",
            working_dir=rng.choice(("", "/tmp", "/proc/nonexistent")),
            environment={"A": "1"},
            timeout=timeout,
            window=rng.choice((0, 1, 5000, 1 << 20)),
            flags=flags,
        )
        assert frame is not None
        return frame
    if kind is ToAgent.INPUT:
        return encode(kind, id, rng.randbytes(rng.choice((0, 1, 1000, DATA_MAX, 100_000))))
    if kind in (ToAgent.SIGNAL, ToAgent.CREDIT):
        return encode_number(kind, id, rng.choice((0, 1, 9, 15, 19, 64, 65, 255, 256, 100_000, 0xFFFF_FFFF)))
    return encode(kind, id)


def _changed(rng: random.Random, frame: bytes) -> bytes:
    changed = bytearray(frame)
    kind = rng.randrange(4)
    if kind == 0:
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == 1:
        changed[0:4] = struct.pack("<L", rng.choice((0, 1, 11, 19, 20, 21, 32769, 4 << 20, (4 << 20) + 1, 0xFFFF_FFFF)))
    elif kind == 2:
        changed[8] = rng.randrange(256)
    else:
        at = rng.randrange(0, len(changed))
        changed[at : at + 4] = rng.randbytes(4)
    return bytes(changed)


def fuzz_agent(count: int, seed: int, *, program: Path | None = None, most_bytes: int = 8 << 20) -> Figures:
    """Send so many frames to agents here: each ends, or ends as soon as its host is gone, and leaves no process.

    Before its frames an agent gets a seed of the corpus: each as it is, and then spoiled ones.
    """
    rng, figures = random.Random(seed), Figures()
    untouched = list(corpus.seeds("to-agent"))
    for size in _rounds(figures, count, rng, 400):
        stream = ProcessStream("channel", "infinity", program=program)
        mutated = rng.choice((0.0, 0.005, 0.05, 0.5))
        end = "none"
        try:
            if untouched or rng.random() < 0.5:
                _exchange(stream, untouched.pop() if untouched else corpus.mutated(rng, "to-agent"))
            for _ in range(size):
                frame = _to_agent(rng)
                _exchange(stream, _changed(rng, frame) if rng.random() < mutated else frame)
        except BrokenPipeError:
            end = "it ended"
        figures.most_bytes = max(figures.most_bytes, _peak_of(stream.process.pid))
        stream.close_stdin()
        code = _drain(stream)
        assert code in (0, 65), f"the agent ended with {code}"
        assert figures.most_bytes <= most_bytes, f"the agent took {figures.most_bytes} bytes"
        figures.ends[f"{end}, exit code {code}"] += 1
        stream.close()
    return figures


def _exchange(stream: ProcessStream, frame: bytes) -> None:
    """Send a frame, reading whatever comes: an agent that cannot get rid of its output takes nothing."""
    while (chunk := stream.read(Deadline.after(0))) and chunk.data:
        pass
    end = soon()
    while frame:
        try:
            stream.write(frame[:4096], Deadline.after(0.01))
            frame = frame[4096:]
        except EngineTimeout:
            assert not end.expired, "the agent takes nothing and says nothing"
            stream.read(Deadline.after(0))


def _drain(stream: ProcessStream) -> int:
    end = soon()
    while (chunk := stream.read(end)) and chunk.data:  # it and all of its commands have closed their output
        pass
    return stream.process.wait(end.remaining)


def _peak_of(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0


def default_count(count: int) -> int:
    """How many frames a test sends: the environment may ask for more."""
    return int(os.environ.get("PODKIT_FUZZ_FRAMES", count))
