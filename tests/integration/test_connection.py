"""How the engine is found, and what happens where there is none, or where it goes away."""

from __future__ import annotations

import gc
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted, EngineError, EngineUnavailable
from tests.integration.conftest import long_config
from tests.support.engine import Engine
from tests.support.processes import ask_python
from tests.support.proxy import ENGINE, EngineProxy
from tests.support.waiting import within

pytestmark = pytest.mark.integration

CONNECT = """
import json, os, time
from podkit.backends.docker import DockerBackend
from podkit.errors import EngineError

if os.environ.get("TEST_AS_NOBODY") and os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
backend = DockerBackend()  # says nothing, whatever there is
began = time.monotonic()
try:
    backend.connect()
    print(json.dumps(["connected", backend.client.version()["ApiVersion"], 0]))
except EngineError as exc:
    print(json.dumps([type(exc).__name__, str(exc), time.monotonic() - began]))
"""


def connect(**environment: str | None) -> tuple[str, str, float]:
    """Connect in a process with nothing of this one's settings; its answer and how long it took."""
    alone = {"DOCKER_HOST": None, "DOCKER_CONTEXT": None, "DOCKER_CONFIG": "/nowhere", "HOME": "/nowhere"}
    kind, text, seconds = ask_python(CONNECT, environment=alone | environment)
    return kind, text, seconds


def write_context(directory: Path, name: str, host: str, *, current: bool = True) -> None:
    """Write what `docker context create` writes."""
    meta = directory / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": {"Host": host}}}))
    if current:
        (directory / "config.json").write_text(json.dumps({"currentContext": name}))


# --- finding it --------------------------------------------------------------------------------------


@pytest.mark.skipif(ENGINE != "unix:///var/run/docker.sock", reason="this engine is not at the usual place")
def test_the_engine_is_found_at_its_usual_place() -> None:
    assert connect()[0] == "connected"


def test_the_engine_is_found_by_docker_host() -> None:
    assert connect(DOCKER_HOST=ENGINE)[0] == "connected"


def test_a_proxy_of_the_environment_is_not_asked(proxy: EngineProxy) -> None:
    nowhere = "http://127.0.0.1:9"
    host = proxy.url.removeprefix("tcp://")  # as the `docker` command takes it
    assert connect(DOCKER_HOST=host, HTTP_PROXY=nowhere, http_proxy=nowhere, ALL_PROXY=nowhere)[0] == "connected"


def test_the_engine_is_found_by_the_current_context(tmp_path: Path) -> None:
    write_context(tmp_path, "mine", ENGINE)

    assert connect(DOCKER_CONFIG=str(tmp_path))[0] == "connected"


def test_the_engine_is_found_by_a_context_named_in_the_environment(tmp_path: Path) -> None:
    write_context(tmp_path, "stale", "unix:///nowhere/stale.sock")
    write_context(tmp_path, "mine", ENGINE, current=False)

    assert connect(DOCKER_CONFIG=str(tmp_path), DOCKER_CONTEXT="mine")[0] == "connected"


def test_docker_host_comes_before_the_context(tmp_path: Path) -> None:
    write_context(tmp_path, "stale", "unix:///nowhere/stale.sock")

    assert connect(DOCKER_CONFIG=str(tmp_path), DOCKER_HOST=ENGINE)[0] == "connected"


def test_the_context_comes_before_the_usual_place(tmp_path: Path) -> None:
    write_context(tmp_path, "stale", "unix:///nowhere/stale.sock")

    kind, text, _ = connect(DOCKER_CONFIG=str(tmp_path))

    assert kind == "EngineUnavailable"
    assert "unix:///nowhere/stale.sock (docker context 'stale')" in text


# --- not finding it ----------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["unix:///nowhere/docker.sock", "tcp://127.0.0.1:1"])
def test_without_an_engine_the_error_says_soon_what_was_tried(host: str) -> None:
    kind, text, seconds = connect(DOCKER_HOST=host)

    assert kind == "EngineUnavailable"
    assert f"Tried: {host} (DOCKER_HOST)" in text
    assert "DOCKER_HOST to where it listens" in text
    assert seconds < 2


def test_a_context_that_does_not_exist_is_named(tmp_path: Path) -> None:
    kind, text, seconds = connect(DOCKER_CONTEXT="no-such-context", DOCKER_CONFIG=str(tmp_path))

    assert (kind, "no-such-context" in text, "docker context use" in text) == ("EngineUnavailable", True, True)
    assert seconds < 2


def test_a_context_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    write_context(tmp_path, "garbled", ENGINE)
    for file in tmp_path.rglob("meta.json"):
        file.write_text("{ garbled")

    kind, text, _ = connect(DOCKER_CONFIG=str(tmp_path))

    assert (kind, "garbled" in text) == ("EngineUnavailable", True)


def test_a_socket_that_this_user_may_not_use_is_told_from_one_that_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "docker.sock"
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:2]:
        parent.chmod(0o755)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        path.chmod(0)

        kind, text, seconds = connect(DOCKER_HOST=f"unix://{path}", TEST_AS_NOBODY="1")

    assert kind == "EngineAccessDenied"
    assert str(path) in text
    assert "group 'docker'" in text
    assert seconds < 2


def test_a_server_that_never_answers_is_given_up(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        listener.listen()

        kind, text, seconds = connect(DOCKER_HOST=f"unix://{tmp_path}/docker.sock")

    assert kind in ("EngineUnavailable", "EngineTimeout")
    assert str(tmp_path) in text
    assert seconds < 10 + 5


def test_a_server_that_is_no_engine_is_a_typed_error(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        listener.listen()

        def answer() -> None:
            listener.settimeout(0.1)
            while not ended.is_set():
                with suppress(OSError):
                    connection, _ = listener.accept()
                    with connection:
                        connection.sendall(b"220 this is a mail server\r\n")

        ended, thread = threading.Event(), threading.Thread(target=answer)
        thread.start()
        kind, text, _ = connect(DOCKER_HOST=f"unix://{tmp_path}/docker.sock")
        ended.set()
        thread.join()

    assert (kind, str(tmp_path) in text) == ("EngineUnavailable", True)


def test_before_it_is_connected_a_backend_says_so() -> None:
    with pytest.raises(EngineUnavailable, match=r"connect\(\)"):
        _ = DockerBackend().client


def test_connecting_twice_is_harmless(backend: DockerBackend) -> None:
    client = backend.client

    backend.connect()

    assert backend.client is client


# --- losing it ---------------------------------------------------------------------------------------

refused_connections = pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")


@pytest.fixture
def proxy() -> Iterator[EngineProxy]:
    proxy = EngineProxy()
    yield proxy
    proxy.go_away()


@pytest.fixture
def session(proxy: EngineProxy, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[SessionProxy]:
    """A session over a connection that can be cut."""
    backend = DockerBackend()
    with monkeypatch.context() as environment:
        environment.setenv("DOCKER_HOST", proxy.url)
        backend.connect()
    sessions = BaseSessionManager(SimpleContainerManager(backend, engine.prefix, None))
    sessions.create_session("bob", "123", long_config())
    yield SessionProxy(sessions, "bob", "123")
    backend.client.close()
    del backend, sessions
    gc.collect()  # under this test's filter: the SDK does not close the socket of a connection that was refused


@refused_connections
def test_an_engine_that_goes_away_during_a_command_interrupts_it(session: SessionProxy, proxy: EngineProxy) -> None:
    begun = threading.Event()
    with ThreadPoolExecutor() as threads:
        running = threads.submit(session.execute_command, "echo half; sleep 20", on_stdout=lambda _: begun.set())
        assert begun.wait(20)
        proxy.go_away()
        with within(10):
            error = running.exception(timeout=15)

    assert isinstance(error, CommandInterrupted)
    assert error.result is not None
    assert error.result.stdout == "half\n"


@refused_connections
def test_while_the_engine_is_away_every_call_is_a_typed_error(session: SessionProxy, proxy: EngineProxy) -> None:
    proxy.go_away()

    for use in (
        lambda: session.execute_command("true"),
        lambda: session.write_file("file", "text"),
        lambda: session.get_accessible_ports(),
        lambda: session.close(),
    ):
        with within(5), pytest.raises(EngineUnavailable):
            use()


@refused_connections
def test_when_the_engine_is_back_the_session_goes_on(session: SessionProxy, proxy: EngineProxy, engine: Engine) -> None:
    session.execute_command("echo kept > /tmp/file")
    proxy.go_away()
    with pytest.raises(EngineUnavailable):
        session.execute_command("true")
    proxy.come_back()

    assert session.execute_command("cat /tmp/file").stdout == "kept\n"
    assert len(engine.names()) == 1


@refused_connections
def test_a_silent_engine_does_not_hold_up_a_commands_timeout(session: SessionProxy, proxy: EngineProxy) -> None:
    begun = threading.Event()
    with ThreadPoolExecutor() as threads:
        running = threads.submit(
            session.execute_command, "echo half; sleep 20", timeout=3, on_stdout=lambda _: begun.set()
        )
        assert begun.wait(20)
        proxy.freeze()
        with within(3 + 2 + 1):
            error = running.exception(timeout=15)

    assert isinstance(error, CommandInterrupted)
    assert error.result is not None
    assert error.result.stdout == "half\n"


@refused_connections
def test_a_silent_engine_does_not_hold_up_a_command_with_a_timeout_that_is_not_sent_yet(
    session: SessionProxy, proxy: EngineProxy
) -> None:
    time.sleep(0.2)  # else the channel has spoken just now, and is not asked for a sign of life first
    proxy.freeze()

    with within(3 + 2 + 1), pytest.raises(EngineError):
        session.execute_command("true", timeout=3)


@refused_connections
@pytest.mark.parametrize("loss", ["reset", "go_away"])
def test_a_command_whose_connection_is_lost_is_not_sent_twice(
    session: SessionProxy, proxy: EngineProxy, loss: str
) -> None:
    begun = threading.Event()
    with ThreadPoolExecutor() as threads:
        running = threads.submit(
            session.execute_command, "echo ran >> /tmp/runs; echo begun; sleep 1", on_stdout=lambda _: begun.set()
        )
        assert begun.wait(20)
        getattr(proxy, loss)()
        running.exception(timeout=20)
    if loss == "go_away":
        proxy.come_back()

    assert session.execute_command("sleep 1; cat /tmp/runs").stdout == "ran\n"


@refused_connections
def test_a_connection_that_was_reset_is_not_taken_for_the_end_of_the_output(
    session: SessionProxy, proxy: EngineProxy
) -> None:
    begun = threading.Event()
    with ThreadPoolExecutor() as threads:
        running = threads.submit(
            session.execute_command, "echo half; sleep 1; echo whole", on_stdout=lambda _: begun.set()
        )
        assert begun.wait(20)
        proxy.reset()
        error = running.exception(timeout=20)

    assert isinstance(error, CommandInterrupted)
    assert error.result is not None
    assert error.result.stdout == "half\n"
