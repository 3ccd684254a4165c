"""What callers hand in, one value at a time."""

from __future__ import annotations

import math
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from podkit.errors import InvalidInput
from podkit.utils import _checks
from tests.unit.support import CANARY, everything_said

# --- ids -------------------------------------------------------------------------------------------

LEGAL_IDS = [
    "a",
    "a/b",
    "..",
    ".",
    "-rf",
    "a b",
    " ",
    "\n",
    "🙂",
    "é",
    "e\u0301",
    "\u202eabc",
    "A",
    "a:b",
    "x" * 1024,
    "0",
]


@pytest.mark.parametrize("id", LEGAL_IDS)
def test_odd_ids_are_legal(id: str) -> None:
    assert _checks.check_id(id, "user_id") == id


@pytest.mark.parametrize(
    ("id", "said"),
    [
        ("", ["user_id=''", "empty", "pass the id"]),
        ("x" * 1025, ["user_id='xxx", "1024", "such as a hash"]),
        ("é" * 513, ["user_id='é", "1024"]),
        ("x" * 1_000_000, ["1000002 characters", "1024"]),
        ("a\0b", ["user_id='a\\x00b'", "remove it"]),
        ("\ud800", ["user_id='\\ud800'", "valid Unicode"]),
        (None, ["user_id is None", "pass a str"]),
        (7, ["user_id is 7", "not int"]),
        (b"bob", ["user_id is b'bob'", "not bytes"]),
        (["bob"], ["user_id is ['bob']", "not list"]),
    ],
)
def test_an_id_is_refused_with_its_value_and_the_cure(id: Any, said: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        _checks.check_id(id, "user_id")
    assert all(text in str(caught.value) for text in said), str(caught.value)


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidInput) as caught:
        _checks.check_id("x" * 1_000_000, "session_id")
    assert len(str(caught.value)) < 300


# --- prefixes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["a", "demo", "Demo-1.x_y", "0", "x" * 40])
def test_a_prefix_may_have_letters_digits_and_three_signs(prefix: str) -> None:
    assert _checks.check_prefix(prefix) == prefix


@pytest.mark.parametrize("prefix", ["", "-a", ".a", "a b", "a/b", "é", "a\n", "a\0", None, 5])
def test_a_prefix_is_refused(prefix: Any) -> None:
    with pytest.raises(InvalidInput, match="container_prefix"):
        _checks.check_prefix(prefix)


def test_a_prefix_that_leaves_no_room_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at most 40 characters"):
        _checks.check_prefix("x" * 41)


# --- commands --------------------------------------------------------------------------------------


def test_a_text_command_is_run_by_a_shell() -> None:
    assert _checks.check_command("ls -l") == ["sh", "-c", "ls -l"]


@pytest.mark.parametrize("command", [["ls", "-l"], ("ls", "-l")])
def test_a_list_is_run_as_it_is(command: Any) -> None:
    assert _checks.check_command(command) == ["ls", "-l"]


def test_a_path_in_a_list_is_its_text() -> None:
    assert _checks.check_command(["ls", Path("/x")]) == ["ls", "/x"]


def test_the_longest_argument_is_legal() -> None:
    longest = "x" * 131_071
    assert _checks.check_command(["echo", longest]) == ["echo", longest]


def test_an_empty_argument_is_legal() -> None:
    assert _checks.check_command(["echo", "", " "]) == ["echo", "", " "]


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("", ["command=''", "empty", "ls -l"]),
        (" \n\t", ["command=' \\n\\t'", "empty"]),
        ([], ["command=[]", "empty"]),
        ([""], ["command[0]=''", "empty"]),
        (["", "x"], ["command[0]=''", "empty"]),
        ("a\0b", ["command='a\\x00b'", "NUL", "remove it"]),
        (["a", "b\0c"], ["command[1]='b\\x00c'", "NUL"]),
        (["ls", 3], ["command[1] is 3", "pass a str"]),
        (["ls", 3], ["command[1] is 3", "str(...)"]),
        ("x" * 131_072, ["command has 131072 bytes", "at most 131071", "as input", "write_file"]),
        (["cat", "é" * 65_536], ["command[1] has 131072 bytes"]),
        (["ls", None], ["command[1] is None", "pass a str"]),
        (["\ud800"], ["command[0]", "valid Unicode"]),
        (b"ls", ["command is b'ls'", "list of str"]),
        (None, ["command is None", "list of str"]),
        (5, ["command is 5", "list of str"]),
        ({"ls"}, ["command is {'ls'}", "list of str"]),
    ],
)
def test_a_command_is_refused_with_its_value_and_the_cure(command: Any, said: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        _checks.check_command(command)
    assert all(text in str(caught.value) for text in said), str(caught.value)


# --- timeouts --------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [10**400, -(10**400)], ids=["large", "small"])
def test_a_timeout_beyond_all_floats_is_refused(timeout: int) -> None:
    with pytest.raises(InvalidInput, match=r"\(40\d characters\): pass seconds above 0"):
        _checks.check_timeout(timeout)


@pytest.mark.parametrize(("timeout", "seconds"), [(None, None), (1, 1.0), (0.25, 0.25), (1e9, 1e9)])
def test_a_timeout_is_seconds_or_none(timeout: Any, seconds: float | None) -> None:
    assert _checks.check_timeout(timeout) == seconds


@pytest.mark.parametrize("timeout", [0, 0.0, -1, -0.5, math.nan, math.inf, -math.inf, "5", True, [5], Decimal(5)])
def test_a_timeout_is_refused_with_its_value_and_the_cure(timeout: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        _checks.check_timeout(timeout)
    assert repr(timeout) in str(caught.value)
    assert "or None for no limit" in str(caught.value)


# --- environments ----------------------------------------------------------------------------------


def test_an_environment_is_copied() -> None:
    given = {"A": "1", "b": "", "C D": "x=y", "É": "🙂"}
    checked = _checks.check_environment(given)
    assert checked == given
    assert checked is not given


@pytest.mark.parametrize("name", ["", "A=B", "=", "A\0"])
def test_an_environment_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        _checks.check_environment({name: CANARY})
    assert repr(name) in str(caught.value)
    assert CANARY not in everything_said(caught.value)


@pytest.mark.parametrize("value", [f"{CANARY}\0", f"{CANARY}\ud800", CANARY.encode(), [CANARY], None, 5])
def test_an_environment_value_is_refused_by_the_name_of_its_variable_alone(value: Any) -> None:
    with pytest.raises(InvalidInput, match="TOKEN") as caught:
        _checks.check_environment({"TOKEN": value})
    assert CANARY not in everything_said(caught.value)


@pytest.mark.parametrize("environment", [[f"TOKEN={CANARY}"], f"TOKEN={CANARY}", {CANARY}])
def test_an_environment_that_is_no_mapping_is_refused_without_being_shown(environment: Any) -> None:
    with pytest.raises(InvalidInput, match="environment") as caught:
        _checks.check_environment(environment)
    assert CANARY not in everything_said(caught.value)


def test_an_environment_name_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="a name in environment is 5"):
        _checks.check_environment({5: "x"})  # type: ignore[dict-item]  # that is the point


# --- paths -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "normal"),
    [
        ("/workspace", "/workspace"),
        ("/a/b/", "/a/b"),
        ("//a", "/a"),
        ("/a/./b", "/a/b"),
        (PurePosixPath("/a"), "/a"),
        ("/", "/"),
    ],
)
def test_an_absolute_path_is_given_normalised(path: Any, normal: str) -> None:
    assert _checks.check_absolute_path(path, "working_dir") == normal


@pytest.mark.parametrize(
    "path", ["a", "./a", "../a", "/a/..", "/..", "~", "~/a", "", "/a\0", "/" + "x" * 4096, None, 5, b"/a"]
)
def test_a_path_is_refused_by_name(path: Any) -> None:
    with pytest.raises(InvalidInput, match="working_dir"):
        _checks.check_absolute_path(path, "working_dir")


def test_a_tilde_further_inside_is_legal() -> None:
    assert _checks.check_absolute_path("/a/~b", "working_dir") == "/a/~b"
    assert _checks.check_path_text("a/~b", "path") == "a/~b"
