"""A stream to an agent that exists on paper only."""

from __future__ import annotations

import threading
from collections import deque

from podkit.backends.base import Chunk, Stream
from podkit.errors import EngineTimeout, EngineUnavailable
from podkit.utils._deadline import Deadline

END = b""
"""What an agent says at its end."""


class ScriptedStream:
    """An `ExecStream` that gives what a test says, piece by piece, and keeps what is written to it.

    Attributes:
        sent: what was written to it.
        closed: whether it was closed.
        takes_input: whether writing ends; see `take_input`.
        refuses: what writing raises.
        endless: what comes again and again once all else has come.
        ended_with: what the engine says of its process; an exit code, or `None` while it runs.
        interrupts: `"wait"` or `"read"`, where the user's next Ctrl-C comes.
    """

    def __init__(self, *pieces: bytes) -> None:
        self._changed = threading.Condition()
        self._pieces: deque[Chunk] = deque(Chunk(Stream.STDOUT, piece) for piece in pieces)
        self.sent = bytearray()
        self.closed = False
        self.takes_input = True
        self.refuses: Exception | None = None
        self.endless: bytes | None = None
        self.ended_with: int | None = None
        self.interrupts = ""

    def say(self, *pieces: bytes, stream: Stream = Stream.STDOUT) -> None:
        """Let these pieces come; no bytes are the end."""
        with self._changed:
            self._pieces.extend(Chunk(stream, piece) for piece in pieces)
            self._changed.notify_all()

    def take_input(self) -> None:
        """Take input from now on, what waits for that included."""
        with self._changed:
            self.takes_input = True
            self._changed.notify_all()

    def wait(self, deadline: Deadline) -> bool:
        with self._changed:
            found = self._wait(deadline)
            self._interrupt("wait")
            return found

    def _wait(self, deadline: Deadline) -> bool:
        self._changed.wait_for(lambda: self._pieces or self.endless or self.closed, deadline.wait_seconds())
        if self.closed:
            raise EngineUnavailable("the stream was closed")
        return bool(self._pieces or self.endless)

    def read(self, deadline: Deadline) -> Chunk | None:
        with self._changed:
            if not self._wait(deadline):
                return None
            chunk = self._pieces.popleft() if self._pieces else Chunk(Stream.STDOUT, self.endless or b"")
            self._interrupt("read")
            return chunk

    def _interrupt(self, where: str) -> None:
        if self.interrupts == where:
            self.interrupts = ""
            raise KeyboardInterrupt

    def write(self, data: bytes, deadline: Deadline) -> None:
        with self._changed:
            if self.refuses is not None:
                raise self.refuses
            if not self._changed.wait_for(lambda: self.takes_input or self.closed, deadline.wait_seconds()):
                raise EngineTimeout("nothing was taken")
            if self.closed:
                raise BrokenPipeError("closed")
            self.sent += data

    def close_stdin(self) -> None:
        pass

    def exit_code(self, *, deadline: Deadline | None = None) -> int | None:
        return self.ended_with

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()
