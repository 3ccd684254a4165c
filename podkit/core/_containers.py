"""The containers that one manager knows: created or adopted, started, forgotten."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from podkit._models.identity import Identity
from podkit.agent import agent_program
from podkit.agent.runner import Runner
from podkit.backends.base import Backend, Deadline, SharedFiles, WorkloadInfo
from podkit.core._container_record import ContainerRecord, labels_of, read_record
from podkit.core._creation import get_or_create
from podkit.core._mounts import mount_spec
from podkit.core._workload_spec import workload_spec
from podkit.errors import NotSupported
from podkit.utils._fork import renew_after_fork

_REASON_MAX = 300  # characters of a label

_logger = logging.getLogger("podkit.core.manager")  # a public name, see docs/logging.md


class Containers:
    """A manager's containers, by id. Safe to use from many threads.

    Args:
        backend: the engine.
        runner: attaches to a container at its first start.
    """

    def __init__(self, backend: Backend, runner: Runner) -> None:
        self._backend = backend
        self._runner = runner
        self._why_no_agent: str | None = None
        self._records: dict[str, ContainerRecord] = {}
        self._never_started: dict[str, bool] = {}  # id -> whether the next start may attach
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _records and _never_started

    # --- looking up -----------------------------------------------------------------------------------

    def records(self) -> dict[str, ContainerRecord]:
        """Return all records by id. A copy."""
        with self._lock:
            return dict(self._records)

    def get(self, container_id: str) -> ContainerRecord | None:
        """Return a container's record. `None` for one started by its id alone."""
        with self._lock:
            return self._records.get(container_id)

    def never_started(self, container_id: str) -> ContainerRecord | None:
        """Return the record of a container that never ran. `None` for any other."""
        with self._lock:
            return self._records.get(container_id) if container_id in self._never_started else None

    def unfinished(self, name: str) -> list[str]:
        """Return the ids of the containers of this name that this manager made and nobody started."""
        with self._lock:
            records = map(self._records.get, list(self._never_started))
            return [record.id for record in records if record and record.name == name and not record.was_found]

    # --- changes --------------------------------------------------------------------------------------

    def create(
        self,
        identity: Identity,
        draft: ContainerRecord,
        networks: Sequence[str],
        pulling: Callable[[str], None],
        deadline: Deadline | None,
    ) -> ContainerRecord:
        """Create a container, or adopt another caller's.

        Args:
            identity: whose it is.
            draft: its record, without an id.
            networks: those to join.
            pulling: told how the pull of a missing image goes on.
            deadline: until when.

        Raises:
            PodkitError: as `get_or_create` does.
        """
        mounts, labels = [mount_spec(mount) for mount in draft.mounts], identity.labels | labels_of(draft)
        while True:
            agent = self._agent()
            spec = workload_spec(draft.name, draft.config, labels, mounts, networks, agent)

            def made(id: str, attachable: bool = spec.attachable) -> None:  # noqa: FBT001 - bound here, not passed
                with self._lock:  # from here on the container can be found and undone
                    self._records[id] = replace(draft, id=id)
                    self._never_started[id] = attachable

            try:
                id, adopted = get_or_create(self._backend, identity, spec, pulling, made, deadline=deadline)
            except NotSupported as exc:
                if isinstance(agent, str):
                    raise
                # this engine takes no agent: from here on nobody tries again
                self._why_no_agent = f"the agent cannot be placed: {' '.join(str(exc).split())[:_REASON_MAX]}"
                _logger.warning("commands go through the engine's exec, as %s", self._why_no_agent)
            else:
                return self.hold(adopted) if adopted else replace(draft, id=id)

    def _agent(self) -> SharedFiles | str:
        """Return the agent's program, or why there is none."""
        return self._why_no_agent or agent_program.shared_files() or agent_program.WHY_NONE

    def hold(self, info: WorkloadInfo) -> ContainerRecord:
        """Keep and return the record of a container that was found."""
        record = read_record(info)
        with self._lock:
            self._records[record.id] = record
            if info.started_at is None:
                self._never_started[record.id] = False  # its maker attaches
        return record

    def start(self, container_id: str, deadline: Deadline | None) -> None:
        """Start a container. One that runs is no error."""
        with self._lock:
            attachable = self._never_started.get(container_id, False)
            if attachable:  # one caller at most: the end of the first stream is the end of the container's input
                self._never_started[container_id] = False
        start = self._runner.start if attachable else self._backend.start_workload
        start(container_id, deadline=deadline)

    def note_started(self, container_id: str) -> None:
        """Note that a container runs: it is no longer one to be undone."""
        with self._lock:
            self._never_started.pop(container_id, None)

    def forget(self, container_id: str) -> ContainerRecord | None:
        """Drop a removed container's record and return it."""
        with self._lock:
            self._never_started.pop(container_id, None)
            return self._records.pop(container_id, None)
