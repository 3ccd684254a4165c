"""Containers whose engine forbids more than podkit does: system calls, or all writing to the root file system."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from podkit import SessionProxy
from podkit.backends._http import Requests
from podkit.backends.base import WorkloadSpec
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import Mount
from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted, ContainerFailedToStart, NotSupported
from tests.integration.conftest import long_config
from tests.support.engine import Engine
from tests.support.payloads import MARK
from tests.support.waiting import within

pytestmark = pytest.mark.integration

Opens = Callable[[Mapping[str, Any]], SessionProxy]


class HardenedBackend(DockerBackend):
    """An engine that adds something to the `HostConfig` of each container."""

    def __init__(self, extra: Mapping[str, Any]) -> None:
        super().__init__()
        self._extra = extra

    def _body(self, api: Requests, spec: WorkloadSpec) -> dict[str, Any]:
        body = super()._body(api, spec)
        return {**body, "HostConfig": {**body["HostConfig"], **self._extra}}


@pytest.fixture
def hardened(engine: Engine, default_image: str) -> Opens:
    """Opens a session whose container has this in its `HostConfig`."""

    def open_session(extra: Mapping[str, Any]) -> SessionProxy:
        backend = HardenedBackend(extra)
        backend.connect()
        sessions = BaseSessionManager(SimpleContainerManager(backend, engine.prefix, None))
        config = long_config(image=default_image, volumes=[Mount(target="/writable", type="tmpfs")])
        sessions.create_session("bob", "hardened", config)
        return SessionProxy(sessions, "bob", "hardened")

    return open_session


def without(call: str, action: str = "SCMP_ACT_ERRNO") -> dict[str, Any]:
    """A `HostConfig` that forbids a system call, and allows all others."""
    rule = {"names": [call], "action": action}
    profile = json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    return {"SecurityOpt": ["no-new-privileges", f"seccomp={profile}"]}


# --- system calls -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "action"),
    [
        ("prctl", "SCMP_ACT_ERRNO"),  # by which a command's processes are kept together
        ("signalfd4", "SCMP_ACT_ERRNO"),
        ("epoll_ctl", "SCMP_ACT_ERRNO"),
        ("socketpair", "SCMP_ACT_ERRNO"),
        ("socketpair", "SCMP_ACT_KILL_PROCESS"),
    ],
)
def test_an_agent_that_may_not_work_leaves_commands_to_the_engines_exec_and_says_so_once(
    hardened: Opens, caplog: pytest.LogCaptureFixture, call: str, action: str
) -> None:
    session = hardened(without(call, action))
    with within(10), caplog.at_level(logging.WARNING):
        assert session.execute_command("echo hello").check().stdout == "hello\n"
        assert session.execute_command("echo again").check().stdout == "again\n"
        session.write_file("file", "text")
    assert session.read_file("file") == "text"
    [said] = [record.getMessage() for record in caplog.records if "go through the engine's exec" in record.getMessage()]
    isolation = session.isolation
    assert (isolation.commands, isolation.commands_reason) == ("engine exec", said.partition("engine's exec: ")[2])
    if action == "SCMP_ACT_ERRNO":
        assert f"({call}: Operation not permitted)" in said
    with pytest.raises(NotSupported, match="the agent cannot be run"):
        session.popen("cat")


def test_where_processes_cannot_be_kept_together_a_timeout_leaves_none_of_them(hardened: Opens, engine: Engine) -> None:
    session = hardened(without("prctl"))
    result = session.execute_command(f"(setsid sleep {MARK} &); sleep {MARK}", timeout=0.5)
    assert (result.timed_out, result.container_restarted) == (True, True)
    container_id = session.get_info().container_id
    assert container_id is not None
    assert not [line for line in engine.processes(container_id) if str(MARK) in line]


def test_a_first_process_that_is_killed_at_its_start_is_an_error_that_says_how_it_ended(hardened: Opens) -> None:
    session = hardened(without("rt_sigtimedwait", "SCMP_ACT_KILL_PROCESS"))
    errors: list[CommandInterrupted | ContainerFailedToStart] = []
    for _ in range(4):
        with within(20):
            try:
                session.execute_command("sleep 1")
            except (CommandInterrupted, ContainerFailedToStart) as exc:  # its channel may be quicker than its death
                errors.append(exc)
    assert len(errors) == 4
    for error in errors:
        if isinstance(error, ContainerFailedToStart):
            assert re.search(r"failed to start: .* exit code 159", str(error))
            assert error.exit_code == 159


def test_a_first_process_that_may_not_wait_for_signals_takes_no_time_of_the_processor(hardened: Opens) -> None:
    session = hardened(without("rt_sigtimedwait"))
    stat = session.execute_command("sleep 1; cat /proc/1/stat").check().stdout
    user, system = map(int, stat.rpartition(")")[2].split()[11:13])
    assert user + system < 20  # hundredths of a second


# --- a root file system that is read-only -------------------------------------------------------------------------


@pytest.fixture
def sealed(hardened: Opens) -> SessionProxy:
    """A session that can write to /writable only."""
    return hardened({"ReadonlyRootfs": True})


def test_on_a_read_only_root_file_system_commands_and_processes_run(sealed: SessionProxy) -> None:
    assert sealed.execute_command("pwd").check().stdout == "/workspace\n"
    with sealed.popen(["cat"]) as command:
        command.stdin.write("hello")
        command.stdin.close()
        assert command.wait(20).stdout == "hello"
    result = sealed.execute_command(f"(setsid sleep {MARK} &); sleep {MARK}", timeout=0.4)
    assert (result.timed_out, result.container_restarted) == (True, False)
