"""What an event handler is told, in which order, and how often."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podkit import PodkitEventHandler
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, StartupVerificationConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import ContainerFailedToStart, ImageNotFound, NetworkNotFound, PodkitError
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine

pytestmark = pytest.mark.integration

EVENTS = [name for name in vars(PodkitEventHandler) if name.startswith("on_")]


class Recorder(PodkitEventHandler):
    """Notes every event with its arguments and its thread; `raises` makes each of them fail, or one."""

    def __init__(self) -> None:
        self.told: list[tuple[str, tuple[Any, ...]]] = []
        self.threads: set[threading.Thread] = set()
        self.raises: set[str] = set()

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.told]


def _record(name: str) -> Any:
    def method(self: Recorder, *arguments: Any) -> Any:
        self.told.append((name, arguments))
        self.threads.add(threading.current_thread())
        if name in self.raises:
            raise ZeroDivisionError(name)
        return arguments[2] if name == "on_container_creating" else None

    method.__qualname__ = f"Recorder.{name}"  # how the log names it
    return method


for _name in EVENTS:
    setattr(Recorder, _name, _record(_name))


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def told(
    backend: DockerBackend, prefix: str, workspace: Path, workspace_host: Path, recorder: Recorder
) -> Iterator[BaseSessionManager]:
    """A session manager and a container manager that both tell the recorder."""
    manager = SimpleContainerManager(backend, prefix, workspace, workspace_host, event_handler=recorder)
    yield BaseSessionManager(manager, event_handler=recorder)


OPENING = ["on_container_creating", "on_container_created", "on_session_created"]
CLOSING = ["on_session_closing", "on_container_removed", "on_session_closed"]
FAILING = ["on_container_creation_failed", "on_session_creation_failed"]


def test_a_sessions_life_is_told_in_order_and_each_event_once(
    told: BaseSessionManager, recorder: Recorder, open_session: OpenSession
) -> None:
    session = open_session(on=told)
    assert recorder.names == OPENING
    session.execute_command("true")
    session.close()
    session.close()

    assert recorder.names == OPENING + CLOSING
    assert recorder.threads == {threading.current_thread()}


def test_events_say_what_they_are_about(
    told: BaseSessionManager, recorder: Recorder, open_session: OpenSession
) -> None:
    config = long_config()
    session = open_session(config, on=told)
    info, id, name = session.get_info(), session.get_info().container_id, session.get_info().container_name
    session.close()

    assert recorder.told == [
        ("on_container_creating", ("bob", "123", config)),
        ("on_container_created", ("bob", "123", id, name, config)),
        ("on_session_created", (info,)),
        ("on_session_closing", (info,)),
        ("on_container_removed", (id, name)),
        ("on_session_closed", (info,)),
    ]


def test_finding_a_session_is_not_told_as_a_creation(
    told: BaseSessionManager, recorder: Recorder, open_session: OpenSession
) -> None:
    open_session()

    open_session(on=told)

    assert "on_container_created" not in recorder.names
    assert "on_session_created" not in recorder.names


def test_a_recreation_is_told_by_the_container_manager_alone(
    told: BaseSessionManager, recorder: Recorder, open_session: OpenSession, engine: Engine
) -> None:
    session = open_session(on=told)
    engine.kill(session.get_info().container_name)
    recorder.told.clear()

    session.execute_command("true")

    assert recorder.names == ["on_container_removed", "on_container_created"]


@pytest.mark.parametrize(
    ("config", "error"),
    [
        ({"image": "localhost:1/podkit/no-such-image"}, ImageNotFound),
        ({"networks": ["no-such-network"]}, NetworkNotFound),
        ({"entrypoint": ["no-such-program"]}, ContainerFailedToStart),
        ({"entrypoint": ["false"], "startup_verification": StartupVerificationConfig()}, ContainerFailedToStart),
        ({"user": "no-such-user"}, PodkitError),
    ],
    ids=["image", "network", "entrypoint", "exit", "user"],
)
def test_a_failed_creation_is_told_once_by_each_manager(
    told: BaseSessionManager,
    recorder: Recorder,
    open_session: OpenSession,
    engine: Engine,
    config: dict[str, Any],
    error: type[Exception],
) -> None:
    with pytest.raises(error) as caught:
        open_session(ContainerConfig(**config), on=told)

    failures = [(name, arguments) for name, arguments in recorder.told if "failed" in name]
    assert [name for name, _ in failures] == FAILING
    assert failures[0][1] == ("bob", "123", ContainerConfig(**config), caught.value)
    assert failures[1][1] == ("bob", "123", caught.value)
    assert "on_session_created" not in recorder.names
    assert engine.names() == []


@pytest.mark.parametrize("event", [*OPENING[1:], *CLOSING])
def test_a_handler_that_raises_is_logged_and_breaks_nothing(
    told: BaseSessionManager,
    recorder: Recorder,
    open_session: OpenSession,
    engine: Engine,
    caplog: pytest.LogCaptureFixture,
    event: str,
) -> None:
    recorder.raises.add(event)

    session = open_session(on=told)
    assert session.execute_command("echo works").stdout == "works\n"
    session.close()

    assert recorder.names == OPENING + CLOSING
    assert engine.names() == []
    [record] = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert event in record.getMessage()


@pytest.mark.parametrize("event", FAILING)
def test_a_handler_that_raises_hides_no_failure(
    told: BaseSessionManager, recorder: Recorder, open_session: OpenSession, event: str
) -> None:
    recorder.raises.add(event)

    with pytest.raises(NetworkNotFound):
        open_session(long_config(networks=["no-such-network"]), on=told)


def test_what_the_creating_event_raises_ends_the_creation_and_nothing_is_made(
    told: BaseSessionManager, recorder: Recorder, open_session: OpenSession, engine: Engine
) -> None:
    recorder.raises.add("on_container_creating")

    with pytest.raises(ZeroDivisionError):
        open_session(on=told)

    assert recorder.names == ["on_container_creating", *FAILING]
    assert engine.names() == []
    assert told.get_session("bob", "123") is None
    recorder.raises.clear()
    assert open_session(on=told).execute_command("true").ok


# --- a handler that changes the configuration --------------------------------------------------------


class Ports(PodkitEventHandler):
    """Gives every container a port of its own."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports

    def on_container_creating(self, user_id: str, session_id: str, config: ContainerConfig) -> ContainerConfig:
        config.ports = [self.ports.pop(0)]
        config.environment["PORT"] = str(config.ports[0])
        return config


@pytest.fixture
def ports(engine: Engine) -> list[int]:
    return engine.free_ports(3)


@pytest.fixture
def with_ports(
    backend: DockerBackend, prefix: str, workspace: Path, workspace_host: Path, ports: list[int]
) -> BaseSessionManager:
    handler = Ports(list(ports))
    return BaseSessionManager(SimpleContainerManager(backend, prefix, workspace, workspace_host, event_handler=handler))


def test_what_the_creating_event_returns_is_used(
    with_ports: BaseSessionManager, open_session: OpenSession, ports: list[int]
) -> None:
    asked = long_config()

    session = open_session(asked, on=with_ports)

    assert session.get_info().config == long_config(ports=ports[:1], environment={"PORT": str(ports[0])})
    assert session.get_accessible_ports() == {ports[0]: ports[0]}
    assert session.execute_command("echo $PORT").stdout == f"{ports[0]}\n"
    assert asked == long_config()  # the caller's own is not changed


def test_a_changed_configuration_is_no_conflict_with_the_one_that_was_asked_for(
    with_ports: BaseSessionManager, open_session: OpenSession, manager: SimpleContainerManager, ports: list[int]
) -> None:
    made = open_session(on=with_ports).get_info()

    assert open_session(on=with_ports).get_info() is made
    found = open_session(on=BaseSessionManager(manager)).get_info()
    assert (found.container_id, found.config.ports) == (made.container_id, ports[:1])


def test_a_recreation_keeps_the_ports_that_the_creating_event_chose(
    with_ports: BaseSessionManager, open_session: OpenSession, engine: Engine, ports: list[int]
) -> None:
    session = open_session(on=with_ports)
    for _ in range(2):
        engine.remove(session.get_info().container_name)

        assert session.execute_command("echo $PORT").stdout == f"{ports[0]}\n"
        assert session.get_accessible_ports() == {ports[0]: ports[0]}
