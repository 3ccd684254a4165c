"""HTTP requests to an engine over podkit's own sockets, each with a deadline.

Docker's SDK bounds no call as a whole and takes longer to import than all of podkit. An engine's API needs little of
HTTP: one request, one answer (of known length, in chunks, or up to the end), and connections that are used again.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import threading
import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from podkit.backends._endpoint import Endpoint, dial
from podkit.errors import EngineTimeout, EngineUnavailable
from podkit.utils._deadline import ENGINE_CALL_SECONDS, NEVER, Deadline

if TYPE_CHECKING:
    from podkit.backends._endpoint import Connection

READ_BYTES = 256 << 10
_WRITE_BYTES = 256 << 10
_POLL_SECONDS = 3600.0  # poll() counts milliseconds in 32 bits

# an engine is trusted, but something else may listen at its address: no answer fills the memory
_HEADERS_MAX_BYTES = 64 << 10
_ANSWER_MAX_BYTES = 256 << 20
_REFUSAL_MAX_BYTES = 64 << 10
_IDLE_CONNECTIONS = 16  # more than this are closed after their request
NOT_MODIFIED = 304
"""The refusal to start a running container, or to stop one that does not run."""
_EMPTY = (204, NOT_MODIFIED)  # statuses without a body, even if the headers announce one
_BEGIN = b"HTTP/"


class Refused(Exception):
    """The engine answered with an error. Internal: the backend turns it into one of podkit's."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


# --- bytes, with a deadline --------------------------------------------------------------------------


def wait_for(connection: Connection, deadline: Deadline, *, writing: bool = False) -> None:
    """Wait until the socket can be read, or written."""
    if not writing and not isinstance(connection, socket.socket) and connection.pending():
        return  # bytes that were decrypted already: no poll shows them
    while not _is_ready(connection, deadline.at_most(_POLL_SECONDS).remaining, writing=writing):
        if deadline.expired:
            raise EngineTimeout(f"the engine did not {'take' if writing else 'send'} anything in time")


def _is_ready(connection: Connection, seconds: float, *, writing: bool) -> bool:
    if not hasattr(select, "poll"):  # eventlet's monkey-patching takes it away
        waiting = [connection.fileno()]
        return any(select.select([] if writing else waiting, waiting if writing else [], [], seconds))
    poller = select.poll()
    poller.register(connection, select.POLLOUT if writing else select.POLLIN)
    return bool(poller.poll(seconds * 1000))


def receive(connection: Connection, size: int, deadline: Deadline) -> bytes:
    """Receive at most `size` bytes, waiting for the first. Empty at the end."""
    while True:
        try:
            return connection.recv(size)  # before any wait: bytes that have come count even after the deadline
        except BlockingIOError:  # nothing has come, or only a part of a TLS record
            wait_for(connection, deadline)


def send(connection: Connection, data: bytes, deadline: Deadline) -> None:
    """Send all of `data`."""
    view = memoryview(data)
    while view or (not isinstance(connection, socket.socket) and connection.unsent):
        try:
            sent = connection.send(view[:_WRITE_BYTES])
        except BlockingIOError:
            sent = 0
        view = view[sent:]
        if not sent:  # the kernel's buffer is full; a TLS connection may still keep encrypted bytes for it
            wait_for(connection, deadline, writing=True)


# --- one answer --------------------------------------------------------------------------------------


class Incoming:
    """An answer as it comes.

    Attributes:
        deadline: when to stop waiting for bytes; it may be changed between two reads.
        left: bytes that were received and not used yet.
        status: of the answer, once its head was read.
    """

    def __init__(self, connection: Connection, deadline: Deadline) -> None:
        self._connection = connection
        self.deadline = deadline
        self._headers: dict[bytes, bytes] = {}
        self.left = b""
        self.status = 0

    def read_head(self) -> None:
        """Read the status line and the headers.

        Raises:
            EngineTimeout: they did not come in time.
            EngineUnavailable: the connection ended, or this is not HTTP.
        """
        while len(self.left) < len(_BEGIN):
            self._more()
        if not self.left.startswith(_BEGIN):  # check it now: another protocol may never send the end of a head
            raise _not_http(self.left)
        lines = self._until(b"\r\n\r\n", _HEADERS_MAX_BYTES, "headers").split(b"\r\n")
        try:
            self.status = int(lines[0].split()[1])
            self._headers = dict(_header(line) for line in lines[1:])
            self._length()  # raises ValueError for a length that is no number
        except (ValueError, IndexError) as exc:
            raise _not_http(lines[0]) from exc

    @property
    def keeps_connection(self) -> bool:
        """Whether another answer can follow once the body was read."""
        # a body without a length ends with the connection; bytes that are left would begin the next answer
        ends = self.status not in _EMPTY and not self._chunked and self._length() is None
        return not (ends or self.left or self._headers.get(b"connection", b"").lower() == b"close")

    def read_body(self, most: int = _ANSWER_MAX_BYTES) -> bytes:
        """Read the body. One of more than `most` bytes is refused."""
        return b"".join(self.pieces(most))

    def pieces(self, most: int) -> Iterator[bytes]:
        """Yield the body as it comes. A length above `most` is refused before anything is read."""
        if self.status in _EMPTY:
            return
        length = self._length()
        if self._chunked:  # it counts before a length, as in RFC 9112
            yield from self._chunks(most)
        elif length is not None:
            _check_size(length, most)
            yield from self._exactly(length)
        else:
            yield from self._until_the_end(most)

    def _until_the_end(self, most: int) -> Iterator[bytes]:
        piece, self.left, size = self.left, b"", 0
        while True:
            size += len(piece)
            _check_size(size, most)
            yield piece
            piece = receive(self._connection, READ_BYTES, self.deadline)
            if not piece:
                return

    @property
    def _chunked(self) -> bool:
        return self._headers.get(b"transfer-encoding", b"").lower() == b"chunked"

    def _length(self) -> int | None:
        given = self._headers.get(b"content-length")
        if given is None:
            return None
        if not given.isdigit():
            raise ValueError(given)
        return int(given)

    def _chunks(self, most: int) -> Iterator[bytes]:
        total = 0
        while True:
            line = self._until(b"\r\n", _HEADERS_MAX_BYTES, "a chunk").partition(b";")[0]  # without extensions
            try:
                size = int(line.strip(), 16)
            except ValueError:
                size = -1
            if size < 0:  # int() takes a sign as well
                raise EngineUnavailable(f"the engine's answer has a chunk of {line[:20]!r} bytes")
            if not size:  # the last chunk; an empty line ends the trailers
                while self._until(b"\r\n", _HEADERS_MAX_BYTES, "trailers"):
                    pass
                return
            total += size
            _check_size(total, most)
            yield from self._exactly(size)
            self._until(b"\r\n", _HEADERS_MAX_BYTES, "a chunk")  # the end of line behind its bytes

    def _until(self, mark: bytes, most: int, what: str) -> bytes:
        while (end := self.left.find(mark)) < 0:
            if len(self.left) > most:
                raise EngineUnavailable(f"the engine's answer has {what} without an end: is it a Docker engine?")
            self._more()
        found, self.left = self.left[:end], self.left[end + len(mark) :]
        return found

    def _exactly(self, size: int) -> Iterator[bytes]:
        while size:
            if not self.left:
                self._more(min(size, READ_BYTES))
            piece, self.left = self.left[:size], self.left[size:]
            size -= len(piece)
            yield piece

    def _more(self, size: int = READ_BYTES >> 4) -> None:  # most answers are short
        try:
            data = receive(self._connection, size, self.deadline)
        except ConnectionResetError as exc:
            raise EngineUnavailable(f"the engine broke the connection before it answered: {exc}") from exc
        if not data:
            raise EngineUnavailable("the engine closed the connection before it answered")
        self.left += data


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise EngineUnavailable(f"the engine's answer has more than {most} bytes")


def _not_http(begin: bytes) -> EngineUnavailable:
    return EngineUnavailable(f"the answer {begin[:80]!r} is not HTTP's: is it a Docker engine?")


def _header(line: bytes) -> tuple[bytes, bytes]:
    name, colon, value = line.partition(b":")
    if not colon:
        raise ValueError(line)
    return name.strip().lower(), value.strip()


def refusal(incoming: Incoming) -> Refused:
    """Return a refusal with the engine's own words, read from its body."""
    body = incoming.read_body(_REFUSAL_MAX_BYTES)
    try:
        return Refused(incoming.status, str(json.loads(body)["message"]))
    except (ValueError, KeyError, TypeError):  # such as a proxy's page
        return Refused(incoming.status, body.decode(errors="replace"))


def request_bytes(method: str, path: str, content: bytes = b"", headers: str = "") -> bytes:
    """Return the bytes of a request."""
    # a body is a JSON object or a tar archive, and an archive begins with a name
    typed = "Content-Type: application/json\r\n" if content.startswith(b"{") else ""
    length = f"Content-Length: {len(content)}\r\n" if content or method != "GET" else ""
    return f"{method} {path} HTTP/1.1\r\nHost: podkit\r\n{headers}{typed}{length}\r\n".encode() + content


# --- many requests -----------------------------------------------------------------------------------


class HttpClient:
    """The connections to one engine. Safe to use from many threads: each request has a connection to itself.

    Args:
        endpoint: where the engine listens.
        prefix: the beginning of all paths, such as `/v1.41`.
    """

    def __init__(self, endpoint: Endpoint, prefix: str = "") -> None:
        self._endpoint = endpoint
        self._prefix = prefix
        self._idle: list[Connection] = []
        self._lock = threading.Lock()  # guards _idle only; never held while the engine is asked
        weakref.finalize(self, _close_all, self._idle)  # a function without `self`, which it would keep alive

    def close(self) -> None:
        """Close idle connections. The client stays usable."""
        with self._lock:
            _close_all(self._idle)

    def until(self, deadline: Deadline) -> Requests:
        """Return a `Requests` that keeps to a deadline."""
        return Requests(self, deadline)

    @contextmanager
    def answer(self, method: str, target: str, content: bytes, headers: str, deadline: Deadline) -> Iterator[Incoming]:
        """Send a request and read its answer inside the block. Raises as `Requests.ask`."""
        connection = self._connection(deadline)
        kept = False
        try:
            send(connection, request_bytes(method, self._prefix + target, content, headers), deadline)
            incoming = Incoming(connection, deadline)
            incoming.read_head()
            if incoming.status >= 300:
                raise refusal(incoming)
            yield incoming
            # only here: after an error, an unread rest of this answer would begin the next one
            kept = incoming.keeps_connection and self._keep(connection)
        except OSError as exc:
            if isinstance(exc, EngineTimeout | EngineUnavailable):
                raise
            raise EngineUnavailable(f"the engine broke the connection: {exc}") from exc
        finally:
            if not kept:
                connection.close()

    def _connection(self, deadline: Deadline) -> Connection:
        while True:
            with self._lock:
                found = self._idle.pop() if self._idle else None  # idle -> in use, by this thread alone
            if found is None:
                break
            if _is_open(found):  # checked before its use: a request that may have arrived is never sent twice
                return found
            found.close()  # the engine closed it meanwhile, such as at a restart
        try:
            made = dial(self._endpoint, deadline)
        except TimeoutError as exc:
            raise EngineTimeout("the engine did not take the connection in time") from exc
        except OSError as exc:
            if isinstance(exc, EngineUnavailable):
                raise
            raise EngineUnavailable(f"the engine cannot be reached: {exc}") from exc
        made.settimeout(0)  # every wait is a poll with a deadline
        return made

    def _keep(self, connection: Connection) -> bool:
        with self._lock:
            if len(self._idle) >= _IDLE_CONNECTIONS:
                return False
            self._idle.append(connection)  # in use -> idle
            return True


class Requests:
    """Requests to one engine that share a deadline.

    Attributes:
        deadline: when each of them gives up.
    """

    def __init__(self, client: HttpClient, deadline: Deadline) -> None:
        self._client = client
        self.deadline = deadline

    def until(self, deadline: Deadline) -> Requests:
        """Return the same requests with another deadline. Cleaning up has one of its own."""
        return Requests(self._client, deadline)

    def ask(self, method: str, *path: str, query: Mapping[str, object] | None = None, body: object = None) -> Any:
        """Make a request and return its answer's JSON, `None` if empty.

        Args:
            method: such as `GET`.
            path: its parts; each of them is quoted.
            query: names and values of the query, which are quoted too.
            body: `bytes` are sent unchanged, anything else as JSON.

        Raises:
            Refused: the engine answered with an error.
            EngineTimeout: it did not answer in time.
            EngineUnavailable: it cannot be reached, or broke the connection.
        """
        data = self.fetch(method, *path, query=query, body=body)
        return _from_json(data) if data else None

    def fetch(self, method: str, *path: str, query: Mapping[str, object] | None = None, body: object = None) -> bytes:
        """Make a request and return its answer's bytes. See `ask`."""
        content = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        with self._client.answer(method, _target(path, query), content, "", self.deadline) as incoming:
            return incoming.read_body()

    def events(self, *path: str, query: Mapping[str, object], headers: str) -> Iterator[Any]:
        """Make a POST request and yield its answer's lines of JSON as they come.

        With the deadline `NEVER`, each piece of the answer may take 60 s.
        """
        rest = b""
        with self._client.answer("POST", _target(path, query), b"", headers, self._next_deadline()) as incoming:
            for piece in incoming.pieces(sys.maxsize):
                *lines, rest = (rest + piece).split(b"\n")  # a piece may end in the middle of a line
                yield from (_from_json(line) for line in lines if line.strip())
                _check_size(len(rest), _HEADERS_MAX_BYTES)
                incoming.deadline = self._next_deadline()
            if rest.strip():
                yield _from_json(rest)

    def _next_deadline(self) -> Deadline:
        return Deadline.after(ENGINE_CALL_SECONDS) if self.deadline == NEVER else self.deadline


def _target(path: tuple[str, ...], query: Mapping[str, object] | None) -> str:
    target = "".join(f"/{quote(part, safe='')}" for part in path)
    return target + (f"?{urlencode(query)}" if query else "")


def _from_json(data: bytes) -> Any:
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as exc:
        raise EngineUnavailable(f"the engine's answer is not JSON: {data[:80]!r}") from exc


def _is_open(connection: Connection) -> bool:
    """Whether an idle connection is open and silent."""
    # bytes that nobody asked for would be taken for the next answer
    try:
        connection.recv(1)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _close_all(connections: list[Connection]) -> None:
    while connections:
        connections.pop().close()
