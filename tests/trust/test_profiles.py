"""What the two profiles hold back, seen from inside, from beside and from the engine, with the naive way as control."""

from __future__ import annotations

import pytest

from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine, container_of

pytestmark = pytest.mark.integration

ALL_CAPABILITIES = {"standard": 0x4FB, "locked": 0}
"""The eight of the standard profile as bits. Source: linux/capability.h."""


# --- networks -----------------------------------------------------------------------------------------------------


def test_a_locked_session_has_no_network(open_session: OpenSession) -> None:
    """NW-01."""
    session = open_session(long_config(profile="locked"))
    lines = session.execute_command("cat /proc/net/dev").stdout.splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    assert "its network" not in " ".join(session.isolation.not_enforced)


def test_ports_are_published_on_loopback_unless_an_address_is_given(open_session: OpenSession, engine: Engine) -> None:
    """NW-06, and its control: Docker's own default is every address."""
    [first, second] = engine.free_ports(2)
    session = open_session(long_config(ports=[first]))
    bindings = engine.inspect(container_of(session))["NetworkSettings"]["Ports"][f"{first}/tcp"]
    assert {binding["HostIp"] for binding in bindings} == {"127.0.0.1"}
    opened = open_session(long_config(ports=[second], publish_address="0.0.0.0"), session_id="open")
    assert "whoever reaches the host reaches its ports" in opened.isolation.not_enforced
    assert "whoever reaches the host reaches its ports" not in session.isolation.not_enforced


# --- what a profile enforces --------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", ["standard", "locked"])
def test_what_is_reported_is_what_a_process_inside_has(open_session: OpenSession, engine: Engine, profile: str) -> None:
    """CF-09."""
    session = open_session(long_config(profile=profile))
    found = session.isolation
    lines = session.execute_command("cat /proc/self/status").stdout.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    host = engine.inspect(container_of(session))["HostConfig"]

    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == ALL_CAPABILITIES[profile]
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert (found.profile, found.no_new_privileges, found.seccomp, found.privileged) == (profile, True, True, False)
    assert found.read_only_root == host["ReadonlyRootfs"] == (profile == "locked")
    assert (found.pids_limit, found.memory_bytes) == (host["PidsLimit"], host["Memory"])
    assert found.host_namespaces == ()


def test_a_locked_session_is_of_use(open_session: OpenSession) -> None:
    session = open_session(long_config(profile="locked"))
    assert session.execute_command("id -u; touch /x 2>&1; echo $?").stdout.splitlines()[0] == "65534"
    assert session.write_file("a/b.txt", "text").as_posix() == "/workspace/a/b.txt"
    assert session.execute_command("cat a/b.txt && cp a/b.txt /tmp && cat /tmp/b.txt").check().stdout == "texttext"
    process = session.processes.start_process("echo begun; sleep 600")
    assert next(session.processes.follow_log(process.id)) == "begun\n"
    assert session.processes.stop_process(process.id)
    for path in ("/x", "/usr/bin/x", "/run/x"):
        assert not session.execute_command(["touch", path]).ok
    with pytest.raises(InvalidInput, match=r"allow_unsafe={'root'}"):
        session.execute_command("id", user="root")


def test_a_locked_session_writes_to_its_workspace(open_session: OpenSession, sessions: BaseSessionManager) -> None:
    session = open_session(long_config(profile="locked"))
    data = session.get_info().data_dir
    if data is None:
        pytest.fail("these sessions have a workspace on the host")
    session.execute_command("echo kept > file").check()
    assert (data / "file").read_text() == "kept\n"


def test_what_is_allowed_by_name_is_given_and_reported(open_session: OpenSession) -> None:
    config = ContainerConfig(allow_unsafe={"capability:NET_RAW", "seccomp-unconfined", "new-privileges"})
    session = open_session(config)
    lines = session.execute_command("cat /proc/self/status").stdout.splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert int(status["CapEff"], 16) == ALL_CAPABILITIES["standard"] | 1 << 13
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("0", "0")
    found = session.isolation
    assert found.allow_unsafe == ("capability:NET_RAW", "new-privileges", "seccomp-unconfined")
    assert {"set-user-id programs give privileges", "no filter of system calls holds it"} <= {*found.not_enforced}
