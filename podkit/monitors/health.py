"""Care for stopped, killed, lost and idle containers."""

from __future__ import annotations

import logging
from contextlib import suppress

from podkit.backends.base import WorkloadInfo
from podkit.core._health_protocols import SessionCare
from podkit.core._remedy import Remedy, reason, remedy_for
from podkit.core.manager import BaseContainerManager
from podkit.errors import PodkitError
from podkit.monitors.base import BaseThreadMonitor

__all__ = ["ContainerHealthMonitor"]

RESTARTS = 5
"""How many times a container that does not stay up is restarted before it is given up."""

HEALTHY_ROUNDS = 3
"""In how many rounds in a row a container must be found running before its restarts are forgotten."""

_logger = logging.getLogger(__name__)


class ContainerHealthMonitor(BaseThreadMonitor):
    """Watches a manager's containers and brings back broken ones.

    Restarts a container that was stopped from outside or whose main process failed; it keeps its id. Marks the session
    of one that was killed, ran out of memory, is dead or gone, so that its next command recreates it. Leaves one that
    reached the end of its lifetime alone: the next command starts it. Closes sessions that were idle for too long.

    Without a session manager (which registers itself when the monitor is handed to it) it restarts and logs.

    Args:
        container_manager: whose containers to watch.
        check_interval: seconds between two rounds.
        log_lines: how many of its last lines of log are kept of a container that failed.
    """

    def __init__(
        self, container_manager: BaseContainerManager, check_interval: float = 30, log_lines: int = 50
    ) -> None:
        super().__init__(check_interval)
        self.container_manager = container_manager
        self.log_lines = log_lines
        self._sessions: SessionCare | None = None
        self._given_up: set[str] = set()
        self._restarts: dict[str, int] = {}  # without HEALTHY_ROUNDS in between
        self._healthy_rounds: dict[str, int] = {}

    def register(self, sessions: SessionCare) -> None:
        """Register the session manager to tell. A later one replaces it."""
        self._sessions = sessions

    def tick(self) -> None:
        """Check every container once, then close expired sessions."""
        containers = self.container_manager.containers
        self._given_up &= containers.keys()
        for counts in (self._restarts, self._healthy_rounds):
            for gone in counts.keys() - containers.keys():
                del counts[gone]
        for container_id, record in containers.items():
            if self.stopping:
                return
            try:
                self._check(container_id)
            except PodkitError as exc:
                _logger.warning("container %s could not be checked: %s", record.name, exc)
            except Exception:  # a handler of the user's may raise anything; the others are still checked
                _logger.exception("checking container %s failed", record.name)
        if self._sessions is not None and not self.stopping:
            self._sessions.cleanup_expired_sessions()

    def _check(self, container_id: str) -> None:
        info = self.container_manager.restarts.look_settled(container_id)
        remedy = remedy_for(info)
        if container_id in self._given_up:
            if remedy is Remedy.NONE:  # somebody has brought it back
                self._given_up.discard(container_id)
        elif remedy is Remedy.RESTART and self._restarts.get(container_id, 0) < RESTARTS:
            self._restarts[container_id] = self._restarts.get(container_id, 0) + 1
            self._healthy_rounds.pop(container_id, None)
            self._restart(container_id, info)
        elif remedy in (Remedy.RESTART, Remedy.RECREATE):
            self._give_up(container_id, info)
        elif remedy is Remedy.NONE:
            self._note_healthy(container_id)

    def _note_healthy(self, container_id: str) -> None:
        """Forget a container's restarts once it has stayed up. It may die soon after each."""
        if container_id in self._restarts:
            self._healthy_rounds[container_id] = self._healthy_rounds.get(container_id, 0) + 1
            if self._healthy_rounds[container_id] >= HEALTHY_ROUNDS:
                del self._restarts[container_id], self._healthy_rounds[container_id]

    def _restart(self, container_id: str, info: WorkloadInfo | None) -> None:
        _logger.info("restarting container %s: %s", container_id[:12], reason(info))
        try:
            if self._sessions is not None:
                self._sessions.restart_container(container_id)
            else:
                self.container_manager.start_container(
                    container_id, self.container_manager.containers[container_id].config
                )
        except PodkitError as exc:
            _logger.warning("container %s could not be restarted: %s", container_id[:12], exc)

    def _give_up(self, container_id: str, info: WorkloadInfo | None) -> None:
        log = ""
        if info is not None:
            with suppress(PodkitError):  # the state matters more than a missing log
                log = self.container_manager.backend.get_workload_logs(container_id, self.log_lines)
        if self._sessions is None:
            _logger.warning("container %s failed: %s", container_id[:12], reason(info))
        elif not self._sessions.mark_failed(container_id, log):
            return  # it was brought back meanwhile
        self._given_up.add(container_id)
