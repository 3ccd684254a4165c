"""A running command, in the terms of `subprocess.Popen`."""

from __future__ import annotations

import codecs
import signal
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from podkit.agent.agent_command import AgentCommand, StillRunning
from podkit.backends.base import Stream
from podkit.errors import CommandInterrupted, CommandStillRunning, InvalidInput
from podkit.utils import _checks
from podkit.utils._deadline import Deadline

if TYPE_CHECKING:
    from podkit.core.models import ProcessResult

__all__ = ["Command", "CommandInput", "Output"]


class Output(str):
    """A piece of output: its text and its stream.

    Attributes:
        stream: `"stdout"` or `"stderr"`.
    """

    __slots__ = ("stream",)

    stream: Literal["stdout", "stderr"]

    def __new__(cls, text: str, stream: Literal["stdout", "stderr"]) -> Self:
        """Make the piece."""
        made = super().__new__(cls, text)
        made.stream = stream
        return made

    def __getnewargs__(self) -> tuple[str, Literal["stdout", "stderr"]]:  # type: ignore[override]  # str has one
        return str(self), self.stream


class CommandInput:
    """The standard input of a running command. One thread may write while another reads the output."""

    def __init__(self, execution: AgentCommand) -> None:
        self._execution = execution
        self.closed = False

    def write(self, data: str | bytes) -> None:
        """Send `data`, text as UTF-8. Blocks while the command does not read.

        Raises:
            BrokenPipeError: the command reads no more, or has ended; it says whether by its timeout.
            CommandInterrupted: the container or the engine ended under the command.
        """
        content = _checks.check_content(data, "data")
        if self.closed:
            raise InvalidInput("the command's input was closed: nothing more can be written to it")
        self._execution.write(content)

    def flush(self) -> None:
        """Do nothing: all input has been sent. For `print(..., file=command.stdin, flush=True)`."""

    def close(self) -> None:
        """Close the command's input. Twice is harmless."""
        if not self.closed:
            self.closed = True
            self._execution.end_input()


class Command:
    """A running command, in `subprocess.Popen`'s terms. Made by `popen`.

    `wait` returns a `ProcessResult`. Iterating yields both streams together. The input is always a pipe: a command that
    reads to its end waits for `stdin.close()`. As a context manager it kills the command with its whole tree at the end
    of the block. One thread may read while others write, signal or kill. Output that nobody reads stops the command,
    once about 1 MiB of it waits, until `wait` or iteration takes it. In a forked child every method raises
    `CommandInterrupted`, and the command goes on.

    Attributes:
        stdin: its input.
    """

    def __init__(self, execution: AgentCommand) -> None:
        self._execution = execution
        self._decoders = {stream: codecs.getincrementaldecoder("utf-8")("replace") for stream in Stream}
        self.stdin = CommandInput(execution)

    @property
    def pid(self) -> int | None:
        """Its process's number inside. `None` if its program could not be run.

        Also where the container was restarted before the agent had said it: then the command has ended, too.
        """
        return self._execution.pid

    def poll(self) -> int | None:
        """Return the exit code, `None` while it runs. Does not block, and leaves the output to be read.

        Raises:
            CommandInterrupted: the container or the engine ended under it.
            InvalidInput: there is no such user or directory; nothing was run.
        """
        execution = self._execution
        if not execution.poll():
            return None
        if execution.error:
            raise execution.error
        return execution.outcome.to_result(execution.request.timeout).exit_code

    def wait(self, timeout: float | None = None) -> ProcessResult:
        """Wait for the end and return the result. It holds all output, read or not.

        Args:
            timeout: how many seconds to wait, 0 to look only; the command is not touched where that is too short.

        Raises:
            CommandStillRunning: it runs on; it is a `TimeoutError` too, and has the output so far as `result`.
            CommandInterrupted: the container or the engine ended under it.
            InvalidInput: there is no such user or directory; nothing was run.
        """
        patience = Deadline.after(None if timeout is None else _checks.check_age(timeout, "timeout"))
        execution = self._execution
        try:
            while execution.take(patience=patience) is not None:
                if patience.expired:
                    raise StillRunning
        except StillRunning:
            so_far = execution.so_far()
            raise CommandStillRunning(f"the command still runs after {timeout:g} s", result=so_far) from None
        return execution.outcome.to_result(execution.request.timeout)

    def __iter__(self) -> Iterator[Output]:
        """Yield both streams' output until the command ends.

        Goes on past `max_output_bytes`. Of several threads that iterate each piece goes to one.
        """
        while (piece := self._execution.take()) is not None:
            stream, data = piece
            if text := self._decoders[stream].decode(data):
                yield Output(text, _NAMES[stream])
        for stream, decoder in self._decoders.items():
            if text := decoder.decode(b"", final=True):
                yield Output(text, _NAMES[stream])

    def send_signal(self, number: int | str) -> None:
        """Signal the command's process group. Harmless once it has ended.

        Args:
            number: such as `signal.SIGINT`, 2, `"SIGINT"`, `"INT"` or `"int"`.

        Raises:
            InvalidInput: there is no such signal.
            CommandInterrupted: the container or the engine ended under the command.
        """
        self._execution.send_signal(check_signal(number))

    def terminate(self) -> None:
        """Ask it to end: SIGTERM to its process group."""
        self._execution.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill its whole tree and wait for the end. Twice is harmless.

        Where the agent cannot do it, the container is killed and started; the result says so.
        """
        self._execution.kill()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self.kill()
        except (CommandInterrupted, InvalidInput):
            pass  # then nothing of it runs either
        except BaseException:  # such as of a signal's handler
            self._execution.abandon()
            raise

    def __repr__(self) -> str:
        outcome = self._execution.outcome
        return f"<Command {f'exit_code={outcome.exit_code}' if self._execution.ended else 'running'}>"


def unless_interrupted(start: Callable[[list[Command]], Command]) -> Command:
    """Return the command of `start`. It is killed if anything raises before.

    Args:
        start: adds the command to its list before it sends anything of it.
    """
    prepared: list[Command] = []
    try:
        return start(prepared)
    except BaseException:  # such as of a signal's handler: nobody else knows of the command
        for command in prepared:
            command._execution.abandon()
        raise


_NAMES: dict[Stream, Literal["stdout", "stderr"]] = {Stream.STDOUT: "stdout", Stream.STDERR: "stderr"}


def check_signal(number: object) -> int:
    """Return a signal's number on Linux, whatever podkit's own system.

    Raises:
        InvalidInput: there is no such signal.
    """
    name = number.name if isinstance(number, signal.Signals) else number
    if isinstance(name, str):
        found = _SIGNALS.get(name.upper().removeprefix("SIG"))
        if found is not None:
            return found
    elif isinstance(name, int) and not isinstance(name, bool) and 1 <= name <= _LAST_SIGNAL:
        return name
    raise InvalidInput(
        f"{_checks.shown(number)} is no signal: pass a name such as 'SIGTERM' or 'TERM', or a number from 1 to "
        f"{_LAST_SIGNAL}"
    )


_LAST_SIGNAL = 64
_NAMES_BY_NUMBER = (
    "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN TTOU URG "
    "XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"
)
_SIGNALS = {name: number for number, name in enumerate(_NAMES_BY_NUMBER.split(), start=1)} | {
    "IOT": 6,
    "CLD": 17,
    "POLL": 29,
    "RTMIN": 34,  # the C library keeps the two before
    "RTMAX": 64,
}
