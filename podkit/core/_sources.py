"""Which directories of the host may be mounted: one that is writable inside would void every other promise.

A source is judged as the engine would see it: by its text, and by what it leads to where this process can see that.
The links in it are followed once, here, and the engine is given where they lead: so a link that is changed later
changes nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from contextlib import suppress
from pathlib import PurePosixPath

from podkit.errors import InvalidInput

_TREES = (
    "/boot",
    "/dev",
    "/etc",
    "/proc",
    "/sys",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
)
"""Of the host alone, with all that lies below."""

_DIRECTORIES = ("/root", "/run", "/var/run")
"""Themselves only, and what holds them; as the home of whoever runs this program."""

_KEYS = frozenset({".aws", ".docker", ".gnupg", ".kube", ".ssh"})
"""Names of directories that hold keys, whoever's they are."""

_SOCKETS = (
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/docker.sock",
    "/run/podman/podman.sock",
    "/var/run/docker.sock",
)
_SOCKET_NAMES = frozenset(PurePosixPath(path).name for path in _SOCKETS)


def judged_source(source: str, allowed: Collection[str]) -> str:
    """Give the directory that a bind source stands for, with all links followed.

    Args:
        source: absolute, as the engine sees it.
        allowed: the names in `allow_unsafe`.

    Raises:
        InvalidInput: it is nothing that a session should see.
    """
    try:
        resolved = os.path.realpath(source)  # what this process does not see stays as it is
    except OSError:  # nor what it may not look at
        resolved = source
    for path in {source, resolved}:
        if why := _why_not(PurePosixPath(path), allowed):
            link = "" if path == source else f", which leads to {path!r}"
            name, reason = why
            raise InvalidInput(
                f"the mount source {source!r}{link} {reason}: mount a directory of the session's own; "
                f"allow_unsafe={{{name!r}}} would let it in"
            )
    return resolved


def _why_not(path: PurePosixPath, allowed: Collection[str]) -> tuple[str, str] | None:
    if "engine-socket" not in allowed and _leads_to_engine(path):
        return "engine-socket", "is or holds an engine's socket, which makes whoever can use it root on the host"
    if "host-paths" in allowed:
        return None
    trees = [*map(PurePosixPath, _TREES)]
    if any(path.is_relative_to(tree) for tree in trees):
        return "host-paths", "belongs to the host itself"
    if _KEYS.intersection(path.parts):
        return "host-paths", "holds keys"
    for held in [*trees, *map(PurePosixPath, (*_DIRECTORIES, os.path.expanduser("~")))]:
        if held.is_relative_to(path):
            return "host-paths", f"is or holds {str(held)!r}"
    return None


def _leads_to_engine(path: PurePosixPath) -> bool:
    if path.name in _SOCKET_NAMES or any(PurePosixPath(socket).is_relative_to(path) for socket in _sockets()):
        return True
    with suppress(OSError):  # not there, or not for this process to see
        return stat.S_ISSOCK(os.stat(path).st_mode) or any(os.path.lexists(path / name) for name in _SOCKET_NAMES)
    return False


def _sockets() -> list[str]:
    """The sockets of engines, that of this process's own included."""
    kind, _, address = os.environ.get("DOCKER_HOST", "").partition("://")
    return [*_SOCKETS, *([address] if kind == "unix" and address else ())]
