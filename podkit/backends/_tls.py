"""TLS over a socket, for one reading and one writing thread.

Python's own `ssl.SSLSocket` cannot be used by two threads at once, and cannot end one direction and go on with the
other; a command's stream needs both.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress

_RECORDS_BYTES = 64 << 10


class TlsSocket:
    """As much of a non-blocking socket as a stream uses. `recv` raises `BlockingIOError` where it would wait.

    Args:
        connection: connected, with a timeout that bounds the handshake; it is owned from then on.
        context: how to encrypt.
        hostname: whose certificate is expected.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, hostname: str) -> None:
        self._socket = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._lock = threading.Lock()  # guards all below and the TLS object; never held while waiting
        self._unsent = b""
        self._decrypted = b""  # before this side ended its direction
        self._shake_hands()
        self._socket.settimeout(0)

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                self._socket.sendall(self._outgoing.read())
                self._take(self._socket.recv(_RECORDS_BYTES))
            else:
                self._socket.sendall(self._outgoing.read())
                return

    def _take(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _flush(self) -> None:
        self._unsent += self._outgoing.read()
        with suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]

    @property
    def unsent(self) -> bool:
        """Whether encrypted bytes wait for the kernel's buffer. `send(b"")` tries again."""
        return bool(self._unsent)

    def fileno(self) -> int:
        """Return the descriptor, for polling."""
        return self._socket.fileno()

    def pending(self) -> bool:
        """Whether `recv` has decrypted bytes that no poll shows."""
        with self._lock:
            return bool(self._decrypted or self._incoming.pending or self._tls.pending())

    def recv(self, size: int) -> bytes:
        """Return decrypted bytes, none at the peer's end."""
        with self._lock:
            if self._decrypted:
                data, self._decrypted = self._decrypted[:size], self._decrypted[size:]
                return data
            try:
                return self._read(size)
            except ssl.SSLWantReadError:
                self._take(self._socket.recv(_RECORDS_BYTES))
            try:
                return self._read(size)
            except ssl.SSLWantReadError:
                raise BlockingIOError from None  # a record that has come in part

    def _read(self, size: int) -> bytes:
        try:
            return self._tls.read(size)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        finally:
            with suppress(OSError):  # a peer that has gone takes no answers, but what it sent is still to be read
                self._flush()

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and send. The kernel's leftovers are kept for the next call."""
        with self._lock:
            self._flush()
            if self._unsent or not data:
                return 0
            sent = self._tls.write(data)
            self._flush()
            return sent

    def shutdown(self, how: int) -> None:
        """End this side's direction, with TLS's notice. `SHUT_RDWR` ends both at once."""
        if how == socket.SHUT_RDWR:
            self._socket.shutdown(how)
            return
        with self._lock:
            # what has come already is taken first: ending looks for the peer's end, and trips over data
            with suppress(ssl.SSLWantReadError):
                while data := self._read(_RECORDS_BYTES):
                    self._decrypted += data
            with suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
            self._flush()

    def settimeout(self, seconds: float) -> None:
        """Accept 0 only: it never blocks."""

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
