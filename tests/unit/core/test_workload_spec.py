"""From a configuration to what a backend is asked to make."""

from __future__ import annotations

from typing import Any

import pytest

from podkit.backends.base import SharedFiles
from podkit.core._workload_spec import main_process, workload_spec
from podkit.core.models import ContainerConfig


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


def spec(**fields: Any) -> Any:
    return workload_spec("unit-x", ContainerConfig(**fields), {"a": "b"}, [], ["front"], "the agent cannot be placed")


def test_podkits_own_process_runs_under_the_engines_init() -> None:
    assert spec().init
    assert spec(command=["serve"]).init
    assert spec(entrypoint=[]).init


def test_an_entrypoint_that_may_be_an_init_itself_is_the_first_process() -> None:
    assert not spec(entrypoint=["/init"]).init
    assert not spec(use_image_defaults=True).init


def test_a_workload_without_the_agent_says_why() -> None:
    found = spec()
    assert (found.attachable, found.shared) == (False, None)
    assert found.labels == {"a": "b", "podkit.why_no_agent": "the agent cannot be placed"}


def test_no_workload_is_without_limits() -> None:
    found = spec()
    assert (found.cpu_limit, found.memory_bytes) == (1.0, 512 << 20)
    assert found.pids_limit > 0


def test_a_workload_keeps_eight_capabilities() -> None:
    assert sorted(spec().capabilities) == [
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "NET_BIND_SERVICE",
        "SETGID",
        "SETUID",
    ]


def test_the_rest_is_handed_on() -> None:
    found = spec(image="i:1", user="u", ports=[80], working_dir="/src", environment={"A": "1"}, memory_limit="1g")
    assert (found.name, found.image, found.user, found.working_dir) == ("unit-x", "i:1", "u", "/src")
    assert (found.ports, found.networks) == ([80], ["front"])
    assert (found.environment, found.memory_bytes) == ({"A": "1"}, 1 << 30)


# --- with the agent --------------------------------------------------------------------------------

AGENT = SharedFiles(name="podkit-agent-x", target="/run/podkit", by_architecture={})


def with_agent(**fields: Any) -> Any:
    return workload_spec("unit-x", ContainerConfig(**fields), {"a": "b"}, [], [], AGENT)


@pytest.mark.parametrize(
    ("fields", "seconds"),
    [({}, "60"), ({"container_lifetime_seconds": 5}, "5"), ({"entrypoint": []}, "infinity")],
    ids=str,
)
def test_the_agent_is_the_sleep_that_keeps_a_container_alive(fields: dict[str, Any], seconds: str) -> None:
    found = with_agent(**fields)
    assert (found.entrypoint, found.command) == (["/run/podkit/agent"], ["sleep", seconds])
    assert (found.init, found.attachable, found.shared) == (False, True, AGENT)
    assert found.labels == {"a": "b", "podkit.agent": "podkit-agent-x", "podkit.lifetime": seconds}


@pytest.mark.parametrize(
    "fields", [{"command": ["serve"]}, {"entrypoint": ["/init"]}, {"use_image_defaults": True}], ids=str
)
def test_the_agent_stands_beside_a_main_process_of_the_users_own(fields: dict[str, Any]) -> None:
    found = with_agent(**fields)
    assert (found.entrypoint, found.command) == main_process(ContainerConfig(**fields))
    assert (found.attachable, found.shared) == (False, AGENT)
    assert "podkit.lifetime" not in found.labels
