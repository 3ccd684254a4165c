"""Whether a container that was started stays up."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from podkit._models.container_status import ContainerStatus
from podkit.backends.base import Backend, Deadline, WorkloadInfo
from podkit.errors import ContainerFailedToStart, PodkitError
from podkit.utils._checks import cut
from podkit.utils._deadline import NEVER, wait_until

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig


LOG_LINES = 20


def wait_until_up(backend: Backend, id: str, config: ContainerConfig, *, deadline: Deadline | None = None) -> None:
    """Wait until a new container has proved to stay up.

    Raises:
        ContainerFailedToStart: it ended; exit code and the last log lines are in the message.
        ContainerNotFound: it is gone.
    """
    verification = config.startup_verification
    if verification is None:
        return
    streak = 0

    def steady() -> bool:
        nonlocal streak
        info = backend.inspect_workload(id, deadline=deadline)
        if info.status in (ContainerStatus.EXITED, ContainerStatus.DEAD):
            raise failed_to_start(backend, info, deadline=deadline)
        streak = streak + 1 if info.status is ContainerStatus.RUNNING else 0
        return streak >= verification.required_consecutive_checks

    interval, longest = verification.check_interval_seconds, verification.max_wait_seconds
    patience = (deadline or NEVER).at_most(longest)
    if not wait_until(steady, deadline=patience, interval=interval, longest_interval=interval):
        raise ContainerFailedToStart(
            f"container {id[:12]} failed to start: it was not found running {verification.required_consecutive_checks} "
            f"times in a row within {longest:g} s; see startup_verification"
        )


def failed_to_start(
    backend: Backend, info: WorkloadInfo, *, deadline: Deadline | None = None
) -> ContainerFailedToStart:
    """Describe a container that ended right after its start."""
    log = ""
    with suppress(PodkitError):  # the exit code matters more than a missing log
        log = backend.get_workload_logs(info.id, LOG_LINES, deadline=deadline)
    return ContainerFailedToStart(
        f"container {info.name} failed to start: its main process ended with exit code {info.exit_code}"
        f"{' (out of memory)' if info.oom_killed else ''}; its last lines: {cut(log.strip()) or '(none)'}; "
        "set a command that keeps running, or leave out entrypoint, command and use_image_defaults",
        exit_code=info.exit_code,
        log=log,
    )
