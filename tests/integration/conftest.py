"""Sessions to try things on."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest

from podkit import SessionProxy, reset_lifecycle_cache
from podkit.backends.base import Deadline, WorkloadSpec
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import NotSupported
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


class EngineExecBackend(DockerBackend):
    """An engine that takes no files to be shared, so that commands go through its own exec."""

    def create_workload(
        self, spec: WorkloadSpec, *, pulling: Callable[[str], None] | None = None, deadline: Deadline | None = None
    ) -> str:
        if spec.shared:
            raise NotSupported("not on this one")
        return super().create_workload(spec, pulling=pulling, deadline=deadline)


@pytest.fixture
def engine_exec(prefix: str, workspace: Path, workspace_host: Path) -> BaseSessionManager:
    """A manager of sessions without the agent."""
    backend = EngineExecBackend()
    backend.connect()
    return BaseSessionManager(SimpleContainerManager(backend, prefix, workspace, workspace_host))


@pytest.fixture
def static_image(engine: Engine, busybox_image: str) -> Iterator[str]:
    """An image with nothing but one static program."""
    source = engine.container(image=busybox_image, start=False)
    packed = io.BytesIO(b"".join(source.get_archive("/bin/busybox")[0]))
    made = io.BytesIO()
    with tarfile.open(fileobj=packed) as read, tarfile.open(fileobj=made, mode="w") as write:
        member = read.getmember("busybox")
        content = read.extractfile(member)
        member.name = "busybox"
        write.addfile(member, content)
    tag = f"{engine.prefix}-static"
    engine.client.api.import_image_from_data(made.getvalue(), repository=tag, tag="1")
    yield f"{tag}:1"
    engine.clean_up()
    engine.client.api.remove_image(f"{tag}:1", force=True)


@pytest.fixture
def facade(backend: DockerBackend, default_image: str) -> Iterator[Engine]:
    """For tests of `get_docker_session`: what its prefix has on the engine is removed, and its cache forgotten."""
    engine = Engine(backend.client, os.environ["PODKIT_CONTAINER_PREFIX"], default_image)
    yield engine
    engine.clean_up()
    reset_lifecycle_cache()
