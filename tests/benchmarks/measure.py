"""Two ways to do the same thing, by turns, and what they took."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.benchmarks.targets import TARGETS, Target

_TARGETS = {target.key: target for target in TARGETS}


@dataclass
class Measurement:
    """The figures of one quantity.

    Attributes:
        target: which quantity, and what is wanted of it.
        podkit: podkit's figures, one for each round.
        plain: those of what it is compared with.
        note: what a reader should know of how they came about.
    """

    target: Target
    podkit: list[float] = field(default_factory=list)
    plain: list[float] = field(default_factory=list)
    note: str = ""

    @classmethod
    def of(cls, key: str, note: str = "") -> Measurement:
        """Begin to measure one of `TARGETS`."""
        return cls(_TARGETS[key], note=note)

    @property
    def ratio(self) -> float:
        """podkit's median divided by the other one."""
        return statistics.median(self.podkit) / statistics.median(self.plain)

    @property
    def gate_holds(self) -> bool:
        """Whether it is as good as it must be."""
        return self.target.holds(self.ratio, self.target.gate)

    @property
    def aim_holds(self) -> bool:
        """Whether it is as good as is wanted."""
        return self.target.holds(self.ratio, self.target.aim)

    def to_json(self) -> dict[str, Any]:
        """Give all figures."""
        target = self.target
        told = {"key": target.key, "title": target.title, "unit": target.unit, "note": self.note}
        judged = {"ratio": self.ratio, "gate": target.gate, "aim": target.aim}
        holds = {"gate_holds": self.gate_holds, "aim_holds": self.aim_holds}
        ways = {"podkit": self.podkit, "plain": self.plain}
        return {**told, **judged, **holds} | {
            way: {"median": statistics.median(all), "min": min(all), "max": max(all), "all": all}
            for way, all in ways.items()
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Measurement:
        """Read what `to_json` gave."""
        return cls(_TARGETS[data["key"]], data["podkit"]["all"], data["plain"]["all"], data["note"])


def by_turns(rounds: int, *ways: Callable[[], None]) -> None:
    """Do all of them in each round; who comes first changes, so that nobody finds the warmer cache."""
    for number in range(rounds):
        first = number % len(ways)
        for way in ways[first:] + ways[:first]:
            way()


@contextmanager
def milliseconds(into: list[float]) -> Iterator[None]:
    """Time the block."""
    began = time.perf_counter()
    yield
    into.append((time.perf_counter() - began) * 1000)
