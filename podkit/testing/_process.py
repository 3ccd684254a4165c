"""A fake workload's process. It runs a program's steps until one waits."""

from __future__ import annotations

import math
import traceback
from collections import deque

from podkit.backends.base import Chunk, Stream
from podkit.testing._programs import Background, IgnoreSigterm, Input, Pause, Steps, as_chunk, resume

PIPE_BYTES = 64 << 10
_STEPS_AT_ONCE = 10_000


class _Strand:
    """The program itself, or a background child."""

    def __init__(self, steps: Steps, now: float) -> None:
        self.steps = steps
        self.time = now  # its own time; behind the clock if no caller has advanced it for a while
        self.wants_input = False
        self.blocked = False  # its output pipe is full
        self.answer: bytes | None = None  # the input for its next step; `None` before its first
        self.running = False  # inside a step now; a step may call the fake, which must not enter it again
        self.done = False


class Process:
    """One process and its children, their pipes included. Guarded by the lock of its fake.

    Args:
        argv: the command line, for listings.
        steps: the running program.
        now: the time of its start, on the fake's clock.
        stdin: whether it gets input; else its standard input is empty.
    """

    def __init__(self, argv: list[str], steps: Steps, now: float, *, stdin: bool) -> None:
        self.argv = argv
        self.exit_code: int | None = None
        self.ended_at: float | None = None
        self.ignores_sigterm = False
        self.discards_output = False
        self.not_started = False  # the program is missing: the output and the exit code are the engine's
        self._strands = [_Strand(steps, now)]  # the first one is the program, the others its children
        self._output: deque[Chunk] = deque()
        self._output_bytes = 0
        self._input = bytearray()
        self._input_open = stdin

    @property
    def done(self) -> bool:
        """Whether it and its children have ended. Its pipes are closed then."""
        return all(strand.done for strand in self._strands)

    @property
    def has_output(self) -> bool:
        """Whether there is output to take."""
        return bool(self._output)

    @property
    def takes_input(self) -> bool:
        """Whether its standard input still takes bytes."""
        return self.exit_code is None and self._input_open

    @property
    def wakes_at(self) -> float:
        """The fake's time at which it goes on by itself."""
        sleeping = [
            strand.time for strand in self._strands if not (strand.done or strand.wants_input or strand.blocked)
        ]
        return min(sleeping, default=math.inf)

    def take(self) -> Chunk | None:
        """Take the next bytes of output, if any."""
        if not self._output:
            return None
        chunk = self._output.popleft()
        self._output_bytes -= len(chunk.data)
        return chunk

    def give(self, data: memoryview) -> int:
        """Write to standard input until its pipe is full. Returns the number of bytes."""
        taken = data[: PIPE_BYTES - len(self._input)]
        self._input += taken
        return len(taken)

    def close_input(self) -> None:
        """End its standard input."""
        self._input_open = False

    def kill(self, exit_code: int, now: float) -> None:
        """End it and its children. Their output can still be read."""
        self._end(exit_code, now)
        for strand in self._strands:
            self._finish(strand)

    def advance(self, now: float) -> None:
        """Go on until everything waits for time, input or a reader."""
        for strand in self._strands:  # a step may add a child, which then runs in the same loop
            self._advance(strand, now)

    def _advance(self, strand: _Strand, now: float) -> None:
        for _ in range(_STEPS_AT_ONCE):
            if strand.done or strand.running or not self._ready(strand, now):
                return
            strand.running = True  # ready -> running
            try:
                self._step(strand, now)
            except StopIteration as end:  # running -> done; the program's return value is its exit code
                strand.done = True
                self._ended(strand, self._exit_code(end.value))
            except Exception:  # noqa: BLE001 - ends as a Python program does, with a traceback
                strand.done = True
                self._print(Chunk(Stream.STDERR, traceback.format_exc().encode()))
                self._ended(strand, 1)
            finally:
                strand.running = False
            if self.exit_code is not None and strand is self._strands[0]:
                self._finish(strand)  # its own step may have killed it

    def _exit_code(self, returned: object) -> int:
        if returned is None or isinstance(returned, int):
            return returned or 0
        told = f"podkit.testing: a generator returns its exit code, an int; this one returned {returned!r}\n"
        self._print(Chunk(Stream.STDERR, told.encode()))
        return 1

    def _ready(self, strand: _Strand, now: float) -> bool:
        if strand.time > now:
            return False
        if self._output_bytes >= PIPE_BYTES:
            strand.blocked = True
            return False
        if strand.wants_input:
            if not self._input and self._input_open:
                return False
            strand.answer = bytes(self._input)
            self._input.clear()
        if strand.wants_input or strand.blocked:
            strand.time = max(strand.time, now)  # it waited until now
            strand.wants_input = strand.blocked = False  # waiting -> ready
        return True

    def _step(self, strand: _Strand, now: float) -> None:
        step = resume(strand.steps, strand.answer)
        strand.answer = b""
        if (chunk := as_chunk(step)) is not None:
            self._print(chunk)
        elif isinstance(step, Pause):
            strand.time += step.seconds
        elif isinstance(step, Input):
            strand.wants_input = True
        elif isinstance(step, Background):
            self._strands.append(_Strand(step.steps, strand.time))
        elif isinstance(step, IgnoreSigterm):
            self.ignores_sigterm = True
        else:
            raise TypeError(f"a program yielded {step!r}: yield output, Pause, Input, Background or IgnoreSigterm")

    def _print(self, chunk: Chunk) -> None:
        if self.discards_output:
            return
        for start in range(0, len(chunk.data), PIPE_BYTES):
            self._output.append(Chunk(chunk.stream, chunk.data[start : start + PIPE_BYTES]))
        self._output_bytes += len(chunk.data)

    def _ended(self, strand: _Strand, exit_code: int) -> None:
        if strand is self._strands[0]:
            self._end(exit_code, strand.time)

    def _end(self, exit_code: int, at: float) -> None:
        if self.exit_code is None:
            self.exit_code, self.ended_at = exit_code, at

    def _finish(self, strand: _Strand) -> None:
        strand.done = True
        if not strand.running:  # a generator cannot be closed within its own step; `_advance` closes it later
            strand.steps.close()
