"""The fake engine's gate: its lock, clock, faults and record of calls."""

from __future__ import annotations

import math
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from enum import Enum

from podkit.errors import EngineTimeout, EngineUnavailable
from podkit.utils._deadline import Clock, Deadline, call_deadline
from podkit.utils._fork import renew_after_fork

BACKEND_METHODS = frozenset(
    {
        "connect",
        "close",
        "create_workload",
        "start_workload",
        "stop_workload",
        "restart_workload",
        "remove_workload",
        "inspect_workload",
        "list_workloads",
        "get_workload_logs",
        "get_accessible_ports",
        "open_stream",
    }
)
STREAM_METHODS = frozenset({"wait", "read", "write", "exit_code"})
_POLL_SECONDS = 0.005


class Engine(Enum):
    """The engine's state."""

    UP = "up"
    FROZEN = "frozen"
    DOWN = "down"


class Gate:
    """Lets one caller at a time to the engine.

    Args:
        clock: the time inside. It may stand still and jump.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.connected = False
        self.connection = 0  # grows each time all connections break; a stream with another number is broken
        self.calls: list[str] = []
        self._began = clock(), datetime.now(UTC)
        self._engine = Engine.UP
        self._planned: dict[tuple[str, bool], deque[Callable[[], object]]] = defaultdict(deque)
        self._make_lock()
        renew_after_fork(self)

    def _make_lock(self) -> None:
        # guards the whole fake; an RLock, because a test's program may call the fake that runs it
        self._changed = threading.Condition(threading.RLock())

    def _after_fork(self) -> None:
        self._make_lock()

    @property
    def now(self) -> float:
        """The present moment on the clock inside."""
        return self.clock()

    def time_of(self, moment: float | None) -> datetime | None:
        """Return the inner clock's moment as a time of day."""
        return None if moment is None else self._began[1] + timedelta(seconds=moment - self._began[0])

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Change something behind the engine's back, and wake waiting callers."""
        with self._changed:
            yield
            self._changed.notify_all()

    @contextmanager
    def call(self, method: str, deadline: Deadline | None) -> Iterator[Deadline]:
        """Let a `Backend` call through. Yields its deadline."""
        deadline = call_deadline(deadline)
        with self.locked():
            self.calls.append(method)
            if not self.connected and method != "connect":
                raise EngineUnavailable("this backend is not connected: call connect() first")
            self._act(method, after=False)
            self.pass_engine(deadline, method)
            yield deadline
            self._act(method, after=True)  # the engine has done it; an error here is a lost answer

    @contextmanager
    def stream_call(self, method: str) -> Iterator[None]:
        """Let a call of a stream's method through."""
        with self.locked():
            self._act(method, after=False)
            yield
            self._act(method, after=True)

    def pass_engine(self, deadline: Deadline, doing: str) -> None:
        """Return if the engine is up. Wait while it is frozen.

        Raises:
            EngineUnavailable: it is down.
            EngineTimeout: it is still frozen at the deadline.
        """
        while self._engine is Engine.FROZEN:
            if deadline.expired:
                raise EngineTimeout(f"{doing}: the engine is frozen")
            self.wait(deadline)
        if self._engine is Engine.DOWN:
            raise EngineUnavailable(f"{doing}: the engine is down")

    def wait(self, deadline: Deadline, until: float = math.inf) -> None:
        """Wait for a change, the deadline, or the inner clock's moment."""
        seconds = min(deadline.remaining, max(0.0, until - self.now))
        if self.clock is not time.monotonic or deadline.clock is not time.monotonic:
            seconds = min(seconds, _POLL_SECONDS)  # a test's clock may jump at any time without a notice
        self._changed.wait(None if math.isinf(seconds) else seconds)

    def notify(self) -> None:
        """Wake all waiting callers, which then look again."""
        self._changed.notify_all()

    def set_engine(self, engine: Engine) -> None:
        """Have the engine freeze, go away, or recover."""
        with self.locked():
            self._engine = engine
            if engine is Engine.DOWN:  # the streams break now, and stay broken after a recovery
                self.connection += 1

    def plan(self, method: str, action: Callable[[], object], times: int, *, after: bool) -> None:
        """Call `action` around a method's next `times` calls."""
        if method not in BACKEND_METHODS | STREAM_METHODS:
            raise ValueError(f"{method!r} is no method of the seam: {sorted(BACKEND_METHODS | STREAM_METHODS)}")
        with self.locked():
            self._planned[method, after].extend([action] * times)

    def _act(self, method: str, *, after: bool) -> None:
        if planned := self._planned[method, after]:
            planned.popleft()()
