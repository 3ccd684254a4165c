"""What holds a session in: read back from the engine, never from what was asked for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from podkit.backends.base import WorkloadInfo
from podkit.core.models import ContainerConfig

__all__ = ["Isolation"]

CommandPath = Literal["agent", "engine exec"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Isolation:
    """What the engine says that it enforces on a session's container.

    Attributes:
        commands: how commands run. Through the engine's exec, a command over its time is ended with its container.
        commands_reason: why not through the agent; `None` where they do.
        user: of the main process and of commands that name none.
        capabilities: all that root inside keeps; `None` where the engine does not say.
        no_new_privileges: whether programs with set-user-id or file capabilities give none.
        networks: the names of the networks that it is in.
        cpu_limit: cores; `None` where there is no limit.
        memory_bytes: `None` where there is no limit.
        pids_limit: processes and threads; `None` where there is no limit.
        runtime: the name of the OCI runtime; `""` where the engine does not say.
        profile: what was asked for; `not_enforced` says what does not hold of it.
        allow_unsafe: what weakens it, as was asked for.
        read_only_root: whether the root file system cannot be written to.
        seccomp: whether the engine's filter of system calls applies.
        privileged: everything is granted, devices included.
        host_namespaces: which of the host's it is in: `network`, `pid`, `ipc`.
        not_enforced: what is not held back, a sentence each.
    """

    commands: CommandPath
    commands_reason: str | None
    user: str
    capabilities: tuple[str, ...] | None
    no_new_privileges: bool
    networks: tuple[str, ...]
    cpu_limit: float | None
    memory_bytes: int | None
    pids_limit: int | None
    runtime: str
    profile: str
    allow_unsafe: tuple[str, ...]
    read_only_root: bool
    seccomp: bool
    privileged: bool
    host_namespaces: tuple[str, ...]
    not_enforced: tuple[str, ...]


def read_isolation(info: WorkloadInfo, config: ContainerConfig, why_no_agent: str | None) -> Isolation:
    """Make the report of a container.

    Args:
        info: what the engine says of it now.
        config: what it was made of.
        why_no_agent: `None` where its commands run through the agent.
    """
    found = info.confinement
    return Isolation(
        commands="engine exec" if why_no_agent else "agent",
        commands_reason=why_no_agent,
        user=info.user or "root",
        capabilities=None if found.capabilities is None else tuple(found.capabilities),
        no_new_privileges=found.no_new_privileges,
        networks=tuple(info.networks),
        cpu_limit=found.cpu_limit,
        memory_bytes=found.memory_bytes,
        pids_limit=found.pids_limit,
        runtime=found.runtime,
        profile=config.profile,
        allow_unsafe=tuple(sorted(config.allow_unsafe)),
        read_only_root=found.read_only_root,
        seccomp=not found.unfiltered,
        privileged=found.privileged,
        host_namespaces=tuple(found.host_namespaces),
        not_enforced=tuple(_gaps(info)),
    )


def _gaps(info: WorkloadInfo) -> list[str]:
    found = info.confinement
    gaps = {
        "it shares the kernel of its host": found.runtime not in ("runsc", "kata", "kata-runtime"),
        "its disk space has no limit": True,
        "its network reaches what the engine's networks reach": bool(info.networks) and {*info.networks} != {"none"},
        "whoever reaches the host reaches its ports": not all(map(_is_loopback, found.publish_addresses)),
        "its CPU time has no limit": found.cpu_limit is None,
        "its memory has no limit": found.memory_bytes is None,
        "it may use swap": found.swap,
        "the number of its processes has no limit": found.pids_limit is None,
        "its capabilities are the engine's choice": found.capabilities is None,
        "set-user-id programs give privileges": not found.no_new_privileges,
        "no filter of system calls holds it": found.unfiltered,
        "it is privileged: root inside is root on the host": found.privileged,
        f"it is in namespaces of the host: {', '.join(found.host_namespaces)}": bool(found.host_namespaces),
    }
    return [text for text, is_open in gaps.items() if is_open]


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
