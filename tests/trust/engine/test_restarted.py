"""B11: an engine that is not there, is killed, or comes back: podkit's errors alone, and the session goes on."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import docker
import pytest
import requests

from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.errors import CommandInterrupted, EngineUnavailable, PodkitError
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine
from tests.support.private_engine import PrivateEngine
from tests.support.programs import MARK
from tests.support.waiting import within

pytestmark = pytest.mark.integration


@pytest.fixture(params=["without live-restore", "with live-restore"])
def restarting(request: pytest.FixtureRequest, private: PrivateEngine) -> Iterator[Callable[[], None]]:
    """Starts the engine again as it was; the first time with the option, or without."""
    options = ["--live-restore"] if request.param == "with live-restore" else []
    private.stop()
    private.start(*options)
    yield lambda: private.start(*options)
    private.recover()
    private.stop()
    private.start()


def interrupted(session: SessionProxy, end: Callable[[], None]) -> CommandInterrupted:
    """Have something end while a command runs; the command's error."""
    begun = threading.Event()
    with ThreadPoolExecutor() as threads:
        running = threads.submit(session.execute_command, "echo half; sleep 60", on_stdout=lambda _: begun.set())
        assert begun.wait(20)
        end()
        error = running.exception(timeout=20)
    assert isinstance(error, CommandInterrupted), error
    return error


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_without_an_engine_the_first_call_says_soon_what_was_tried(private: PrivateEngine, how: str) -> None:
    """DF-01."""
    getattr(private, how)()
    with private.chosen():
        backend = DockerBackend()
        with within(2), pytest.raises(EngineUnavailable, match=f"Tried: {private.url} ") as caught:
            backend.connect()

    assert not isinstance(caught.value.__cause__, docker.errors.DockerException)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_command_whose_engine_ends_is_an_error_with_the_output_so_far(
    open_session: OpenSession, private: PrivateEngine, how: str
) -> None:
    """DF-04."""
    session = open_session()

    with within(15):
        error = interrupted(session, getattr(private, how))

    assert error.result is not None
    assert error.result.stdout == "half\n"


def test_while_the_engine_is_gone_every_call_is_a_typed_error(
    open_session: OpenSession, private: PrivateEngine
) -> None:
    """DF-04."""
    session = open_session()
    private.kill()

    for use in (
        lambda: session.execute_command("true"),
        lambda: session.popen("true"),
        lambda: session.files.read_bytes("/etc/passwd"),
        lambda: session.get_accessible_ports(),
        lambda: session.isolation,
        lambda: session.close(),
        lambda: open_session(session_id="another"),
    ):
        with within(5), pytest.raises(PodkitError):
            use()


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("busy", [False, True], ids=["idle", "with a command"])
def test_after_the_engine_was_restarted_the_session_goes_on(
    open_session: OpenSession,
    private: PrivateEngine,
    restarting: Callable[[], None],
    engine: Engine,
    how: str,
    busy: bool,
) -> None:
    """DF-05, DF-06: the next command works, with the same workspace, and there is no second container."""
    session = open_session()
    session.execute_command("echo kept > /workspace/file")
    if busy:
        interrupted(session, getattr(private, how))
    else:
        getattr(private, how)()
    restarting()

    with within(20):
        assert session.execute_command("cat /workspace/file").stdout == "kept\n"
    assert engine.names() == [session.get_info().container_name]
    session.close()
    assert private.audit() == []


def test_with_live_restore_a_container_outlives_its_engine(
    open_session: OpenSession, private: PrivateEngine, engine: Engine
) -> None:
    """DF-06: it is the same container, not even started again, and what a command left running runs on."""
    private.stop()
    private.start("--live-restore")
    session = open_session(long_config())
    session.execute_command(f"setsid sleep {MARK} > /dev/null 2>&1 &")
    before = session.get_info().container_id, engine.started_at(session.get_info().container_name)
    private.kill()
    private.start("--live-restore")

    assert session.execute_command("echo alive").stdout == "alive\n"
    assert (session.get_info().container_id, engine.started_at(session.get_info().container_name)) == before
    assert [line for line in engine.processes(session.get_info().container_name) if MARK in line]
    private.recover()
    private.stop()
    private.start()


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_control_the_sdk_raises_errors_of_the_library_below_it(private: PrivateEngine, engine: Engine) -> None:
    """DF-04: the plain way."""
    id = engine.container().id
    private.kill()

    with pytest.raises(requests.exceptions.RequestException):
        private.client.api.inspect_container(id)
    gc.collect()  # under this test's filter: the SDK does not close the socket of a connection that was refused
