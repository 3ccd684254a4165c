"""Commands in containers: through the agent where there is one, else through the engine's exec."""

from __future__ import annotations

import logging
import time
from contextlib import suppress

from podkit.agent.channel import ChannelBroken
from podkit.agent.commands import CommandRequest, Outcome
from podkit.agent.execution import Execution, Place, Silence
from podkit.agent.fallback import GRACE_SECONDS, SAME_RUN_SECONDS, EngineExec, latest
from podkit.agent.links import Link, Links
from podkit.backends.base import Backend, NotStarted, WorkloadInfo
from podkit.core._terms import ContainerStatus
from podkit.errors import (
    AgentUnavailable,
    CommandInterrupted,
    ContainerNotFound,
    ContainerNotRunning,
    EngineError,
    EngineTimeout,
    PodkitError,
)
from podkit.utils._deadline import Deadline, caller_deadline, engine_deadline, wait_until

_PING_SECONDS = 1.5
_DEAF_SECONDS = 20.0  # an agent that runs and answers nothing for so long does not hear
_VAIN_SECONDS = 0.5  # an engine that was asked for so long just now, and said nothing, is not waited for once more
_SIGNALLED = 128
_KILLED = _SIGNALLED + 9

_logger = logging.getLogger(__name__)


class CommandRunner:
    """Runs commands in the containers of one engine. Safe to use from many threads; a forked child opens its own."""

    def __init__(self, backend: Backend) -> None:
        self._engine = EngineExec(backend)
        self._links = Links(backend, self._engine)

    def start(self, container_id: str) -> None:
        """Start a container that this process has made, and whose first process is the agent; see `Links.start`."""
        self._links.start(container_id)

    # --- commands -------------------------------------------------------------------------------------

    def run(self, container_id: str, request: CommandRequest) -> Outcome:
        """Run a command and wait for its end, or for its timeout and the killing.

        Raises:
            ContainerNotFound: there is no such container; nothing was run.
            ContainerNotRunning: it is stopped or paused; nothing was run.
            InvalidInput: there is no such user or working directory; nothing was run.
            CommandInterrupted: the container or the engine ended under the command.
            AgentUnavailable: it is a part of the agent, and there is none in the container.
        """
        with engine_deadline(latest(request.timeout)):
            link = self._links.get(container_id, request.user)
        if link is None and request.built_in:
            self.agent(container_id, "this")
        if link is None:
            return self._engine.run(container_id, request)
        return self._execution(link, request).communicate()

    def open(self, container_id: str, request: CommandRequest) -> Execution:
        """Start a command and give it once it runs; raises as `run` does.

        Raises:
            AgentUnavailable: there is no agent in the container.
            EngineTimeout: nothing was heard of it in time; see `Execution.start`.
        """
        execution = self.prepare(container_id, request, "a running command")
        execution.start(caller_deadline())
        return execution

    def prepare(self, container_id: str, request: CommandRequest, what: str) -> Execution:
        """Give a command for the agent that nothing was sent of yet; `what` says what for.

        Raises:
            ContainerNotFound: there is no such container.
            ContainerNotRunning: it is stopped or paused.
            AgentUnavailable: there is no agent in it.
        """
        with engine_deadline(latest(request.timeout)):
            link = self.agent(container_id, what, request.user)
        return self._execution(link, request)

    def agent(self, container_id: str, what: str, user: str | None = None) -> Link:
        """Give the channel to the agent of a running container, for what cannot be had without.

        Raises:
            AgentUnavailable: there is no agent in the container.
        """
        link = self._links.get(container_id, user)
        if link is None:
            raise AgentUnavailable(
                f"{what} needs podkit's agent in the container: {self._links.why_not(container_id)}; "
                "execute_command works without"
            )
        return link

    def count_commands(self, info: WorkloadInfo) -> int:
        """Count the commands that run in a running container, whoever has started them."""
        link = self._links.get(info.id)
        if link is None:
            return info.running_commands
        try:
            return link.channel.ping(Deadline.after(_PING_SECONDS))
        except ChannelBroken as exc:
            raise ContainerNotRunning(str(exc)) from exc

    def inspect(self, container_id: str) -> WorkloadInfo:
        """See `EngineExec.inspect`."""
        return self._engine.inspect(container_id)

    def why_no_agent(self, container_id: str) -> str | None:
        """Say why commands of a running container go through the engine's exec; `None` where the agent runs them."""
        return None if self._links.get(container_id) else self._links.why_not(container_id)

    def release(self, container_id: str) -> None:
        """Close the channel of a container that is about to be removed, unless a command runs through it.

        An engine takes some 15 ms longer to remove a container with an open stream.
        """
        self._links.close_idle(container_id)

    def forget(self, container_id: str) -> None:
        """Close the channels of a container that was removed."""
        self._links.forget(container_id)
        self._engine.forget(container_id)

    def _execution(self, link: Link, request: CommandRequest) -> Execution:
        info = link.info
        place = Place(link.user_for(request.user), info.working_dir, home="HOME" not in info.environment)
        return Execution(link.channel, request, place, _Recovery(self._engine, link, request.timeout))


class _Recovery:
    """Finds out what a broken channel means for one command; see `execution.Recovery`."""

    def __init__(self, engine: EngineExec, link: Link, timeout: float | None) -> None:
        self._engine = engine
        self._link = link
        self._end = None if timeout is None else time.monotonic() + timeout + GRACE_SECONDS
        self._asked_in_vain_at: float | None = None

    @property
    def _patience(self) -> Deadline:
        """Until when the engine has to answer: a command over its time is back 2 s after that, at the latest."""
        if self._asked_in_vain_at is not None and time.monotonic() - self._asked_in_vain_at < _VAIN_SECONDS:
            return Deadline.after(0)
        grace = Deadline.after(GRACE_SECONDS)
        return grace if self._end is None or self._end < time.monotonic() else grace.at_most(self._end - grace.clock())

    def lost(self, cause: ChannelBroken, outcome: Outcome) -> None:
        """See `execution.Recovery`."""
        before = self._link.info
        if cause.nothing_sent and not self._agent_was_killed():  # else its last word may be somebody else's
            raise ContainerNotRunning(f"container {before.name} reached the end of its lifetime") from cause
        try:
            with engine_deadline(self._patience):
                was_killed = self._agent_was_killed()
                now = self._settled(SAME_RUN_SECONDS if was_killed else 0)
        except (EngineError, ContainerNotFound) as exc:
            raise CommandInterrupted(f"the command was interrupted and is not sent again: {exc}") from exc
        if now.status is not ContainerStatus.RUNNING:
            why = "reached the end of its lifetime" if now.exit_code == 0 else f"became {now.status}"
            raise _interrupted(f"container {now.name} {why}") from cause
        if now.started_at != before.started_at:
            raise _interrupted(f"container {now.name} was restarted under it") from cause
        if not was_killed:  # the connection was cut: the agent notices, and kills what it has started
            raise _interrupted(str(cause)) from cause
        # somebody inside has killed the agent: what else runs there is not known any more
        outcome.exit_code = _KILLED
        self._restart(outcome)

    def _settled(self, seconds: float) -> WorkloadInfo:
        """Look at the container, for as long as the engine may need to notice that it has ended."""
        found: list[WorkloadInfo] = []

        def changed() -> bool:
            found.append(self._engine.inspect(self._link.info.id))
            return found[-1].status is not ContainerStatus.RUNNING or found[-1].started_at != self._link.info.started_at

        wait_until(changed, deadline=Deadline.after(seconds), interval=0.02)
        return found[-1]

    def _agent_was_killed(self) -> bool:
        """Whether a signal has ended it. It ends by itself with its connection; an engine may then say 126 of it."""
        with suppress(NotStarted, PodkitError):
            return (self._link.channel.exit_code() or 0) > _SIGNALLED
        return False

    def stuck(self, cause: EngineTimeout, outcome: Outcome) -> None:
        """See `execution.Recovery`."""
        outcome.exit_code = _KILLED
        self._restart(outcome)

    def explain(self, silent_seconds: float) -> Silence:
        """See `execution.Recovery`."""
        before, began = self._link.info, time.monotonic()
        try:
            with engine_deadline(self._patience.at_most(_PING_SECONDS)):
                now = self._engine.inspect(before.id)
        except PodkitError as exc:
            if isinstance(exc, EngineTimeout) and time.monotonic() - began >= _VAIN_SECONDS:
                self._asked_in_vain_at = time.monotonic()
            gone = isinstance(exc, ContainerNotFound)  # an engine that says nothing is waited for
            return Silence.GONE if gone else Silence.BUSY
        if now.status is ContainerStatus.PAUSED:
            return Silence.PAUSED
        is_same = now.status is ContainerStatus.RUNNING and now.started_at == before.started_at
        return Silence.BUSY if is_same and silent_seconds <= _DEAF_SECONDS else Silence.GONE

    def survived(self, outcome: Outcome) -> None:
        """See `execution.Recovery`."""
        self._restart(outcome)

    def _restart(self, outcome: Outcome) -> None:
        before = self._link.info
        self._link.channel.close()  # first: an engine that cannot get rid of output is slow to kill
        try:
            self._engine.restart(before, self._patience)
        except ContainerNotFound:
            return  # removed meanwhile: nothing of the command runs
        except PodkitError as exc:
            raise CommandInterrupted(f"the command could not be ended: {exc}") from exc
        outcome.container_restarted = True
        _logger.warning("container %s was killed and started to end what a command had left running", before.name)


def _interrupted(why: str) -> CommandInterrupted:
    return CommandInterrupted(f"the command was interrupted and is not sent again: {why}")
