"""Whether workspaces on the host are still the mounted directories."""

from __future__ import annotations

import os
from pathlib import Path

_Directory = tuple[int, int] | None


class WorkspaceWatch:
    """Knows each container's mounted workspace directory.

    A directory that was removed and made again under its name is another one: its container goes on in the old one,
    where nobody sees what it writes. While the container runs, no other directory gets the old one's number.

    Safe to use from many threads.
    """

    def __init__(self) -> None:
        self._mounted: dict[str, tuple[Path, _Directory]] = {}

    def note(self, container_id: str, directory: Path) -> None:
        """Note the mounted directory of a container just started or found."""
        self._mounted[container_id] = directory, _identity(directory)

    def forget(self, container_id: str) -> None:
        """Forget a container that was removed."""
        self._mounted.pop(container_id, None)

    def is_mounted(self, container_id: str) -> bool:
        """Whether the workspace is still the mounted directory. True if none is watched."""
        known = self._mounted.get(container_id)
        if known is None:
            return True
        directory, mounted = known
        return mounted is not None and _identity(directory) == mounted


def _identity(directory: Path) -> _Directory:
    try:
        found = os.stat(directory)
    except OSError:
        return None
    return found.st_dev, found.st_ino
