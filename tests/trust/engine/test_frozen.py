"""B7: every public call has a deadline that holds, also while the engine is frozen by SIGSTOP."""

from __future__ import annotations

import gc
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import docker
import pytest

from podkit import SessionProxy
from podkit.backends.docker import CONNECT_SECONDS
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted, EngineUnavailable, PodkitError
from podkit.utils._deadline import ENGINE_CALL_SECONDS
from tests.integration.conftest import OpenSession
from tests.support.engine import Engine
from tests.support.private_engine import PrivateEngine
from tests.support.processes import start_python
from tests.support.programs import MARK
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration

TIMEOUT = 3.0
LATE = 2.0
"""How much later than its timeout a call may be."""

NOISE = 1.0
"""What a busy machine adds to that."""

LONGEST = 1.5 * ENGINE_CALL_SECONDS
"""Of a call that has no timeout: one call of the engine, and what the agent was asked before."""

NOBODYS = str(uuid.UUID(int=0))
"""A background process that no container knows."""

Call = Callable[[SessionProxy], object]


def download(session: SessionProxy) -> None:
    with TemporaryDirectory() as here:
        session.files.download("f", Path(here, "copy"), timeout=TIMEOUT)


WITH_TIMEOUT: Mapping[str, Call] = {
    "execute_command": lambda session: session.execute_command("true", timeout=TIMEOUT),
    "popen": lambda session: session.popen("true", timeout=TIMEOUT),
    "upload": lambda session: session.files.upload(__file__, "copy", timeout=TIMEOUT),
    "download": download,
    "wait": lambda session: session.processes.wait(NOBODYS, timeout=TIMEOUT),
    "write_stdin": lambda session: session.processes.write_stdin(NOBODYS, "input", timeout=TIMEOUT),
}
"""Public calls that take a timeout."""

WITHOUT_TIMEOUT: Mapping[str, Call] = {
    "get_accessible_ports": lambda session: session.get_accessible_ports(),
    "read_file": lambda session: session.read_file("f"),
    "write_file": lambda session: session.write_file("f", "new"),
    "list": lambda session: session.files.list(),
    "remove": lambda session: session.files.remove("f"),
    "start_process": lambda session: session.processes.start_process("true"),
    "stop_process": lambda session: session.processes.stop_process(NOBODYS, timeout=TIMEOUT),
    "list_processes": lambda session: session.processes.list_processes(),
    "close": lambda session: session.close(),
}
"""Public calls that take none, or the one of another thing: the deadline is that of the engine's calls."""


@dataclass
class Outcome:
    """What came of a call on a frozen engine: what it gave or raised, and after how many seconds."""

    found: object
    seconds: float

    def is_error_within(self, seconds: float) -> bool:
        return isinstance(self.found, PodkitError) and self.seconds < seconds


def outcome(call: Callable[[], object]) -> Outcome:
    began = time.monotonic()
    try:
        found = call()
    except Exception as exc:  # noqa: BLE001 - what it is, is the question
        found = exc
    return Outcome(found, time.monotonic() - began)


def all_at_once(calls: Mapping[str, Call], sessions: Mapping[str, SessionProxy]) -> dict[str, Outcome]:
    """Make all calls side by side, each on a session of its own."""
    with ThreadPoolExecutor(len(calls)) as threads:
        running = {name: threads.submit(outcome, partial(calls[name], sessions[name])) for name in calls}
        return {name: future.result() for name, future in running.items()}


def opened(calls: Mapping[str, Call], open_session: OpenSession) -> dict[str, SessionProxy]:
    """Open a session for each call; its channel is open as well."""
    sessions = {name: open_session(session_id=name) for name in calls}
    for session in sessions.values():
        session.write_file("f", "old")
    return sessions


@pytest.fixture
def sessions(private: PrivateEngine, prefix: str) -> BaseSessionManager:
    """Without workspaces on the host, which no engine is asked for."""
    return BaseSessionManager(SimpleContainerManager(private.backend(), prefix, None))


def test_every_call_with_a_timeout_is_a_typed_error_soon_after_it(
    open_session: OpenSession, private: PrivateEngine
) -> None:
    """DF-02: with a channel that was heard a moment ago, and again with one that was silent for long."""
    sessions = opened(WITH_TIMEOUT, open_session)
    private.freeze()

    for _ in range(2):
        found = all_at_once(WITH_TIMEOUT, sessions)
        assert not {name: it for name, it in found.items() if not it.is_error_within(TIMEOUT + LATE + NOISE)}


def test_every_call_without_a_timeout_is_a_typed_error_in_the_end(
    open_session: OpenSession, private: PrivateEngine
) -> None:
    """DF-02: an engine's call takes no longer than a minute, and no call of podkit waits for two in a row."""
    sessions = opened(WITHOUT_TIMEOUT, open_session)
    private.freeze()

    found = all_at_once(WITHOUT_TIMEOUT, sessions)
    assert not {name: it for name, it in found.items() if not it.is_error_within(LONGEST)}


def test_a_session_that_this_process_does_not_know_yet_is_a_typed_error_too(
    open_session: OpenSession, private: PrivateEngine, manager: SimpleContainerManager
) -> None:
    """DF-02: what has to be found on the engine first."""
    open_session()
    others = SessionProxy(BaseSessionManager(manager), "bob", "123")
    private.freeze()

    found = outcome(lambda: others.execute_command("true", timeout=TIMEOUT))
    assert found.is_error_within(TIMEOUT + LATE + NOISE), found


def test_connecting_to_a_frozen_engine_is_given_up(private: PrivateEngine) -> None:
    """DF-02: the first call of a program."""
    private.freeze()

    found = outcome(private.backend)
    assert isinstance(found.found, EngineUnavailable)
    assert found.seconds < CONNECT_SECONDS + LATE + NOISE


def test_a_command_is_back_with_its_output_though_the_engine_froze_under_it(
    open_session: OpenSession, private: PrivateEngine
) -> None:
    """DF-03."""
    session = open_session()
    begun = threading.Event()
    with ThreadPoolExecutor() as threads:
        running = threads.submit(
            outcome,
            lambda: session.execute_command("echo half; sleep 60", timeout=TIMEOUT, on_stdout=lambda _: begun.set()),
        )
        assert begun.wait(20)
        private.freeze()
        found = running.result()

    assert isinstance(found.found, CommandInterrupted)
    assert found.found.result is not None
    assert found.found.result.stdout == "half\n"
    assert found.seconds < TIMEOUT + LATE + NOISE


def test_after_the_engine_has_thawed_the_session_goes_on(
    open_session: OpenSession, private: PrivateEngine, engine: Engine
) -> None:
    """DF-03: the same container with its files, and nothing left of the command that was over its time."""
    session = open_session()
    session.execute_command("echo kept > /tmp/file")
    private.freeze()
    with pytest.raises(PodkitError):
        session.execute_command(f"sleep {MARK}", timeout=1)
    private.thaw()

    assert session.execute_command("cat /tmp/file").stdout == "kept\n"
    [name] = engine.names()
    assert eventually(lambda: not [line for line in engine.processes(name) if MARK in line])


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_control_the_sdks_exec_stream_waits_on_though_its_client_has_a_timeout(
    private: PrivateEngine, engine: Engine
) -> None:
    """DF-02: the plain way."""
    id = engine.container().id
    client = docker.DockerClient(base_url=private.url, version="1.41", timeout=int(TIMEOUT))
    begun = threading.Event()

    def read(client: docker.DockerClient) -> None:
        for _ in client.api.exec_start(client.api.exec_create(id, ["sh", "-c", "echo begun; sleep 60"]), stream=True):
            begun.set()

    reader = threading.Thread(target=read, args=(client,), daemon=True)
    reader.start()
    assert begun.wait(20)
    private.freeze()
    reader.join(2 * TIMEOUT)
    blocked = reader.is_alive()

    private.recover()  # ends the stream
    reader.join(20)
    client.close()
    del client, reader
    gc.collect()  # under this test's filter: the SDK does not close the stream's socket
    assert blocked


# --- ends -------------------------------------------------------------------------------------------

PROGRAM = """
import sys, threading
from pathlib import Path
from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.monitors.health import ContainerHealthMonitor

prefix, how = sys.argv[1:]
backend = DockerBackend()
backend.connect()
manager = SimpleContainerManager(backend, prefix, None)
monitor = ContainerHealthMonitor(manager, check_interval=0.2) if how == "monitor" else None
sessions = BaseSessionManager(manager, health_monitor=monitor)
sessions.create_session("bob", "123")
session = SessionProxy(sessions, "bob", "123")
session.execute_command("true")
if how == "popen":
    command = session.popen("sleep 60")
if how == "thread":
    threading.Thread(target=session.execute_command, args=("sleep 60",), daemon=True).start()
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", ["idle", "popen", "thread", "monitor"])
def test_a_program_ends_though_the_engine_is_frozen(private: PrivateEngine, engine: Engine, how: str) -> None:
    """LC-11."""
    process = start_python(PROGRAM, engine.prefix, how, environment={"DOCKER_HOST": private.url}, stdin=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        private.freeze()
        with within(5):
            process.stdin.close()
            assert process.wait(30) == 0


def test_an_idle_session_is_closed_within_a_second(open_session: OpenSession, engine: Engine) -> None:
    """PR-09."""
    session = open_session()
    session.execute_command("true")

    with within(1):
        session.close()
    assert engine.names() == []
