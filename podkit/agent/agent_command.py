"""One command through the agent: its input, output and end. A lost one is explained."""

from __future__ import annotations

import errno
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NoReturn

from podkit.agent.channel import Channel, ChannelBroken, ParentsChannel
from podkit.agent.channel_call import WINDOW_BYTES
from podkit.agent.channel_recovery import Recovery
from podkit.agent.command_output import KILLED, Outcome, OutputBuffer
from podkit.agent.command_request import CommandRequest, Place
from podkit.agent.protocol import EndFlag, StartFlag
from podkit.agent.silence import COMMAND_PING_SECONDS, SILENT_SECONDS, Silence, SilenceWatch
from podkit.agent.start_failure import settle_not_started
from podkit.backends.base import Stream
from podkit.errors import CommandInterrupted, EngineTimeout, InvalidInput, PodkitError, SessionBusy
from podkit.utils._deadline import NEVER, Deadline, held, tried
from podkit.utils._fork import renew_after_fork

if TYPE_CHECKING:
    from podkit._models.result import ProcessResult

KILL_GRACE_SECONDS = 1.2
"""How long the agent has to kill a command that is over its time, before its container is restarted instead."""

_SEND_SECONDS = 30.0  # an agent that takes nothing for so long has been stopped
_CREDIT_BYTES = WINDOW_BYTES // 4
_INPUT_BYTES = 256 << 10  # sent at once: other commands' frames wait meanwhile
_LATE_SECONDS = 0.5  # for the remaining output of a timed-out command
_READING = "reading the command's output"
_LATE = "the agent did not end the command in time"
_PAUSED = "the container is paused: unpause it, such as with 'docker unpause'; the command does not run on then"


class StillRunning(Exception):
    """The caller's patience is over, the command is not. Internal: its waiter goes on, or gives up."""


class AgentCommand:
    """A command for the agent. Nothing is sent before `send` or `start`.

    One thread may take output while others write, signal or kill: each has its own way into the channel. To a forked
    child it is over, with `CommandInterrupted`.

    Attributes:
        outcome: so far.
        ended: whether `outcome` is complete.
        error: for its caller in place of a result; `None` if there is a result.
    """

    def __init__(self, channel: Channel, request: CommandRequest, place: Place, recovery: Recovery) -> None:
        self.request = request
        self.outcome = Outcome(
            stdout=OutputBuffer(request.max_output_bytes, request.on_stdout),
            stderr=OutputBuffer(request.max_output_bytes, request.on_stderr),
        )
        self.ended = False
        self.error: PodkitError | None = None
        self._channel = channel
        self._call = channel.new_call()
        self._place = place
        self._recovery = recovery
        self._began = time.monotonic()
        self._deadline = Deadline.after(None if request.timeout is None else request.timeout + KILL_GRACE_SECONDS)
        self._unpaid = 0  # bytes of output that were taken, and not given back as credit
        self._stuck: EngineTimeout | None = None
        self._silence = SilenceWatch(channel, recovery.explain)
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._taking = threading.RLock()  # held by the thread that takes output, and while the end is settled
        self._call.renew()

    @property
    def pid(self) -> int | None:
        """Its process's number inside, `None` until the agent has said it."""
        return self._call.pid

    def send(self, flags: StartFlag = StartFlag.QUIET) -> None:
        """Send it without waiting. `QUIET` if its number is not wanted.

        Raises:
            InvalidInput: it is too long.
            ContainerNotRunning: the container reached the end of its lifetime; nothing was run.
            CommandInterrupted: the container or the engine ended under the command.
        """
        place = self._place
        try:
            self._guard(
                lambda: self._channel.start(
                    self._call,
                    self.request,
                    user=place.user,
                    working_dir=place.working_dir,
                    flags=flags | StartFlag.HOME * place.home,
                    deadline=self._send_deadline(),
                )
            )
        except InvalidInput as exc:  # too long for a frame
            self.ended, self.error = True, exc
            raise

    def start(self, deadline: Deadline) -> None:
        """Send it and wait until its process runs or has failed to.

        Raises:
            InvalidInput: there is no such user or directory; nothing was run.
            ContainerNotRunning: the container reached the end of its lifetime; nothing was run.
            CommandInterrupted: the container or the engine ended under the command.
            EngineTimeout: nothing was heard of it before the deadline, or that of the command, or for 30 s; it was
                killed as far as that was possible.
        """
        call = self._call
        patience = self._send_deadline().sooner(deadline)
        # not QUIET: the agent answers with the process's number
        try:
            self.send(StartFlag(0))
            self._guard(lambda: self._wait(lambda: call.pid is not None or call.over, patience))
            if call.pid is None and not call.over and not self.ended:
                raise EngineTimeout("the agent did not say in time whether the command runs; it was told to kill it")
        except BaseException:
            self.abandon()
            raise
        if call.failed is not None:
            self.poll()
        if self.error:
            raise self.error

    # --- input and signals ----------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send all of `data`. Blocks while the command does not read.

        Raises:
            BrokenPipeError: the command reads no more, or has ended; it says whether by its timeout.
            CommandInterrupted: the container or the engine ended under the command.
        """
        call, pending = self._call, memoryview(data)

        def ready() -> bool:
            return call.input_credit > 0 or call.input_refused or call.over

        while pending:
            self._channel.is_quiet()  # reads pending frames: perhaps the command reads no more
            self._guard(lambda: self._wait(ready, self._deadline) or _raise(EngineTimeout(_LATE)))
            if call.input_refused or call.over or self.ended:
                raise BrokenPipeError(errno.EPIPE, self._why_no_input())
            pending = self._send_input(pending)

    def _why_no_input(self) -> str:
        """Say why nothing can be written. A command that is killed closes its input before the agent tells its end."""
        timeout, late = self.request.timeout, self._call.timed_out
        if self._call.ended is None:
            late = timeout is not None and time.monotonic() - self._began >= timeout
        if late or self.outcome.timed_out:
            return f"the command was ended by its timeout of {timeout:g} s: it reads no more input"
        if self._call.over or self.ended:
            return "the command has ended: it reads no more input"
        return "the command reads no more input: it has closed it"

    def end_input(self) -> None:
        """Let the command read the end of its input."""
        if not self._call.over and not self._call.input_refused:
            self._send_input(memoryview(b""))

    def _send_input(self, pending: memoryview) -> memoryview:
        """Send as much as the credit allows. Returns the rest."""
        piece = pending[: min(self._call.input_credit, _INPUT_BYTES)]
        self._guard(lambda: self._channel.send_input(self._call, piece, self._send_deadline()))
        return pending[len(piece) :]

    def send_signal(self, number: int) -> None:
        """Signal the command's process group. Harmless once it has ended."""
        self._refuse_to_child()
        if not self._call.over and not self.ended:
            self._guard(lambda: self._channel.send_signal(self._call, number, self._send_deadline()))

    def kill(self) -> None:
        """Kill the command's whole tree and wait for its end.

        In a signal's handler that has interrupted a call to the same container there is no waiting: that call sees it.
        """
        self._refuse_to_child()
        if self.ended:
            return
        if not self._call.over:
            self._guard(lambda: self._channel.kill(self._call, self._send_deadline()))
        grace = Deadline.after(KILL_GRACE_SECONDS)
        try:
            with held(self._taking, grace, _READING, late=EngineTimeout):
                self._deadline = self._deadline.sooner(grace)
                while self.take() is not None:  # however much comes: it looks at the time
                    pass
        except SessionBusy:
            return
        except EngineTimeout as exc:  # another thread takes output, and none comes
            # running -> stuck: closing the channel wakes that thread, which then settles the loss
            self._stuck = exc
            self._channel.close()
            with self._taking:
                while self.take() is not None:
                    pass

    def _refuse_to_child(self) -> None:
        """Refuse a forked child each time. Its parent's command goes on."""
        if self.error and isinstance(self.error.__cause__, ParentsChannel):
            raise self.error

    def _wait(self, ready: Callable[[], object], deadline: Deadline) -> bool:
        """Wait as `Channel.wait` does, checking now and then for an agent."""
        while not (found := self._channel.wait(self._call, ready, deadline.at_most(SILENT_SECONDS))):
            if deadline.expired:
                break
            self._look(deadline)
            if self.ended:
                return True
        return found

    def _look(self, deadline: Deadline) -> None:
        """Close a channel whose agent is gone. A cut network or a stopped agent leaves its stream open."""
        found = self._silence.look(deadline)
        if found is Silence.GONE:
            self._channel.close()
        elif found is Silence.PAUSED and self._is_unheard():
            self._give_up_paused()

    def _is_unheard(self) -> bool:
        """Whether the agent was silent since the command was sent."""
        return self._channel.silent_seconds > time.monotonic() - self._began

    def _give_up_paused(self) -> None:
        """Abandon a command sent to a paused container. It dies when it could go on."""
        with suppress(ChannelBroken, EngineTimeout):
            self._channel.kill(self._call, self._send_deadline())
        with self._taking:
            if not self.ended:
                self._settle(lambda: _raise(CommandInterrupted(_PAUSED)))

    def _send_deadline(self) -> Deadline:
        return self._deadline.at_most(_SEND_SECONDS)

    def _guard(self, action: Callable[[], object]) -> None:
        """Use the channel. If it breaks or is silent for too long, settle the command."""
        try:
            action()
            return
        except (ChannelBroken, EngineTimeout) as exc:
            cause = exc
        with self._taking:  # a thread that takes output has been woken, and may have settled it
            if not self.ended:
                self._settle_loss(cause)
        if self.error:
            raise self.error

    # --- output and the end ---------------------------------------------------------------------------

    def feed(self, data: bytes | memoryview, patience_seconds: float | None = None) -> bool:
        """Send input as the command takes it. Counts output; returns whether it took all.

        Args:
            data: the input, or a piece of it.
            patience_seconds: how long it may take none; with it, it may also not print more than is kept.

        Raises:
            StillRunning: it took nothing for so long.
            CommandInterrupted: the container or the engine ended under it.
        """
        pending = memoryview(data)
        while pending:
            if not self._may_send(min(len(pending), _INPUT_BYTES), patience_seconds):
                return False
            pending = self._send_input(pending)
        return True

    def _may_send(self, size: int, patience_seconds: float | None) -> bool:
        """Wait for that much credit: small pieces cost more. Return whether the command reads on."""
        call = self._call

        def ready() -> bool:
            return call.input_credit >= size or call.input_refused

        while not ready() and not call.over:
            if self.take(ready, Deadline.after(patience_seconds)) is None:
                return False
            if patience_seconds is not None and (self.outcome.stdout.truncated or self.outcome.stderr.truncated):
                return False
        return not (call.input_refused or call.over or self.ended)

    def leave(self) -> None:
        """Let it end by itself. Its output is dropped."""
        self._channel.forget(self._call)
        self.ended = True

    def abandon(self) -> None:
        """Kill it if it runs. Raises nothing."""
        if not self._call.sent:
            self._channel.forget(self._call)
            return
        with suppress(PodkitError):
            self.kill()

    def so_far(self) -> ProcessResult:
        """Return a running command's result so far, with exit code -1."""
        if not self.ended:
            self.outcome.duration_seconds = time.monotonic() - self._began
        return self.outcome.to_result(None)

    def poll(self) -> bool:
        """Whether it has ended, as seen without waiting."""
        with tried(self._taking) as taken:
            try:
                if taken and not self.ended:
                    self._channel.wait(self._call, lambda: self._call.over, Deadline.after(0))
                    self._look(self._deadline)
                    if self._call.over:
                        self._finish()
            except SessionBusy:  # in a signal's handler, which cannot look
                pass
            except ChannelBroken as exc:
                self._settle_loss(exc)
        return self.ended

    def take(
        self, enough: Callable[[], bool] = lambda: False, patience: Deadline | None = None
    ) -> tuple[Stream, bytes] | None:
        """Wait for a piece of output and count it. `None` once the command has ended.

        Args:
            enough: returns an empty piece as soon as this is true.
            patience: how long to wait.

        Raises:
            StillRunning: nothing came before `patience` was over.
            CommandInterrupted: the container or the engine ended under the command.
            InvalidInput: there is no such user or directory; nothing was run.
        """
        call = self._call
        with self._taking:
            while True:
                # over its time, but output is still coming: a flood must not postpone the end
                if call.output and not self.ended and self._deadline.expired:
                    self._end_in_time()
                if (piece := call.take_output()) is not None:
                    self._count(*piece)
                    return piece
                if call.over and not self.ended:
                    self._finish()
                if self.ended:
                    break
                deadline = self._deadline.sooner(patience or NEVER)
                try:
                    found = self._wait(lambda: call.output or call.over or enough(), deadline)
                except ChannelBroken as exc:
                    self._settle_loss(exc)
                    continue
                if enough() and not call.output and not call.over:
                    return Stream.STDOUT, b""
                if not found and not self._deadline.expired:
                    raise StillRunning
                if not found:
                    self._settle_loss(EngineTimeout(_LATE))
            if self.error:
                raise self.error
            return None

    def _end_in_time(self) -> None:
        """End a timed-out command that still floods its output."""
        try:
            if not self._channel.wait(self._call, lambda: self._call.over, Deadline.after(_LATE_SECONDS)):
                self._settle_loss(EngineTimeout(_LATE))
        except ChannelBroken as exc:
            self._settle_loss(exc)
        if self.outcome.timed_out or self._call.timed_out:
            self.outcome.stdout.mute()
            self.outcome.stderr.mute()

    def _count(self, stream: Stream, data: bytes) -> None:
        (self.outcome.stdout if stream is Stream.STDOUT else self.outcome.stderr).feed(data)
        # credit goes back in quarters of the window: a frame for every piece would double the traffic
        self._unpaid += len(data)
        if self._unpaid >= _CREDIT_BYTES and not self._call.over:
            size, self._unpaid = self._unpaid, 0
            self._guard(lambda: self._channel.give_credit(self._call, size, self._send_deadline()))

    def _finish(self) -> None:
        """Fill the outcome with the end that the agent told."""
        if (failed := self._call.failed) is not None:
            self._settle(lambda: settle_not_started(self.request, *failed, self.outcome))
            return
        assert self._call.ended is not None
        code, flags = self._call.ended
        self.outcome.exit_code = code
        if (code == KILLED or EndFlag.LOST in flags) and not self._call.timed_out:
            # killed: by its caller, the kernel, or with its whole container?
            try:  # a container that is ending kills its commands before its agent
                self._channel.ping(self._deadline.at_most(COMMAND_PING_SECONDS))
            except (ChannelBroken, EngineTimeout) as exc:
                self._settle_loss(exc)
                return
        self.outcome.timed_out = self._call.timed_out
        self.outcome.oom_killed = EndFlag.OOM in flags
        if flags & (EndFlag.SURVIVORS | EndFlag.LOST):
            self._settle(lambda: self._recovery.survived(self.outcome))
        else:
            self._settle(lambda: None)

    def _settle_loss(self, cause: ChannelBroken | EngineTimeout) -> None:
        """Explain a channel that broke or is silent."""
        if isinstance(cause, ParentsChannel):
            error = CommandInterrupted(f"this process cannot follow the command: {cause}")
            self._settle(lambda: _raise(error, cause))
            return
        timeout = self.request.timeout
        late = cause if isinstance(cause, EngineTimeout) else self._stuck
        if late is not None and self._recovery.explain(0, NEVER) is Silence.PAUSED:
            self._give_up_paused()  # somebody paused the container on purpose: do not restart it
        elif late is not None:
            self.outcome.timed_out = timeout is not None and time.monotonic() - self._began >= timeout
            self._settle(lambda: self._recovery.stuck(late, self.outcome))
        else:
            assert isinstance(cause, ChannelBroken)
            self._settle(lambda: self._recovery.lost(cause, self.outcome))

    def _settle(self, judge: Callable[[], None]) -> None:
        """End the command by `judge`, which completes the outcome or raises. An error is kept, not raised."""
        self._channel.forget(self._call)
        try:
            judge()
        except PodkitError as exc:
            self.error = exc
        finally:
            self.ended = True
            self.outcome.duration_seconds = time.monotonic() - self._began
        if isinstance(self.error, CommandInterrupted):
            self.error.result = self.outcome.to_result(self.request.timeout)
        self.outcome.stdout.finish()
        self.outcome.stderr.finish()


def _raise(error: PodkitError, cause: Exception | None = None) -> NoReturn:
    """Be a `raise` where only a call can stand."""
    raise error from cause
