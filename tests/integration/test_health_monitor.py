"""The health monitor, on containers that end, break and vanish behind podkit's back."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from podkit import PodkitEventHandler, SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus, Session
from podkit.core.session import BaseSessionManager
from podkit.monitors.health import ContainerHealthMonitor
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine
from tests.support.proxy import EngineProxy
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration

INTERVAL = 0.2
SEVERAL_ROUNDS = 1.5

CHATTY = "for i in $(seq 100); do echo line $i; done; while [ ! -e /tmp/go ]; do sleep 0.1; done; "
EAT_MEMORY = "import sys\nhog = []\nwhile True: hog.append(bytearray(8 << 20))"


@pytest.fixture
def monitor(manager: SimpleContainerManager) -> Iterator[ContainerHealthMonitor]:
    monitor = ContainerHealthMonitor(container_manager=manager, check_interval=INTERVAL, log_lines=50)
    yield monitor
    monitor.stop()


@pytest.fixture
def watched(manager: SimpleContainerManager, monitor: ContainerHealthMonitor) -> BaseSessionManager:
    """A session manager with the monitor: which is thereby registered and started."""
    return BaseSessionManager(manager, health_monitor=monitor)


def container_of(session: SessionProxy) -> str:
    id = session.get_info().container_id
    assert id is not None
    return id


def marked(session: SessionProxy) -> bool:
    return session.get_info().status is ContainerStatus.ERROR


def test_handing_a_monitor_to_a_session_manager_starts_it(
    manager: SimpleContainerManager, monitor: ContainerHealthMonitor
) -> None:
    assert not monitor.running

    BaseSessionManager(manager, health_monitor=monitor)

    assert monitor.running


def test_cleaning_up_a_session_manager_stops_its_monitor(
    watched: BaseSessionManager, monitor: ContainerHealthMonitor
) -> None:
    watched.cleanup_all()

    assert not monitor.running


def test_a_container_that_was_stopped_from_outside_is_restarted_and_keeps_its_id(
    watched: BaseSessionManager, open_session: OpenSession, engine: Engine
) -> None:
    session = open_session(on=watched)
    id, before = container_of(session), engine.started_at(container_of(session))
    session.execute_command("echo kept > /tmp/file")

    engine.stop(id)

    assert eventually(lambda: engine.state(id) == "running" and engine.started_at(id) != before)
    assert container_of(session) == id
    assert session.get_info().status is ContainerStatus.RUNNING
    assert session.execute_command("cat /tmp/file").stdout == "kept\n"


def test_a_container_that_ended_its_lifetime_is_left_as_it_is(
    watched: BaseSessionManager, open_session: OpenSession, engine: Engine
) -> None:
    session = open_session(ContainerConfig(container_lifetime_seconds=1), on=watched)
    id = container_of(session)
    assert engine.wait_for_end(id) == 0

    time.sleep(SEVERAL_ROUNDS)

    assert engine.state(id) == "exited"
    assert session.get_info().status is not ContainerStatus.ERROR
    assert session.execute_command("echo alive").stdout == "alive\n"
    assert container_of(session) == id


@pytest.mark.parametrize(
    ("how", "status", "reason"),
    [("killed", "exited", "killed"), ("removed", "gone", "gone"), ("oom", "exited", "memory")],
)
def test_the_session_of_a_broken_container_is_marked_with_the_reason(
    watched: BaseSessionManager, open_session: OpenSession, engine: Engine, how: str, status: str, reason: str
) -> None:
    ending = f"exec python3 -c '{EAT_MEMORY}'" if how == "oom" else "sleep 600"
    config = ContainerConfig(command=["sh", "-c", CHATTY + ending], memory_limit="64m")
    session = open_session(config, on=watched)
    session.write_file("file", "kept")
    id = container_of(session)

    session.execute_command("touch /tmp/go")
    if how == "killed":
        engine.kill(id)
    elif how == "removed":
        engine.remove(id)
    assert eventually(lambda: marked(session))

    info = session.get_info()
    assert info.container_id is None
    assert info.metadata["failure_status"] == status
    assert reason in info.metadata["failure_reason"]
    log = [line for line in info.metadata["failure_log"].splitlines() if line.startswith("line ")]
    assert log == ([] if how == "removed" else [f"line {number}" for number in range(51, 101)])


@pytest.mark.parametrize("how", ["kill", "remove"])
def test_the_next_command_recreates_a_marked_session_and_clears_the_marks(
    watched: BaseSessionManager, open_session: OpenSession, engine: Engine, how: str
) -> None:
    session = open_session(on=watched)
    session.write_file("file", "kept")
    session.get_info().metadata["mine"] = "stays"
    id = container_of(session)
    getattr(engine, how)(id)
    assert eventually(lambda: marked(session))

    assert session.execute_command("cat file").stdout == "kept"

    info = session.get_info()
    assert info.container_id not in (None, id)
    assert info.status is ContainerStatus.RUNNING
    assert info.metadata == {"mine": "stays"}
    time.sleep(SEVERAL_ROUNDS)
    assert not marked(session)
    assert engine.names() == [info.container_name]


def test_a_marked_session_can_be_closed(watched: BaseSessionManager, open_session: OpenSession, engine: Engine) -> None:
    session = open_session(on=watched)
    engine.kill(container_of(session))
    assert eventually(lambda: marked(session))

    session.close()

    assert engine.names() == []


def test_a_closed_session_is_never_brought_back(
    watched: BaseSessionManager, open_session: OpenSession, engine: Engine
) -> None:
    for _ in range(5):
        session = open_session(on=watched)
        engine.client.api.kill(container_of(session), signal="SIGTERM")  # its restart is about to begin
        session.close()

    time.sleep(SEVERAL_ROUNDS)
    assert engine.names() == []


def test_other_sessions_are_left_alone_while_one_is_broken(
    watched: BaseSessionManager, open_session: OpenSession, engine: Engine
) -> None:
    broken, well = open_session(on=watched, session_id="broken"), open_session(on=watched, session_id="well")
    id, before = container_of(well), engine.started_at(container_of(well))

    engine.kill(container_of(broken))
    assert eventually(lambda: marked(broken))
    time.sleep(SEVERAL_ROUNDS)

    assert (container_of(well), engine.started_at(id)) == (id, before)
    assert well.get_info().status is ContainerStatus.RUNNING


def test_a_command_over_its_time_is_not_taken_for_a_broken_container(
    watched: BaseSessionManager, open_session: OpenSession
) -> None:
    """Without the agent the container is killed and started for it, under the monitor's eyes."""
    session = open_session(on=watched)
    id = container_of(session)

    for _ in range(3):
        assert session.execute_command("sleep 60", timeout=0.5).timed_out
        assert not marked(session)

    time.sleep(SEVERAL_ROUNDS)
    assert (container_of(session), marked(session)) == (id, False)


def test_a_paused_container_is_left_to_who_paused_it(
    watched: BaseSessionManager, open_session: OpenSession, engine: Engine
) -> None:
    session = open_session(on=watched)
    engine.client.api.pause(container_of(session))

    time.sleep(SEVERAL_ROUNDS)

    assert engine.state(container_of(session)) == "paused"
    assert not marked(session)


def test_a_container_that_does_not_stay_up_is_given_up_in_the_end(
    watched: BaseSessionManager, open_session: OpenSession, engine: Engine
) -> None:
    config = ContainerConfig(command=["sh", "-c", "echo broken; exit 3"], startup_verification=None)
    session = open_session(config, on=watched)

    assert eventually(lambda: marked(session), seconds=30)

    info = session.get_info()
    assert "exit code 3" in info.metadata["failure_reason"]
    assert info.metadata["failure_log"].splitlines()[-1] == "broken"
    [name] = engine.names()
    starts = engine.started_at(name)
    time.sleep(SEVERAL_ROUNDS)
    assert engine.started_at(name) == starts  # no more restarts


def test_idle_sessions_are_closed_with_their_events(
    manager: SimpleContainerManager, monitor: ContainerHealthMonitor, open_session: OpenSession, engine: Engine
) -> None:
    told: list[tuple[str, str]] = []

    class Handler(PodkitEventHandler):
        def on_session_expired(self, session: Session) -> None:
            told.append(("expired", session.session_id))

        def on_session_closed(self, session: Session) -> None:
            told.append(("closed", session.session_id))

    watched = BaseSessionManager(manager, health_monitor=monitor, event_handler=Handler())
    idle, busy = open_session(on=watched, session_id="idle"), open_session(on=watched, session_id="busy")
    idle.write_file("file", "kept")
    directory = idle.get_info().data_dir

    idle.get_info().last_active_at = datetime.now(UTC) - timedelta(hours=2)

    assert eventually(lambda: engine.names() == [busy.get_info().container_name])
    assert eventually(lambda: told == [("expired", "idle"), ("closed", "idle")])
    assert directory is not None
    assert (directory / "file").read_text() == "kept"
    assert watched.get_session("bob", "idle") is None


def test_a_session_expires_after_its_own_timeout(
    watched: BaseSessionManager, open_session: OpenSession, engine: Engine
) -> None:
    session = open_session(long_config(session_inactivity_timeout_seconds=2), on=watched)
    session.execute_command("sleep 3")  # a running command is activity
    assert session.execute_command("echo alive").ok

    assert eventually(lambda: engine.names() == [], seconds=15)


def test_starting_and_stopping_twice_is_harmless_and_a_stopped_monitor_can_start_again(
    watched: BaseSessionManager, monitor: ContainerHealthMonitor, open_session: OpenSession, engine: Engine
) -> None:
    session = open_session(on=watched)
    id = container_of(session)
    monitor.start()
    monitor.stop()
    monitor.stop()
    assert not monitor.running
    engine.stop(id)
    time.sleep(SEVERAL_ROUNDS)
    assert engine.state(id) == "exited"

    monitor.start()
    monitor.start()

    assert monitor.running
    assert eventually(lambda: engine.state(id) == "running")


def test_stopping_returns_within_five_seconds_in_a_check_of_a_silent_engine(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, backend = EngineProxy(), DockerBackend()
    with monkeypatch.context() as environment:
        environment.setenv("DOCKER_HOST", proxy.url)
        backend.connect()
    manager = SimpleContainerManager(backend, engine.prefix, None)
    monitor = ContainerHealthMonitor(container_manager=manager, check_interval=INTERVAL)
    BaseSessionManager(manager, health_monitor=monitor).create_session("bob", "123", long_config())
    try:
        proxy.freeze()
        time.sleep(SEVERAL_ROUNDS)  # a check is under way, and hangs

        with within(5):
            monitor.stop()

        assert not monitor.running
    finally:
        proxy.go_away()
        backend.client.close()


def test_one_round_looks_at_every_container(
    manager: SimpleContainerManager, open_session: OpenSession, engine: Engine
) -> None:
    """One step, without the thread."""
    monitor = ContainerHealthMonitor(container_manager=manager, check_interval=60)
    sessions = BaseSessionManager(manager)
    monitor.register(sessions)
    opened = [open_session(on=sessions, session_id=str(number)) for number in range(4)]
    engine.stop(container_of(opened[0]))
    engine.kill(container_of(opened[1]))
    removed = container_of(opened[2])
    engine.remove(removed)

    monitor.tick()

    assert engine.state(container_of(opened[0])) == "running"
    assert [marked(session) for session in opened] == [False, True, True, False]
