"""Where the fuzzers start from: the seeds in tests/trust/corpus, and what becomes of them.

`python -m tests.support.corpus` makes the seeds again: some are recorded from the agent, the others are made here.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from podkit.agent.commands import CommandRequest
from podkit.agent.protocol import DATA_MAX, Failure, FromAgent, StartFlag, ToAgent, encode, encode_number, encode_start
from podkit.backends.base import Chunk
from podkit.utils._deadline import Deadline
from tests.support import frames
from tests.support.agent import ProcessStream

CORPUS = Path(__file__).parents[1] / "trust/corpus"
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFF)


# --- reading and spoiling --------------------------------------------------------------------------------


@cache
def seeds(kind: str) -> tuple[bytes, ...]:
    """The seeds of a directory, in the order of their names."""
    found = tuple(path.read_bytes() for path in sorted((CORPUS / kind).glob("*.bin")))
    assert found, f"no seeds in {CORPUS / kind}"
    return found


def mutated(rng: random.Random, kind: str, *, most: int = 4) -> bytes:
    """A seed that was spoiled in one to `most` places."""
    data = bytearray(rng.choice(seeds(kind)))
    for _ in range(rng.randint(1, most)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(7):
            case 0 if data:
                data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                data[at : at + 1] = rng.randbytes(1)
            case 2:
                data[at : at + 4] = struct.pack("<L", rng.choice(_NUMBERS))
            case 3:
                del data[at : at + rng.choice((1, 3, 4, 8, 12, 100))]
            case 4:
                data[at:at] = rng.randbytes(rng.randint(1, 16))
            case 5:
                data[at:at] = data[at : at + rng.randint(1, 200)]  # twice
            case _:
                other = rng.choice(seeds(kind))
                data[at:] = other[rng.randrange(len(other)) :]
    return bytes(data)


# --- making the seeds ------------------------------------------------------------------------------------


class _Recorder(ProcessStream):
    """The agent, with all that it says."""

    def __init__(self) -> None:
        super().__init__("channel", "60")
        self.said = b""

    def read(self, deadline: Deadline) -> Chunk | None:
        chunk = super().read(deadline)
        self.said += chunk.data if chunk else b""
        return chunk


def recorded() -> bytes:
    """What the agent says to a command."""
    from tests.unit.agent.local import LocalCommands

    stream = _Recorder()
    request = CommandRequest(argv=["/bin/sh", "-c", "echo out; echo err >&2; exit 3"])
    LocalCommands(stream).prepare("", request, "").communicate()
    stream.close()
    hello = 16  # the fuzzer's own agent greets by itself
    return stream.said[hello:]


def from_agent() -> Mapping[str, bytes]:
    """What an agent says to the commands 1 to 4, at the edges of what it may say."""
    exit = frames.numbers(FromAgent.EXIT, 1, 0, 0)
    started = frames.numbers(FromAgent.STARTED, 1, 2)
    return {
        "larger-than-any-output": started + struct.pack("<LLB3x", DATA_MAX + 1, 1, FromAgent.STDOUT) + b"x",
        "both-streams": started
        + b"".join(frames.encode(type, 1, b"x") for type in (FromAgent.STDOUT, FromAgent.STDERR) * 20)
        + exit,
        "four-commands": b"".join(frames.numbers(FromAgent.STARTED, id, id) for id in range(1, 5))
        + b"".join(frames.numbers(FromAgent.EXIT, id, id, 0) for id in range(4, 0, -1)),
        "all-failures": b"".join(
            frames.numbers(FromAgent.FAILED, id, failure, 2) for id, failure in enumerate(Failure, 1)
        ),
        "all-types": started
        + b"".join(
            frames.numbers(type, 1, *([1] * count))
            for type, count in ((FromAgent.TAKEN, 2), (FromAgent.PONG, 1), (FromAgent.EXIT, 2))
        )
        + frames.encode(FromAgent.BYE, 0),
        "exit-with-every-flag": started + frames.numbers(FromAgent.EXIT, 1, 137, 15),
        "exit-twice": started + exit + exit,
        "output-after-the-end": started + exit + frames.encode(FromAgent.STDOUT, 1, b"late"),
        "length-of-4-gib": frames.encode(FromAgent.STDOUT, 1, b"x" * 8).replace(b"\x08\0\0\0", b"\xff" * 4, 1),
        "unknown-type": frames.encode(255, 1, b"x"),
        "unknown-command": frames.encode(FromAgent.STDOUT, 0xFFFF_FFFF, b"x"),
        "half-a-header": started + exit[:7],
        "half-a-body": started + frames.encode(FromAgent.STDOUT, 1, bytes(100))[:50],
    }


def to_agent() -> Mapping[str, bytes]:
    """What podkit says: programs that do no harm, whatever becomes of their arguments; none of the built-in ones."""

    def start(*argv: str, flags: int = 0, timeout: float | None = 0.5, window: int = 1000) -> bytes:
        made = encode_start(
            1, argv, user="", working_dir="/", environment={"A": "1"}, timeout=timeout, window=window, flags=flags
        )
        assert made is not None
        return made

    cat = start("/bin/cat", flags=StartFlag.INPUT)
    return {
        "true": start("/bin/true"),
        "echo-beyond-its-window": start("/bin/echo", "x" * 2000, window=1) + encode_number(ToAgent.CREDIT, 1, 1 << 20),
        "cat-with-input": cat + encode(ToAgent.INPUT, 1, b"hello") + encode(ToAgent.INPUT, 1),
        "cat-with-much-input": cat + encode(ToAgent.INPUT, 1, bytes(1000)) * 3,
        "cat-that-is-killed": cat + encode(ToAgent.KILL, 1),
        "cat-that-is-signalled": cat + b"".join(encode_number(ToAgent.SIGNAL, 1, number) for number in (0, 15, 65)),
        "sleep-over-its-time": start("/bin/sleep", "5", timeout=0.001),
        "nothing-to-run": start("/nonexistent"),
        "no-arguments": start(),
        "twice-the-same-number": start("/bin/true") * 2,
        "input-without-a-command": encode(ToAgent.INPUT, 7, b"x"),
        "credit-beyond-32-bits": cat + encode_number(ToAgent.CREDIT, 1, 0xFFFF_FFFF) * 3,
        "ping": encode_number(ToAgent.PING, 0, 1),
        "length-of-4-gib": b"\xff" * 4 + encode(ToAgent.INPUT, 1, b"x" * 8)[4:],
        "half-a-header": encode(ToAgent.PING, 0)[:7],
        "half-a-start": start("/bin/true")[:40],
    }


def main() -> None:
    """Write all seeds; the recorded one differs each time in its process numbers."""
    for kind, made in {
        "from-agent": {"recorded-command": recorded(), **from_agent()},
        "to-agent": to_agent(),
    }.items():
        directory = CORPUS / kind
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in made.items():
            (directory / f"{name}.bin").write_bytes(data)


if __name__ == "__main__":
    main()
