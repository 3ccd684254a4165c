"""Container managers (layer 2): identity, mounts, lifecycle, paths.

`SimpleContainerManager` is ready to use. For mounts of your own, subclass `BaseContainerManager` and write two methods.
"""

from __future__ import annotations

import json
import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePath, PurePosixPath
from typing import TYPE_CHECKING, Any

from podkit._models import lazy as models
from podkit._models.identity import Identity, this_owner
from podkit._models.labels import Label
from podkit._models.status import ContainerStatus
from podkit.agent import agent_program
from podkit.agent.agent_runner import AgentRunner
from podkit.agent.command_output import TextCallback
from podkit.agent.command_request import CommandRequest
from podkit.agent.files import ContainerFiles
from podkit.agent.processes import ContainerProcesses
from podkit.agent.runner import Runner, latest
from podkit.backends.base import Backend, Deadline, WorkloadInfo
from podkit.core import _creation
from podkit.core._mounts import checked_mounts, directories_to_open, mount_spec, mount_to_dict
from podkit.core._own_container import parent_networks, parent_workload, seen_by_engine
from podkit.core._record import ContainerRecord, config_to_label, read_record
from podkit.core._requested_config import Request
from podkit.core._restarts import RESTART_SECONDS, Restarts
from podkit.core._startup import wait_until_up
from podkit.core._workload_spec import workload_spec
from podkit.core._workspace import WorkspaceWatch
from podkit.core.command import Command, unless_interrupted
from podkit.core.events import PodkitEventHandler, notify
from podkit.core.isolation import Isolation
from podkit.errors import (
    CommandError,
    ContainerError,
    FileError,
    InvalidInput,
    NotSupported,
    PathNotMapped,
    PodkitError,
)
from podkit.utils._checks import (
    CommandLike,
    StrPath,
    check_absolute_path,
    check_content,
    check_path_text,
    check_prefix,
    shown,
)
from podkit.utils._clock import utc_now
from podkit.utils._deadline import CLEAN_UP_SECONDS
from podkit.utils._fork import renew_after_fork
from podkit.utils._workspace_dirs import drop_empty_workspace, make_workspace, remove_tree
from podkit.utils.paths import (
    DEFAULT_WORKING_DIR,
    WORKSPACES,
    container_to_host_path,
    get_workspace_path,
    host_to_container_path,
    resolve_container_path,
    resolve_file_path,
)

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig, ProcessResult

__all__ = ["BaseContainerManager", "ContainerRecord", "SimpleContainerManager"]

_REASON_MAX = 300  # characters of a label
_WORKSPACE_PARENTS = 2  # `workspaces` and the user's directory

_logger = logging.getLogger(__name__)


class BaseContainerManager(ABC):
    """Makes, finds, runs and removes one prefix's containers.

    Safe to use from many threads; works from a forked child. Subclasses say what is mounted (`get_mounts`) and how a
    file is written (`write_file`).

    Args:
        backend: the engine, connected.
        container_prefix: the beginning of all names and a label on all containers: two programs with different
            prefixes never see each other's sessions. At most 40 characters.
        workspace_base: where this process sees the workspaces; `None` for none.
        workspace_base_host: where the engine sees them. By default the same, or, where podkit runs in a container of
            this engine, what that container's mounts say.
        event_handler: told what happens to containers.
    """

    def __init__(
        self,
        backend: Backend,
        container_prefix: str,
        workspace_base: StrPath | None,
        workspace_base_host: StrPath | None = None,
        event_handler: PodkitEventHandler | None = None,
    ) -> None:
        self.backend = backend
        self.container_prefix = check_prefix(container_prefix)
        self.workspace_base = None
        if workspace_base is not None:
            self.workspace_base = Path(check_path_text(workspace_base, "workspace_base")).absolute()
        self.workspace_base_host = None
        if workspace_base_host is not None:
            host = check_absolute_path(workspace_base_host, "workspace_base_host")
            self.workspace_base_host = Path(host)
        self.event_handler = event_handler or PodkitEventHandler()
        self.restarts = Restarts(backend)
        self._workspaces = WorkspaceWatch()
        self._runner: Runner = AgentRunner(backend, self.restarts)
        self._files = ContainerFiles(self._runner)
        self._processes = ContainerProcesses(self._runner)
        self._why_no_agent: str | None = None
        self._records: dict[str, ContainerRecord] = {}
        self._never_started: dict[str, bool] = {}  # id -> whether it is attachable, and made by this process
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _records and _never_started

    # --- to be written by subclasses ----------------------------------------------------------------

    @abstractmethod
    def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
        """Return the mounts of a session's container. Docker's mount dicts: `Type`, `Source`, `Target`, `ReadOnly`.

        A bind source below `workspace_base` may be named as this process sees it: it is translated to what the engine
        sees. Called before each creation, and may make directories.
        """

    @abstractmethod
    def write_file(
        self, container_id: str, container_path: str | PurePath, content: str | bytes, user_id: str, session_id: str
    ) -> Path:
        """Write a file and return its path inside. A relative `container_path` lies under `/workspace`.

        `podkit.utils.paths.write_to_mounted_path` does it safely for what is mounted from the host.
        """

    # --- lifecycle ----------------------------------------------------------------------------------

    @property
    def containers(self) -> Mapping[str, ContainerRecord]:
        """The containers that this manager knows, by id. A copy."""
        with self._lock:
            return dict(self._records)

    def create_container(
        self, user_id: str, session_id: str, config: ContainerConfig, *, deadline: Deadline | None = None
    ) -> tuple[str, str]:
        """Create or adopt the session's container. `start_container` comes next.

        Blocks while the engine works, and while it pulls a missing image. Safe to repeat and to call from many threads
        and processes at once: all get the same container.

        Returns:
            Its id and its name.

        Raises:
            InvalidInput: an id, the configuration or a mount cannot be right.
            NameTaken: the name belongs to something that is not podkit's.
            SessionConflict: it exists with another configuration.
            EngineError: the engine refused; a more exact class where one fits. Nothing stays behind.
        """
        identity = Identity.of(self.container_prefix, user_id, session_id)
        requested = models.check_config(config).checked_copy()
        with self._cleaning_up(identity, requested):
            used = self.event_handler.on_container_creating(user_id, session_id, requested.checked_copy())
            if not isinstance(used, models.ContainerConfig):
                raise InvalidInput(f"on_container_creating returned {shown(used)}: return the config to be used")
            used = used.checked_copy()
        with self._cleaning_up(identity, used):
            mounts = self._checked_mounts(identity, used, deadline)
            workspace = self._workspace_label(identity, deadline)
            record = self._create(identity, used, Request.of(requested), workspace, mounts, deadline)
        return record.id, record.name

    def recreate_container(self, record: ContainerRecord, *, deadline: Deadline | None = None) -> ContainerRecord:
        """Remove a container and create it again. `start_container` comes next.

        `on_container_creating` is not called: what it decided at the first creation stays, ports included. Where
        another process has created it anew already, that one is adopted. Raises as `create_container` does.
        """
        self.remove_container(record.id, deadline=deadline)
        identity = self._identity_of(record)
        with self._cleaning_up(identity, record.config):
            mounts = record.mounts  # of another manager's workspace, where this one has none of its own
            if record.workspace == self._workspace_label(identity, deadline):
                mounts = self._checked_mounts(identity, record.config, deadline)
            return self._create(identity, record.config, record.requested, record.workspace, mounts, deadline)

    def _record_of(self, container_id: str) -> ContainerRecord:
        with self._lock:
            return self._records[container_id]

    def _identity_of(self, record: ContainerRecord) -> Identity:
        return Identity.of(self.container_prefix, record.user_id, record.session_id)

    def _create(
        self,
        identity: Identity,
        config: ContainerConfig,
        requested: Request,
        workspace: str,
        mounts: Sequence[Mapping[str, Any]],
        deadline: Deadline | None,
    ) -> ContainerRecord:
        labels = identity.labels | {
            Label.OWNER: this_owner().to_label(),
            Label.CONFIG: config_to_label(config),
            Label.REQUESTED: requested.to_label(),
            Label.WORKSPACE: workspace,
            Label.MOUNTS: json.dumps(mounts, separators=(",", ":")),
        }
        specs, networks = [mount_spec(mount) for mount in mounts], self._networks(config, deadline)

        user_id, session_id = identity.user_id, identity.session_id

        def pulling(text: str) -> None:
            notify(self.event_handler.on_image_pulling, config.image, text)

        def made(id: str) -> None:
            record = ContainerRecord(
                id=id,
                name=spec.name,
                user_id=user_id,
                session_id=session_id,
                config=config,
                requested=requested,
                created_at=utc_now(),
                workspace=workspace,
                mounts=mounts,
            )
            with self._lock:
                self._records[id] = record
                self._never_started[id] = spec.attachable

        while True:
            agent = self._why_no_agent or agent_program.shared_files() or agent_program.WHY_NONE
            spec = workload_spec(identity.name, config, labels, specs, networks, agent)
            try:
                id, adopted = _creation.get_or_create(self.backend, identity, spec, pulling, made, deadline=deadline)
                break
            except NotSupported as exc:
                if isinstance(agent, str):
                    raise
                self._why_no_agent = f"the agent cannot be placed: {' '.join(str(exc).split())[:_REASON_MAX]}"
                _logger.warning("commands go through the engine's exec, as %s", self._why_no_agent)
        if adopted:
            return self._hold(adopted)
        record = self._record_of(id)
        _logger.info("created container %s for user %r, session %r", spec.name, user_id, session_id)
        notify(self.event_handler.on_container_created, user_id, session_id, id, spec.name, config)
        return record

    @contextmanager
    def _cleaning_up(self, identity: Identity, config: ContainerConfig) -> Iterator[None]:
        """Undo a creation that failed or was interrupted. A failure is an event."""
        user_id, session_id = identity.user_id, identity.session_id
        try:
            yield
        except BaseException as exc:
            if isinstance(exc, PodkitError):  # whatever raised it has taken back what it had made
                self._drop_empty_workspace(identity)
            else:  # such as of a signal's handler, which may come at any moment
                self.undo_creation(user_id, session_id)
            if isinstance(exc, Exception):
                notify(self.event_handler.on_container_creation_failed, user_id, session_id, config, exc)
            raise

    def undo_creation(self, user_id: str, session_id: str, container_id: str | None = None) -> None:
        """Remove an unfinished creation's leftovers. Raises nothing.

        That is a container of the session that this manager has made and not started, and an empty workspace.

        Args:
            user_id: whose session.
            session_id: which one.
            container_id: remove this one as well, though it was started.
        """
        identity = Identity.of(self.container_prefix, user_id, session_id)
        with self._lock:
            records = map(self._records.get, list(self._never_started))
            made = [record.id for record in records if record and record.name == identity.name and not record.was_found]
        for id in [*made, container_id]:
            if id is not None:
                with suppress(PodkitError):
                    self.remove_container(id, deadline=Deadline.after(CLEAN_UP_SECONDS))
        self._drop_empty_workspace(identity)

    def _drop_empty_workspace(self, identity: Identity) -> None:
        directory = self.get_data_dir(identity.user_id, identity.session_id)
        # a container that lives, such as one with another configuration, may have it mounted
        deadline = Deadline.after(CLEAN_UP_SECONDS)
        with suppress(PodkitError):
            if directory and not _creation.exists(self.backend, identity.name, deadline=deadline):
                drop_empty_workspace(directory, _WORKSPACE_PARENTS)

    def start_container(self, container_id: str, config: ContainerConfig, *, deadline: Deadline | None = None) -> None:
        """Start a container and see that it stays up. One that runs is no error.

        A container that never ran before is removed where this fails.

        Raises:
            ContainerFailedToStart: it did not start or did not stay up.
            PortUnavailable: one of its ports is taken.
            ContainerNotFound: it is gone.
        """
        with self._lock:
            attachable = self._never_started.get(container_id)
            if attachable:  # one caller at most: the end of the first stream is the end of the container's input
                self._never_started[container_id] = False
            never_started = None if attachable is None else self._records.get(container_id)
        start = self._runner.start if attachable else self.backend.start_workload
        if never_started is None:
            if not self.has_workspace(container_id):
                self._make_workspace(container_id, deadline)
            self._start(container_id, config, start, deadline)
            self._open_directories(container_id, deadline, tmpfs_alone=True)
            return
        identity = self._identity_of(never_started)
        with self._cleaning_up(identity, config):
            try:
                self._start(container_id, config, start, deadline)
                self._open_directories(container_id, deadline)
            except BaseException:
                with suppress(PodkitError):  # the first error counts
                    self.remove_container(container_id, deadline=Deadline.after(CLEAN_UP_SECONDS))
                raise
        with self._lock:
            self._never_started.pop(container_id, None)

    def _open_directories(self, container_id: str, deadline: Deadline | None, *, tmpfs_alone: bool = False) -> None:
        """Open `/workspace` and the working directory, if root's, to every user.

        A workspace on the host is open already. No other directory of the host is touched, and of the image's only
        `/workspace`, which it may have filled. A tmpfs is a new one at each start.
        """
        with self._lock:
            record = self._records.get(container_id)
        if record is None:  # started by its id alone
            return
        targets = [PurePosixPath(mount["Target"]) for mount in record.mounts]
        for path, has_to_be_empty in directories_to_open(record, tmpfs_alone=tmpfs_alone):
            made = {target.relative_to(path).parts[0] for target in targets if path in target.parents}
            try:
                self._files.open_to_all(
                    container_id, path, if_empty=has_to_be_empty, but_for=sorted(made), deadline=deadline
                )
            except (ContainerError, CommandError):  # its main process may end at once, and its first command says so
                return
            except FileError as exc:
                _logger.warning("not every user can write to %s in container %s: %s", path, record.name, exc)

    def _start(
        self, container_id: str, config: ContainerConfig, start: Callable[..., object], deadline: Deadline | None
    ) -> None:
        start(container_id, deadline=deadline)
        self._watch_workspace(container_id)
        wait_until_up(self.backend, container_id, config, deadline=deadline)

    # --- a workspace that was removed behind podkit's back ------------------------------------------------

    def has_workspace(self, container_id: str) -> bool:
        """Whether the host's workspace is the mounted directory. No engine call."""
        return self._workspaces.is_mounted(container_id)

    def remount_workspace(self, container_id: str, *, deadline: Deadline | None = None) -> None:
        """Make a missing workspace anew and restart its container, to mount it.

        Raises:
            MountSourceNotFound: `get_mounts` has not made it.
            ContainerNotFound: the container is gone.
        """
        _logger.warning("the workspace of container %s was removed: it is made anew, empty", container_id[:12])
        self._make_workspace(container_id, deadline)
        info = self.restarts.look(container_id, deadline=deadline)
        self.restarts.restart(info, deadline=deadline or Deadline.after(RESTART_SECONDS))
        self._watch_workspace(container_id)

    def _make_workspace(self, container_id: str, deadline: Deadline | None) -> None:
        record = self._record_of(container_id)
        self._checked_mounts(self._identity_of(record), record.config, deadline)

    def _watch_workspace(self, container_id: str) -> None:
        """Note the container's mounted workspace, if this process sees it."""
        with self._lock:
            record = self._records.get(container_id)
        directory = self.get_data_dir(record.user_id, record.session_id) if record else None
        if record and directory:
            wanted = DEFAULT_WORKING_DIR, record.workspace  # which is our own, else it would not have been found
            if any((mount["Target"], mount.get("Source")) == wanted for mount in record.mounts):
                self._workspaces.note(container_id, directory)

    # --- finding and removing --------------------------------------------------------------------------------

    def find_container(
        self,
        user_id: str,
        session_id: str,
        config: ContainerConfig | None = None,
        *,
        deadline: Deadline | None = None,
    ) -> ContainerRecord | None:
        """Find the session's container, in whatever state. `None` if there is none.

        Raises:
            SessionConflict: it was asked for with another configuration than `config`, or another workspace.
            NameTaken: what has its name is not this session's.
        """
        identity = Identity.of(self.container_prefix, user_id, session_id)
        wanted: dict[str, str] = {Label.WORKSPACE: self._workspace_label(identity, deadline)}
        if config is not None:
            wanted[Label.REQUESTED] = Request.of(models.check_config(config).checked_copy()).to_label()
        info = _creation.find(self.backend, identity, wanted, deadline=deadline)
        return self._hold(info) if info else None

    def get_container_status(self, container_id: str, *, deadline: Deadline | None = None) -> ContainerStatus:
        """Return a container's status. Waits for this manager's restart, asks the engine.

        Raises:
            ContainerNotFound: it is gone.
        """
        return self.restarts.look(container_id, deadline=deadline).status

    def is_busy(self, container_id: str, *, deadline: Deadline | None = None) -> bool:
        """Whether a command or a background process runs, as far as is known."""
        return self._runner.is_busy(container_id, deadline=deadline)

    def get_isolation(self, container_id: str) -> Isolation:
        """Return what holds a running container in.

        Raises:
            ContainerNotFound: it is gone.
            ContainerNotRunning: it is stopped or paused.
        """
        why_no_agent = self._runner.why_no_agent(container_id)
        return Isolation(commands="engine exec" if why_no_agent else "agent", commands_reason=why_no_agent)

    def remove_container(self, container_id: str, *, deadline: Deadline | None = None) -> None:
        """Kill and remove a container. A missing one is no error; the workspace stays."""
        self._runner.release(container_id)
        self.backend.remove_workload(container_id, deadline=deadline)
        with self._lock:
            record = self._records.pop(container_id, None)
            self._never_started.pop(container_id, None)
        self._runner.forget(container_id)
        self.restarts.forget(container_id)
        self._workspaces.forget(container_id)
        if record:
            _logger.info("removed container %s", record.name)
            notify(self.event_handler.on_container_removed, container_id, record.name)

    def empty_workspace(self, container_id: str) -> None:
        """Empty `/workspace` through a running container, as root."""
        self._files.empty(container_id, PurePosixPath(DEFAULT_WORKING_DIR))

    def remove_session_container(self, user_id: str, session_id: str) -> None:
        """Remove the session's container, whatever its configuration. A missing one is no error."""
        identity = Identity.of(self.container_prefix, user_id, session_id)
        if info := _creation.find(self.backend, identity, {}):
            self.remove_container(info.id)

    def remove_workspace(self, user_id: str, session_id: str) -> None:
        """Remove the session's workspace from the host. A missing one is no error.

        Raises:
            FileError: something in it belongs to another user: `empty_workspace` removes that from the inside.
        """
        if directory := self.get_data_dir(user_id, session_id):
            remove_tree(directory)
            drop_empty_workspace(directory, _WORKSPACE_PARENTS)

    def cleanup_all(self) -> None:
        """Remove every container of this manager. Missing ones are no error.

        Goes on after an error and raises the first one at the end. Twice is harmless.
        """
        errors: list[PodkitError] = []
        for container_id in self.containers:
            try:
                self.remove_container(container_id)
            except PodkitError as exc:
                errors.append(exc)
        if errors:
            raise errors[0]

    def close(self) -> None:
        """Close the connections to containers. They run on; the manager can be used on. Twice is harmless."""
        self._runner.close()

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
            input: what it reads; by default nothing.
            max_output_bytes: how much of each stream is kept, 10 MiB by default; the rest is read and dropped.
            on_stdout: called with each piece of text as it comes, in this thread. What it raises ends the command.
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

    def get_data_dir(self, user_id: str, session_id: str) -> Path | None:
        """Return the session's workspace on this host, `None` without one."""
        return get_workspace_path(self.workspace_base, user_id, session_id) if self.workspace_base else None

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
        raise PathNotMapped("no workspace of the host is mounted: give the container manager a workspace_base")

    # --- making a container -------------------------------------------------------------------------

    def _networks(self, config: ContainerConfig, deadline: Deadline | None) -> list[str]:
        networks = list(config.networks)
        if config.inherit_parent_networks:
            inherited = parent_networks(parent_workload(self.backend, deadline=deadline))
            networks += [name for name in inherited if name not in networks]
        return networks

    def _checked_mounts(
        self, identity: Identity, config: ContainerConfig, deadline: Deadline | None
    ) -> list[dict[str, Any]]:
        made = self.get_mounts(identity.user_id, identity.session_id, config)
        return checked_mounts(made, lambda source: self._engine_path(source, deadline))

    def _engine_path(self, source: str, deadline: Deadline | None) -> str:
        """Translate a bind source below `workspace_base` to the engine's. Others stay as they are."""
        path, base, base_host = PurePath(source), self.workspace_base, self.workspace_base_host
        if base is None or (base_host and path.is_relative_to(base_host / WORKSPACES)) or not path.is_relative_to(base):
            return source
        if base_host:
            return str(base_host / path.relative_to(base))
        return seen_by_engine(source, parent_workload(self.backend, deadline=deadline))

    def _workspace_label(self, identity: Identity, deadline: Deadline | None) -> str:
        """Describe a container's workspace for its label. Empty without one."""
        directory = self.get_data_dir(identity.user_id, identity.session_id)
        return self._engine_path(str(directory), deadline) if directory else ""

    def _hold(self, info: WorkloadInfo) -> ContainerRecord:
        """Keep the record of a container that was found."""
        record = read_record(info)
        with self._lock:
            self._records[record.id] = record
            if info.started_at is None:
                self._never_started[record.id] = False  # whoever made it attaches
        self._watch_workspace(record.id)
        return record


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
            make_workspace(directory, _WORKSPACE_PARENTS)
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
