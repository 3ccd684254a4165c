"""TLS over a socket, for one reading and one writing thread.

A command's stream needs two things that Python's own `ssl.SSLSocket` lacks: two threads may use it at once, and one
direction may end before the other.
"""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import suppress

_RECORDS_BYTES = 64 << 10


class TlsSocket:
    """The methods of a non-blocking socket that a stream uses. `recv` raises `BlockingIOError` if it would wait.

    Args:
        connection: connected, with a timeout that bounds the handshake. This object owns it from then on.
        context: the certificates and settings.
        hostname: the name that the engine's certificate must have.
    """

    def __init__(self, connection: socket.socket, context: ssl.SSLContext, hostname: str) -> None:
        self._socket = connection
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=hostname)
        self._lock = threading.Lock()  # guards all below and the TLS object; never held while waiting
        self._unsent = b""  # encrypted bytes that the kernel did not take yet
        self._decrypted = b""  # read before this side ended its direction, see `shutdown`
        self._shake_hands()
        self._socket.settimeout(0)  # blocking -> non-blocking: from here on, callers poll with their deadlines

    def _shake_hands(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:  # the peer's turn, once it has this side's records
                self._socket.sendall(self._outgoing.read())
                self._take(self._socket.recv(_RECORDS_BYTES))
            else:
                self._socket.sendall(self._outgoing.read())  # the last records of this side
                return

    def _take(self, data: bytes) -> None:
        if data:
            self._incoming.write(data)
        else:  # the peer closed the socket; TLS reports the end once it has read all records
            self._incoming.write_eof()

    def _flush(self) -> None:
        # in the order of encryption: a record that overtakes another one breaks the connection
        self._unsent += self._outgoing.read()
        with suppress(BlockingIOError):
            while self._unsent:
                self._unsent = self._unsent[self._socket.send(self._unsent) :]

    @property
    def unsent(self) -> bool:
        """Whether encrypted bytes wait for the kernel's buffer. `send(b"")` tries again."""
        # without the lock: the only writing thread asks, and a stale answer costs it one more try
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
            if self._decrypted:  # the oldest bytes first
                data, self._decrypted = self._decrypted[:size], self._decrypted[size:]
                return data
            try:
                return self._read(size)
            except ssl.SSLWantReadError:
                self._take(self._socket.recv(_RECORDS_BYTES))  # raises BlockingIOError if nothing has come
            try:
                return self._read(size)
            except ssl.SSLWantReadError:
                raise BlockingIOError from None  # only a part of a record has come

    def _read(self, size: int) -> bytes:
        try:
            return self._tls.read(size)
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b""
        finally:
            # reading may make records too, such as the answer to a key update
            with suppress(OSError):  # a peer that has gone takes none, but its last bytes can still be read
                self._flush()

    def send(self, data: bytes | memoryview) -> int:
        """Encrypt and send. Encrypted bytes that the kernel does not take are kept for the next call."""
        with self._lock:
            self._flush()
            if self._unsent or not data:  # the kernel's buffer is full: encrypt nothing more for now
                return 0
            sent = self._tls.write(data)
            self._flush()
            return sent

    def shutdown(self, how: int) -> None:
        """End this side's direction, with TLS's notice. `SHUT_RDWR` ends both at once."""
        if how == socket.SHUT_RDWR:
            self._socket.shutdown(how)  # without the lock and TLS's notice: it wakes a thread that waits
            return
        with self._lock:
            # read all that has come first: `unwrap` looks for the peer's end, and fails if it finds data
            with suppress(ssl.SSLWantReadError):
                while data := self._read(_RECORDS_BYTES):
                    self._decrypted += data
            with suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
            self._flush()

    def settimeout(self, seconds: float) -> None:
        """Do nothing: this object never blocks."""

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()
