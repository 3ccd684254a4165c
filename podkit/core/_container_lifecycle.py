"""Containers made, found, started and removed: the half of a container manager that runs nothing inside."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from podkit._models import lazy as models
from podkit._models.container_status import ContainerStatus
from podkit._models.identity import Identity
from podkit._models.labels import Label
from podkit.agent.agent_runner import AgentRunner
from podkit.agent.files import ContainerFiles
from podkit.agent.processes import ContainerProcesses
from podkit.agent.runner import Runner
from podkit.backends.base import Backend, Deadline
from podkit.core import _creation
from podkit.core._container_record import ContainerRecord
from podkit.core._containers import Containers
from podkit.core._mounts import checked_mounts
from podkit.core._own_container import parent_networks, parent_workload
from podkit.core._requested_config import Request
from podkit.core._restarts import RESTART_SECONDS, Restarts
from podkit.core._startup_verification import wait_until_up
from podkit.core._workspace import MountedWorkspaces, open_to_every_user, path_on_engine
from podkit.core.events import PodkitEventHandler, checked_handler, notify
from podkit.core.isolation import Isolation
from podkit.errors import InvalidInput, PodkitError
from podkit.utils._checks import StrPath, check_absolute_path, check_path_text, check_prefix, shown
from podkit.utils._clock import utc_now
from podkit.utils._deadline import CLEAN_UP_SECONDS
from podkit.utils._workspace_dirs import drop_empty_workspace, remove_tree
from podkit.utils.paths import DEFAULT_WORKING_DIR, get_workspace_path

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig

_logger = logging.getLogger("podkit.core.manager")  # a public name, see docs/logging.md


class ContainerLifecycle(ABC):
    """The life of one prefix's containers. See `BaseContainerManager`, which runs commands in them."""

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
        self.event_handler = checked_handler(event_handler)
        self.restarts = Restarts(backend)
        self._runner: Runner = AgentRunner(backend, self.restarts)
        self._files = ContainerFiles(self._runner)
        self._processes = ContainerProcesses(self._runner)
        self._containers = Containers(backend, self._runner)
        self._workspaces = MountedWorkspaces()

    @abstractmethod
    def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
        """Return the mounts of a session's container. Docker's mount dicts: `Type`, `Source`, `Target`, `ReadOnly`.

        A bind source below `workspace_base` may be named as this process sees it: podkit translates it for the
        engine. Called before each creation, and may make directories.
        """

    def get_data_dir(self, user_id: str, session_id: str) -> Path | None:
        """Return the session's workspace on this host, `None` without one."""
        return get_workspace_path(self.workspace_base, user_id, session_id) if self.workspace_base else None

    # --- lifecycle ----------------------------------------------------------------------------------

    @property
    def containers(self) -> Mapping[str, ContainerRecord]:
        """The containers that this manager knows, by id. A copy."""
        return self._containers.records()

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
        config = models.check_config(config).checked_copy()
        requested = Request.of(config)
        with self._cleaning_up(identity, config):
            used = self.event_handler.on_container_creating(user_id, session_id, config.checked_copy())
            if not isinstance(used, models.ContainerConfig):
                raise InvalidInput(f"on_container_creating returned {shown(used)}: return the config to be used")
            used = used.checked_copy()
        with self._cleaning_up(identity, used):
            draft = ContainerRecord(
                id="",  # the engine's to choose
                name=identity.name,
                user_id=user_id,
                session_id=session_id,
                config=used,
                requested=requested,
                created_at=utc_now(),
                mounts=self._checked_mounts(identity, used, deadline),
                workspace=self._workspace_label(identity, deadline),
            )
            record = self._create(identity, draft, deadline)
        return record.id, record.name

    def recreate_container(self, record: ContainerRecord, *, deadline: Deadline | None = None) -> ContainerRecord:
        """Remove a container and create it again. `start_container` comes next.

        `on_container_creating` is not called: its decision at the first creation stays, ports included. Where
        another process has created it anew already, that one is adopted. Raises as `create_container` does.
        """
        self.remove_container(record.id, deadline=deadline)
        identity = self._identity_of(record)
        with self._cleaning_up(identity, record.config):
            mounts = record.mounts  # of another manager's workspace, where this one has none of its own
            if record.workspace == self._workspace_label(identity, deadline):
                mounts = self._checked_mounts(identity, record.config, deadline)
            draft = replace(record, id="", created_at=utc_now(), mounts=mounts, was_found=False)
            return self._create(identity, draft, deadline)

    def _identity_of(self, record: ContainerRecord) -> Identity:
        return Identity.of(self.container_prefix, record.user_id, record.session_id)

    def _create(self, identity: Identity, draft: ContainerRecord, deadline: Deadline | None) -> ContainerRecord:
        config = draft.config

        def pulling(text: str) -> None:
            notify(self.event_handler.on_image_pulling, config.image, text)

        record = self._containers.create(identity, draft, self._networks(config, deadline), pulling, deadline)
        if record.was_found:
            self._note_workspace(record)
        else:
            user_id, session_id = identity.user_id, identity.session_id
            _logger.info("created container %s for user %r, session %r", record.name, user_id, session_id)
            notify(self.event_handler.on_container_created, user_id, session_id, record.id, record.name, config)
        return record

    @contextmanager
    def _cleaning_up(self, identity: Identity, config: ContainerConfig) -> Iterator[None]:
        """Undo a creation that failed or was interrupted. A failure is an event."""
        user_id, session_id = identity.user_id, identity.session_id
        try:
            yield
        except BaseException as exc:
            if isinstance(exc, PodkitError):  # the failed step has cleaned up after itself
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
        for id in [*self._containers.unfinished(identity.name), container_id]:
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
                drop_empty_workspace(directory)

    def start_container(self, container_id: str, config: ContainerConfig, *, deadline: Deadline | None = None) -> None:
        """Start a container and see that it stays up. One that runs is no error.

        A container that never ran before is removed where this fails.

        Raises:
            ContainerFailedToStart: it did not start or did not stay up.
            PortUnavailable: one of its ports is taken.
            ContainerNotFound: it is gone.
        """
        never_started = self._containers.never_started(container_id)
        if never_started is None:
            if not self.has_workspace(container_id):
                self._make_workspace(container_id, deadline)
            self._start(container_id, config, deadline)
            self._open_directories(container_id, deadline, tmpfs_alone=True)
            return
        with self._cleaning_up(self._identity_of(never_started), config):
            try:
                self._start(container_id, config, deadline)
                self._open_directories(container_id, deadline, tmpfs_alone=False)
            except BaseException:
                with suppress(PodkitError):  # the first error counts
                    self.remove_container(container_id, deadline=Deadline.after(CLEAN_UP_SECONDS))
                raise
        self._containers.note_started(container_id)

    def _start(self, container_id: str, config: ContainerConfig, deadline: Deadline | None) -> None:
        self._containers.start(container_id, deadline)
        self._note_workspace(self._containers.get(container_id))
        wait_until_up(self.backend, container_id, config, deadline=deadline)

    def _open_directories(self, container_id: str, deadline: Deadline | None, *, tmpfs_alone: bool) -> None:
        if record := self._containers.get(container_id):
            open_to_every_user(self._files, record, deadline, tmpfs_alone=tmpfs_alone)

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
        self._note_workspace(self._containers.get(container_id))

    def _make_workspace(self, container_id: str, deadline: Deadline | None) -> None:
        if record := self._containers.get(container_id):
            self._checked_mounts(self._identity_of(record), record.config, deadline)

    def _note_workspace(self, record: ContainerRecord | None) -> None:
        """Note the container's mounted workspace, if this process sees it."""
        if record and (directory := self.get_data_dir(record.user_id, record.session_id)):
            self._workspaces.note_mounted(record, directory)

    # --- finding and removing --------------------------------------------------------------------------------

    def find_container(
        self,
        user_id: str,
        session_id: str,
        config: ContainerConfig | None = None,
        *,
        deadline: Deadline | None = None,
    ) -> ContainerRecord | None:
        """Find the session's container, in any state. `None` if there is none.

        Raises:
            SessionConflict: it was asked for with another configuration than `config`, or another workspace.
            NameTaken: its name belongs to something else.
        """
        identity = Identity.of(self.container_prefix, user_id, session_id)
        wanted: dict[str, str] = {Label.WORKSPACE: self._workspace_label(identity, deadline)}
        if config is not None:
            wanted[Label.REQUESTED] = Request.of(models.check_config(config).checked_copy()).to_label()
        info = _creation.find(self.backend, identity, wanted, deadline=deadline)
        if info is None:
            return None
        record = self._containers.hold(info)
        self._note_workspace(record)
        return record

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
        """Return a running container's isolation.

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
        record = self._containers.forget(container_id)
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
            drop_empty_workspace(directory)

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

    # --- a container's parts ---------------------------------------------------------------------------------

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

    def _workspace_label(self, identity: Identity, deadline: Deadline | None) -> str:
        """Describe a container's workspace for its label. Empty without one."""
        directory = self.get_data_dir(identity.user_id, identity.session_id)
        return self._engine_path(str(directory), deadline) if directory else ""

    def _engine_path(self, source: str, deadline: Deadline | None) -> str:
        # read at each call: a subclass may set both after this class's own __init__
        return path_on_engine(self.backend, source, self.workspace_base, self.workspace_base_host, deadline)
