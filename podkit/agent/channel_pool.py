"""An engine's open channels: one a container, or one a user where the agent is not root."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from podkit.agent import agent_program
from podkit.agent.attached_stream import AttachedStream
from podkit.agent.channel import PING_SECONDS, Channel, ChannelBroken
from podkit.agent.command_output import SIGNALLED
from podkit.agent.command_request import refused_user
from podkit.agent.protocol import IN_WANT, NO_SUCH_USER, NOT_ALLOWED
from podkit.agent.runner import running
from podkit.backends.base import Backend, Deadline, ExecSpec, NotStarted, WorkloadInfo, is_root
from podkit.errors import ContainerNotRunning, EngineTimeout
from podkit.utils._deadline import held
from podkit.utils._fork import renew_after_fork

_GREETING_SECONDS = 20.0
_SILENT_SECONDS = 0.1  # a channel that was silent for longer is asked for a sign of life before it gets a command: an
# engine tells of a stopped container's end sooner than its stream does, but no stop is quicker than this
_OPENING = "opening the channel to the container"

_logger = logging.getLogger(__name__)


class Link(NamedTuple):
    """An open channel, and its container's state at opening.

    Attributes:
        channel: to the agent.
        info: of the container.
        user: as whom the agent runs; `""` for the container's own user.
    """

    channel: Channel
    info: WorkloadInfo
    user: str

    def user_for(self, wanted: str | None) -> str:
        """Return the user to start a command with. `""` is the agent's own."""
        if self.user != _ROOT:
            return ""
        return self.info.user if wanted is None else wanted


_ROOT = "0"
_BAD_CALL = SIGNALLED + 31  # SIGSYS: killed by a seccomp profile


class _Ended(Exception):
    """An agent ended early, or speaks another version."""

    def __init__(self, why: str, exit_code: int | None, has_greeted: bool) -> None:  # noqa: FBT001
        super().__init__(why)
        self.exit_code = exit_code
        self.has_greeted = has_greeted


class _Slot:
    """One container's channels."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # held while a channel is opened or asked for a sign of life
        self.links: dict[str, Link] = {}  # by the user that it is for; `""` is the container's own
        self.serves_all = False  # the agent is root: one channel for all users
        self.why_not: str | None = None  # there is no agent in it
        self.has_answered = False  # an agent ran here: if none starts now, something inside prevents it
        self.attached: Channel | None = None  # to the channel of its first process, which nobody uses yet

    def key(self, user: str | None) -> str:
        """Return whose channel serves a user."""
        return "" if user is None or self.serves_all else user

    @property
    def channels(self) -> list[Channel]:
        """All of them, that of the first process included."""
        return [link.channel for link in self.links.values()] + ([self.attached] if self.attached else [])


class ChannelPool:
    """Opens channels, keeps them, and opens them anew. Safe to use from many threads; a forked child opens its own."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._slots: defaultdict[str, _Slot] = defaultdict(_Slot)
        self._after_fork()
        renew_after_fork(self)
        weakref.finalize(self, _close_all, self._slots).atexit = False

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards the dict only
        self._slots.clear()  # without closing: the streams are the parent's

    def _slot(self, container_id: str) -> _Slot:
        with self._lock:
            return self._slots[container_id]

    def start(self, container_id: str, deadline: Deadline | None) -> None:
        """Start this process's new container. The stream to its agent is kept for the first command.

        Raises:
            ContainerError: as `Backend.start_workload` does.
        """
        # attached before the start, so that not a byte of the agent's greeting is lost
        stream = self._backend.open_stream(container_id, None, deadline=deadline)
        started = False
        try:
            started = self._backend.start_workload(container_id, deadline=deadline)
        finally:
            if not started:  # somebody else was faster, and may have been so before the stream was open
                stream.close()
        if started:
            self._slot(container_id).attached = Channel(AttachedStream(stream))

    def why_not(self, container_id: str) -> str | None:
        """Return why there is no agent, `None` if there is or that is unknown."""
        return self._slot(container_id).why_not

    def close_idle(self, container_id: str) -> None:
        """Close a container's idle channels. The next command opens another."""
        with self._lock:
            slot = self._slots.get(container_id)
        for channel in slot.channels if slot else ():
            if channel.idle:
                channel.close()

    def close(self) -> None:
        """Close idle channels. The next command opens another."""
        with self._lock:
            ids = list(self._slots)
        for container_id in ids:
            self.close_idle(container_id)

    def forget(self, container_id: str) -> None:
        """Close the channels of a container that was removed."""
        with self._lock:
            slot = self._slots.pop(container_id, None)
        if slot:
            _close(slot)

    def get(self, container_id: str, user: str | None, deadline: Deadline) -> Link | None:
        """Return a user's channel, opening it if needed. `None` without an agent.

        Raises:
            ContainerNotFound: the container is gone.
            ContainerNotRunning: it is stopped or paused.
            InvalidInput: it has no such user.
        """
        slot = self._slot(container_id)
        if slot.why_not is not None:
            return None
        # the fast path: no lock and no request where the agent was heard a moment ago
        link = slot.links.get(slot.key(user))
        if link and link.channel.is_quiet() and link.channel.silent_seconds < _SILENT_SECONDS:
            return link
        with held(slot.lock, deadline, _OPENING):
            return self._renewed(container_id, slot, user, deadline)

    def _renewed(self, container_id: str, slot: _Slot, user: str | None, deadline: Deadline) -> Link | None:
        """Return a channel that answers, or open another. Needs the slot's lock: another thread may have opened it."""
        link = slot.links.get(slot.key(user))
        if slot.why_not is not None or (link and self._answers(link, deadline)):
            return link
        if link:
            link.channel.close()
        info = running(self._backend, container_id, deadline)
        if is_root(info.user) and not slot.serves_all:  # only then the agent has the capabilities to become others
            # root container: from here on one channel serves all users
            slot.serves_all = True
            return self._renewed(container_id, slot, user, deadline)
        whose = _ROOT if slot.serves_all else slot.key(user)
        # the first process's channel costs nothing; an exec is the second choice
        made = self._attached(info, slot, whose, deadline) or self._open(info, slot, whose, deadline)
        if made:
            slot.links[slot.key(user)] = made
            # no agent -> agent: a failure after this is an attack or an end, never "cannot run here"
            slot.has_answered = True
        return made

    def _answers(self, link: Link, deadline: Deadline) -> bool:
        if not link.channel.is_quiet():
            return False
        if link.channel.silent_seconds < _SILENT_SECONDS:
            return True
        try:
            link.channel.ping(deadline.at_most(PING_SECONDS))
        except (ChannelBroken, EngineTimeout):
            running(self._backend, link.info.id, deadline)  # says so where it is paused
            return False
        return True

    def _attached(self, info: WorkloadInfo, slot: _Slot, user: str, deadline: Deadline) -> Link | None:
        """Return the first process's channel. `None` if it has ended, is not here, or is another user's."""
        channel = slot.attached
        if channel is None or not (slot.serves_all or user == ""):
            return None
        slot.attached = None
        link = Link(channel, info, user)
        try:
            if channel.is_quiet():  # first, because it takes no greeting of long ago for a sign of life
                channel.greet(deadline.at_most(_GREETING_SECONDS))
                if self._answers(link, deadline):
                    return link
        except ChannelBroken:
            pass
        except BaseException:
            channel.close()
            raise
        channel.close()
        return None

    def _open(self, info: WorkloadInfo, slot: _Slot, user: str, deadline: Deadline) -> Link | None:
        if agent_program.LABEL not in info.labels:
            slot.why_not = info.labels.get(agent_program.WHY_NOT_LABEL) or "it was made without the agent"
            return None
        whose = user or info.user
        try:
            return Link(self._begin(info, whose, deadline), info, user)
        except NotStarted as reason:
            if reason.exit_code is None or slot.has_answered:
                raise ContainerNotRunning(
                    f"nothing starts in container {info.name}: it is ending, or a command has damaged it; "
                    f"try again, and close the session if that fails too ({reason})"
                ) from reason
            slot.why_not = f"the agent cannot be run: {reason}"
        except _Ended as end:
            self._look_into(end, info, slot, whose, deadline)
            slot.why_not = f"the agent cannot be run: {end}"
        _logger.warning("commands in container %s go through the engine's exec: %s", info.name, slot.why_not)
        return None

    def _begin(self, info: WorkloadInfo, whose: str, deadline: Deadline) -> Channel:
        """Start an agent as a user and return its channel once it answers.

        Raises:
            NotStarted: the engine could not run it.
            _Ended: it ended before it answered.
        """
        argv = [agent_program.PATH, "channel", info.labels.get(agent_program.LIFETIME_LABEL, "0")]
        if whose in ("", _ROOT):
            return self._greeted(info, argv, _ROOT, deadline)
        try:
            # begun as root, so that nothing that runs as the user could ever look at it
            return self._greeted(info, [*argv, whose], _ROOT, deadline)
        except _Ended as end:
            if end.exit_code != NOT_ALLOWED:
                raise
        return self._greeted(info, argv, whose, deadline)  # the container lacks the capabilities for that

    def _greeted(self, info: WorkloadInfo, argv: Sequence[str], user: str, deadline: Deadline) -> Channel:
        spec = ExecSpec(argv=argv, user=user, working_dir="/", stdin=True)
        channel = Channel(self._backend.open_stream(info.id, spec, deadline=deadline))
        try:
            channel.greet(deadline.at_most(_GREETING_SECONDS))
        except ChannelBroken as exc:
            try:
                raise _Ended(str(exc), channel.exit_code(deadline), channel.has_greeted) from exc
            finally:
                channel.close()
        except BaseException:
            channel.close()
            raise
        return channel

    def _look_into(self, end: _Ended, info: WorkloadInfo, slot: _Slot, whose: str, deadline: Deadline) -> None:
        """Decide whether to go on without an agent.

        Raises:
            ContainerNotRunning: the container has just ended, or something inside kills agents: another one may do.
            InvalidInput: the container has no such user.
        """
        running(self._backend, info.id, deadline)
        if end.exit_code == NO_SUCH_USER:
            raise refused_user(whose) from end
        if end.exit_code is not None and end.exit_code > SIGNALLED and end.exit_code != _BAD_CALL:
            # by something inside, which would like podkit to give up the agent for good
            raise ContainerNotRunning(f"the agent in container {info.name} was killed before it answered") from end
        is_unknown = end.exit_code is None and not end.has_greeted
        if is_unknown or end.exit_code == IN_WANT or slot.has_answered:  # the next command finds out
            raise ContainerNotRunning(f"the agent in container {info.name} gave no answer: {end}") from end


def _close(slot: _Slot) -> None:
    for channel in slot.channels:
        channel.close()


def _close_all(slots: dict[str, _Slot]) -> None:
    for slot in slots.values():
        _close(slot)
