"""Two different ids never share a container, name, label or workspace."""

from __future__ import annotations

import json
import os
import random
import re
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from podkit._models.identity import Identity, Owner, this_owner
from podkit._models.labels import Label
from podkit.core._container_record import config_from_label, config_to_label
from podkit.core.models import ContainerConfig, Mount
from podkit.errors import InvalidInput
from podkit.utils._naming import workspace_component
from podkit.utils.paths import get_workspace_path
from tests.unit.support import CANARY, everything_said, in_child

PAIRS = 10_000
ALPHABET = [
    "a",
    "b",
    "A",
    "B",
    "-",
    "_",
    ".",
    "/",
    ":",
    " ",
    "~",
    "é",
    "e\u0301",
    "🙂",
    "\n",
    "\u202e",
    "ß",
    "ss",
    "İ",
    "%",
]
SEVEN = ["a.b", "a-b", "a_b", "a/b", "A.B", "a b", "a:b"]
ODD = [".", "..", "-rf", "\n", "é", "e\u0301", "\u202eabc", "A", "a", "\u0130", "ｉ", " ", "~", "a~b", "con", "NUL"]  # noqa: RUF001

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
COMPONENT = re.compile(r"[a-z0-9_~.-]{1,100}")


@cache
def random_pairs() -> list[tuple[str, str]]:
    """Different pairs of ids that a lossy mapping would merge."""
    dice = random.Random(20260101)
    found: set[tuple[str, str]] = set()
    while len(found) < PAIRS:
        found.add(("".join(dice.choices(ALPHABET, k=dice.randint(1, 4))), "".join(dice.choices(ALPHABET, k=2))))
    return sorted(found)


def test_ten_thousand_random_pairs_have_as_many_names() -> None:
    assert len({Identity.of("p", *pair).name for pair in random_pairs()}) == PAIRS


def test_ten_thousand_random_pairs_have_as_many_sets_of_labels() -> None:
    assert len({tuple(Identity.of("p", *pair).labels.items()) for pair in random_pairs()}) == PAIRS


def test_ten_thousand_random_pairs_have_as_many_workspaces_also_where_case_is_folded() -> None:
    assert len({str(get_workspace_path("/srv", *pair)).casefold() for pair in random_pairs()}) == PAIRS


def test_control_a_lossy_cleaning_gives_seven_ids_one_name() -> None:
    assert len({re.sub("[^a-z0-9]+", "-", id.lower()) for id in SEVEN}) == 1
    assert len({Identity.of("p", id, "s").name for id in SEVEN}) == 7


def test_ids_do_not_run_into_each_other() -> None:
    pairs = [("ab", "c"), ("a", "bc"), ("a-b", "c"), ("a", "b-c"), ("a", "b"), ("b", "a")]
    assert len({Identity.of("p", *pair).name for pair in pairs}) == len(pairs)


def test_prefixes_do_not_run_into_ids() -> None:
    assert Identity.of("p", "a", "b").name != Identity.of("p-a", "b", "x").name
    assert Identity.of("p", "p-a", "b").name != Identity.of("p-p", "a", "b").name


def test_long_ids_that_differ_at_their_end_have_different_names_of_at_most_63() -> None:
    ids = ["x" * 250 + end * 50 for end in "ab"]
    names = {Identity.of("p", id, "s").name for id in ids} | {Identity.of("p", "u", id).name for id in ids}
    assert len(names) == 4
    assert max(map(len, names)) <= 63
    assert len({get_workspace_path("/srv", id, "s") for id in ids}) == 2


@pytest.mark.parametrize("prefix", ["a", "demo", "x" * 40, "Demo.1_x"])
def test_a_name_keeps_the_prefix_whole_and_has_at_most_63_legal_characters(prefix: str) -> None:
    for id in [*ODD, "x" * 1024, "é" * 500]:
        name = Identity.of(prefix, id, id).name
        assert name.startswith(f"{prefix}-")
        assert len(name) <= 63
        assert NAME.fullmatch(name)


def test_a_workspace_is_a_direct_child_of_the_users_directory() -> None:
    for id in [*ODD, *SEVEN, "x" * 1024, "plain"]:
        path = get_workspace_path("/srv", id, id)
        assert path.parts[:3] == ("/", "srv", "workspaces")
        assert len(path.parts) == 5
        assert all(COMPONENT.fullmatch(part) and part not in (".", "..") for part in path.parts[3:])


def test_plain_ids_are_readable_in_names_and_paths() -> None:
    assert Identity.of("demo", "bob", "123").name.startswith("demo-bob-123-")
    assert get_workspace_path("/srv", "bob", "job_1.x") == Path("/srv/workspaces/bob/job_1.x")


def test_a_plain_id_cannot_spell_what_another_one_is_mapped_to() -> None:
    mapped = workspace_component("A")
    assert workspace_component(mapped) != mapped


def test_the_identity_is_the_same_in_every_process_and_version() -> None:
    """A new podkit that names its containers otherwise would lose every session that lives."""
    assert Identity.of("p", "bob", "é").name == "p-bob-bwtoynaku2fdtt6p"
    assert get_workspace_path("/srv", "A b", "é") == Path(
        "/srv/workspaces/a-b~c57odfzqmlvn76n7b5d2taedem/~paiioyrnk2gd4tqpqeg3rlx5zf"
    )


@pytest.mark.parametrize(
    "bad", [("", "u", "s"), ("x" * 41, "u", "s"), ("p", "", "s"), ("p", "u", ""), ("p", "u", "\0")]
)
def test_an_identity_refuses_what_cannot_be_part_of_it(bad: tuple[str, str, str]) -> None:
    with pytest.raises(InvalidInput):
        Identity.of(*bad)


# --- labels ----------------------------------------------------------------------------------------


def test_an_identity_is_read_back_from_its_labels() -> None:
    for id in ODD:
        identity = Identity.of("p", id, id + "x")
        assert Identity.read(identity.labels | {"other": "label"}) == identity
        assert identity.owns(identity.labels | {"other": "label"})


def test_all_labels_are_in_podkits_namespace() -> None:
    assert all(key.startswith("podkit.") for key in Identity.of("p", "u", "s").labels)


@pytest.mark.parametrize("key", list(Identity.of("p", "u", "s").labels))
def test_a_container_without_one_of_the_labels_or_with_another_value_is_not_owned(key: str) -> None:
    identity = Identity.of("p", "u", "s")
    without = {name: value for name, value in identity.labels.items() if name != key}
    assert not identity.owns(without)
    assert not identity.owns(identity.labels | {key: "other"})
    with pytest.raises(InvalidInput):
        Identity.read(without)


@pytest.mark.parametrize(
    "change",
    [
        {Label.SCHEMA: "99"},
        {Label.SCHEMA: ""},
        {Label.PREFIX: "not a prefix"},
        {Label.USER_ID: ""},
        {Label.SESSION_ID: "x" * 2000},
    ],
)
def test_garbled_labels_are_refused(change: dict[str, str]) -> None:
    with pytest.raises(InvalidInput):
        Identity.read(Identity.of("p", "u", "s").labels | change)


# --- owners ----------------------------------------------------------------------------------------


def test_this_process_is_a_living_owner() -> None:
    assert this_owner().alive() is True


def test_an_owner_is_read_back_from_its_label() -> None:
    owner = this_owner()
    assert Owner.from_label(owner.to_label()) == owner


def test_a_process_that_ended_is_a_dead_owner() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert replace(this_owner(), pid=child.pid).alive() is False


def test_an_owner_whose_pid_was_reused_is_dead() -> None:
    owner = this_owner()
    assert replace(owner, started=str(int(owner.started) - 1)).alive() is False


def test_an_owner_on_another_machine_is_unknown() -> None:
    assert replace(this_owner(), host="elsewhere").alive() is None


def test_an_owner_without_a_start_time_is_unknown() -> None:
    assert replace(this_owner(), started="").alive() is None


def test_a_forked_child_is_another_owner() -> None:
    mine = this_owner()

    def act() -> None:
        theirs = this_owner()
        assert theirs.pid == os.getpid() != mine.pid
        assert theirs.instance != mine.instance
        assert theirs.alive()

    in_child(act)


GARBLED = {
    "empty": "",
    "no json": "{",
    "another kind of json": "[]",
    "a number": "5",
    "a part is missing": '{"host":"a"}',
    "a pid that is no number": '{"host":"a","pid":"x","started":"1","instance":"i"}',
    "a pid that is null": '{"host":"a","pid":null,"started":"1","instance":"i"}',
    "a pid that is endless": '{"host":"a","pid":Infinity,"started":"1","instance":"i"}',
    "a pid of 5,000 digits": '{"host":"a","pid":' + "9" * 5000 + ',"started":"1","instance":"i"}',
    "a million brackets": "[" * 1_000_000,
}


@pytest.mark.parametrize("label", GARBLED.values(), ids=list(GARBLED))
def test_a_garbled_owner_is_none(label: str) -> None:
    assert Owner.from_label(label) is None


@pytest.mark.parametrize("pid", [0, -1, 2**40])
def test_an_impossible_pid_is_no_living_owner(pid: int) -> None:
    assert replace(this_owner(), pid=pid).alive() is False


# --- configurations --------------------------------------------------------------------------------

FULL = ContainerConfig(
    image="some:image",
    command=["serve", "--now"],
    memory_limit="1g",
    environment={"TOKEN": CANARY, "EMPTY": ""},
    ports=[8080],
    networks=["front"],
    volumes=[Mount(source="/data", target="/data", read_only=True), Mount(target="/tmp", type="tmpfs")],
    user="1000:1000",
    startup_verification=None,
)


def test_a_configuration_is_read_back_from_its_label_and_the_containers_environment() -> None:
    label = config_to_label(FULL)
    environment = {"PATH": "/bin", "TOKEN": CANARY, "EMPTY": ""}
    assert config_from_label(label, environment) == FULL


def test_the_label_of_a_configuration_names_its_environment_without_the_values() -> None:
    label = config_to_label(FULL)
    assert "TOKEN" in label
    assert CANARY not in label


def test_what_a_newer_podkit_wrote_is_read_as_far_as_it_is_known() -> None:
    label = json.loads(config_to_label(FULL))
    label["colour"] = "red"
    label["volumes"][0]["colour"] = "blue"
    environment = {"TOKEN": CANARY, "EMPTY": ""}
    assert config_from_label(json.dumps(label), environment) == FULL


@pytest.mark.parametrize(
    "label",
    [
        "",
        "{",
        "[]",
        "5",
        "null",
        "{}",
        '{"environment":5}',
        '{"environment":[[]]}',
        '{"environment":[],"image":5}',
        '{"environment":[],"ports":[0]}',
        "[" * 1_000_000,
    ],
    ids=lambda label: label[:20],
)
def test_a_garbled_configuration_is_refused(label: str) -> None:
    with pytest.raises(InvalidInput, match=r"podkit\.config"):
        config_from_label(label, {})


def test_a_refused_label_does_not_tell_the_environment() -> None:
    label = json.dumps(json.loads(config_to_label(FULL)) | {"ports": [0]})
    with pytest.raises(InvalidInput) as caught:
        config_from_label(label, {"TOKEN": CANARY})
    assert CANARY not in everything_said(caught.value)


def test_the_owner_names_this_process() -> None:
    assert this_owner().pid == os.getpid()
