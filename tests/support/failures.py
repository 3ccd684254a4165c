"""Tells of a failed test at once, and in the end, for whoever runs these tests once more, which ones failed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


class Failures:
    """A plugin of pytest, of the process that prints.

    Attributes:
        ids: of the tests that failed, in that order.
    """

    def __init__(self, config: pytest.Config) -> None:
        self.ids: list[str] = []
        self._config = config
        self._last: dict[str, str] = {}  # by worker

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Say what failed, why, and what ran before it in the same process."""
        worker = getattr(report, "worker_id", "main")
        if report.failed and report.nodeid not in self.ids:
            self.ids.append(report.nodeid)
            why = report.longreprtext.partition("\nE  ")[2].partition("\n")[0].strip()
            before = self._last.get(worker, "no other")
            writer = self._config.get_terminal_writer()
            writer.line()
            writer.line(f"FAILED ({report.when}) {report.nodeid}: {why} [{worker}, after {before}]", red=True)
        if report.when == "teardown":
            self._last[worker] = report.nodeid

    def write(self, path: str, *, all_else_is_well: bool) -> None:
        """Write down what can be run once more: nothing, where something else than a test failed."""
        Path(path).write_text(json.dumps(self.ids if all_else_is_well else []), encoding="utf-8")
