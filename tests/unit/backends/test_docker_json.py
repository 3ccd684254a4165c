"""Docker's JSON, to and from podkit's terms."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from podkit.backends._docker_json import container_request, exec_request, published_ports, workload_info, workload_row
from podkit.backends.base import ExecSpec, MountSpec, SharedFiles
from podkit.core.models import ContainerStatus
from tests.unit.support import make_spec

# --- asking ----------------------------------------------------------------------------------------


def request(**changes: Any) -> dict[str, Any]:
    return container_request(make_spec(**changes), binds=[])


def test_limits_are_always_set_and_swap_is_never_more_than_memory() -> None:
    host = request(cpu_limit=1.5, memory_bytes=64 << 20, pids_limit=100)["HostConfig"]
    assert host["CpuQuota"] / host["CpuPeriod"] == 1.5
    assert host["Memory"] == host["MemorySwap"] == 64 << 20
    assert host["PidsLimit"] == 100


def test_half_a_core_is_a_quota_of_half_a_period() -> None:
    host = request(cpu_limit=0.5)["HostConfig"]
    assert (host["CpuQuota"], host["CpuPeriod"]) == (50_000, 100_000)


def test_a_container_keeps_the_named_capabilities_alone_and_gains_no_privileges() -> None:
    host = request(capabilities=["CHOWN"])["HostConfig"]
    assert (host["CapDrop"], host["CapAdd"]) == (["ALL"], ["CHOWN"])
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert not host.get("Privileged")


def test_shared_memory_and_hosts_are_the_engines_own_unless_the_workload_names_them() -> None:
    assert not {"ShmSize", "ExtraHosts"} & set(request()["HostConfig"])
    host = request(shm_bytes=1 << 20, extra_hosts={"a": "10.0.0.1", "b": "::1"})["HostConfig"]
    assert (host["ShmSize"], host["ExtraHosts"]) == (1 << 20, ["a:10.0.0.1", "b:::1"])


def test_logs_are_capped() -> None:
    config = request()["HostConfig"]["LogConfig"]["Config"]
    assert {"max-size", "max-file"} <= set(config)


def test_ports_are_published_on_loopback_alone() -> None:
    body = request(ports=[8080])
    assert body["HostConfig"]["PortBindings"] == {"8080/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}
    assert body["ExposedPorts"] == {"8080/tcp": {}}


def test_an_environment_value_may_hold_an_equals_sign() -> None:
    assert request(environment={"A": "b=c", "E": ""})["Env"] == ["A=b=c", "E="]


def test_what_is_none_is_left_to_the_image() -> None:
    body = request(entrypoint=None, command=None, user=None)
    assert not {"Entrypoint", "Cmd", "User"} & set(body)


def test_an_empty_entrypoint_removes_the_images() -> None:
    body = request(entrypoint=[], command=["sleep", "60"])
    assert (body["Entrypoint"], body["Cmd"]) == ([], ["sleep", "60"])


def test_the_first_network_replaces_the_default_one() -> None:
    assert request(networks=["front", "back"])["HostConfig"]["NetworkMode"] == "front"
    assert "NetworkMode" not in request()["HostConfig"]


MOUNTS: dict[MountSpec, dict[str, Any]] = {
    MountSpec(type="bind", source="/a", target="/b", read_only=True): {"Source": "/a", "ReadOnly": True},
    MountSpec(type="volume", source="data", target="/b"): {"Source": "data", "ReadOnly": False},
    MountSpec(type="volume", target="/b"): {"ReadOnly": False},
    MountSpec(type="tmpfs", target="/b", size_bytes=4096, mode=0o700): {
        "ReadOnly": False,
        "TmpfsOptions": {"SizeBytes": 4096, "Mode": 0o700},
    },
}


@pytest.mark.parametrize("mount", MOUNTS, ids=str)
def test_a_mount_is_asked_for_in_dockers_words(mount: MountSpec) -> None:
    assert request(mounts=[mount])["HostConfig"]["Mounts"] == [{"Type": mount.type, "Target": "/b"} | MOUNTS[mount]]


def test_a_directory_of_a_volume_is_asked_for_in_the_older_form_alone() -> None:
    mount = MountSpec(type="volume", source="data", subpath="bob/1", target="/workspace")
    host = container_request(make_spec(mounts=[mount]), binds=["/volumes/data/bob/1:/workspace:rw"])["HostConfig"]
    assert (host["Mounts"], host["Binds"]) == ([], ["/volumes/data/bob/1:/workspace:rw"])


def test_shared_files_are_a_volume_that_cannot_be_written() -> None:
    shared = SharedFiles(name="podkit-x", target="/run/x", by_architecture={})
    [mount] = request(shared=shared)["HostConfig"]["Mounts"]
    assert mount == {"Type": "volume", "Source": "podkit-x", "Target": "/run/x", "ReadOnly": True}


def test_a_command_is_asked_for_with_all_that_it_is_given() -> None:
    body = exec_request(ExecSpec(argv=["ls"], user="1", working_dir="/w", environment={"A": "b=c"}, stdin=True))
    assert (body["Cmd"], body["User"], body["WorkingDir"], body["Env"]) == (["ls"], "1", "/w", ["A=b=c"])
    assert body["AttachStdin"]
    assert not exec_request(ExecSpec(argv=["ls"]))["AttachStdin"]


# --- reading ---------------------------------------------------------------------------------------

STATE = {
    "Status": "running",
    "ExitCode": 0,
    "OOMKilled": False,
    "Error": "",
    "StartedAt": "2026-01-02T03:04:05.123456789Z",
    "FinishedAt": "0001-01-01T00:00:00Z",
}


def answer(state: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    return {
        "Id": "f" * 64,
        "Name": "/unit-bob-1",
        "Created": "2026-01-02T03:04:05Z",
        "State": STATE | (state or {}),
        "Config": {"Labels": {"a": "b"}, "Env": ["PATH=/bin", "A=b=c", "odd"], "User": "nobody"},
        "NetworkSettings": {"Networks": {"bridge": {}}},
        "Mounts": [{"Source": "/srv", "Destination": "/workspace"}, {"Destination": "/tmp"}],
    } | changes


def test_a_running_container_is_read() -> None:
    info = workload_info(answer())
    assert (info.id, info.name, info.status) == ("f" * 64, "unit-bob-1", ContainerStatus.RUNNING)
    assert info.labels == {"a": "b"}
    assert info.environment == {"PATH": "/bin", "A": "b=c"}
    assert (info.user, info.networks) == ("nobody", ("bridge",))
    assert info.mounts == (("/srv", "/workspace"), ("", "/tmp"))
    assert info.exit_code is None


def test_times_are_read_with_their_zone_and_never_is_none() -> None:
    info = workload_info(answer())
    assert info.created_at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert info.started_at == datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
    assert info.finished_at is None


@pytest.mark.parametrize("text", ["2026-01-02T05:04:05.1+02:00", "2026-01-02T03:04:05.100000000Z"])
def test_times_of_any_zone_and_precision_are_read(text: str) -> None:
    info = workload_info(answer({"FinishedAt": text}))
    assert info.finished_at == datetime(2026, 1, 2, 3, 4, 5, 100000, tzinfo=UTC)


@pytest.mark.parametrize("text", ["", None, "0001-01-01T00:00:00Z"])
def test_a_missing_time_is_none(text: str | None) -> None:
    assert workload_info(answer({"StartedAt": text})).started_at is None


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("created", ContainerStatus.CREATING),
        ("running", ContainerStatus.RUNNING),
        ("paused", ContainerStatus.PAUSED),
        ("restarting", ContainerStatus.RESTARTING),
        ("removing", ContainerStatus.DEAD),
        ("exited", ContainerStatus.EXITED),
        ("stopped", ContainerStatus.EXITED),
        ("dead", ContainerStatus.DEAD),
        ("something new", ContainerStatus.UNKNOWN),
    ],
)
def test_a_state_is_read_in_podkits_words(word: str, status: ContainerStatus) -> None:
    assert workload_info(answer({"Status": word})).status is status
    row = {"Id": "1", "Names": ["/x"], "State": word, "Labels": None}
    assert workload_row(row)["status"] is status


def test_an_exit_code_counts_once_the_container_has_ended() -> None:
    assert workload_info(answer({"Status": "exited", "ExitCode": 137, "OOMKilled": True})).exit_code == 137
    assert workload_info(answer({"Status": "exited", "ExitCode": 0})).exit_code == 0
    assert workload_info(answer({"Status": "created", "ExitCode": 0})).exit_code is None


@pytest.mark.parametrize("value", [None, []])
def test_what_an_engine_leaves_empty_is_empty(value: Any) -> None:
    assert workload_info(answer(Mounts=value)).mounts == ()


def test_a_container_without_labels_environment_and_networks_is_read() -> None:
    config = {"Labels": None, "Env": None, "User": None}
    info = workload_info(answer(Config=config, NetworkSettings={"Networks": None}))
    assert (info.labels, info.environment, info.user, info.networks) == ({}, {}, "", ())


@pytest.mark.parametrize("names", [None, []])
def test_a_row_without_a_name_is_read(names: Any) -> None:
    assert workload_row({"Id": "1", "Names": names, "State": "dead"})["name"] == ""


def test_published_ports_are_read_for_tcp_alone() -> None:
    ports = {
        "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}, {"HostIp": "::1", "HostPort": "8080"}],
        "53/udp": [{"HostIp": "127.0.0.1", "HostPort": "53"}],
        "81/tcp": None,
        "82/tcp": [],
    }
    assert published_ports(ports) == {80: 8080}
