"""Measures podkit beside the plain Docker SDK, by turns, on one engine: what counts is the ratio.

    python -m tests.benchmarks [--rounds N] [--json FILE]

Takes a minute or two. The image is PODKIT_DEFAULT_IMAGE, which has to be on the engine. Removes what it made.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound
from docker.models.containers import Container

from podkit import SessionProxy, get_docker_session
from podkit.backends.docker import DockerBackend
from podkit.core.models import ContainerConfig, default_image

LABEL = "podkit-benchmark"
COMMAND = ["true"]
LISTED = 100
THREADS = 16
COMMANDS_PER_THREAD = 4
LONG_LIFE = ContainerConfig(container_lifetime_seconds=3600)


@dataclass
class Measurement:
    """The same thing done in two ways, by turns."""

    name: str
    unit: str = "ms"
    podkit: list[float] = field(default_factory=list)
    sdk: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.podkit) / statistics.median(self.sdk)

    def to_json(self) -> dict[str, Any]:
        ways = {"podkit": self.podkit, "sdk": self.sdk}
        return {"name": self.name, "unit": self.unit, "rounds": len(self.podkit), "ratio": self.ratio} | {
            way: {"median": statistics.median(taken), "min": min(taken), "max": max(taken), "all": taken}
            for way, taken in ways.items()
        }


def by_turns(rounds: int, podkit: Callable[[], None], sdk: Callable[[], None]) -> None:
    """Do both in each round; who comes first changes, so that neither finds the warmer cache."""
    for number in range(rounds):
        for way in (podkit, sdk) if number % 2 else (sdk, podkit):
            way()


@contextmanager
def milliseconds(into: list[float]) -> Iterator[None]:
    began = time.perf_counter()
    yield
    into.append((time.perf_counter() - began) * 1000)


class Benchmark:
    """All measurements; what they make carries the run's id."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.id = secrets.token_hex(4)
        self.prefix = os.environ["PODKIT_CONTAINER_PREFIX"] = f"pb-{self.id}"
        self.backend = DockerBackend()
        self.backend.connect()
        self.client = docker.from_env(max_pool_size=2 * THREADS)  # the default of 10 would slow the threads down
        if self.client.info()["ID"] != self.backend.client.info()["ID"]:
            sys.exit("podkit and docker.from_env() find different engines: set DOCKER_HOST")

    # --- the two ways -------------------------------------------------------------------------------

    def session(self, name: str) -> SessionProxy:
        return get_docker_session("benchmark", name, LONG_LIFE)

    def container(self) -> Container:
        return self.client.containers.create(default_image(), ["sleep", "3600"], labels={LABEL: self.id})

    def live_session(self, name: str) -> SessionProxy:
        session = self.session(name)
        run(session)
        return session

    def live_container(self) -> Container:
        container = self.container()
        container.start()
        exec_run(container)
        return container

    # --- what is measured ---------------------------------------------------------------------------

    def command(self) -> list[Measurement]:
        """Many rounds, as each is short."""
        taken = Measurement("a command in a live session ÷ exec_run")
        session, container = self.live_session("command"), self.live_container()

        def with_podkit() -> None:
            with milliseconds(taken.podkit):
                run(session)

        def with_sdk() -> None:
            with milliseconds(taken.sdk):
                exec_run(container)

        by_turns(5 * self.rounds, with_podkit, with_sdk)
        return [taken]

    def life(self) -> list[Measurement]:
        """Opening and closing."""
        opening = Measurement("open until the first result ÷ create + start + exec_run")
        closing = Measurement("close ÷ forced remove")

        def with_podkit() -> None:
            with milliseconds(opening.podkit):
                session = self.session(f"life-{len(opening.podkit)}")
                run(session)
            with milliseconds(closing.podkit):
                session.close()

        def with_sdk() -> None:
            with milliseconds(opening.sdk):
                container = self.container()
                container.start()
                exec_run(container)
            with milliseconds(closing.sdk):
                container.remove(v=True, force=True)

        by_turns(self.rounds, with_podkit, with_sdk)
        return [opening, closing]

    def listing(self) -> list[Measurement]:
        """Containers that were created and never started will do: a listing looks at labels and state."""
        taken = Measurement(f"list {LISTED} sessions by label ÷ containers.list")
        label = f"{LABEL}.listed={self.id}"
        labels = {LABEL: self.id, f"{LABEL}.listed": self.id}
        for _ in range(LISTED):
            self.client.containers.create(default_image(), ["true"], labels=labels)

        def with_podkit() -> None:
            with milliseconds(taken.podkit):
                found = self.backend.list_workloads({"label": label})
            assert len(found) == LISTED

        def with_sdk() -> None:
            with milliseconds(taken.sdk):
                found = self.client.containers.list(all=True, filters={"label": label})
            assert len(found) == LISTED

        by_turns(self.rounds, with_podkit, with_sdk)
        return [taken]

    def throughput(self) -> list[Measurement]:
        """Few rounds, as each takes seconds."""
        taken = Measurement(f"commands per second, {THREADS} threads on {THREADS} sessions ÷ exec_run", unit="/s")
        with ThreadPoolExecutor(THREADS) as threads:
            sessions = list(threads.map(self.live_session, (f"thread-{number}" for number in range(THREADS))))
            containers = list(threads.map(lambda _: self.live_container(), range(THREADS)))

            def rate(tasks: list[Callable[[], None]]) -> float:
                def repeat(task: Callable[[], None]) -> None:
                    for _ in range(COMMANDS_PER_THREAD):
                        task()

                began = time.perf_counter()
                for _ in threads.map(repeat, tasks):
                    pass
                return len(tasks) * COMMANDS_PER_THREAD / (time.perf_counter() - began)

            def with_podkit() -> None:
                taken.podkit.append(rate([partial(run, session) for session in sessions]))

            def with_sdk() -> None:
                taken.sdk.append(rate([partial(exec_run, container) for container in containers]))

            by_turns(max(5, self.rounds // 4), with_podkit, with_sdk)
        return [taken]

    # --- before and after ---------------------------------------------------------------------------

    def about(self) -> dict[str, Any]:
        """Machine and versions."""
        engine = self.client.version()
        info = self.client.info()
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {
                "cpus": os.cpu_count(),
                "cpu": cpu_model(),
                "memory_bytes": info["MemTotal"],
                "load_average": os.getloadavg(),
                "platform": platform.platform(),
            },
            "versions": {
                "podkit": version("podkit"),
                "docker_sdk": version("docker"),
                "python": platform.python_version(),
                "engine": engine["Version"],
                "api": self.client.api.api_version,
                "kernel": engine["KernelVersion"],
                "storage_driver": info["Driver"],
                "cgroup": info.get("CgroupVersion"),
            },
            "image": default_image(),
        }

    def clean_up(self) -> None:
        for label in (f"{LABEL}={self.id}", f"podkit.prefix={self.prefix}"):
            for row in self.client.api.containers(all=True, filters={"label": label}):
                try:
                    self.client.api.remove_container(row["Id"], v=True, force=True)
                except NotFound:
                    continue
        self.client.close()


def run(session: SessionProxy) -> None:
    session.execute_command(COMMAND).check()


def exec_run(container: Container) -> None:
    code, _ = container.exec_run(COMMAND, demux=True)
    assert code == 0


def cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def table(measurements: list[Measurement]) -> str:
    """Give medians and their ratio; the maxima stand in brackets."""
    rows: list[tuple[str, ...]] = [("podkit ÷ SDK", "podkit", "SDK", "ratio", "rounds")]
    for taken in measurements:
        ways = [f"{statistics.median(all):.1f} ({max(all):.1f}) {taken.unit}" for all in (taken.podkit, taken.sdk)]
        rows.append((taken.name, *ways, f"{taken.ratio:.2f}", str(len(taken.podkit))))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in rows
    )


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument(
        "--rounds", type=int, default=20, help="rounds of each measurement, but for short and long ones"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there, with machine and versions")
    asked = parser.parse_args()
    if asked.rounds < 1:
        parser.error("--rounds: at least 1")

    benchmark = Benchmark(asked.rounds)
    about = benchmark.about()
    taken: list[Measurement] = []
    try:
        for part in (benchmark.command, benchmark.life, benchmark.listing, benchmark.throughput):
            print(f"{part.__name__} ...", file=sys.stderr, flush=True)
            taken += part()
    finally:
        benchmark.clean_up()
    print(table(taken))
    if asked.json:
        about["load_average_after"] = os.getloadavg()
        asked.json.write_text(
            json.dumps(about | {"measurements": [one.to_json() for one in taken]}, indent=2, ensure_ascii=False) + "\n"
        )


if __name__ == "__main__":
    main()
