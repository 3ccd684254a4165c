"""The JSON of the Docker Engine API, to and from podkit's terms; pure code, and the same for Podman's socket.

Source: Docker Engine API, "Create a container", "Inspect a container", "List containers".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from podkit.backends.base import Confinement, ExecSpec, WorkloadInfo, WorkloadRow, WorkloadSpec
from podkit.core._terms import ContainerStatus

_LOG_CONFIG = {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
_NO_LOG = {"Type": "none", "Config": {}}
_CPU_PERIOD = 100_000  # microseconds

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


def container_request(spec: WorkloadSpec, mounts: Sequence[Mapping[str, Any]], binds: Sequence[str]) -> dict[str, Any]:
    """Give the body of `POST /containers/create`.

    Args:
        spec: what to make.
        mounts: its mounts, as mount dicts.
        binds: further ones in the older form `source:target:flags`.
    """
    privileges = spec.privileges
    options = [] if privileges.new_privileges else ["no-new-privileges"]
    options += ["seccomp=unconfined"] if privileges.unfiltered else []
    host: dict[str, Any] = {
        "Mounts": list(mounts),
        "Binds": list(binds),
        "PortBindings": {
            f"{port}/tcp": [{"HostIp": spec.publish_address, "HostPort": str(port)}] for port in spec.ports
        },
        "CpuPeriod": _CPU_PERIOD,
        "CpuQuota": int(spec.cpu_limit * _CPU_PERIOD),
        "Memory": spec.memory_bytes,
        "MemorySwap": spec.memory_bytes,  # the sum of both: so no swap
        "PidsLimit": spec.pids_limit,
        "CapDrop": ["ALL"],
        "CapAdd": list(privileges.capabilities),
        "SecurityOpt": options,
        "Privileged": privileges.privileged,
        "ReadonlyRootfs": spec.read_only_root,
        "LogConfig": _NO_LOG if spec.attachable else _LOG_CONFIG,
        "Init": spec.init,
    }
    if spec.networks:
        host["NetworkMode"] = spec.networks[0]
    host |= {f"{name.capitalize()}Mode": "host" for name in privileges.host_namespaces}
    if spec.in_memory:
        host["Tmpfs"] = dict.fromkeys(spec.in_memory, _memory_options(spec))
    if spec.runtime:
        host["Runtime"] = spec.runtime
    body: dict[str, Any] = {
        "Image": spec.image,
        "Labels": dict(spec.labels),
        "Env": [f"{name}={value}" for name, value in spec.environment.items()],
        "WorkingDir": spec.working_dir,
        "OpenStdin": spec.attachable,
        "StdinOnce": spec.attachable,  # the end of the first stream is the end of the input
        "ExposedPorts": {f"{port}/tcp": {} for port in spec.ports},
        "HostConfig": host,
    }
    optional = {"User": spec.user, "Entrypoint": spec.entrypoint, "Cmd": spec.command}
    return body | {key: value for key, value in optional.items() if value is not None}


def _memory_options(spec: WorkloadSpec) -> str:
    """Give the options of a directory in memory, whose owner counts: runc gives it the mode of the image's."""
    options = ["rw", "exec", "nosuid", "nodev", "mode=1777", f"size={spec.memory_bytes // 2}"]
    numbers = zip(("uid", "gid"), (spec.user or "").split(":"), strict=False)
    return ",".join([*options, *(f"{name}={number}" for name, number in numbers if number.isdecimal())])


def exec_request(spec: ExecSpec) -> dict[str, Any]:
    """Give the body of `POST /containers/{id}/exec`."""
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
        running_commands=len(data.get("ExecIDs") or ()),
        confinement=_confinement(data.get("HostConfig") or {}),
    )


def _confinement(host: Mapping[str, Any]) -> Confinement:
    memory, swap, pids = host.get("Memory") or 0, host.get("MemorySwap") or 0, host.get("PidsLimit") or 0
    nano, quota = host.get("NanoCpus") or 0, host.get("CpuQuota") or 0
    period = host.get("CpuPeriod") or _CPU_PERIOD
    cores = nano / 1e9 if nano > 0 else quota / period
    dropped = [name.upper().removeprefix("CAP_") for name in host.get("CapDrop") or ()]
    kept = sorted(name.upper().removeprefix("CAP_") for name in host.get("CapAdd") or ())
    known = "ALL" in dropped and "ALL" not in kept and not host.get("Privileged")
    options = [str(option) for option in host.get("SecurityOpt") or ()]
    return Confinement(
        cpu_limit=cores if cores > 0 else None,
        memory_bytes=memory if memory > 0 else None,
        swap=not 0 < memory == swap,
        pids_limit=pids if pids > 0 else None,
        capabilities=tuple(kept) if known else None,
        no_new_privileges=bool({"no-new-privileges", "no-new-privileges:true", "no-new-privileges=true"} & {*options}),
        runtime=host.get("Runtime") or "",
        read_only_root=bool(host.get("ReadonlyRootfs")),
        unfiltered=bool(host.get("Privileged") or "seccomp=unconfined" in options),
        privileged=bool(host.get("Privileged")),
        host_namespaces=tuple(
            name for name in ("network", "pid", "ipc") if host.get(f"{name.capitalize()}Mode") == "host"
        ),
        publish_addresses=tuple(
            binding.get("HostIp") or "0.0.0.0"
            for bindings in (host.get("PortBindings") or {}).values()
            for binding in bindings or ()
        ),
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
    if not text or text.startswith("0001-"):  # Go's way to say never
        return None
    return datetime.fromisoformat(text)
