"""Restarting containers, and inspecting them meanwhile."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable

from podkit.backends.base import Backend, Deadline, WorkloadInfo
from podkit.core._remedy import Remedy, remedy_for
from podkit.errors import ContainerNotFound
from podkit.utils._deadline import NEVER, held, wait_until
from podkit.utils._fork import renew_after_fork

RESTART_SECONDS = 30.0
_SETTLE_SECONDS = 1.0
_UNNOTICED_SECONDS = 0.5
_RESTARTING = "killing and starting the container"


class _Restart:
    """One container's restarts: one at a time, counted."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.count = 0


class Restarts:
    """The one way to inspect and restart containers. Safe to use from many threads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards the dict only
        self._restarts: defaultdict[str, _Restart] = defaultdict(_Restart)

    def _of(self, container_id: str) -> _Restart:
        with self._lock:
            return self._restarts[container_id]

    def forget(self, container_id: str) -> None:
        """Forget a container that was removed."""
        with self._lock:
            self._restarts.pop(container_id, None)

    def look(self, container_id: str, *, deadline: Deadline | None = None) -> WorkloadInfo:
        """Inspect a container, never in the middle of this process's restart.

        Raises:
            ContainerNotFound: it is gone.
            SessionBusy: a restart is still under way at the deadline.
        """
        restart = self._of(container_id)
        while True:
            with held(restart.lock, deadline or NEVER, _RESTARTING):
                count = restart.count
            # not under the lock: with a frozen engine this takes long, and a command may be over its time meanwhile
            info = self._backend.inspect_workload(container_id, deadline=deadline)
            # no restart came between, so this is no half of one
            if restart.count == count:
                return info

    def look_settled(self, container_id: str, *, deadline: Deadline | None = None) -> WorkloadInfo | None:
        """Look at a container; `None` where it is gone.

        One that was killed is looked at for up to a second: another process that ends a command by killing its
        container starts it again at once.
        """

        def settled(info: WorkloadInfo) -> bool:
            return remedy_for(info) is not Remedy.RECREATE

        return self._look_until(settled, container_id, deadline, _SETTLE_SECONDS)

    def look_for_end(self, container_id: str, *, deadline: Deadline | None = None) -> WorkloadInfo | None:
        """Inspect a container that refused a command, waiting a moment for its end.

        An engine refuses commands from the end of a container on, and notices that end a little later.
        """

        def ended(info: WorkloadInfo) -> bool:
            return remedy_for(info) is not Remedy.NONE

        return self._look_until(ended, container_id, deadline, _UNNOTICED_SECONDS)

    def _look_until(
        self, settled: Callable[[WorkloadInfo], bool], container_id: str, deadline: Deadline | None, seconds: float
    ) -> WorkloadInfo | None:
        found: list[WorkloadInfo | None] = []

        def check() -> bool:
            try:
                found.append(self.look(container_id, deadline=deadline))
            except ContainerNotFound:
                found.append(None)
            info = found[-1]
            return info is None or settled(info)

        wait_until(check, deadline=(deadline or NEVER).at_most(seconds), interval=0.05)
        return found[-1]

    def restart(self, before: WorkloadInfo, *, deadline: Deadline) -> None:
        """Kill and restart a container, unless that was done since `before`.

        Args:
            before: the container when the work to be ended began.
            deadline: for the engine's first answer; after it the engine gets all the time it needs.

        Raises:
            ContainerNotFound: it is gone.
            EngineTimeout: the engine gave no sign of life.
            SessionBusy: another thread still restarts it.
        """
        restart = self._of(before.id)
        with held(restart.lock, deadline, _RESTARTING):
            # counted first: a look that began before this is repeated
            restart.count += 1
            now = self._backend.inspect_workload(before.id, deadline=deadline)
            if now.started_at == before.started_at:
                # an engine that has just answered is not frozen, only slow
                self._backend.restart_workload(before.id, deadline=Deadline.after(RESTART_SECONDS))
