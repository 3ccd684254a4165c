"""From a configuration to what a backend is asked to make."""

from __future__ import annotations

from typing import Any

import pytest

from podkit.backends.base import Privileges, SharedFiles
from podkit.core._spec import main_process, mount_to_dict, workload_spec
from podkit.core.models import ContainerConfig, Mount


@pytest.mark.parametrize(
    ("fields", "entrypoint", "command"),
    [
        ({}, [], ["sleep", "60"]),
        ({"container_lifetime_seconds": 5}, [], ["sleep", "5"]),
        ({"entrypoint": []}, [], ["sleep", "infinity"]),
        ({"entrypoint": [], "container_lifetime_seconds": 5}, [], ["sleep", "infinity"]),
        ({"command": ["serve", "x"]}, [], ["serve", "x"]),
        ({"entrypoint": [], "command": ["serve"]}, [], ["serve"]),
        ({"entrypoint": ["/init"]}, ["/init"], []),
        ({"entrypoint": ["/init"], "command": ["serve"]}, ["/init"], ["serve"]),
        ({"use_image_defaults": True}, None, None),
        ({"use_image_defaults": True, "container_lifetime_seconds": 5}, None, None),
    ],
    ids=str,
)
def test_the_main_process_is(fields: dict[str, Any], entrypoint: Any, command: Any) -> None:
    assert main_process(ContainerConfig(**fields)) == (entrypoint, command)


CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
)

AGENT = SharedFiles(name="podkit-agent-x", target="/run/podkit", by_architecture={})


def spec(agent: SharedFiles | None = None, **fields: Any) -> Any:
    return workload_spec("unit-x", ContainerConfig(**fields), {"a": "b"}, [], fields.get("networks", []), agent)


def test_the_agent_is_the_first_process_in_the_place_of_sleep() -> None:
    found = spec(AGENT, container_lifetime_seconds=5)
    assert (found.entrypoint, found.command, found.init) == (["/run/podkit/agent"], ["sleep", "5"], False)
    assert found.labels == {"a": "b", "podkit.agent": "podkit-agent-x", "podkit.lifetime": "5"}
    assert spec(AGENT, entrypoint=[]).labels["podkit.lifetime"] == "infinity"


@pytest.mark.parametrize("fields", [{"command": ["serve"]}, {"entrypoint": ["/init"]}, {"use_image_defaults": True}])
def test_beside_another_first_process_the_agent_keeps_no_lifetime(fields: dict[str, Any]) -> None:
    found, without = spec(AGENT, **fields), spec(**fields)
    assert (found.entrypoint, found.command, found.init) == (without.entrypoint, without.command, without.init)
    assert found.shared is AGENT
    assert found.labels == {"a": "b", "podkit.agent": "podkit-agent-x"}


def test_podkits_own_sleep_runs_under_the_engines_init() -> None:
    assert spec().init
    assert spec(command=["serve"]).init
    assert spec(entrypoint=[]).init


def test_an_entrypoint_that_may_be_an_init_itself_is_the_first_process() -> None:
    assert not spec(entrypoint=["/init"]).init
    assert not spec(use_image_defaults=True).init


def test_no_workload_is_without_limits() -> None:
    found = spec()
    assert (found.cpu_limit, found.memory_bytes) == (1.0, 512 << 20)
    assert found.pids_limit > 0


def test_a_workload_keeps_eight_capabilities() -> None:
    assert spec().privileges == Privileges(CAPABILITIES)


def test_a_locked_workload_has_no_rights_no_root_and_no_network() -> None:
    found = spec(profile="locked")
    assert (found.user, found.privileges, found.read_only_root) == ("65534:65534", Privileges(), True)
    assert (found.networks, found.in_memory) == (["none"], ["/tmp", "/workspace"])
    assert found.open_directory is None


def test_a_locked_workload_keeps_what_is_mounted_in_the_place_of_memory() -> None:
    config = ContainerConfig(profile="locked")
    mounts = [{"Type": "bind", "Source": "/a", "Target": "/workspace"}]
    assert workload_spec("unit-x", config, {}, mounts, [], None).in_memory == ["/tmp"]


def test_what_is_allowed_by_name_weakens_the_profile_by_that_alone() -> None:
    found = spec(profile="locked", allow_unsafe={"network", "capability:KILL"})
    assert (found.networks, found.privileges, found.read_only_root) == ([], Privileges(("KILL",)), True)
    assert not spec(profile="locked", allow_unsafe={"writable-root"}).read_only_root
    assert spec(profile="locked", allow_unsafe={"root"}).user is None
    found = spec(allow_unsafe={"privileged", "new-privileges", "seccomp-unconfined", "host-pid", "host-ipc"})
    assert found.privileges == Privileges(CAPABILITIES, True, True, True, ("pid", "ipc"))


def test_the_rest_is_handed_on() -> None:
    found = spec(image="i:1", user="u", ports=[80], working_dir="/src", environment={"A": "1"}, memory_limit="1g")
    assert (found.name, found.image, found.user, found.working_dir) == ("unit-x", "i:1", "u", "/src")
    assert (found.ports, found.labels) == ([80], {"a": "b"})
    assert (found.environment, found.memory_bytes) == ({"A": "1"}, 1 << 30)


@pytest.mark.parametrize(
    ("mount", "made"),
    [
        (
            Mount(source="/a", target="/b", read_only=True),
            {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True},
        ),
        (
            Mount(source="data", target="/b", type="volume"),
            {"Type": "volume", "Source": "data", "Target": "/b", "ReadOnly": False},
        ),
        (Mount(target="/b", type="tmpfs"), {"Type": "tmpfs", "Target": "/b", "ReadOnly": False}),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_a_mount_becomes_dockers_mount_dict(mount: Mount, made: dict[str, Any]) -> None:
    assert mount_to_dict(mount) == made
