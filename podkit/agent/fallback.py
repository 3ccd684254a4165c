"""Commands through the engine's own exec: slow, but there wherever an engine is.

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

from podkit.agent.commands import CommandRequest, Outcome, OutputBuffer
from podkit.backends.base import Backend, Chunk, ExecSpec, ExecStream, NotStarted, Stream, WorkloadInfo
from podkit.core.models import ContainerStatus
from podkit.errors import (
    CommandInterrupted,
    ContainerError,
    ContainerNotFound,
    ContainerNotRunning,
    EngineError,
    EngineTimeout,
    InvalidInput,
    PodkitError,
)
from podkit.utils._deadline import Deadline, caller_deadline, engine_deadline, held, wait_until
from podkit.utils._fork import renew_after_fork

GRACE_SECONDS = 1.9
"""How long after a command's timeout the engine has to answer: less than the 2 s by which a call may be late."""

_RESTART_SECONDS = 30.0
_QUIET_SECONDS = 0.05  # how long a stream may be silent before the engine is asked whether the command has ended
_QUIET_LONGEST_SECONDS = 2.0
_DRAIN_QUIET_SECONDS = 0.25  # the command has ended, but a child holds its pipes: what it wrote itself is still to come
_DRAIN_LONGEST_SECONDS = 1.0
_INLINE_INPUT_BYTES = 64 << 10  # fits the socket's empty buffer, so that writing it cannot block
_SAME_RUN_SECONDS = 0.25
_KILLED = 137
_RESTARTING = "killing and starting the container"

_logger = logging.getLogger(__name__)


class _Restart:
    """Restarts of one container: at most one at a time, and how many have begun."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.count = 0


class EngineExec:
    """Runs commands in containers through the engine's exec.

    Safe to use from many threads. A command that times out ends the other commands in the same container with it: their
    callers get `CommandInterrupted`.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards the dict only
        self._restarts: defaultdict[str, _Restart] = defaultdict(_Restart)

    def _restart_of(self, container_id: str) -> _Restart:
        with self._lock:
            return self._restarts[container_id]

    def forget(self, container_id: str) -> None:
        """Drop what is kept of a container that was removed."""
        with self._lock:
            self._restarts.pop(container_id, None)

    def inspect(self, container_id: str) -> WorkloadInfo:
        """Ask the engine for the state of a container, never in the middle of a restart by this object.

        Raises:
            ContainerNotFound: it is gone.
            EngineTimeout: a restart is still under way at the caller's deadline.
        """
        restart = self._restart_of(container_id)
        while True:
            with held(restart.lock, caller_deadline(), _RESTARTING):
                count = restart.count
            # not under the lock: with a frozen engine this takes long, and a command may be over its time meanwhile
            info = self._backend.inspect_workload(container_id)
            if restart.count == count:
                return info

    def run(self, container_id: str, request: CommandRequest) -> Outcome:
        """Run a command and wait for its end, or for its timeout and the killing.

        Ends when the command itself has ended, even if a child of it holds its pipes open.

        Raises:
            ContainerNotFound: there is no such container; nothing was run.
            ContainerNotRunning: it is stopped or paused; nothing was run.
            InvalidInput: the engine knows no such user or working directory.
            CommandInterrupted: the container or the engine ended under the command; `result` has the output so far.
        """
        began = time.monotonic()
        out = OutputBuffer(request.max_output_bytes, request.on_stdout)
        err = OutputBuffer(request.max_output_bytes, request.on_stderr)
        outcome = Outcome(stdout=out, stderr=err)
        deadline = Deadline.after(request.timeout)
        limit = Deadline.after(None if request.timeout is None else request.timeout + GRACE_SECONDS)
        with engine_deadline(limit):
            before = self._running(container_id)
            stream = self._backend.open_stream(container_id, _exec_spec(request))
        try:
            with engine_deadline(deadline):
                self._communicate(stream, request.input, outcome, deadline)
            if outcome.exit_code == _KILLED:
                with engine_deadline(limit):
                    restarted = self._was_restarted(before)
                if restarted and deadline.remaining > _SAME_RUN_SECONDS:
                    raise ContainerNotRunning(f"container {before.name} was killed and started again under it")
                # else the timeout of another command has ended this one just before its own
                outcome.timed_out = outcome.container_restarted = restarted
        except EngineTimeout as exc:
            if not deadline.reached:
                raise self._interrupted(outcome, began, exc) from exc
            outcome.timed_out = True
            stream.close()  # first: an engine that cannot get rid of output is slow to kill
            self._end(before, outcome, began, request.timeout)
        except (EngineError, ContainerError) as exc:
            raise self._interrupted(outcome, began, exc) from exc
        except InvalidInput:
            raise  # the engine refused the user or the directory: nothing runs
        except NotStarted as exc:
            if exc.exit_code is None:
                raise ContainerNotRunning(f"container {before.name} could not run the command: {exc}") from exc
            outcome = Outcome(stdout=OutputBuffer(0), stderr=OutputBuffer(64 << 10), exit_code=exc.exit_code)
            outcome.stderr.feed(f"{exc}\n".encode())
        except BaseException as exc:  # noqa: BLE001 - Ctrl-C, or a callback: the command must not outlive its caller
            stream.close()
            with suppress(PodkitError):
                self._restart(before)
            raise exc.error if isinstance(exc, _CallbackRaised) else exc  # noqa: B904
        finally:
            stream.close()
        outcome.duration_seconds = time.monotonic() - began
        return outcome

    def _running(self, container_id: str) -> WorkloadInfo:
        info = self._backend.inspect_workload(container_id)
        if info.status is ContainerStatus.PAUSED:
            raise ContainerNotRunning(f"container {info.name} is paused: unpause it, such as with 'docker unpause'")
        if info.status is not ContainerStatus.RUNNING:
            raise ContainerNotRunning(f"container {info.name} is {info.status}: start it first")
        return info

    def _communicate(self, stream: ExecStream, input: bytes | None, outcome: Outcome, deadline: Deadline) -> None:
        """Feed the command, read what it prints, and find out how it ended.

        Raises:
            EngineTimeout: the deadline was reached first.
        """
        writer = _feed(stream, input, deadline) if input is not None else None
        quiet = _QUIET_SECONDS
        while True:
            try:
                chunk = stream.read(deadline.at_most(quiet))
            except EngineTimeout:
                if deadline.reached:
                    raise
                outcome.exit_code = stream.exit_code()
                if outcome.exit_code is not None:
                    _drain(stream, outcome)
                    break
                quiet = min(quiet * 2, _QUIET_LONGEST_SECONDS)
                continue
            if not chunk.data:
                break
            quiet = _QUIET_SECONDS
            _take(chunk, outcome)
            if deadline.reached:  # a flood always has something ready, and reading alone would never be late
                raise EngineTimeout("the command did not end in time")
        with _callbacks():
            outcome.stdout.finish()
            outcome.stderr.finish()
        if outcome.exit_code is None:
            outcome.exit_code = _wait_for_exit_code(stream, deadline)
        if writer:
            stream.close()  # wakes a writer whose command did not read all of its input
            writer.join(_DRAIN_LONGEST_SECONDS)

    def _was_restarted(self, before: WorkloadInfo) -> bool:
        """Find out whether a command was killed with its container, and not on its own.

        Raises:
            ContainerNotFound: the container was removed.
            ContainerNotRunning: it has ended.
        """

        def changed() -> bool:
            now = self.inspect(before.id)
            if now.status is not ContainerStatus.RUNNING:
                why = "reached the end of its lifetime" if now.exit_code == 0 else f"is {now.status}"
                raise ContainerNotRunning(f"container {now.name} {why} while the command ran")
            return now.started_at != before.started_at

        # the engine may notice the end of the command a moment before that of the container
        return wait_until(changed, deadline=Deadline.after(_SAME_RUN_SECONDS), interval=0.05)

    def _end(self, before: WorkloadInfo, outcome: Outcome, began: float, timeout: float | None) -> None:
        """End a command that is over its time.

        Raises:
            CommandInterrupted: the engine did not do it in time: the command may still be running.
        """
        try:
            self._restart(before)
        except ContainerNotFound:
            return  # removed meanwhile: nothing of the command runs
        except PodkitError as exc:
            outcome.duration_seconds = time.monotonic() - began
            raise CommandInterrupted(
                f"the command timed out after {timeout:g} s and could not be ended: {exc}",
                result=outcome.to_result(timeout),
            ) from exc
        outcome.container_restarted = True
        _logger.warning("container %s was killed and started to end a command over its time", before.name)

    def _restart(self, before: WorkloadInfo) -> None:
        """Kill and start the container, unless another thread has done so since the command began."""
        restart = self._restart_of(before.id)
        grace = Deadline.after(GRACE_SECONDS)
        with held(restart.lock, grace, _RESTARTING):
            restart.count += 1
            with engine_deadline(grace):
                now = self._backend.inspect_workload(before.id)
            if now.started_at != before.started_at:
                return
            # an engine that has just answered is not frozen, only slow: it gets the time for the rest
            with engine_deadline(Deadline.after(_RESTART_SECONDS)):
                if now.status is not ContainerStatus.EXITED:
                    self._backend.stop_workload(before.id, 0)
                self._backend.start_workload(before.id)

    def _interrupted(self, outcome: Outcome, began: float, cause: Exception) -> CommandInterrupted:
        outcome.duration_seconds = time.monotonic() - began
        return CommandInterrupted(
            f"the command was interrupted and is not sent again: {cause}", result=outcome.to_result(None)
        )


def _exec_spec(request: CommandRequest) -> ExecSpec:
    return ExecSpec(
        argv=request.argv,
        user=request.user,
        working_dir=request.working_dir,
        environment=request.environment,
        stdin=request.input is not None,
    )


class _CallbackRaised(BaseException):
    """Carries what a caller's callback raised past the handlers of podkit's own errors, whatever its class."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(error)
        self.error = error


@contextmanager
def _callbacks() -> Iterator[None]:
    try:
        yield
    except BaseException as exc:
        raise _CallbackRaised(exc) from exc


def _take(chunk: Chunk, outcome: Outcome) -> None:
    with _callbacks():
        (outcome.stdout if chunk.stream is Stream.STDOUT else outcome.stderr).feed(chunk.data)


def _feed(stream: ExecStream, input: bytes, deadline: Deadline) -> threading.Thread | None:
    """Write the command's input, in a thread of its own where that may block."""

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


def _drain(stream: ExecStream, outcome: Outcome) -> None:
    """Read what an ended command left in its pipes, for as long as it comes without a pause."""
    longest = Deadline.after(_DRAIN_LONGEST_SECONDS)
    with suppress(EngineTimeout):
        while chunk := stream.read(longest.at_most(_DRAIN_QUIET_SECONDS)):
            if not chunk.data:
                return
            _take(chunk, outcome)


def _wait_for_exit_code(stream: ExecStream, deadline: Deadline) -> int:
    """Ask until the engine has noticed the end, which comes a little after the end of the output.

    A command may also close its output and go on: so this waits as long as the command may run.
    """
    found: list[int] = []

    def ended() -> bool:
        code = stream.exit_code()
        if code is not None:
            found.append(code)
        return code is not None

    if not wait_until(ended, deadline=deadline, interval=0.002, longest_interval=0.25):
        raise EngineTimeout("the command did not end in time")
    return found[0]
