"""An engine of this run's own for tests that freeze, kill and restart it: see tests/support/private_engine.py."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from tests.integration.conftest import open_session
from tests.support.engine import Engine
from tests.support.private_engine import PrivateEngine
from tests.support.run import new_prefix, workspaces

__all__ = ["open_session"]


@pytest.fixture(scope="session")
def _started(backend: DockerBackend, busybox_image: str) -> Iterator[PrivateEngine]:
    with PrivateEngine(workspaces() / new_prefix()) as engine:
        engine.load(busybox_image, backend.client)
        yield engine


@pytest.fixture
def private(_started: PrivateEngine, busybox_image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateEngine]:
    """An engine that the test may do anything to; it has the busybox image, and is empty at the beginning."""
    monkeypatch.setenv("PODKIT_DEFAULT_IMAGE", busybox_image)
    yield _started
    _started.recover()


@pytest.fixture
def engine(private: PrivateEngine, busybox_image: str) -> Engine:
    """The private engine as seen from outside, through the SDK; it is emptied after the test."""
    return Engine(private.client, new_prefix(), busybox_image)


@pytest.fixture
def workspace(engine: Engine) -> Path:
    """A directory for workspaces, which the private engine sees under the same path."""
    directory = workspaces() / f"{engine.prefix}-workspaces"
    directory.mkdir()
    return directory


@pytest.fixture
def manager(private: PrivateEngine, prefix: str, workspace: Path) -> SimpleContainerManager:
    """A container manager on the private engine, with workspaces on the host."""
    return SimpleContainerManager(private.backend(), prefix, workspace)


@pytest.fixture
def sessions(manager: SimpleContainerManager) -> BaseSessionManager:
    """A session manager over `manager`."""
    return BaseSessionManager(manager)
