"""The report of what holds a container in."""

from __future__ import annotations

from typing import Any

import pytest

from podkit.backends.base import Confinement
from podkit.core.isolation import read_isolation
from podkit.core.models import ContainerConfig
from tests.unit.support import make_info

FULL = Confinement(
    cpu_limit=1.0,
    memory_bytes=1 << 20,
    swap=False,
    pids_limit=10,
    capabilities=("KILL",),
    no_new_privileges=True,
    runtime="runsc",
)


def test_the_report_is_what_the_engine_says() -> None:
    found = read_isolation(make_info(confinement=FULL, user="nobody", networks=("front",)), ContainerConfig(), None)
    assert (found.commands, found.commands_reason) == ("agent", None)
    assert (found.user, found.networks, found.capabilities) == ("nobody", ("front",), ("KILL",))
    assert (found.cpu_limit, found.memory_bytes, found.pids_limit) == (1.0, 1 << 20, 10)
    assert (found.no_new_privileges, found.runtime) == (True, "runsc")


def test_why_commands_go_through_the_engines_exec_is_said() -> None:
    found = read_isolation(make_info(), ContainerConfig(), "it was made without the agent")
    assert (found.commands, found.commands_reason) == ("engine exec", "it was made without the agent")


def test_only_the_disk_is_open_where_all_else_is_enforced() -> None:
    assert read_isolation(make_info(confinement=FULL, networks=("none",)), ContainerConfig(), None).not_enforced == (
        "its disk space has no limit",
    )


def test_what_the_engine_does_not_say_counts_as_not_enforced() -> None:
    assert len(read_isolation(make_info(networks=("bridge",)), ContainerConfig(), None).not_enforced) == 9


@pytest.mark.parametrize("user", ["", "root"])
def test_a_user_that_is_not_named_is_root(user: str) -> None:
    assert read_isolation(make_info(user=user), ContainerConfig(), None).user == "root"


def test_the_report_has_the_profile_and_what_weakens_it() -> None:
    config = ContainerConfig(profile="locked", allow_unsafe={"network", "capability:KILL"})
    found = read_isolation(make_info(confinement=FULL), config, None)
    assert (found.profile, found.allow_unsafe) == ("locked", ("capability:KILL", "network"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"networks": ("bridge",)}, "its network reaches what the engine's networks reach"),
        ({"confinement": FULL._replace(privileged=True)}, "it is privileged"),
        ({"confinement": FULL._replace(unfiltered=True)}, "no filter of system calls"),
        ({"confinement": FULL._replace(host_namespaces=("pid",))}, "in namespaces of the host: pid"),
        ({"confinement": FULL._replace(publish_addresses=("127.0.0.1", "0.0.0.0"))}, "whoever reaches the host"),
    ],
)
def test_what_is_open_is_said(changes: dict[str, Any], said: str) -> None:
    found = read_isolation(make_info(**{"confinement": FULL, "networks": (), **changes}), ContainerConfig(), None)
    [_, text] = found.not_enforced
    assert said in text
