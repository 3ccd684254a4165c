"""From a configuration to what a backend is asked to make; pure code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from podkit.agent import binary
from podkit.backends.base import Privileges, SharedFiles, WorkloadSpec
from podkit.core._profiles import CAPABILITY, STANDARD_CAPABILITIES
from podkit.core._terms import DEFAULT_WORKING_DIR
from podkit.core.secret import shown_of

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig, Mount

_NOBODY = "65534:65534"
_TEMPORARY = ("/tmp", "/workspace")  # what a locked session can write to, unless something is mounted there


def workload_spec(
    name: str,
    config: ContainerConfig,
    labels: Mapping[str, str],
    mounts: Sequence[Mapping[str, Any]],
    networks: Sequence[str],
    shared: SharedFiles | None,
) -> WorkloadSpec:
    """Give the workload that a configuration describes.

    Args:
        name: of the workload.
        config: what was asked for.
        labels: what it is found by.
        mounts: the session's, as mount dicts.
        networks: those that the configuration names.
        shared: the agent, `None` where it cannot be had.
    """
    entrypoint, command = main_process(config)
    held = _confines(config)
    mounted = {mount["Target"] for mount in mounts}
    in_memory = [target for target in held.in_memory if target not in mounted]
    opens = DEFAULT_WORKING_DIR not in in_memory and _workspace_is_the_engines(mounts)
    networks = networks if held.network else ["none"]
    keeps_alive = shared is not None and config.runs_keepalive
    if shared is not None:
        labels = {**labels, binary.LABEL: shared.name}
    if keeps_alive and command:
        entrypoint, labels = [binary.PATH], {**labels, binary.LIFETIME_LABEL: command[-1]}
    return WorkloadSpec(
        name=name,
        image=config.image,
        labels=labels,
        entrypoint=entrypoint,
        command=command,
        environment=shown_of(config.environment),  # a secret is the agent's to give, and no engine's to show
        user=held.user,
        working_dir=config.working_dir,
        mounts=mounts,
        ports=config.ports,
        networks=networks,
        publish_address=config.publish_address,
        cpu_limit=config.cpu_limit,
        memory_bytes=config.memory_limit_bytes,
        pids_limit=config.pids_limit,
        privileges=held.privileges,
        read_only_root=held.read_only_root,
        in_memory=in_memory,
        runtime=config.runtime,
        # an image's own or a given entrypoint may be an init itself, and wants to be the first process
        init=not keeps_alive and not config.use_image_defaults and not config.entrypoint,
        shared=shared,
        attachable=keeps_alive,
        open_directory=DEFAULT_WORKING_DIR if opens else None,
    )


class _Confines(NamedTuple):
    """What a configuration comes to.

    Attributes:
        user: who runs the commands; `None` for the image's.
        privileges: what a process may do besides.
        read_only_root: whether the root file system cannot be written to.
        in_memory: directories of its own that are kept in memory.
        network: whether there is any.
    """

    user: str | None
    privileges: Privileges
    read_only_root: bool
    in_memory: Sequence[str]
    network: bool


def _confines(config: ContainerConfig) -> _Confines:
    """Give what holds a configuration's container in."""
    unsafe, locked = config.allow_unsafe, config.profile == "locked"
    capabilities = {name.removeprefix(CAPABILITY) for name in unsafe if name.startswith(CAPABILITY)}
    read_only = locked and "writable-root" not in unsafe
    return _Confines(
        user=config.user or (_NOBODY if locked and "root" not in unsafe else None),
        privileges=Privileges(
            capabilities=tuple(sorted(capabilities.union(() if locked else STANDARD_CAPABILITIES))),
            new_privileges="new-privileges" in unsafe,
            unfiltered="seccomp-unconfined" in unsafe,
            privileged="privileged" in unsafe,
            host_namespaces=tuple(name for name in ("pid", "ipc") if f"host-{name}" in unsafe),
        ),
        read_only_root=read_only,
        in_memory=_TEMPORARY if read_only else (),
        network=not locked or "network" in unsafe,
    )


def _workspace_is_the_engines(mounts: Sequence[Mapping[str, Any]]) -> bool:
    """Whether the engine makes `/workspace`: nothing is mounted there, or a directory of a volume."""
    found = [mount for mount in mounts if mount["Target"] == DEFAULT_WORKING_DIR]
    return not found or bool((found[0].get("VolumeOptions") or {}).get("Subpath"))


def main_process(config: ContainerConfig) -> tuple[list[str] | None, list[str] | None]:
    """Give the entrypoint and the command of the container, in the terms of `WorkloadSpec`."""
    if config.use_image_defaults:
        return None, None
    if config.entrypoint:
        return config.entrypoint, config.command or []
    if config.command is not None:
        return [], config.command
    seconds = "infinity" if config.entrypoint is not None else str(config.container_lifetime_seconds)
    return [], ["sleep", seconds]


def mount_to_dict(mount: Mount) -> dict[str, Any]:
    """Give a mount as Docker's mount dict."""
    made: dict[str, Any] = {"Type": mount.type, "Target": mount.target, "ReadOnly": mount.read_only}
    return made | ({"Source": mount.source} if mount.source else {})
