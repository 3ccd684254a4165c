"""Session managers (layer 3): who has which container, idle, expired, broken."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, TypeVar

from podkit._models import lazy as models
from podkit._models.container_status import ContainerStatus
from podkit.agent.command_output import TextCallback
from podkit.agent.command_request import CommandRequest
from podkit.agent.runner import latest
from podkit.backends.base import Deadline
from podkit.core._file_info import as_text
from podkit.core._health_protocols import HealthMonitor
from podkit.core._session_entry import SessionEntry
from podkit.core._session_expiry import close_expired
from podkit.core._session_table import SessionTable
from podkit.core.command import Command, unless_interrupted
from podkit.core.events import PodkitEventHandler, checked_handler, notify
from podkit.core.isolation import Isolation
from podkit.core.manager import BaseContainerManager
from podkit.errors import FileError, InvalidInput, PodkitError, SessionConflict, SessionNotFound
from podkit.utils._checks import CommandLike, StrPath, check_content
from podkit.utils._deadline import NEVER
from podkit.utils.paths import resolve_container_path, resolve_file_path

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig, ProcessResult, Session

__all__ = ["BaseSessionManager"]

T = TypeVar("T")


class BaseSessionManager:
    """Sessions over one container manager.

    Safe to use from many threads: a session is made, recovered or closed by one of them at a time, commands run side
    by side. A second manager over the same prefix, in this process or another, finds the sessions that live.

    Args:
        container_manager: makes the containers.
        default_image: the image of sessions that are created without a configuration.
        health_monitor: told of this manager and started.
        event_handler: called for each event of a session; pass it to the container manager too for those of
            containers.
    """

    def __init__(
        self,
        container_manager: BaseContainerManager,
        default_image: str | None = None,
        health_monitor: HealthMonitor | None = None,
        event_handler: PodkitEventHandler | None = None,
    ) -> None:
        self._container_manager = container_manager
        self.default_image = default_image
        self.health_monitor = health_monitor
        self.event_handler = checked_handler(event_handler)
        self._table = SessionTable(container_manager)
        if health_monitor is not None:
            health_monitor.register(self)
            health_monitor.start()

    @property
    def container_manager(self) -> BaseContainerManager:
        """Makes the containers. The same one as long as this manager lives."""
        return self._container_manager

    # --- making and finding -------------------------------------------------------------------------

    def create_session(self, user_id: str, session_id: str, config: ContainerConfig | None = None) -> Session:
        """Create a session with a running container, or reconnect to it.

        Blocks while the container is made, and while its image is pulled. Safe to repeat, and to call from many
        threads and processes at once: all get the same container.

        Args:
            user_id: any text of 1 to 1,024 bytes.
            session_id: the same.
            config: of the container. `None` reconnects to any existing one, else uses the defaults.

        Raises:
            InvalidInput: a value cannot be right.
            SessionConflict: it exists with another configuration than `config`.
            ContainerFailedToStart: the container did not stay up; nothing of it stays behind.
            EngineError: the engine refused; a more exact class where one fits.
        """
        wanted = None if config is None else models.check_config(config).checked_copy()
        with self._table.locked(user_id, session_id) as entry:
            if entry.session is not None:
                return entry.open_again(wanted)
            try:
                session = entry.open(wanted, self.default_image)
                if entry.is_new:
                    notify(self.event_handler.on_session_created, session)
                return session
            except BaseException as exc:
                if not isinstance(exc, PodkitError):  # such as of a signal's handler, which may come at any moment
                    entry.undo()
                entry.session = None
                if isinstance(exc, Exception):
                    notify(self.event_handler.on_session_creation_failed, user_id, session_id, exc)
                raise

    def get_session(self, user_id: str, session_id: str) -> Session | None:
        """Return the live session object, looked up on the engine if unknown. `None` without one.

        A session that is known costs no engine call, and its container is not looked at.
        """
        with self._table.locked(user_id, session_id) as entry:
            return entry.find()

    def list_sessions(self) -> list[Session]:
        """Return this manager's sessions. No engine call."""
        return [entry.session for entry in self._table.entries() if entry.session is not None]

    def _require(self, user_id: str, session_id: str, deadline: Deadline = NEVER) -> SessionEntry:
        with self._table.locked(user_id, session_id, deadline=deadline) as entry:
            if entry.find(deadline) is None:
                raise SessionNotFound(
                    f"user {user_id!r} has no session {session_id!r}, or it was closed: open it with "
                    "get_docker_session, or create_session"
                )
            return entry

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
        return self.run_checked(user_id, session_id, request)

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
        return self.popen_checked(user_id, session_id, request)

    def run_checked(self, user_id: str, session_id: str, request: CommandRequest) -> ProcessResult:
        """Run a command that has been checked; see `execute_command`."""
        manager = self.container_manager
        return self.in_container(
            user_id, session_id, lambda container_id: manager.run(container_id, request), latest(request.timeout)
        )

    def popen_checked(self, user_id: str, session_id: str, request: CommandRequest) -> Command:
        """Start a command that has been checked; see `popen`."""
        manager, deadline = self.container_manager, latest(request.timeout)

        def start(prepared: list[Command]) -> Command:
            return self.in_container(user_id, session_id, lambda id: manager.open(id, request, prepared), deadline)

        return unless_interrupted(start)

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
        return self._require(user_id, session_id, deadline).use(action, deadline)

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
        """Return a session's isolation. Its container is started or recreated if needed.

        Raises:
            SessionNotFound: there is no such session, or it was closed.
            EngineError: the container could not be brought back.
        """
        return self.in_container(user_id, session_id, self.container_manager.get_isolation)

    def update_session_activity(self, user_id: str, session_id: str) -> None:
        """Move the session's idle clock to now.

        Raises:
            SessionNotFound: there is no such session.
        """
        self._require(user_id, session_id).active()

    # --- ending -------------------------------------------------------------------------------------

    def close_session(self, user_id: str, session_id: str, *, remove_workspace: bool = False) -> None:
        """Remove the session's container. Twice is harmless.

        Commands that run in it are killed; their callers get `CommandInterrupted`.

        Args:
            user_id: whose session.
            session_id: which one.
            remove_workspace: remove the workspace with its files as well, also of a session that was closed before; by
                default it stays. In a volume it is removed through the container, so only while there is one. Other
                mounts are never removed.

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
            # open -> closing, under the lock: no recovery can bring the container back now
            notify(self.event_handler.on_session_closing, session)
            failed = self._empty_workspace(entry) if remove_workspace else None
            self.container_manager.remove_container(entry.record.id)
            entry.session = None  # a thread waiting for the lock finds it closed
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
            entry.use(self.container_manager.empty_workspace)
        except PodkitError as exc:
            return exc
        return None

    def cleanup_expired_sessions(self) -> list[Session]:
        """Close and return this manager's expired sessions.

        A session with a running command or background process is not idle, whichever podkit has started it. One that
        cannot be closed is logged and tried again the next time.
        """

        def close(entry: SessionEntry, session: Session) -> None:
            notify(self.event_handler.on_session_expired, session)
            self.close_session(entry.user_id, entry.session_id)  # the session's own ids are the caller's to change

        return close_expired(self._table.entries(), close)

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
            if entry.serves(container_id):
                entry.bring_up()

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
            return entry.serves(container_id) and entry.mark_failed(log)
