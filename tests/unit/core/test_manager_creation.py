"""Creation fails at each step and leaves nothing; each event is told once, in the caller's thread."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podkit.backends.base import Deadline
from podkit.core.events import PodkitEventHandler
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus, Session, StartupVerificationConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import (
    ContainerFailedToStart,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    ImageNotFound,
    InvalidInput,
    MountSourceNotFound,
    NetworkNotFound,
    PodkitError,
    PortUnavailable,
)
from podkit.testing import FakeBackend, Invocation, Pause, Reply, Steps
from tests.unit.support import PREFIX, Recorder, inspected, make_spec, names_on

CONFIG = ContainerConfig(
    image="some:image",
    entrypoint=["serve"],
    startup_verification=StartupVerificationConfig(check_interval_seconds=0.005),
)


def serve(run: Invocation) -> Steps:
    yield Pause(60)
    return 0


def engine() -> FakeBackend:
    """An engine that has to pull the image first, and whose containers are looked at before they count."""
    fake = FakeBackend({"serve": serve}, images=[], registry=["some:image"])
    fake.connect()
    fake.calls.clear()
    return fake


def sessions_on(fake: FakeBackend, base: Path, handler: PodkitEventHandler | None = None) -> BaseSessionManager:
    return BaseSessionManager(SimpleContainerManager(fake, PREFIX, base, event_handler=handler), event_handler=handler)


def steps_of_a_creation() -> list[tuple[str, int]]:
    """The engine calls of a creation that succeeds: the method, and which of its calls that is."""
    fake = engine()
    with tempfile.TemporaryDirectory() as base:
        sessions_on(fake, Path(base)).create_session("bob", "1", CONFIG)
    return [(method, fake.calls[:index].count(method)) for index, method in enumerate(fake.calls)]


STEPS = steps_of_a_creation()
ERRORS = [EngineError("broken"), EngineTimeout("late"), EngineUnavailable("gone")]


def test_a_creation_takes_these_steps() -> None:
    methods = [method for method, _ in STEPS]
    assert {"create_workload", "start_workload", "inspect_workload"} == set(methods)


FAULTS = [
    pytest.param(step, error, after, id=f"{'after' if after else 'before'}-{step[0]}-{step[1]}-{type(error).__name__}")
    for step in STEPS
    for error in ERRORS
    for after in (False, True)
    # an engine that says no has made nothing
    if not (after and step[0] == "create_workload" and type(error) is EngineError)
]


@pytest.mark.parametrize(("step", "error", "after"), FAULTS)
def test_a_fault_at_any_step_of_a_creation_leaves_nothing(
    tmp_path: Path, step: tuple[str, int], error: PodkitError, after: bool
) -> None:
    fake, recorder, (method, earlier) = engine(), Recorder(), step
    sessions = sessions_on(fake, tmp_path, recorder)
    fake.interpose(method, lambda: None, times=earlier)
    if after:
        fake.interpose(method, lambda: fake.fail(method, error, after=True))
    else:
        fake.fail(method, error)
    with pytest.raises(PodkitError):
        sessions.create_session("bob", "1", CONFIG)
    assert names_on(fake) == []
    assert sessions.container_manager.containers == {}
    assert sessions.list_sessions() == []
    assert [path for path in tmp_path.rglob("*") if path.name == "1"] == []
    assert recorder.names.count("on_session_creation_failed") == 1
    assert recorder.names.count("on_container_creation_failed") <= 1
    assert "on_session_created" not in recorder.names


@pytest.mark.parametrize("step", STEPS, ids=lambda step: f"{step[0]}-{step[1]}")
def test_after_a_fault_the_same_session_can_be_created(tmp_path: Path, step: tuple[str, int]) -> None:
    fake, (method, earlier) = engine(), step
    sessions = sessions_on(fake, tmp_path)
    fake.interpose(method, lambda: None, times=earlier)
    fake.fail(method, EngineUnavailable("gone"))
    with pytest.raises(PodkitError):
        sessions.create_session("bob", "1", CONFIG)
    session = sessions.create_session("bob", "1", CONFIG)
    assert session.container_id in sessions.container_manager.containers
    assert len(names_on(fake)) == 1


# --- refusals of the engine ------------------------------------------------------------------------


def forbid_image(fake: FakeBackend) -> None:
    fake.images, fake.registry = set(), set()


REFUSALS: dict[str, tuple[dict[str, Any], Callable[[FakeBackend], object], type[PodkitError]]] = {
    "image": ({"image": "no:such"}, forbid_image, ImageNotFound),
    "network": ({"networks": ["nope"]}, lambda fake: None, NetworkNotFound),
    "mount": (
        {"volumes": [{"source": "/nope", "target": "/data"}]},
        lambda fake: fake.missing_sources.add("/nope"),
        MountSourceNotFound,
    ),
    "port": ({"ports": [8080]}, lambda fake: fake.taken_ports.add(8080), PortUnavailable),
    "entrypoint": ({"entrypoint": ["/no/such"]}, lambda fake: None, ContainerFailedToStart),
}


@pytest.mark.parametrize("what", REFUSALS)
def test_what_the_engine_refuses_is_told_once_by_both_managers_and_leaves_nothing(
    fake: FakeBackend, sessions: BaseSessionManager, recorder: Recorder, what: str
) -> None:
    fields, prepare, error = REFUSALS[what]
    prepare(fake)
    with pytest.raises(error) as caught:
        sessions.create_session("bob", "1", ContainerConfig(**fields))
    assert recorder.names.count("on_container_creation_failed") == 1
    assert recorder.names.count("on_session_creation_failed") == 1
    assert recorder.arguments("on_container_creation_failed")[3] is caught.value
    assert recorder.arguments("on_session_creation_failed") == ("bob", "1", caught.value)
    assert names_on(fake) == []


def test_a_port_of_another_session_is_taken(sessions: BaseSessionManager, fake: FakeBackend) -> None:
    sessions.create_session("bob", "1", ContainerConfig(ports=[8080]))
    with pytest.raises(PortUnavailable, match="8080"):
        sessions.create_session("bob", "2", ContainerConfig(ports=[8080]))
    assert len(names_on(fake)) == 1


def test_a_main_process_that_ends_at_once_is_a_failed_start_with_its_last_words(
    fake: FakeBackend, sessions: BaseSessionManager, recorder: Recorder
) -> None:
    fake.programs["serve"] = Reply("last words\n", exit_code=3)
    with pytest.raises(ContainerFailedToStart, match=r"(?s)failed to start.*exit code 3.*last words"):
        sessions.create_session("bob", "1", CONFIG)
    assert recorder.names.count("on_container_creation_failed") == 1
    assert names_on(fake) == []


def test_without_a_verification_a_main_process_that_ends_at_once_is_no_error(
    fake: FakeBackend, sessions: BaseSessionManager
) -> None:
    fake.programs["once"] = Reply("done\n")
    config = ContainerConfig(command=["once"], startup_verification=None)
    assert sessions.create_session("bob", "1", config).container_id is not None


def test_a_stranger_with_the_containers_name_is_not_touched(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    sessions.create_session("bob", "1")
    [name] = names_on(fake)
    sessions.close_session("bob", "1")
    fake.create_workload(make_spec(name))
    with pytest.raises(EngineError, match="not touched"):
        sessions.create_session("bob", "1")
    assert names_on(fake) == [name]


# --- events ----------------------------------------------------------------------------------------


def test_a_life_is_told_in_order_each_event_once(sessions: BaseSessionManager, recorder: Recorder) -> None:
    session = sessions.create_session("bob", "1")
    id, name = session.container_id, session.container_name
    sessions.close_session("bob", "1")
    assert recorder.names == [
        "on_container_creating",
        "on_container_created",
        "on_session_created",
        "on_session_closing",
        "on_container_removed",
        "on_session_closed",
    ]
    assert recorder.arguments("on_container_created")[:4] == ("bob", "1", id, name)
    assert recorder.arguments("on_session_created") == (session,)
    assert recorder.arguments("on_container_removed") == (id, name)


def test_reconnecting_is_no_creation(sessions: BaseSessionManager, recorder: Recorder) -> None:
    sessions.create_session("bob", "1")
    recorder.events.clear()
    sessions.create_session("bob", "1")
    BaseSessionManager(sessions.container_manager, event_handler=recorder).create_session("bob", "1")
    assert recorder.names == []


def test_a_pull_is_told(recorder: Recorder, tmp_path: Path) -> None:
    sessions_on(engine(), tmp_path, recorder).create_session("bob", "1", CONFIG)
    assert recorder.arguments("on_image_pulling")[0] == "some:image"


def test_events_come_in_the_callers_thread_before_the_call_returns(fake: FakeBackend) -> None:
    threads: list[int] = []

    class Handler(PodkitEventHandler):
        def on_session_created(self, session: Session) -> None:
            threads.append(threading.get_ident())

    BaseSessionManager(SimpleContainerManager(fake, PREFIX, None), event_handler=Handler()).create_session("bob", "1")
    assert threads == [threading.get_ident()]


def test_a_handler_may_change_the_configuration_and_the_session_says_so(
    fake: FakeBackend, sessions: BaseSessionManager, recorder: Recorder
) -> None:
    recorder.change = lambda config: config.model_copy(update={"ports": [9000]})
    asked = ContainerConfig(image="some:image")
    session = sessions.create_session("bob", "1", asked)
    assert session.config.ports == [9000]
    assert fake.get_accessible_ports(session.container_id or "") == {9000: 9000}
    assert asked.ports == []
    assert sessions.create_session("bob", "1", asked) is session


def test_a_handler_that_changes_its_argument_in_place_changes_no_other_session(
    sessions: BaseSessionManager, recorder: Recorder
) -> None:
    def change(config: ContainerConfig) -> ContainerConfig:
        config.environment["ADDED"] = "1"
        return config

    recorder.change = change
    asked = ContainerConfig()
    assert sessions.create_session("bob", "1", asked).config.environment == {"ADDED": "1"}
    assert asked.environment == {}


@pytest.mark.parametrize("returned", [None, {"image": "x"}, "x"])
def test_a_handler_that_returns_no_configuration_ends_the_creation(
    fake: FakeBackend, sessions: BaseSessionManager, recorder: Recorder, returned: Any
) -> None:
    recorder.change = lambda config: returned
    with pytest.raises(InvalidInput, match="on_container_creating returned"):
        sessions.create_session("bob", "1")
    assert "create_workload" not in fake.calls


def test_a_handler_that_returns_a_configuration_that_cannot_be_right_ends_the_creation(
    fake: FakeBackend, sessions: BaseSessionManager, recorder: Recorder
) -> None:
    recorder.change = lambda config: config.model_copy(update={"ports": [0]})
    with pytest.raises(InvalidInput, match="ports"):
        sessions.create_session("bob", "1")
    assert "create_workload" not in fake.calls


def test_what_on_container_creating_raises_ends_the_creation_cleanly(
    fake: FakeBackend, sessions: BaseSessionManager, recorder: Recorder
) -> None:
    recorder.raising["on_container_creating"] = KeyError("mine")
    with pytest.raises(KeyError, match="mine"):
        sessions.create_session("bob", "1")
    assert names_on(fake) == []
    assert recorder.names.count("on_container_creation_failed") == 1
    assert recorder.names.count("on_session_creation_failed") == 1


OTHERS = [
    "on_container_created",
    "on_session_created",
    "on_session_closing",
    "on_container_removed",
    "on_session_closed",
]


@pytest.mark.parametrize("event", OTHERS)
def test_what_any_other_event_raises_breaks_nothing(
    fake: FakeBackend, sessions: BaseSessionManager, recorder: Recorder, event: str
) -> None:
    recorder.raising[event] = ValueError("mine")
    sessions.create_session("bob", "1")
    assert sessions.execute_command("bob", "1", "echo hello").stdout == "hello\n"
    sessions.close_session("bob", "1")
    assert names_on(fake) == []
    assert event in recorder.names


def test_what_a_failure_event_raises_does_not_hide_the_failure(
    fake: FakeBackend, sessions: BaseSessionManager, recorder: Recorder
) -> None:
    recorder.raising |= {"on_container_creation_failed": ValueError(), "on_session_creation_failed": ValueError()}
    fake.fail("create_workload", EngineError("no space"))
    with pytest.raises(EngineError, match="no space"):
        sessions.create_session("bob", "1")


def test_of_many_that_start_a_new_container_at_once_one_attaches(
    fake: FakeBackend, manager: SimpleContainerManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The end of the first stream is the end of the container's input: another's would end the first one's channel."""
    id, _ = manager.create_container("bob", "1", ContainerConfig())
    manager._containers._never_started[id] = True  # the fake has no agent
    attached: list[str] = []

    def attach(container_id: str, *, deadline: Deadline | None = None) -> None:
        attached.append(container_id)
        if len(attached) < 3:
            manager.start_container(id, ContainerConfig())  # as another thread does in this moment

    monkeypatch.setattr(manager._runner, "start", attach)
    manager.start_container(id, ContainerConfig())
    assert attached == [id]
    assert inspected(fake, id).status is ContainerStatus.RUNNING


def test_a_failure_is_told_with_the_configuration_as_it_was_asked_for(fake: FakeBackend) -> None:
    told: list[ContainerConfig] = []

    class Spoiler(PodkitEventHandler):
        def on_container_creating(self, user_id: str, session_id: str, config: ContainerConfig) -> ContainerConfig:
            config.cpu_limit = 0.5
            raise ValueError("mine")

        def on_container_creation_failed(
            self, user_id: str, session_id: str, config: ContainerConfig, error: Exception
        ) -> None:
            told.append(config)

    with pytest.raises(ValueError, match="mine"):
        SimpleContainerManager(fake, PREFIX, None, event_handler=Spoiler()).create_container(
            "bob", "1", ContainerConfig(cpu_limit=2)
        )
    assert [config.cpu_limit for config in told] == [2]
