"""Unit tests: an engine in memory, a temporary directory, and no network at all."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.testing import FakeBackend
from tests.unit.support import PREFIX, Recorder, hello


class NetworkUsed(AssertionError):
    """A unit test tried to leave this machine; no `OSError`, so that nothing under test takes it for an answer."""


@pytest.fixture(autouse=True, scope="module")
def no_network() -> Iterator[None]:
    """Fail whoever connects to anything but a Unix socket."""
    methods = {name: getattr(socket.socket, name) for name in ("connect", "connect_ex", "sendto")}

    def guard(name: str) -> Any:
        def guarded(self: socket.socket, *arguments: Any) -> Any:
            if self.family != socket.AF_UNIX:
                raise NetworkUsed(f"{name}{arguments}: the unit tests use no network")
            return methods[name](self, *arguments)

        return guarded

    with pytest.MonkeyPatch.context() as patch:
        for name in methods:
            patch.setattr(socket.socket, name, guard(name), raising=False)
        yield


@pytest.fixture
def fake() -> FakeBackend:
    """A connected engine in memory, with a program `hello SECONDS`; `calls` begins empty."""
    backend = FakeBackend({"hello": hello})
    backend.connect()
    backend.calls.clear()
    return backend


@pytest.fixture
def recorder() -> Recorder:
    """An event handler that remembers."""
    return Recorder()


@pytest.fixture
def workspace_base(tmp_path: Path) -> Path:
    """Where the workspaces lie, for this process and for the engine."""
    return tmp_path / "base"


@pytest.fixture
def manager(fake: FakeBackend, workspace_base: Path, recorder: Recorder) -> SimpleContainerManager:
    """A container manager over the fake."""
    return SimpleContainerManager(fake, PREFIX, workspace_base, event_handler=recorder)


@pytest.fixture
def sessions(manager: SimpleContainerManager, recorder: Recorder) -> BaseSessionManager:
    """A session manager over `manager`."""
    return BaseSessionManager(manager, event_handler=recorder)
