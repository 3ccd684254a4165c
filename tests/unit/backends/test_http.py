"""Requests over connections of podkit's own: what is sent, answers in all their forms, connections used again."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from podkit.backends._endpoint import Endpoint
from podkit.backends._http import HttpClient, Incoming, Refused
from podkit.errors import EngineTimeout, EngineUnavailable
from podkit.utils._deadline import Deadline
from tests.support.waiting import within
from tests.unit.backends.peer import CHUNKED, EngineServer, Step, chunk, error, freeze, hang_up, peer, reply

LAST = b"0\r\n\r\n"
SOON = Deadline.after(600)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EngineServer]:
    server = EngineServer(tmp_path / "s")
    yield server
    server.close()


@pytest.fixture
def client(server: EngineServer, tmp_path: Path) -> Iterator[HttpClient]:
    client = HttpClient(Endpoint(f"unix://{tmp_path}/s", "test"), "/v1.41")
    yield client
    client.close()


def body_of(*script: Step, most: int = 1 << 20) -> bytes:
    """Read the body of an answer that a peer gives."""
    with peer(*script) as connection:
        connection.settimeout(0)
        incoming = Incoming(connection, Deadline.after(2))
        incoming.read_head()
        return incoming.read_body(most)


def test_a_request_has_the_versions_prefix_a_quoted_path_and_its_query(
    server: EngineServer, client: HttpClient
) -> None:
    server.answers["GET /images/a%2Fb:1/json"] = [reply(200, {})]
    with pytest.raises(Refused):
        client.until(SOON).ask("GET", "images", "a/b:1 ?", "json", query={"all": 1, "filters": '{"a": "b c"}'})
    assert server.requests == ["GET /v1.41/images/a%2Fb%3A1%20%3F/json?all=1&filters=%7B%22a%22%3A+%22b+c%22%7D"]


def test_a_body_is_sent_as_json(server: EngineServer, client: HttpClient) -> None:
    server.answers["POST /containers/create"] = [reply(201, {"Id": "x"})]
    assert client.until(SOON).ask("POST", "containers", "create", body={"Image": "é"}) == {"Id": "x"}
    assert server.bodies["POST /containers/create"] == {"Image": "é"}


def test_an_empty_answer_is_none(server: EngineServer, client: HttpClient) -> None:
    server.answers["POST /start"] = [reply(204, None)]
    assert client.until(SOON).ask("POST", "start") is None


def test_an_answer_may_come_in_chunks_that_are_cut_anywhere() -> None:
    whole = CHUNKED + chunk(b"a" * 300) + chunk(b"b" * 7) + LAST
    for cut in range(len(CHUNKED) - 2, len(whole)):
        assert body_of(whole[:cut], 0.0001, whole[cut:]) == b"a" * 300 + b"b" * 7


def test_an_answer_without_a_length_lasts_until_the_end_of_the_connection() -> None:
    assert body_of(b"HTTP/1.1 200 OK\r\n\r\nall of", b" it", hang_up) == b"all of it"


@pytest.mark.parametrize(
    "script",
    [
        [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", hang_up],
        [CHUNKED + b"5\r\nabc", hang_up],
        [CHUNKED + b"nonsense\r\n", freeze],
        [CHUNKED + b"-5\r\nabc", freeze],
        [b"HTTP/1.1 200 OK\r\nno header\r\n\r\n", freeze],
        [b"HTTP/1.1\r\n\r\n", freeze],
        [b"SSH-2.0-OpenSSH", freeze],
    ],
)
def test_an_answer_that_is_cut_or_no_http_is_an_error(script: list[Step]) -> None:
    with within(1), pytest.raises(EngineUnavailable):
        body_of(*script)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 999999999999\r\n\r\n",
        CHUNKED + b"ffffffffffff\r\n",
        CHUNKED + chunk(b"a" * 60) + chunk(b"b" * 60),
        b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 101,
    ],
)
def test_an_answer_that_is_too_long_is_refused(answer: bytes) -> None:
    with within(1), pytest.raises(EngineUnavailable, match="more than 100 bytes"):
        body_of(answer, freeze, most=100)


def test_what_is_no_json_is_an_error(server: EngineServer, client: HttpClient) -> None:
    server.answers["GET /x"] = [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno"]
    with pytest.raises(EngineUnavailable, match="not JSON"):
        client.until(SOON).ask("GET", "x")


@pytest.mark.parametrize("status", [301, 404, 500])
def test_a_refusal_has_its_status_and_the_engines_words(server: EngineServer, client: HttpClient, status: int) -> None:
    server.answers["GET /x"] = error(status, "no such thing")
    with pytest.raises(Refused, match="no such thing") as caught:
        client.until(SOON).ask("GET", "x")
    assert caught.value.status == status


def test_where_a_program_has_taken_poll_away_waiting_works_too(
    server: EngineServer, client: HttpClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As eventlet's monkey-patching does."""
    monkeypatch.delattr("select.poll")
    server.answers["GET /slow"] = [0.2, reply(200, {"a": 1})]
    assert client.until(Deadline.after(20)).ask("GET", "slow") == {"a": 1}
    server.answers["GET /never"] = [freeze]
    with pytest.raises(EngineTimeout):
        client.until(Deadline.after(0.2)).ask("GET", "never")


def test_a_silent_engine_is_a_timeout(server: EngineServer, client: HttpClient) -> None:
    server.answers["GET /x"] = [freeze]
    with within(1), pytest.raises(EngineTimeout):
        client.until(Deadline.after(0.05)).ask("GET", "x")


def test_nobody_who_listens_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(EngineUnavailable, match="No such file"):
        HttpClient(Endpoint(f"unix://{tmp_path}/none", "test")).until(SOON).ask("GET", "x")


# --- connections -----------------------------------------------------------------------------------


def connections(server: EngineServer) -> int:
    """How many connections the engine has seen."""
    return len(server._connections)


def test_a_connection_is_used_again(server: EngineServer, client: HttpClient) -> None:
    server.answers |= {"GET /x": [reply(200, [1])], "GET /y": [CHUNKED + chunk(b"[2]") + LAST]}
    assert [client.until(SOON).ask("GET", path) for path in ("x", "y", "x")] == [[1], [2], [1]]
    assert connections(server) == 1


def test_a_connection_that_the_engine_closed_is_not_used_again(server: EngineServer, client: HttpClient) -> None:
    closed = threading.Event()

    def close(connection: socket.socket) -> None:
        hang_up(connection)
        closed.set()

    server.answers |= {"GET /x": [reply(200, []), close], "GET /y": [reply(200, [])]}
    client.until(SOON).ask("GET", "x")
    assert closed.wait(20)
    client.until(SOON).ask("GET", "y")
    assert connections(server) == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]and more",
    ],
)
def test_a_connection_on_which_no_answer_can_follow_is_not_used_again(
    server: EngineServer, client: HttpClient, answer: bytes
) -> None:
    server.answers |= {"GET /x": [answer]}
    assert [client.until(SOON).ask("GET", "x") for _ in range(2)] == [[], []]
    assert connections(server) == 2


def test_a_request_whose_answer_was_lost_is_not_sent_again(server: EngineServer, client: HttpClient) -> None:
    server.answers |= {"GET /x": [reply(200, [])], "POST /y": [hang_up]}
    client.until(SOON).ask("GET", "x")
    with pytest.raises(EngineUnavailable):
        client.until(SOON).ask("POST", "y")
    assert len(server.requests) == 2


def test_requests_of_many_threads_have_connections_of_their_own(server: EngineServer, client: HttpClient) -> None:
    server.answers |= {f"GET /{number}": [0.01, reply(200, number)] for number in range(8)}
    seen: dict[int, object] = {}

    def ask(number: int) -> None:
        seen[number] = client.until(SOON).ask("GET", str(number))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == {number: number for number in range(8)}


def test_a_client_that_is_dropped_closes_its_connections(server: EngineServer, tmp_path: Path) -> None:
    server.answers["GET /x"] = [reply(200, [])]
    before = len(os.listdir("/proc/self/fd"))
    client = HttpClient(Endpoint(f"unix://{tmp_path}/s", "test"))
    client.until(SOON).ask("GET", "x")
    del client
    assert len(os.listdir("/proc/self/fd")) == before + 1  # the engine's own end
