"""What a container's state asks for: one table for the session manager and the health monitor."""

from __future__ import annotations

import pytest

from podkit.backends.base import WorkloadInfo
from podkit.core._remedy import Remedy, reason, remedy_for
from podkit.core.models import ContainerStatus
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
    assert remedy_for(info) is remedy


def test_every_state_has_a_remedy() -> None:
    for status in ContainerStatus:
        for exit_code in (None, 0, 1, 137, 143):
            assert remedy_for(make_info(status=status, exit_code=exit_code)) in Remedy


def test_a_container_that_is_paused_is_never_touched() -> None:
    for exit_code in (None, 0, 137):
        assert remedy_for(make_info(status=S.PAUSED, exit_code=exit_code)) is Remedy.REFUSE


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
