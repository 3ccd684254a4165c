"""What every way of running commands in containers promises, and what it needs of whoever looks after them."""

from __future__ import annotations

from typing import Protocol

from podkit.agent.commands import CommandRequest, Outcome
from podkit.backends.base import Deadline, WorkloadInfo

GRACE_SECONDS = 1.9
"""How long after a command's timeout an engine has to answer: less than the 2 s by which a call may be late."""


class Restarts(Protocol):
    """Looks at containers and restarts them; implemented by `podkit.core._restarts`."""

    def look(self, container_id: str, *, deadline: Deadline | None = None) -> WorkloadInfo:
        """Ask the engine for the state of a container, never in the middle of a restart.

        Raises:
            ContainerNotFound: it is gone.
            SessionBusy: a restart is still under way at the deadline.
        """
        ...

    def restart(self, before: WorkloadInfo, *, deadline: Deadline) -> None:
        """Kill all that runs in a container and start it again, unless somebody has done so since `before`.

        Raises:
            ContainerNotFound: it is gone.
            EngineTimeout: the engine gave no sign of life before the deadline.
        """
        ...


class Runner(Protocol):
    """Runs commands in the containers of one engine.

    Safe to use from many threads; a forked child uses none of its parent's connections.
    """

    def run(self, container_id: str, request: CommandRequest) -> Outcome:
        """Run a command and wait for its end, or for its timeout and the killing. It is never sent twice.

        Returns when the command itself has ended, even if a child of it holds its pipes open.

        Raises:
            ContainerNotFound: there is no such container; nothing was run.
            ContainerNotRunning: it is stopped or paused; nothing was run.
            InvalidInput: there is no such user or working directory; nothing was run.
            CommandInterrupted: the container or the engine ended under the command; `result` has the output so far.
        """
        ...

    def is_busy(self, container_id: str, *, deadline: Deadline | None = None) -> bool:
        """Whether a command runs in a container, as far as this runner can know."""
        ...

    def forget(self, container_id: str) -> None:
        """Drop what is kept of a container that was removed."""
        ...

    def close(self) -> None:
        """Close what is open; commands under way go on, and the runner can be used on. Twice is harmless."""
        ...
