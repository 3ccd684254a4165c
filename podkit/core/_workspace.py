"""Whether the workspaces on the host are still the directories that their containers have mounted."""

from __future__ import annotations

import os
from pathlib import Path

_Directory = tuple[int, int] | None


class WorkspaceWatch:
    """Knows which directory each container has mounted as its workspace.

    A directory that was removed and made again under its name is another one: its container goes on in the old one,
    where nobody sees what it writes. While the container runs, no other directory gets the old one's number.

    Safe to use from many threads.
    """

    def __init__(self) -> None:
        self._mounted: dict[str, tuple[Path, _Directory]] = {}

    def note(self, container_id: str, directory: Path) -> None:
        """Take the directory for the mounted one: the container was just started, or just found."""
        self._mounted[container_id] = directory, _identity(directory)

    def forget(self, container_id: str) -> None:
        """Drop what is kept of a container that was removed."""
        self._mounted.pop(container_id, None)

    def is_mounted(self, container_id: str) -> bool:
        """Whether the workspace is still the mounted directory; true where there is none to watch."""
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
