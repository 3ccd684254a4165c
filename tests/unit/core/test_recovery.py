"""What a container's state asks for: one table for the session manager and the health monitor."""

from __future__ import annotations

from typing import Any

import pytest

from podkit.backends.base import WorkloadInfo
from podkit.core._recovery import Remedy, judge, look, look_for_end, reason
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus
from podkit.testing import FakeBackend
from tests.support.waiting import within
from tests.unit.support import make_info

S = ContainerStatus

TABLE: list[tuple[WorkloadInfo | None, Remedy]] = [
    (None, Remedy.RECREATE),
    (make_info(status=S.RUNNING), Remedy.NONE),
    (make_info(status=S.RESTARTING), Remedy.NONE),
    (make_info(status=S.UNKNOWN), Remedy.NONE),
    (make_info(status=S.CREATING), Remedy.START),
    (make_info(status=S.PAUSED), Remedy.REFUSE),
    (make_info(status=S.DEAD, exit_code=0), Remedy.RECREATE),
    (make_info(status=S.ERROR), Remedy.RECREATE),
    *((make_info(status=status, exit_code=0), Remedy.START) for status in (S.EXITED, S.STOPPED)),
    *((make_info(status=status, exit_code=143), Remedy.RESTART) for status in (S.EXITED, S.STOPPED)),
    *((make_info(status=status, exit_code=137), Remedy.RECREATE) for status in (S.EXITED, S.STOPPED)),
    (make_info(status=S.EXITED, exit_code=137, oom_killed=True), Remedy.RECREATE),
    (make_info(status=S.EXITED, exit_code=1), Remedy.RESTART),
    (make_info(status=S.EXITED, exit_code=255), Remedy.RESTART),
]


@pytest.mark.parametrize(("info", "remedy"), TABLE, ids=lambda value: getattr(value, "name", None))
def test_a_state_has_its_remedy(info: WorkloadInfo | None, remedy: Remedy) -> None:
    assert judge(info) is remedy


def test_every_state_has_a_remedy() -> None:
    for status in ContainerStatus:
        for exit_code in (None, 0, 1, 137, 143):
            assert judge(make_info(status=status, exit_code=exit_code)) in Remedy


def test_a_container_that_is_paused_is_never_touched() -> None:
    for exit_code in (None, 0, 137):
        assert judge(make_info(status=S.PAUSED, exit_code=exit_code)) is Remedy.REFUSE


@pytest.mark.parametrize(
    ("info", "said"),
    [
        (None, "gone"),
        (make_info(status=S.EXITED, exit_code=137, oom_killed=True), "out of memory"),
        (make_info(status=S.EXITED, exit_code=137), "killed"),
        (make_info(status=S.EXITED, exit_code=3), "exit code 3"),
        (make_info(status=S.DEAD, error="no space"), "dead: no space"),
    ],
)
def test_a_reason_says_what_happened(info: WorkloadInfo | None, said: str) -> None:
    assert said in reason(info)


# --- looking ---------------------------------------------------------------------------------------


@pytest.fixture
def id(manager: SimpleContainerManager) -> str:
    config = ContainerConfig()
    id, _ = manager.create_container("bob", "1", config)
    manager.start_container(id, config)
    return id


def test_a_container_that_is_gone_is_none(fake: FakeBackend, manager: SimpleContainerManager, id: str) -> None:
    fake.vanish(id)
    assert look(manager, id) is None


def test_a_running_container_is_looked_at_once(fake: FakeBackend, manager: SimpleContainerManager, id: str) -> None:
    fake.calls.clear()
    found = look(manager, id)
    assert found is not None
    assert found.status is S.RUNNING
    assert fake.calls == ["inspect_workload"]


def test_a_container_that_another_process_kills_to_end_a_command_is_seen_to_come_back(
    fake: FakeBackend, manager: SimpleContainerManager, id: str
) -> None:
    fake.end(id, 137)
    fake.interpose("inspect_workload", lambda: None)
    fake.interpose("inspect_workload", lambda: fake.start_workload(id))
    found = look(manager, id)
    assert judge(found) is Remedy.NONE


@pytest.mark.parametrize("ended", [{"exit_code": 137, "oom": True}, {"exit_code": 0}, {"exit_code": 143}])
def test_nobody_waits_for_a_container_that_will_not_come_back(
    fake: FakeBackend, manager: SimpleContainerManager, id: str, ended: dict[str, Any]
) -> None:
    fake.end(id, **ended)
    with within(0.1):
        look(manager, id)


def test_an_end_that_the_engine_notices_late_is_waited_for(
    fake: FakeBackend, manager: SimpleContainerManager, id: str
) -> None:
    fake.interpose("inspect_workload", lambda: None)
    fake.interpose("inspect_workload", lambda: fake.end(id, 0))
    found = look_for_end(manager, id)
    assert judge(found) is Remedy.START


def test_a_container_that_goes_on_is_not_waited_for_for_long(manager: SimpleContainerManager, id: str) -> None:
    with within(1):
        found = look_for_end(manager, id)
    assert judge(found) is Remedy.NONE
