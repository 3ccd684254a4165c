"""What is not podkit's: a full life of it changes nothing there."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

import pytest

from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.monitors.health import ContainerHealthMonitor
from podkit.monitors.orphans import OrphanContainerCleaner
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine

pytestmark = pytest.mark.integration


def test_a_full_life_of_podkit_leaves_the_users_own_things_alone(
    open_session: OpenSession, manager: SimpleContainerManager, backend: DockerBackend, prefix: str, engine: Engine
) -> None:
    stopped = engine.container(["true"])
    stopped.wait()
    created = engine.container(start=False)
    running = engine.container()
    image = stopped.commit()  # dangling
    network, volume = engine.network(), engine.volume()
    try:
        containers = [engine.inspect(str(container.id)) for container in (stopped, created, running)]

        monitor = ContainerHealthMonitor(manager, check_interval=0.2)
        sessions = BaseSessionManager(manager, health_monitor=monitor)
        cleaner = OrphanContainerCleaner(backend, prefix, check_interval=0.2, max_age_seconds=0)
        cleaner.start()
        session = open_session(long_config(networks=[engine.network()]), on=sessions)
        session.execute_command("sleep 30", timeout=0.5)
        engine.kill(session.get_info().container_name)
        session.execute_command("true")
        session.get_info().last_active_at = datetime.now(UTC) - timedelta(days=1)
        time.sleep(1)
        sessions.cleanup_all()
        cleaner.stop()

        assert engine.names() == []
        assert [engine.inspect(container["Id"]) for container in containers] == containers
        assert engine.client.networks.get(network).name == network
        assert engine.client.volumes.get(volume).name == volume
        assert engine.client.images.get(str(image.id)).id == image.id
    finally:
        engine.clean_up()
        engine.client.images.remove(str(image.id))


def test_the_container_of_a_stranger_that_looks_like_ours_is_not_listed_as_a_session(
    sessions: BaseSessionManager, engine: Engine
) -> None:
    labels = {"podkit.schema": "1", "podkit.prefix": engine.prefix, "podkit.user_id": "bob", "podkit.session_id": "123"}
    engine.container(name=f"{engine.prefix}-bob-123-looks-like-it", labels=labels)

    assert sessions.get_session("bob", "123") is None
    assert sessions.list_sessions() == []
