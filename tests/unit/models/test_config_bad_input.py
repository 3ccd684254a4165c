"""What a configuration refuses: an error of our tree that names the value and the cure, before any engine call."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from podkit.core.models import ContainerConfig, Mount, ProcessResult, StartupVerificationConfig
from podkit.errors import InvalidInput
from tests.unit.support import CANARY, everything_said

Row = tuple[dict[str, Any], list[str]]


def mount(target: str) -> Mount:
    return Mount(source="/data", target=target)


# the fields of a configuration, and what the message must contain: the value, and a word of the cure
REFUSED: dict[str, Row] = {
    "unknown field": ({"imagee": "x"}, ["imagee: unknown field; there are image"]),
    "empty image": ({"image": ""}, ["image=''", "python:3.11-alpine"]),
    "image with a space": ({"image": "a b"}, ["image='a b'", "pass a reference"]),
    "image with a newline": ({"image": "a\n"}, ["image='a\\n'", "pass a reference"]),
    "image with NUL": ({"image": "a\0b"}, ["image='a\\x00b'", "remove it"]),
    "image that is no text": ({"image": 5}, ["image=5", "string"]),
    "memory with an unknown suffix": ({"memory_limit": "12x"}, ["memory_limit='12x'", "'512m'"]),
    "memory with a space": ({"memory_limit": "512 mb"}, ["memory_limit='512 mb'", "'512m'"]),
    "empty memory": ({"memory_limit": ""}, ["memory_limit=''", "'512m'"]),
    "negative memory text": ({"memory_limit": "-5m"}, ["memory_limit='-5m'", "'512m'"]),
    "negative memory": ({"memory_limit": -1}, ["memory_limit=-1", "at least"]),
    "no memory": ({"memory_limit": 0}, ["memory_limit=0", "at least"]),
    "memory of a bit": ({"memory_limit": True}, ["memory_limit"]),
    "memory in other digits": ({"memory_limit": "\u0665m"}, ["memory_limit='\u0665m'"]),
    "memory beyond all numbers": ({"memory_limit": "9" * 400}, ["memory_limit='999", "'512m'"]),
    "negative cpu": ({"cpu_limit": -1}, ["cpu_limit=-1", "greater than"]),
    "no cpu": ({"cpu_limit": 0}, ["cpu_limit=0", "greater than"]),
    "cpu that is no number": ({"cpu_limit": math.nan}, ["cpu_limit=nan", "finite"]),
    "endless cpu": ({"cpu_limit": math.inf}, ["cpu_limit=inf", "finite"]),
    "so little cpu that the engine takes it for no limit": ({"cpu_limit": 1e-6}, ["cpu_limit=1e-06"]),
    "so much cpu that no engine can say it": ({"cpu_limit": 1e308}, ["cpu_limit=1e+308"]),
    "no pids": ({"pids_limit": 0}, ["pids_limit=0", "greater than"]),
    "pids for no command": ({"pids_limit": 3}, ["pids_limit=3", "equal to 4"]),
    "more pids than a kernel has": ({"pids_limit": 10**10}, ["pids_limit=10000000000", "4194304"]),
    "memory that is nothing": ({"memory_limit": None}, ["memory_limit=None", "'512m'"]),
    "negative pids": ({"pids_limit": -1}, ["pids_limit=-1", "greater than"]),
    "no lifetime": ({"container_lifetime_seconds": 0}, ["container_lifetime_seconds=0", "greater than"]),
    "negative lifetime": ({"container_lifetime_seconds": -5}, ["container_lifetime_seconds=-5", "greater than"]),
    "unreadable lifetime": ({"container_lifetime_seconds": "soon"}, ["container_lifetime_seconds='soon'", "integer"]),
    "no inactivity timeout": ({"session_inactivity_timeout_seconds": 0}, ["session_inactivity_timeout_seconds=0"]),
    "port 0": ({"ports": [0]}, ["0", "between 1 and 65535"]),
    "port 65536": ({"ports": [65536]}, ["65536", "between 1 and 65535"]),
    "negative port": ({"ports": [-80]}, ["-80", "between 1 and 65535"]),
    "a port twice": ({"ports": [80, 81, 80]}, ["80", "twice"]),
    "a port that is no number": ({"ports": ["http"]}, ["'http'", "integer"]),
    "an empty network": ({"networks": [""]}, ["networks", "empty", "remove it"]),
    "a network twice": ({"networks": ["a", "a"]}, ["'a'", "twice"]),
    "a network with NUL": ({"networks": ["a\0"]}, ["'a\\x00'", "remove it"]),
    "two mounts on one target": (
        {"volumes": [mount("/data"), mount("/data")]},
        ["target='/data'", "keep one"],
    ),
    "two spellings of one target": (
        {"volumes": [mount("/data"), mount("/data/")]},
        ["target='/data'", "keep one"],
    ),
    "shared memory of nothing": ({"shm_size": 0}, ["shm_size=0", "at least"]),
    "shared memory with a space": ({"shm_size": "64 mb"}, ["shm_size='64 mb'", "'512m'"]),
    "shared memory that is no text": ({"shm_size": b"64m"}, ["shm_size=b'64m'", "'512m'"]),
    "shared memory that is no whole number": ({"shm_size": 67108864.0}, ["shm_size=67108864.0", "'512m'"]),
    "shared memory in wide digits": ({"shm_size": "\uff19k"}, ["shm_size='\uff19k'"]),
    "shared memory beyond all numbers": ({"shm_size": 10**5000}, ["shm_size=", "int"]),
    "a host whose address has a scope": (
        {"extra_hosts": {"a": "fe80::1%x\n6.6.6.6 b"}},
        ["extra_hosts['a']", "'10.0.0.5'"],
    ),
    "a host's name with an empty part": ({"extra_hosts": {"a..b": "10.0.0.1"}}, ["'a..b'", "'db.internal'"]),
    "a host without a name": ({"extra_hosts": {"": "10.0.0.1"}}, ["extra_hosts", "''", "host name"]),
    "a host's name with a colon": ({"extra_hosts": {"a:b": "10.0.0.1"}}, ["extra_hosts", "'a:b'", "host name"]),
    "a host's name with a line": ({"extra_hosts": {"a\n10.0.0.1 b": "10.0.0.1"}}, ["extra_hosts", "host name"]),
    "a host whose address is a name": ({"extra_hosts": {"a": "b"}}, ["extra_hosts['a']='b'", "'10.0.0.5'"]),
    "a host whose address is a line": ({"extra_hosts": {"a": "10.0.0.1 b"}}, ["extra_hosts['a']", "'10.0.0.5'"]),
    "a host in another container's hosts file": (
        {"extra_hosts": {"a": "10.0.0.1"}, "networks": ["container:x"]},
        ["'container:x'", "leave out extra_hosts"],
    ),
    "a relative working_dir": ({"working_dir": "src"}, ["working_dir='src'", "absolute", "'/workspace/src'"]),
    "a working_dir with ..": ({"working_dir": "/a/../b"}, ["working_dir='/a/../b'", "without it"]),
    "a variable too long": ({"environment": {"A": CANARY * 30_000}}, ["environment['A'] has", "131071", "write_file"]),
    "a variable that is a number": ({"environment": {"A": 1}}, ["environment"]),
    "an empty working_dir": ({"working_dir": ""}, ["working_dir=''", "pass a path"]),
    "a working_dir with NUL": ({"working_dir": "/a\0"}, ["working_dir='/a\\x00'", "remove it"]),
    "an overlong working_dir": ({"working_dir": "/" + "x" * 5000}, ["working_dir='/xxx", "4096"]),
    "an empty user": ({"user": ""}, ["user=''", "uid"]),
    "a user with a space": ({"user": "a b"}, ["user='a b'", "uid"]),
    "a user with NUL": ({"user": "a\0"}, ["user='a\\x00'", "remove it"]),
    "an empty command": ({"command": []}, ["command=[]"]),
    "a command without a program": ({"command": [""]}, ["command=['']"]),
    "a command that is a str": ({"command": "ls"}, ["command='ls'", "list"]),
    "NUL in a command": ({"command": ["ls", "a\0b"]}, ["'a\\x00b'", "remove it"]),
    "NUL in an entrypoint": ({"entrypoint": ["a\0b"]}, ["'a\\x00b'", "remove it"]),
    "the image's defaults beside a command": (
        {"use_image_defaults": True, "command": ["ls"]},
        ["use_image_defaults=True", "drop one"],
    ),
    "the image's defaults beside an entrypoint": (
        {"use_image_defaults": True, "entrypoint": []},
        ["use_image_defaults=True", "drop one"],
    ),
    "an empty environment name": ({"environment": {"": "x"}}, ["''", "must not be empty"]),
    "an environment name with =": ({"environment": {"A=B": "x"}}, ["'A=B'", "must not contain"]),
    "NUL in an environment name": ({"environment": {"A\0B": "x"}}, ["'A\\x00B'", "remove it"]),
    "an unknown field of the verification": (
        {"startup_verification": {"checks": 1}},
        ["checks: unknown field", "required_consecutive_checks"],
    ),
    "a verification without checks": ({"startup_verification": {"required_consecutive_checks": 0}}, ["=0"]),
}


@pytest.mark.parametrize("row", REFUSED)
def test_a_configuration_refuses(row: str) -> None:
    fields, said = REFUSED[row]
    with pytest.raises(InvalidInput) as caught:
        ContainerConfig(**fields)
    assert isinstance(caught.value, ValueError)
    assert all(text in str(caught.value) for text in said), str(caught.value)


ASSIGNABLE = [row for row in REFUSED if row not in ("unknown field", "the image's defaults beside a command")]


def test_an_assignment_is_refused_like_an_argument() -> None:
    for row in ASSIGNABLE:
        fields = dict(REFUSED[row][0])
        config = ContainerConfig(use_image_defaults=bool(fields.pop("use_image_defaults", False)))
        name, value = fields.popitem()  # the last one: those before it are fine without it
        for other, fine in fields.items():
            setattr(config, other, fine)
        with pytest.raises(InvalidInput):
            setattr(config, name, value)


def test_assigning_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="imagee"):
        ContainerConfig().imagee = "x"  # type: ignore[attr-defined]  # that is the point


def test_a_refused_assignment_of_one_field_leaves_the_configuration_as_it_was() -> None:
    config = ContainerConfig(ports=[80])
    with pytest.raises(InvalidInput):
        config.ports = [0]
    assert config.ports == [80]


def test_a_refused_assignment_that_contradicts_another_field_leaves_the_configuration_as_it_was() -> None:
    config = ContainerConfig(command=["ls"])
    with pytest.raises(InvalidInput):
        config.use_image_defaults = True
    assert config.use_image_defaults is False


def test_a_list_that_was_changed_is_checked_again_when_the_configuration_is_taken() -> None:
    config = ContainerConfig(ports=[80])
    config.ports.append(70_000)
    with pytest.raises(InvalidInput, match="70000"):
        config.checked_copy()


def test_a_list_that_was_given_a_wrong_type_is_refused_without_a_warning() -> None:
    config = ContainerConfig()
    config.ports.append("http")  # type: ignore[arg-type]  # that is the point
    with pytest.raises(InvalidInput, match="http"):
        config.checked_copy()


def test_an_environment_that_was_changed_is_checked_again_without_telling_its_values() -> None:
    config = ContainerConfig()
    config.environment["A=B"] = CANARY
    with pytest.raises(InvalidInput) as caught:
        config.checked_copy()
    assert CANARY not in everything_said(caught.value)


def test_an_environment_that_was_given_bytes_tells_no_value_in_a_warning(recwarn: pytest.WarningsRecorder) -> None:
    config = ContainerConfig()
    config.environment["TOKEN"] = CANARY.encode()  # type: ignore[assignment]  # that is the point
    try:
        config.checked_copy()
    except (InvalidInput, UserWarning) as exc:
        assert CANARY not in everything_said(exc)
    assert not [warning for warning in recwarn if CANARY in str(warning.message)]


def test_a_copy_is_not_reached_by_later_changes_of_the_original() -> None:
    config = ContainerConfig(ports=[80], volumes=[mount("/a")], environment={"A": "1"})
    copy = config.checked_copy()
    config.ports.append(81)
    config.volumes[0].target = "/b"
    config.environment["A"] = "2"
    assert (copy.ports, copy.volumes[0].target, copy.environment) == ([80], "/a", {"A": "1"})


# --- secrets ---------------------------------------------------------------------------------------

WITH_SECRETS: dict[str, dict[str, Any]] = {
    "NUL in a value": {"environment": {"TOKEN": f"{CANARY}\0"}},
    "a value that is a list": {"environment": {"TOKEN": [CANARY]}},
    "a value that is bytes": {"environment": {"TOKEN": CANARY.encode() + b"\xff"}},
    "half of a surrogate pair": {"environment": {"TOKEN": f"{CANARY}\ud800"}},
    "a bad name": {"environment": {"A=B": CANARY}},
    "an environment that is a list": {"environment": [f"TOKEN={CANARY}"]},
    "an environment that is text": {"environment": f"TOKEN={CANARY}"},
    "the defaults of the image beside a command": {
        "environment": {"TOKEN": CANARY},
        "use_image_defaults": True,
        "command": ["x"],
    },
    "another field is wrong": {"environment": {"TOKEN": CANARY}, "ports": [0]},
}


@pytest.mark.parametrize("fields", WITH_SECRETS.values(), ids=list(WITH_SECRETS))
def test_a_refusal_does_not_tell_an_environment_value(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        ContainerConfig(**fields)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize("fields", WITH_SECRETS.values(), ids=list(WITH_SECRETS))
def test_the_traceback_of_a_refusal_does_not_tell_an_environment_value(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        ContainerConfig(**fields)
    assert CANARY not in everything_said(caught.value)


def test_a_refusal_of_a_value_names_its_variable() -> None:
    with pytest.raises(InvalidInput, match="TOKEN"):
        ContainerConfig(environment={"TOKEN": "\0"})


def test_pydantics_other_ways_in_refuse_with_our_error_too() -> None:
    with pytest.raises(InvalidInput):
        ContainerConfig.model_validate({"ports": [0]})


def test_pydantics_other_ways_in_do_not_tell_an_environment_value() -> None:
    with pytest.raises(ValueError, match="ports") as caught:
        ContainerConfig.model_validate({"ports": [0], "environment": {"A": CANARY}})
    assert CANARY not in everything_said(caught.value)


@pytest.mark.parametrize("network", ["host", "none", "container:x"])
def test_ports_are_refused_in_a_network_that_publishes_none(network: str) -> None:
    with pytest.raises(InvalidInput, match=f"networks contains '{network}'.*leave out ports"):
        ContainerConfig(networks=[network], ports=[80])
    assert ContainerConfig(networks=[network]).networks == [network]


def test_neither_an_unknown_field_nor_a_repr_shows_a_secret() -> None:
    with pytest.raises(InvalidInput, match="env: unknown field") as caught:
        ContainerConfig(env={"PASSWORD": CANARY})  # type: ignore[call-arg]  # that is the point
    assert CANARY not in everything_said(caught.value)
    said = repr(ContainerConfig(environment={"PASSWORD": CANARY}))
    assert "PASSWORD" in said
    assert CANARY not in said


# --- mounts and the others -------------------------------------------------------------------------

BAD_MOUNTS: dict[str, Row] = {
    "relative target": ({"source": "/a", "target": "data"}, ["target='data'", "'/workspace/data'"]),
    "relative target with a dot": ({"source": "/a", "target": "./d"}, ["target='./d'", "absolute"]),
    "target with ..": ({"source": "/a", "target": "/a/../b"}, ["'/a/../b'", "without it"]),
    "target that is the root": ({"source": "/a", "target": "/"}, ["target='/'", "below it"]),
    "target that is the root, in disguise": ({"source": "/a", "target": "//."}, ["target='/'", "below it"]),
    "empty target": ({"source": "/a", "target": ""}, ["target=''", "pass a path"]),
    "no target": ({"source": "/a"}, ["target"]),
    "NUL in the target": ({"source": "/a", "target": "/a\0"}, ["target='/a\\x00'", "remove it"]),
    "relative source": ({"source": "./data", "target": "/a"}, ["source='./data'", f"'{Path.cwd()}/data'"]),
    "source with ..": ({"source": "/a/../etc", "target": "/a"}, ["source='/a/../etc'", "without it"]),
    "source at home": ({"source": "~/data", "target": "/a"}, ["source='~/data'", "write the directory out"]),
    "no source": ({"target": "/a"}, ["source=''", "pass a path"]),
    "NUL in the source": ({"source": "/a\0", "target": "/a"}, ["source='/a\\x00'", "remove it"]),
    "overlong source": ({"source": "/" + "x" * 5000, "target": "/a"}, ["source='/xxx", "4096"]),
    "no name of a volume": ({"target": "/a", "type": "volume"}, ["source=''", "volume's name"]),
    "a path as a volume": ({"source": "/a", "target": "/a", "type": "volume"}, ["source='/a'", "volume's name"]),
    "a volume of one letter": ({"source": "a", "target": "/a", "type": "volume"}, ["source='a'", "volume's name"]),
    "a tmpfs with a source": ({"source": "/a", "target": "/a", "type": "tmpfs"}, ["source='/a'", "leave it out"]),
    "a bind mount with a size": ({"source": "/a", "target": "/a", "size": "1m"}, ["size='1m'", "leave it out"]),
    "no size": ({"target": "/a", "type": "tmpfs", "size": 0}, ["size=0", "4096"]),
    "a size without a number": ({"target": "/a", "type": "tmpfs", "size": "half"}, ["size='half'", "'512m'"]),
    "another type": ({"source": "/a", "target": "/a", "type": "nfs"}, ["type='nfs'", "bind"]),
    "unknown field": ({"source": "/a", "target": "/a", "mode": "rw"}, ["mode: unknown field", "read_only"]),
    "source that is no path": ({"source": 5, "target": "/a"}, ["source=5", "string"]),
}


@pytest.mark.parametrize("row", BAD_MOUNTS)
def test_a_mount_refuses(row: str) -> None:
    fields, said = BAD_MOUNTS[row]
    with pytest.raises(InvalidInput) as caught:
        Mount(**fields)
    assert all(text in str(caught.value) for text in said), str(caught.value)


def test_a_mount_given_as_a_dict_is_checked_like_any_other() -> None:
    with pytest.raises(InvalidInput, match="target='data'"):
        ContainerConfig(volumes=[{"source": "/a", "target": "data"}])  # type: ignore[list-item]  # pydantic takes it


def test_a_refused_assignment_leaves_a_mount_as_it_was() -> None:
    found = mount("/data")
    with pytest.raises(InvalidInput):
        found.type = "tmpfs"
    assert found.type == "bind"


@pytest.mark.parametrize("field", ["required_consecutive_checks", "check_interval_seconds", "max_wait_seconds"])
@pytest.mark.parametrize("value", [0, -1, "soon"])
def test_a_startup_verification_refuses(field: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=field):
        StartupVerificationConfig(**{field: value})


def test_a_result_refuses_unknown_fields() -> None:
    with pytest.raises(InvalidInput, match="returncode"):
        ProcessResult(exit_code=0, returncode=0)  # type: ignore[call-arg]  # that is the point


def test_a_mount_takes_pathlib_paths_and_keeps_them_as_text() -> None:
    found = Mount(source=Path("/a"), target=Path("/b"))  # type: ignore[arg-type]  # what pydantic converts
    assert (found.source, found.target) == ("/a", "/b")
