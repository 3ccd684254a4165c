"""Frames that no agent of ours sends, made of those that it does: for fuzz tests, the same ones for the same seed."""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator

from podkit.agent.protocol import DATA_MAX, PROTOCOL, FromAgent

_HEADER = struct.Struct("<LLB3x")
_NUMBERS = (0, 1, 2, 3, 4, 11, 12, 13, 255, 32767, 32768, 32769, 65535, 1 << 20, 1 << 31, (1 << 32) - 1)


def encode(type: int, id: int, data: bytes = b"") -> bytes:
    """The bytes of a frame, whether there is such a type or not."""
    return _HEADER.pack(len(data), id, type) + data


def numbers(type: int, id: int, *values: int) -> bytes:
    """The bytes of a frame that holds numbers."""
    return encode(type, id, struct.pack(f"<{len(values)}L", *values))


def _honest(rng: random.Random, ids: int) -> bytes:
    id = rng.randint(1, ids)
    choices = (
        lambda: numbers(FromAgent.STARTED, id, rng.randint(1, 1 << 22)),
        lambda: encode(FromAgent.STDOUT, id, rng.randbytes(rng.choice((1, 7, 100, 4096, DATA_MAX)))),
        lambda: encode(FromAgent.STDERR, id, rng.randbytes(rng.randint(1, 64))),
        lambda: numbers(FromAgent.TAKEN, id, 0, 0),
        lambda: numbers(FromAgent.EXIT, id, rng.randint(0, 255), rng.randint(0, 15)),
        lambda: numbers(FromAgent.FAILED, id, rng.randint(1, 4), rng.randint(1, 40)),
        lambda: numbers(FromAgent.PONG, id, rng.randint(0, 9)),
        lambda: numbers(FromAgent.HELLO, 0, PROTOCOL),
        lambda: encode(FromAgent.BYE, 0),
    )
    return rng.choices(choices, weights=(20, 90, 60, 40, 8, 2, 20, 1, 1))[0]()


def _mutated(rng: random.Random, frame: bytes) -> bytes:
    changed = bytearray(frame)
    kind = rng.randrange(7)
    if kind == 0:  # a bit
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    elif kind == 1:  # the length
        changed[0:4] = struct.pack("<L", rng.choice(_NUMBERS))
    elif kind == 2:  # the id
        changed[4:8] = struct.pack("<L", rng.choice(_NUMBERS))
    elif kind == 3:  # the type
        changed[8] = rng.randrange(256)
    elif kind == 4:  # the end is missing
        del changed[rng.randrange(len(changed)) :]
    elif kind == 5:  # something stands between
        at = rng.randrange(len(changed))
        changed[at:at] = rng.randbytes(rng.randint(1, 16))
    else:  # a number of it
        at = rng.randrange(8, len(changed), 4)
        changed[at : at + 4] = struct.pack("<L", rng.choice(_NUMBERS))
    return bytes(changed)


def fuzzed(rng: random.Random, count: int, *, ids: int) -> Iterator[bytes]:
    """So many mutated frames, and honest ones for the commands 1 to `ids` between them."""
    for _ in range(count):
        for _ in range(rng.randint(0, 8)):
            yield _honest(rng, ids)
        yield _mutated(rng, _honest(rng, ids))


def cut(rng: random.Random, data: bytes) -> Iterator[bytes]:
    """The same bytes in pieces, as a network may cut them."""
    at = 0
    while at < len(data):
        size = rng.choice((1, 2, 3, 11, 12, 13, 100, 4096, 65536))
        yield data[at : at + size]
        at += size
