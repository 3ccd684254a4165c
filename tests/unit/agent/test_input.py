"""A command that runs, as its writer sees it: through the agent, which runs as a process of this machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from podkit.agent.agent_command import AgentCommand
from podkit.agent.command_request import CommandRequest
from tests.support.agent import soon
from tests.support.waiting import within
from tests.unit.agent.local import LocalCommands, local_commands


@pytest.fixture(scope="module")
def commands() -> Iterator[LocalCommands]:
    with local_commands() as found:
        yield found


def begun(commands: LocalCommands, *argv: str, timeout: float | None = None) -> AgentCommand:
    request = CommandRequest(argv=argv, input=b"", timeout=timeout)
    execution = commands.prepare("here", request, "a test")
    execution.start(soon())
    return execution


def write_for_ever(execution: AgentCommand) -> None:
    while True:
        execution.write(bytes(1 << 20))


def take_all(execution: AgentCommand) -> None:
    while execution.take() is not None:
        pass


def test_a_writer_is_told_that_the_command_was_ended_by_its_timeout(commands: LocalCommands) -> None:
    execution = begun(commands, "sleep", "60", timeout=0.3)
    with within(10), pytest.raises(BrokenPipeError, match=r"ended by its timeout of 0\.3 s"):
        write_for_ever(execution)


def test_who_writes_after_the_timeout_was_seen_is_told_so_too(commands: LocalCommands) -> None:
    execution = begun(commands, "sleep", "60", timeout=0.3)
    take_all(execution)
    with pytest.raises(BrokenPipeError, match=r"ended by its timeout of 0\.3 s"):
        execution.write(b"x")


def test_a_command_that_ended_by_itself_was_not_ended_by_its_timeout(commands: LocalCommands) -> None:
    execution = begun(commands, "sleep", "0.1", timeout=0.5)
    take_all(execution)
    take_all(begun(commands, "sleep", "0.6"))  # until the timeout would be over
    with pytest.raises(BrokenPipeError, match="the command has ended"):
        execution.write(b"x")


def test_a_command_that_closes_its_input_and_goes_on_is_told_apart_from_one_that_ended(
    commands: LocalCommands,
) -> None:
    execution = begun(commands, "sh", "-c", "exec <&-; sleep 60")
    with within(10), pytest.raises(BrokenPipeError, match="it has closed it"):
        write_for_ever(execution)
    execution.kill()
    with pytest.raises(BrokenPipeError, match="the command has ended"):
        execution.write(b"x")
