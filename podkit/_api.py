"""The one-line interface, on the environment's engine."""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path, PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Self

from podkit._models import lazy as models
from podkit.agent.command_output import TextCallback
from podkit.agent.command_request import CommandRequest
from podkit.backends._default_backend import close_backends, default_backend
from podkit.backends.base import Backend
from podkit.core.command import Command
from podkit.core.files import SessionFiles
from podkit.core.isolation import Isolation
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput, SessionNotFound
from podkit.processes.manager import ProcessManager
from podkit.utils import _checks
from podkit.utils._checks import CommandLike, StrPath
from podkit.utils.paths import resolve_container_path

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig, ProcessResult, Session

DEFAULT_PREFIX = "podkit"
_LONGEST_RUN_SECONDS = 86_400  # of `run_in_docker` without a timeout
_RUN_GRACE_SECONDS = 60  # for writing files before it and cleaning up after it
_RUN_IDLE_SECONDS = 10  # how long its container outlives a caller that was killed; a running command extends it

_lock = threading.Lock()  # guards _managers
_managers: dict[tuple[Backend, str, str | None, str | None], BaseSessionManager] = {}


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class SessionProxy:
    """One session: commands, files, processes. `get_docker_session` returns it.

    Make one yourself over a session manager of your own, such as one with a health monitor, once
    `sessions.create_session` has made the session.

    As a context manager it closes the session at the end, which removes the container. Safe to use from many threads.

    Args:
        sessions: the session manager that has the session.
        user_id: whose session it is.
        session_id: which of the user's sessions.

    Attributes:
        user_id: whose session it is.
        session_id: which of the user's sessions.
        files: its files, in the terms of `pathlib`.
        processes: its background processes.
    """

    def __init__(self, sessions: BaseSessionManager, user_id: str, session_id: str) -> None:
        self._sessions = sessions
        self.user_id = user_id
        self.session_id = session_id
        self.files = SessionFiles(sessions, user_id, session_id)
        self.processes = ProcessManager.of_session(sessions, user_id, session_id)

    def execute_command(
        self,
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
        """Run a command and wait for its end. The container is started or recreated if needed.

        Args:
            command: a `str` is run by `sh -c`, a list as it is.
            working_dir: absolute, or below the container's, `/workspace`, which is the default.
            environment: added to the container's.
            timeout: seconds after which the command is killed; `None` for no limit.
            user: who runs it; by default the container's user.
            input: its standard input; empty by default.
            max_output_bytes: how much of each stream is kept, 10 MiB by default; the rest is read and dropped.
            on_stdout: called with each piece of text as it comes, in this thread. An exception of it ends the command.
            on_stderr: the same for the error stream.

        Returns:
            The result, also after a non-zero exit or a timeout (exit code 124 and the output so far).

        Raises:
            InvalidInput: a value cannot be right.
            SessionNotFound: the session was closed.
            CommandInterrupted: the container or the engine ended under the command, which may have run; it is never
                sent twice.
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
        return self._run(request)

    def _run(self, request: CommandRequest) -> ProcessResult:
        return self._sessions.run_checked(self.user_id, self.session_id, request)

    def popen(
        self,
        command: CommandLike,
        working_dir: StrPath | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        *,
        user: str | None = None,
        max_output_bytes: int | None = None,
    ) -> Command:
        """Start a command and return it running, to be read, written to, signalled and ended.

        The arguments are those of `execute_command`. Use it as a context manager: it kills the command at the end of
        the block.

        Raises:
            NotSupported: commands go through the engine's exec in this container; `isolation` says why.
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
        return self._sessions.popen_checked(self.user_id, self.session_id, request)

    def write_file(self, path: str | PurePath, content: str | bytes) -> Path:
        """Write a file in one step and return its path inside. A relative path lies under `/workspace`."""
        return self._sessions.write_file(self.user_id, self.session_id, path, content)

    def read_file(self, path: str | PurePath) -> str:
        """Read a UTF-8 file of at most 256 MiB. For other bytes, use `files.read_bytes`."""
        return self._sessions.read_file(self.user_id, self.session_id, path)

    def get_info(self) -> Session:
        """Return the live session object: container, status, configuration, workspace, times.

        Raises:
            SessionNotFound: the session was closed.
        """
        session = self._sessions.get_session(self.user_id, self.session_id)
        if session is None:
            raise SessionNotFound(
                f"session {self.session_id!r} of user {self.user_id!r} was closed: open it with get_docker_session"
            )
        return session

    @property
    def isolation(self) -> Isolation:
        """The session's isolation. Asks the engine and the container each time.

        Raises:
            SessionNotFound: the session was closed.
            EngineError: the container could not be brought back.
        """
        return self._sessions.get_isolation(self.user_id, self.session_id)

    def get_accessible_ports(self) -> dict[int, int]:
        """Return the published TCP ports, container -> host.

        Raises:
            SessionNotFound: the session was closed.
            ContainerNotFound: the container is gone; the next command recreates it.
        """
        container_id = self.get_info().container_id
        return self._sessions.container_manager.backend.get_accessible_ports(container_id) if container_id else {}

    def close(self, *, remove_workspace: bool = False) -> None:
        """Remove the container. The workspace stays unless `remove_workspace` is set. Twice is harmless."""
        self._sessions.close_session(self.user_id, self.session_id, remove_workspace=remove_workspace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SessionProxy(user_id={self.user_id!r}, session_id={self.session_id!r})"


def _session_manager(workspace: StrPath | None, workspace_host: StrPath | None) -> BaseSessionManager:
    """Return this process's session manager for a workspace."""
    if workspace is None and workspace_host is not None:
        raise InvalidInput(f"workspace_host={workspace_host!r} without workspace: name both, or none")
    base = None if workspace is None else _absolute(_checks.check_path_text(workspace, "workspace"))
    host = None if workspace_host is None else _checks.check_absolute_path(workspace_host, "workspace_host")
    prefix = _checks.check_prefix(os.environ.get("PODKIT_CONTAINER_PREFIX") or DEFAULT_PREFIX)
    backend = default_backend()
    with _lock:
        key = backend, prefix, base, host
        if key not in _managers:
            _managers[key] = BaseSessionManager(SimpleContainerManager(backend, prefix, base, host))
        return _managers[key]


def _absolute(path: str) -> str:
    # only where it has to be: a symlink on the way is part of the name by which a session is found again
    return os.path.realpath(path) if ".." in Path(path).parts else path


def reset_lifecycle_cache() -> None:
    """Close and forget this process's managers and their connections.

    No container is removed: the next call finds them all. Running commands go on, and sessions that are still held can
    be used on.
    """
    with _lock:
        managers = list(_managers.values())
        _managers.clear()
    for sessions in managers:
        sessions.close()
    close_backends()


atexit.register(reset_lifecycle_cache)
logging.getLogger("podkit").addHandler(logging.NullHandler())  # else a program without logging gets warnings on stderr


def get_docker_session(
    user_id: str,
    session_id: str,
    config: ContainerConfig | None = None,
    workspace: StrPath | None = None,
    workspace_host: StrPath | None = None,
) -> SessionProxy:
    """Create a session with a running container, or reconnect to it.

    Finds it whichever process created it. Blocks while the container is made, and while its image is pulled. The
    container stops by itself after its lifetime; `close()` removes it.

    Args:
        user_id: any text of 1 to 1,024 bytes.
        session_id: the same.
        config: of the container; `None` takes the existing one, else the defaults.
        workspace: a directory in which podkit makes one for each session, mounted on `/workspace`; by default nothing
            of the host is mounted.
        workspace_host: the same directory as the engine sees it, where that differs and podkit cannot find it out.

    Raises:
        InvalidInput: a value cannot be right.
        SessionConflict: the session exists with another configuration or workspace.
        EngineUnavailable: no Docker engine answers; the message lists the addresses tried.
        ContainerFailedToStart: the container did not stay up.
        EngineError: the engine refused; a more exact class where one fits.
    """
    _checks.check_id(user_id, "user_id")
    _checks.check_id(session_id, "session_id")
    if config is not None:
        config = models.check_config(config).checked_copy()
    sessions = _session_manager(workspace, workspace_host)
    sessions.create_session(user_id, session_id, config)
    return SessionProxy(sessions, user_id, session_id)


def _session_for_one_run(config: ContainerConfig, command_timeout: float | None) -> SessionProxy:
    """Return a new session for one command. It ends soon after its caller was killed."""
    session_id = os.urandom(16).hex()
    config.container_lifetime_seconds = _RUN_IDLE_SECONDS
    session = get_docker_session("run_in_docker", session_id, config)
    try:
        if session.isolation.commands == "agent":
            return session
    except BaseException:
        session.close()
        raise
    session.close()  # without the agent, a running command does not extend the lifetime
    config.container_lifetime_seconds = math.ceil(command_timeout or _LONGEST_RUN_SECONDS) + _RUN_GRACE_SECONDS
    return get_docker_session("run_in_docker", session_id, config)


def run_in_docker(
    command: CommandLike,
    image: str | None = None,
    files: Mapping[str, str | bytes] | None = None,
    environment: Mapping[str, str] | None = None,
    working_dir: StrPath | None = None,
    command_timeout: float | None = None,
) -> ProcessResult:
    """Run one command in a container that is removed afterwards.

    Args:
        command: a `str` is run by `sh -c`, a list as it is.
        image: by default that of `ContainerConfig`.
        files: written first: path -> content; relative paths land under `/workspace`.
        environment: variables of the command.
        working_dir: absolute, made where it is missing; by default `/workspace`.
        command_timeout: seconds after which the command is killed; `None` for no limit.

    Raises:
        InvalidInput: a value cannot be right; nothing was made.
        EngineError: the engine refused; a more exact class where one fits.
    """
    _checks.check_timeout(command_timeout, "command_timeout")
    request = CommandRequest.checked(command, environment=environment, timeout=command_timeout)
    if files is not None and not isinstance(files, Mapping):
        raise InvalidInput(f"files is of type {type(files).__name__}: pass a dict of paths and contents")
    for path, content in (files or {}).items():
        resolve_container_path(path)
        _checks.check_content(content, f"files[{path!r}]")
    config = models.ContainerConfig() if image is None else models.ContainerConfig(image=image)
    if working_dir is not None:
        config.working_dir = _checks.check_absolute_path(working_dir, "working_dir")
    with _session_for_one_run(config, command_timeout) as session:
        for path, content in (files or {}).items():
            session.write_file(path, content)
        return session._run(request)
