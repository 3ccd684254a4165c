"""Commands through the engine's own exec. Slow, but always there.

What it cannot do, it does the hard way: an exec cannot be killed through the engine's API, so a command that is over
its time is ended by killing the container and starting it again, and the result says so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from podkit._models.container_status import ContainerStatus
from podkit.agent.command_output import KILLED, Outcome, OutputBuffer
from podkit.agent.command_request import CommandRequest
from podkit.agent.runner import GRACE_SECONDS, Restarts, ended, latest, needs_agent, running
from podkit.backends.base import Backend, Chunk, Deadline, ExecSpec, ExecStream, NotStarted, Stream, WorkloadInfo
from podkit.errors import (
    CommandInterrupted,
    ContainerError,
    ContainerNotFound,
    ContainerNotRunning,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
    PodkitError,
)
from podkit.utils._deadline import wait_until
from podkit.utils._fork import renew_after_fork
from podkit.utils._usage_count import UsageCount

_QUIET_SECONDS = 0.05  # how long a stream may be silent before the engine is asked whether the command has ended
_QUIET_LONGEST_SECONDS = 0.5
_DRAIN_QUIET_SECONDS = (
    0.25  # the command has ended, but a child holds its pipes: the last of its own output is on its way
)
_DRAIN_LONGEST_SECONDS = 1.0
_LAST_ASK_SECONDS = 0.4
_INLINE_INPUT_BYTES = 64 << 10  # fits the socket's empty buffer, so that writing it cannot block
SAME_RUN_SECONDS = 0.25
_NO_AGENT = "no agent was asked for"

if TYPE_CHECKING:
    from podkit.agent.agent_command import AgentCommand

_logger = logging.getLogger(__name__)


class EngineRunner:
    """A `Runner` over the engine's exec.

    A command that times out ends the other commands in the same container with it: their callers get
    `CommandInterrupted`. Commands of another podkit in the container are unknown here: an engine counts execs, and a
    health check is an exec too.
    """

    def __init__(self, backend: Backend, restarts: Restarts) -> None:
        self._backend = backend
        self._restarts = restarts
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards the dict only
        self._running: defaultdict[str, UsageCount] = defaultdict(UsageCount)

    def start(self, container_id: str, *, deadline: Deadline | None = None) -> None:
        """See `Runner.start`."""
        self._backend.start_workload(container_id, deadline=deadline)

    def why_no_agent(self, container_id: str) -> str | None:
        """See `Runner.why_no_agent`."""
        return _NO_AGENT

    def is_busy(self, container_id: str, *, deadline: Deadline | None = None) -> bool:
        """See `Runner.is_busy`; it knows only this process's commands."""
        return bool(self._running.get(container_id))

    def release(self, container_id: str) -> None:
        """See `Runner.release`; nothing is open between two commands."""

    def forget(self, container_id: str) -> None:
        """See `Runner.forget`."""
        with self._lock:
            self._running.pop(container_id, None)

    def close(self) -> None:
        """See `Runner.close`; nothing is open between two commands."""

    def run(self, container_id: str, request: CommandRequest) -> Outcome:
        """See `Runner.run`."""
        with self._running_in(container_id).counted():
            return _Run(self._backend, self._restarts, request).run(container_id)

    def prepare(self, container_id: str, request: CommandRequest, deadline: Deadline) -> AgentCommand:
        """See `Runner.prepare`.

        Raises:
            NotSupported: always.
        """
        raise needs_agent(_NO_AGENT)

    def _running_in(self, container_id: str) -> UsageCount:
        with self._lock:
            return self._running[container_id]


class _Run:
    """One command.

    Attributes:
        deadline: when it is over its time.
        limit: until when the engine has to answer, so that the call is not late.
    """

    def __init__(self, backend: Backend, restarts: Restarts, request: CommandRequest) -> None:
        self._backend = backend
        self._restarts = restarts
        self._request = request
        self._began = time.monotonic()
        self.deadline = Deadline.after(request.timeout)
        self.limit = latest(request.timeout)
        self._outcome = Outcome(
            stdout=OutputBuffer(request.max_output_bytes, request.on_stdout),
            stderr=OutputBuffer(request.max_output_bytes, request.on_stderr),
        )

    def run(self, container_id: str) -> Outcome:
        # its start time tells later whether the container was restarted under the command
        before = running(self._backend, container_id, self.limit)
        stream = self._open(before)
        try:
            if self._communicate(stream):
                self._judge_kill(before)
            else:
                self._outcome.timed_out = True
                stream.close()  # first: an engine that cannot get rid of output is slow to kill
                self._end(before)
        except (InvalidInput, CommandInterrupted):
            raise  # the engine refused the user or the directory, so nothing runs; or it could not be ended
        except (EngineError, ContainerError) as exc:
            raise self._interrupted(f"the command was interrupted and is not sent again: {exc}") from exc
        except NotStarted as exc:
            if exc.exit_code is None:
                raise ContainerNotRunning(f"container {before.name} could not run the command: {exc}") from exc
            self._outcome = Outcome(stdout=OutputBuffer(0), stderr=OutputBuffer(64 << 10), exit_code=exc.exit_code)
            self._outcome.stderr.feed(f"{exc}\n".encode())
        except BaseException as exc:  # noqa: BLE001 - Ctrl-C, or a callback: the command must not outlive its caller
            stream.close()
            self._restart_quietly(before)
            raise exc.error if isinstance(exc, _CallbackRaised) else exc  # noqa: B904
        finally:
            stream.close()
        self._outcome.duration_seconds = time.monotonic() - self._began
        return self._outcome

    def _open(self, before: WorkloadInfo) -> ExecStream:
        """Start the command. If the engine does not confirm it, kill it."""
        request = self._request
        spec = ExecSpec(
            argv=request.argv,
            user=request.user,
            working_dir=None if request.working_dir is None else request.directory_in(before.working_dir),
            environment=request.environment,
            stdin=request.input is not None,
        )
        try:
            return self._backend.open_stream(before.id, spec, deadline=self.limit)
        except (EngineTimeout, EngineUnavailable) as exc:
            self._restart_quietly(before)
            raise self._interrupted(f"the command may have been sent, and is not sent again: {exc}") from exc
        except PodkitError:
            raise
        except BaseException:  # Ctrl-C
            self._restart_quietly(before)
            raise

    # --- running --------------------------------------------------------------------------------------

    def _communicate(self, stream: ExecStream) -> bool:
        """Feed the command, read its output, find its end. False at its timeout."""
        input = self._request.input
        writer = _feed(stream, input, self.deadline) if input is not None else None
        if not self._read(stream):
            return False
        with _callbacks():
            self._outcome.stdout.finish()
            self._outcome.stderr.finish()
        if self._outcome.exit_code is None and not self._wait_for_exit_code(stream):
            return False
        if writer:
            stream.close()  # wakes a writer whose command did not read all of its input
            writer.join(_DRAIN_LONGEST_SECONDS)
        return True

    def _read(self, stream: ExecStream) -> bool:
        """Read until the output or the command ends. False at its timeout."""
        quiet, asked = _QUIET_SECONDS, time.monotonic()
        while True:
            # an exec's stream ends with its last child, so a pause means: ask for the exit code
            chunk = stream.read(self.deadline.at_most(quiet))
            if chunk is not None:
                if not chunk.data:
                    return True
                quiet = _QUIET_SECONDS
                self._take(chunk)
            # a child that goes on printing hides the end of the command, and a flood is never silent
            if chunk is None or time.monotonic() - asked > _QUIET_LONGEST_SECONDS or self.deadline.expired:
                asked = time.monotonic()
                over_time = self.deadline.expired
                if self._has_ended(stream):
                    self._drain(stream)
                    return True
                if over_time:
                    return False
                quiet = min(quiet * 2, _QUIET_LONGEST_SECONDS)

    def _has_ended(self, stream: ExecStream) -> bool:
        """Ask for the exit code, once more past the deadline. It may just have ended."""
        until = Deadline.after(_LAST_ASK_SECONDS) if self.deadline.expired else self.deadline
        try:
            self._outcome.exit_code = stream.exit_code(deadline=until)
        except EngineTimeout:
            if not self.deadline.expired:
                raise
        return self._outcome.exit_code is not None

    def _wait_for_exit_code(self, stream: ExecStream) -> bool:
        """Wait for the engine to notice the end, a little after the output's.

        A command may also close its output and go on: so this waits as long as the command may run.
        """
        return wait_until(
            lambda: self._has_ended(stream), deadline=self.deadline, interval=0.002, longest_interval=0.25
        )

    def _drain(self, stream: ExecStream) -> None:
        """Read the rest of an ended command's output, until a pause."""
        longest = Deadline.after(_DRAIN_LONGEST_SECONDS)
        while (chunk := stream.read(longest.at_most(_DRAIN_QUIET_SECONDS))) and chunk.data:
            self._take(chunk)
            if longest.expired:
                return

    def _take(self, chunk: Chunk) -> None:
        with _callbacks():
            (self._outcome.stdout if chunk.stream is Stream.STDOUT else self._outcome.stderr).feed(chunk.data)

    # --- ending ---------------------------------------------------------------------------------------

    def _judge_kill(self, before: WorkloadInfo) -> None:
        """Tell whether another command's timeout killed this one with its container.

        Raises:
            ContainerNotFound: the container was removed.
            ContainerNotRunning: it has ended, or was restarted long before the command's own time was over.
        """
        if self._outcome.exit_code != KILLED:
            return

        def restarted() -> bool:
            now = self._restarts.look(before.id, deadline=self.limit)
            if now.status is not ContainerStatus.RUNNING:
                why = ended(now)
                raise ContainerNotRunning(f"container {now.name} {why} while the command ran")
            return now.started_at != before.started_at

        # the engine may notice the end of the command a moment before that of the container
        if wait_until(restarted, deadline=Deadline.after(SAME_RUN_SECONDS), interval=0.05):
            # this command's own time was over too: its timeout and the other one's were the same restart
            if self.deadline.remaining > SAME_RUN_SECONDS:
                raise ContainerNotRunning(f"container {before.name} was killed and started again under it")
            self._outcome.timed_out = self._outcome.container_restarted = True

    def _end(self, before: WorkloadInfo) -> None:
        """End a command that is over its time.

        Raises:
            CommandInterrupted: the engine did not do it in time: the command may still be running.
        """
        try:
            self._restarts.restart(before, deadline=self.limit)
        except ContainerNotFound:
            return  # removed meanwhile: nothing of the command runs
        except PodkitError as exc:
            timeout = self._request.timeout
            raise self._interrupted(f"the command timed out after {timeout:g} s and could not be ended: {exc}") from exc
        self._outcome.container_restarted = True
        _logger.warning("container %s was killed and started to end a command over its time", before.name)

    def _restart_quietly(self, before: WorkloadInfo) -> None:
        with suppress(PodkitError):
            self._restarts.restart(before, deadline=Deadline.after(GRACE_SECONDS))

    def _interrupted(self, message: str) -> CommandInterrupted:
        self._outcome.duration_seconds = time.monotonic() - self._began
        return CommandInterrupted(message, result=self._outcome.to_result(self._request.timeout))


class _CallbackRaised(BaseException):
    """Carries a callback's exception past podkit's own handlers."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def _callbacks() -> Iterator[None]:
    try:
        yield
    except BaseException as exc:
        raise _CallbackRaised(exc) from exc


def _feed(stream: ExecStream, input: bytes, deadline: Deadline) -> threading.Thread | None:
    """Write the input, in a thread if that may block."""

    def write() -> None:
        # the command may end, time out or lose its container before it has read everything: the reader reports that
        with suppress(OSError, PodkitError):
            stream.write(input, deadline)
        stream.close_stdin()

    if len(input) <= _INLINE_INPUT_BYTES:
        write()
        return None
    thread = threading.Thread(target=write, name="podkit-stdin", daemon=True)
    thread.start()
    return thread
