"""B12: the health monitor over an engine that is frozen or gone: `stop()` is not held up, and what lives is left."""

from __future__ import annotations

import gc
import time

import pytest
import requests

from podkit.core.events import PodkitEventHandler
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerStatus, Session
from podkit.core.session import BaseSessionManager
from podkit.monitors.health import ContainerHealthMonitor
from tests.integration.conftest import long_config
from tests.support.engine import Engine
from tests.support.private_engine import PrivateEngine
from tests.support.run import rounds
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration


class CountedMonitor(ContainerHealthMonitor):
    """Counts the rounds that it has begun, and knows when the one that is under way was."""

    rounds = 0
    began: float | None = None

    def tick(self) -> None:
        self.rounds, self.began = self.rounds + 1, time.monotonic()
        super().tick()
        self.began = None

    def waits(self) -> bool:
        """Whether a round is under way that takes longer than one that is answered."""
        began = self.began
        return began is not None and time.monotonic() - began > 1


def test_stopping_the_monitor_does_not_wait_for_a_frozen_engine(
    private: PrivateEngine, manager: SimpleContainerManager
) -> None:
    """HM-05."""
    monitor = CountedMonitor(manager, check_interval=0.1)
    sessions = BaseSessionManager(manager, health_monitor=monitor)
    sessions.create_session("bob", "123", long_config())
    private.freeze()
    assert eventually(monitor.waits)

    with within(5):
        monitor.stop()
    assert not monitor.running


def test_a_handler_stops_the_monitor_though_the_engine_is_frozen(
    private: PrivateEngine, manager: SimpleContainerManager
) -> None:
    """HM-05: in a thread that is the monitor's own."""
    took: list[float] = []

    class Handler(PodkitEventHandler):
        def on_session_expired(self, session: Session) -> None:
            private.freeze()
            began = time.monotonic()
            monitor.stop()
            took.append(time.monotonic() - began)

    monitor = ContainerHealthMonitor(manager, check_interval=0.1)
    sessions = BaseSessionManager(manager, health_monitor=monitor, event_handler=Handler())
    sessions.create_session("bob", "123", long_config(session_inactivity_timeout_seconds=1))

    assert eventually(lambda: took)
    assert took[0] < 5
    assert not monitor.running


def test_while_there_is_no_engine_nothing_is_taken_for_lost(
    private: PrivateEngine, manager: SimpleContainerManager, engine: Engine
) -> None:
    """HM-07: the containers run on, as with live-restore; afterwards they are the same."""
    private.stop()
    private.start("--live-restore")
    monitor = CountedMonitor(manager, check_interval=0.2)
    sessions = BaseSessionManager(manager, health_monitor=monitor)
    ids = [str(number) for number in range(rounds(10))]
    before = {id: sessions.create_session("bob", id, long_config()).container_id for id in ids}
    private.kill()
    first = monitor.rounds
    assert eventually(lambda: monitor.rounds > first + rounds(10), seconds=60)
    private.start("--live-restore")
    first = monitor.rounds
    assert eventually(lambda: monitor.rounds > first + 2, seconds=60)

    found = {session.session_id: (session.container_id, session.status) for session in sessions.list_sessions()}
    assert found == {id: (container, ContainerStatus.RUNNING) for id, container in before.items()}
    assert len(engine.names()) == len(ids)
    assert all(sessions.execute_command("bob", id, "true").ok for id in ids)
    monitor.stop()
    private.recover()
    private.stop()
    private.start()


@pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning")
def test_control_a_watch_without_a_guard_ends_with_the_first_error(private: PrivateEngine, engine: Engine) -> None:
    """HM-07: the plain loop."""
    engine.container()
    private.kill()

    with pytest.raises(requests.exceptions.RequestException):
        while True:
            private.client.containers.list()
    gc.collect()  # under this test's filter: the SDK does not close the socket of a connection that was refused
