"""B2: podkit touches only what it can prove it owns.

RC-06 and more of RC-04 are in `tests/integration/test_orphans.py` and `tests/integration/test_strangers.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from podkit import PodkitEventHandler
from podkit.backends.docker import DockerBackend
from podkit.core import _identity
from podkit.core._identity import Identity
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput, NameTaken
from podkit.monitors.orphans import OrphanContainerCleaner
from tests.integration.conftest import OpenSession
from tests.support.engine import Engine
from tests.support.processes import run_python
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

REAP = """
import sys
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.monitors.orphans import OrphanContainerCleaner

backend = DockerBackend()
backend.connect()
sessions = BaseSessionManager(SimpleContainerManager(backend, sys.argv[1], None))
sessions.cleanup_expired_sessions()
OrphanContainerCleaner(backend, sys.argv[1], check_interval=60, max_age_seconds=0)._cleanup_orphans()
sessions.cleanup_all()
"""


def cleaner(backend: DockerBackend, prefix: str, handler: PodkitEventHandler | None = None) -> OrphanContainerCleaner:
    return OrphanContainerCleaner(backend, prefix, check_interval=60, max_age_seconds=0, event_handler=handler)


def owned_by(engine: Engine, session_id: str, owner: str, *, start: bool) -> str:
    """A container that is podkit's by its name and labels, with an owner of ours; its id."""
    identity = Identity.of(engine.prefix, "bob", session_id)
    labels = identity.labels | {_identity.OWNER: owner}
    return str(engine.container(name=identity.name, labels=labels, start=start).id)


def owners() -> dict[str, tuple[str, bool]]:
    """Labels of owners, and whether such a one is proven to be dead."""
    this = _identity.this_owner()
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return {
        "lives": (this.to_label(), False),
        "its pid is another's now": (this._replace(started=str(int(this.started) - 1)).to_label(), True),
        "has ended": (this._replace(pid=child.pid).to_label(), True),
        "on another machine": (this._replace(host="elsewhere", pid=child.pid).to_label(), False),
        "unknown start": (this._replace(pid=child.pid, started="").to_label(), False),
        "garbled": ("{", False),
    }


def test_a_process_that_starts_and_reaps_leaves_the_sessions_of_a_living_one_alone(
    open_session: OpenSession, engine: Engine
) -> None:
    """RC-05: A lives, B reaps."""
    session = open_session()
    session.execute_command("touch /tmp/mine").check()

    run_python(REAP, engine.prefix)

    assert engine.names() == [session.get_info().container_name]
    assert session.execute_command("ls /tmp/mine").stdout == "/tmp/mine\n"


@pytest.mark.parametrize("start", [True, False], ids=["running", "never started"])
def test_only_what_its_owner_is_proven_to_have_abandoned_is_reaped(engine: Engine, start: bool) -> None:
    """RC-05: a reused pid, and owners who cannot be verified; what runs stays whoever made it."""
    made = {what: owned_by(engine, what, label, start=start) for what, (label, _) in owners().items()}
    if start:
        for id in made.values():
            engine.wait_until_up(id)

    run_python(REAP, engine.prefix)

    gone = {what for what, id in made.items() if not engine.exists(id)}
    assert gone == {what for what, (_, dead) in owners().items() if dead and not start}


GARBLED = {
    "a schema of tomorrow": ({_identity.SCHEMA: "99"}, NameTaken),
    "a garbled configuration": ({_identity.CONFIG: "{"}, InvalidInput),
    "garbled mounts": ({_identity.MOUNTS: "[[", _identity.CONFIG: '{"environment":[]}'}, InvalidInput),
    "nothing but the identity": ({}, InvalidInput),
}


@pytest.mark.parametrize("what", GARBLED)
def test_who_asks_for_a_session_with_garbled_labels_gets_a_typed_error_and_its_container_stays(
    engine: Engine, backend: DockerBackend, what: str
) -> None:
    """RC-04: other sessions go on beside it."""
    sessions = BaseSessionManager(SimpleContainerManager(backend, engine.prefix, None))
    labels, error = GARBLED[what]
    identity = Identity.of(engine.prefix, "bob", "123")
    container = engine.container(name=identity.name, labels=identity.labels | {_identity.WORKSPACE: ""} | labels)

    for ask in (sessions.get_session, sessions.create_session):
        with pytest.raises(error):
            ask("bob", "123")
    sessions.create_session("bob", "other")
    assert sessions.execute_command("bob", "other", "true").ok
    sessions.cleanup_expired_sessions()
    sessions.cleanup_all()

    container.reload()
    assert container.status == "running"


@pytest.mark.parametrize("own_name", [True, False], ids=["a session of ours", "a name of another"])
def test_a_reaped_session_whose_id_is_a_path_touches_nothing_outside(
    engine: Engine, backend: DockerBackend, workspace: Path, caplog: pytest.LogCaptureFixture, own_name: bool
) -> None:
    """ID-08: with the name that belongs to it, it is a session like any other, and else it is reported and stays."""
    identity = Identity.of(engine.prefix, "..", "../../etc")
    for victim in ("etc", "workspaces", "workspaces/etc"):
        (workspace / victim).mkdir()
        (workspace / victim / "file").write_text("kept")
    name = identity.name if own_name else f"{engine.prefix}-etc-aaaaaaaaaaaaaaaa"
    container = engine.container(["true"], name=name, labels=identity.labels)
    container.wait()

    with caplog.at_level("INFO", logger="podkit"):
        cleaner(backend, engine.prefix)._cleanup_orphans()

    assert engine.exists(str(container.id)) is not own_name
    assert len([record for record in caplog.records if name in record.getMessage()]) == 1
    found = {str(path.relative_to(workspace)) for path in workspace.rglob("*")}
    assert found == {"etc", "etc/file", "workspaces", "workspaces/file", "workspaces/etc", "workspaces/etc/file"}
    assert os.path.isfile("/etc/passwd")


class Removals(PodkitEventHandler):
    def __init__(self) -> None:
        self.ids: list[str] = []

    def on_orphan_container_removed(self, container_id: str, container_name: str, age_seconds: float) -> None:
        self.ids.append(container_id)


def test_of_three_reapers_at_once_none_takes_an_active_session_and_one_takes_the_orphan(
    open_session: OpenSession, engine: Engine, backend: DockerBackend
) -> None:
    """LC-04: the active session is the older one."""
    active = open_session(session_id="active")
    orphan = open_session(session_id="orphan").get_info().container_id
    assert orphan is not None
    engine.stop(orphan)
    removals = Removals()
    reapers = [cleaner(backend, engine.prefix, removals) for _ in range(3)]

    with active.popen("sleep 60") as command, ThreadPoolExecutor(3) as threads:
        for _ in range(5):
            list(threads.map(lambda reaper: reaper._cleanup_orphans(), reapers))
        assert command.poll() is None

    assert removals.ids == [orphan]
    assert engine.names() == [active.get_info().container_name]


def test_control_a_reaper_by_age_since_creation_removes_the_active_session(
    open_session: OpenSession, engine: Engine
) -> None:
    """LC-04: what everybody writes first."""
    session = open_session()
    id = session.get_info().container_id
    assert id is not None
    created = datetime.fromisoformat(engine.inspect(id)["Created"][:19]).replace(tzinfo=UTC)
    assert eventually(lambda: time.time() - created.timestamp() > 2)

    with session.popen("sleep 60"):
        for row in engine.client.api.containers(all=True, filters={"label": f"podkit.prefix={engine.prefix}"}):
            if time.time() - row["Created"] > 1:
                engine.remove(row["Id"])

    assert not engine.exists(id)
