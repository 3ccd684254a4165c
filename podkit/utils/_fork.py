"""Renewing inherited locks and connections in a forked child."""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """An object that holds locks, threads or connections."""

    def _after_fork(self) -> None:
        """Make new locks and forget the parent's connections, unclosed."""


# weak: being listed here keeps nothing alive
_objects: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def renew_after_fork(thing: ForkAware) -> None:
    """Have `thing._after_fork()` called in every child of this process.

    Otherwise a lock that another thread of the parent held at the fork would stay locked in the child for ever.
    """
    _objects.add(thing)


def _renew_all() -> None:
    for thing in list(_objects):  # a copy: `_after_fork` may add objects
        thing._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
