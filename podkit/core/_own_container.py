"""The container that podkit itself runs in."""

from __future__ import annotations

import re
import socket
from pathlib import Path, PurePosixPath

from podkit.backends.base import Backend, Deadline, WorkloadInfo
from podkit.errors import ContainerNotFound

_PREDEFINED_NETWORKS = ("host", "none")  # not joined: the one would open the host's network, the other excludes all
_ID = re.compile(r"\b[0-9a-f]{64}\b")


def own_container_candidates() -> list[str]:
    """Return ids and names that may be this process's container, likeliest first. Empty outside of one.

    cgroup paths name the container with cgroup v1, the mounts that an engine makes for /etc/hostname with both; the
    host name is the id's beginning unless somebody chose another. None of it is proof: ask the engine, and compare.
    """
    if not (Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()):
        return []
    candidates: list[str] = []
    for name, marker in (("cgroup", ""), ("mountinfo", "/hostname")):
        try:
            lines = Path("/proc/self", name).read_text().splitlines()
        except OSError:
            continue
        candidates += [match[0] for line in lines if marker in line and (match := _ID.search(line))]
    return list(dict.fromkeys([*candidates, socket.gethostname()]))


def parent_workload(backend: Backend, *, deadline: Deadline | None = None) -> WorkloadInfo | None:
    """Inspect this process's own container. `None` outside of one, or on another engine."""
    for candidate in own_container_candidates():
        try:
            return backend.inspect_workload(candidate, deadline=deadline)
        except ContainerNotFound:
            continue
    return None


def parent_networks(parent: WorkloadInfo | None) -> list[str]:
    """Return the names of the parent's networks."""
    return [name for name in (parent.networks if parent else ()) if name not in _PREDEFINED_NETWORKS]


def seen_by_engine(path: str, parent: WorkloadInfo | None) -> str:
    """Translate this process's path to the engine's, by the parent's mounts.

    The innermost mount counts. A path that no mount shows is given back as it is: the engine will say that it does
    not exist.
    """
    best: tuple[PurePosixPath, str] | None = None
    for source, target in parent.mounts if parent else ():
        mounted = PurePosixPath(target)
        if source and PurePosixPath(path).is_relative_to(mounted) and (best is None or mounted.is_relative_to(best[0])):
            best = mounted, source
    return str(PurePosixPath(best[1]) / PurePosixPath(path).relative_to(best[0])) if best else path
