"""The container's first process: how long it lives, what ends it, what it costs, and what it does without podkit."""

from __future__ import annotations

import os
import signal
import time
import uuid

import pytest

from podkit import get_docker_session
from podkit.agent.channel import ChannelBroken
from podkit.agent.channel_call import Call
from podkit.agent.channel_pool import ChannelPool
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.errors import CommandInterrupted
from tests.integration.conftest import OpenSession, long_config
from tests.support.agent import soon
from tests.support.engine import Engine, container_of
from tests.support.payloads import MARK
from tests.support.processes import start_python
from tests.support.victim import Victim
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration

CLIENT = """
import sys
from podkit import get_docker_session
from podkit.core.models import ContainerConfig

session = get_docker_session("bob", sys.argv[1], ContainerConfig(container_lifetime_seconds=int(sys.argv[2])))
print(session.get_info().container_id, flush=True)
session.execute_command(sys.argv[3], on_stdout=lambda text: print(text, end="", flush=True))
sys.stdin.read()
"""


def until_the_end(engine: Engine, id: str, *, seconds: float) -> float:
    """Wait for a container's end by itself; how long that took."""
    began = time.monotonic()
    assert engine.wait_for_end(id, seconds) == 0
    return time.monotonic() - began


# --- the lifetime --------------------------------------------------------------------------------------------


def test_a_container_without_commands_ends_with_its_lifetime(open_session: OpenSession, engine: Engine) -> None:
    id = container_of(open_session(ContainerConfig(container_lifetime_seconds=2)))
    assert until_the_end(engine, id, seconds=10) > 0.5


def test_a_channel_says_farewell_at_the_end_of_the_lifetime(open_session: OpenSession) -> None:
    """So a command that was sent a moment too late is known to have run nowhere."""
    session = open_session(ContainerConfig(container_lifetime_seconds=2))
    backend = DockerBackend()
    backend.connect()
    links = ChannelPool(backend)
    link = links.get(container_of(session), None, soon())
    assert link is not None
    with pytest.raises(ChannelBroken) as caught:
        link.channel.wait(Call(0), lambda: False, soon())
    assert caught.value.nothing_sent
    links.close()
    backend.close()


def test_a_lifetime_begins_anew_at_the_end_of_a_command(open_session: OpenSession, engine: Engine) -> None:
    session = open_session(ContainerConfig(container_lifetime_seconds=3))
    assert session.execute_command("sleep 2").ok
    assert session.execute_command("sleep 2").ok
    assert until_the_end(engine, container_of(session), seconds=12) > 2.5


def test_a_container_lives_one_lifetime_after_its_last_command_and_not_two(
    open_session: OpenSession, engine: Engine
) -> None:
    sessions = [
        open_session(ContainerConfig(container_lifetime_seconds=6), session_id=f"s{number}") for number in range(6)
    ]
    ids = [container_of(session) for session in sessions]
    for session in sessions:
        assert session.execute_command("true").ok
    last = time.monotonic()

    assert eventually(lambda: all(engine.state(id) == "exited" for id in ids), seconds=30)
    assert time.monotonic() - last < 6 + 5  # two lifetimes are 12


def test_a_running_command_is_not_cut_by_the_lifetime(open_session: OpenSession) -> None:
    session = open_session(ContainerConfig(container_lifetime_seconds=2))
    assert session.execute_command("sleep 5; echo whole").stdout == "whole\n"


def test_what_a_command_left_running_does_not_keep_its_container(open_session: OpenSession, engine: Engine) -> None:
    session = open_session(ContainerConfig(container_lifetime_seconds=2))
    session.execute_command(f"setsid sleep {MARK} > /dev/null 2>&1 &")
    assert until_the_end(engine, container_of(session), seconds=12) > 0.5


@pytest.mark.parametrize("sent", ["USR1", "CHLD", "WINCH", "CONT", "36"])
def test_signals_without_an_end_do_not_keep_a_container(open_session: OpenSession, engine: Engine, sent: str) -> None:
    session = open_session(ContainerConfig(container_lifetime_seconds=2))
    storm = f"while :; do kill -{sent} 1; done"
    session.execute_command(f"for i in 1 2 3; do (setsid sh -c '{storm}' > /dev/null 2>&1 &); done")
    until_the_end(engine, container_of(session), seconds=15)


def test_sigterm_ends_it_at_once_in_the_middle_of_a_command(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()
    id = container_of(session)
    command = session.popen(["sleep", MARK])

    with within(5):
        engine.client.api.stop(id, timeout=30)

    assert engine.inspect(id)["State"]["ExitCode"] == 143
    with within(5), pytest.raises(CommandInterrupted):
        command.wait(10)


def test_a_container_serves_many_podkit_processes_and_ends_after_the_last(facade: Engine) -> None:
    session_id = uuid.uuid4().hex
    clients = [start_python(CLIENT, session_id, "3", "sleep 1") for _ in range(4)]
    try:
        ids = {client.stdout.readline().strip() for client in clients if client.stdout}
        assert len(ids) == 1
        for client in clients:
            client.communicate(timeout=60)
        began = time.monotonic()
        assert facade.wait_for_end(ids.pop(), seconds=20) == 0
        assert time.monotonic() - began < 10
    finally:
        for client in clients:
            client.kill()
            client.wait()


@pytest.mark.parametrize("command", ["echo idle", f"echo busy; setsid sleep {MARK} & sleep {MARK}"])
def test_the_container_of_a_client_that_was_killed_ends_after_its_lifetime(facade: Engine, command: str) -> None:
    client = start_python(CLIENT, uuid.uuid4().hex, "4", command)
    assert client.stdout is not None
    id = client.stdout.readline().strip()
    assert client.stdout.readline() in ("idle\n", "busy\n")

    os.kill(client.pid, signal.SIGKILL)
    client.communicate()

    assert until_the_end(facade, id, seconds=2 * 4 + 6) > 1


# --- what it costs --------------------------------------------------------------------------------------------


def agents(engine: Engine, id: str) -> dict[str, str]:
    """The pids on the engine's host of the agent's processes, by their names."""
    return {name: pid for pid, name in engine.client.api.top(id, ps_args="-eo pid,comm")["Processes"] or ()}


LOOK = """
import re, sys
for pid in sys.argv[1:]:
    fields = open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()
    rss = re.search(r"VmRSS:\\s+(\\d+)", open(f"/proc/{pid}/status").read())
    print(int(fields[11]) + int(fields[12]), rss[1])
"""


def test_an_idle_agent_takes_no_time_and_little_memory(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()
    for _ in range(50):
        assert session.execute_command("true").ok
    pids = agents(engine, container_of(session))
    assert pids.keys() == {"agent", "podkit-channel"}

    def look() -> list[tuple[int, int]]:
        lines = engine.run(["python3", "-c", LOOK, *pids.values()], pid_mode="host").splitlines()
        return [(int(ticks), int(kib)) for ticks, kib in map(str.split, lines)]

    before = look()
    assert not eventually(lambda: False, seconds=5)
    after = look()

    ticks = [new - old for (old, _), (new, _) in zip(before, after, strict=True)]
    assert max(ticks) <= 1  # of 10 ms, in 5 s
    assert sum(kib for _, kib in after) < 2048


def test_orphans_are_reaped_while_no_podkit_is_there(
    backend: DockerBackend, engine: Engine, default_image: str
) -> None:
    victim = Victim(backend, engine, default_image)
    victim.session.execute_command("for i in 1 2 3 4 5; do (setsid sleep 1 &); done > /dev/null 2>&1")
    manager = victim.session._sessions.container_manager
    manager.close()  # as if its process had ended
    assert eventually(lambda: len(engine.processes(victim.id)) == 1), engine.processes(victim.id)


IMPOSTOR = """
import ctypes, os, time
for leave in (lambda: None, os.setsid):
    if os.fork():
        os._exit(0)
    leave()
for fd in range(3):
    os.close(fd)
ctypes.CDLL(None).prctl(15, b"podkit-command", 0, 0, 0)
time.sleep(300)
"""
"""What a command leaves behind, under the name of those that watch commands."""


@pytest.mark.parametrize("user", [None, "nobody"])
def test_what_a_command_left_running_is_counted_as_no_command_whatever_its_name(
    open_session: OpenSession, engine: Engine, user: str | None
) -> None:
    session = open_session()
    session.execute_command(["python3", "-c", IMPOSTOR], user=user).check()
    manager = session._sessions.container_manager
    id = container_of(session)
    assert eventually(lambda: "podkit-command" in names(engine, id))
    assert not manager.is_busy(id)


def names(engine: Engine, id: str) -> list[str]:
    return [name for _, name in engine.client.api.top(id, ps_args="-eo pid,comm")["Processes"] or ()]


TAKE_OUTPUT = """
import os, time
end = time.time() + 10
known = set(os.listdir("/proc"))
print("ready", flush=True)
while time.time() < end:
    for pid in set(filter(str.isdigit, os.listdir("/proc"))) - known:
        for name in ("fd/1", "mem"):
            try:
                os.open(f"/proc/{pid}/{name}", os.O_WRONLY)
                if open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[1] == "0":
                    print("taken", name, flush=True)
            except OSError:
                pass
"""


def test_a_channel_that_an_exec_starts_cannot_be_opened_by_what_runs_as_its_user(open_session: OpenSession) -> None:
    session = open_session(long_config(user="nobody"))
    with session.popen(["python3", "-c", TAKE_OUTPUT]) as spy:
        assert next(iter(spy)) == "ready\n"
        for _ in range(10):
            other = SimpleContainerManager(DockerBackend(), "other", None)
            other.backend.connect()
            assert other.execute_command(container_of(session), "echo hi").stdout == "hi\n"
        result = spy.wait(20)
    assert result.stdout == "ready\n"


HAMMER = f"""
import os, resource, signal, subprocess, sys
supervisor = os.getppid()
subprocess.Popen(["sleep", "{MARK}"], start_new_session=True)
print("ready", flush=True)
if sys.argv[1] == "deaf":
    resource.prlimit(supervisor, resource.RLIMIT_NOFILE, (0, 0))
    signal.pause()
while True:
    os.kill(supervisor, signal.SIGSTOP)
"""
"""Keeps its supervisor from doing what it is for."""

HOST = """
import sys
from podkit import get_docker_session
from podkit.core.models import ContainerConfig
get_docker_session("bob", sys.argv[1], ContainerConfig(user="1000")).execute_command(
    ["python3", "-c", sys.argv[2], sys.argv[3]], on_stdout=lambda text: print(text, end="", flush=True)
)
"""


@pytest.mark.parametrize("way", ["stopped", "deaf"])
def test_a_supervisor_that_is_kept_from_its_work_lets_nothing_outlive_the_host(facade: Engine, way: str) -> None:
    id = uuid.uuid4().hex
    process = start_python(HOST, id, HAMMER, way)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    with get_docker_session("bob", id) as session:
        container = session.get_info().container_id
        assert container is not None
        process.kill()
        process.communicate()
        assert eventually(lambda: not [line for line in facade.processes(container) if MARK in line])
        assert session.execute_command("echo alive").stdout == "alive\n"
