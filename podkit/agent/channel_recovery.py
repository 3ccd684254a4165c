"""The fate of a command whose channel broke or is silent."""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from typing import Protocol

from podkit._models.container_status import ContainerStatus
from podkit.agent.channel import PING_SECONDS, ChannelBroken
from podkit.agent.channel_pool import Link
from podkit.agent.command_output import KILLED, SIGNALLED, Outcome
from podkit.agent.engine_runner import SAME_RUN_SECONDS
from podkit.agent.runner import GRACE_SECONDS, Restarts, ended
from podkit.agent.silence import Silence
from podkit.backends.base import Deadline, NotStarted, WorkloadInfo
from podkit.errors import CommandInterrupted, ContainerNotFound, ContainerNotRunning, EngineTimeout, PodkitError
from podkit.utils._deadline import wait_until

_DEAF_SECONDS = 20.0  # an agent that runs and answers nothing for so long does not hear
_VAIN_SECONDS = 0.5  # an engine that was asked for so long just now, and said nothing, is not waited for once more

_logger = logging.getLogger(__name__)


class Recovery(Protocol):
    """Finds out about a command whose end the agent cannot tell. `ChannelRecovery` does it.

    Each method completes the outcome, or raises the caller's error.
    """

    def lost(self, cause: ChannelBroken, outcome: Outcome) -> None:
        """The channel broke."""
        ...

    def stuck(self, cause: EngineTimeout, outcome: Outcome) -> None:
        """The agent is silent: restart the container."""
        ...

    def survived(self, outcome: Outcome) -> None:
        """The agent could not kill everything: restart the container."""
        ...

    def explain(self, silent_seconds: float, deadline: Deadline) -> Silence:
        """Find out why an agent with an open stream says nothing."""
        ...


class ChannelRecovery:
    """Explains a broken channel to one command. See `Recovery`."""

    def __init__(self, restarts: Restarts, link: Link, timeout: float | None) -> None:
        self._restarts = restarts
        self._link = link
        self._end = None if timeout is None else time.monotonic() + timeout + GRACE_SECONDS
        self._asked_in_vain_at: float | None = None

    @property
    def _patience(self) -> Deadline:
        """The engine's deadline: a timed-out command is back within 2 s."""
        if self._asked_in_vain_at is not None and time.monotonic() - self._asked_in_vain_at < _VAIN_SECONDS:
            return Deadline.after(0)
        grace = Deadline.after(GRACE_SECONDS)
        return grace if self._end is None or self._end < time.monotonic() else grace.at_most(self._end - grace.clock())

    def lost(self, cause: ChannelBroken, outcome: Outcome) -> None:
        """See `Recovery`."""
        before = self._link.info
        if cause.nothing_sent and not self._agent_was_killed():  # else its last word may be somebody else's
            raise ContainerNotRunning(f"container {before.name} reached the end of its lifetime") from cause
        try:
            was_killed = self._agent_was_killed()
            now = self._settled(SAME_RUN_SECONDS if was_killed else 0)
        except ContainerNotFound:
            raise _interrupted(f"container {before.name} was removed") from cause
        except PodkitError as exc:
            raise CommandInterrupted(f"the command was interrupted and is not sent again: {exc}") from exc
        if now.status is not ContainerStatus.RUNNING:
            raise _interrupted(f"container {now.name} {ended(now)}") from cause
        if now.started_at != before.started_at:
            raise _interrupted(f"container {now.name} was restarted under it") from cause
        if not was_killed:  # the connection was cut: the agent notices and kills its commands
            raise _interrupted(str(cause)) from cause
        # something inside killed the agent: nobody knows any more which processes run there
        outcome.exit_code = KILLED
        self._restart(outcome)

    def _settled(self, seconds: float) -> WorkloadInfo:
        """Inspect the container until its end would have been noticed."""
        found: list[WorkloadInfo] = []
        patience = self._patience

        def changed() -> bool:
            found.append(self._restarts.look(self._link.info.id, deadline=patience))
            return found[-1].status is not ContainerStatus.RUNNING or found[-1].started_at != self._link.info.started_at

        wait_until(changed, deadline=Deadline.after(seconds), interval=0.02)
        return found[-1]

    def _agent_was_killed(self) -> bool:
        """Whether a signal has ended it. It ends by itself with its connection; an engine may then say 126 of it."""
        with suppress(NotStarted, PodkitError):
            return (self._link.channel.exit_code(self._patience) or 0) > SIGNALLED
        return False

    def stuck(self, cause: EngineTimeout, outcome: Outcome) -> None:
        """See `Recovery`."""
        outcome.exit_code = KILLED
        self._restart(outcome)

    def explain(self, silent_seconds: float, deadline: Deadline) -> Silence:
        """See `Recovery`."""
        before, began = self._link.info, time.monotonic()
        try:
            patience = self._patience.at_most(min(PING_SECONDS, deadline.remaining))
            now = self._restarts.look(before.id, deadline=patience)
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
        """See `Recovery`."""
        self._restart(outcome)

    def _restart(self, outcome: Outcome) -> None:
        before = self._link.info
        self._link.channel.close()  # first: an engine that cannot get rid of output is slow to kill
        try:
            self._restarts.restart(before, deadline=self._patience)
        except ContainerNotFound:
            return  # removed meanwhile: nothing of the command runs
        except EngineTimeout as exc:
            raise CommandInterrupted(
                f"neither the agent nor the engine answered in time, so it may run on: {exc}"
            ) from exc
        except PodkitError as exc:
            raise CommandInterrupted(f"the command could not be ended, so it may run on: {exc}") from exc
        outcome.container_restarted = True
        _logger.warning("container %s was killed and started to end a command's leftover processes", before.name)


def _interrupted(why: str) -> CommandInterrupted:
    return CommandInterrupted(f"the command was interrupted and is not sent again: {why}")
