"""What the benchmark says of its figures; nothing is measured."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from tests.benchmarks.chart import picture, position
from tests.benchmarks.measure import Measurement, by_turns
from tests.benchmarks.report import BEGIN, END, filled, short, table

ABOUT: dict[str, Any] = {
    "at": "2026-01-02T03:04:05+00:00",
    "machine": {"cpus": 2, "cpu": "a <fast> one", "memory_bytes": 24 << 30, "load_average": [0.5, 0.4, 0.3]},
    "versions": {
        "podkit": "1",
        "docker_sdk": "7.2.0",
        "python": "3.11",
        "engine": "20.10",
        "kernel": "6.1",
        "storage_driver": "overlay2",
        "cgroup": "1",
    },
}


def measured(key: str, podkit: float, plain: float) -> Measurement:
    made = Measurement.of(key, "a note")
    made.podkit, made.plain = [podkit, podkit, 10 * podkit], [plain, plain, 10 * plain]
    return made


def test_a_time_at_the_gate_holds_the_gate_and_misses_the_aim() -> None:
    one = measured("command", 6.0, 100.0)
    assert (one.ratio, one.gate_holds, one.aim_holds) == (0.06, True, False)


def test_a_rate_holds_when_it_is_high() -> None:
    assert [measured("rate-16", rate, 1.0).gate_holds for rate in (14.9, 15.0)] == [False, True]


def test_figures_survive_a_file() -> None:
    one = measured("kill", 1.0, 70.0)
    assert Measurement.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_the_table_says_of_each_row_whether_gate_and_aim_hold() -> None:
    line = table([measured("command", 5.0, 100.0)]).splitlines()[2]
    assert [cell.strip() for cell in line.split("|")[1:-1]] == [
        "a command in a live session ÷ `exec_run`",
        "5.00 ms",
        "100 ms",
        "0.0500",
        "≤ 0.06 holds",
        "≤ 0.025 MISSED",
        "3",
    ]


@pytest.mark.parametrize(("number", "text"), [(1234.5, "1234"), (12.345, "12.3"), (0.012345, "0.0123")])
def test_numbers_have_three_digits(number: float, text: str) -> None:
    assert short(number) == text


def test_a_page_gets_new_figures_and_keeps_the_rest() -> None:
    once = filled(f"before\n{BEGIN}\nstale\n{END}\nafter\n", ABOUT, [measured("kill", 1.0, 70.0)])
    assert "stale" not in once
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert filled(once, ABOUT, [measured("kill", 1.0, 70.0)]) == once


def test_a_page_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no lines"):
        filled("a page", ABOUT, [])


def test_the_picture_is_well_formed_and_has_a_bar_for_each_row() -> None:
    drawn = ElementTree.fromstring(picture(ABOUT, [measured("kill", 1.0, 70.0), measured("rate-4", 900.0, 10.0)]))
    space = "{http://www.w3.org/2000/svg}"
    assert [one.get("class") for one in drawn.iter(f"{space}rect")] == ["ground", "good", "good"]
    assert any("a <fast> one" in (one.text or "") for one in drawn.iter(f"{space}text"))


def test_what_is_off_the_axis_stands_at_its_end() -> None:
    assert position(1e9) == position(300)
    assert position(1e-9) < position(1) < position(10)


def test_who_comes_first_changes_from_round_to_round() -> None:
    seen: list[str] = []
    by_turns(3, lambda: seen.append("a"), lambda: seen.append("b"), lambda: seen.append("c"))
    assert "".join(seen) == "abcbcacab"
