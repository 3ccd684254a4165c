"""A thread that does something every now and then."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod

from podkit.errors import InvalidInput
from podkit.utils._checks import check_timeout
from podkit.utils._deadline import Deadline
from podkit.utils._fork import renew_after_fork

__all__ = ["BaseThreadMonitor"]

STOP_SECONDS = 4.0
"""How long `stop()` waits for a round that is under way."""

_logger = logging.getLogger(__name__)


class BaseThreadMonitor(ABC):
    """Calls `tick()` at once and every `check_interval` seconds, in a daemon thread.

    The methods may be called from any thread, a round included. An exception in a round is logged, and the next one
    comes on time. A forked child has no such thread: start it there anew.

    Args:
        check_interval: seconds between the beginnings of two rounds.
    """

    def __init__(self, check_interval: float) -> None:
        seconds = check_timeout(check_interval, "check_interval")
        if seconds is None:
            raise InvalidInput("check_interval=None: pass seconds above 0")
        self.check_interval = seconds
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # guards _thread and _stopping
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()  # a new one for each thread
        self._round = threading.local()  # the event of the thread that runs a round

    @abstractmethod
    def tick(self) -> None:
        """Do one round, in the caller's thread. Long rounds look at `stopping` between two steps."""

    @property
    def running(self) -> bool:
        """Whether the monitor has been started and not stopped."""
        return self._thread is not None

    @property
    def stopping(self) -> bool:
        """Whether this round should end: its monitor was stopped since."""
        event: threading.Event | None = getattr(self._round, "stopping", None)
        return event is not None and event.is_set()

    def start(self) -> None:
        """Start the thread. A running monitor is left alone."""
        with self._lock:
            if self._thread is not None:
                return
            self._stopping = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._stopping,), name=f"podkit-{type(self).__name__}", daemon=True
            )
            self._thread.start()

    def stop(self) -> None:
        """Stop the thread, within 5 s also in a round. Twice is harmless.

        A round that hangs in the engine is left behind: it ends with its engine call and does nothing more.
        """
        with self._lock:
            thread, self._thread = self._thread, None
            self._stopping.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(STOP_SECONDS)
            if thread.is_alive():
                _logger.warning("%s: a round is still waiting for the engine; it is left behind", thread.name)

    def _run(self, stopping: threading.Event) -> None:
        self._round.stopping = stopping
        while not stopping.is_set():
            next_round = Deadline.after(self.check_interval)
            try:
                self.tick()
            except BaseException:  # a handler may raise SystemExit: the watch must go on
                _logger.exception("a round of %s failed", type(self).__name__)
            stopping.wait(next_round.remaining)
