"""A command sent with its input and waited for, as by `subprocess.Popen.communicate`."""

from __future__ import annotations

from podkit.agent.agent_command import AgentCommand, StillRunning
from podkit.agent.command_output import Outcome
from podkit.errors import PodkitError
from podkit.utils._deadline import NEVER, Deadline


def communicate(command: AgentCommand, patience: Deadline = NEVER) -> Outcome:
    """Send a command with its input, take its output, wait for its end.

    Args:
        command: not sent yet.
        patience: how long to wait for it; it is left to end by itself then.

    Raises:
        StillRunning: `patience` is over.
        ContainerNotRunning: the container reached the end of its lifetime; nothing was run.
        CommandInterrupted: the container or the engine ended under it.
        InvalidInput: there is no such user or directory; nothing was run.
    """
    try:
        command.send()
        if command.request.input is not None:
            command.feed(command.request.input, None if patience is NEVER else patience.remaining)
            command.end_input()
        while command.take(patience=patience) is not None:
            pass
    except StillRunning:
        command.leave()
        raise
    except PodkitError as exc:
        if exc is not command.error:  # a callback's own
            command.abandon()
        raise
    except BaseException:  # Ctrl-C, or a callback: the command must not outlive its caller
        command.abandon()
        raise
    return command.outcome
