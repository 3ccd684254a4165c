"""Session managers (layer 3): who has which container, idle, expired, broken."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Protocol, TypeVar

from podkit._models import lazy as models
from podkit._models.identity import Identity
from podkit._models.status import ContainerStatus
from podkit.agent.command_output import TextCallback
from podkit.agent.command_request import CommandRequest
from podkit.agent.runner import latest, paused
from podkit.backends.base import Deadline
from podkit.core._creation import WITHOUT_CONFIG, another_configuration, conflict
from podkit.core._remedy import Remedy, ended_by_itself, reason, remedy_for
from podkit.core._requested_config import Request
from podkit.core._session_table import BUSY, SessionEntry, SessionTable
from podkit.core._startup import failed_to_start
from podkit.core.command import Command, unless_interrupted
from podkit.core.events import PodkitEventHandler, notify
from podkit.core.files import as_text
from podkit.core.isolation import Isolation
from podkit.core.manager import BaseContainerManager, ContainerRecord
from podkit.errors import (
    ContainerNotFound,
    ContainerNotRunning,
    FileError,
    InvalidInput,
    PodkitError,
    SessionConflict,
    SessionNotFound,
)
from podkit.utils._checks import CommandLike, StrPath, check_content
from podkit.utils._clock import utc_now
from podkit.utils._deadline import NEVER, held, tried
from podkit.utils.paths import resolve_container_path, resolve_file_path

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig, ProcessResult, Session

T = TypeVar("T")

_LOST_SECONDS = 10.0  # how long a container that is lost again and again is brought back, from its first loss on
_FAILED_STARTS = 2  # how many starts of one call may end by themselves before its command began
FAILURE_KEYS = ("failure_status", "failure_reason", "failure_log")

_logger = logging.getLogger(__name__)


class SessionCare(Protocol):
    """What a health monitor asks of a session manager."""

    def restart_container(self, container_id: str) -> None:
        """Restart a stopped container, unless its session was closed or recovered."""
        ...

    def mark_failed(self, container_id: str, log: str) -> bool:
        """Mark a broken container's session, to be recreated. Returns whether it was."""
        ...

    def cleanup_expired_sessions(self) -> list[Session]:
        """Close the sessions that were idle for too long."""
        ...


class HealthMonitor(Protocol):
    """What a session manager needs of a health monitor."""

    def register(self, sessions: SessionCare) -> None:
        """Take note of whom to tell."""
        ...

    def start(self) -> None:
        """Begin to watch."""
        ...

    def stop(self) -> None:
        """Stop watching."""
        ...


class BaseSessionManager:
    """Sessions over one container manager.

    Safe to use from many threads: a session is made, recovered or closed by one of them at a time, commands run side
    by side. A second manager over the same prefix, in this process or another, finds the sessions that live.

    Args:
        container_manager: makes the containers.
        default_image: the image of sessions that are created without a configuration.
        health_monitor: told of this manager and started.
        event_handler: told what happens to sessions; give it to the container manager as well for containers.
    """

    def __init__(
        self,
        container_manager: BaseContainerManager,
        default_image: str | None = None,
        health_monitor: HealthMonitor | None = None,
        event_handler: PodkitEventHandler | None = None,
    ) -> None:
        self.container_manager = container_manager
        self.default_image = default_image
        self.health_monitor = health_monitor
        self.event_handler = event_handler or PodkitEventHandler()
        self._table = SessionTable()
        self._restarts = container_manager.restarts
        if health_monitor is not None:
            health_monitor.register(self)
            health_monitor.start()

    # --- making and finding -------------------------------------------------------------------------

    def create_session(self, user_id: str, session_id: str, config: ContainerConfig | None = None) -> Session:
        """Create a session with a running container, or reconnect to it.

        Blocks while the container is made, and while its image is pulled. Safe to repeat, and to call from many
        threads and processes at once: all get the same container.

        Args:
            user_id: any text of 1 to 1,024 bytes.
            session_id: the same.
            config: what to make the container of. `None` reconnects to whatever there is, else uses the defaults.

        Raises:
            InvalidInput: a value cannot be right.
            SessionConflict: it exists with another configuration than `config`.
            ContainerFailedToStart: the container did not stay up; nothing of it stays behind.
            EngineError: the engine refused; a more exact class where one fits.
        """
        wanted = None if config is None else models.check_config(config).checked_copy()
        with self._table.locked(user_id, session_id) as entry:
            if entry.session is not None:
                self._check_same(entry, wanted)
                self._bring_up(entry)
                return self._active(entry)
            try:
                return self._open(entry, wanted)
            except BaseException as exc:
                if not isinstance(exc, PodkitError):  # such as of a signal's handler, which may come at any moment
                    self._undo_creation(entry)
                entry.session = None
                if isinstance(exc, Exception):
                    notify(self.event_handler.on_session_creation_failed, user_id, session_id, exc)
                raise

    def get_session(self, user_id: str, session_id: str) -> Session | None:
        """Return the live session object, looked up on the engine if unknown. `None` without one.

        A session that is known costs no engine call, and its container is not looked at.
        """
        with self._table.locked(user_id, session_id) as entry:
            return self._known(entry, NEVER)

    def _known(self, entry: SessionEntry, deadline: Deadline) -> Session | None:
        """Return an entry's session, looked up on the engine if unknown. Needs the entry's lock."""
        if entry.session is None:
            manager = self.container_manager
            record = manager.find_container(entry.user_id, entry.session_id, deadline=deadline)
            if record is not None:
                status = manager.get_container_status(record.id, deadline=deadline)
                self._connect(entry, record).status = status
        return entry.session

    def list_sessions(self) -> list[Session]:
        """Return this manager's sessions. No engine call."""
        return [entry.session for entry in self._table.entries() if entry.session is not None]

    def _require(self, user_id: str, session_id: str, deadline: Deadline = NEVER) -> SessionEntry:
        with self._table.locked(user_id, session_id, deadline=deadline) as entry:
            if self._known(entry, deadline) is None:
                raise SessionNotFound(
                    f"user {user_id!r} has no session {session_id!r}, or it was closed: open it with "
                    "get_docker_session, or create_session"
                )
            return entry

    def _check_same(self, entry: SessionEntry, config: ContainerConfig | None) -> None:
        assert entry.record is not None
        if config is None:
            return
        if what := another_configuration(Request.of(config), entry.record.requested):
            identity = Identity.of(self.container_manager.container_prefix, entry.user_id, entry.session_id)
            raise conflict(identity, what, WITHOUT_CONFIG)

    def _open(self, entry: SessionEntry, config: ContainerConfig | None) -> Session:
        giving_up: Deadline | None = None
        while True:
            try:
                return self._find(entry, config) or self._create(entry, config)
            except ContainerNotFound:  # another process closes it at the same time
                giving_up = giving_up or Deadline.after(_LOST_SECONDS)
                if giving_up.expired:
                    raise

    def _find(self, entry: SessionEntry, config: ContainerConfig | None) -> Session | None:
        record = self.container_manager.find_container(entry.user_id, entry.session_id, config)
        if record is None:
            return None
        session = self._connect(entry, record)
        self._bring_up(entry)
        return session

    def _create(self, entry: SessionEntry, config: ContainerConfig | None) -> Session:
        manager = self.container_manager
        wanted = config or (
            models.ContainerConfig(image=self.default_image) if self.default_image else models.ContainerConfig()
        )
        entry.record = None
        try:
            container_id, _ = manager.create_container(entry.user_id, entry.session_id, wanted)
        except SessionConflict as exc:
            if config is not None:
                raise
            # another process has just created it, in another way than by default: any will do
            if session := self._find(entry, config):
                return session
            raise ContainerNotFound("another process created the session's container and closed it again") from exc
        entry.record = record = manager.containers[container_id]
        manager.start_container(container_id, record.config)
        session = self._connect(entry, record)
        session.status = ContainerStatus.RUNNING
        if not record.was_found:  # else another process has just created it
            notify(self.event_handler.on_session_created, session)
        return session

    def _undo_creation(self, entry: SessionEntry) -> None:
        """Remove the new container of a session that its caller never gets."""
        made = entry.record.id if entry.record and not entry.record.was_found else None
        self.container_manager.undo_creation(entry.user_id, entry.session_id, made)

    def _connect(self, entry: SessionEntry, record: ContainerRecord) -> Session:
        """Make the session object of a container."""
        entry.record = record
        entry.session = models.Session(
            user_id=entry.user_id,
            session_id=entry.session_id,
            container_id=record.id,
            container_name=record.name,
            config=record.config.checked_copy(),
            created_at=record.created_at,
            data_dir=self.container_manager.get_data_dir(entry.user_id, entry.session_id),
            session_inactivity_timeout_seconds=record.config.session_inactivity_timeout_seconds,
        )
        return entry.session

    # --- recovery -----------------------------------------------------------------------------------

    def _bring_up(self, entry: SessionEntry, deadline: Deadline = NEVER) -> str:
        """Start or recreate the session's container and return its id. Needs the lock."""
        session, record = entry.session, entry.record
        assert session is not None
        assert record is not None
        remedy = Remedy.RECREATE
        if session.container_id is not None and session.status is not ContainerStatus.ERROR:
            remedy = remedy_for(self._restarts.look_settled(session.container_id, deadline=deadline))
        if remedy is Remedy.REFUSE:
            raise paused(record.name)
        if remedy in (Remedy.START, Remedy.RESTART):
            try:
                self.container_manager.start_container(record.id, record.config, deadline=deadline)
            except ContainerNotFound:  # another process removes it at the same time
                remedy = Remedy.RECREATE
        if remedy is Remedy.NONE and not self.container_manager.has_workspace(record.id):
            self.container_manager.remount_workspace(record.id, deadline=deadline)
        if remedy is Remedy.RECREATE:
            record = self._recreate(entry, session, record, deadline)
        session.status = ContainerStatus.RUNNING
        return record.id

    def _recreate(
        self, entry: SessionEntry, session: Session, record: ContainerRecord, deadline: Deadline
    ) -> ContainerRecord:
        _logger.info("recreating container %s", record.name)
        session.status, session.container_id = ContainerStatus.ERROR, None  # until the new one runs
        manager = self.container_manager
        try:
            entry.record = record = manager.recreate_container(record, deadline=deadline)
            manager.start_container(record.id, record.config, deadline=deadline)
        except BaseException as exc:
            if not isinstance(exc, PodkitError):
                manager.undo_creation(entry.user_id, entry.session_id)
            raise
        session.container_id, session.container_name = record.id, record.name
        for key in FAILURE_KEYS:
            session.metadata.pop(key, None)
        return record

    def _use(self, entry: SessionEntry, action: Callable[[str], T], deadline: Deadline = NEVER) -> T:
        """Use the session's running container, bringing a lost one back.

        `action` is repeated only where it raised before it sent anything.
        """
        giving_up: Deadline | None = None
        ends: set[datetime | None] = set()  # when what ended by itself had been started
        with entry.using():
            while True:
                container_id = self._ready_container(entry, deadline, lost=giving_up is not None)
                try:
                    return action(container_id)
                except (ContainerNotFound, ContainerNotRunning) as exc:
                    giving_up = giving_up or deadline.at_most(_LOST_SECONDS)
                    if deadline.expired:
                        raise
                    info = self._restarts.look_for_end(container_id, deadline=deadline)
                    if info is not None and ended_by_itself(info):
                        ends.add(info.started_at)
                    if giving_up.expired or len(ends) > _FAILED_STARTS:
                        if info is None or info.exit_code is None:
                            raise
                        raise failed_to_start(self.container_manager.backend, info, deadline=deadline) from exc

    def _ready_container(self, entry: SessionEntry, deadline: Deadline, *, lost: bool) -> str:
        """Return the container's id. It is brought up first if marked ERROR or `lost`."""
        session = self._active(entry)
        container_id = session.container_id
        usable = container_id is not None and session.status is not ContainerStatus.ERROR and not lost
        if container_id is not None and usable and self.container_manager.has_workspace(container_id):
            return container_id
        with held(entry.lock, deadline, BUSY):
            self._active(entry)
            return self._bring_up(entry, deadline)

    def _active(self, entry: SessionEntry) -> Session:
        """Return the session and restart its idle clock. A closed one is never brought back."""
        session = entry.session
        if session is None:
            raise SessionNotFound(
                f"session {entry.session_id!r} of user {entry.user_id!r} was closed: open it with "
                "get_docker_session, or create_session"
            )
        session.last_active_at = utc_now()
        return session

    # --- using --------------------------------------------------------------------------------------

    def execute_command(
        self,
        user_id: str,
        session_id: str,
        command: CommandLike,
        working_dir: StrPath | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        *,
        user: str | None = None,
        input: str | bytes | None = None,
        max_output_bytes: int | None = None,
        on_stdout: TextCallback | None = None,
        on_stderr: TextCallback | None = None,
    ) -> ProcessResult:
        """Run a command in a session. Its container is started or recreated if needed.

        See `BaseContainerManager.execute_command` for the arguments from `command` on.

        Returns:
            The result, also after a non-zero exit or a timeout (exit code 124 and the output so far).

        Raises:
            InvalidInput: a value cannot be right.
            SessionNotFound: there is no such session, or it was closed.
            ContainerNotRunning: the container is paused.
            CommandInterrupted: the container or the engine ended under the command, which may have run.
            EngineError: the container could not be brought back.
        """
        request = CommandRequest.checked(
            command,
            working_dir=working_dir,
            environment=environment,
            timeout=timeout,
            user=user,
            input=input,
            max_output_bytes=max_output_bytes,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
        )
        deadline = latest(timeout)
        entry = self._require(user_id, session_id, deadline)
        return self._use(entry, lambda container_id: self.container_manager.run(container_id, request), deadline)

    def popen(
        self,
        user_id: str,
        session_id: str,
        command: CommandLike,
        working_dir: StrPath | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        *,
        user: str | None = None,
        max_output_bytes: int | None = None,
    ) -> Command:
        """Start a command in a session and return it running. The container is brought back if needed.

        See `BaseContainerManager.execute_command` for the arguments from `command` on.

        Raises:
            NotSupported: commands go through the engine's exec there.
            EngineTimeout: nothing was heard of the command in time; it was killed as far as that was possible.
            PodkitError: as `execute_command` does.
        """
        request = CommandRequest.checked(
            command,
            working_dir=working_dir,
            environment=environment,
            timeout=timeout,
            user=user,
            input=b"",
            max_output_bytes=max_output_bytes,
        )
        deadline = latest(timeout)
        entry = self._require(user_id, session_id, deadline)
        manager = self.container_manager
        return unless_interrupted(
            lambda prepared: self._use(entry, lambda id: manager.open(id, request, prepared), deadline)
        )

    def in_container(self, user_id: str, session_id: str, action: Callable[[str], T], deadline: Deadline = NEVER) -> T:
        """Call `action` with the id of the session's running container. It is brought back if needed.

        `action` is repeated where it raised `ContainerNotFound` or `ContainerNotRunning`, which must mean that it did
        nothing. `deadline` is for bringing it back; it is not passed on.

        Raises:
            InvalidInput: an id cannot be right.
            SessionNotFound: there is no such session, or it was closed.
            ContainerNotRunning: the container is paused, or was lost again and again.
            EngineError: it could not be brought back.
        """
        return self._use(self._require(user_id, session_id, deadline), action, deadline)

    def write_file(self, user_id: str, session_id: str, container_path: str | PurePath, content: str | bytes) -> Path:
        """Write a session's file in one step and return its path inside.

        A relative path lands under `/workspace`; missing directories are made. See `SessionFiles.write_bytes`.

        Raises:
            InvalidInput: a value cannot be right.
            FileError: it cannot be written; a more exact class where one fits.
            CommandInterrupted: the container or the engine ended meanwhile; it may have been written.
            PodkitError: as `in_container` does.
        """
        resolve_file_path(container_path)  # refuses before any engine call
        data = check_content(content, "content")
        manager = self.container_manager
        return self.in_container(
            user_id, session_id, lambda id: manager.write_file(id, container_path, data, user_id, session_id)
        )

    def read_bytes(self, user_id: str, session_id: str, container_path: str | PurePath) -> bytes:
        """Read a session's regular file of at most 256 MiB. Raises as `read_file`, except `NotText`."""
        resolve_container_path(container_path)  # refuses before any engine call
        manager = self.container_manager
        return self.in_container(
            user_id, session_id, lambda id: manager.read_file(id, container_path, user_id, session_id)
        )

    def read_file(self, user_id: str, session_id: str, container_path: str | PurePath) -> str:
        """Read a session's text file of at most 256 MiB.

        Raises:
            InvalidInput: a value cannot be right.
            FileMissing: there is no such file.
            NotText: its bytes are not UTF-8.
            FileError: it cannot be read; a more exact class where one fits.
            CommandInterrupted: the container or the engine ended meanwhile.
            PodkitError: as `in_container` does.
        """
        data = self.read_bytes(user_id, session_id, container_path)
        return as_text(data, resolve_container_path(container_path))

    def get_isolation(self, user_id: str, session_id: str) -> Isolation:
        """Return what holds a session in. Its container is started or recreated if needed.

        Raises:
            SessionNotFound: there is no such session, or it was closed.
            EngineError: the container could not be brought back.
        """
        return self._use(self._require(user_id, session_id), self.container_manager.get_isolation)

    def update_session_activity(self, user_id: str, session_id: str) -> None:
        """Move the session's idle clock to now.

        Raises:
            SessionNotFound: there is no such session.
        """
        self._active(self._require(user_id, session_id))

    # --- ending -------------------------------------------------------------------------------------

    def close_session(self, user_id: str, session_id: str, *, remove_workspace: bool = False) -> None:
        """Remove the session's container. Twice is harmless.

        Commands that run in it are killed; their callers get `CommandInterrupted`.

        Args:
            user_id: whose session.
            session_id: which one.
            remove_workspace: remove the workspace with its files as well, also of a session that was closed before; by
                default it stays. In a volume it is removed through the container, so only while there is one. What a
                configuration mounts is never removed.

        Raises:
            InvalidInput: an id cannot be right.
            FileError: the workspace could not be removed; the container was.
            EngineError: the engine refused; `NameTaken` where the container's name is something else's, which stays.
        """
        with self._table.locked(user_id, session_id) as entry:
            try:
                session = self.get_session(user_id, session_id)
            except (SessionConflict, InvalidInput):
                # it has a workspace of another manager's, or another version of podkit made it: this manager cannot
                # use it, but its identity is proven
                self.container_manager.remove_session_container(user_id, session_id)
                return
            if session is None or entry.record is None:
                if remove_workspace:
                    self.container_manager.remove_workspace(user_id, session_id)
                return
            notify(self.event_handler.on_session_closing, session)
            failed = self._empty_workspace(entry) if remove_workspace else None
            self.container_manager.remove_container(entry.record.id)
            entry.session = None  # whoever waits for the lock finds it closed
            if remove_workspace and not failed:
                try:
                    self.container_manager.remove_workspace(user_id, session_id)
                except FileError as exc:
                    failed = exc
        session.status, session.container_id = ContainerStatus.STOPPED, None
        notify(self.event_handler.on_session_closed, session)
        if failed:
            raise failed

    def _empty_workspace(self, entry: SessionEntry) -> PodkitError | None:
        """Let the container remove files that this process cannot.

        Returns:
            Why it could not: the container goes all the same.
        """
        if self.container_manager.get_data_dir(entry.user_id, entry.session_id) is not None and os.geteuid() == 0:
            return None
        try:
            self._use(entry, self.container_manager.empty_workspace)
        except PodkitError as exc:
            return exc
        return None

    def cleanup_expired_sessions(self) -> list[Session]:
        """Close and return this manager's expired sessions.

        A session with a running command or background process is not idle, whichever podkit has started it. One that
        cannot be closed is logged and tried again the next time.
        """
        closed = []
        for entry in self._table.entries():
            with tried(entry.lock) as locked:
                session = entry.session
                if not locked or session is None:  # it is being made, recovered or closed: so it is not idle
                    continue
                try:
                    if session.is_expired() or entry.was_busy:
                        entry.was_busy = self._busy(entry)
                    if entry.was_busy:
                        session.last_active_at = utc_now()
                    elif session.is_expired():
                        notify(self.event_handler.on_session_expired, session)
                        self.close_session(entry.user_id, entry.session_id)
                        closed.append(session)
                except PodkitError as exc:  # the others expire all the same
                    _logger.warning("session %r could not be closed: %s", entry.session_id, exc)
        return closed

    def _busy(self, entry: SessionEntry) -> bool:
        container_id = entry.session.container_id if entry.session else None
        return entry.in_use or (container_id is not None and self.container_manager.is_busy(container_id))

    def cleanup_all(self) -> None:
        """Stop the health monitor and close every session. Twice is harmless.

        Goes on after an error and raises the first one at the end.
        """
        if self.health_monitor is not None:
            self.health_monitor.stop()
        errors: list[PodkitError] = []
        for session in self.list_sessions():
            try:
                self.close_session(session.user_id, session.session_id)
            except PodkitError as exc:
                errors.append(exc)
        self.container_manager.cleanup_all()
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Stop the health monitor and close connections. The sessions live on. Twice is harmless."""
        if self.health_monitor is not None:
            self.health_monitor.stop()
        self.container_manager.close()

    # --- asked by the health monitor ----------------------------------------------------------------

    def restart_container(self, container_id: str) -> None:
        """Start a container stopped from outside, unless its session was closed or recovered."""
        entry = self._table.serving(container_id)
        if entry is None:
            return
        with entry.lock:
            if entry.session is not None and entry.session.container_id == container_id:
                self._bring_up(entry)

    def mark_failed(self, container_id: str, log: str) -> bool:
        """Mark a broken or missing container's session `ERROR`. Its next command recreates it.

        Args:
            container_id: the engine's full id.
            log: the last lines that the container wrote.

        Returns:
            Whether it was marked; not where the container was brought back meanwhile, or serves no session.
        """
        entry = self._table.serving(container_id)
        if entry is None:
            return False
        with entry.lock:
            session = entry.session
            if session is None or session.container_id != container_id:
                return False
            info = self._restarts.look_settled(container_id)  # again, now that no recovery is under way
            if remedy_for(info) not in (Remedy.RESTART, Remedy.RECREATE):
                return False
            session.metadata["failure_status"] = str(info.status) if info else "gone"
            session.metadata["failure_reason"] = reason(info)
            session.metadata["failure_log"] = log
            session.status, session.container_id = ContainerStatus.ERROR, None
        _logger.warning("session %r of user %r failed: %s", session.session_id, session.user_id, reason(info))
        return True
