"""The figures as a table, and a page that shows one; pure code."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tests.benchmarks.measure import Measurement

BEGIN, END = "<!-- figures: written by bench.sh --docs -->", "<!-- end of the figures -->"


def table(measurements: Sequence[Measurement]) -> str:
    """Give medians, ratios and what was wanted of them, as a table of Markdown."""
    rows: list[tuple[str, ...]] = [("podkit ÷ plain", "podkit", "plain", "ratio", "gate", "aim", "rounds")]
    for one in measurements:
        target = one.target
        sign = "≥" if target.more_is_better else "≤"
        rows.append(
            (
                target.title,
                *(f"{short(statistics.median(all))} {target.unit}" for all in (one.podkit, one.plain)),
                short(one.ratio),
                f"{sign} {target.gate:g} {verdict(holds=one.gate_holds)}",
                f"{sign} {target.aim:g} {verdict(holds=one.aim_holds)}",
                str(len(one.podkit)),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def verdict(*, holds: bool) -> str:
    """Say whether a gate or an aim holds."""
    return "holds" if holds else "MISSED"


def short(number: float) -> str:
    """Write a number with three digits that count."""
    return f"{number:.0f}" if number >= 100 else f"{number:#.3g}"


def described(about: Mapping[str, Any]) -> list[str]:
    """Describe the machine and the versions, in two lines."""
    machine, versions = about["machine"], about["versions"]
    gigabytes, day = machine["memory_bytes"] / (1 << 30), about["at"][:10]
    return [
        f"{machine['cpu']}, {machine['cpus']} cores, {gigabytes:.0f} GiB, Linux {versions['kernel']}, "
        f"load {machine['load_average'][0]:.1f}",
        f"podkit {versions['podkit']}, Docker SDK {versions['docker_sdk']}, Docker Engine {versions['engine']} "
        f"({versions['storage_driver']}, cgroup v{versions['cgroup']}), Python {versions['python']}, {day}",
    ]


def notes(measurements: Sequence[Measurement]) -> str:
    """Give what is to be known of single rows, as a list of Markdown."""
    return "\n".join(f"- {one.target.title}: {one.note}." for one in measurements if one.note)


def filled(page: str, about: Mapping[str, Any], measurements: Sequence[Measurement]) -> str:
    """Put the figures into a page, in place of those between its marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no lines {BEGIN} and {END}")
    parts = [*(f"{line}." for line in described(about)), table(measurements), notes(measurements)]
    return f"{before}{BEGIN}\n\n" + "\n\n".join(filter(None, parts)) + f"\n\n{END}{after}"
