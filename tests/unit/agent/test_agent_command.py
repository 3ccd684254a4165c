"""One command of a channel, where the agent says little, late or nothing; see test_program.py for one that speaks."""

from __future__ import annotations

import pytest

from podkit.agent.agent_command import AgentCommand
from podkit.agent.channel import Channel, ChannelBroken
from podkit.agent.command_output import Outcome
from podkit.agent.command_request import CommandRequest, Place
from podkit.agent.protocol import FromAgent, ToAgent, encode
from podkit.agent.silence import Silence
from podkit.errors import CommandInterrupted, EngineTimeout
from podkit.utils._deadline import Deadline
from tests.support.waiting import within
from tests.unit.agent.stream import ScriptedStream
from tests.unit.agent.test_channel import HELLO, frame, soon


class Restarts:
    """Restarts the container of a command that cannot be ended, on paper."""

    def __init__(self) -> None:
        self.count = 0

    def lost(self, cause: ChannelBroken, outcome: Outcome) -> None:
        raise CommandInterrupted(str(cause))

    def stuck(self, cause: EngineTimeout, outcome: Outcome) -> None:
        self.count += 1
        outcome.exit_code, outcome.container_restarted = 137, True

    def survived(self, outcome: Outcome) -> None:
        self.stuck(EngineTimeout(), outcome)

    def explain(self, silent_seconds: float, deadline: Deadline) -> Silence:
        return Silence.BUSY


@pytest.fixture
def stream() -> ScriptedStream:
    return ScriptedStream(HELLO)


@pytest.fixture
def restarts() -> Restarts:
    return Restarts()


def execution(stream: ScriptedStream, restarts: Restarts, *, timeout: float | None = None) -> AgentCommand:
    channel = Channel(stream)
    channel.greet(soon())
    return AgentCommand(channel, CommandRequest(argv=["true"], timeout=timeout), Place("", "/", home=False), restarts)


def test_a_started_command_has_its_number(stream: ScriptedStream, restarts: Restarts) -> None:
    command = execution(stream, restarts)
    stream.say(frame(FromAgent.STARTED, 1, 77))
    command.start(soon())
    assert command.pid == 77


def test_an_agent_that_says_nothing_of_a_start_is_an_error_at_the_callers_deadline(
    stream: ScriptedStream, restarts: Restarts
) -> None:
    with within(5), pytest.raises(EngineTimeout, match="whether the command runs"):
        execution(stream, restarts).start(Deadline.after(0.05))
    assert bytes(stream.sent).endswith(encode(ToAgent.KILL, 1))
    assert restarts.count == 1  # as it does not say either that the command was killed: nothing of that runs on


def test_an_agent_that_says_nothing_of_a_start_is_an_error_once_the_command_is_over_its_time(
    stream: ScriptedStream, restarts: Restarts
) -> None:
    with within(5), pytest.raises(EngineTimeout):
        execution(stream, restarts, timeout=0.05).start(soon())
    assert restarts.count == 1
