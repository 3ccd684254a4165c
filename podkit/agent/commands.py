"""A command as asked for, its output as it comes, and what came of it; whichever way it is run."""

from __future__ import annotations

import codecs
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from podkit.core import _checks, _late
from podkit.core._terms import NO_VARIABLES, TIMEOUT_EXIT_CODE
from podkit.errors import InvalidInput

if TYPE_CHECKING:
    from podkit.core.models import ProcessResult
    from podkit.core.secret import Secret

MAX_OUTPUT_BYTES = 10 << 20
"""How much of each stream is kept where the caller sets no limit."""

_LINE_LENGTH = 200
_WORD_LENGTH = 1000  # as much of a word as is looked at: some have megabytes

TextCallback = Callable[[str], object]


class CommandRequest(NamedTuple):
    """A checked command.

    Attributes:
        argv: the program and its arguments.
        working_dir: absolute; `None` means the container's.
        environment: added to the container's.
        timeout: seconds, `None` for no limit.
        user: `None` means the container's.
        input: what the command reads; `None` gives it an empty input.
        max_output_bytes: how much of each stream is kept; the rest is read and dropped.
        on_stdout: called with each piece of text as it comes, in the caller's thread, also past the limit.
        on_stderr: the same for the error stream.
        built_in: `argv` is for a part of the agent itself, which its first word names.
    """

    argv: Sequence[str]
    working_dir: str | None = None
    environment: Mapping[str, str | Secret] = NO_VARIABLES
    timeout: float | None = None
    user: str | None = None
    input: bytes | None = None
    max_output_bytes: int = MAX_OUTPUT_BYTES
    on_stdout: TextCallback | None = None
    on_stderr: TextCallback | None = None
    built_in: bool = False

    @classmethod
    def checked(
        cls,
        command: str | Sequence[str],
        *,
        working_dir: str | None = None,
        environment: Mapping[str, str | Secret] | None = None,
        timeout: float | None = None,
        user: str | None = None,
        input: str | bytes | None = None,
        max_output_bytes: int | None = None,
        on_stdout: TextCallback | None = None,
        on_stderr: TextCallback | None = None,
    ) -> CommandRequest:
        """Check what a caller asked for.

        Raises:
            InvalidInput: one of the values cannot be right; the message names it and the cure.
        """
        kept = (
            MAX_OUTPUT_BYTES if max_output_bytes is None else _checks.check_size(max_output_bytes, "max_output_bytes")
        )
        for name, callback in (("on_stdout", on_stdout), ("on_stderr", on_stderr)):
            if callback is not None and not callable(callback):
                raise InvalidInput(f"{name}={_checks.shown(callback)}: pass a function that takes a str")
        return cls(
            argv=_checks.check_command(command),
            working_dir=None if working_dir is None else _checks.check_absolute_path(working_dir, "working_dir"),
            environment=_checks.check_environment({} if environment is None else environment),
            timeout=_checks.check_timeout(timeout),
            user=None if user is None else _checks.check_user(user),
            input=None if input is None else _checks.check_content(input, "input"),
            max_output_bytes=kept,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
        )


def command_line(argv: Sequence[str]) -> str:
    """Give a command in one line of at most 200 characters, for messages."""
    if len(argv) == 3 and list(argv[:2]) == ["sh", "-c"]:
        text = argv[2][:_WORD_LENGTH]
    else:
        text = shlex.join(word[:_WORD_LENGTH] for word in argv[:_LINE_LENGTH])
    line = " ".join(text.split())
    if not line.isprintable():
        line = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in line)
    return line if len(line) <= _LINE_LENGTH else f"{line[: _LINE_LENGTH - 1]}…"


class OutputBuffer:
    """Keeps the beginning of a stream, up to a limit, and shows all of it to a callback.

    Args:
        limit_bytes: how much is kept.
        callback: gets the text as it comes; a character that is cut between two pieces waits for its rest.
    """

    def __init__(self, limit_bytes: int, callback: TextCallback | None = None) -> None:
        self._limit = limit_bytes
        self._kept = bytearray()
        self._callback = callback
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace") if callback else None
        self.truncated = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        room = self._limit - len(self._kept)
        if room >= len(data):
            self._kept += data
        else:
            self._kept += data[:room]
            self.truncated = True
        self._show(data)

    def finish(self) -> None:
        """Show the callback what is left of a character that was never completed."""
        self._show(b"", final=True)

    def _show(self, data: bytes, *, final: bool = False) -> None:
        if self._callback and self._decoder and (text := self._decoder.decode(data, final)):
            self._callback(text)

    @property
    def data(self) -> bytes:
        """What was kept, as bytes."""
        return bytes(self._kept)

    @property
    def text(self) -> str:
        """What was kept, as text: bytes that are not UTF-8 appear as U+FFFD."""
        if not self.truncated:
            return self._kept.decode("utf-8", "replace")
        # the limit may have cut a character: its first half is dropped rather than shown as broken
        return codecs.getincrementaldecoder("utf-8")("replace").decode(self._kept)


class Outcome:
    """What came of a command, as bytes; filled in as it becomes known.

    Attributes:
        stdout: as far as it was kept.
        stderr: the same.
        command: what is run, for messages.
        exit_code: `None` where it is not known (yet).
        duration_seconds: from sending it to knowing its end.
        timed_out: it was over its time and was killed.
        container_restarted: the container was killed and started for that.
        oom_killed: the kernel killed something of it for memory.
    """

    def __init__(
        self,
        stdout: OutputBuffer,
        stderr: OutputBuffer,
        *,
        command: Sequence[str] = (),
        exit_code: int | None = None,
    ) -> None:
        self.stdout = stdout
        self.stderr = stderr
        self.command = command
        self.exit_code = exit_code
        self.duration_seconds = 0.0
        self.timed_out = False
        self.container_restarted = False
        self.oom_killed = False

    def to_result(self, timeout: float | None) -> ProcessResult:
        """Give the result that the caller sees."""
        stderr, exit_code = self.stderr.text, self.exit_code
        if self.timed_out:
            newline = "\n" if stderr and not stderr.endswith("\n") else ""
            stderr += f"{newline}podkit: the command timed out after {timeout:g} s\n"
            exit_code = TIMEOUT_EXIT_CODE
        return _late.ProcessResult(
            exit_code=-1 if exit_code is None else exit_code,
            stdout=self.stdout.text,
            stderr=stderr,
            duration_seconds=self.duration_seconds,
            timed_out=self.timed_out,
            stdout_truncated=self.stdout.truncated,
            stderr_truncated=self.stderr.truncated,
            oom_killed=self.oom_killed,
            container_restarted=self.container_restarted,
            command=command_line(self.command) if self.command else "",
        )
