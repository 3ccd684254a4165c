"""The orphan cleaner: what it removes, and all that it must leave alone."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from podkit import PodkitEventHandler
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.monitors.orphans import OrphanContainerCleaner
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration


class Removals(PodkitEventHandler):
    def __init__(self) -> None:
        self.told: list[tuple[str, str, float]] = []

    def on_orphan_container_removed(self, container_id: str, container_name: str, age_seconds: float) -> None:
        self.told.append((container_id, container_name, age_seconds))


@pytest.fixture
def removals() -> Removals:
    return Removals()


@pytest.fixture
def cleaner(backend: DockerBackend, prefix: str, removals: Removals) -> Iterator[OrphanContainerCleaner]:
    cleaner = OrphanContainerCleaner(backend, prefix, check_interval=0.2, max_age_seconds=0, event_handler=removals)
    yield cleaner
    cleaner.stop()


def stopped(open_session: OpenSession, engine: Engine, session_id: str = "123", **options: BaseSessionManager) -> str:
    """A session's container that has stopped; its id."""
    id = open_session(session_id=session_id, **options).get_info().container_id
    assert id is not None
    engine.stop(id)
    return id


def test_a_stopped_container_is_removed_and_told_of(
    open_session: OpenSession, engine: Engine, cleaner: OrphanContainerCleaner, removals: Removals
) -> None:
    id = stopped(open_session, engine)
    name = engine.inspect(id)["Name"].removeprefix("/")
    time.sleep(1)

    cleaner._cleanup_orphans()

    assert engine.names() == []
    [(told_id, told_name, age)] = removals.told
    assert (told_id, told_name) == (id, name)
    assert 0.5 < age < 60


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM"])
def test_it_does_not_matter_how_a_container_ended(
    open_session: OpenSession, engine: Engine, cleaner: OrphanContainerCleaner, signal: str
) -> None:
    id = open_session().get_info().container_id
    assert id is not None
    engine.wait_until_up(id)
    engine.client.api.kill(id, signal=signal)
    engine.wait_for_end(id)

    cleaner._cleanup_orphans()

    assert engine.names() == []


def test_the_workspace_of_an_orphan_stays(
    open_session: OpenSession, engine: Engine, cleaner: OrphanContainerCleaner, manager: SimpleContainerManager
) -> None:
    open_session().write_file("file", "kept")
    stopped(open_session, engine)

    cleaner._cleanup_orphans()

    assert engine.names() == []
    assert open_session(on=BaseSessionManager(manager)).read_file("file") == "kept"


def test_a_running_container_is_never_removed(
    open_session: OpenSession, engine: Engine, cleaner: OrphanContainerCleaner, removals: Removals
) -> None:
    running, paused = open_session(session_id="running"), open_session(session_id="paused")
    engine.client.api.pause(paused.get_info().container_id)

    cleaner._cleanup_orphans()

    assert len(engine.names()) == 2
    assert removals.told == []
    assert running.execute_command("true").ok


def test_a_container_that_stopped_too_recently_stays(
    open_session: OpenSession, engine: Engine, backend: DockerBackend, prefix: str
) -> None:
    stopped(open_session, engine)
    cleaner = OrphanContainerCleaner(backend, prefix, check_interval=60, max_age_seconds=2)

    cleaner._cleanup_orphans()
    assert len(engine.names()) == 1

    time.sleep(2.5)
    cleaner._cleanup_orphans()
    assert engine.names() == []


def test_the_age_counts_from_the_end_and_not_from_the_beginning(
    open_session: OpenSession, engine: Engine, backend: DockerBackend, prefix: str
) -> None:
    session = open_session()
    time.sleep(2.5)
    engine.stop(session.get_info().container_name)

    OrphanContainerCleaner(backend, prefix, check_interval=60, max_age_seconds=2)._cleanup_orphans()

    assert engine.names() == [session.get_info().container_name]


@pytest.mark.parametrize("other", ["{}-x", "{}x", "{}.x", "x{}"])
def test_another_prefix_is_never_touched(
    open_session: OpenSession, engine: Engine, backend: DockerBackend, cleaner: OrphanContainerCleaner, other: str
) -> None:
    manager = SimpleContainerManager(backend, other.format(engine.prefix), None)
    theirs = stopped(open_session, engine, on=BaseSessionManager(manager))
    stopped(open_session, engine)

    cleaner._cleanup_orphans()

    assert engine.exists(theirs)
    manager.cleanup_all()
    assert engine.names() == []


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"podkit.prefix": "{prefix}"},
        {"podkit.schema": "1", "podkit.prefix": "{prefix}"},
        {"podkit.schema": "99", "podkit.prefix": "{prefix}", "podkit.user_id": "bob", "podkit.session_id": "123"},
        {"podkit.schema": "1", "podkit.prefix": "{prefix}", "podkit.user_id": "", "podkit.session_id": "123"},
        {"podkit.schema": "1", "podkit.prefix": "{prefix}", "podkit.user_id": "bob", "podkit.session_id": "../../etc"},
        {"podkit.schema": "{{garbled", "podkit.prefix": "{prefix}", "podkit.user_id": "bob"},
    ],
    ids=["none", "prefix only", "no ids", "schema of tomorrow", "empty id", "ids of another name", "garbled"],
)
def test_a_container_whose_labels_do_not_prove_that_it_is_ours_is_never_touched(
    engine: Engine, cleaner: OrphanContainerCleaner, removals: Removals, labels: dict[str, str]
) -> None:
    made = {key: value.format(prefix=engine.prefix) for key, value in labels.items()}
    other = engine.container(["true"], name=f"{engine.prefix}-bob-123-aaaaaaaaaaaaaaaa", labels=made)
    other.wait()

    cleaner._cleanup_orphans()
    cleaner._cleanup_orphans()

    other.reload()
    assert other.status == "exited"
    assert removals.told == []


def test_a_foreign_container_is_reported_once(
    engine: Engine, cleaner: OrphanContainerCleaner, caplog: pytest.LogCaptureFixture
) -> None:
    labels = {"podkit.schema": "99", "podkit.prefix": engine.prefix}
    name = engine.container(["true"], labels=labels).name
    assert eventually(lambda: engine.state(str(name)) == "exited")

    with caplog.at_level("WARNING", logger="podkit"):
        for _ in range(3):
            cleaner._cleanup_orphans()

    assert len([record for record in caplog.records if str(name) in record.getMessage()]) == 1


def test_a_container_with_a_garbled_owner_or_configuration_is_no_crash(
    open_session: OpenSession, engine: Engine, cleaner: OrphanContainerCleaner
) -> None:
    session = open_session()
    name = session.get_info().container_name
    labels = engine.inspect(name)["Config"]["Labels"] | {"podkit.owner": "{", "podkit.config": "\x00"[:0] + "nonsense"}
    session.close()
    engine.container(["true"], name=name, labels=labels).wait()
    orphan = stopped(open_session, engine, session_id="orphan")

    cleaner._cleanup_orphans()

    assert not engine.exists(orphan)


def test_of_many_orphans_all_go_and_each_is_told_of_once(
    open_session: OpenSession, engine: Engine, cleaner: OrphanContainerCleaner, removals: Removals
) -> None:
    ids = {stopped(open_session, engine, session_id=str(number)) for number in range(4)}
    survivor = open_session(session_id="survivor").get_info().container_name

    cleaner._cleanup_orphans()
    cleaner._cleanup_orphans()

    assert engine.names() == [survivor]
    assert sorted(id for id, _, _ in removals.told) == sorted(ids)


def test_a_handler_that_raises_does_not_save_the_next_orphan(
    open_session: OpenSession, engine: Engine, backend: DockerBackend, prefix: str
) -> None:
    class Raising(PodkitEventHandler):
        def on_orphan_container_removed(self, container_id: str, container_name: str, age_seconds: float) -> None:
            raise ZeroDivisionError

    for number in range(3):
        stopped(open_session, engine, session_id=str(number))

    OrphanContainerCleaner(backend, prefix, 60, 0, event_handler=Raising())._cleanup_orphans()

    assert engine.names() == []


def test_the_thread_cleans_until_it_is_stopped(
    open_session: OpenSession, engine: Engine, cleaner: OrphanContainerCleaner
) -> None:
    cleaner.start()
    cleaner.start()
    assert cleaner.running
    stopped(open_session, engine, session_id="first")
    assert eventually(lambda: engine.names() == [])

    cleaner.stop()
    cleaner.stop()
    assert not cleaner.running
    stopped(open_session, engine, session_id="second")
    time.sleep(1)

    assert len(engine.names()) == 1


def test_a_session_whose_container_was_cleaned_away_is_recreated_by_the_next_command(
    open_session: OpenSession, engine: Engine, cleaner: OrphanContainerCleaner
) -> None:
    session = open_session(long_config(environment={"KEY": "value"}))
    session.write_file("file", "kept")
    engine.stop(session.get_info().container_name)

    cleaner._cleanup_orphans()
    assert engine.names() == []

    assert session.execute_command("cat file; echo $KEY").stdout == "keptvalue\n"
