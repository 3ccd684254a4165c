"""One session and its lock: its container opened, used, brought back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from podkit._models import lazy as models
from podkit._models.container_status import ContainerStatus
from podkit._models.identity import Identity
from podkit.agent.runner import paused
from podkit.core._container_record import ContainerRecord
from podkit.core._creation import WITHOUT_CONFIG, another_configuration, conflict
from podkit.core._remedy import Remedy, ended_by_itself, reason, remedy_for
from podkit.core._requested_config import Request
from podkit.core._startup_verification import failed_to_start
from podkit.core.manager import BaseContainerManager
from podkit.errors import ContainerNotFound, ContainerNotRunning, PodkitError, SessionConflict, SessionNotFound
from podkit.utils._clock import utc_now
from podkit.utils._deadline import NEVER, Deadline, held
from podkit.utils._usage_count import UsageCount

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig, Session

T = TypeVar("T")

BUSY = "making, recovering or closing the session"
LOST_SECONDS = 10.0
"""How long a container that is lost again and again is brought back, from its first loss on."""

_FAILED_STARTS = 2  # how many starts of one call may end by themselves before its command began
_FAILURE_KEYS = ("failure_status", "failure_reason", "failure_log")

_logger = logging.getLogger("podkit.core.session")  # a public name, see docs/logging.md


class SessionEntry:
    """A session's place in the table. Safe to use from many threads where nothing else is said.

    Args:
        manager: of its container.
        user_id: whose session.
        session_id: which one.

    Attributes:
        lock: held while the container is made, recovered or removed.
        depth: how often the thread with the lock holds the entry.
        session: `None` before it is made and after it was closed.
        record: its container's.
        is_new: whether `open` made the session, and did not find one.
        was_busy: whether a command or a background process ran when its idle clock had run out.
    """

    def __init__(self, manager: BaseContainerManager, user_id: str, session_id: str) -> None:
        self.user_id = user_id
        self.session_id = session_id
        self.session: Session | None = None
        self.record: ContainerRecord | None = None
        self.was_busy = False
        self.is_new = False
        self._manager = manager
        self.renew()

    def renew(self) -> None:
        """Make new locks in a forked child, where nothing runs."""
        self.lock = threading.RLock()
        self.depth = 0
        self._uses = UsageCount()

    # --- opening --------------------------------------------------------------------------------------

    def open_again(self, config: ContainerConfig | None) -> Session:
        """Reconnect to a known session. Needs the lock.

        Raises:
            SessionConflict: it exists with another configuration than `config`.
            PodkitError: as `bring_up` does.
        """
        assert self.record is not None
        if config is not None and (what := another_configuration(Request.of(config), self.record.requested)):
            identity = Identity.of(self._manager.container_prefix, self.user_id, self.session_id)
            raise conflict(identity, what, WITHOUT_CONFIG)
        self.bring_up()
        return self.active()

    def open(self, config: ContainerConfig | None, default_image: str | None) -> Session:
        """Find the session's container on the engine, or create it. Needs the lock."""
        giving_up: Deadline | None = None
        while True:
            try:
                return self._adopt(config) or self._create(config, default_image)
            except ContainerNotFound:  # another process closes it at the same time
                giving_up = giving_up or Deadline.after(LOST_SECONDS)
                if giving_up.expired:
                    raise

    def _adopt(self, config: ContainerConfig | None) -> Session | None:
        record = self._manager.find_container(self.user_id, self.session_id, config)
        if record is None:
            return None
        session = self.connect(record)
        self.bring_up()  # may make the container anew: the session is an old one all the same
        self.is_new = False
        return session

    def _create(self, config: ContainerConfig | None, default_image: str | None) -> Session:
        manager = self._manager
        wanted = config or (models.ContainerConfig(image=default_image) if default_image else models.ContainerConfig())
        self.record = None
        try:
            container_id, _ = manager.create_container(self.user_id, self.session_id, wanted)
        except SessionConflict as exc:
            if config is not None:
                raise
            # another process has just created it, in another way than by default: any will do
            if session := self._adopt(config):
                return session
            raise ContainerNotFound("another process created the session's container and closed it again") from exc
        record = manager.containers.get(container_id)
        if record is None:
            raise ContainerNotFound("the session's container was removed right after its creation")
        self.record, self.is_new = record, not record.was_found  # else another process has just created it
        manager.start_container(container_id, record.config)
        session = self.connect(record)
        session.status = ContainerStatus.RUNNING
        return session

    def undo(self) -> None:
        """Remove the new container of a session that its caller never gets. Raises nothing."""
        made = self.record.id if self.record and not self.record.was_found else None
        self._manager.undo_creation(self.user_id, self.session_id, made)

    # --- the session ----------------------------------------------------------------------------------

    def find(self, deadline: Deadline = NEVER) -> Session | None:
        """Return the session, looked up on the engine if unknown. Needs the lock."""
        if self.session is None:
            record = self._manager.find_container(self.user_id, self.session_id, deadline=deadline)
            if record is not None:
                status = self._manager.get_container_status(record.id, deadline=deadline)
                self.connect(record).status = status
        return self.session

    def connect(self, record: ContainerRecord) -> Session:
        """Make the session object of a container. Needs the lock."""
        self.record = record
        # no session -> session
        self.session = models.Session(
            user_id=self.user_id,
            session_id=self.session_id,
            container_id=record.id,
            container_name=record.name,
            config=record.config.checked_copy(),
            created_at=record.created_at,
            data_dir=self._manager.get_data_dir(self.user_id, self.session_id),
            session_inactivity_timeout_seconds=record.config.session_inactivity_timeout_seconds,
        )
        return self.session

    def active(self) -> Session:
        """Return the session and restart its idle clock.

        Raises:
            SessionNotFound: it was closed. A closed one is never brought back.
        """
        session = self.session
        if session is None:
            raise SessionNotFound(
                f"session {self.session_id!r} of user {self.user_id!r} was closed: open it with "
                "get_docker_session, or create_session"
            )
        session.last_active_at = utc_now()
        return session

    def is_busy(self) -> bool:
        """Whether a call, a command or a background process keeps the session from expiring."""
        container_id = self.session.container_id if self.session else None
        return bool(self._uses) or (container_id is not None and self._manager.is_busy(container_id))

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the session from expiring. The idle clock restarts at the end."""
        try:
            with self._uses.counted():
                yield
        finally:
            session = self.session
            if session is not None:
                session.last_active_at = utc_now()

    # --- its container --------------------------------------------------------------------------------

    def use(self, action: Callable[[str], T], deadline: Deadline = NEVER) -> T:
        """Call `action` with the id of the running container, which is brought back if it was lost.

        `action` is repeated only where it raised before it sent anything.

        Raises:
            SessionNotFound: the session was closed.
            ContainerFailedToStart: its main process ends after each start.
            PodkitError: as `action`, or bringing the container back, does.
        """
        giving_up: Deadline | None = None
        ends: set[datetime | None] = set()  # the start times of containers that ended by themselves
        with self.in_use():
            while True:
                # at the first round no request goes to the engine
                container_id = self._running_container(deadline, lost=giving_up is not None)
                try:
                    return action(container_id)
                except (ContainerNotFound, ContainerNotRunning) as exc:
                    # lost before anything was sent: bring it back and try again
                    giving_up = giving_up or deadline.at_most(LOST_SECONDS)
                    if deadline.expired:
                        raise
                    info = self._manager.restarts.look_for_end(container_id, deadline=deadline)
                    if info is not None and ended_by_itself(info):
                        ends.add(info.started_at)
                    if giving_up.expired or len(ends) > _FAILED_STARTS:
                        if info is None or info.exit_code is None:
                            raise
                        raise failed_to_start(self._manager.backend, info, deadline=deadline) from exc

    def _running_container(self, deadline: Deadline, *, lost: bool) -> str:
        """Return the container's id. It is brought up first if marked ERROR or `lost`."""
        session = self.active()
        container_id = session.container_id
        usable = container_id is not None and session.status is not ContainerStatus.ERROR and not lost
        if container_id is not None and usable and self._manager.has_workspace(container_id):
            return container_id  # believed to run: the engine refuses the command where it does not
        with held(self.lock, deadline, BUSY):
            self.active()  # again: it may have been closed while this thread waited for the lock
            return self.bring_up(deadline)

    def bring_up(self, deadline: Deadline = NEVER) -> str:
        """Start or recreate the container and return its id. Needs the lock."""
        session, record, manager = self.session, self.record, self._manager
        assert session is not None
        assert record is not None
        # marked ERROR, or gone: made anew without a look
        remedy = Remedy.RECREATE
        if session.container_id is not None and session.status is not ContainerStatus.ERROR:
            remedy = remedy_for(manager.restarts.look_settled(session.container_id, deadline=deadline))
        if remedy is Remedy.REFUSE:
            raise paused(record.name)
        if remedy in (Remedy.START, Remedy.RESTART):
            try:
                manager.start_container(record.id, record.config, deadline=deadline)
            except ContainerNotFound:  # another process removes it at the same time
                remedy = Remedy.RECREATE
        if remedy is Remedy.NONE and not manager.has_workspace(record.id):
            manager.remount_workspace(record.id, deadline=deadline)
        if remedy is Remedy.RECREATE:
            record = self._recreate(session, record, deadline)
        session.status = ContainerStatus.RUNNING
        return record.id

    def _recreate(self, session: Session, record: ContainerRecord, deadline: Deadline) -> ContainerRecord:
        _logger.info("recreating container %s", record.name)
        session.status, session.container_id = ContainerStatus.ERROR, None  # until the new one runs
        manager = self._manager
        try:
            self.record = record = manager.recreate_container(record, deadline=deadline)
            manager.start_container(record.id, record.config, deadline=deadline)
        except BaseException as exc:
            if not isinstance(exc, PodkitError):  # such as of a signal's handler
                manager.undo_creation(self.user_id, self.session_id)
            raise
        session.container_id, session.container_name = record.id, record.name
        # ERROR -> recovered
        for key in _FAILURE_KEYS:
            session.metadata.pop(key, None)
        return record

    # --- a container that the health monitor found broken -----------------------------------------------

    def serves(self, container_id: str) -> bool:
        """Whether this is the session of a container."""
        return self.session is not None and self.session.container_id == container_id

    def mark_failed(self, log: str) -> bool:
        """Mark the session `ERROR`, unless its container was brought back meanwhile. Needs the lock."""
        session = self.session
        assert session is not None
        assert session.container_id is not None
        info = self._manager.restarts.look_settled(session.container_id)  # again, now that no recovery is under way
        if remedy_for(info) not in (Remedy.RESTART, Remedy.RECREATE):
            return False
        found = (str(info.status) if info else "gone", reason(info), log)
        session.metadata.update(zip(_FAILURE_KEYS, found, strict=True))
        session.status, session.container_id = ContainerStatus.ERROR, None
        _logger.warning("session %r of user %r failed: %s", self.session_id, self.user_id, reason(info))
        return True
