"""What a configuration makes of a container, read back from the engine."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest

from podkit.core.models import ContainerConfig, StartupVerificationConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import ContainerFailedToStart
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine
from tests.support.waiting import within

pytestmark = pytest.mark.integration

CAPABILITIES = {"CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "NET_BIND_SERVICE", "SETGID", "SETUID"}
FAILING = ["sh", "-c", "echo first line; echo the reason >&2; exit 42"]


def inspected(open_session: OpenSession, engine: Engine, config: ContainerConfig) -> dict[str, Any]:
    """Open a session and inspect its container."""
    return engine.inspect(open_session(config).get_info().container_name)


# --- limits ------------------------------------------------------------------------------------------


def test_a_container_has_all_its_limits_without_being_asked(open_session: OpenSession, engine: Engine) -> None:
    host = inspected(open_session, engine, ContainerConfig())["HostConfig"]

    assert (host["CpuQuota"], host["CpuPeriod"]) == (100_000, 100_000)
    assert host["Memory"] == host["MemorySwap"] == 512 << 20
    assert 0 < host["PidsLimit"] <= 4096
    assert set(host["CapDrop"]) == {"ALL"}
    assert {name.removeprefix("CAP_") for name in host["CapAdd"]} == CAPABILITIES
    assert host["SecurityOpt"] == ["no-new-privileges"]
    assert host["LogConfig"]["Type"] == "none"  # its first process speaks to podkit alone


def test_the_log_of_a_main_process_of_the_users_own_is_kept_and_bounded(
    open_session: OpenSession, engine: Engine
) -> None:
    host = inspected(open_session, engine, ContainerConfig(command=["sleep", "300"]))["HostConfig"]

    assert host["LogConfig"] == {"Type": "json-file", "Config": {"max-size": "10m", "max-file": "2"}}
    assert (host["Privileged"], host["PidMode"], host["IpcMode"], host["Devices"] or []) == (False, "", "private", [])


@pytest.mark.parametrize(("limit", "size"), [("64m", 64 << 20), ("1g", 1 << 30), (100 << 20, 100 << 20)])
def test_limits_are_as_configured(open_session: OpenSession, engine: Engine, limit: str | int, size: int) -> None:
    host = inspected(open_session, engine, long_config(cpu_limit=0.25, memory_limit=limit, pids_limit=50))["HostConfig"]

    assert (host["CpuQuota"], host["Memory"], host["MemorySwap"], host["PidsLimit"]) == (25_000, size, size, 50)


def test_the_limits_hold_inside(open_session: OpenSession) -> None:
    session = open_session(long_config(pids_limit=20, memory_limit="64m"))

    assert session.execute_command("for i in $(seq 60); do sleep 5 & done", timeout=20).exit_code != 0
    assert session.execute_command(["grep", "NoNewPrivs", "/proc/self/status"]).stdout.split()[1] == "1"
    effective = session.execute_command(["grep", "CapEff", "/proc/self/status"]).stdout.split()[1]
    assert int(effective, 16).bit_count() == len(CAPABILITIES)


def test_shared_memory_has_the_size_that_the_configuration_names(open_session: OpenSession) -> None:
    session = open_session(long_config(shm_size="16m"))

    shm = next(line for line in session.execute_command("df -k").stdout.splitlines() if line.endswith(" /dev/shm"))
    assert shm.split()[1] == str(16 << 10)


def test_extra_hosts_stand_in_the_hosts_file_also_of_a_container_that_was_made_anew(
    open_session: OpenSession, engine: Engine
) -> None:
    session = open_session(long_config(extra_hosts={"db.internal": "10.1.2.3", "six": "fd00::1"}))
    before = session.get_info().container_id
    assert before is not None

    def hosts() -> list[list[str]]:
        return [line.split() for line in session.read_file("/etc/hosts").splitlines()]

    named = [["10.1.2.3", "db.internal"], ["fd00::1", "six"]]
    assert [line for line in hosts() if line in named] == named
    engine.remove(before)
    assert [line for line in hosts() if line in named] == named
    assert session.get_info().container_id != before


def test_the_engines_host_has_a_name_inside_where_the_configuration_gives_it_one(open_session: OpenSession) -> None:
    session = open_session(long_config(extra_hosts={"host.docker.internal": "host-gateway"}))

    hosts = [line.split() for line in session.read_file("/etc/hosts").splitlines()]
    assert [ipaddress.ip_address(line[0]).version for line in hosts if "host.docker.internal" in line] == [4]


def test_a_container_carries_labels_that_say_whose_it_is(open_session: OpenSession, engine: Engine) -> None:
    labels = inspected(open_session, engine, long_config())["Config"]["Labels"]

    assert (
        labels.items()
        >= {
            "podkit.schema": "1",
            "podkit.prefix": engine.prefix,
            "podkit.user_id": "bob",
            "podkit.session_id": "123",
        }.items()
    )


def test_values_of_the_environment_stand_in_no_label(open_session: OpenSession, engine: Engine) -> None:
    config = long_config(environment={"TOKEN": "canary-77"})

    labels = inspected(open_session, engine, config)["Config"]["Labels"]

    assert "canary" not in str(labels)


# --- the main process --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "entrypoint", "command"),
    [
        ({}, ["/run/podkit/agent"], ["sleep", "60"]),
        ({"container_lifetime_seconds": 300}, ["/run/podkit/agent"], ["sleep", "300"]),
        ({"entrypoint": []}, ["/run/podkit/agent"], ["sleep", "infinity"]),
        ({"entrypoint": [], "container_lifetime_seconds": 5}, ["/run/podkit/agent"], ["sleep", "infinity"]),
        ({"entrypoint": ["sleep", "77"]}, ["sleep", "77"], []),
        ({"entrypoint": ["sleep"], "command": ["88"]}, ["sleep"], ["88"]),
        ({"entrypoint": ["sleep", "77"], "container_lifetime_seconds": 5}, ["sleep", "77"], []),
        ({"command": ["sleep", "99"]}, [], ["sleep", "99"]),
        ({"entrypoint": [], "command": ["sleep", "99"]}, [], ["sleep", "99"]),
    ],
    ids=str,
)
def test_the_main_process_is_the_one_of_the_table(
    open_session: OpenSession, engine: Engine, fields: dict[str, Any], entrypoint: list[str], command: list[str]
) -> None:
    found = inspected(open_session, engine, ContainerConfig(**fields))

    assert (found["Config"]["Entrypoint"] or [], found["Config"]["Cmd"] or []) == (entrypoint, command)
    assert any(line.endswith(" ".join([*entrypoint, *command])) for line in engine.processes(found["Id"]))


def test_the_images_own_main_process_may_be_left_alone(
    open_session: OpenSession, engine: Engine, nginx_image: str
) -> None:
    own = engine.client.images.get(nginx_image).attrs["Config"]
    config = ContainerConfig(image=nginx_image, use_image_defaults=True, startup_verification=None)

    found = inspected(open_session, engine, config)

    assert (found["Config"]["Cmd"], found["Config"]["Entrypoint"]) == (own["Cmd"], own.get("Entrypoint"))


def test_a_main_process_of_the_callers_gets_no_lifetime(open_session: OpenSession, engine: Engine) -> None:
    session = open_session(ContainerConfig(entrypoint=["sleep", "4"], container_lifetime_seconds=1))
    id = session.get_info().container_id
    assert id is not None

    session.execute_command("sleep 2")

    assert engine.state(id) == "running"
    assert engine.wait_for_end(id) == 0


def test_the_environment_is_that_of_the_main_process_and_of_commands(open_session: OpenSession, engine: Engine) -> None:
    session = open_session(long_config(environment={"A": "1", "EMPTY": "", "WITH": "a=b c"}))

    found = engine.inspect(session.get_info().container_name)["Config"]["Env"]
    assert {"A=1", "EMPTY=", "WITH=a=b c"} <= set(found)
    assert session.execute_command('echo "$A|$EMPTY|$WITH"').stdout == "1||a=b c\n"


def test_a_commands_own_environment_is_added(open_session: OpenSession) -> None:
    session = open_session(long_config(environment={"A": "1", "B": "2"}))

    assert session.execute_command("echo $A $B $C", environment={"B": "x", "C": "3"}).stdout == "1 x 3\n"


@pytest.mark.parametrize(("user", "ids"), [("nobody", "65534 65534"), ("1234:5678", "1234 5678"), ("0", "0 0")])
def test_the_user_is_the_one_of_the_main_process_and_of_commands(
    open_session: OpenSession, engine: Engine, user: str, ids: str
) -> None:
    session = open_session(long_config(user=user))

    assert engine.inspect(session.get_info().container_name)["Config"]["User"] == user
    assert session.execute_command("echo $(id -u) $(id -g)").stdout == ids + "\n"
    assert session.execute_command("id -u", user="0").stdout == "0\n"


@pytest.mark.parametrize("directory", ["/workspace", "/made/by/podkit", "/tmp", "/"])
def test_the_working_directory_exists_in_every_container(
    open_session: OpenSession, engine: Engine, busybox_image: str, directory: str
) -> None:
    session = open_session(long_config(working_dir=directory, image=busybox_image))

    assert engine.inspect(session.get_info().container_name)["Config"]["WorkingDir"] == directory
    assert session.execute_command("pwd").stdout == directory + "\n"
    assert session.execute_command("pwd", working_dir="/proc").stdout == "/proc\n"


def test_the_default_image_of_a_session_manager_is_used(manager: Any, engine: Engine, busybox_image: str) -> None:
    sessions = BaseSessionManager(manager, default_image=busybox_image)

    session = sessions.create_session("bob", "123")

    assert engine.inspect(session.container_name)["Config"]["Image"] == busybox_image


# --- startup verification ----------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [{"entrypoint": FAILING}, {"command": FAILING}], ids=str)
def test_a_main_process_that_ends_at_once_is_an_error_with_its_exit_code_and_log(
    open_session: OpenSession, engine: Engine, fields: dict[str, Any]
) -> None:
    with pytest.raises(ContainerFailedToStart, match="failed to start") as caught:
        open_session(ContainerConfig(**fields, startup_verification=StartupVerificationConfig()))

    error = caught.value
    assert isinstance(error, RuntimeError)
    assert "exit code 42" in str(error)
    assert "the reason" in str(error)
    assert (error.exit_code, "first line" in error.log) == (42, True)
    assert engine.names() == []


def test_a_main_process_that_ends_with_0_at_once_is_an_error_as_well(open_session: OpenSession, engine: Engine) -> None:
    with pytest.raises(ContainerFailedToStart, match="exit code 0"):
        open_session(ContainerConfig(entrypoint=["true"], startup_verification=StartupVerificationConfig()))

    assert engine.names() == []


def test_a_main_process_that_stays_up_passes(open_session: OpenSession) -> None:
    verification = StartupVerificationConfig(
        required_consecutive_checks=3, check_interval_seconds=0.2, max_wait_seconds=10
    )
    config = ContainerConfig(entrypoint=["sleep", "60"], startup_verification=verification)

    assert open_session(config).execute_command("echo up").stdout == "up\n"


def test_a_main_process_that_ends_while_it_is_watched_fails(open_session: OpenSession, engine: Engine) -> None:
    verification = StartupVerificationConfig(
        required_consecutive_checks=20, check_interval_seconds=0.2, max_wait_seconds=20
    )

    with pytest.raises(ContainerFailedToStart, match="exit code 9"):
        open_session(ContainerConfig(command=["sh", "-c", "sleep 1; exit 9"], startup_verification=verification))
    assert engine.names() == []


def test_the_verification_gives_up_in_time(open_session: OpenSession, engine: Engine) -> None:
    verification = StartupVerificationConfig(
        required_consecutive_checks=100, check_interval_seconds=0.5, max_wait_seconds=1
    )

    with within(6), pytest.raises(ContainerFailedToStart, match="failed to start"):
        open_session(ContainerConfig(startup_verification=verification))
    assert engine.names() == []


@pytest.mark.parametrize("fields", [{"entrypoint": FAILING}, {"command": ["false"]}], ids=str)
def test_without_verification_a_main_process_that_ends_at_once_is_no_error(
    open_session: OpenSession, engine: Engine, fields: dict[str, Any]
) -> None:
    session = open_session(ContainerConfig(**fields))

    assert engine.wait_for_end(session.get_info().container_name) in (42, 1)
    with pytest.raises(ContainerFailedToStart, match=r"exit code (42|1)"):
        session.execute_command("true", timeout=9)  # less than the time for which a lost container is brought back


def test_a_session_that_failed_to_start_may_be_tried_again(open_session: OpenSession) -> None:
    with pytest.raises(ContainerFailedToStart):
        open_session(ContainerConfig(entrypoint=["false"], startup_verification=StartupVerificationConfig()))

    assert open_session().execute_command("echo up").stdout == "up\n"
