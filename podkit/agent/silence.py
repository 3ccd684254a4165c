"""An agent that says nothing: asked for a sign of life, and judged."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import Enum

from podkit.agent.channel import Channel
from podkit.backends.base import Deadline
from podkit.errors import EngineTimeout

SILENT_SECONDS = 3.0
"""An agent that was silent for longer is asked for a sign of life while a command is waited for."""

COMMAND_PING_SECONDS = 1.0
"""How long an agent has for it then: less than otherwise, as a command waits."""


class Silence(Enum):
    """Why an agent says nothing."""

    BUSY = "busy"
    PAUSED = "paused"
    GONE = "gone"


class SilenceWatch:
    """Looks after one command's agent now and then.

    Args:
        channel: to the agent.
        explain: finds out why an agent with an open stream says nothing, given for how many seconds it has.
    """

    def __init__(self, channel: Channel, explain: Callable[[float, Deadline], Silence]) -> None:
        self._channel = channel
        self._explain = explain
        self._looked_at = time.monotonic()

    def look(self, deadline: Deadline) -> Silence:
        """Judge the agent. One that has spoken a moment ago, or answers now, is `BUSY`."""
        now, silent = time.monotonic(), self._channel.silent_seconds
        if silent < SILENT_SECONDS or now - self._looked_at < SILENT_SECONDS:
            return Silence.BUSY
        self._looked_at = now
        try:
            self._channel.ping(deadline.at_most(COMMAND_PING_SECONDS))
        except EngineTimeout:
            if not deadline.expired:  # a timed-out command has to be ended, silent agent or not
                return self._explain(silent, deadline)
        return Silence.BUSY
