"""A pool of host ports to hand out."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Iterable

from podkit.errors import InvalidInput, PortUnavailable
from podkit.utils._fork import renew_after_fork


class PortPool:
    """Hands out a range's ports, lowest first. Safe to use from many threads.

    It knows only the ports it handed out. If another program listens on one, the container's start fails.

    Args:
        start: the first port.
        end: the last port, included.
        ports_per_container: how many `allocate()` takes at once.
    """

    def __init__(self, start: int, end: int, ports_per_container: int) -> None:
        if not 1 <= start <= end <= 65535:
            raise InvalidInput(f"PortPool(start={start}, end={end}): ports lie between 1 and 65535, start first")
        if not 1 <= ports_per_container <= end - start + 1:
            raise InvalidInput(
                f"ports_per_container={ports_per_container}: the range {start}-{end} has {end - start + 1} ports"
            )
        self._range = range(start, end + 1)
        self._count = ports_per_container
        self._free = list(self._range)  # a heap
        self._taken: set[int] = set()
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _free and _taken

    def allocate(self) -> list[int]:
        """Take `ports_per_container` ports.

        Raises:
            PortUnavailable: fewer than that are free; none was taken.
        """
        with self._lock:
            if len(self._free) < self._count:
                raise PortUnavailable(
                    f"{self._count} ports are wanted and {len(self._free)} of {self._range.start}-"
                    f"{self._range.stop - 1} are free: release some, or make a larger pool"
                )
            ports = [heapq.heappop(self._free) for _ in range(self._count)]
            self._taken.update(ports)
            return ports

    def release(self, ports: Iterable[int]) -> None:
        """Return ports to the pool. A free one is no error.

        Raises:
            InvalidInput: one of them is not of this pool; none was released.
        """
        ports = list(ports)
        for port in ports:
            if port not in self._range:
                raise InvalidInput(f"port {port} is not of this pool ({self._range.start}-{self._range.stop - 1})")
        with self._lock:
            for port in ports:
                if port in self._taken:
                    self._taken.remove(port)
                    heapq.heappush(self._free, port)

    @property
    def available_count(self) -> int:
        """How many ports are free."""
        with self._lock:
            return len(self._free)
