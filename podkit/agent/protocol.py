"""The frames between podkit and its agent. Pure code; the other side is `native/agent.h`.

A frame is a header of 12 bytes, little-endian: the body's length, the command's number
(0 for the channel itself), the type, and three zeros. Frames from inside are hostile: every length is bounded, and an
impossible frame is a `ProtocolViolation`.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from enum import IntEnum, IntFlag
from typing import NamedTuple

PROTOCOL = 3
DATA_MAX = 32 << 10
START_MAX = 4 << 20
INPUT_WINDOW = 1 << 20
NO_SUCH_USER, IN_WANT, NOT_ALLOWED = 67, 75, 77
"""A channel's exit codes: no such user, out of a resource (another one may succeed), not allowed to become the user."""

_HEADER = struct.Struct("<LLB3x")
_START = struct.Struct("<LLLLL")
_TIMEOUT_LONGEST_MS = 0xFFFF_FFFF


class ProtocolViolation(Exception):
    """The other side broke the protocol. The channel is of no use any more."""


class ToAgent(IntEnum):
    """Frames from podkit."""

    START = 1
    INPUT = 2
    SIGNAL = 3
    KILL = 4
    CREDIT = 5
    PING = 6


class FromAgent(IntEnum):
    """Frames from the agent."""

    HELLO = 64
    STARTED = 65
    STDOUT = 66
    STDERR = 67
    TAKEN = 68
    EXIT = 69
    FAILED = 70
    PONG = 71
    BYE = 72


class StartFlag(IntFlag):
    """How a command is started."""

    INPUT = 1
    HOME = 2
    BUILT_IN = 4
    OWN_DIRECTORY = 8
    QUIET = 16


class EndFlag(IntFlag):
    """Facts of a command's end."""

    TIMED_OUT = 1
    OOM = 2
    SURVIVORS = 4
    LOST = 8


class Failure(IntEnum):
    """Why nothing of a command was run."""

    NO_USER = 1
    NO_DIRECTORY = 2
    NO_PROGRAM = 3
    NO_PROCESS = 4
    NO_AGENT = 5


_SIZES: dict[FromAgent, tuple[int, int]] = {
    FromAgent.HELLO: (4, 4),
    FromAgent.STARTED: (4, 4),
    FromAgent.STDOUT: (1, DATA_MAX),
    FromAgent.STDERR: (1, DATA_MAX),
    FromAgent.TAKEN: (8, 8),
    FromAgent.EXIT: (8, 8),
    FromAgent.FAILED: (8, 8),
    FromAgent.PONG: (4, 4),
    FromAgent.BYE: (0, 0),
}
"""How many bytes a frame of each type holds, at least and at most."""

_TYPES = {int(type): type for type in FromAgent}  # quicker than the enum's own look-up


class Frame(NamedTuple):
    """A frame from the agent, its type and size checked."""

    type: FromAgent
    id: int
    data: bytes

    def numbers(self) -> tuple[int, ...]:
        """Return the frame's unsigned 32-bit numbers."""
        return struct.unpack(f"<{len(self.data) // 4}L", self.data)


class FrameDecoder:
    """Cuts the agent's byte stream into frames. Keeps at most one incomplete frame between calls."""

    def __init__(self) -> None:
        self._kept = b""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Return the frames that are complete now, in order.

        Raises:
            ProtocolViolation: a frame has no known type, or no length that this type may have.
        """
        if self._kept:
            data = self._kept + data
        at, size = 0, len(data)
        while size - at >= _HEADER.size:
            length, id, number = _HEADER.unpack_from(data, at)
            type = _TYPES.get(number)
            if type is None:
                raise ProtocolViolation(f"a frame of unknown type {number}")
            shortest, longest = _SIZES[type]
            if not shortest <= length <= longest:
                raise ProtocolViolation(f"a frame {type.name} of {length} bytes")
            end = at + _HEADER.size + length
            if end > size:
                break
            yield Frame(type, id, data[at + _HEADER.size : end])
            at = end
        self._kept = data[at:]


def encode(type: ToAgent, id: int, data: bytes | memoryview = b"") -> bytes:
    """Return the bytes of a frame."""
    return b"".join((_HEADER.pack(len(data), id, type), data))


def encode_number(type: ToAgent, id: int, number: int) -> bytes:
    """Return a frame that holds one number, as bytes."""
    return encode(type, id, struct.pack("<L", number))


def encode_start(
    id: int,
    argv: Sequence[str],
    *,
    user: str,
    working_dir: str,
    environment: Mapping[str, str],
    timeout: float | None,
    window: int,
    flags: int,
) -> bytes | None:
    """Return the frame that starts a command. `None` if it is too long."""
    variables = [f"{name}={value}" for name, value in environment.items()]
    texts = [user, working_dir, *argv, *variables]
    data = b"\0".join(text.encode(errors="surrogateescape") for text in texts) + b"\0"
    timeout_ms = 0 if timeout is None else max(1, round(timeout * 1000))
    if timeout_ms > _TIMEOUT_LONGEST_MS:
        timeout_ms = 0  # 49 days and more: podkit's own clock ends it
    if _START.size + len(data) > START_MAX:
        return None
    return encode(ToAgent.START, id, _START.pack(timeout_ms, window, flags, len(argv), len(variables)) + data)
