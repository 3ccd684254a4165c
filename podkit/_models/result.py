"""A command's result."""

from __future__ import annotations

from typing import Any, Self

from pydantic import ConfigDict, Field

from podkit._models.base import Model
from podkit.errors import CommandFailed


def _encoded(data: dict[str, Any], stream: str) -> bytes:
    # the default for a result that is made from text only
    return str(data.get(stream, "")).encode(errors="surrogateescape")


class ProcessResult(Model):
    """A command's exit code and output.

    Attributes:
        exit_code: as a shell would report it: 128 + n after signal n, 124 after a timeout, 126 if the program cannot be
            run, 127 if it is missing.
        stdout: the standard output, decoded as UTF-8; bytes that are not UTF-8 appear as U+FFFD.
        stderr: the same for the error stream. After a timeout, podkit adds a last line that says so.
        stdout_bytes: the standard output, undecoded.
        stderr_bytes: the same for the error stream.
        duration_seconds: the time from sending the command until its end was known.
        timed_out: whether the command's timeout expired and it was killed.
        stdout_truncated: whether the output was longer than the limit; its end is missing.
        stderr_truncated: the same for the error stream.
        oom_killed: whether the kernel killed a process of the command for memory. If other commands or background
            processes run beside it, only a process that ended the command, or was orphaned, counts.
        container_restarted: whether the container had to be killed and started to end this command.
    """

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")  # output need not be UTF-8

    exit_code: int
    stdout: str = ""
    stderr: str = ""
    stdout_bytes: bytes = Field(default_factory=lambda data: _encoded(data, "stdout"), repr=False)
    stderr_bytes: bytes = Field(default_factory=lambda data: _encoded(data, "stderr"), repr=False)
    duration_seconds: float = 0.0
    timed_out: bool = False
    stdout_truncated: bool = False
    stderr_truncated: bool = False
    oom_killed: bool = False
    container_restarted: bool = False

    @property
    def ok(self) -> bool:
        """Whether the exit code is 0."""
        return self.exit_code == 0

    def check(self) -> Self:
        """Return this result if the command succeeded.

        Raises:
            CommandFailed: the exit code is not 0; its `result` is this one.
        """
        if self.ok:
            return self
        # the last line usually is the program's error; some programs print it on standard output
        last = self.stderr.strip().splitlines()[-1:] or self.stdout.strip().splitlines()[-1:]
        why = " (out of memory)" if self.oom_killed else ""
        why += " (its container was restarted)" if self.container_restarted else ""
        raise CommandFailed(
            f"the command ended with exit code {self.exit_code}{why}: {''.join(last)[:500]}", result=self
        )


# pickles and messages name the public module, wherever the class is defined
ProcessResult.__module__ = "podkit.core.models"
