"""The contract suite over the Docker engine that the `docker` command would use."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from docker.errors import NotFound

from podkit.backends.base import Backend, SharedFiles
from podkit.backends.docker import DockerBackend
from podkit.testing import suite
from tests.support.run import new_prefix, workspaces_host

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def image(default_image: str) -> str:
    return default_image


class Docker:
    kind = "docker"

    @classmethod
    def new_prefix(cls) -> str:
        return new_prefix()

    @pytest.fixture
    def prefix(self) -> str:
        return new_prefix()


class TestWorkloads(Docker, suite.WorkloadContract):
    @classmethod
    def drop_shared_files(cls, backend: Backend, files: SharedFiles) -> None:
        assert isinstance(backend, DockerBackend)
        with suppress(NotFound):
            backend.client.volumes.get(files.name).remove()


class TestStreams(Docker, suite.StreamContract):
    pass


class TestSessions(Docker, suite.SessionContract):
    @pytest.fixture
    def workspace_base(self, workspace: Path) -> Path:
        return workspace

    @pytest.fixture
    def workspace_base_host(self, workspace: Path) -> Path:
        return workspaces_host() / workspace.name


class TestSessionsWithoutWorkspace(Docker, suite.SessionContract):
    @pytest.fixture
    def workspace_base(self) -> None:
        return None
