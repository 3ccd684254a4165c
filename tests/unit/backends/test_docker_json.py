"""Docker's JSON, to and from podkit's terms."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from podkit.backends._docker_json import container_request, published_ports, workload_info, workload_row
from podkit.core.models import ContainerStatus
from tests.unit.support import make_spec

# --- asking ----------------------------------------------------------------------------------------


def request(**changes: Any) -> dict[str, Any]:
    return container_request(make_spec(**changes), mounts=[], binds=[])


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
        "ExecIDs": ["1", "2"],
    } | changes


def test_a_running_container_is_read() -> None:
    info = workload_info(answer())
    assert (info.id, info.name, info.status) == ("f" * 64, "unit-bob-1", ContainerStatus.RUNNING)
    assert info.labels == {"a": "b"}
    assert info.environment == {"PATH": "/bin", "A": "b=c"}
    assert (info.user, info.networks, info.running_commands) == ("nobody", ("bridge",), 2)
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


@pytest.mark.parametrize("gone", ["Mounts", "ExecIDs"])
@pytest.mark.parametrize("value", [None, []])
def test_what_an_engine_leaves_empty_is_empty(gone: str, value: Any) -> None:
    info = workload_info(answer(**{gone: value}))
    assert (info.mounts if gone == "Mounts" else info.running_commands) in ((), 0)


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
