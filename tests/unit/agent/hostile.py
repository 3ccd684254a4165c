"""An agent that somebody has replaced: it answers every command in the way that its only argument names."""

from __future__ import annotations

import itertools
import os
import queue
import stat
import struct
import sys
import threading
from collections.abc import Callable, Iterable

from podkit.agent.protocol import PROTOCOL

HEADER = struct.Struct("<LLB3x")
START, HELLO, STARTED, STDOUT, EXIT = 1, 64, 65, 66, 69


def record(type: int, body: bytes = b"") -> bytes:
    return struct.pack("<LB3x", len(body), type) + body


def entry(below: bytes, mode: int = stat.S_IFREG | 0o644) -> bytes:
    return record(1, struct.pack("<QqLLLL", 0, 1 << 62, 0, mode, 0, 0) + below + b"\0\0")


TOP = entry(b"", stat.S_IFDIR | 0o755)
ANSWERS: dict[str, Callable[[], Iterable[bytes]]] = {
    "garbage": lambda: [b"\xff" * 1000],
    "nothing": list,
    "half": lambda: [TOP[:20]],
    "done": lambda: [record(4)],
    "data for ever": lambda: itertools.chain([entry(b"")], itertools.repeat(record(2, bytes(32_000)))),
    "names for ever": lambda: itertools.chain([TOP], (entry(b"%d" % n, stat.S_IFLNK) for n in itertools.count())),
    "one name for ever": lambda: itertools.repeat(TOP),
    "an odd refusal": lambda: [record(5, struct.pack("<lQ", 424242, 1 << 63) + b"\xff\n" * 1000)],
    "an escape": lambda: [TOP, entry(b"../escaped"), record(3), record(4)],
    "a link and a file in it": lambda: [TOP, entry(b"l", stat.S_IFLNK), entry(b"l/x"), record(3), record(4)],
}


def send(type: int, id: int, data: bytes) -> None:
    view = memoryview(HEADER.pack(len(data), id, type) + data)
    while view:
        view = view[os.write(1, view) :]


def read(size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = os.read(0, size - len(data))
        if not more:
            os._exit(0)
        data += more
    return data


def listen(commands: queue.SimpleQueue[int]) -> None:
    """Read all that comes, so that podkit never waits for that, and note the commands."""
    while True:
        length, id, type = HEADER.unpack(read(HEADER.size))
        read(length)
        if type == START:
            commands.put(id)


def main(name: str) -> None:
    send(HELLO, 0, struct.pack("<L", PROTOCOL))
    commands: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=listen, args=(commands,), daemon=True).start()
    while True:
        id = commands.get()
        send(STARTED, id, struct.pack("<L", 2))
        for piece in ANSWERS[name]():
            for at in range(0, len(piece), 32 << 10):
                send(STDOUT, id, piece[at : at + (32 << 10)])
        send(EXIT, id, struct.pack("<LL", 0, 0))


if __name__ == "__main__":
    main(sys.argv[1])
