"""The agent's program as a process of this machine: what an engine adds nothing to is tried on it, in milliseconds.

It gets no program that kills or stops what it can: that would be this machine's.
"""

from __future__ import annotations

import fcntl
import os
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from podkit.agent import agent_program
from podkit.agent.channel import Channel
from podkit.backends.base import Chunk, Stream
from podkit.errors import EngineTimeout, EngineUnavailable
from podkit.utils._deadline import Deadline

SECONDS = 20.0
"""More than anything here takes."""


def soon(seconds: float = SECONDS) -> Deadline:
    """The deadline of something that comes at once, on a busy machine too."""
    return Deadline.after(seconds)


class ProcessStream:
    """An `ExecStream` over the pipes of a process here."""

    def __init__(self, *arguments: str, program: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [program or agent_program.file_for(), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._input, self._output = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self._input, False)
        self.closed = False

    def wait(self, deadline: Deadline) -> bool:
        if self.closed:
            raise EngineUnavailable("closed")
        return bool(select.select([self._output], [], [], deadline.wait_seconds())[0])

    def read(self, deadline: Deadline) -> Chunk | None:
        return Chunk(Stream.STDOUT, os.read(self._output, 256 << 10)) if self.wait(deadline) else None

    def write(self, data: bytes, deadline: Deadline) -> None:
        view = memoryview(data)
        while view:
            if not select.select([], [self._input], [], deadline.wait_seconds())[1]:
                raise EngineTimeout("nothing was taken")
            view = view[os.write(self._input, view) :]

    def unread_bytes(self) -> int:
        """How much of what was written the process has not read yet."""
        return int.from_bytes(fcntl.ioctl(self._input, termios.FIONREAD, bytes(4)), sys.byteorder)

    def close_stdin(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()

    def exit_code(self, *, deadline: Deadline | None = None) -> int | None:
        return self.process.poll()

    def close(self) -> None:
        """End it by closing its pipes, as an engine does."""
        if not self.closed:
            self.closed = True
            assert self.process.stdin is not None
            assert self.process.stdout is not None
            self.process.stdin.close()
            self.process.stdout.close()


@contextmanager
def local_channel() -> Iterator[Channel]:
    """A channel to an agent of its own, greeted.

    Its lifetime has no end: it would wait for the background processes of whatever containers this machine has.
    """
    stream = ProcessStream("channel", "infinity")
    channel = Channel(stream)
    try:
        channel.greet(soon())
        yield channel
    finally:
        channel.close()
        stream.process.wait(SECONDS)
