"""Which engine the environment means; imports its SDK only when it is asked for."""

from __future__ import annotations

import threading
from functools import cache
from importlib import import_module

from podkit.backends.base import Backend

_DEFAULT = "podkit.backends.docker", "DockerBackend"

_lock = threading.Lock()  # guards the making of the default backend


@cache
def _make_default() -> Backend:
    module, name = _DEFAULT
    backend: Backend = getattr(import_module(module), name)()
    return backend


def default_backend() -> Backend:
    """Give the connected backend that all of this process shares.

    Raises:
        EngineUnavailable: no engine answers; the next call tries again.
    """
    with _lock:
        backend = _make_default()
    backend.connect()
    return backend
