"""Raises as a signal's handler does, at a chosen moment of an action.

CPython runs such handlers when a function of Python's begins and when a call has returned. A profiler sees both.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import FrameType

_SEEN = "/podkit/", "contextlib.py", "threading.py"
_NOT_SEEN = "/podkit/testing/", "/podkit/core/models.py"  # a fake, and hundreds of moments that change nothing


class Interruption(BaseException):
    """In place of `KeyboardInterrupt`, which pytest takes for its own."""


def interrupt(action: Callable[[], object], moment: int) -> str | None:
    """Do something and raise at its so-many-th moment; gives where that was, `None` where it ended before."""
    profiler = _Profiler(moment)
    with warnings.catch_warnings():
        # a socket that one function is just handing to another is closed by Python itself, which says so
        warnings.simplefilter("ignore", ResourceWarning)
        sys.setprofile(profiler)
        try:
            action()
        except Interruption:
            return profiler.where
        finally:
            sys.setprofile(None)
    return None


class _Profiler:
    def __init__(self, moment: int) -> None:
        self._left = moment
        self.where = ""

    def __call__(self, frame: FrameType, event: str, argument: object) -> None:
        code = frame.f_code
        if event not in ("call", "c_return") or not _is_seen(code.co_filename) or _is_fakes(frame):
            return
        if code.co_name == "<genexpr>":  # may be its end, out of which nothing can be raised
            return
        self._left -= 1
        if not self._left:
            sys.setprofile(None)
            self.where = f"{code.co_filename}:{frame.f_lineno} {code.co_name} ({event})"
            raise Interruption(self.where)


def _is_seen(path: str) -> bool:
    return any(part in path for part in _SEEN) and not any(part in path for part in _NOT_SEEN)


def _is_fakes(frame: FrameType | None) -> bool:
    """Whether a fake does this, or has it done."""
    while frame and _NOT_SEEN[0] not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None
