"""A connection between podkit and the engine that can go silent, or be lost, while the engine itself goes on."""

from __future__ import annotations

import os
import socket
import struct
import threading
from contextlib import suppress

ENGINE = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
"""Where the engine of the tests listens."""

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset


def _connect_to_engine() -> socket.socket:
    kind, _, address = ENGINE.partition("://")
    if kind == "unix":
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        return connection
    host, _, port = address.partition(":")
    return socket.create_connection((host, int(port or 2375)))


class EngineProxy:
    """Listens on a port of its own and passes everything on to the engine, both ways."""

    def __init__(self) -> None:
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
            far = _connect_to_engine()
            with self._lock:
                if listener not in self._open:  # it has gone away meanwhile
                    near.close()
                    far.close()
                    return
                self._open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    self._start(threading.Thread(target=self._pump, args=(source, sink), daemon=True))

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._flowing.wait()
                sink.sendall(data)
        with suppress(OSError):
            sink.shutdown(socket.SHUT_WR)
