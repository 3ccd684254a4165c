"""The byte stream of one exec, on a connection of its own.

The Docker SDK's exec stream ignores the client's timeout and shares a connection pool, so podkit speaks these few
lines of HTTP itself: one request, which the engine answers by turning the connection into a raw stream.
Source: Docker Engine API, "Start an exec instance".
"""

from __future__ import annotations

import json
import select
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from http.client import HTTPException, parse_headers
from io import BytesIO

from podkit.backends._frames import FrameReader
from podkit.backends._tls import TlsSocket
from podkit.backends.base import Chunk, Stream
from podkit.errors import EngineTimeout, EngineUnavailable
from podkit.utils._deadline import Deadline

_READ_BYTES = 256 << 10
_WRITE_BYTES = 256 << 10
_POLL_SECONDS = 3600.0  # poll() counts milliseconds in 32 bits
_BEGINNING_BYTES = 2 << 10
_HEADERS_MAX_BYTES = 64 << 10
_ANSWER_MAX_BYTES = 64 << 10


Connection = socket.socket | TlsSocket


class Refused(Exception):
    """The engine answered with an error instead of a stream; crosses no further than the backend."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def _wait(connection: Connection, deadline: Deadline, *, writing: bool = False) -> None:
    if not writing and isinstance(connection, TlsSocket) and connection.pending():
        return  # decrypted already: the kernel's buffer is empty, and polling it would wait for nothing
    poller = select.poll()
    poller.register(connection, select.POLLOUT if writing else select.POLLIN)
    while not poller.poll(deadline.at_most(_POLL_SECONDS).remaining * 1000):
        if not deadline.reached:
            continue
        raise EngineTimeout(f"the engine's stream was not ready to {'take' if writing else 'give'} bytes in time")


def _receive(connection: Connection, size: int, deadline: Deadline) -> bytes:
    while True:
        _wait(connection, deadline)
        try:
            return connection.recv(size)
        except BlockingIOError:
            continue  # a TLS record that has come in part


def _send(connection: Connection, data: bytes, deadline: Deadline) -> None:
    view = memoryview(data)
    while view or (isinstance(connection, TlsSocket) and connection.unsent):
        _wait(connection, deadline, writing=True)
        with suppress(BlockingIOError):
            view = view[connection.send(view[:_WRITE_BYTES]) :]


def open_raw_stream(connection: Connection, path: str, body: object, deadline: Deadline) -> bytes:
    """Send a POST request that turns `connection` into a raw stream.

    Returns:
        What has come of the stream already, behind the headers of the answer.

    Raises:
        Refused: the engine answered with an error.
        EngineTimeout: it did not answer in time.
        EngineUnavailable: it closed the connection.
    """
    connection.settimeout(0)  # every wait is a poll with a deadline
    content = json.dumps(body).encode()
    request = (
        f"POST {path} HTTP/1.1\r\nHost: podkit\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    _send(connection, request.encode() + content, deadline)
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0:
        if len(received) > _HEADERS_MAX_BYTES:
            raise EngineUnavailable("the engine's answer has headers without an end: is it a Docker engine?")
        received += _more(connection, deadline)
    status_line, _, headers = received[: end + 4].partition(b"\r\n")
    rest = received[end + 4 :]
    try:
        version, status = status_line.split()[:2]
        length = int(parse_headers(BytesIO(headers)).get("Content-Length") or 0)
        code = int(status)
    except (ValueError, HTTPException) as exc:
        raise EngineUnavailable(f"the answer {status_line[:80]!r} is not HTTP's: is it a Docker engine?") from exc
    if not version.startswith(b"HTTP/"):
        raise EngineUnavailable(f"the answer {status_line[:80]!r} is not HTTP's: is it a Docker engine?")
    if code in (101, 200):
        return rest
    raise Refused(code, _error_message(connection, min(length, _ANSWER_MAX_BYTES), rest, deadline))


def _more(connection: Connection, deadline: Deadline) -> bytes:
    try:
        data = _receive(connection, _READ_BYTES, deadline)
    except ConnectionResetError as exc:
        raise EngineUnavailable(f"the engine broke the connection before it answered: {exc}") from exc
    if not data:
        raise EngineUnavailable("the engine closed the connection before it answered")
    return data


def _error_message(connection: Connection, length: int, rest: bytes, deadline: Deadline) -> str:
    while len(rest) < length:
        rest += _more(connection, deadline)
    try:
        return str(json.loads(rest)["message"])
    except (ValueError, KeyError, TypeError):
        return rest.decode(errors="replace")


class SocketStream:
    """An `ExecStream` over a connection that speaks Docker's frames.

    Args:
        connection: the stream owns it.
        received: what was read of the stream already.
        exit_code: asks the engine how the process ended; once the output has ended it gets its beginning, where the
            engine says why it could not start the process, and `None` before.
    """

    def __init__(self, connection: Connection, received: bytes, exit_code: Callable[[str | None], int | None]) -> None:
        self._connection = connection
        self._frames = FrameReader()
        self._chunks: deque[Chunk] = deque(self._frames.feed(received))
        self._beginning = b""
        self._ended = False
        self._has_written = False
        self._ask_exit_code = exit_code

    def read(self, deadline: Deadline) -> Chunk:
        """See `ExecStream.read`."""
        while not self._chunks:
            try:
                data = _receive(self._connection, _READ_BYTES, deadline)
            except EngineTimeout:
                raise
            except ConnectionResetError as exc:
                if not self._has_written:
                    raise EngineUnavailable(f"the stream to the command broke: {exc}") from exc
                data = b""  # an engine that closes with input unread resets: the command ended before it read all
            except (OSError, ValueError) as exc:  # ValueError: closed by another thread
                raise EngineUnavailable(f"the stream to the command broke: {exc}") from exc
            if not data:
                if self._frames.inside_frame:
                    raise EngineUnavailable("the engine's output stream ended in the middle of a frame")
                self._ended = True
                return Chunk(Stream.STDOUT, b"")
            self._chunks.extend(self._frames.feed(data))
        chunk = self._chunks.popleft()
        if len(self._beginning) < _BEGINNING_BYTES:
            self._beginning += chunk.data[:_BEGINNING_BYTES]
        return chunk

    def write(self, data: bytes, deadline: Deadline) -> None:
        """See `ExecStream.write`."""
        self._has_written = True
        try:
            _send(self._connection, data, deadline)
        except (ConnectionResetError, ValueError) as exc:  # ValueError: closed by another thread
            raise BrokenPipeError("the command takes no more input") from exc

    def close_stdin(self) -> None:
        """See `ExecStream.close_stdin`."""
        with suppress(OSError):  # the process may have ended already
            self._connection.shutdown(socket.SHUT_WR)

    def exit_code(self) -> int | None:
        """See `ExecStream.exit_code`."""
        return self._ask_exit_code(self._beginning.decode(errors="replace").strip() if self._ended else None)

    def close(self) -> None:
        """See `ExecStream.close`."""
        with suppress(OSError):  # wakes a thread that waits in `write`; closing alone would leave it there
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
