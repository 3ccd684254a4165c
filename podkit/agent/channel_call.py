"""One command of a channel, and the frames that came for it. All are checked."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import suppress

from podkit.agent.protocol import INPUT_WINDOW, EndFlag, Frame, FromAgent, ProtocolViolation
from podkit.backends.base import Stream

WINDOW_BYTES = 1 << 20
"""How much output of a command may be on its way or unread."""

_OVERDRAFT_BYTES = 4 << 20  # at its end, the rest of its pipes comes beyond the window; a pipe holds up to 1 MiB
_MERGE_BYTES = 256 << 10  # the most that one read of the stream brings
_PIECES = 4096  # of unread output; then a stream's output is put together, across pieces of the other one
_CONTROL_FRAMES = 16  # more of them for one command than any agent sends


class Wake:
    """Wakes one thread that waits for it.

    In place of `threading.Event`, which stays locked where a signal's handler raises inside of it.
    """

    def __init__(self) -> None:
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def set(self) -> None:
        """Wake the thread, or keep it from waiting at all."""
        with suppress(RuntimeError):  # it is set already
            self._asleep.release()

    def wait(self, seconds: float) -> bool:
        """Wait at most so long, and reset. Return whether it was set."""
        return self._asleep.acquire(timeout=seconds)


class Call:
    """The frames that came for one command. Filled by the thread on duty, read by the command's own.

    Attributes:
        id: its number on the channel.
        sent: whether it may have been sent to the agent.
        begun: whether the agent has said anything of it.
        output: pieces that nobody has taken yet.
        pid: of the command's process, inside; `None` until it runs.
        ended: its exit code and the flags of its end; `None` before.
        failed: why nothing was run (a `Failure` and the system's error number); `None` otherwise.
        pong: the answer to a ping.
        input_credit: how many bytes of input may be sent now.
        input_refused: the command reads no more.
        waiting: wakes those who wait for something of this command, of which there may be two: a reader and a writer.
    """

    def __init__(self, id: int) -> None:
        self.id = id
        self.sent = False
        self.begun = False
        self.output: deque[tuple[Stream, bytearray]] = deque()
        self.pid: int | None = None
        self.ended: tuple[int, EndFlag] | None = None
        self.failed: tuple[int, int] | None = None
        self.pong: int | None = None
        self.input_credit = INPUT_WINDOW
        self.input_refused = False
        self.waiting: tuple[Wake, ...] = ()  # replaced, never changed
        self._allowed = WINDOW_BYTES
        self._input_sent = 0
        self._controls = 0
        self.renew()

    def renew(self) -> None:
        """Make a new lock, as a forked child must."""
        self._lock = threading.Lock()  # guards `output` and `_allowed`

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.ended is not None or self.failed is not None

    @property
    def timed_out(self) -> bool:
        """Whether the agent ended it by its timeout."""
        return self.ended is not None and EndFlag.TIMED_OUT in self.ended[1]

    def take_output(self) -> tuple[Stream, bytes] | None:
        """Return the next piece of output, `None` without any."""
        with self._lock:
            if not self.output:
                return None
            stream, data = self.output.popleft()
            return stream, bytes(data)

    def allow(self, size: int) -> None:
        """Let this many more bytes of output come."""
        with self._lock:
            self._allowed += size

    def sent_input(self, size: int) -> None:
        """Count sent input."""
        self.input_credit -= size
        self._input_sent += size

    def accept(self, frame: Frame) -> None:
        """Take a frame.

        Raises:
            ProtocolViolation: it cannot be right.
        """
        self.begun = True
        if self.over:
            raise ProtocolViolation(f"a frame {frame.type.name} of a command that has ended")
        if frame.type is FromAgent.STDOUT or frame.type is FromAgent.STDERR:
            self._accept_output(Stream.STDOUT if frame.type is FromAgent.STDOUT else Stream.STDERR, frame.data)
            return
        numbers = frame.numbers()
        if frame.type is FromAgent.TAKEN:
            self._accept_taken(*numbers)
            return
        self._controls += 1
        if self._controls > _CONTROL_FRAMES:
            raise ProtocolViolation("too many frames for one command")
        if frame.type is FromAgent.STARTED:
            self.pid = numbers[0]
        elif frame.type is FromAgent.EXIT:
            self.ended = numbers[0] & 0xFF, EndFlag(numbers[1] & 0xF)
        elif frame.type is FromAgent.FAILED:
            self.failed = numbers[0], numbers[1]
        elif frame.type is FromAgent.PONG:
            self.pong = numbers[0]
        else:
            raise ProtocolViolation(f"a frame {frame.type.name} for a command")

    def _accept_output(self, stream: Stream, data: bytes) -> None:
        with self._lock:
            self._allowed -= len(data)
            if self._allowed < -_OVERDRAFT_BYTES:
                raise ProtocolViolation("more output than was asked for")
            for at in range(1, 2 + (len(self.output) >= _PIECES)):
                last, piece = self.output[-at] if self.output else (None, bytearray())
                if last is stream and len(piece) + len(data) <= _MERGE_BYTES:
                    piece.extend(data)
                    return
            self.output.append((stream, bytearray(data)))

    def _accept_taken(self, size: int, refused: int) -> None:
        if size > self._input_sent:
            raise ProtocolViolation("more input taken than was sent")
        self._input_sent -= size
        self.input_credit += size
        self.input_refused = self.input_refused or bool(refused)
