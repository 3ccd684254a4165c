"""A Docker engine that answers by a script, and the backend that is connected to it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.unit.backends.peer import EngineServer

if TYPE_CHECKING:
    from podkit.backends.docker import DockerBackend


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[EngineServer]:
    """The engine, which DOCKER_HOST names."""
    path = tmp_path / "engine.sock"
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    server = EngineServer(path)
    yield server
    server.close()


@pytest.fixture
def backend(server: EngineServer) -> Iterator[DockerBackend]:
    """The backend; `server.requests` begins empty."""
    from podkit.backends.docker import DockerBackend

    backend = DockerBackend()
    backend.connect()
    server.requests.clear()
    yield backend
    backend.close()
