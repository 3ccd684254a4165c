"""What a broken channel means for its command, and for the container; over an engine in memory."""

from __future__ import annotations

import pytest

from podkit.agent.agent_program import LABEL
from podkit.agent.agent_runner import AgentRunner
from podkit.agent.command_request import CommandRequest
from podkit.backends.base import Deadline, ExecSpec, ExecStream
from podkit.core._restarts import Restarts
from podkit.errors import CommandInterrupted
from podkit.testing import FakeBackend
from tests.unit.agent.stream import END, ScriptedStream
from tests.unit.agent.test_channel import HELLO
from tests.unit.support import make_spec

COMMAND = CommandRequest(argv=["true"], timeout=5)


class EngineWithAgent(FakeBackend):
    """Its containers have an agent, which takes a command and then ends as `ended_with` says."""

    ended_with: int | None = None

    def open_stream(self, id: str, spec: ExecSpec | None, *, deadline: Deadline | None = None) -> ExecStream:
        stream = ScriptedStream(HELLO)
        stream.ended_with = self.ended_with

        def write(data: bytes, deadline: object) -> None:
            stream.say(END)

        stream.write = write  # type: ignore[method-assign]
        return stream


@pytest.fixture
def engine() -> EngineWithAgent:
    engine = EngineWithAgent()
    engine.connect()
    return engine


@pytest.fixture
def id(engine: EngineWithAgent) -> str:
    id = engine.create_workload(make_spec(labels={LABEL: "digest"}))
    engine.start_workload(id)
    engine.calls.clear()
    return id


@pytest.mark.parametrize(
    "code",
    [
        pytest.param(None, id="not yet ended"),
        pytest.param(0, id="ended with its connection"),
        pytest.param(126, id="cut while it was attached to"),  # Docker says so, of an agent that did run
    ],
)
def test_a_connection_that_is_cut_leaves_the_container_alone(
    engine: EngineWithAgent, id: str, code: int | None
) -> None:
    engine.ended_with = code
    with pytest.raises(CommandInterrupted, match="not sent again"):
        AgentRunner(engine, Restarts(engine)).run(id, COMMAND)
    assert "restart_workload" not in engine.calls


@pytest.mark.parametrize("code", [137, 139, 143])
def test_an_agent_that_was_killed_has_its_container_killed_and_started(
    engine: EngineWithAgent, id: str, code: int
) -> None:
    engine.ended_with = code
    result = AgentRunner(engine, Restarts(engine)).run(id, COMMAND).to_result(None)
    assert (result.exit_code, result.container_restarted) == (137, True)
    assert engine.calls.count("restart_workload") == 1
