"""The channel behind a container's first process: who gets it, and what comes after it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from podkit import get_docker_session
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine
from tests.support.processes import run_python, start_python
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

KILL_CHANNEL = """
import os, signal
for pid in filter(str.isdigit, os.listdir("/proc")):
    if open(f"/proc/{pid}/comm").read() == "podkit-channel\\n":
        os.kill(int(pid), signal.SIGKILL)
"""

ONE_COMMAND = """
import sys
from podkit import get_docker_session
print(get_docker_session("bob", sys.argv[1]).execute_command("echo here").stdout)
"""

A_WAITING_COMMAND = """
import sys
from podkit import get_docker_session
command = get_docker_session("bob", sys.argv[1]).popen("echo begun; sleep 98761")
print(next(iter(command)), end="", flush=True)
command.wait()
"""


def execs(engine: Engine, id: str) -> int:
    return len(engine.client.api.inspect_container(id)["ExecIDs"] or ())


def names(engine: Engine, id: str) -> list[str]:
    return sorted(name for _, name in engine.client.api.top(id, ps_args="-eo pid,comm")["Processes"] or ())


@pytest.mark.parametrize("user", [None, "nobody"])
def test_a_new_session_needs_no_exec(open_session: OpenSession, engine: Engine, user: str | None) -> None:
    session = open_session(long_config(user=user))
    id = session.get_info().container_id
    assert id is not None
    assert session.execute_command("whoami").stdout == f"{user or 'root'}\n"
    assert execs(engine, id) == 0


def test_a_killed_channel_ends_its_command_and_the_next_one_has_another(
    open_session: OpenSession, engine: Engine
) -> None:
    session = open_session(long_config())
    killed = session.execute_command(["python3", "-c", KILL_CHANNEL + "import time; time.sleep(60)"], timeout=30)
    assert (killed.exit_code, killed.container_restarted) == (137, True)
    assert session.execute_command("echo alive").stdout == "alive\n"


def test_a_channel_that_was_killed_while_idle_is_replaced(open_session: OpenSession, engine: Engine) -> None:
    session = open_session(long_config())
    id = session.get_info().container_id
    assert id is not None
    session.execute_command("true").check()
    engine.client.containers.get(id).exec_run(["python3", "-c", KILL_CHANNEL])
    assert session.execute_command("echo alive").stdout == "alive\n"
    assert session.get_info().container_id == id


def test_a_container_that_was_restarted_before_its_first_command_runs_it(
    open_session: OpenSession, engine: Engine
) -> None:
    session = open_session(long_config())
    id = session.get_info().container_id
    assert id is not None
    engine.client.containers.get(id).restart(timeout=0)
    assert session.execute_command("echo here").stdout == "here\n"


@pytest.fixture
def session_id(facade: Engine) -> Iterator[str]:
    yield uuid.uuid4().hex


def test_a_second_process_has_a_channel_of_its_own(facade: Engine, session_id: str) -> None:
    with get_docker_session("bob", session_id) as session, session.popen(["cat"]) as mine:
        assert run_python(ONE_COMMAND, session_id) == "here\n\n"
        mine.stdin.write("mine\n")
        assert next(iter(mine)) == "mine\n"


def test_the_channel_and_its_commands_end_with_the_process_that_opened_the_session(
    facade: Engine, session_id: str
) -> None:
    process = start_python(A_WAITING_COMMAND, session_id)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    with get_docker_session("bob", session_id) as session:
        id = session.get_info().container_id
        assert id is not None
        assert execs(facade, id) == 0
        process.kill()
        process.communicate()
        assert eventually(lambda: names(facade, id) == ["agent"])
        assert session.execute_command("echo here").stdout == "here\n"
