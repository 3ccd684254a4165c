"""Which stopped containers are podkit's and too old."""

from __future__ import annotations

import logging
from datetime import datetime

from podkit._models.container_status import ContainerStatus
from podkit._models.identity import Identity, Owner
from podkit._models.labels import Label
from podkit.backends.base import Backend, WorkloadInfo
from podkit.core.events import PodkitEventHandler, checked_handler, notify
from podkit.errors import ContainerNotFound, InvalidInput, PodkitError
from podkit.monitors.base import BaseThreadMonitor
from podkit.utils._checks import check_age, check_prefix
from podkit.utils._clock import utc_now

__all__ = ["OrphanContainerCleaner"]

UNSTARTED_SECONDS = 60.0
"""How old a container that was never started must be, at least: a younger one may be just being made."""

_logger = logging.getLogger(__name__)


class OrphanContainerCleaner(BaseThreadMonitor):
    """Removes containers that stopped long ago.

    Removes only what is stopped, carries podkit's labels with exactly the given prefix, and stopped at least
    `max_age_seconds` ago, by the engine's clock as far as it agrees with this one's. Never a running container, never
    another prefix, never one whose labels cannot be read. Workspaces stay.

    Args:
        backend: the engine, connected.
        container_prefix: whose containers.
        check_interval: seconds between two rounds.
        max_age_seconds: for how long a container must have been stopped; 0 takes it at once.
        event_handler: told of each container that was removed.
    """

    def __init__(
        self,
        backend: Backend,
        container_prefix: str,
        check_interval: float,
        max_age_seconds: float,
        event_handler: PodkitEventHandler | None = None,
    ) -> None:
        super().__init__(check_interval)
        self.backend = backend
        self.container_prefix = check_prefix(container_prefix)
        self.max_age_seconds = check_age(max_age_seconds, "max_age_seconds")
        self.event_handler = checked_handler(event_handler)
        self._reported: set[str] = set()

    def tick(self) -> None:
        """Remove the containers that are too old."""
        self._cleanup_orphans()

    def _cleanup_orphans(self) -> None:
        """Run one round in the caller's thread."""
        labels = [f"{Label.PREFIX}={self.container_prefix}"]
        for row in self.backend.list_workloads({"label": labels}):
            if self.stopping:
                return
            if row["status"] is ContainerStatus.RUNNING:
                continue
            try:
                self._consider(row["id"])
            except ContainerNotFound:
                continue  # somebody else removed it
            except PodkitError as exc:
                _logger.warning("stopped container %s could not be removed: %s", row["name"], exc)

    def _consider(self, container_id: str) -> None:
        info = self.backend.inspect_workload(container_id)
        if not self._is_ours(info):
            return
        age = age_seconds(info, utc_now())
        if age is None or age < self.max_age_seconds:
            return
        if not self.backend.remove_workload(container_id, force=False):  # refused: it runs by now
            return  # another cleaner was faster, and tells of it
        _logger.info("removed orphan container %s, stopped for %.0f s", info.name, age)
        notify(self.event_handler.on_orphan_container_removed, container_id, info.name, age)

    def _is_ours(self, info: WorkloadInfo) -> bool:
        try:
            identity = Identity.read(info.labels)
        except InvalidInput as exc:
            why = str(exc)
        else:
            if identity.prefix == self.container_prefix and info.name == identity.name:
                return True
            why = "its name and its labels do not belong together"
        if info.id not in self._reported:
            self._reported.add(info.id)
            _logger.warning("container %s looks like podkit's but is left alone: %s", info.name, why)
        return False


def age_seconds(info: WorkloadInfo, now: datetime) -> float | None:
    """Return how long a container has been stopped. `None` if it is not, or may be new."""
    if info.status in (ContainerStatus.EXITED, ContainerStatus.DEAD):
        return (now - info.finished_at).total_seconds() if info.finished_at else None
    if info.status is not ContainerStatus.CREATING or info.created_at is None:
        return None
    age = (now - info.created_at).total_seconds()
    owner = Owner.from_label(info.labels.get(Label.OWNER, ""))
    abandoned = owner is not None and owner.alive() is False
    return age if abandoned or age >= UNSTARTED_SECONDS else None
