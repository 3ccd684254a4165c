"""What a container's state asks for: the session manager and the health monitor judge alike."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from podkit.backends.base import WorkloadInfo
from podkit.core.manager import BaseContainerManager
from podkit.core.models import ContainerStatus
from podkit.errors import ContainerNotFound
from podkit.utils._deadline import Deadline, wait_until

KILLED = 128 + 9
_SETTLE_SECONDS = 1.0
_UNNOTICED_SECONDS = 0.5


class Remedy(Enum):
    """What brings a container back."""

    NONE = "it runs, or is about to"
    START = "it stopped in good order: the next command starts it"
    RESTART = "it was stopped from outside, or its main process failed: start it"
    RECREATE = "it was killed, is broken or is gone: make it anew"
    REFUSE = "somebody paused it: that is theirs to undo"


def judge(info: WorkloadInfo | None) -> Remedy:
    """Say what a container needs, as pure code; `None` stands for one that is gone."""
    if info is None or info.status in (ContainerStatus.DEAD, ContainerStatus.ERROR):
        return Remedy.RECREATE
    if info.status is ContainerStatus.PAUSED:
        return Remedy.REFUSE
    if info.status is ContainerStatus.CREATING:
        return Remedy.START
    if info.status not in (ContainerStatus.EXITED, ContainerStatus.STOPPED):
        return Remedy.NONE
    if info.exit_code == KILLED:
        return Remedy.RECREATE
    return Remedy.START if info.exit_code == 0 else Remedy.RESTART


def reason(info: WorkloadInfo | None) -> str:
    """Describe the state of a container that needs a remedy."""
    if info is None:
        return "the container is gone: it was removed behind podkit's back"
    if info.status is ContainerStatus.EXITED and info.oom_killed:
        return f"out of memory: the kernel killed the main process (exit code {info.exit_code})"
    if info.exit_code == KILLED:
        return f"the main process was killed (exit code {KILLED})"
    if info.exit_code is not None:
        return f"the main process ended with exit code {info.exit_code}"
    return f"the container is {info.status}{': ' + info.error if info.error else ''}"


def look(manager: BaseContainerManager, container_id: str) -> WorkloadInfo | None:
    """Look at a container; `None` where it is gone.

    One that was killed is looked at for up to a second: a process that ends a command by killing its container starts
    it again at once.
    """
    return _look_until(
        manager,
        container_id,
        lambda info: judge(info) is not Remedy.RECREATE or info.oom_killed,
        _SETTLE_SECONDS,
    )


def look_for_end(manager: BaseContainerManager, container_id: str) -> WorkloadInfo | None:
    """Look at a container that could not run a command, for a moment more while the engine says that it runs.

    An engine refuses commands from the end of a container on, and notices that end a little later.
    """
    return _look_until(manager, container_id, lambda info: judge(info) is not Remedy.NONE, _UNNOTICED_SECONDS)


def _look_until(
    manager: BaseContainerManager, container_id: str, settled: Callable[[WorkloadInfo], bool], seconds: float
) -> WorkloadInfo | None:
    found: list[WorkloadInfo | None] = []

    def check() -> bool:
        try:
            found.append(manager.inspect_container(container_id))
        except ContainerNotFound:
            found.append(None)
        info = found[-1]
        return info is None or settled(info)

    wait_until(check, deadline=Deadline.after(seconds), interval=0.05)
    return found[-1]
