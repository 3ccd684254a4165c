"""Sessions to try things on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, Protocol

import pytest

from podkit import SessionProxy, reset_lifecycle_cache
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from tests.support.engine import Engine, remove_directory
from tests.support.run import new_prefix, workspaces, workspaces_host

LONG = 1800
"""A lifetime that no test sees the end of."""


class OpenSession(Protocol):
    def __call__(
        self,
        config: ContainerConfig | None = None,
        *,
        user_id: str = "bob",
        session_id: str = "123",
        on: BaseSessionManager | None = None,
    ) -> SessionProxy: ...


def long_config(**fields: Any) -> ContainerConfig:
    """A configuration whose container does not end by itself in a test."""
    return ContainerConfig(**{"container_lifetime_seconds": LONG} | fields)


@pytest.fixture
def open_session(sessions: BaseSessionManager) -> OpenSession:
    """Opens a session of `sessions`, or of another manager."""

    def open_session(
        config: ContainerConfig | None = None,
        *,
        user_id: str = "bob",
        session_id: str = "123",
        on: BaseSessionManager | None = None,
    ) -> SessionProxy:
        chosen = on or sessions
        chosen.create_session(user_id, session_id, config or long_config())
        return SessionProxy(chosen, user_id, session_id)

    return open_session


@pytest.fixture(scope="session")
def _shared(backend: DockerBackend, default_image: str) -> Iterator[BaseSessionManager]:
    engine = Engine(backend.client, new_prefix(), default_image)
    directory = workspaces() / engine.prefix
    directory.mkdir()
    manager = SimpleContainerManager(backend, engine.prefix, directory, workspaces_host() / engine.prefix)
    yield BaseSessionManager(manager)
    remove_directory(engine, directory)


def _shared_session(sessions: BaseSessionManager, config: ContainerConfig) -> SessionProxy:
    sessions.create_session("shared", config.image, config)
    return SessionProxy(sessions, "shared", config.image)


@pytest.fixture(scope="session")
def shell(_shared: BaseSessionManager, default_image: str) -> SessionProxy:
    """A session that many tests share, with a workspace on the host: for commands that leave the container alone."""
    return _shared_session(_shared, long_config(image=default_image))


@pytest.fixture(scope="session")
def busybox(_shared: BaseSessionManager, busybox_image: str) -> SessionProxy:
    """The same with nothing but busybox in it."""
    return _shared_session(_shared, long_config(image=busybox_image))


@pytest.fixture(params=["debian", "busybox"])
def either(request: pytest.FixtureRequest) -> SessionProxy:
    """Both of them, one after the other."""
    session: SessionProxy = request.getfixturevalue("shell" if request.param == "debian" else "busybox")
    return session


@pytest.fixture
def facade(backend: DockerBackend, default_image: str) -> Iterator[Engine]:
    """For tests of `get_docker_session`: what its prefix has on the engine is removed, and its cache forgotten."""
    engine = Engine(backend.client, os.environ["PODKIT_CONTAINER_PREFIX"], default_image)
    yield engine
    engine.clean_up()
    reset_lifecycle_cache()
