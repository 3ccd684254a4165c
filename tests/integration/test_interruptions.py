"""A command whose container, engine or caller goes away under it."""

from __future__ import annotations

import itertools
import os
import re
import signal
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from podkit import SessionProxy, get_docker_session
from podkit.backends.docker import DockerBackend
from podkit.core.command import Command
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted, PodkitError, SessionBusy
from podkit.utils.paths import get_workspace_path
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine, container_of
from tests.support.interrupts import interrupt
from tests.support.processes import start_python
from tests.support.programs import MARK, SURVIVORS
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration

SHORT = 1.0
BETWEEN = re.compile(r"command\.py:\d+ __(enter|exit)__ \(call\)")  # of the block: before podkit can do anything
LIMIT = 5_000  # more moments than a command has
LIST = r"cat /proc/[0-9]*/cmdline | tr '\0' ' '"

INTERRUPTED = """
import sys
from podkit import get_docker_session

session = get_docker_session("bob", sys.argv[1])
session.execute_command(sys.argv[2], on_stdout=lambda text: print(text, end="", flush=True))
"""


@contextmanager
def running_command(session: SessionProxy, command: str = "sleep 60") -> Iterator[Callable[[], BaseException | None]]:
    """Run a command in a thread; what is given waits for its end and gives its error."""
    begun = threading.Event()
    with ThreadPoolExecutor() as threads:
        running = threads.submit(
            session.execute_command, f"echo half; {command}; echo whole", on_stdout=lambda _: begun.set()
        )
        assert begun.wait(20)
        yield lambda: running.exception(timeout=15)


@pytest.mark.parametrize("how", ["remove", "kill", "stop"])
def test_a_command_whose_container_ends_is_interrupted_and_not_ended(
    open_session: OpenSession, engine: Engine, how: str
) -> None:
    """LC-07."""
    session = open_session()

    with running_command(session) as error_of_command:
        getattr(engine, how)(container_of(session))
        error = error_of_command()

    assert isinstance(error, CommandInterrupted)
    assert error.result is not None
    assert error.result.stdout == "half\n"


@pytest.mark.parametrize("how", ["remove", "kill", "stop"])
def test_after_a_command_was_interrupted_the_next_one_works(
    open_session: OpenSession, engine: Engine, how: str
) -> None:
    """LC-07."""
    session = open_session()
    with running_command(session) as error_of_command:
        getattr(engine, how)(container_of(session))
        error_of_command()

    assert session.execute_command("echo alive").stdout == "alive\n"
    assert engine.names() == [session.get_info().container_name]


def test_a_running_command_outlives_the_lifetime_of_its_container(open_session: OpenSession, engine: Engine) -> None:
    session = open_session(ContainerConfig(container_lifetime_seconds=1))
    id = container_of(session)
    began = engine.started_at(id)

    assert session.execute_command("sleep 3; echo whole").stdout == "whole\n"
    assert engine.started_at(id) == began
    assert engine.wait_for_end(id, seconds=10) == 0


def test_without_the_agent_a_command_that_outlives_the_lifetime_is_interrupted_and_not_ended(
    open_session: OpenSession, engine_exec: BaseSessionManager
) -> None:
    session = open_session(ContainerConfig(container_lifetime_seconds=2), on=engine_exec)

    with pytest.raises(CommandInterrupted, match="lifetime") as caught:
        session.execute_command("echo half; sleep 30; echo whole")
    assert caught.value.result is not None
    assert caught.value.result.stdout == "half\n"


def test_a_command_that_kills_everything_that_it_can_does_not_end_the_session(open_session: OpenSession) -> None:
    session = open_session()

    result = session.execute_command("kill -KILL -1; sleep 5")

    assert (result.exit_code, result.container_restarted) == (137, True)
    assert session.execute_command("echo alive").stdout == "alive\n"


def test_a_paused_container_does_not_hold_up_a_commands_timeout(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()
    with ThreadPoolExecutor() as threads:
        begun = threading.Event()
        running = threads.submit(
            session.execute_command, "echo half; sleep 60", timeout=3, on_stdout=lambda _: begun.set()
        )
        assert begun.wait(20)
        engine.client.api.pause(container_of(session))
        with within(3 + 5), pytest.raises(CommandInterrupted, match="the container is paused") as caught:
            running.result(timeout=15)

    assert caught.value.result is not None
    assert caught.value.result.stdout == "half\n"


def test_what_a_callback_raises_ends_the_command(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()

    def refuse(text: str) -> None:
        raise ZeroDivisionError(text)

    with pytest.raises(ZeroDivisionError):
        session.execute_command(f"echo begun; sleep {MARK}", on_stdout=refuse)

    assert not [line for line in engine.processes(container_of(session)) if MARK in line]
    assert session.execute_command("echo alive").stdout == "alive\n"


def in_a_block(session: SessionProxy, command: str) -> None:
    """Run a command as long as a block lasts."""
    with session.popen(command):
        pass


@pytest.mark.parametrize(
    "run",
    [
        lambda session, command: session.execute_command(command, timeout=SHORT),
        lambda session, _: session.execute_command("true"),
        in_a_block,
    ],
    ids=["a command that is over its time", "a command that ends", "a block"],
)
def test_nothing_runs_on_at_whatever_moment_a_signals_handler_raises(
    open_session: OpenSession, manager: SimpleContainerManager, run: Callable[[SessionProxy, str], object]
) -> None:
    session = open_session()
    other = open_session(None, on=BaseSessionManager(manager))
    other.execute_command("true")
    marks = (f"{MARK}{moment}" for moment in itertools.count())
    for moment in range(1, LIMIT, 2):
        mark = next(marks)
        began = time.monotonic()
        where = interrupt(lambda mark=mark: run(session, f"echo begun; exec sleep {mark}"), moment)
        if where is None or time.monotonic() - began >= SHORT:
            break  # the moments after the kill
        if BETWEEN.search(where):
            continue
        assert eventually(lambda mark=mark: mark not in other.execute_command(LIST).stdout, seconds=5), where
        with within(2):
            assert session.execute_command("echo alive").stdout == "alive\n", where
    assert 250 < moment < LIMIT - 2


def test_a_process_is_not_left_alone_at_whatever_moment_of_its_start_a_signals_handler_raises(
    open_session: OpenSession,
) -> None:
    session = open_session()
    session.execute_command("true")
    for moment in range(1, LIMIT, 3):
        if interrupt(lambda: session.processes.start_process(["sleep", "600"]), moment) is None:
            break
        assert not [process for process in session.processes.list_processes() if process.is_running], moment
    assert 100 < moment < LIMIT - 3


@contextmanager
def handler(action: Callable[[], object]) -> Iterator[list[object]]:
    """Have a signal's handler do something half a second from now; gives what came of it, or the error."""
    came: list[object] = []

    def handle(number: int, frame: object) -> None:
        try:
            came.append(action())
        except PodkitError as exc:
            came.append(exc)

    before = signal.signal(signal.SIGALRM, handle)
    signal.setitimer(signal.ITIMER_REAL, 0.5)
    try:
        yield came
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("waits", [lambda command: command.wait(), lambda command: [*command]])
def test_a_signals_handler_may_end_the_command_that_is_waited_for(
    open_session: OpenSession, waits: Callable[[Command], object]
) -> None:
    session = open_session()
    for end, code in ((Command.kill, 137), (Command.terminate, 143)):
        command = session.popen(f"echo begun; exec sleep {MARK}")
        with handler(lambda end=end, command=command: end(command)) as came, within(5):
            waits(command)
        assert came == [None]
        result = command.wait()
        assert (result.exit_code, result.container_restarted) == (code, False)


@pytest.mark.parametrize("loud", ["", "for i in $(seq 30); do echo $i; sleep 0.05; done;"])
@pytest.mark.parametrize(
    "call",
    [
        lambda session: session.execute_command("echo hi"),
        lambda session: session.popen("echo hi"),
        lambda session: session.write_file("a", "b"),
        lambda session: session.processes.list_processes(),
    ],
    ids=["command", "popen", "file", "processes"],
)
def test_a_signals_handler_is_refused_other_calls_at_once_and_the_interrupted_one_goes_on(
    open_session: OpenSession, call: Callable[[SessionProxy], object], loud: str
) -> None:
    session = open_session()
    session.execute_command("true")
    with handler(lambda: call(session)) as came, within(8):
        result = session.execute_command(f"{loud} sleep 1; echo whole")
    assert result.stdout.endswith("whole\n")
    assert isinstance(came[0], SessionBusy)
    call(session)  # outside of the handler it works


def test_an_interrupted_creation_leaves_nothing_on_the_engine(
    backend: DockerBackend, engine: Engine, workspace: Path, workspace_host: Path
) -> None:
    for moment in range(60, LIMIT, 120):
        manager = SimpleContainerManager(backend, engine.prefix, workspace, workspace_host)
        sessions = BaseSessionManager(manager)
        where = interrupt(lambda made=sessions: made.create_session("bob", "1", long_config()), moment)
        if where is None:
            break
        # one that had come to its end, while its lock was released, is a whole session that the manager knows
        whole = [session.container_name for session in sessions.list_sessions()]
        assert engine.names() == whole, where
        if whole:
            sessions.close_session("bob", "1", remove_workspace=True)
        assert not get_workspace_path(workspace, "bob", "1").exists(), where
    sessions.close_session("bob", "1")
    assert 500 < moment < LIMIT - 120


@pytest.mark.parametrize("shape", ["plain", "sigterm_ignored", "env_i_setsid"])
def test_ctrl_c_in_the_caller_leaves_no_process_running(facade: Engine, shape: str) -> None:
    """PR-12."""
    session_id = uuid.uuid4().hex
    with get_docker_session("bob", session_id) as session:
        process = start_python(INTERRUPTED, session_id, f"echo begun; {SURVIVORS[shape]}")
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"

        process.send_signal(signal.SIGINT)
        with within(15):
            _, stderr = process.communicate(timeout=30)

        assert process.returncode == -signal.SIGINT
        assert stderr.splitlines()[-1] == "KeyboardInterrupt"
        assert not [line for line in facade.processes(container_of(session)) if MARK in line]
        assert session.execute_command("echo alive").stdout == "alive\n"


def test_a_caller_that_was_killed_leaves_a_session_that_works(facade: Engine) -> None:
    session_id = uuid.uuid4().hex
    process = start_python(INTERRUPTED, session_id, "echo begun; sleep 50")
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    with get_docker_session("bob", session_id) as session:
        assert session.execute_command("echo alive").stdout == "alive\n"
        assert len(facade.names()) == 1


def test_the_container_of_a_caller_that_was_killed_stops_at_the_end_of_its_lifetime(facade: Engine) -> None:
    """LC-03, with a lifetime of 2 s."""
    code = INTERRUPTED.replace("(sys.argv[1])", "").replace(
        'get_docker_session("bob", sys.argv[1])',
        'get_docker_session("bob", sys.argv[1], ContainerConfig(container_lifetime_seconds=2))',
    )
    process = start_python(
        "from podkit.core.models import ContainerConfig\n" + code, uuid.uuid4().hex, "echo begun; sleep 50"
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()

    [name] = facade.names()
    assert eventually(lambda: facade.state(name) == "exited", seconds=15)


def test_a_forked_child_leaves_its_parents_running_command_alone(open_session: OpenSession) -> None:
    session = open_session()
    with session.popen("echo begun; sleep 1; echo done") as command:
        child = os.fork()
        if child == 0:
            refused = 0
            with suppress(BaseException), command:  # as a child does that runs on to the end of the block
                for act in (command.terminate, command.kill, command.kill, lambda: command.wait(1)):
                    with suppress(CommandInterrupted):
                        act()
                        refused -= 1
                    refused += 1
            os._exit(refused)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 4

        assert command.wait(20).stdout == "begun\ndone\n"
