"""Restarting a container, and looking at one that may be in the middle of it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from podkit.core._remedy import Remedy, remedy_for
from podkit.core._restarts import Restarts
from podkit.core.models import ContainerStatus as S
from podkit.errors import ContainerNotFound, EngineTimeout, EngineUnavailable, SessionBusy
from podkit.testing import FakeBackend
from podkit.utils._deadline import Deadline
from tests.support.waiting import within
from tests.unit.support import at_once, inspected, make_spec


@pytest.fixture
def restarts(fake: FakeBackend) -> Restarts:
    return Restarts(fake)


@pytest.fixture
def id(fake: FakeBackend) -> str:
    """A running container."""
    id = fake.create_workload(make_spec())
    fake.start_workload(id)
    fake.calls.clear()
    return id


# --- looking ---------------------------------------------------------------------------------------


def test_a_container_that_is_gone_is_none(fake: FakeBackend, restarts: Restarts, id: str) -> None:
    fake.vanish(id)
    assert restarts.look_settled(id) is None


def test_a_running_container_is_looked_at_once(fake: FakeBackend, restarts: Restarts, id: str) -> None:
    fake.calls.clear()
    found = restarts.look_settled(id)
    assert found is not None
    assert found.status is S.RUNNING
    assert fake.calls == ["inspect_workload"]


def test_a_container_that_another_process_kills_to_end_a_command_is_seen_to_come_back(
    fake: FakeBackend, restarts: Restarts, id: str
) -> None:
    fake.end(id, 137)
    fake.interpose("inspect_workload", lambda: None)
    fake.interpose("inspect_workload", lambda: fake.start_workload(id))
    found = restarts.look_settled(id)
    assert remedy_for(found) is Remedy.NONE


def test_a_killed_container_is_waited_for_also_where_something_in_it_ran_out_of_memory_once(
    fake: FakeBackend, restarts: Restarts, id: str
) -> None:
    """An engine says so for the rest of a container's life."""
    fake.end(id, 137, oom=True)
    fake.interpose("inspect_workload", lambda: None)
    fake.interpose("inspect_workload", lambda: fake.start_workload(id))
    assert remedy_for(restarts.look_settled(id)) is Remedy.NONE


@pytest.mark.parametrize("ended", [{"exit_code": 0}, {"exit_code": 143}])
def test_nobody_waits_for_a_container_that_will_not_come_back(
    fake: FakeBackend, restarts: Restarts, id: str, ended: dict[str, Any]
) -> None:
    fake.end(id, **ended)
    with within(0.1):
        restarts.look_settled(id)


def test_an_end_that_the_engine_notices_late_is_waited_for(fake: FakeBackend, restarts: Restarts, id: str) -> None:
    fake.interpose("inspect_workload", lambda: None)
    fake.interpose("inspect_workload", lambda: fake.end(id, 0))
    found = restarts.look_for_end(id)
    assert remedy_for(found) is Remedy.START


def test_a_container_that_goes_on_is_not_waited_for_for_long(restarts: Restarts, id: str) -> None:
    with within(1):
        found = restarts.look_for_end(id)
    assert remedy_for(found) is Remedy.NONE


def test_a_look_waits_for_a_restart_under_way_and_never_sees_its_middle(
    fake: FakeBackend, restarts: Restarts, id: str
) -> None:
    seen: list[S] = []
    look = threading.Thread(daemon=True, target=lambda: seen.append(restarts.look(id).status))

    def in_the_middle() -> None:
        fake.end(id, 137)
        look.start()
        look.join(0.05)
        assert seen == []

    fake.interpose("restart_workload", in_the_middle)
    restarts.restart(inspected(fake, id), deadline=Deadline.after(5))
    look.join(5)
    assert seen == [S.RUNNING]


def test_a_look_waits_for_a_restart_until_its_deadline_at_most(fake: FakeBackend, restarts: Restarts, id: str) -> None:
    late: list[BaseException] = []

    def look() -> None:
        try:
            restarts.look(id, deadline=Deadline.after(0.02))
        except SessionBusy as exc:
            late.append(exc)

    def in_the_middle() -> None:
        thread = threading.Thread(daemon=True, target=look)
        thread.start()
        thread.join(5)

    fake.interpose("restart_workload", in_the_middle)
    restarts.restart(inspected(fake, id), deadline=Deadline.after(5))
    assert len(late) == 1


# --- restarting ------------------------------------------------------------------------------------


def test_of_many_that_restart_for_the_same_moment_one_does(fake: FakeBackend, restarts: Restarts, id: str) -> None:
    before = inspected(fake, id)
    at_once(8, lambda _: restarts.restart(before, deadline=Deadline.after(5)))
    assert fake.calls.count("restart_workload") == 1


def test_what_somebody_else_has_restarted_since_is_left_alone(fake: FakeBackend, restarts: Restarts, id: str) -> None:
    before = inspected(fake, id)
    fake.end(id, 137)
    fake.start_workload(id)
    restarts.restart(before, deadline=Deadline.after(5))
    assert "restart_workload" not in fake.calls


def test_a_frozen_engine_is_not_waited_for_beyond_the_deadline(fake: FakeBackend, restarts: Restarts, id: str) -> None:
    before = inspected(fake, id)
    fake.freeze()
    with within(1), pytest.raises(EngineTimeout):
        restarts.restart(before, deadline=Deadline.after(0.1))
    fake.recover()
    assert "restart_workload" not in fake.calls


@pytest.mark.parametrize("error", [EngineUnavailable("gone"), ContainerNotFound("removed")])
def test_what_cannot_be_restarted_says_so(fake: FakeBackend, restarts: Restarts, id: str, error: Exception) -> None:
    fake.fail("restart_workload", error)
    with pytest.raises(type(error)):
        restarts.restart(inspected(fake, id), deadline=Deadline.after(5))
