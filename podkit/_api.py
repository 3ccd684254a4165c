"""The one-line interface: sessions on the engine that the environment names."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from types import TracebackType
from typing import TYPE_CHECKING, Self

from podkit.agent.commands import CommandRequest, TextCallback
from podkit.backends._registry import default_backend
from podkit.backends.base import Backend
from podkit.core import _checks, _late
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput, SessionNotFound
from podkit.utils.paths import resolve_file_path

if TYPE_CHECKING:
    from podkit.core.command import Command
    from podkit.core.files import SessionFiles
    from podkit.core.isolation import Isolation
    from podkit.core.models import ContainerConfig, ProcessResult, Session
    from podkit.core.secret import Secret
    from podkit.processes.manager import ProcessManager

DEFAULT_PREFIX = "podkit"
_LONGEST_RUN_SECONDS = 86_400  # of `run_in_docker` without a timeout
_RUN_GRACE_SECONDS = 60  # for writing files before it and cleaning up after it

PathLike = str | os.PathLike[str]

_lock = threading.Lock()  # guards _managers, and each session's _processes
_managers: dict[tuple[Backend, str, str | None, str | None], BaseSessionManager] = {}


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


class SessionProxy:
    """One session, to run commands in and to exchange files with. Made by `get_docker_session`.

    As a context manager it closes the session at the end, which removes the container. Safe to use from many threads.

    Attributes:
        user_id: whose session it is.
        session_id: which of the user's sessions.
    """

    def __init__(self, sessions: BaseSessionManager, user_id: str, session_id: str) -> None:
        self._sessions = sessions
        self.user_id = _checks.check_id(user_id, "user_id")
        self.session_id = _checks.check_id(session_id, "session_id")
        self._processes: ProcessManager | None = None

    @property
    def files(self) -> SessionFiles:
        """Its files, in the terms of `pathlib`."""
        from podkit.core.files import SessionFiles  # late: many programs only run commands

        return SessionFiles(self._sessions, self.user_id, self.session_id)

    @property
    def processes(self) -> ProcessManager:
        """Its background processes."""
        from podkit.processes.manager import ProcessManager  # late: see `files`

        with _lock:
            if self._processes is None:
                self._processes = ProcessManager.of_session(self._sessions, self.user_id, self.session_id)
            return self._processes

    def execute_command(
        self,
        command: str | Sequence[str],
        working_dir: str | None = None,
        environment: Mapping[str, str | Secret] | None = None,
        timeout: float | None = None,
        *,
        user: str | None = None,
        input: str | bytes | None = None,
        max_output_bytes: int | None = None,
        on_stdout: TextCallback | None = None,
        on_stderr: TextCallback | None = None,
    ) -> ProcessResult:
        """Run a command and wait for its end; the container is started or recreated first where that is needed.

        Args:
            command: a `str` is run by `sh -c`, a list as it is.
            working_dir: absolute; by default the container's, `/workspace`.
            environment: added to the container's; a value may be a `Secret`.
            timeout: seconds after which the command is killed; `None` for no limit.
            user: who runs it; by default the container's user. Another one may lack rights, such as to write in
                `/workspace`: set `user` in the configuration for a session that is not root's.
            input: what it reads; by default nothing.
            max_output_bytes: how much of each stream is kept, 10 MiB by default; the rest is read and dropped.
            on_stdout: called with each piece of text as it comes, in this thread, also beyond `max_output_bytes`.
                What it raises ends the command. While it runs nothing is late: keep it short.
            on_stderr: the same for the error stream.

        Returns:
            The result, also after a non-zero exit or a timeout (exit code 124 and the output so far).

        Raises:
            InvalidInput: a value cannot be right, or the container has no such user or directory; nothing was run.
            SessionNotFound: the session was closed.
            ContainerNotRunning: the container is paused.
            ContainerFailedToStart: the container could not be brought back: it does not stay up.
            EngineError: the engine refused to bring it back, or does not answer; a more exact class where one fits.
            ContainerError: no process could be made for the command; see `pids_limit` and `memory_limit`.
            AgentUnavailable: there is a `Secret` to be given, and commands go through the engine's exec there.
            CommandInterrupted: the container or the engine ended under the command, which may have run; it is never
                sent twice.
        """
        return self._sessions.execute_command(
            self.user_id,
            self.session_id,
            command,
            working_dir,
            environment,
            timeout,
            user=user,
            input=input,
            max_output_bytes=max_output_bytes,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
        )

    def popen(
        self,
        command: str | Sequence[str],
        working_dir: str | None = None,
        environment: Mapping[str, str | Secret] | None = None,
        timeout: float | None = None,
        *,
        user: str | None = None,
        max_output_bytes: int | None = None,
    ) -> Command:
        """Start a command and give it while it runs: read its output as it comes, write to it, signal it, end it.

        The arguments are those of `execute_command`. Use it as a context manager: what still runs at the end of the
        block is killed.

        Raises:
            AgentUnavailable: commands go through the engine's exec in this container.
            EngineTimeout: nothing was heard of the command in time; it was killed as far as that was possible.
            PodkitError: as `execute_command` does.
        """
        return self._sessions.popen(
            self.user_id,
            self.session_id,
            command,
            working_dir,
            environment,
            timeout,
            user=user,
            max_output_bytes=max_output_bytes,
        )

    def write_file(self, path: str | PurePath, content: str | bytes) -> Path:
        """Write a file in one step and give its absolute path inside; a relative path lands under `/workspace`.

        Missing directories are made. Stricter than `files.write_bytes`: no symlink is written through, and none on the
        way may leave the workspace or the mount that the path lies in.

        Raises:
            PathEscape: a `..` or a symlink leaves that, or the file is a symlink.
            IsADirectory: a directory is there, or the path ends in `/`.
            FileError: it cannot be written; a more exact class where one fits.
            InvalidInput: the path or the content cannot be right.
            PodkitError: as `execute_command` does.
        """
        return self._sessions.write_file(self.user_id, self.session_id, path, content)

    def read_file(self, path: str | PurePath) -> str:
        """Read a UTF-8 file of at most 256 MiB; for other bytes, and larger files, there is `files.read_bytes`.

        Symlinks are followed as long as they stay in the workspace or the mount that the path lies in.

        Raises:
            FileMissing: there is no such file.
            NotText: its bytes are not UTF-8.
            PathEscape: a `..` or a symlink leaves that.
            FileError: it cannot be read; a more exact class where one fits.
            InvalidInput: the path cannot be right.
            PodkitError: as `execute_command` does.
        """
        return self._sessions.read_file(self.user_id, self.session_id, path)

    def get_info(self) -> Session:
        """Give the session: container, status, configuration, workspace, times. The live object, not a copy.

        Raises:
            SessionNotFound: the session was closed.
        """
        session = self._sessions.get_session(self.user_id, self.session_id)
        if session is None:
            raise SessionNotFound(
                f"session {self.session_id!r} of user {self.user_id!r} was closed: open it with get_docker_session"
            )
        return session

    def get_accessible_ports(self) -> dict[int, int]:
        """Give the published TCP ports: container port -> host port.

        Raises:
            SessionNotFound: the session was closed.
            ContainerNotFound: the container is gone; the next command recreates it.
            EngineError: the engine cannot be asked.
        """
        container_id = self.get_info().container_id
        return self._sessions.container_manager.backend.get_accessible_ports(container_id) if container_id else {}

    @property
    def isolation(self) -> Isolation:
        """What is really enforced on the container: asked of the engine at each access, so keep what you get.

        The container is brought back first where that is needed.

        Raises:
            SessionNotFound: the session was closed.
            ContainerNotRunning: the container is paused.
            ContainerFailedToStart: the container could not be brought back: it does not stay up.
            EngineError: the engine refused to bring it back, or cannot be asked.
        """
        return self._sessions.get_isolation(self.user_id, self.session_id)

    def close(self, *, remove_workspace: bool = False) -> None:
        """Remove the container; the workspace stays unless `remove_workspace` is set. Twice is harmless.

        Raises:
            FileError: the workspace could not be removed; the container was.
            EngineError: the engine refused or does not answer.
        """
        self._sessions.close_session(self.user_id, self.session_id, remove_workspace=remove_workspace)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SessionProxy(user_id={self.user_id!r}, session_id={self.session_id!r})"


def _session_manager(workspace: PathLike | None, workspace_host: PathLike | None) -> BaseSessionManager:
    """Give the session manager that all calls of this process with the same workspace share."""
    if workspace is None and workspace_host is not None:
        raise InvalidInput(f"workspace_host={workspace_host!r} without workspace: name both, or none")
    base = None if workspace is None else _checks.check_path_text(workspace, "workspace")
    if base and not base.startswith("/"):
        base = f"{os.getcwd()}/{base}"  # it means what it means now, whatever directory this process goes to
    base = base and _checks.check_absolute_path(base, "workspace")
    host = (
        None
        if workspace_host is None
        else _checks.check_absolute_path(workspace_host, "workspace_host", example="/on/the/host")
    )
    prefix = _checks.check_prefix(
        os.environ.get("PODKIT_CONTAINER_PREFIX") or DEFAULT_PREFIX, "PODKIT_CONTAINER_PREFIX"
    )
    backend = default_backend()
    with _lock:
        key = backend, prefix, base, host
        if key not in _managers:
            _managers[key] = BaseSessionManager(SimpleContainerManager(backend, prefix, base, host))
        return _managers[key]


def reset_lifecycle_cache() -> None:
    """Forget the container managers that this process keeps; no container is removed, and the next call finds them."""
    with _lock:
        _managers.clear()


def get_docker_session(
    user_id: str,
    session_id: str,
    config: ContainerConfig | None = None,
    workspace: PathLike | None = None,
    workspace_host: PathLike | None = None,
) -> SessionProxy:
    """Create a session with a running container, or reconnect to the one that exists, running or exited.

    Finds it whichever process created it. Blocks while the container is made, and while its image is pulled. The
    container stops by itself after its lifetime; `close()` removes it.

    Args:
        user_id: any text of 1 to 1,024 bytes.
        session_id: the same.
        config: what to make the container of; `None` takes what exists, else the defaults.
        workspace: a directory in which podkit makes one for each session, mounted on `/workspace`; by default nothing
            of the host is mounted.
        workspace_host: the same directory as the engine sees it, where that differs and podkit cannot find it out.

    Raises:
        InvalidInput: a value cannot be right.
        SessionConflict: the session exists with another configuration or workspace.
        EngineUnavailable: no Docker engine answers; the message says what was tried.
        ContainerFailedToStart: the container did not stay up.
        ContainerNotRunning: the session exists, and somebody has paused its container.
        FileError: the workspace cannot be made; a more exact class where one fits.
        EngineError: the engine refused; a more exact class where one fits.
    """
    _checks.check_id(user_id, "user_id")
    _checks.check_id(session_id, "session_id")
    if config is not None:
        config = _late.check_config(config).checked_copy()
    sessions = _session_manager(workspace, workspace_host)
    sessions.create_session(user_id, session_id, config)
    return SessionProxy(sessions, user_id, session_id)


def _session_for_one_run(image: str | None, command_timeout: float | None) -> SessionProxy:
    """Open a session whose lifetime ends the container of a caller that was killed, and cuts no command short."""
    id = os.urandom(16).hex()
    config = _late.ContainerConfig() if image is None else _late.ContainerConfig(image=image)
    session = get_docker_session("run_in_docker", id, config)
    try:
        if session.isolation.commands == "agent":
            return session
    except BaseException:
        session.close()
        raise
    session.close()  # without the agent, a running command does not extend the lifetime
    config.container_lifetime_seconds = math.ceil(command_timeout or _LONGEST_RUN_SECONDS) + _RUN_GRACE_SECONDS
    return get_docker_session("run_in_docker", id, config)


def run_in_docker(
    command: str | Sequence[str],
    image: str | None = None,
    files: Mapping[str, str | bytes] | None = None,
    environment: Mapping[str, str | Secret] | None = None,
    working_dir: str | None = None,
    command_timeout: float | None = None,
) -> ProcessResult:
    """Run one command in a container of its own, which is removed afterwards.

    Args:
        command: a `str` is run by `sh -c`, a list as it is.
        image: by default that of `ContainerConfig`.
        files: what to write first: path -> content; relative paths land under `/workspace`.
        environment: variables of the command; a value may be a `Secret`.
        working_dir: absolute; by default `/workspace`.
        command_timeout: seconds after which the command is killed; `None` for no limit.

    Raises:
        InvalidInput: a value cannot be right; nothing was made. Or the image has no such user or directory.
        FileError: one of the files cannot be written.
        ContainerError: no process could be made for the command, or the container did not stay up; a more exact class
            where one fits.
        CommandInterrupted: the container or the engine ended under the command, which may have run.
        EngineError: the engine refused; a more exact class where one fits.
    """
    CommandRequest.checked(command, working_dir=working_dir, environment=environment, timeout=command_timeout)
    if files is not None and not isinstance(files, Mapping):
        raise InvalidInput(f"files is a {type(files).__name__}: pass a dict of paths and contents")
    for path, content in (files or {}).items():
        resolve_file_path(path)
        _checks.check_content(content, f"files[{path!r}]")
    with _session_for_one_run(image, command_timeout) as session:
        for path, content in (files or {}).items():
            session.write_file(path, content)
        return session.execute_command(command, working_dir, environment, command_timeout)
