"""SE-01 to SE-05: what the engine and its host see of a secret, and what podkit says of one when things fail.

Beside each stands the plain way to hand over the same value, which does show it. What podkit's objects show of a
secret is in tests/unit/core/test_secret.py.
"""

from __future__ import annotations

import json
import logging
import os
import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from podkit import Secret, SessionProxy, run_in_docker
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.errors import AgentUnavailable, CommandError, PodkitError
from tests.integration.conftest import EngineExecBackend, OpenSession, long_config
from tests.support.engine import Engine, container_of
from tests.support.waiting import eventually
from tests.unit.support import everything_said

pytestmark = pytest.mark.integration

SHOW = 'printf "%s %s" "$TOKEN" "$OWN"'
HOLD = 'test -n "$TOKEN" && test -n "$OWN" && echo ready && exec sleep 600'

# the command lines of all processes of the engine's host
PS = r"""
import glob
for path in glob.glob("/proc/[0-9]*/cmdline"):
    try:
        print(ascii(open(path, "rb").read().replace(b"\0", b" ")))
    except OSError:
        pass
"""


@pytest.fixture
def canary() -> str:
    """A value that stands nowhere else on this machine."""
    return f"canary-{uuid.uuid4().hex}"


@pytest.fixture
def reconnected(backend: DockerBackend, prefix: str, workspace: Path, workspace_host: Path) -> BaseSessionManager:
    """A manager as another process has it: its channels are execs of the engine."""
    return BaseSessionManager(SimpleContainerManager(backend, prefix, workspace, workspace_host))


@pytest.fixture
def without_agent(prefix: str, workspace: Path, workspace_host: Path) -> BaseSessionManager:
    backend = EngineExecBackend()
    backend.connect()
    return BaseSessionManager(SimpleContainerManager(backend, prefix, workspace, workspace_host))


# --- what is inside ----------------------------------------------------------------------------------


def test_the_clients_environment_is_not_inside(
    open_session: OpenSession, engine: Engine, facade: Engine, canary: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-01."""
    monkeypatch.setenv("PODKIT_CANARY", canary)
    session = open_session()
    process = session.processes.start_process("env")
    assert eventually(lambda: not session.processes.is_running(process.id))
    with session.popen("env") as command:
        waited = command.wait()
    inside = [session.execute_command("env"), waited, run_in_docker("env")]
    said = [result.stdout for result in inside] + [session.processes.get_logs(process.id)["stdout"]]
    assert all("PATH=" in text for text in said)
    assert canary not in "".join(said) + json.dumps(engine.inspect(container_of(session)))
    # the control: who hands on an environment, hands on all of it
    assert canary in engine.run(["env"], environment=dict(os.environ))


@pytest.mark.parametrize("user", [None, "nobody"])
def test_every_command_and_background_process_has_the_secrets(
    open_session: OpenSession, canary: str, user: str | None
) -> None:
    session = open_session(long_config(environment={"TOKEN": Secret(canary), "OWN": Secret("of the configuration")}))
    own, wanted = {"OWN": Secret("own")}, f"{canary} own"
    process = session.processes.start_process(SHOW, environment=own, user=user)
    assert eventually(lambda: not session.processes.is_running(process.id))
    with session.popen(SHOW, environment=own, user=user) as command:
        assert command.wait().stdout == wanted
    assert session.execute_command(SHOW, environment=own, user=user).stdout == wanted
    assert session.processes.get_logs(process.id)["stdout"] == wanted
    assert session.execute_command(SHOW, environment={"TOKEN": "", "OWN": "plain"}).stdout == " plain"
    assert session.execute_command(SHOW, user=user).stdout == f"{canary} of the configuration"


def test_a_command_in_a_container_of_its_own_has_its_secrets(facade: Engine, canary: str) -> None:
    assert run_in_docker(SHOW, environment={"TOKEN": Secret(canary)}).stdout == f"{canary} "


def test_a_main_process_of_the_users_own_has_no_secrets_and_its_commands_do(
    open_session: OpenSession, canary: str
) -> None:
    serve = ["sh", "-c", "env > /tmp/env; exec sleep 600"]
    environment = {"TOKEN": Secret(canary), "PLAIN": "1"}
    session = open_session(long_config(entrypoint=serve, environment=environment))
    assert eventually(lambda: "PLAIN=1" in session.execute_command("cat /tmp/env").stdout)
    assert "TOKEN" not in session.execute_command("cat /tmp/env").stdout
    assert session.execute_command("echo $TOKEN").stdout == f"{canary}\n"


def test_a_recreated_container_has_the_secrets_and_who_reconnects_without_them_has_none(
    open_session: OpenSession, engine: Engine, reconnected: BaseSessionManager, canary: str
) -> None:
    config = long_config(environment={"TOKEN": Secret(canary)})
    session = open_session(config)
    before = container_of(session)
    engine.remove(before)
    assert session.execute_command("echo $TOKEN").stdout == f"{canary}\n"
    assert container_of(session) != before

    reconnected.create_session("bob", "123")
    assert reconnected.execute_command("bob", "123", "echo $TOKEN").stdout == "\n"
    rotated = long_config(environment={"TOKEN": Secret("rotated")})
    assert reconnected.create_session("bob", "123", rotated).container_id == container_of(session)
    assert reconnected.execute_command("bob", "123", "echo $TOKEN").stdout == "rotated\n"


# --- what the engine and its host see ----------------------------------------------------------------


class Look:
    """All that the engine and its host show of a container from a moment on."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._since = int(time.time())

    def at(self, id: str) -> dict[str, str]:
        api = self._engine.client.api
        found = self._engine.inspect(id)
        execs = [api.exec_inspect(one) for one in found["ExecIDs"] or ()]
        events = api.events(self._since, int(time.time()) + 1, filters={"container": [id]}, decode=True)
        return {
            "docker inspect": json.dumps(found),
            "docker inspect of its execs": json.dumps(execs),
            "docker events": json.dumps(list(events)),
            "docker top": "\n".join(self._engine.processes(id)),
            "ps of the host": self._engine.run(["python3", "-c", PS], pid_mode="host"),
        }


@contextmanager
def holding(session: SessionProxy, environment: dict[str, Any]) -> Iterator[None]:
    """Have a command and a background process run that have the variables."""
    process = session.processes.start_process(HOLD, environment=environment)
    with session.popen(HOLD, environment=environment) as command:
        assert next(iter(command)) == "ready\n"
        assert eventually(lambda: session.processes.get_logs(process.id)["stdout"] == "ready\n")
        yield
    session.processes.stop_process(process.id, force=True)


def test_neither_the_engine_nor_its_host_see_a_secret(
    open_session: OpenSession, engine: Engine, reconnected: BaseSessionManager, canary: str
) -> None:
    """SE-02: through the channel of the first process, and through one that is an exec of the engine."""
    look, own = Look(engine), {"OWN": Secret(f"{canary}-own")}
    config = long_config(environment={"TOKEN": Secret(canary), "PLAIN": "1"})
    first, second = open_session(config), open_session(config, on=reconnected)
    with holding(first, own), holding(second, own):
        seen = look.at(container_of(first))
        assert len(json.loads(seen["docker inspect of its execs"])) == 1, "the other channel"
        assert seen["docker top"].count("sleep 600") == 4
        mine = [Path(f"/proc/self/{name}").read_bytes().decode(errors="replace") for name in ("cmdline", "environ")]
        files = first.execute_command("grep -r -l -s canary- /run/podkit-processes-0 /tmp /workspace")
    assert {place for place, text in seen.items() if canary in text} == set()
    assert canary not in "".join(mine)
    assert (files.exit_code, files.stdout) == (1, ""), "what is kept of a background process"


def test_control_the_engine_and_its_host_see_a_plain_value(
    open_session: OpenSession, engine: Engine, canary: str
) -> None:
    """SE-02: in the environment of a container, and in the words of a command."""
    look = Look(engine)
    id = container_of(open_session(long_config(environment={"TOKEN": canary})))
    assert canary in look.at(id)["docker inspect"]

    made = engine.client.api.exec_create(id, ["sh", "-c", f"TOKEN={canary}; sleep 600; true"])
    engine.client.api.exec_start(made["Id"], detach=True)
    assert eventually(lambda: canary in "\n".join(engine.processes(id)))
    seen = look.at(id)
    assert {place for place, text in seen.items() if canary in text} == set(seen)


def test_without_the_agent_the_engine_is_told_nothing_and_the_caller_why(
    open_session: OpenSession, engine: Engine, without_agent: BaseSessionManager, canary: str
) -> None:
    """SE-02."""
    look = Look(engine)
    session = open_session(on=without_agent)
    assert session.execute_command("echo $TOKEN", environment={"TOKEN": "plain"}).stdout == "plain\n"
    for run in (session.execute_command, session.popen, session.processes.start_process):
        with pytest.raises(AgentUnavailable) as caught:
            run("touch /tmp/ran", environment={"TOKEN": Secret(canary)})
        assert canary not in everything_said(caught.value)
    with pytest.raises(AgentUnavailable, match="'TOKEN' is a Secret"):
        session.execute_command("true", environment={"TOKEN": Secret(canary)})
    assert not session.execute_command("test -e /tmp/ran").ok
    assert canary not in "".join(look.at(container_of(session)).values())


# --- what podkit says --------------------------------------------------------------------------------

Fail = Callable[[SessionProxy, Engine, dict[str, Any]], object]


def _interrupted(session: SessionProxy, engine: Engine, own: dict[str, Any]) -> object:
    with session.popen("echo ready; sleep 600", environment=own) as command:
        assert next(iter(command)) == "ready\n"
        engine.kill(container_of(session))
        return command.wait()


def _still_running(session: SessionProxy, engine: Engine, own: dict[str, Any]) -> object:
    with session.popen("sleep 600", environment=own) as command:
        return command.wait(timeout=0)


def _paused(session: SessionProxy, engine: Engine, own: dict[str, Any]) -> object:
    id = container_of(session)
    engine.client.api.pause(id)
    try:
        return session.execute_command("true", environment=own, timeout=5)
    finally:
        engine.client.api.unpause(id)


def _agent_killed(session: SessionProxy, engine: Engine, own: dict[str, Any]) -> object:
    return session.execute_command("kill -9 -1; kill -9 $PPID", environment=own).check()


def _conflict(session: SessionProxy, engine: Engine, own: dict[str, Any]) -> object:
    return session._sessions.create_session("bob", "123", long_config(environment=own))


def _raising_handler(session: SessionProxy, engine: Engine, own: dict[str, Any]) -> object:
    class Handler(type(session._sessions.event_handler)):  # type: ignore[misc]  # whatever class it is
        def on_container_creating(self, user_id: str, session_id: str, config: object) -> Any:
            raise PodkitError(f"not with {config!r}")

    containers = session._sessions.container_manager
    kept, containers.event_handler = containers.event_handler, Handler()
    try:
        return session._sessions.create_session("bob", "refused", long_config(environment=own))
    finally:
        containers.event_handler = kept


def _closed(session: SessionProxy, engine: Engine, own: dict[str, Any]) -> object:
    session.close()
    return session.execute_command("true", environment=own)


FAILURES: dict[str, Fail] = {
    "an exit code": lambda session, _, own: session.execute_command("exit 3", environment=own).check(),
    "a timeout": lambda session, _, own: session.execute_command("sleep 60", environment=own, timeout=0.5).check(),
    "no such program": lambda session, _, own: session.execute_command(["no-such"], environment=own).check(),
    "no such user": lambda session, _, own: session.execute_command("true", environment=own, user="nobody-such"),
    "no such directory": lambda session, _, own: session.execute_command("true", "/no/such", own),
    "too much for the kernel": lambda session, _, own: session.execute_command(
        "true", environment={"OWN": Secret(own["OWN"].reveal() * 5000)}
    ),
    "too much for a frame": lambda session, _, own: session.execute_command(
        "true", environment={"OWN": Secret(own["OWN"].reveal() * 150_000)}
    ),
    "a process that cannot start": lambda session, _, own: session.processes.start_process(["no-such"], None, own),
    "a process of nobody": lambda session, _, own: session.processes.start_process("a", None, own, user="nobody-such"),
    "a command that still runs": _still_running,
    "a paused container": _paused,
    "an agent that was killed": _agent_killed,
    "a container that was killed": _interrupted,
    "another configuration": _conflict,
    "an event handler that raises": _raising_handler,
    "a session that was closed": _closed,
}


def test_no_error_log_or_pickle_tells_a_secret_whatever_fails(
    open_session: OpenSession, engine: Engine, canary: str, caplog: pytest.LogCaptureFixture
) -> None:
    """SE-03, SE-04, SE-05: at DEBUG, for the loggers of other packages too."""
    config = long_config(environment={"TOKEN": Secret(canary)})
    own = {"OWN": Secret(f"{canary}-own")}
    said: dict[str, str] = {}
    with caplog.at_level(logging.DEBUG):
        session = open_session(config)
        for name, fail in FAILURES.items():
            with pytest.raises(PodkitError) as caught:
                fail(session, engine, own)
            error = caught.value
            said[name] = everything_said(error) + repr(pickle.dumps(error))
            if isinstance(error, CommandError) and error.result is not None:
                said[name] += repr(error.result) + error.result.model_dump_json()
        session = open_session(config)
        info = session.get_info()
        said["the session"] = repr(info) + info.model_dump_json() + repr(info.model_dump()) + repr(session)
        said["the record"] = repr(session._sessions.container_manager.containers)
        assert session.execute_command(SHOW, environment=own).stdout == f"{canary} {canary}-own", "it did get there"
    assert {name for name, text in said.items() if canary in text} == set()
    assert caplog.records
    assert canary not in "\n".join(f"{record.getMessage()} {record.args!r}" for record in caplog.records)


def test_control_an_error_and_a_session_tell_what_is_no_secret(
    open_session: OpenSession, engine: Engine, canary: str
) -> None:
    """SE-03, SE-04, SE-05."""
    session = open_session(long_config(environment={"TOKEN": canary}))
    assert canary in repr(session.get_info())
    with pytest.raises(PodkitError) as caught:
        session.execute_command(["sh", "-c", f"exit 3 # {canary}"]).check()
    assert canary in everything_said(caught.value)
    assert canary in repr(pickle.dumps(caught.value))
    with pytest.raises(PodkitError, match=canary):
        _raising_handler(session, engine, {"OWN": canary})
