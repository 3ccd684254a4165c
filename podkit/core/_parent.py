"""The container that podkit itself runs in."""

from __future__ import annotations

from pathlib import PurePosixPath

from podkit.backends.base import Backend, Deadline, WorkloadInfo
from podkit.errors import ContainerNotFound
from podkit.utils._container import own_container_candidates

_PREDEFINED_NETWORKS = ("host", "none")  # not joined: the one would open the host's network, the other excludes all


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
