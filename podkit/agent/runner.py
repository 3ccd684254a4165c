"""The promise of both ways of running commands."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from podkit._models.container_status import ContainerStatus
from podkit.agent.command_output import Outcome
from podkit.agent.command_request import CommandRequest
from podkit.backends.base import Backend, Deadline, WorkloadInfo
from podkit.errors import ContainerNotRunning, NotSupported

if TYPE_CHECKING:
    from podkit.agent.agent_command import AgentCommand

GRACE_SECONDS = 1.9
"""How long after a command's timeout an engine has to answer: less than the 2 s by which a call may be late."""


def latest(timeout: float | None) -> Deadline:
    """Return the engine's deadline for a command that begins now."""
    return Deadline.after(None if timeout is None else timeout + GRACE_SECONDS)


def needs_agent(why: str) -> NotSupported:
    """Return the error of a call that needs an agent."""
    return NotSupported(
        f"this needs podkit's agent in the container, which has none: {why}; execute_command, read_file and write_file "
        "work without it"
    )


def paused(name: str) -> ContainerNotRunning:
    """Return the error of a paused container."""
    return ContainerNotRunning(f"container {name} is paused: unpause it, such as with 'docker unpause'")


def running(backend: Backend, container_id: str, deadline: Deadline) -> WorkloadInfo:
    """Inspect a container that is to run a command.

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
        """Inspect a container, never in the middle of a restart.

        Raises:
            ContainerNotFound: it is gone.
            SessionBusy: a restart is still under way at the deadline.
        """
        ...

    def restart(self, before: WorkloadInfo, *, deadline: Deadline) -> None:
        """Kill and restart a container, unless that was done since `before`.

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
        """Start this process's new container, as `Backend.start_workload` does."""
        ...

    def run(self, container_id: str, request: CommandRequest) -> Outcome:
        """Run a command and wait for its end or its kill. It is never sent twice.

        Returns when the command itself has ended, even if a child of it holds its pipes open.

        Raises:
            ContainerNotFound: there is no such container; nothing was run.
            ContainerNotRunning: it is stopped or paused; nothing was run.
            InvalidInput: there is no such user or working directory; nothing was run.
            CommandInterrupted: the container or the engine ended under the command; `result` has the output so far.
        """
        ...

    def prepare(self, container_id: str, request: CommandRequest, deadline: Deadline) -> AgentCommand:
        """Return an unsent command for `AgentCommand.start`. Raises as `run` does.

        Raises:
            NotSupported: this runner only waits for commands.
        """
        ...

    def is_busy(self, container_id: str, *, deadline: Deadline | None = None) -> bool:
        """Whether a command or a background process runs, as far as is known."""
        ...

    def why_no_agent(self, container_id: str) -> str | None:
        """Return why a running container has no agent, `None` if it has one.

        Raises:
            ContainerNotFound: there is no such container.
            ContainerNotRunning: it is stopped or paused.
        """
        ...

    def release(self, container_id: str) -> None:
        """Close a container's idle streams before its removal, which is quicker then."""
        ...

    def forget(self, container_id: str) -> None:
        """Forget a container that was removed."""
        ...

    def close(self) -> None:
        """Close idle streams. Commands go on, the runner can be used on. Twice is harmless."""
        ...
