"""The stream of an engine that is reached by TLS: records that come in parts, and data that is decrypted already."""

from __future__ import annotations

import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from podkit.backends._endpoint import Tls, _encrypt
from podkit.backends._exec_stream import SocketStream
from podkit.backends.base import Chunk, Stream
from podkit.utils._deadline import Deadline
from tests.support.waiting import within
from tests.unit.support import data_of

# for localhost, until 2125; it protects nothing
KEY = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgYv5tsIKb0LSnrtFo
Jh3fAixstyY+aZly/1IwaBqsmSShRANCAARsA6vQYLWszvRjNBt1CzjNnXMM06vq
ZSb1lb8NTV8ChUxpnrvY9Ba0xeD6gZsXdRKxGl/HtitubJvuZVmSXmW1
-----END PRIVATE KEY-----
"""
CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBlTCCATugAwIBAgIURetimAtTKP61KS4ZLpicnZHidr8wCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyMzEwMDAyOFoYDzIxMjYxMDMw
MTAwMDI4WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAARsA6vQYLWszvRjNBt1CzjNnXMM06vqZSb1lb8NTV8ChUxpnrvY9Ba0
xeD6gZsXdRKxGl/HtitubJvuZVmSXmW1o2kwZzAdBgNVHQ4EFgQU51IFTssH3u+Q
0+iTUxgeLCcTinQwHwYDVR0jBBgwFoAU51IFTssH3u+Q0+iTUxgeLCcTinQwDwYD
VR0TAQH/BAUwAwEB/zAUBgNVHREEDTALgglsb2NhbGhvc3QwCgYIKoZIzj0EAwID
SAAwRQIgTcoKMnJHjmEz64/SM5upxo/+T01VCCLoW/09cn0OlbECIQDsqF8ppsgT
ZO8+MshNnfLa/ub/i5sUxDAdaxq/WXcqkg==
-----END CERTIFICATE-----
"""
END = Chunk(Stream.STDOUT, b"")


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A directory as the docker command keeps it; the certificate is its own authority."""
    for name, content in (("ca.pem", CERTIFICATE), ("cert.pem", CERTIFICATE), ("key.pem", KEY)):
        (tmp_path / name).write_text(content)
    return tmp_path


@contextmanager
def served(
    certificates: Path, serve: Callable[[ssl.SSLSocket], object], hostname: str = "localhost"
) -> Iterator[SocketStream]:
    """A stream to a peer that serves it in a thread."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(certificates / "ca.pem"))
    context.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    context.verify_mode = ssl.CERT_REQUIRED

    def run() -> None:
        with suppress(OSError), context.wrap_socket(theirs, server_side=True) as connection:
            serve(connection)

    thread = threading.Thread(daemon=True, target=run)
    thread.start()
    try:
        connection = _encrypt(ours, Tls(certificates, verify=True), hostname)
        connection.settimeout(0)
        stream = SocketStream(connection, b"", lambda output: 0)
        try:
            yield stream
        finally:
            stream.close()
    finally:
        theirs.close()
        thread.join(5)
        ours.close()


def frame(data: bytes) -> bytes:
    return struct.pack(">BxxxL", 1, len(data)) + data


def soon(seconds: float = 2.0) -> Deadline:
    return Deadline.after(seconds)


def read_all(stream: SocketStream, size: int) -> bytes:
    output = b""
    while len(output) < size and (data := data_of(stream)):
        output += data
    return output


def test_output_of_many_records_is_read_whole(certificates: Path) -> None:
    content = bytes(range(256)) * 2000
    with served(certificates, lambda peer: peer.sendall(frame(content))) as stream:
        assert read_all(stream, len(content)) == content
        assert stream.read(soon()) == END


def test_what_is_decrypted_already_is_read_without_waiting_for_more(certificates: Path) -> None:
    def serve(peer: ssl.SSLSocket) -> None:
        peer.sendall(b"".join(frame(b"x" * 15) for _ in range(700)))  # one record: more than one read takes
        peer.recv(1)

    with served(certificates, serve) as stream, within(2):
        assert len(read_all(stream, 700 * 15)) == 700 * 15


def test_silence_is_none_after_which_reading_goes_on(certificates: Path) -> None:
    asked = threading.Event()

    def serve(peer: ssl.SSLSocket) -> None:
        asked.wait(2)
        peer.sendall(frame(b"late"))

    with served(certificates, serve) as stream:
        assert stream.read(soon(0.02)) is None
        asked.set()
        assert data_of(stream) == b"late"


def test_a_megabyte_is_written_whole(certificates: Path) -> None:
    got = bytearray()

    def serve(peer: ssl.SSLSocket) -> None:
        while len(got) < 1_000_000 and (piece := peer.recv(65536)):
            got.extend(piece)
        peer.sendall(frame(b"done"))

    content = b"0123456789" * 100_000
    with served(certificates, serve) as stream:
        stream.write(content, soon())
        assert data_of(stream) == b"done"
    assert bytes(got) == content


def test_closing_the_input_leaves_the_output_open(certificates: Path) -> None:
    """Also what has come already: a command that copies its input prints before that ends."""
    printed = threading.Event()

    def serve(peer: ssl.SSLSocket) -> None:
        peer.sendall(frame(b"before"))
        printed.set()
        while peer.recv(100):
            pass
        peer.sendall(frame(b" and after"))

    with served(certificates, serve) as stream:
        stream.write(b"question", soon())
        assert printed.wait(2)
        stream.close_stdin()
        assert read_all(stream, 16) == b"before and after"


def test_an_engine_with_another_name_is_refused(certificates: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError), served(certificates, lambda peer: None, "elsewhere"):
        raise AssertionError("unreachable")
