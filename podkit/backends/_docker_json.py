"""The Docker Engine API's JSON, to and from podkit's terms. Pure code, the same for Podman's socket.

Source: Docker Engine API, "Create a container", "Inspect a container", "List containers".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from podkit._models.container_status import ContainerStatus
from podkit.backends.base import ExecSpec, MountSpec, WorkloadInfo, WorkloadRow, WorkloadSpec

_LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
_NO_LOG = {"Type": "none", "Config": {}}
_CPU_PERIOD = 100_000  # microseconds
_LOOPBACK = "127.0.0.1"

_STATUS = {
    "created": ContainerStatus.CREATING,
    "running": ContainerStatus.RUNNING,
    "paused": ContainerStatus.PAUSED,
    "restarting": ContainerStatus.RESTARTING,
    "removing": ContainerStatus.DEAD,
    "exited": ContainerStatus.EXITED,
    "stopped": ContainerStatus.EXITED,
    "dead": ContainerStatus.DEAD,
}


def container_request(spec: WorkloadSpec, binds: Sequence[str]) -> dict[str, Any]:
    """Return the body of `POST /containers/create`.

    Args:
        spec: the workload to make.
        binds: the mounts of one directory of a volume, in the older form `source:target:flags`.
    """
    mounts = [mount for mount in spec.mounts if not mount.subpath]
    if shared := spec.shared:
        mounts.append(MountSpec(type="volume", source=shared.name, target=shared.target, read_only=True))
    host: dict[str, Any] = {
        "Mounts": [_mount(mount) for mount in mounts],
        "Binds": list(binds),
        "PortBindings": {f"{port}/tcp": [{"HostIp": _LOOPBACK, "HostPort": str(port)}] for port in spec.ports},
        "CpuPeriod": _CPU_PERIOD,
        "CpuQuota": int(spec.cpu_limit * _CPU_PERIOD),
        "Memory": spec.memory_bytes,
        "MemorySwap": spec.memory_bytes,  # memory and swap together, so no swap
        "PidsLimit": spec.pids_limit,
        "CapDrop": ["ALL"],
        "CapAdd": list(spec.capabilities),
        "SecurityOpt": ["no-new-privileges"],
        "LogConfig": _NO_LOG if spec.attachable else _LOG_CONFIG,
        "Init": spec.init,
    }
    if spec.shm_bytes is not None:
        host["ShmSize"] = spec.shm_bytes
    if spec.extra_hosts:
        host["ExtraHosts"] = [f"{name}:{address}" for name, address in spec.extra_hosts.items()]
    if spec.networks:
        host["NetworkMode"] = spec.networks[0]
    body: dict[str, Any] = {
        "Image": spec.image,
        "Labels": dict(spec.labels),
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
        "WorkingDir": spec.working_dir,
        "OpenStdin": spec.attachable,
        "StdinOnce": spec.attachable,  # the input ends with the first stream
        "ExposedPorts": {f"{port}/tcp": {} for port in spec.ports},
        "HostConfig": host,
    }
    optional = {"User": spec.user, "Entrypoint": spec.entrypoint, "Cmd": spec.command}
    return body | {key: value for key, value in optional.items() if value is not None}


def _mount(mount: MountSpec) -> dict[str, Any]:
    made: dict[str, Any] = {"Type": mount.type, "Target": mount.target, "ReadOnly": mount.read_only}
    if mount.source:  # a tmpfs and an unnamed volume have none
        made["Source"] = mount.source
    memory = {"SizeBytes": mount.size_bytes, "Mode": mount.mode}
    if options := {key: value for key, value in memory.items() if value is not None}:
        made["TmpfsOptions"] = options
    return made


def exec_request(spec: ExecSpec) -> dict[str, Any]:
    """Return the body of `POST /containers/{id}/exec`."""
    return {
        "Cmd": list(spec.argv),
        "User": spec.user or "",
        "WorkingDir": spec.working_dir or "",
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
        "AttachStdin": spec.stdin,
        "AttachStdout": True,
        "AttachStderr": True,
        "Tty": False,
    }


def workload_info(data: Mapping[str, Any]) -> WorkloadInfo:
    """Read the answer of `GET /containers/{id}/json`."""
    state, config = data["State"], data["Config"]
    status = _STATUS.get(state["Status"], ContainerStatus.UNKNOWN)
    ended = status in (ContainerStatus.EXITED, ContainerStatus.DEAD)
    return WorkloadInfo(
        id=data["Id"],
        name=data["Name"].removeprefix("/"),
        status=status,
        labels=config.get("Labels") or {},
        exit_code=int(state["ExitCode"]) if ended else None,
        oom_killed=bool(state.get("OOMKilled")),
        error=state.get("Error") or "",
        created_at=_time(data.get("Created")),
        started_at=_time(state.get("StartedAt")),
        finished_at=_time(state.get("FinishedAt")),
        environment=dict(entry.split("=", 1) for entry in config.get("Env") or () if "=" in entry),
        user=config.get("User") or "",
        working_dir=config.get("WorkingDir") or "/",
        networks=tuple(data["NetworkSettings"].get("Networks") or ()),
        mounts=tuple((mount.get("Source", ""), mount["Destination"]) for mount in data.get("Mounts") or ()),
    )


def workload_row(data: Mapping[str, Any]) -> WorkloadRow:
    """Read one element of the answer of `GET /containers/json`."""
    return WorkloadRow(
        id=data["Id"],
        name=data["Names"][0].removeprefix("/") if data.get("Names") else "",
        status=_STATUS.get(data["State"], ContainerStatus.UNKNOWN),
        labels=data.get("Labels") or {},
    )


def published_ports(ports: Mapping[str, Any]) -> dict[int, int]:
    """Read `NetworkSettings.Ports`: container port -> host port, TCP only."""
    return {
        int(port.removesuffix("/tcp")): int(bindings[0]["HostPort"])
        for port, bindings in ports.items()
        if bindings and port.endswith("/tcp")
    }


def _time(text: str | None) -> datetime | None:
    if not text or text.startswith("0001-"):  # Go's zero time: never
        return None
    return datetime.fromisoformat(text)
