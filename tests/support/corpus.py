"""Where the fuzzers start from: the seeds in tests/trust/corpus, and what becomes of them.

`python -m tests.support.corpus` makes the seeds again: some are recorded from the agent, the others are made here.
"""

from __future__ import annotations

import random
import stat
import struct
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from podkit.agent.command_request import CommandRequest
from podkit.agent.file_records import PIECE_BYTES, Entry, Mark, Refusal, encode_data_header, encode_entry, encode_mark
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


FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777
HOSTILE_NAMES: dict[str, bytes] = {
    "up": b"../x",
    "up-from-below": b"sub/../../x",
    "dots": b"..",
    "dot": b".",
    "absolute": b"/tmp/podkit-fuzz-x",
    "empty-part": b"sub//x",
    "long-part": b"x" * 256,
    "long-path": b"/".join([b"d"] * 2050),
    "not-utf8": b"\xff\xfe",
    "control": b"a\n\x1b[2J",
    "below-a-link": b"link/x",
}


def _file(below: bytes, data: bytes = b"data", mode: int = FILE) -> bytes:
    pieces = encode_data_header(len(data)) + data if data else b""
    return encode_entry(Entry(below, mode, len(data))) + pieces + encode_mark(Mark.END)


def _refused(number: int, found: int, below: bytes) -> bytes:
    body = struct.pack("<lQ", number, found) + below
    return struct.pack("<LB3x", len(body), 5) + body


def transfer() -> Mapping[str, bytes]:
    """The records of a download."""
    top, done = encode_entry(Entry(b"", DIRECTORY)), encode_mark(Mark.DONE)
    found = {f"name-{name}": top + _file(below) + done for name, below in HOSTILE_NAMES.items()}
    return found | {
        "a-file": _file(b"") + done,
        "a-tree": top + encode_entry(Entry(b"sub", DIRECTORY)) + _file(b"sub/x") + _file(b"empty", b"") + done,
        "a-link-and-a-file-in-it": top + encode_entry(Entry(b"l", LINK, link=b"/etc")) + _file(b"l/x") + done,
        "a-name-twice": top + _file(b"x") * 2 + done,
        "a-file-as-directory": top + _file(b"x") + _file(b"x/y") + done,
        "two-cases": top + _file(b"x") + _file(b"X") + done,
        "set-user-id": top + _file(b"x", mode=stat.S_IFREG | 0o6777) + done,
        "a-device": top + encode_entry(Entry(b"null", stat.S_IFCHR | 0o666)) + done,
        "larger-than-any-piece": encode_entry(Entry(b"", FILE)) + encode_data_header(PIECE_BYTES + 1) + b"x",
        "refused": top + _refused(13, 0, b"secret"),
        "refused-for-its-size": top + _refused(Refusal.TOO_LARGE, (1 << 64) - 1, b"x"),
        "length-of-4-gib": struct.pack("<LB3x", 0xFFFF_FFFF, 2),
        "out-of-order": encode_mark(Mark.END) + top,
        "half-an-entry": top[:20],
    }


def listing() -> Mapping[str, bytes]:
    """The records of a directory's listing."""
    done = encode_mark(Mark.DONE)
    return {
        "nothing": done,
        "hostile-names": b"".join(encode_entry(Entry(below, FILE)) for below in HOSTILE_NAMES.values()) + done,
        "largest-numbers": encode_entry(Entry(b"x", 0xFFFF_FFFF, (1 << 64) - 1, (1 << 63) - 1, 0xFFFF_FFFF)) + done,
        "smallest-time": encode_entry(Entry(b"x", FILE, 0, -(1 << 63))) + done,
        "a-long-link": encode_entry(Entry(b"l", LINK, link=b"x" * 4096)) + done,
        "data-in-a-listing": encode_entry(Entry(b"x", FILE)) + encode_data_header(4) + b"data" + done,
        "refused": _refused(20, 0, b""),
    }


def main() -> None:
    """Write all seeds; the recorded one differs each time in its process numbers."""
    for kind, made in {
        "from-agent": {"recorded-command": recorded(), **from_agent()},
        "to-agent": to_agent(),
        "transfer": transfer(),
        "listing": listing(),
    }.items():
        directory = CORPUS / kind
        directory.mkdir(parents=True, exist_ok=True)
        for name, data in made.items():
            (directory / f"{name}.bin").write_bytes(data)


if __name__ == "__main__":
    main()
