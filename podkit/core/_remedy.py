"""The remedy for a container's state, for session manager and health monitor alike."""

from __future__ import annotations

from enum import Enum

from podkit._models.container_status import ContainerStatus
from podkit.agent.command_output import KILLED, SIGNALLED
from podkit.backends.base import WorkloadInfo

_TERMINATED = SIGNALLED + 15


class Remedy(Enum):
    """How to bring a container back."""

    NONE = "it runs, or is about to"
    START = "it stopped in good order: the next command starts it"
    RESTART = "it was stopped from outside, or its main process failed: start it"
    RECREATE = "it was killed, is broken or is gone: make it anew"
    REFUSE = "somebody paused it: that is theirs to undo"


def remedy_for(info: WorkloadInfo | None) -> Remedy:
    """Return a container's remedy. `None` for a removed one. Pure."""
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


def ended_by_itself(info: WorkloadInfo) -> bool:
    """Whether the main process ended without a signal from outside. Pure."""
    return info.status is ContainerStatus.EXITED and info.exit_code not in (None, KILLED, _TERMINATED)


def reason(info: WorkloadInfo | None) -> str:
    """Describe a container that needs a remedy."""
    if info is None:
        return "the container is gone: it was removed behind podkit's back"
    if info.status is ContainerStatus.EXITED and info.oom_killed:
        return f"out of memory: the kernel killed the main process (exit code {info.exit_code})"
    if info.exit_code == KILLED:
        return f"the main process was killed (exit code {KILLED})"
    if info.exit_code is not None:
        return f"the main process ended with exit code {info.exit_code}"
    return f"the container is {info.status}{': ' + info.error if info.error else ''}"
