"""The contract suite over the fake: nothing above the seam knows Docker."""

from __future__ import annotations

import pytest

from podkit.core.models import default_image
from podkit.testing import FakeBackend, suite


@pytest.fixture(scope="module")
def image() -> str:
    return default_image()


@pytest.fixture(scope="module")
def backend(image: str) -> FakeBackend:
    fake = FakeBackend(images={image})
    fake.missing_sources.add(suite.Contract.missing_source)
    fake.connect()
    return fake


class TestWorkloads(suite.WorkloadContract):
    kind = "fake"


class TestStreams(suite.StreamContract):
    kind = "fake"


class TestSessions(suite.SessionContract):
    kind = "fake"


class TestSessionsWithoutWorkspace(suite.SessionContract):
    kind = "fake"

    @pytest.fixture
    def workspace_base(self) -> None:
        return None
