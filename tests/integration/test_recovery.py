"""What the next command does about a container that ended, broke or vanished."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from podkit import SessionProxy
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus
from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted, ContainerNotRunning
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine, container_of
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration

EAT_MEMORY = "import sys\nhog = []\nwhile True: hog.append(bytearray(8 << 20))"


def break_container(session: SessionProxy, engine: Engine, how: str) -> None:
    """Have a session's container meet its end behind podkit's back."""
    id = container_of(session)
    if how == "killed":
        engine.kill(id)
    elif how == "removed":
        engine.remove(id)
    elif how == "out of memory":
        session.execute_command("touch /tmp/go")
        assert engine.wait_for_end(id) == 137
        assert engine.inspect(id)["State"]["OOMKilled"]
    elif how == "marked ERROR":
        session.get_info().status = ContainerStatus.ERROR


BROKEN = ["killed", "removed", "out of memory", "marked ERROR"]


@pytest.fixture
def broken_config(engine: Engine, request: pytest.FixtureRequest) -> ContainerConfig:
    """A configuration with everything that a recreation must bring back."""
    hungry = ["sh", "-c", f"while [ ! -e /tmp/go ]; do sleep 0.1; done; exec python3 -c '{EAT_MEMORY}'"]
    return long_config(
        command=hungry if request.node.callspec.params["how"] == "out of memory" else None,
        memory_limit="64m",
        cpu_limit=0.5,
        pids_limit=99,
        ports=engine.free_ports(1),
        environment={"KEY": "value"},
        networks=[engine.network()],
        volumes=[{"type": "volume", "source": engine.volume(), "target": "/data"}],
        working_dir="/data",
    )


@pytest.mark.parametrize("how", BROKEN)
def test_a_broken_container_is_recreated_as_it_was_before_the_next_command(
    open_session: OpenSession, engine: Engine, broken_config: ContainerConfig, how: str
) -> None:
    session = open_session(broken_config)
    session.execute_command("echo workspace > /workspace/file; echo volume > /data/file; echo own > /tmp/file")
    before, info = engine.inspect(container_of(session)), session.get_info()
    break_container(session, engine, how)

    result = session.execute_command("cat /workspace/file /data/file; pwd; echo $KEY; cat /tmp/file 2> /dev/null")

    after = engine.inspect(container_of(session))
    assert result.stdout == "workspace\nvolume\n/data\nvalue\n"
    assert session.get_info() is info
    assert info.status is ContainerStatus.RUNNING
    assert after["Id"] != before["Id"]
    assert after["Name"] == before["Name"]
    assert engine.names() == [info.container_name]
    for part in ("Cmd", "Entrypoint", "Env", "User", "WorkingDir", "Image", "ExposedPorts"):
        assert after["Config"][part] == before["Config"][part]
    assert after["HostConfig"] == before["HostConfig"]
    assert after["NetworkSettings"]["Networks"].keys() == before["NetworkSettings"]["Networks"].keys()
    assert session.get_accessible_ports() == {port: port for port in broken_config.ports}


def test_a_container_that_ended_its_lifetime_is_started_by_the_next_command(
    open_session: OpenSession, engine: Engine
) -> None:
    session = open_session(ContainerConfig(container_lifetime_seconds=1))
    id = container_of(session)
    session.execute_command("echo kept > /tmp/file")
    assert engine.wait_for_end(id) == 0

    assert session.execute_command("cat /tmp/file").stdout == "kept\n"
    assert container_of(session) == id
    assert engine.names() == [session.get_info().container_name]


def test_a_command_sent_in_the_moment_of_the_end_runs_or_says_that_it_may_not_have(open_session: OpenSession) -> None:
    session = open_session(ContainerConfig(container_lifetime_seconds=1))
    outcomes: set[object] = set()
    end = time.monotonic() + 8

    while time.monotonic() < end:
        try:
            result = session.execute_command("echo alive")
            outcomes.add((result.exit_code, result.stdout, result.stderr))
        except CommandInterrupted:
            continue

    assert outcomes == {(0, "alive\n", "")}


def test_a_container_that_was_stopped_is_started_by_the_next_command(open_session: OpenSession, engine: Engine) -> None:
    """LC-10."""
    session = open_session()
    id = container_of(session)
    session.execute_command("echo kept > /tmp/file")
    engine.stop(id)

    assert session.execute_command("cat /tmp/file").stdout == "kept\n"
    assert container_of(session) == id


def test_a_file_of_a_stopped_container_is_read_and_written(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()
    session.execute_command("echo inside > /tmp/file")
    engine.stop(container_of(session))

    assert session.read_file("/tmp/file") == "inside\n"
    engine.stop(container_of(session))
    session.write_file("/tmp/file", "outside\n")
    assert session.execute_command("cat /tmp/file").stdout == "outside\n"


def test_opening_a_session_again_brings_its_container_back(open_session: OpenSession, engine: Engine) -> None:
    stopped = container_of(open_session())
    engine.stop(stopped)

    assert container_of(open_session()) == stopped
    assert engine.state(stopped) == "running"

    engine.kill(stopped)
    recreated = container_of(open_session())
    assert recreated != stopped
    assert engine.state(recreated) == "running"


def test_a_new_manager_brings_back_a_container_that_was_killed(
    open_session: OpenSession, engine: Engine, manager: SimpleContainerManager
) -> None:
    session = open_session(long_config(environment={"KEY": "value"}, cpu_limit=0.5))
    session.write_file("file", "data")
    before = engine.inspect(container_of(session))
    engine.kill(before["Id"])

    other = BaseSessionManager(manager)
    assert other.execute_command("bob", "123", "cat file; echo $KEY").stdout == "datavalue\n"

    after = engine.inspect(before["Name"].removeprefix("/"))
    assert after["Id"] != before["Id"]
    assert (after["HostConfig"], after["Config"]["Env"]) == (before["HostConfig"], before["Config"]["Env"])


def test_of_sixteen_commands_after_a_kill_all_run_in_one_new_container(
    open_session: OpenSession, engine: Engine
) -> None:
    session = open_session()
    engine.kill(container_of(session))

    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(lambda number: session.execute_command(["echo", str(number)]), range(16)))

    assert [result.stdout for result in results] == [f"{number}\n" for number in range(16)]
    assert engine.names() == [session.get_info().container_name]
    assert container_of(session) == engine.inspect(session.get_info().container_name)["Id"]


def test_of_two_managers_that_recreate_at_once_both_get_the_same_container(
    open_session: OpenSession, engine: Engine, manager: SimpleContainerManager
) -> None:
    session = open_session()
    others = [BaseSessionManager(manager) for _ in range(4)]
    for other in others:
        assert other.get_session("bob", "123") is not None
    engine.remove(container_of(session))

    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda other: other.execute_command("bob", "123", "hostname").stdout, others))

    assert len(set(results)) == 1
    assert engine.names() == [session.get_info().container_name]


def test_a_command_that_runs_out_of_memory_does_not_end_the_session(open_session: OpenSession) -> None:
    session = open_session(long_config(memory_limit="64m"))
    id = container_of(session)

    result = session.execute_command(["python3", "-c", EAT_MEMORY], timeout=60)

    assert result.exit_code == 137
    assert not result.timed_out
    assert session.execute_command("echo alive").stdout == "alive\n"
    assert container_of(session) == id


def test_a_paused_container_refuses_commands_and_says_so(open_session: OpenSession, engine: Engine) -> None:
    """LC-08."""
    session = open_session()
    engine.client.api.pause(container_of(session))

    with pytest.raises(ContainerNotRunning, match="paused"):
        session.execute_command("true", timeout=5)
    assert engine.state(container_of(session)) == "paused"

    engine.client.api.unpause(container_of(session))
    assert session.execute_command("echo alive").stdout == "alive\n"


@pytest.mark.parametrize("timeout", [None, 2])
def test_a_container_that_was_paused_just_now_refuses_the_command_and_is_left_alone(
    open_session: OpenSession, engine: Engine, timeout: float | None
) -> None:
    session = open_session()
    session.execute_command("true")
    before = engine.client.api.inspect_container(container_of(session))["State"]["StartedAt"]
    engine.client.api.pause(container_of(session))

    # where pausing took longer than the agent's last word counts, the command is not even sent
    with within(10), pytest.raises((CommandInterrupted, ContainerNotRunning), match="is paused"):
        session.execute_command("echo never > never", timeout=timeout)
    assert engine.state(container_of(session)) == "paused"

    engine.client.api.unpause(container_of(session))
    assert session.execute_command("echo alive").stdout == "alive\n"
    assert engine.client.api.inspect_container(container_of(session))["State"]["StartedAt"] == before


def test_a_container_that_is_paused_under_a_command_is_left_alone_at_its_timeout(
    open_session: OpenSession, engine: Engine
) -> None:
    session = open_session()
    beside = session.popen("sleep 600")
    pause = lambda _: engine.client.api.pause(container_of(session))  # noqa: E731

    with within(10), pytest.raises(CommandInterrupted, match="the container is paused"):
        session.execute_command("echo begun; sleep 60", timeout=2, on_stdout=pause)
    assert engine.state(container_of(session)) == "paused"

    engine.client.api.unpause(container_of(session))
    assert beside.poll() is None
    assert eventually(lambda: not [line for line in engine.processes(container_of(session)) if line == "sleep 60"])


def test_a_session_whose_container_is_paused_can_be_closed(open_session: OpenSession, engine: Engine) -> None:
    """LC-08."""
    session = open_session()
    engine.client.api.pause(container_of(session))

    session.close()

    assert engine.names() == []


def test_the_status_of_a_container_is_that_of_the_engine(
    open_session: OpenSession, engine: Engine, manager: SimpleContainerManager
) -> None:
    id = container_of(open_session())

    assert manager.get_container_status(id) is ContainerStatus.RUNNING
    engine.client.api.pause(id)
    assert manager.get_container_status(id) is ContainerStatus.PAUSED
    engine.client.api.unpause(id)
    engine.stop(id)
    assert manager.get_container_status(id) is ContainerStatus.EXITED
