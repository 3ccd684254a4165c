"""A command's output, bounded, and its outcome."""

from __future__ import annotations

import codecs
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING

from podkit._models import lazy as models

if TYPE_CHECKING:
    from podkit._models.result import ProcessResult


TIMEOUT_EXIT_CODE = 124
"""The exit code of a command that was over its time, as of coreutils' `timeout`."""

MAX_OUTPUT_BYTES = 10 << 20
"""How much of each stream is kept where the caller sets no limit."""

SIGNALLED = 128
"""A program that signal n has ended has this plus n as its exit code, as a shell reports it."""

KILLED = SIGNALLED + 9

TextCallback = Callable[[str], object]


class OutputBuffer:
    """Keeps a stream's beginning, up to a limit. A callback sees all of it.

    Args:
        limit_bytes: how much is kept.
        callback: gets the text as it comes; a character that is cut between two pieces waits for its rest.
    """

    def __init__(self, limit_bytes: int, callback: TextCallback | None = None) -> None:
        self._kept = BytesIO()  # returns its bytes without copying them
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
        """The kept bytes."""
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
    """A command's outcome, as bytes.

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
