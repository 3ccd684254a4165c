"""The files of containers, seen from inside: through the agent, or, for reading and writing, through a script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from podkit.agent import file_scripts
from podkit.agent.files import AgentFiles
from podkit.agent.runner import CommandRunner
from podkit.core._checks import check_text
from podkit.core._terms import DEFAULT_WORKING_DIR
from podkit.errors import AgentUnavailable, FileError

if TYPE_CHECKING:
    from podkit.core.models import Mount


class ContainerFiles:
    """Reads and writes, whether there is an agent or not. Safe to use from many threads.

    Attributes:
        agent: for all else; raises `AgentUnavailable` where there is none.
    """

    def __init__(self, commands: CommandRunner) -> None:
        self.agent = AgentFiles(commands)
        self._commands = commands

    def read(self, container_id: str, path: PurePosixPath, *, max_bytes: int | None = None, root: str = "") -> bytes:
        """Read a regular file; no link may leave `root`, where one is given.

        Without `max_bytes` the usual limit holds, which the caller's caller cannot set.
        """
        try:
            return self.agent.read(container_id, path, max_bytes, root)
        except AgentUnavailable:
            check_text(str(path), "path")
            return file_scripts.read_file(self._commands, container_id, path, root.rstrip("/"), max_bytes)

    def write(
        self,
        container_id: str,
        path: PurePosixPath,
        content: bytes,
        *,
        mode: int | None = None,
        owner: str | None = None,
        root: str = "",
    ) -> None:
        """Write a file in one step; no link may leave `root`, where one is given."""
        try:
            self.agent.write(container_id, path, content, mode=mode, owner=owner, root=root)
        except AgentUnavailable:
            if mode is not None or owner is not None:
                raise
            check_text(str(path), "path")
            file_scripts.write_file(self._commands, container_id, path, content, root.rstrip("/"))

    def empty(self, container_id: str, path: PurePosixPath, volumes: Sequence[Mount]) -> None:
        """Remove all that is in a directory, but what is mounted below it."""
        try:
            self.agent.empty(container_id, path)
        except AgentUnavailable:
            if below := [mount.target for mount in volumes if path in PurePosixPath(mount.target).parents]:
                why = f"{below[0]} is mounted below it; empty it by hand"
                raise FileError(f"cannot empty '{path}': {why}", filename=str(path)) from None
            file_scripts.empty_directory(self._commands, container_id, path)


def mount_of(path: PurePosixPath, volumes: Sequence[Mount]) -> str:
    """Give the innermost mount that a path lies in, the workspace included; `/` outside of all."""
    targets = ["/", DEFAULT_WORKING_DIR, *(mount.target for mount in volumes)]
    # a file that is itself the mount lies in the one around it
    return max((target for target in targets if PurePosixPath(target) in path.parents), key=len, default="/")
