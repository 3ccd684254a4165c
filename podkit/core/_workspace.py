"""A session's workspace: where the engine sees it, whether it is still mounted, opened to every user."""

from __future__ import annotations

import logging
import os
from pathlib import Path, PurePath, PurePosixPath

from podkit.agent.files import ContainerFiles
from podkit.backends.base import Backend, Deadline
from podkit.core._container_record import ContainerRecord
from podkit.core._mounts import directories_to_open
from podkit.core._own_container import parent_workload, seen_by_engine
from podkit.errors import CommandError, ContainerError, FileError
from podkit.utils.paths import DEFAULT_WORKING_DIR, WORKSPACES

_Directory = tuple[int, int] | None

_logger = logging.getLogger("podkit.core.manager")  # a public name, see docs/logging.md


def path_on_engine(
    backend: Backend, source: str, base: Path | None, base_host: Path | None, deadline: Deadline | None
) -> str:
    """Translate a bind source below the workspaces to the engine's path. Others stay as they are.

    Args:
        backend: asked for the mounts of podkit's own container, where `base_host` is not set.
        source: the path, as this process sees it.
        base: where this process sees the workspaces.
        base_host: where the engine sees them.
        deadline: until when.
    """
    path = PurePath(source)
    if base is None or (base_host and path.is_relative_to(base_host / WORKSPACES)) or not path.is_relative_to(base):
        return source
    if base_host:
        return str(base_host / path.relative_to(base))
    return seen_by_engine(source, parent_workload(backend, deadline=deadline))


class MountedWorkspaces:
    """The workspaces of one manager's sessions. Safe to use from many threads.

    Remembers the inode of each container's mounted directory. If someone removes a directory and makes it again, the
    container keeps writing to the old one, unseen. While the container runs, no other directory can have that inode's
    number.
    """

    def __init__(self) -> None:
        self._mounted: dict[str, tuple[Path, _Directory]] = {}

    def note_mounted(self, record: ContainerRecord, directory: Path) -> None:
        """Note a container's directory, if the container mounts it."""
        wanted = DEFAULT_WORKING_DIR, record.workspace  # which is our own, else it would not have been found
        if any((mount["Target"], mount.get("Source")) == wanted for mount in record.mounts):
            self._mounted[record.id] = directory, _identity(directory)

    def is_mounted(self, container_id: str) -> bool:
        """Whether the workspace is still the mounted directory. True if none was noted."""
        known = self._mounted.get(container_id)
        if known is None:
            return True
        directory, mounted = known
        return mounted is not None and _identity(directory) == mounted

    def forget(self, container_id: str) -> None:
        """Forget a container that was removed."""
        self._mounted.pop(container_id, None)


def _identity(directory: Path) -> _Directory:
    try:
        found = os.stat(directory)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_to_every_user(
    files: ContainerFiles, record: ContainerRecord, deadline: Deadline | None, *, tmpfs_alone: bool
) -> None:
    """Open `/workspace` and the working directory, if root's, to every user.

    A workspace on the host is open already. No other directory of the host is touched, and of the image's only
    `/workspace`, which it may have filled.

    Args:
        files: of the container.
        record: of the container.
        deadline: until when.
        tmpfs_alone: whether the container ran before: only a tmpfs is a new one at each start.
    """
    targets = [PurePosixPath(mount["Target"]) for mount in record.mounts]
    for path, has_to_be_empty in directories_to_open(record, tmpfs_alone=tmpfs_alone):
        made = {target.relative_to(path).parts[0] for target in targets if path in target.parents}
        try:
            files.open_to_all(record.id, path, if_empty=has_to_be_empty, but_for=sorted(made), deadline=deadline)
        except (ContainerError, CommandError):  # its main process may end at once, and its first command says so
            return
        except FileError as exc:
            _logger.warning("not every user can write to %s in container %s: %s", path, record.name, exc)
