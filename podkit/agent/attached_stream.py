"""The stream to the channel behind a container's first process."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

from podkit.backends.base import Chunk, ExecStream, Stream
from podkit.errors import EngineUnavailable
from podkit.utils._deadline import Deadline

_REST_SECONDS = 0.1  # the channel's last bytes may still be on their way when the news of its end has come


class AttachedStream:
    """An `ExecStream` that ends when the channel does.

    The engine keeps the stream itself open for as long as the container runs. So the first process tells on its
    standard error that its channel has ended, and how; nobody else inside can write there.

    Args:
        stream: to the container's first process; this object owns it.
    """

    def __init__(self, stream: ExecStream) -> None:
        self._stream = stream
        self._exit_code: int | None = None
        self._rest: deque[Chunk] | None = None  # the unread rest, once the channel has ended

    def wait(self, deadline: Deadline) -> bool:
        """See `ExecStream.wait`."""
        return self._rest is not None or self._stream.wait(deadline)

    def read(self, deadline: Deadline) -> Chunk | None:
        """See `ExecStream.read`. At the news of the channel's end it blocks for a tenth of a second more."""
        if self._rest is None:
            chunk = self._stream.read(deadline)
            if chunk is None or chunk.stream is Stream.STDOUT or not chunk.data:
                return chunk
            said = chunk.data.decode(errors="replace").strip()
            self._exit_code = int(said) if said.isdecimal() else None
            self._rest = self._read_rest()
        return self._rest.popleft() if self._rest else Chunk(Stream.STDOUT, b"")

    def _read_rest(self) -> deque[Chunk]:
        found: deque[Chunk] = deque()
        deadline = Deadline.after(_REST_SECONDS)
        with suppress(EngineUnavailable):
            while (chunk := self._stream.read(deadline)) and chunk.data:
                found.append(chunk)
        return found

    def write(self, data: bytes, deadline: Deadline) -> None:
        """See `ExecStream.write`."""
        self._stream.write(data, deadline)

    def close_stdin(self) -> None:
        """See `ExecStream.close_stdin`."""
        self._stream.close_stdin()

    def exit_code(self, *, deadline: Deadline | None = None) -> int | None:
        """See `ExecStream.exit_code`."""
        return self._stream.exit_code(deadline=deadline) if self._exit_code is None else self._exit_code

    def close(self) -> None:
        """See `ExecStream.close`."""
        self._stream.close()
