"""An exec's byte stream, on a connection of its own.

The Docker SDK's exec stream ignores the client's timeout and shares a connection pool, so podkit speaks HTTP itself. It
sends one request, and the engine answers by turning the connection into a raw stream.
Source: Docker Engine API, "Start an exec instance".
"""

from __future__ import annotations

import json
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from podkit.backends._http import READ_BYTES, Incoming, receive, refusal, request_bytes, send, wait_for
from podkit.backends._stream_frames import FrameReader
from podkit.backends.base import Chunk, Stream
from podkit.errors import EngineTimeout, EngineUnavailable
from podkit.utils._deadline import Deadline

if TYPE_CHECKING:
    from podkit.backends._endpoint import Connection

ExitCode = Callable[[str | None, Deadline | None], int | None]
"""Asks for the exit code of a stream's process."""

_SHORT_READ_BYTES = 16 << 10  # a buffer of 256 KiB costs ten times as much as reading a short answer
_BEGINNING_BYTES = 2 << 10  # of the output, kept for the engine's reason


def open_raw_stream(connection: Connection, path: str, body: object, deadline: Deadline) -> bytes:
    """Send a POST request that turns `connection` into a raw stream.

    Returns:
        The first bytes of the stream, if any came together with the answer's headers.

    Raises:
        Refused: the engine answered with an error.
        EngineTimeout: it did not answer in time.
        EngineUnavailable: it closed the connection.
    """
    connection.settimeout(0)  # every wait is a poll with a deadline
    upgrade = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
    send(connection, request_bytes("POST", path, json.dumps(body).encode(), upgrade), deadline)
    incoming = Incoming(connection, deadline)
    incoming.read_head()
    if incoming.status in (101, 200):  # 200: an engine without the upgrade, the stream is the same
        return incoming.left
    raise refusal(incoming)


class SocketStream:
    """An `ExecStream` over a connection that speaks Docker's frames.

    Args:
        connection: the stream owns it.
        received: the first bytes of the stream, which were read already.
        exit_code: asks the engine for the exit code, until a deadline. Once the output has ended, it also gets the
            beginning of the output, where an engine says why it could not start the process; before that, `None`.
    """

    def __init__(self, connection: Connection, received: bytes, exit_code: ExitCode) -> None:
        self._connection = connection
        self._frames = FrameReader()
        self._chunks: deque[Chunk] = deque(self._frames.feed(received))
        self._beginning = b""  # of the output; it may be the engine's reason for not starting the process
        self._read_bytes = _SHORT_READ_BYTES
        self._ended = False
        self._has_written = False  # whether a reset may be a normal end, see `read`
        self._ask_exit_code = exit_code

    def wait(self, deadline: Deadline) -> bool:
        """See `ExecStream.wait`."""
        if self._chunks:
            return True
        try:
            wait_for(self._connection, deadline)
        except EngineTimeout:
            return False
        except (OSError, ValueError) as exc:  # ValueError: closed by another thread
            raise EngineUnavailable(f"the stream to the command broke: {exc}") from exc
        return True

    def read(self, deadline: Deadline) -> Chunk | None:
        """See `ExecStream.read`."""
        while not self._chunks:
            try:
                data = receive(self._connection, self._read_bytes, deadline)
            except EngineTimeout:
                return None
            except ConnectionResetError as exc:
                if not self._has_written:
                    raise EngineUnavailable(f"the stream to the command broke: {exc}") from exc
                # a normal end: the command left input unread, and an engine that closes then resets the connection
                data = b""
            except (OSError, ValueError) as exc:  # ValueError: closed by another thread
                raise EngineUnavailable(f"the stream to the command broke: {exc}") from exc
            if not data:
                if self._frames.inside_frame:
                    raise EngineUnavailable("the engine's output stream ended in the middle of a frame")
                self._ended = True  # reading -> ended; the next read gets here again
                return Chunk(Stream.STDOUT, b"")
            # a full buffer: more is waiting, so the larger one pays from now on
            self._read_bytes = READ_BYTES if len(data) >= _SHORT_READ_BYTES else _SHORT_READ_BYTES
            self._chunks.extend(self._frames.feed(data))
        chunk = self._chunks.popleft()
        if len(self._beginning) < _BEGINNING_BYTES:
            self._beginning += chunk.data[:_BEGINNING_BYTES]
        return chunk

    def write(self, data: bytes, deadline: Deadline) -> None:
        """See `ExecStream.write`."""
        self._has_written = True  # before the first byte: the reset may come during this call
        try:
            send(self._connection, data, deadline)
        except (ConnectionResetError, ValueError) as exc:  # ValueError: closed by another thread
            raise BrokenPipeError("the command takes no more input") from exc

    def close_stdin(self) -> None:
        """See `ExecStream.close_stdin`."""
        with suppress(OSError):  # the process may have ended already
            self._connection.shutdown(socket.SHUT_WR)

    def exit_code(self, *, deadline: Deadline | None = None) -> int | None:
        """See `ExecStream.exit_code`."""
        beginning = self._beginning.decode(errors="replace").strip() if self._ended else None
        return self._ask_exit_code(beginning, deadline)

    def close(self) -> None:
        """See `ExecStream.close`."""
        with suppress(OSError):  # wakes a thread that waits in `write`; `close` alone would leave it there
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
