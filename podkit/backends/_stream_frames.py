"""The header that Docker puts before each piece of output. Pure code.

Eight bytes: the stream (1 stdout, 2 stderr), three zeros, and the length of the piece, big-endian.
Source: Docker Engine API, "Attach to a container", stream format.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from podkit.backends.base import Chunk, Stream
from podkit.errors import EngineError

_HEADER = struct.Struct(">BxxxL")
_STREAMS = {1: Stream.STDOUT, 2: Stream.STDERR}


class FrameReader:
    """Cuts a byte stream into chunks. Keeps less than a header between calls: frames of any length cost no memory."""

    def __init__(self) -> None:
        self._header = b""  # the part of the next header that has come
        self._stream = Stream.STDOUT
        self._left = 0  # bytes of the present frame that have not come yet; 0 between two frames

    @property
    def inside_frame(self) -> bool:
        """Whether the stream stands in the middle of a frame."""
        return bool(self._left or self._header)

    def feed(self, data: bytes) -> Iterator[Chunk]:
        """Yield the chunks that `data` completes, in order.

        Raises:
            EngineError: a header names no known stream.
        """
        view = memoryview(data)
        while view:
            if not self._left:
                view = self._read_header(view)
                continue
            piece, view = view[: self._left], view[self._left :]
            self._left -= len(piece)
            yield Chunk(self._stream, bytes(piece))

    def _read_header(self, view: memoryview) -> memoryview:
        missing = _HEADER.size - len(self._header)
        self._header += bytes(view[:missing])
        if len(self._header) == _HEADER.size:
            kind, self._left = _HEADER.unpack(self._header)  # header -> data
            self._header = b""
            if kind not in _STREAMS:
                raise EngineError(f"the engine's output stream has a frame of unknown kind {kind}")
            self._stream = _STREAMS[kind]
        return view[missing:]
