"""What every way of running commands in containers promises, and what it needs of whoever looks after them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from podkit.agent.commands import CommandRequest, Outcome
from podkit.backends.base import Backend, Deadline, WorkloadInfo
from podkit.core._terms import ContainerStatus
from podkit.errors import ContainerNotRunning, NotSupported

if TYPE_CHECKING:
    from podkit.agent.execution import Execution

GRACE_SECONDS = 1.9
"""How long after a command's timeout an engine has to answer: less than the 2 s by which a call may be late."""


def latest(timeout: float | None) -> Deadline:
    """Return until when the engine has to answer for a command that begins now, so that its caller is not late."""
    return Deadline.after(None if timeout is None else timeout + GRACE_SECONDS)


def needs_agent(why: str) -> NotSupported:
    """Return the error of what only an agent can do, asked for where there is none."""
    return NotSupported(
        f"this needs podkit's agent in the container, which has none: {why}; execute_command, read_file and write_file "
        "work without it"
    )


def paused(name: str) -> ContainerNotRunning:
    """Return the error of a container that somebody has paused."""
    return ContainerNotRunning(f"container {name} is paused: unpause it, such as with 'docker unpause'")


def running(backend: Backend, container_id: str, deadline: Deadline) -> WorkloadInfo:
    """Ask for the state of a container that is to run a command.

    Raises:
        ContainerNotFound: it is gone.
        ContainerNotRunning: it is stopped or paused.
    """
    info = backend.inspect_workload(container_id, deadline=deadline)
    if info.status is ContainerStatus.PAUSED:
        raise paused(info.name)
    if info.status is not ContainerStatus.RUNNING:
        raise ContainerNotRunning(f"container {info.name} is {info.status}: start it first")
    return info


def ended(info: WorkloadInfo) -> str:
    """Describe the end of a container under a command."""
    if info.status is ContainerStatus.DEAD:
        return "was removed"
    if info.exit_code is None:
        return f"is {info.status}"
    return f"has ended (exit code {info.exit_code}{', as at the end of its lifetime' if info.exit_code == 0 else ''})"


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

    def start(self, container_id: str, *, deadline: Deadline | None = None) -> None:
        """Start a container that this process has made and nobody has started, as `Backend.start_workload` does."""
        ...

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

    def prepare(self, container_id: str, request: CommandRequest, deadline: Deadline) -> Execution:
        """Return a command that `Execution.start` sends; nothing is sent before. Raises as `run` does.

        Raises:
            NotSupported: this runner only waits for commands.
        """
        ...

    def is_busy(self, container_id: str, *, deadline: Deadline | None = None) -> bool:
        """Whether a command or a background process runs in a container, as far as this runner can know."""
        ...

    def why_no_agent(self, container_id: str) -> str | None:
        """Return why commands of a running container go through the engine's exec; `None` where the agent runs them.

        Raises:
            ContainerNotFound: there is no such container.
            ContainerNotRunning: it is stopped or paused.
        """
        ...

    def release(self, container_id: str) -> None:
        """Close what no command uses of a container that is about to be removed: that makes its removal quicker."""
        ...

    def forget(self, container_id: str) -> None:
        """Drop what is kept of a container that was removed."""
        ...

    def close(self) -> None:
        """Close what is open; commands under way go on, and the runner can be used on. Twice is harmless."""
        ...
