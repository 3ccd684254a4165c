"""Which stopped containers are ours and too old; nothing else is ever removed."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from podkit._models.identity import Identity, this_owner
from podkit._models.labels import Label
from podkit.backends.base import WorkloadInfo
from podkit.core.models import ContainerStatus
from podkit.core.session import BaseSessionManager
from podkit.errors import EngineError, InvalidInput
from podkit.monitors.orphans import UNSTARTED_SECONDS, OrphanContainerCleaner, age_seconds
from podkit.testing import FakeBackend
from tests.unit.support import MOMENT, PREFIX, Recorder, at_once, inspected, make_info, make_spec, names_on

S = ContainerStatus
DEAD_OWNER = replace(this_owner(), started="1").to_label()
LIVING_OWNER = this_owner().to_label()
ELSEWHERE = replace(this_owner(), host="elsewhere").to_label()


def at(seconds: float) -> Any:
    """So many seconds before now, which is MOMENT."""
    return MOMENT - timedelta(seconds=seconds)


# --- ages, as pure code ----------------------------------------------------------------------------

AGES: dict[str, tuple[WorkloadInfo, float | None]] = {
    "running": (make_info(status=S.RUNNING, started_at=at(9000)), None),
    "paused": (make_info(status=S.PAUSED, started_at=at(9000)), None),
    "restarting": (make_info(status=S.RESTARTING, finished_at=at(9000)), None),
    "unknown": (make_info(status=S.UNKNOWN, finished_at=at(9000)), None),
    "stopped": (make_info(status=S.EXITED, created_at=at(9000), finished_at=at(50)), 50.0),
    "dead": (make_info(status=S.DEAD, finished_at=at(50)), 50.0),
    "stopped at an unknown time": (make_info(status=S.EXITED, finished_at=None), None),
    "just being made": (make_info(status=S.CREATING, created_at=at(5), started_at=None), None),
    "made long ago": (make_info(status=S.CREATING, created_at=at(UNSTARTED_SECONDS + 1)), UNSTARTED_SECONDS + 1),
    "made at an unknown time": (make_info(status=S.CREATING, created_at=None), None),
    "made by who died": (make_info(status=S.CREATING, created_at=at(5), labels={Label.OWNER: DEAD_OWNER}), 5.0),
    "made by who lives": (make_info(status=S.CREATING, created_at=at(5), labels={Label.OWNER: LIVING_OWNER}), None),
    "made elsewhere": (make_info(status=S.CREATING, created_at=at(5), labels={Label.OWNER: ELSEWHERE}), None),
    "made by who knows": (make_info(status=S.CREATING, created_at=at(5), labels={Label.OWNER: "{"}), None),
}


@pytest.mark.parametrize("what", AGES)
def test_the_age_of_a_container_that_is(what: str) -> None:
    info, age = AGES[what]
    assert age_seconds(info, MOMENT) == age


def test_a_clock_that_was_set_back_makes_nothing_old() -> None:
    info = make_info(status=S.EXITED, finished_at=MOMENT + timedelta(hours=1))
    assert (age_seconds(info, MOMENT) or 0) < 0


# --- rounds ----------------------------------------------------------------------------------------


def cleaner(fake: FakeBackend, max_age_seconds: float = 0, recorder: Recorder | None = None) -> OrphanContainerCleaner:
    return OrphanContainerCleaner(fake, PREFIX, 60, max_age_seconds, recorder)


def stopped(fake: FakeBackend, session_id: str = "1", *, prefix: str = PREFIX, age: float = 100, **changes: Any) -> str:
    """A container that ended so many seconds ago."""
    identity = Identity.of(prefix, "bob", session_id)
    labels = identity.labels | changes.pop("labels", {})
    id = fake.create_workload(make_spec(**({"name": identity.name, "labels": labels} | changes)))
    fake.start_workload(id)
    fake.end(id, seconds_ago=age)
    return id


def test_what_stopped_long_enough_ago_is_removed_and_told(fake: FakeBackend, recorder: Recorder) -> None:
    id = stopped(fake, age=100)
    name = inspected(fake, id).name
    cleaner(fake, 99, recorder)._cleanup_orphans()
    assert names_on(fake) == []
    told_id, told_name, age = recorder.arguments("on_orphan_container_removed")
    assert (told_id, told_name) == (id, name)
    assert 100 <= age < 105


def test_what_stopped_a_moment_ago_stays_for_now(fake: FakeBackend) -> None:
    stopped(fake, age=50)
    cleaner(fake, 99)._cleanup_orphans()
    assert len(names_on(fake)) == 1


def test_an_age_of_0_takes_it_at_once(fake: FakeBackend) -> None:
    stopped(fake, age=0)
    cleaner(fake, 0)._cleanup_orphans()
    assert names_on(fake) == []


def test_a_round_is_what_a_tick_does(fake: FakeBackend) -> None:
    stopped(fake)
    cleaner(fake).tick()
    assert names_on(fake) == []


def test_a_living_owner_does_not_keep_a_stopped_container(fake: FakeBackend, sessions: BaseSessionManager) -> None:
    session = sessions.create_session("bob", "1")
    fake.end(session.container_id or "", seconds_ago=100)
    cleaner(fake)._cleanup_orphans()
    assert names_on(fake) == []
    assert sessions.execute_command("bob", "1", "echo hello").ok


def test_a_running_or_paused_container_is_never_removed_however_old(
    fake: FakeBackend, sessions: BaseSessionManager
) -> None:
    sessions.create_session("bob", "1")
    fake.pause(sessions.create_session("bob", "2").container_id or "")
    cleaner(fake)._cleanup_orphans()
    assert len(names_on(fake)) == 2


def test_control_a_reaper_by_age_since_creation_would_take_the_active_session() -> None:
    active = make_info(status=S.RUNNING, created_at=at(1_000_000), started_at=at(1_000_000))
    assert active.created_at is not None
    assert (MOMENT - active.created_at).total_seconds() > 3600
    assert age_seconds(active, MOMENT) is None


def test_a_container_that_is_started_right_before_its_removal_stays(fake: FakeBackend) -> None:
    id = stopped(fake)
    fake.interpose("remove_workload", lambda: fake.start_workload(id))
    cleaner(fake)._cleanup_orphans()
    assert inspected(fake, id).status is S.RUNNING


def test_a_container_that_somebody_else_removes_first_is_no_error_and_not_told(
    fake: FakeBackend, recorder: Recorder
) -> None:
    id = stopped(fake)
    fake.interpose("inspect_workload", lambda: fake.vanish(id))
    cleaner(fake, 0, recorder)._cleanup_orphans()
    assert recorder.names == []


@pytest.mark.parametrize("prefix", ["unit-x", "uni", "Unit", "other"])
def test_another_prefix_is_never_touched(fake: FakeBackend, prefix: str) -> None:
    stopped(fake, prefix=prefix)
    cleaner(fake)._cleanup_orphans()
    assert len(names_on(fake)) == 1


STRANGERS: dict[str, dict[str, Any]] = {
    "no labels": {"labels": dict.fromkeys(Identity.of(PREFIX, "bob", "1").labels, "")},
    "a schema of tomorrow": {"labels": {Label.SCHEMA: "99"}},
    "an id that cannot be": {"labels": {Label.SESSION_ID: ""}},
    "a session outside of the root": {"labels": {Label.SESSION_ID: "../../etc"}},
    "another one's name": {"name": "somebody"},
}


@pytest.mark.parametrize("what", STRANGERS)
def test_what_cannot_be_proven_ours_is_never_touched(fake: FakeBackend, what: str) -> None:
    stopped(fake, **STRANGERS[what])
    cleaner(fake)._cleanup_orphans()
    assert len(names_on(fake)) == 1
    assert "remove_workload" not in fake.calls


@pytest.mark.parametrize("what", ["a schema of tomorrow", "another one's name"])
def test_garbled_labels_are_reported_once(fake: FakeBackend, caplog: pytest.LogCaptureFixture, what: str) -> None:
    name = inspected(fake, stopped(fake, **STRANGERS[what])).name
    watch = cleaner(fake)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            watch._cleanup_orphans()
    assert [name in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize("garbled", ["{", "[" * 100_000, '{"pid":Infinity}', "", "null"], ids=lambda text: text[:10])
def test_a_garbled_owner_breaks_no_round(fake: FakeBackend, garbled: str) -> None:
    identity = Identity.of(PREFIX, "bob", "made")
    fake.create_workload(make_spec(identity.name, labels=identity.labels | {Label.OWNER: garbled}))
    stopped(fake, "2")
    cleaner(fake)._cleanup_orphans()
    assert names_on(fake) == [identity.name]


@pytest.mark.parametrize("garbled", ["{", "[" * 100_000, "5", '{"environment":5}'], ids=lambda text: text[:10])
def test_a_container_whose_configuration_is_garbled_is_still_ours_and_goes(fake: FakeBackend, garbled: str) -> None:
    stopped(fake, labels={Label.CONFIG: garbled})
    cleaner(fake)._cleanup_orphans()
    assert names_on(fake) == []


def test_a_container_that_cannot_be_removed_does_not_keep_the_others(
    fake: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(3):
        stopped(fake, str(number))
    fake.fail("remove_workload", EngineError("stuck"))
    cleaner(fake)._cleanup_orphans()
    assert len(names_on(fake)) == 1
    assert "stuck" in caplog.text


@pytest.mark.parametrize("error", [ValueError("mine"), RecursionError(), SystemExit(1)], ids=repr)
def test_a_handler_that_raises_does_not_keep_the_others(
    fake: FakeBackend, recorder: Recorder, error: BaseException
) -> None:
    for number in range(3):
        stopped(fake, str(number))
    recorder.raising["on_orphan_container_removed"] = error
    watch = cleaner(fake, 0, recorder)
    for _ in range(3):  # a round may end with what a handler raised, the next one must go further
        try:
            watch._cleanup_orphans()
        except SystemExit:
            continue
    assert names_on(fake) == []


def test_three_cleaners_at_once_remove_an_orphan_once(fake: FakeBackend) -> None:
    recorders = [Recorder() for _ in range(3)]
    for number in range(10):
        stopped(fake, str(number))
    at_once(3, lambda number: cleaner(fake, 0, recorders[number])._cleanup_orphans())
    assert names_on(fake) == []
    told = [arguments[0] for recorder in recorders for _, arguments in recorder.events]
    assert len(set(told)) == 10


def test_the_workspace_stays(fake: FakeBackend, sessions: BaseSessionManager) -> None:
    session = sessions.create_session("bob", "1")
    sessions.write_file("bob", "1", "a", "kept")
    fake.end(session.container_id or "", seconds_ago=100)
    cleaner(fake)._cleanup_orphans()
    assert session.data_dir is not None
    assert (session.data_dir / "a").read_text() == "kept"


@pytest.mark.parametrize("age", [-1, float("nan"), "5", None])
def test_an_impossible_age_is_refused(fake: FakeBackend, age: Any) -> None:
    with pytest.raises(InvalidInput, match="max_age_seconds"):
        cleaner(fake, age)


def test_an_impossible_prefix_is_refused(fake: FakeBackend) -> None:
    with pytest.raises(InvalidInput, match="container_prefix"):
        OrphanContainerCleaner(fake, "", 60, 0)
