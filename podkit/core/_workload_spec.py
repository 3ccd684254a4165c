"""From a configuration to a backend's `WorkloadSpec`. Pure code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from podkit.agent import agent_program
from podkit.backends.base import MountSpec, SharedFiles, WorkloadSpec
from podkit.core._capabilities import STANDARD_CAPABILITIES

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig


def workload_spec(
    name: str,
    config: ContainerConfig,
    labels: Mapping[str, str],
    mounts: Sequence[MountSpec],
    networks: Sequence[str],
    agent: SharedFiles | str,
) -> WorkloadSpec:
    """Return the workload that a configuration describes.

    Args:
        name: of the workload.
        config: of the session.
        labels: those of the session.
        mounts: the session's.
        networks: those that the configuration names.
        agent: its program, or the reason why there is none.
    """
    entrypoint, command = main_process(config)
    shared = None if isinstance(agent, str) else agent
    keeps_alive = shared is not None and config.runs_keepalive
    about_agent = {agent_program.WHY_NOT_LABEL: agent} if isinstance(agent, str) else {agent_program.LABEL: agent.name}
    labels = {**labels, **about_agent}
    if keeps_alive and command:  # the agent runs as the `sleep` that the engine shows
        entrypoint, labels = [agent_program.PATH], {**labels, agent_program.LIFETIME_LABEL: command[-1]}
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
        init=not keeps_alive and not config.use_image_defaults and not config.entrypoint,
        attachable=keeps_alive,
        shm_bytes=config.shm_size_bytes,
        extra_hosts=config.extra_hosts,
        shared=shared,
    )


def main_process(config: ContainerConfig) -> tuple[list[str] | None, list[str] | None]:
    """Return the container's entrypoint and command, as `WorkloadSpec` has them."""
    if config.use_image_defaults:
        return None, None
    if config.entrypoint:
        return config.entrypoint, config.command or []
    if config.command is not None:
        return [], config.command
    seconds = "infinity" if config.entrypoint is not None else str(config.container_lifetime_seconds)
    return [], ["sleep", seconds]
