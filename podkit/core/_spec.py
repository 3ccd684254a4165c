"""From a configuration to what a backend is asked to make; pure code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from podkit.backends.base import MountSpec, WorkloadSpec
from podkit.core._profiles import STANDARD_CAPABILITIES
from podkit.core.models import ContainerConfig


def workload_spec(
    name: str,
    config: ContainerConfig,
    labels: Mapping[str, str],
    mounts: Sequence[MountSpec],
    networks: Sequence[str],
) -> WorkloadSpec:
    """Return the workload that a configuration describes."""
    entrypoint, command = main_process(config)
    return WorkloadSpec(
        name=name,
        image=config.image,
        labels=labels,
        entrypoint=entrypoint,
        command=command,
        environment=config.environment,
        user=config.user,
        working_dir=config.working_dir,
        mounts=mounts,
        ports=config.ports,
        networks=networks,
        cpu_limit=config.cpu_limit,
        memory_bytes=config.memory_limit_bytes,
        pids_limit=config.pids_limit,
        capabilities=STANDARD_CAPABILITIES,
        # an image's own or a given entrypoint may be an init itself, and wants to be the first process
        init=not config.use_image_defaults and not config.entrypoint,
    )


def main_process(config: ContainerConfig) -> tuple[list[str] | None, list[str] | None]:
    """Return the entrypoint and the command of the container, in the terms of `WorkloadSpec`."""
    if config.use_image_defaults:
        return None, None
    if config.entrypoint:
        return config.entrypoint, config.command or []
    if config.command is not None:
        return [], config.command
    seconds = "infinity" if config.entrypoint is not None else str(config.container_lifetime_seconds)
    return [], ["sleep", seconds]
