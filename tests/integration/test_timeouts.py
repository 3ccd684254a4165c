"""A command over its time: what its caller is told, and that nothing of it goes on."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus
from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted
from tests.integration.conftest import EngineExecBackend, OpenSession, long_config
from tests.support.engine import Engine, container_of
from tests.support.programs import FORK_STORM, MARK, SURVIVORS
from tests.support.run import new_prefix
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module", params=["debian", "busybox", "engine_exec"])
def victim(
    request: pytest.FixtureRequest, backend: DockerBackend, default_image: str, busybox_image: str
) -> Iterator[SessionProxy]:
    """A session whose container these tests may kill and start."""
    engine = Engine(backend.client, new_prefix(), default_image)
    image = busybox_image if request.param == "busybox" else default_image
    if request.param == "engine_exec":
        backend = EngineExecBackend()
        backend.connect()
    sessions = BaseSessionManager(SimpleContainerManager(backend, engine.prefix, None))
    sessions.create_session(request.param, image, long_config(image=image, pids_limit=128))
    yield SessionProxy(sessions, request.param, image)
    engine.clean_up()


def uses_engine_exec(session: SessionProxy) -> bool:
    """Whether the session has no agent, so that a command is ended with its container."""
    return session.user_id == "engine_exec"


@pytest.mark.parametrize("shape", SURVIVORS)
def test_a_timed_out_command_leaves_no_process_running(victim: SessionProxy, engine: Engine, shape: str) -> None:
    id = container_of(victim)

    began = time.monotonic()
    result = victim.execute_command(SURVIVORS[shape], timeout=1)
    took = time.monotonic() - began
    left = engine.processes(id)

    assert (result.exit_code, result.timed_out) == (124, True)
    assert not [line for line in left if MARK in line]
    assert 1 <= took < 1 + 5  # a busy machine's noise included
    assert container_of(victim) == id
    assert engine.state(id) == "running"


def test_a_timed_out_fork_storm_leaves_no_process_running(victim: SessionProxy, engine: Engine) -> None:
    result = victim.execute_command(FORK_STORM, timeout=1)

    assert result.timed_out
    assert not [line for line in engine.processes(container_of(victim)) if MARK in line]


def test_a_timed_out_command_gives_its_output_so_far(victim: SessionProxy) -> None:
    result = victim.execute_command("echo before; echo trouble >&2; sleep 60; echo after", timeout=1)

    assert (result.exit_code, result.timed_out, result.ok) == (124, True, False)
    assert result.stdout == "before\n"
    assert result.stderr.startswith("trouble\n")
    assert "timed out" in result.stderr


def test_a_restart_to_end_a_command_is_said_in_the_result_and_in_the_log(
    victim: SessionProxy, engine: Engine, caplog: pytest.LogCaptureFixture
) -> None:
    id = container_of(victim)
    before = engine.started_at(id)

    with caplog.at_level(logging.WARNING, logger="podkit"):
        result = victim.execute_command("sleep 60", timeout=0.5)

    restarted = engine.started_at(id) != before
    assert result.container_restarted == restarted == uses_engine_exec(victim)
    said = [record for record in caplog.records if victim.get_info().container_name in record.getMessage()]
    assert bool(said) == restarted


def test_the_next_command_after_a_timeout_works(victim: SessionProxy) -> None:
    victim.execute_command("echo kept > /tmp/kept; sleep 60", timeout=0.5)

    result = victim.execute_command("cat /tmp/kept")

    assert (result.exit_code, result.stdout, result.container_restarted) == (0, "kept\n", False)


def test_a_command_that_ends_in_time_is_not_restarted_for(victim: SessionProxy, engine: Engine) -> None:
    id = container_of(victim)
    before = engine.started_at(id)

    result = victim.execute_command("sleep 0.2", timeout=30)

    assert (result.exit_code, result.timed_out, result.container_restarted) == (0, False, False)
    assert engine.started_at(id) == before


def test_a_flood_is_ended_at_its_timeout(victim: SessionProxy, engine: Engine) -> None:
    """RX-04."""
    began = time.monotonic()
    result = victim.execute_command("cat /dev/zero", timeout=2, max_output_bytes=1 << 20)
    took = time.monotonic() - began

    assert (result.exit_code, len(result.stdout), result.stdout_truncated) == (124, 1 << 20, True)
    assert took < 2 + 5
    assert not [line for line in engine.processes(container_of(victim)) if "/dev/zero" in line]


HOLD = "for i in 1 2 3; do (while :; do kill -STOP $PPID; done) & done"
"""Keeps the supervisor of a command from ending it."""


@pytest.mark.parametrize("held", ["", HOLD], ids=["", "held"])
def test_whoever_takes_output_slowly_is_back_in_time_all_the_same(victim: SessionProxy, held: str) -> None:
    shown: list[str] = []

    def show(text: str) -> None:
        shown.append(text)
        time.sleep(0.1)

    with within(1 + 9):  # 100 s for what a window holds; a container may have to be restarted
        result = victim.execute_command(f"{held}; yes" if held else "yes", timeout=1, on_stdout=show)

    assert (result.exit_code, result.timed_out) == (124, True)
    assert result.stdout.startswith("".join(shown))
    assert victim.execute_command("echo alive").stdout == "alive\n"


def test_all_output_of_a_command_that_ends_in_time_is_shown_however_slowly(victim: SessionProxy) -> None:
    shown: list[str] = []

    def show(text: str) -> None:
        shown.append(text)
        time.sleep(0.3)

    if not uses_engine_exec(victim):  # there, its end is behind its output
        result = victim.execute_command("head -c 300000 /dev/zero", timeout=1, on_stdout=show)
        assert (result.exit_code, len("".join(shown))) == (0, 300_000)


def test_input_that_is_never_read_does_not_outlast_the_timeout(victim: SessionProxy) -> None:
    """RX-06."""
    began = time.monotonic()
    result = victim.execute_command("sleep 60", input=bytes(64 << 20), timeout=1)

    assert result.timed_out
    assert time.monotonic() - began < 1 + 5


def test_another_threads_command_in_the_session_goes_on_or_is_told_that_it_was_interrupted(
    victim: SessionProxy,
) -> None:
    begun = threading.Event()

    with ThreadPoolExecutor() as threads:
        other = threads.submit(
            victim.execute_command, "echo half; sleep 2; echo whole", on_stdout=lambda _: begun.set()
        )
        assert begun.wait(20)
        result = victim.execute_command("sleep 60", timeout=0.5)
        error = other.exception(timeout=20)

    assert result.timed_out
    if uses_engine_exec(victim):
        assert isinstance(error, CommandInterrupted)
        assert error.result is not None
        assert error.result.stdout == "half\n"
    else:
        assert other.result().stdout == "half\nwhole\n"


def test_of_four_commands_that_time_out_together_none_is_taken_for_ended(victim: SessionProxy, engine: Engine) -> None:
    id = container_of(victim)

    with ThreadPoolExecutor() as threads:
        running = [threads.submit(victim.execute_command, f"sleep {MARK}", timeout=1) for _ in range(4)]
    errors = [future.exception() for future in running]

    # the first one over its time ends the others with it
    assert all(isinstance(error, CommandInterrupted) for error in errors if error)
    assert all(future.result().timed_out for future, error in zip(running, errors, strict=True) if not error)
    assert victim.execute_command("echo alive").stdout == "alive\n"
    assert container_of(victim) == id
    assert not [line for line in engine.processes(id) if MARK in line]


def test_commands_sent_while_another_one_is_ended_run_or_are_interrupted(victim: SessionProxy) -> None:
    outcomes: set[object] = set()

    with ThreadPoolExecutor() as threads:
        endings = threads.submit(lambda: [victim.execute_command("sleep 60", timeout=0.3) for _ in range(3)])
        while not endings.done():
            try:
                result = victim.execute_command("echo alive")
                outcomes.add((result.exit_code, result.stdout, result.stderr))
            except CommandInterrupted:
                continue

    assert all(result.timed_out for result in endings.result())
    assert outcomes == {(0, "alive\n", "")}


def test_one_calls_deadline_never_reaches_another_sessions_command(open_session: OpenSession) -> None:
    late, other = open_session(), open_session(session_id="other")
    done: list[str] = []

    def run_in_the_other(text: str) -> None:
        done.append(other.execute_command("sleep 1; echo done").stdout)

    result = late.execute_command("echo now; sleep 60", timeout=0.5, on_stdout=run_in_the_other)

    assert (result.timed_out, result.stdout) == (True, "now\n")
    assert done == ["done\n"]


def test_a_container_that_is_restarted_to_end_a_command_is_never_seen_as_ended(
    victim: SessionProxy, engine: Engine
) -> None:
    """Also by a second session manager over the same container manager."""
    manager = victim._sessions.container_manager
    id, seen = container_of(victim), set()

    with ThreadPoolExecutor() as threads:
        running = threads.submit(victim.execute_command, "sleep 60", timeout=0.5)
        while not running.done():
            seen.add(manager.get_container_status(id))

    assert running.result().container_restarted == uses_engine_exec(victim)
    assert seen == {ContainerStatus.RUNNING}


def test_a_child_in_the_background_does_not_make_the_next_command_late(open_session: OpenSession) -> None:
    session = open_session()
    id = container_of(session)
    assert session.execute_command("sleep 300 & echo left").stdout == "left\n"

    result = session.execute_command("true", timeout=6)

    assert (result.exit_code, result.timed_out) == (0, False)
    assert container_of(session) == id
    assert session.execute_command("true", timeout=6).ok


def test_sigterm_ends_a_container_at_once_with_143(open_session: OpenSession, engine: Engine) -> None:
    id = container_of(open_session())
    engine.wait_until_up(id)

    began = time.monotonic()
    engine.client.api.stop(id, timeout=20)

    assert engine.inspect(id)["State"]["ExitCode"] == 143
    assert time.monotonic() - began < 5


def test_a_container_stops_by_itself_at_the_end_of_its_lifetime(open_session: OpenSession, engine: Engine) -> None:
    id = container_of(open_session(ContainerConfig(container_lifetime_seconds=1)))

    assert engine.wait_for_end(id, seconds=10) == 0


def test_children_that_a_command_orphaned_are_reaped(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()
    id = container_of(session)

    for _ in range(10):
        session.execute_command("for i in 1 2 3 4 5; do (sleep 0.1 &); done")

    assert eventually(lambda: len(engine.processes(id)) <= 2, seconds=10), engine.processes(id)
