"""Sessions that come and go, and what many of them cost."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryDirectory

from podkit import SessionProxy
from podkit._models.config import default_image
from tests.benchmarks.lab import LABEL, Lab, exec_run, run
from tests.benchmarks.measure import Measurement, by_turns, milliseconds

_MANY = 100
_OPENERS = 4
_SANDWICHES = 2

_PODKIT = """
import time; began = time.perf_counter()
import podkit
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
containers = SimpleContainerManager(DockerBackend(), "podkit", None)
session = podkit.SessionProxy(BaseSessionManager(containers), "user", "session")
print((time.perf_counter() - began) * 1000)
"""
_SDK = """
import time; began = time.perf_counter()
import docker
client = docker.from_env()
print((time.perf_counter() - began) * 1000)
"""


def opening(lab: Lab, rounds: int) -> list[Measurement]:
    """From nothing to a command's result, and the end; the agent is on the engine already, as after the first time."""
    opened, closed = Measurement.of("open", "the agent's volume was filled before"), Measurement.of("close")
    lab.live_session("fills the agent's volume").close()

    def with_podkit() -> None:
        with milliseconds(opened.podkit):
            session = lab.session(f"life-{len(opened.podkit)}")
            run(session)
        with milliseconds(closed.podkit):
            session.close()

    def with_sdk() -> None:
        with milliseconds(opened.plain):
            container = lab.container()
            container.start()
            exec_run(container)
        with milliseconds(closed.plain):
            container.remove(v=True, force=True)

    by_turns(rounds, with_podkit, with_sdk)
    return [opened, closed]


def listing(lab: Lab, rounds: int) -> list[Measurement]:
    """Containers that were created and never started will do: a listing looks at labels and state."""
    taken = Measurement.of("list")
    label = f"{LABEL}.listed={lab.id}"
    for _ in range(_MANY):
        lab.client.containers.create(
            default_image(), ["true"], labels={LABEL: lab.id, f"{LABEL}.listed": lab.id}, network_mode="none"
        )

    def with_podkit() -> None:
        with milliseconds(taken.podkit):
            found = lab.backend.list_workloads({"label": label})
        assert len(found) == _MANY

    def with_sdk() -> None:
        with milliseconds(taken.plain):
            found = lab.client.containers.list(all=True, filters={"label": label})
        assert len(found) == _MANY

    by_turns(rounds, with_podkit, with_sdk)
    return [taken]


def crowd(lab: Lab, rounds: int) -> list[Measurement]:
    """The sessions come and go in between: 1, 100, 1, 100, 1."""
    taken = Measurement.of("crowd", f"{_MANY} sessions opened and closed {_SANDWICHES} times between the rounds")
    session = lab.live_session("one")

    def measure(into: list[float]) -> None:
        for _ in range(3 * rounds):
            with milliseconds(into):
                run(session)

    with ThreadPoolExecutor(_OPENERS) as threads:
        measure(taken.plain)
        for _ in range(_SANDWICHES):
            others = list(threads.map(lab.live_session, (f"one of {number}" for number in range(_MANY - 1))))
            run(session)  # it was silent for long: the next command asks for a sign of life first
            measure(taken.podkit)
            list(threads.map(SessionProxy.close, others))
            run(session)
            measure(taken.plain)
    return [taken]


def imports(lab: Lab, rounds: int) -> list[Measurement]:
    """Fresh interpreters, whose own start is not counted; modules come compiled, as installed ones do."""
    taken = Measurement.of("import", "the interpreter's own start is not counted")

    with TemporaryDirectory() as compiled:
        environ = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        environ["PYTHONPYCACHEPREFIX"] = compiled

        def fresh(code: str) -> float:
            ran = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, check=True)
            return float(ran.stdout)

        fresh(_PODKIT), fresh(_SDK)  # compile
        by_turns(rounds, lambda: taken.podkit.append(fresh(_PODKIT)), lambda: taken.plain.append(fresh(_SDK)))
    return [taken]
