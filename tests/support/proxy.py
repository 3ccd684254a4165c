"""A connection between podkit and the engine that can go silent, or be lost, while the engine itself goes on."""

from __future__ import annotations

import os
import re
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum

ENGINE = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
"""Where the engine of the tests listens."""

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


def _connect(engine: str) -> socket.socket:
    kind, _, address = engine.partition("://")
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        return connection
    host, _, port = address.partition(":")
    return socket.create_connection((host, int(port or 2375)))


class EngineProxy:
    """Listens on a port of its own and passes everything on to the engine, both ways.

    Args:
        engine: its address, as in `DOCKER_HOST`.
    """

    def __init__(self, engine: str = ENGINE) -> None:
        self._engine = engine
        self._address = ("127.0.0.1", 0)
        self._flowing = threading.Event()
        self._lock = threading.Lock()  # guards _open and _threads
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.come_back()
        self.url = f"tcp://127.0.0.1:{self._address[1]}"

    def freeze(self) -> None:
        """Say and hear nothing any more, with all connections open."""
        self._flowing.clear()

    def reset(self) -> None:
        """Break all connections as a network does, and listen on."""
        self.go_away(reset=True)
        self.come_back()

    def go_away(self, *, reset: bool = False) -> None:
        """Close all connections, and listen no more."""
        with self._lock:
            closing, self._open = self._open, []
            threads, self._threads = self._threads, []
        for connection in closing:
            if reset and connection.family == socket.AF_INET:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
                how = socket.SHUT_RD
            else:
                how = socket.SHUT_RDWR
            with suppress(OSError):
                connection.shutdown(how)  # wakes whoever reads it: closing alone does not
            if reset:
                connection.close()
        self._flowing.set()
        for thread in threads:
            thread.join(10)
        for connection in closing:
            connection.close()

    def come_back(self) -> None:
        """Listen again, on the same port."""
        listener = socket.create_server(self._address, backlog=64)
        self._address = listener.getsockname()
        self._flowing.set()
        self._open.append(listener)
        self._start(threading.Thread(target=self._accept, args=(listener,), daemon=True))

    def _start(self, thread: threading.Thread) -> None:
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = _connect(self._engine)
            with self._lock:
                if listener not in self._open:  # it has gone away meanwhile
                    near.close()
                    far.close()
                    return
                self._open += [near, far]
                self._join(near, far)

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        """Pass on what comes, in two threads."""
        for source, sink in ((near, far), (far, near)):
            self._start(threading.Thread(target=self._pump, args=(source, sink), daemon=True))

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


# --- one call of many ----------------------------------------------------------------------------------

_REQUEST = re.compile(rb"(GET|PUT|POST|DELETE|HEAD) (?:/v[0-9.]+)?(/[^ ?]*)")
_FULL_ID = re.compile("[0-9a-f]{64}")


class Fault(Enum):
    """What happens to one call."""

    REQUEST_LOST = "the connection is cut before the engine hears of it"
    ANSWER_LOST = "the connection is cut after the engine has done it"
    ANSWER_CUT = "the connection is cut in the middle of the answer"
    ANSWER_LATE = "the answer comes a second late"


class FaultyProxy(EngineProxy):
    """Counts the calls that come by, and lets something happen to one of them.

    Args:
        engine: its address.
        number: which call, from 1 on; 0 for none.
        fault: what happens to it; `None` for nothing but `before` and `after`.
        before: called when it has come, and was not passed on yet.
        after: called when its answer has come, and was not passed on yet.

    Attributes:
        calls: what came by so far, such as `POST /containers/create`.
    """

    def __init__(
        self,
        engine: str,
        number: int = 0,
        fault: Fault | None = None,
        *,
        before: Callable[[], object] = lambda: None,
        after: Callable[[], object] = lambda: None,
    ) -> None:
        self.calls: list[str] = []
        self._number = number
        self._fault = fault
        self._before = before
        self._after = after
        self._ended = threading.Event()
        super().__init__(engine)

    def _join(self, near: socket.socket, far: socket.socket) -> None:
        marked = threading.Event()  # set while the answer that comes next is that of the call
        self._start(threading.Thread(target=self._pass_requests, args=(near, far, marked), daemon=True))
        self._start(threading.Thread(target=self._pass_answers, args=(near, far, marked), daemon=True))

    def go_away(self, *, reset: bool = False) -> None:
        self._ended.set()
        super().go_away(reset=reset)

    def _is_the_one(self, data: bytes) -> bool:
        if not (request := _REQUEST.match(data)):
            return False
        with self._lock:
            self.calls.append(_FULL_ID.sub("ID", f"{request[1].decode()} {request[2].decode()}"))
            return len(self.calls) == self._number

    def _pass_requests(self, near: socket.socket, far: socket.socket, marked: threading.Event) -> None:
        with suppress(OSError):
            while data := near.recv(1 << 20):
                if self._is_the_one(data):
                    self._before()
                    if self._fault is Fault.REQUEST_LOST:
                        return _cut(near, far)
                    marked.set()
                far.sendall(data)
        with suppress(OSError):
            far.shutdown(socket.SHUT_WR)

    def _pass_answers(self, near: socket.socket, far: socket.socket, marked: threading.Event) -> None:
        with suppress(OSError):
            while data := far.recv(65536):
                if marked.is_set():
                    marked.clear()
                    self._after()
                    if self._fault is Fault.ANSWER_LATE:
                        self._ended.wait(1)
                    elif self._fault is not None:
                        near.sendall(data[: len(data) // 2] if self._fault is Fault.ANSWER_CUT else b"")
                        return _cut(near, far)
                near.sendall(data)
        with suppress(OSError):
            near.shutdown(socket.SHUT_WR)


def _cut(near: socket.socket, far: socket.socket) -> None:
    for connection in (near, far):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
