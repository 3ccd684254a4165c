"""A command's request, output and outcome, whichever way it runs."""

from __future__ import annotations

import codecs
import posixpath
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from typing import TYPE_CHECKING

from podkit.core import _checks
from podkit.core import _late as models
from podkit.core._checks import CommandLike, StrPath
from podkit.errors import InvalidInput

if TYPE_CHECKING:
    from podkit.core.models import ProcessResult

TIMEOUT_EXIT_CODE = 124
"""The exit code of a command that was over its time, as of coreutils' `timeout`."""

MAX_OUTPUT_BYTES = 10 << 20
"""How much of each stream is kept where the caller sets no limit."""

TextCallback = Callable[[str], object]


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRequest:
    """A checked command.

    Attributes:
        argv: the program and its arguments.
        working_dir: absolute, or below the container's; `None` means that one itself.
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
    environment: Mapping[str, str] = field(default_factory=dict)
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
        command: CommandLike,
        *,
        working_dir: StrPath | None = None,
        environment: Mapping[str, str] | None = None,
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
            working_dir=None if working_dir is None else _checks.check_working_dir(working_dir),
            environment={} if environment is None else _checks.check_environment(environment),
            timeout=_checks.check_timeout(timeout),
            user=None if user is None else _checks.check_user(user),
            input=None if input is None else _checks.check_content(input, "input"),
            max_output_bytes=kept,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
        )

    def directory_in(self, working_dir: str) -> str:
        """Return its directory, given the container's working directory."""
        return working_dir if self.working_dir is None else posixpath.join(working_dir, self.working_dir)


def refused_user(user: str | None, why: str = "there is no such user or group in the container") -> InvalidInput:
    """Return the error for an unusable user. `None` is the container's own."""
    whose = "the container's user" if user is None else f"user {user!r}"
    return InvalidInput(f"nothing in the container can run as {whose}: {why}; name another user, or a number")


class OutputBuffer:
    """Keeps a stream's beginning, up to a limit. A callback sees all of it.

    Args:
        limit_bytes: how much is kept.
        callback: gets the text as it comes; a character that is cut between two pieces waits for its rest.
    """

    def __init__(self, limit_bytes: int, callback: TextCallback | None = None) -> None:
        self._kept = BytesIO()  # gives its bytes without copying them
        self._room = limit_bytes
        self._callback = callback
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self.truncated = False

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if len(data) <= self._room:
            self._room -= self._kept.write(data)
        else:
            self._room -= self._kept.write(data[: self._room])
            self.truncated = True
        if self._callback and (text := self._decoder.decode(data)):
            self._callback(text)

    def mute(self) -> None:
        """Silence the callback: the command and its caller are over time."""
        self._callback = None

    def finish(self) -> None:
        """Flush an incomplete character to the callback."""
        if self._callback and (text := self._decoder.decode(b"", final=True)):
            self._callback(text)

    @property
    def data(self) -> bytes:
        """What was kept, as bytes."""
        return self._kept.getvalue()

    @property
    def text(self) -> str:
        """The kept bytes as text. Bytes that are not UTF-8 appear as U+FFFD."""
        if not self.truncated:
            return self.data.decode("utf-8", "replace")
        # the limit may have cut a character: its first half is dropped rather than shown as broken
        return codecs.getincrementaldecoder("utf-8")("replace").decode(self.data)


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a command, as bytes.

    Attributes:
        stdout: as far as it was kept.
        stderr: the same.
        exit_code: `None` where it is not known (yet).
        duration_seconds: from sending it to knowing its end.
        timed_out: it was over its time and was killed.
        container_restarted: the container was killed and started for that.
        oom_killed: the kernel killed something of it for memory.
    """

    stdout: OutputBuffer
    stderr: OutputBuffer
    exit_code: int | None = None
    duration_seconds: float = 0.0
    timed_out: bool = False
    container_restarted: bool = False
    oom_killed: bool = False

    def to_result(self, timeout: float | None) -> ProcessResult:
        """Return the result for the caller."""
        stderr, exit_code = self.stderr.text, self.exit_code
        if self.timed_out:
            newline = "\n" if stderr and not stderr.endswith("\n") else ""
            stderr += f"{newline}podkit: the command timed out after {timeout:g} s\n"
            exit_code = TIMEOUT_EXIT_CODE
        return models.ProcessResult(
            exit_code=-1 if exit_code is None else exit_code,
            stdout=self.stdout.text,
            stderr=stderr,
            stdout_bytes=self.stdout.data,
            stderr_bytes=self.stderr.data,
            duration_seconds=self.duration_seconds,
            timed_out=self.timed_out,
            stdout_truncated=self.stdout.truncated,
            stderr_truncated=self.stderr.truncated,
            oom_killed=self.oom_killed,
            container_restarted=self.container_restarted,
        )
