"""Containers that these tests may break: each module has its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from podkit.backends.docker import DockerBackend
from tests.integration.conftest import facade, open_session
from tests.support.engine import Engine
from tests.support.run import new_prefix

__all__ = ["facade", "open_session"]  # the same sessions as in tests/integration


@pytest.fixture(scope="module")
def own_engine(backend: DockerBackend, default_image: str) -> Iterator[Engine]:
    """The engine as seen from outside, with a prefix that the tests of a module share."""
    engine = Engine(backend.client, new_prefix(), default_image)
    yield engine
    engine.clean_up()
