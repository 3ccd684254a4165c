"""The backend that the environment names. It is imported on demand."""

from __future__ import annotations

import os
import threading
from importlib import import_module

from podkit.backends.base import Backend

_DEFAULT = "podkit.backends.docker", "DockerBackend"
_NAMED_BY = ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_CONFIG", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH")

_lock = threading.Lock()  # guards _backends
_backends: dict[tuple[str | None, ...], Backend] = {}


def _after_fork() -> None:
    global _lock
    # another thread of the parent may have held the old one; the backends renew themselves
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def default_backend() -> Backend:
    """Return this process's shared backend, connected. A changed environment gets another.

    Raises:
        EngineUnavailable: no engine answers; the next call tries again.
    """
    key = tuple(os.environ.get(name) for name in _NAMED_BY)
    with _lock:  # making a backend does no I/O; connecting may block, so it comes after
        if key not in _backends:
            module, name = _DEFAULT
            _backends[key] = getattr(import_module(module), name)()
        backend = _backends[key]
    backend.connect()
    return backend


def close_backends() -> None:
    """Close and forget the shared backends. Whoever still holds one can go on using it."""
    with _lock:
        backends = list(_backends.values())
        _backends.clear()
    for backend in backends:
        backend.close()
