"""The other end of a connection: an engine that answers by a script, slowly, wrongly, or never."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ID = "f" * 64
"""Of a container."""

Step = bytes | float | Callable[[socket.socket], object]
"""What a peer does next: send bytes, pause for some seconds, or something else with its socket."""


def play(connection: socket.socket, script: Iterable[Step]) -> None:
    """Do the steps one after another; a peer that went away ends them."""
    with suppress(OSError):
        for step in script:
            if isinstance(step, bytes):
                connection.sendall(step)
            elif isinstance(step, float):
                time.sleep(step)
            else:
                step(connection)


def read_request(connection: socket.socket) -> bytes:
    """Read a request with its body, as far as the test server needs to understand it."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    length = next(
        (int(line.split(b":")[1]) for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), 0
    )
    while len(body) < length:
        body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def peer(*script: Step) -> Iterator[socket.socket]:
    """Give a connection to a peer that plays its script and then waits, with the connection open."""
    ours, theirs = socket.socketpair()
    thread = threading.Thread(daemon=True, target=play, args=(theirs, script))
    thread.start()
    try:
        yield ours
    finally:
        ours.close()
        thread.join(5)
        theirs.close()
        assert not thread.is_alive()


# --- a Docker engine's HTTP ------------------------------------------------------------------------


def reply(status: int, body: object) -> bytes:
    """A whole answer."""
    content = b"" if status == 204 else json.dumps(body).encode()
    head = f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


def error(status: int, message: str) -> list[Step]:
    """The script of an engine that refuses."""
    return [reply(status, {"message": message})]


def chunk(data: bytes) -> bytes:
    """A piece of an answer that comes in pieces."""
    return b"%x\r\n%s\r\n" % (len(data), data)


CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
MISSING = reply(404, {"message": "page not found"})


def hang_up(connection: socket.socket) -> None:
    """Close the connection in the middle."""
    connection.shutdown(socket.SHUT_RDWR)


def freeze(connection: socket.socket) -> None:
    """Do nothing more until the client goes away."""
    connection.recv(1)


class EngineServer:
    """Answers as an engine on a Unix socket, by `answers`: "POST /containers/create" -> script, without the version.

    Attributes:
        answers: what to play; anything else is not found.
        requests: what came, as "METHOD /path".
        bodies: the JSON that came with it, by the same words.
    """

    def __init__(self, path: Path, *, api: str = "1.41") -> None:
        self.answers: dict[str, list[Step]] = {"GET /version": [reply(200, {"ApiVersion": api, "Version": "test"})]}
        self.requests: list[str] = []
        self.bodies: dict[str, Any] = {}
        self._connections: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._start(self._accept)

    def close(self) -> None:
        """Hang up on everybody."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
        for connection in self._connections:
            connection.close()

    def _start(self, target: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._connections.append(connection)
                self._start(self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError):
            while request := read_request(connection):
                head, _, body = request.partition(b"\r\n\r\n")
                method, target, _ = head.split(b"\r\n")[0].decode().split(" ")
                key = f"{method} {re.sub(r'^/v[0-9.]+', '', target.split('?')[0])}"
                self.requests.append(f"{method} {target}")
                self.bodies[key] = json.loads(body) if body else None
                play(connection, self.answers.get(key, [MISSING]))
