"""Container managers (layer 2): identity, mounts, lifecycle, paths.

`SimpleContainerManager` is ready to use. For mounts of your own, subclass `BaseContainerManager` and write two methods.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from podkit._models import lazy as models
from podkit._models.identity import Identity
from podkit.agent.command_output import TextCallback
from podkit.agent.command_request import CommandRequest
from podkit.agent.files import ContainerFiles
from podkit.agent.processes import ContainerProcesses
from podkit.agent.runner import latest
from podkit.backends.base import Backend, Deadline
from podkit.core._container_lifecycle import ContainerLifecycle
from podkit.core._container_record import ContainerRecord
from podkit.core._mounts import mount_to_dict
from podkit.core.command import Command, unless_interrupted
from podkit.core.events import PodkitEventHandler
from podkit.errors import PathNotMapped
from podkit.utils._checks import CommandLike, StrPath, check_content
from podkit.utils._workspace_dirs import make_workspace
from podkit.utils.paths import (
    DEFAULT_WORKING_DIR,
    container_to_host_path,
    get_workspace_path,
    host_to_container_path,
    resolve_container_path,
    resolve_file_path,
)

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig, ProcessResult

__all__ = ["BaseContainerManager", "ContainerRecord", "SimpleContainerManager"]


class BaseContainerManager(ContainerLifecycle):
    """Makes, finds, runs and removes one prefix's containers.

    Safe to use from many threads; works from a forked child. Subclasses decide the mounts (`get_mounts`) and the way
    to write a file (`write_file`).

    Args:
        backend: the engine, connected.
        container_prefix: the beginning of all names and a label on all containers: two programs with different
            prefixes never see each other's sessions. At most 40 characters.
        workspace_base: where this process sees the workspaces; `None` for none.
        workspace_base_host: where the engine sees them. By default the same, or, where podkit runs in a container of
            this engine, taken from that container's mounts.
        event_handler: called for each event of a container.
    """

    @abstractmethod
    def write_file(
        self, container_id: str, container_path: str | PurePath, content: str | bytes, user_id: str, session_id: str
    ) -> Path:
        """Write a file and return its path inside. A relative `container_path` lies under `/workspace`.

        `podkit.utils.paths.write_to_mounted_path` does it safely for files mounted from the host.
        """

    # --- commands and files -------------------------------------------------------------------------

    def execute_command(
        self,
        container_id: str,
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
        """Run a command and wait for its end. It is never sent twice.

        Args:
            container_id: the engine's full id.
            command: a `str` is run by `sh -c`, a list as it is.
            working_dir: absolute, or below the container's, which is the default.
            environment: added to the container's.
            timeout: seconds after which the command is killed; `None` for no limit. The call ends at most 2 s later.
            user: who runs it; by default the container's user.
            input: its standard input; empty by default.
            max_output_bytes: how much of each stream is kept, 10 MiB by default; the rest is read and dropped.
            on_stdout: called with each piece of text as it comes, in this thread. An exception of it ends the command.
            on_stderr: the same for the error stream.

        Returns:
            The result, also after a non-zero exit or a timeout (exit code 124 and the output so far).

        Raises:
            InvalidInput: a value cannot be right.
            ContainerNotFound: it was gone before the command was sent.
            ContainerNotRunning: it was stopped or paused before the command was sent.
            CommandInterrupted: the container or the engine ended under the command, which may have run.
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
        return self.run(container_id, request)

    def popen(
        self,
        container_id: str,
        command: CommandLike,
        working_dir: StrPath | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        *,
        user: str | None = None,
        max_output_bytes: int | None = None,
    ) -> Command:
        """Start a command and return it running. See `execute_command` for the arguments.

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
        return unless_interrupted(lambda prepared: self.open(container_id, request, prepared))

    def open(self, container_id: str, request: CommandRequest, prepared: list[Command]) -> Command:
        """Start a command that has been checked; see `popen`. `prepared` has it before anything of it is sent."""
        deadline = latest(request.timeout)
        execution = self._runner.prepare(container_id, request, deadline)
        command = Command(execution)
        prepared.append(command)
        execution.start(deadline)
        return command

    def run(self, container_id: str, request: CommandRequest) -> ProcessResult:
        """Run a command that has been checked; see `execute_command`."""
        return self._runner.run(container_id, request).to_result(request.timeout)

    @property
    def files(self) -> ContainerFiles:
        """Its containers' files, as seen from inside."""
        return self._files

    @property
    def processes(self) -> ContainerProcesses:
        """Its containers' background processes. `podkit.processes.ProcessManager` stands on it."""
        return self._processes

    def read_file(self, container_id: str, container_path: str | PurePath, user_id: str, session_id: str) -> bytes:
        """Read a regular file of at most 256 MiB, as a command would.

        A relative path lies under `/workspace`; symlinks are followed.

        Raises:
            InvalidInput: the path cannot be right.
            FileMissing: there is no such file.
            FileError: it cannot be read; a more exact class where one fits.
            ContainerError: the container is gone, stopped or paused.
            CommandInterrupted: the container or the engine ended meanwhile.
        """
        return self._files.read(container_id, resolve_container_path(container_path))

    # --- paths --------------------------------------------------------------------------------------

    def to_host_path(self, container_path: str | PurePath, user_id: str, session_id: str) -> Path:
        """Translate a path in `/workspace` to the host's. Pure: looks at no file.

        Raises:
            PathNotMapped: the path is elsewhere, or there is no workspace.
        """
        return container_to_host_path(container_path, DEFAULT_WORKING_DIR, self._require_data_dir(user_id, session_id))

    def to_container_path(self, host_path: StrPath, user_id: str, session_id: str) -> Path:
        """Translate a host path in the workspace to the one inside. Pure: looks at no file.

        Raises:
            PathNotMapped: the path is elsewhere, or there is no workspace.
        """
        return host_to_container_path(host_path, DEFAULT_WORKING_DIR, self._require_data_dir(user_id, session_id))

    def _require_data_dir(self, user_id: str, session_id: str) -> Path:
        if directory := self.get_data_dir(user_id, session_id):
            return directory
        raise PathNotMapped("no workspace of the host is mounted: pass a workspace_base to the container manager")


class SimpleContainerManager(BaseContainerManager):
    """The ready container manager: session workspaces and configured volumes.

    The workspace is `{workspace_base}/workspaces/{user}/{session}`, mounted on `/workspace`, and outlives the
    container. Without `workspace_base` and `volume_name`, `/workspace` is a directory of the container's own.

    Args:
        backend: see `BaseContainerManager`.
        container_prefix: see `BaseContainerManager`.
        workspace_base: see `BaseContainerManager`.
        workspace_base_host: see `BaseContainerManager`.
        event_handler: see `BaseContainerManager`.
        volume_name: keep the workspaces in this named volume, which is made where it is missing: a session mounts its
            own directory of it only.
    """

    def __init__(
        self,
        backend: Backend,
        container_prefix: str,
        workspace_base: StrPath | None,
        workspace_base_host: StrPath | None = None,
        event_handler: PodkitEventHandler | None = None,
        volume_name: str | None = None,
    ) -> None:
        super().__init__(backend, container_prefix, workspace_base, workspace_base_host, event_handler)
        if volume_name is not None:
            models.Mount(source=volume_name, target=DEFAULT_WORKING_DIR, type="volume")  # checks the name
        self.volume_name = volume_name

    def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
        """See `BaseContainerManager.get_mounts`. Makes the workspace where it is missing."""
        mounts = [mount_to_dict(mount, config.memory_limit_bytes) for mount in config.volumes]
        if self.volume_name is not None:
            relative = get_workspace_path(".", user_id, session_id)
            workspace = {
                "Type": "volume",
                "Source": self.volume_name,
                "Target": DEFAULT_WORKING_DIR,
                "VolumeOptions": {"Subpath": str(relative)},
            }
            return [workspace, *mounts]
        if directory := self.get_data_dir(user_id, session_id):
            make_workspace(directory)
            source = directory
            if self.workspace_base_host:
                source = get_workspace_path(self.workspace_base_host, user_id, session_id)
            return [{"Type": "bind", "Source": str(source), "Target": DEFAULT_WORKING_DIR}, *mounts]
        return mounts

    def write_file(
        self, container_id: str, container_path: str | PurePath, content: str | bytes, user_id: str, session_id: str
    ) -> Path:
        """Write a file in one step, as a command would. See `SessionFiles.write_bytes`.

        Raises:
            InvalidInput: the path or the content cannot be right.
            FileError: it cannot be written; a more exact class where one fits.
            ContainerError: the container is gone, stopped or paused.
            CommandInterrupted: the container or the engine ended meanwhile; it may have been written.
        """
        path = resolve_file_path(container_path)
        self._files.write(container_id, path, check_content(content, "content"))
        return Path(path)

    def get_data_dir(self, user_id: str, session_id: str) -> Path | None:
        """See `BaseContainerManager.get_data_dir`. `None` for workspaces in a volume."""
        return None if self.volume_name is not None else super().get_data_dir(user_id, session_id)

    def _workspace_label(self, identity: Identity, deadline: Deadline | None) -> str:
        if self.volume_name is not None:
            return f"volume:{self.volume_name}"
        return super()._workspace_label(identity, deadline)
