"""Two requests for one session: what they mean is compared, and only in what the second one sets."""

from __future__ import annotations

import json
from typing import Any

import pytest

from podkit.core._requested_config import Request
from podkit.core.models import ContainerConfig, Mount
from podkit.errors import InvalidInput

DATA = Mount(source="/srv/data", target="/data")
CACHE = Mount(type="tmpfs", target="/cache")


def differences(asked: dict[str, Any], existing: dict[str, Any]) -> str:
    """Compare two configurations, the existing one by way of its label."""
    label = Request.of(ContainerConfig(**existing)).to_label()
    return Request.of(ContainerConfig(**asked)).differences(Request.read(label))


@pytest.mark.parametrize(
    ("asked", "existing"),
    [
        ({"memory_limit": "512M"}, {"memory_limit": "512m"}),
        ({"memory_limit": 512 << 20}, {"memory_limit": "512m"}),
        ({"memory_limit": "0.5g"}, {"memory_limit": "512m"}),
        ({"shm_size": "64m"}, {"shm_size": 64 << 20}),
        ({"extra_hosts": {"A": "0:0::1"}}, {"extra_hosts": {"a": "::1"}}),
        ({"extra_hosts": {"b": "::1", "a": "::1"}}, {"extra_hosts": {"a": "::1", "b": "::1"}}),
        ({"ports": [443, 80]}, {"ports": [80, 443]}),
        ({"networks": ["b", "a"]}, {"networks": ["a", "b"]}),
        ({"volumes": [CACHE, DATA]}, {"volumes": [DATA, CACHE]}),
        ({"environment": {"B": "2", "A": "1"}}, {"environment": {"A": "1", "B": "2"}}),
        ({}, {"memory_limit": "1g", "ports": [80]}),
        ({"pids_limit": 256}, {"memory_limit": "1g"}),
    ],
)
def test_what_means_the_same_or_was_not_set_is_no_difference(asked: dict[str, Any], existing: dict[str, Any]) -> None:
    assert differences(asked, existing) == ""


@pytest.mark.parametrize(
    ("asked", "existing", "said"),
    [
        ({"memory_limit": "1g"}, {}, "memory_limit (536870912, not 1073741824)"),
        ({"memory_limit": "512m", "cpu_limit": 2}, {"memory_limit": "1g"}, "cpu_limit (1.0, not 2.0), memory_limit"),
        ({"user": "nobody"}, {}, "user (None, not 'nobody')"),
        ({"pids_limit": 256}, {"pids_limit": 99}, "pids_limit (99, not 256)"),
        ({"shm_size": "64m"}, {}, "shm_size (None, not 67108864)"),
        ({"extra_hosts": {}}, {"extra_hosts": {"a": "::1"}}, "extra_hosts ({'a': '::1'}, not {})"),
        ({"environment": {"A": "canary-1"}}, {"environment": {"A": "canary-2"}}, "environment"),
        ({"environment": {}}, {"environment": {"A": "canary-2"}}, "environment"),
        ({"volumes": [DATA]}, {"volumes": [CACHE]}, "volumes"),
    ],
)
def test_a_difference_names_field_and_values_but_none_of_the_environment(
    asked: dict[str, Any], existing: dict[str, Any], said: str
) -> None:
    found = differences(asked, existing)
    assert said in found
    assert "canary" not in found


def test_a_copy_has_the_same_fields_set() -> None:
    config = ContainerConfig(memory_limit="1g")
    assert config.given_fields == config.checked_copy().given_fields == {"memory_limit"}


def test_a_field_that_was_changed_in_place_counts_as_set() -> None:
    config = ContainerConfig()
    config.ports.append(80)
    assert differences({}, {"ports": [80]}) == ""
    existing = Request.of(ContainerConfig())
    assert "ports ([], not [80])" in Request.of(config.checked_copy()).differences(existing)


def test_no_value_of_the_environment_is_in_the_label() -> None:
    assert "canary" not in Request.of(ContainerConfig(environment={"A": "canary"})).to_label()


def test_an_older_podkit_that_did_not_know_a_field_had_its_default() -> None:
    label = json.loads(Request.of(ContainerConfig()).to_label())
    del label["values"]["pids_limit"]
    older = Request.read(json.dumps(label))
    assert Request.of(ContainerConfig(pids_limit=256)).differences(older) == ""
    assert "pids_limit" in Request.of(ContainerConfig(pids_limit=99)).differences(older)


def test_what_only_a_newer_podkit_knows_is_left_alone() -> None:
    label = json.loads(Request.of(ContainerConfig()).to_label())
    label["values"]["colour"] = "red"
    label["given"].append("colour")
    newer = Request.read(json.dumps(label))
    assert Request.of(ContainerConfig(pids_limit=256)).differences(newer) == ""
    assert newer.differences(Request.of(ContainerConfig())) == ""


@pytest.mark.parametrize("label", ["", "x", "[]", "{}", '{"values": 1, "given": []}', "[" * 100_000])
def test_a_garbled_label_is_refused(label: str) -> None:
    with pytest.raises(InvalidInput, match="cannot be read"):
        Request.read(label)
