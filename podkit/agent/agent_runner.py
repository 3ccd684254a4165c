"""Commands through the agent, or else the engine's exec."""

from __future__ import annotations

from podkit.agent.agent_command import AgentCommand
from podkit.agent.channel import PING_SECONDS, ChannelBroken
from podkit.agent.channel_pool import ChannelPool, Link
from podkit.agent.channel_recovery import ChannelRecovery
from podkit.agent.command_output import Outcome
from podkit.agent.command_request import CommandRequest, Place
from podkit.agent.communicate import communicate
from podkit.agent.engine_runner import EngineRunner
from podkit.agent.runner import Restarts, latest, needs_agent
from podkit.backends.base import Backend, Deadline
from podkit.errors import ContainerNotFound, ContainerNotRunning
from podkit.utils._deadline import NEVER


class AgentRunner:
    """A `Runner` over the agents' channels. Without an agent, the engine's exec takes over."""

    def __init__(self, backend: Backend, restarts: Restarts) -> None:
        self._restarts = restarts
        self._engine = EngineRunner(backend, restarts)
        self._links = ChannelPool(backend)

    def start(self, container_id: str, *, deadline: Deadline | None = None) -> None:
        """See `Runner.start`. The stream is kept for the first command."""
        self._links.start(container_id, deadline)

    def run(self, container_id: str, request: CommandRequest) -> Outcome:
        """See `Runner.run`."""
        link = self._links.get(container_id, request.user, latest(request.timeout))
        if link is None:
            return self._engine.run(container_id, request)
        return communicate(self._execution(link, request))

    def prepare(self, container_id: str, request: CommandRequest, deadline: Deadline) -> AgentCommand:
        """See `Runner.prepare`."""
        link = self._links.get(container_id, request.user, deadline)
        if link is None:
            raise needs_agent(self._links.why_not(container_id) or "")
        return self._execution(link, request)

    def _execution(self, link: Link, request: CommandRequest) -> AgentCommand:
        info = link.info
        place = Place(link.user_for(request.user), info.working_dir, home="HOME" not in info.environment)
        return AgentCommand(link.channel, request, place, ChannelRecovery(self._restarts, link, request.timeout))

    def is_busy(self, container_id: str, *, deadline: Deadline | None = None) -> bool:
        """See `Runner.is_busy`. The agent counts every channel's commands."""
        deadline = deadline or NEVER
        try:
            link = self._links.get(container_id, None, deadline)
            if link is None:
                return self._engine.is_busy(container_id)
            return link.channel.ping(deadline.at_most(PING_SECONDS)) > 0
        except (ContainerNotFound, ContainerNotRunning, ChannelBroken):
            return False

    def why_no_agent(self, container_id: str) -> str | None:
        """See `Runner.why_no_agent`."""
        return None if self._links.get(container_id, None, NEVER) else self._links.why_not(container_id)

    def release(self, container_id: str) -> None:
        """See `Runner.release`. An open stream slows a removal by some 15 ms."""
        self._links.close_idle(container_id)

    def forget(self, container_id: str) -> None:
        """See `Runner.forget`."""
        self._links.forget(container_id)
        self._engine.forget(container_id)

    def close(self) -> None:
        """See `Runner.close`."""
        self._links.close()
