"""What runs commands through the agent as a process of this machine, or through whatever else speaks on two pipes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podkit.agent.agent_command import AgentCommand
from podkit.agent.channel import Channel, ChannelBroken
from podkit.agent.command_output import Outcome
from podkit.agent.command_request import CommandRequest, Place
from podkit.agent.silence import Silence
from podkit.backends.base import Deadline
from podkit.errors import CommandInterrupted, EngineTimeout
from tests.support.agent import SECONDS, ProcessStream, soon


class _NoRecovery:
    def lost(self, cause: ChannelBroken, outcome: Outcome) -> None:
        raise CommandInterrupted(str(cause))

    def stuck(self, cause: EngineTimeout, outcome: Outcome) -> None:
        outcome.container_restarted = True

    def survived(self, outcome: Outcome) -> None:
        outcome.container_restarted = True

    def explain(self, silent_seconds: float, deadline: Deadline) -> Silence:
        return Silence.BUSY


class LocalCommands:
    """What prepares commands for one channel, whatever the container is called."""

    def __init__(self, stream: ProcessStream) -> None:
        self.stream = stream
        self.channel = Channel(stream)
        self.channel.greet(soon())

    def prepare(self, container_id: str, request: CommandRequest, what: str) -> AgentCommand:
        return AgentCommand(self.channel, request, Place("", "/", home=False), _NoRecovery())


@contextmanager
def local_commands(*arguments: str, program: Path | None = None) -> Iterator[LocalCommands]:
    """Speak with a program, by default the agent."""
    stream = ProcessStream(*(arguments or ("channel", "60")), program=program)
    try:
        yield LocalCommands(stream)
    finally:
        stream.close()
        stream.process.kill()
        stream.process.wait(SECONDS)
