"""The records of the agent's part for files. Pure code; the other side is `native/records.h`.

A record is a header of 8 bytes, little-endian (the body's length, its type, three zeros), and a body. Records
from inside are hostile: every length is bounded, and an impossible record is a `RecordViolation`.
"""

from __future__ import annotations

import stat
import struct
from collections.abc import Iterator
from enum import Enum, IntEnum
from typing import NamedTuple

PIECE_BYTES = 64 << 10
"""The most that one record of data from the agent holds; the other way it may hold more."""

KEEP_MODE = 0xFFFF_FFFF
"""In place of a mode: the replaced file's, or 0666 less the umask."""

_HEADER = struct.Struct("<LB3x")
_ENTRY = struct.Struct("<QqLLLL")
_REFUSED = struct.Struct("<lQ")
_PATH_BYTES = 4096


class RecordViolation(Exception):
    """The other side broke the protocol."""


class _Type(IntEnum):
    ENTRY = 1
    DATA = 2
    END = 3
    DONE = 4
    REFUSED = 5


_LONGEST = {
    _Type.ENTRY: _ENTRY.size + 2 * _PATH_BYTES,
    _Type.DATA: PIECE_BYTES,
    _Type.END: 0,
    _Type.DONE: 0,
    _Type.REFUSED: _REFUSED.size + _PATH_BYTES,
}


class Entry(NamedTuple):
    """A file, or anything else that has a name.

    Attributes:
        below: its path below the requested one; empty for that one itself. Hostile: it may hold anything.
        mode: type and permissions, as in `stat`.
        size: in bytes.
        modified_seconds: since 1970, when its content was changed the last time.
        modified_nanoseconds: the rest of that.
        uid: of its owner.
        gid: of its group.
        link: a symlink's target.
    """

    below: bytes
    mode: int
    size: int = 0
    modified_seconds: int = 0
    modified_nanoseconds: int = 0
    uid: int = 0
    gid: int = 0
    link: bytes = b""


class Refused(NamedTuple):
    """It could not be done.

    Attributes:
        number: Linux's error number, or one of `Refusal`.
        found: the count that exceeded a limit; else 0. Hostile: it may be any number.
        below: its subject, below the requested path.
    """

    number: int
    found: int
    below: bytes


class Mark(Enum):
    """An empty record: a file is complete, or all is done."""

    END = 3
    DONE = 4


class Refusal(IntEnum):
    """Reasons that are no error numbers of Linux."""

    NOT_REGULAR = 1001
    TOO_LARGE = 1002
    TOO_MANY = 1003
    CUT_SHORT = 1004
    NO_PARENT = 1005


Record = Entry | memoryview | Mark | Refused
"""A `memoryview` is a piece of the file that the last `Entry` began."""


class RecordDecoder:
    """Cuts a byte stream into records. Data passes as it comes; at most one other incomplete record is kept.

    Args:
        with_data: a regular file's content follows its entry.

    Attributes:
        complete: whether the last record has come.
    """

    def __init__(self, *, with_data: bool = True) -> None:
        self.complete = False
        self._with_data = with_data
        self._kept = b""
        self._data_left = 0
        self._in_file = False

    def feed(self, data: bytes) -> Iterator[Record]:
        """Yield the records that are complete, in order.

        Raises:
            RecordViolation: one has no known type, no length that this type may have, or no place where it stands.
        """
        view = memoryview(self._kept + data if self._kept else data)
        self._kept = b""
        while view:
            if self._data_left:
                piece = view[: self._data_left]
                self._data_left -= len(piece)
                view = view[len(piece) :]
                yield piece
                continue
            if len(view) < _HEADER.size:
                break
            type, length = self._check(*_HEADER.unpack_from(view))
            end = _HEADER.size + (0 if type is _Type.DATA else length)
            if len(view) < end:
                break
            body, view = bytes(view[_HEADER.size : end]), view[end:]
            if type is _Type.DATA:
                self._data_left = length
            else:
                yield self._read(type, body)
        self._kept = bytes(view)

    def _check(self, length: int, number: int) -> tuple[_Type, int]:
        try:
            type = _Type(number)
        except ValueError:
            raise RecordViolation(f"a record of unknown type {number}") from None
        if length > _LONGEST[type] or (type is _Type.DATA and not length):
            raise RecordViolation(f"a record {type.name} of {length} bytes")
        in_place = type is _Type.REFUSED or (type in (_Type.DATA, _Type.END)) == self._in_file
        if self.complete or not in_place:
            raise RecordViolation(f"a record {type.name} out of its place")
        return type, length

    def _read(self, type: _Type, body: bytes) -> Record:
        if type is _Type.ENTRY:
            return self._read_entry(body)
        if type is _Type.REFUSED:
            if len(body) < _REFUSED.size:
                raise RecordViolation("a record REFUSED without a reason")
            self.complete = True
            number, found = _REFUSED.unpack_from(body)
            return Refused(number, found, body[_REFUSED.size :])
        if type is _Type.DONE:
            self.complete = True
            return Mark.DONE
        self._in_file = False
        return Mark.END

    def _read_entry(self, body: bytes) -> Entry:
        texts = body[_ENTRY.size :].split(b"\0")
        if len(texts) != 3 or texts[2]:
            raise RecordViolation("a record ENTRY without its two texts")
        size, seconds, nanoseconds, mode, uid, gid = _ENTRY.unpack_from(body)
        self._in_file = self._with_data and stat.S_ISREG(mode)
        return Entry(texts[0], mode, size, seconds, nanoseconds, uid, gid, texts[1])


def encode_entry(entry: Entry) -> bytes:
    """Encode a file's beginning, a directory or a link."""
    numbers = _ENTRY.pack(
        entry.size, entry.modified_seconds, entry.modified_nanoseconds, entry.mode, entry.uid, entry.gid
    )
    body = numbers + entry.below + b"\0" + entry.link + b"\0"
    return _HEADER.pack(len(body), _Type.ENTRY) + body


def encode_data_header(size: int) -> bytes:
    """Encode the header before so many bytes of a file."""
    return _HEADER.pack(size, _Type.DATA)


def encode_mark(mark: Mark) -> bytes:
    """Encode an empty record."""
    return _HEADER.pack(0, mark.value)
