"""One exec's connection: an engine that answers late, in pieces, with an error, or not at all."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from podkit.backends._exec_stream import SocketStream, open_raw_stream
from podkit.backends._http import Refused
from podkit.backends.base import Chunk, Stream
from podkit.errors import EngineError, EngineTimeout, EngineUnavailable, PodkitError
from podkit.utils._deadline import Deadline
from tests.support.waiting import within
from tests.unit.backends.peer import Step, peer, read_request
from tests.unit.support import data_of

UPGRADE = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
END = Chunk(Stream.STDOUT, b"")


def frame(data: bytes, kind: int = 1) -> bytes:
    return struct.pack(">BxxxL", kind, len(data)) + data


def soon(seconds: float = 2.0) -> Deadline:
    return Deadline.after(seconds)


def refusal(status: int, message: str) -> bytes:
    body = json.dumps({"message": message}).encode()
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body)


# --- opening ---------------------------------------------------------------------------------------


def open_to(*script: Step, deadline: Deadline | None = None) -> bytes:
    with peer(*script) as connection:
        return open_raw_stream(connection, "/exec/1/start", {"Tty": False}, deadline or soon())


def test_the_request_asks_for_an_upgrade_and_carries_the_body() -> None:
    found: list[bytes] = []
    assert open_to(lambda connection: found.append(read_request(connection)), UPGRADE) == b""
    head, _, body = found[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /exec/1/start HTTP/1.1\r\n")
    assert b"Upgrade: tcp" in head
    assert json.loads(body) == {"Tty": False}


@pytest.mark.parametrize("status", [b"101 UPGRADED", b"200 OK"])
def test_both_answers_of_an_engine_begin_the_stream(status: bytes) -> None:
    assert open_to(b"HTTP/1.1 " + status + b"\r\n\r\n") == b""


def test_what_comes_with_the_headers_belongs_to_the_stream() -> None:
    assert open_to(UPGRADE + frame(b"hello")) == frame(b"hello")


def test_headers_may_come_in_two_pieces() -> None:
    answer = UPGRADE + frame(b"hi")
    for cut in range(1, len(UPGRADE) + 3, 4):
        received = open_to(answer[:cut], 0.002, answer[cut:])
        assert frame(b"hi").startswith(received), cut


def test_headers_may_come_byte_by_byte() -> None:
    assert open_to(*[bytes([byte]) for byte in UPGRADE]) == b""


@pytest.mark.parametrize("status", [400, 404, 409, 500])
def test_a_refusal_has_its_status_and_the_engines_words(status: int) -> None:
    with pytest.raises(Refused, match="no such container") as caught:
        open_to(refusal(status, "no such container"))
    assert caught.value.status == status


def test_a_refusal_may_come_in_pieces() -> None:
    answer = refusal(500, "it broke")
    with pytest.raises(Refused, match="it broke"):
        open_to(answer[:20], 0.01, answer[20:-5], 0.01, answer[-5:])


def test_a_refusal_that_is_no_json_is_shown_as_it_is() -> None:
    with pytest.raises(Refused, match="bad gateway"):
        open_to(b"HTTP/1.1 502 X\r\nContent-Length: 11\r\n\r\nbad gateway")


def test_an_engine_that_never_answers_is_a_timeout_by_the_deadline() -> None:
    with within(1), pytest.raises(EngineTimeout):
        open_to(deadline=soon(0.05))


def test_an_engine_that_answers_byte_by_byte_is_held_to_the_deadline() -> None:
    drip = [step for byte in UPGRADE[:40] for step in (bytes([byte]), 0.01)]
    with within(0.4), pytest.raises(EngineTimeout):
        open_to(*drip, deadline=soon(0.05))


@pytest.mark.parametrize("cut", [0, 5, len(UPGRADE) - 1])
def test_an_engine_that_closes_before_it_answered_is_unavailable(cut: int) -> None:
    with pytest.raises(EngineUnavailable, match="before it answered"):
        open_to(read_request, UPGRADE[:cut], lambda connection: connection.close())


def test_an_engine_that_resets_the_connection_is_unavailable() -> None:
    with pytest.raises(PodkitError):
        open_to(lambda connection: connection.recv(1), lambda connection: connection.close())


def test_headers_without_an_end_are_refused_with_flat_memory() -> None:
    with pytest.raises(EngineUnavailable, match="headers without an end"):
        open_to(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000)


@pytest.mark.parametrize(
    "answer",
    [
        b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
        b"\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"\x00\xff\xfe\r\n\r\n",
        b"HTTP/1.1 404 X\r\nContent-Length: many\r\n\r\n",
        b"HTTP/1.1 404 X\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 404 X\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_an_answer_that_is_no_engines_is_a_typed_error(answer: bytes) -> None:
    with pytest.raises((PodkitError, Refused)):
        open_to(answer)


# --- reading ---------------------------------------------------------------------------------------


@contextmanager
def stream(*script: Step, received: bytes = b"", exit_code: int | None = 0) -> Iterator[SocketStream]:
    """A stream to a peer that plays its script and closes."""

    def close(connection: socket.socket) -> None:
        connection.shutdown(socket.SHUT_WR)

    with peer(*script, close) as connection:
        connection.settimeout(0)
        opened = SocketStream(connection, received, lambda output, deadline: exit_code)
        try:
            yield opened
        finally:
            opened.close()


def read_all(opened: SocketStream) -> list[Chunk]:
    chunks = []
    while (chunk := opened.read(soon())).data:
        chunks.append(chunk)
    return chunks


def test_chunks_come_in_order_and_then_an_empty_one_for_ever() -> None:
    with stream(frame(b"a"), frame(b"b", 2), frame(b"c")) as opened:
        found = read_all(opened)
        assert found == [Chunk(Stream.STDOUT, b"a"), Chunk(Stream.STDERR, b"b"), Chunk(Stream.STDOUT, b"c")]
        assert [opened.read(soon()), opened.read(soon())] == [END, END]


def test_what_came_with_the_headers_is_read_first() -> None:
    with stream(frame(b"second"), received=frame(b"first")) as opened:
        assert [chunk.data for chunk in read_all(opened)] == [b"first", b"second"]


def test_a_frame_that_began_with_the_headers_goes_on() -> None:
    whole = frame(b"hello")
    with stream(whole[6:], received=whole[:6]) as opened:
        assert b"".join(chunk.data for chunk in read_all(opened)) == b"hello"


def test_silence_is_a_timeout_after_which_reading_goes_on() -> None:
    with stream(0.1, frame(b"late")) as opened:
        with within(0.09):
            assert opened.read(soon(0.01)) is None
        assert data_of(opened) == b"late"


def test_an_end_inside_a_frame_is_an_error_and_no_end() -> None:
    for cut in range(1, len(frame(b"xy"))):
        with stream(frame(b"xy")[:cut]) as opened, pytest.raises(EngineUnavailable, match="middle of a frame"):
            read_all(opened)


def test_a_reset_between_frames_is_an_end() -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(1, socket.MSG_PEEK)
        connection.close()  # with unread bytes: the other side sees a reset

    with stream(frame(b"a"), reset) as opened:
        opened.write(b"never read", soon())
        assert data_of(opened) == b"a"
        assert opened.read(soon()) == END


def test_a_frame_of_unknown_kind_is_a_typed_error() -> None:
    with stream(frame(b"x", 7)) as opened, pytest.raises(EngineError, match="unknown kind"):
        opened.read(soon())


def test_the_exit_code_is_asked_from_the_engine() -> None:
    with stream(exit_code=3) as opened:
        assert opened.exit_code() == 3


def test_the_engines_words_are_handed_on_only_once_the_output_has_ended() -> None:
    asked: list[str | None] = []
    with peer(frame(b" exec: not found\r\n"), lambda connection: connection.shutdown(socket.SHUT_WR)) as connection:
        connection.settimeout(0)
        opened = SocketStream(connection, b"", lambda output, deadline: asked.append(output))
        opened.exit_code()
        read_all(opened)
        opened.exit_code()
        opened.close()
    assert asked == [None, "exec: not found"]


def test_a_stream_that_was_closed_cannot_be_read() -> None:
    with stream(frame(b"x")) as opened:
        opened.close()
        opened.close()
        with pytest.raises(EngineUnavailable):
            opened.read(soon(0.1))


# --- writing ---------------------------------------------------------------------------------------


def test_a_megabyte_is_written_whole_to_a_peer_that_reads_slowly() -> None:
    got = bytearray()

    def read_slowly(connection: socket.socket) -> None:
        while piece := connection.recv(100_000):
            got.extend(piece)

    content = b"0123456789" * 100_000
    with stream(0.02, read_slowly) as opened:
        opened.write(content, soon())
        opened.close_stdin()
        read_all(opened)
    assert bytes(got) == content


def test_closing_the_input_leaves_the_output_open() -> None:
    def answer_at_the_end(connection: socket.socket) -> None:
        while connection.recv(100):
            pass
        connection.sendall(frame(b"answer"))

    with stream(answer_at_the_end) as opened:
        opened.write(b"question", soon())
        opened.close_stdin()
        assert data_of(opened) == b"answer"


def test_a_peer_that_does_not_read_is_a_timeout() -> None:
    with stream(0.2) as opened, within(0.15), pytest.raises(EngineTimeout, match="take"):
        opened.write(b"x" * (8 << 20), soon(0.03))


def test_a_peer_that_went_away_takes_no_more_input() -> None:
    with stream(lambda connection: connection.close()) as opened:
        time.sleep(0.02)
        with pytest.raises(BrokenPipeError):
            opened.write(b"x", soon())


def test_closing_wakes_a_thread_that_waits_to_write() -> None:
    ended = threading.Event()

    def write(opened: SocketStream) -> None:
        try:
            opened.write(b"x" * (8 << 20), Deadline.after(None))
        except (OSError, PodkitError):
            ended.set()

    ours, theirs = socket.socketpair()
    ours.settimeout(0)
    opened = SocketStream(ours, b"", lambda output, deadline: 0)
    thread = threading.Thread(target=write, args=(opened,), daemon=True)
    thread.start()
    time.sleep(0.05)
    opened.close()
    assert ended.wait(1)
    thread.join()
    theirs.close()


@pytest.mark.parametrize("seconds", [3e6, 1e12])
def test_a_deadline_in_months_is_no_error(seconds: float) -> None:
    with stream(frame(b"x")) as opened:
        opened.write(b"x", Deadline.after(seconds))
        assert data_of(opened, seconds) == b"x"
