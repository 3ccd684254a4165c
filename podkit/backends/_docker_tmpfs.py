"""The mode of a mounted tmpfs, which engines forget at a restart."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import PurePosixPath

from podkit.backends._docker_calls import put_archive
from podkit.backends._http import Refused, Requests
from podkit.backends.base import MountSpec

_OPEN = 0o1777


def open_tmpfs(api: Requests, id: str, mounts: Sequence[MountSpec]) -> None:
    """Set the mode of the directory under each tmpfs. The container has never run.

    The engine makes these directories with mode 0755. From the second start on, runc copies that mode to the tmpfs.
    """
    targets = {PurePosixPath(mount.target) for mount in mounts}
    modes = {
        mount.target.strip("/"): _OPEN if mount.mode is None else mount.mode
        for mount in mounts
        # below another mount, the directory belongs to that mount, and may even be the host's
        if mount.type == "tmpfs" and targets.isdisjoint(PurePosixPath(mount.target).parents)
    }
    if not modes:
        return
    from podkit.backends._archive import of_directories  # late: see there

    with suppress(Refused):  # such as for an image with a symlink at this path
        put_archive(api, id, "/", of_directories(modes))
