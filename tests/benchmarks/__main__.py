"""Measures podkit beside the plain Docker SDK, by turns, on one engine: what counts is the ratio.

    python -m tests.benchmarks [--rounds N] [--rows NAME,...] [--json FILE] [--docs]

Takes some five minutes. The image is PODKIT_DEFAULT_IMAGE, which has to be on the engine. Removes what it made.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import chart, commands, files, life, processes
from tests.benchmarks.lab import Lab
from tests.benchmarks.measure import Measurement
from tests.benchmarks.report import filled, table
from tests.benchmarks.targets import TARGETS

PARTS: dict[str, Callable[[Lab, int], list[Measurement]]] = {
    "latency": commands.latency,
    "rate-16": commands.threads_on_many,
    "rate-4": commands.threads_on_one,
    "cpu": commands.cpu,
    "output": commands.output,
    "kill": commands.kill,
    "file-1k": files.small,
    "file-1m": files.middling,
    "file-100m": files.large,
    "tree": files.tree,
    "process-start": processes.starting,
    "process-list": processes.looking,
    "life": life.opening,
    "list": life.listing,
    "crowd": life.crowd,
    "import": life.imports,
}
"""What can be measured on its own; two of them give two rows, as both come of the same rounds."""

DOCS = Path(__file__).parents[2] / "docs"


def measured(parts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Measure, and give what the file of `--json` holds."""
    lab = Lab()
    about = lab.about()
    taken: list[Measurement] = []
    try:
        for name in parts:
            began = time.monotonic()
            taken += PARTS[name](lab, rounds)
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    finally:
        lab.clean_up()
    about["load_average_after"] = os.getloadavg()
    return about | {"measurements": [one.to_json() for one in taken]}


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="bench.sh", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=20, help="of each measurement, but for short and long ones")
    parser.add_argument("--rows", metavar="NAME,...", help=f"only these: {', '.join(PARTS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, with machine and versions")
    parser.add_argument("--read", type=Path, metavar="FILE", help="measure nothing, take the figures of this file")
    parser.add_argument("--docs", action="store_true", help="put table and picture into docs/")
    asked = parser.parse_args()
    asked.rows = asked.rows.split(",") if asked.rows else list(PARTS)
    if unknown := set(asked.rows) - set(PARTS):
        parser.error(f"--rows: there is no {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if asked.rounds < 1:
        parser.error("--rounds: at least 1")
    return asked


def main() -> None:
    """Measure, or read what was measured; print the table and write what was asked for."""
    asked = arguments()
    data = json.loads(asked.read.read_text()) if asked.read else measured(asked.rows, asked.rounds)
    order = [target.key for target in TARGETS]
    found = sorted(map(Measurement.from_json, data["measurements"]), key=lambda one: order.index(one.target.key))
    print(table(found))
    if asked.json:
        asked.json.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n")
    if asked.docs:
        page = DOCS / "benchmarks.md"
        page.write_text(filled(page.read_text(), data, found))
        (DOCS / "benchmark.svg").write_text(chart.picture(data, found))


if __name__ == "__main__":
    main()
