"""What is left of commands that are over their time: `python -m tests.trust.survivors [--runs 50] [--control-runs N]`.

Runs each payload of `tests/support/payloads.py` so many times, on Debian and on busybox, and beside it the control:
`timeout -k` in an exec of the engine. Prints a Markdown table. Needs an engine, and the images of the tests.
"""

from __future__ import annotations

import argparse
import logging
import os
import secrets
import statistics
import sys
import time
from dataclasses import dataclass, field

from docker.models.containers import Container

from podkit.backends.docker import DockerBackend
from tests.conftest import BUSYBOX_IMAGE, DEFAULT_IMAGE
from tests.support.engine import Engine
from tests.support.payloads import MARK, PIDS_LIMIT, Payload, for_image
from tests.support.victim import Victim
from tests.support.waiting import eventually


@dataclass
class Row:
    """What was seen of one payload on one image.

    Attributes:
        runs: how often it ran.
        survivors: in how many runs something of it was left.
        restarts: in how many the container was restarted.
        late: seconds from the timeout to the call's return, of each run.
        control_runs: how often the control ran.
        control_survivors: in how many of these something was left.
    """

    runs: int = 0
    survivors: int = 0
    restarts: int = 0
    late: list[float] = field(default_factory=list)
    control_runs: int = 0
    control_survivors: int = 0


def attack(victim: Victim, payload: Payload, row: Row, runs: int, timeout: float) -> None:
    """Run a payload into its timeout, and look each time at what is left."""
    for _ in range(runs):
        began = time.monotonic()
        result = victim.session.execute_command(payload.command, timeout=timeout)
        row.late.append(time.monotonic() - began - timeout)
        row.runs += 1
        if left := victim.processes():
            row.survivors += 1
            print(f"left: {left}", file=sys.stderr, flush=True)
        row.restarts += result.container_restarted


def control(engine: Engine, container: Container, payload: Payload, row: Row, runs: int) -> None:
    """The same by `timeout -k` in an exec, which ends a little later."""
    command = ["sh", "-c", payload.command] if isinstance(payload.command, str) else list(payload.command)
    for _ in range(runs):
        container.start()
        _exec(engine, container.id, ["timeout", "-k", "0.3", "0.5", *command])
        row.control_runs += 1
        row.control_survivors += any(MARK in line for line in engine.processes(container.id))
        engine.kill(container.id)


def _exec(engine: Engine, id: str, command: list[str]) -> None:
    api = engine.client.api
    exec_id = api.exec_create(id, command)["Id"]
    api.exec_start(exec_id, detach=True)  # to read its output is to wait for the survivors that hold it
    eventually(lambda: not api.exec_inspect(exec_id)["Running"], seconds=3)


def _table(rows: dict[tuple[str, str], Row]) -> str:
    lines = [
        "| image | shape | runs | survivors | restarts | late, median | late, max | `timeout -k`: left alive |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for (image, name), row in rows.items():
        control_seen = f"{row.control_survivors} of {row.control_runs}" if row.control_runs else ""
        median, longest = statistics.median(row.late), max(row.late)
        lines.append(
            f"| {image} | {name} | {row.runs} | {row.survivors} | {row.restarts} | {median * 1000:.0f} ms "
            f"| {longest * 1000:.0f} ms | {control_seen} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--control-runs", type=int, help="by default 10, and at most twice the runs")
    parser.add_argument("--timeout", type=float, default=0.4, help="seconds")
    options = parser.parse_args()
    if options.control_runs is None:
        options.control_runs = min(10, 2 * options.runs)
    logging.getLogger("podkit").setLevel(logging.ERROR)  # the restarts are in the table
    os.environ.setdefault("PODKIT_TEST_RUN_ID", secrets.token_hex(4))
    images = {
        "debian": os.environ.get("PODKIT_DEFAULT_IMAGE", DEFAULT_IMAGE),
        "busybox": os.environ.get("PODKIT_TEST_BUSYBOX_IMAGE", BUSYBOX_IMAGE),
    }
    backend = DockerBackend()
    backend.connect()
    engine = Engine(backend.client, f"pt-{os.environ['PODKIT_TEST_RUN_ID']}-survivors", images["debian"])
    rows: dict[tuple[str, str], Row] = {}
    try:
        for image, reference in images.items():
            victim = Victim(backend, engine, reference)
            beside = engine.container(image=reference, pids_limit=PIDS_LIMIT, init=True, start=False)
            for name, payload in for_image(image).items():
                row = rows[image, name] = Row()
                attack(victim, payload, row, options.runs, options.timeout)
                if not payload.attacks_agent:
                    control(engine, beside, payload, row, options.control_runs)
    finally:
        engine.clean_up()
        backend.client.close()
    print(_table(rows))
    sys.exit(any(row.survivors for row in rows.values()))


if __name__ == "__main__":
    main()
