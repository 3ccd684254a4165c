"""B5, B9: the engine's disk: what is full, and what must not fill it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.errors import EngineError, FileError
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine
from tests.support.private_engine import PrivateEngine
from tests.support.run import new_prefix, workspaces
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration

DISK_BYTES = 64 << 20


@pytest.fixture
def small(backend: DockerBackend, busybox_image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[PrivateEngine]:
    """An engine whose data has little room."""
    monkeypatch.setenv("PODKIT_DEFAULT_IMAGE", busybox_image)
    with PrivateEngine(workspaces() / new_prefix(), disk_bytes=DISK_BYTES) as engine:
        engine.load(busybox_image, backend.client)
        yield engine


def test_a_full_disk_is_a_typed_error_and_with_room_all_works_again(small: PrivateEngine) -> None:
    """DF-11."""
    sessions = BaseSessionManager(SimpleContainerManager(small.backend(), new_prefix(), None))
    sessions.create_session("bob", "running", long_config())
    session = SessionProxy(sessions, "bob", "running")
    session.execute_command("dd if=/dev/zero of=/tmp/fill bs=1M; dd if=/dev/zero of=/tmp/rest bs=1k")
    before = small.audit()

    with within(20), pytest.raises(EngineError, match="no space left"):
        sessions.create_session("bob", "new", long_config())
    assert small.audit() == before
    assert "No space left" in session.execute_command("echo text > /tmp/file").stderr
    with pytest.raises(FileError):
        session.write_file("/tmp/file", "text" * 10_000)

    session.execute_command("rm /tmp/fill /tmp/rest")
    session.write_file("/tmp/file", "text" * 10_000)
    sessions.create_session("bob", "new", long_config())
    assert sessions.execute_command("bob", "new", "echo alive").stdout == "alive\n"
    for id in ("running", "new"):
        sessions.close_session("bob", id)
    assert small.audit() == []


def log_bytes(private: PrivateEngine, id: str) -> int:
    return sum(file.stat().st_size for file in (private.data / "containers" / id).glob("*.log*"))


FLOOD = ["sh", "-c", "while :; do cat /proc/kallsyms; done"]
MOST = 40 << 20
"""More than podkit lets a container's log have, and little for a flood."""


def test_a_main_process_that_prints_for_ever_does_not_fill_the_engines_disk(
    open_session: OpenSession, private: PrivateEngine, engine: Engine
) -> None:
    """RX-10: beside the control, which has written more than podkit's container ever may."""
    id = open_session(long_config(entrypoint=FLOOD)).get_info().container_id
    assert id is not None
    plain = engine.container(FLOOD).id

    assert eventually(lambda: log_bytes(private, plain) > 2 * MOST, seconds=60), log_bytes(private, plain)
    engine.remove(plain)
    assert 0 < log_bytes(private, id) < MOST
