"""What docs/security.md says of tests is true: fourteen promises, and each test that it names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROWS = re.findall(r"^\| (\d+) \| (.+) \|$", (ROOT / "docs/security.md").read_text(), re.MULTILINE)


def missing(text: str) -> list[str]:
    """The tests that a text names and that are not there."""
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    return [
        f"{file}::{test}"
        for file, test in named
        if not (ROOT / file).is_file() or (test and f"\ndef {test}(" not in (ROOT / file).read_text())
    ]


def test_the_page_has_fourteen_promises_in_order() -> None:
    assert [int(number) for number, _ in ROWS] == list(range(1, 15))


@pytest.mark.parametrize(("number", "row"), ROWS)
def test_a_promise_names_tests_that_are_there_or_says_that_it_is_not_kept(number: str, row: str) -> None:
    _, shown, soak, control = row.split(" | ")
    assert missing(row) == []
    assert "`tests/" in shown or "**not kept**" in shown
    assert soak
    assert "`tests/" in control or control == "not yet written"


@pytest.mark.parametrize("name", ["tests/unit/test_gone.py", "tests/unit/test_locks.py::test_gone"])
def test_control_a_test_that_is_gone_is_found(name: str) -> None:
    assert missing(f"shown by `{name}`") != []
