"""What a command costs in a session that lives."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

from tests.benchmarks.lab import COMMAND, THREADS, Lab, exec_run, run
from tests.benchmarks.measure import Measurement, by_turns, milliseconds

_COMMANDS_PER_ROUND = 10
_OUTPUT_BYTES = 16 << 20  # of each stream
_OUTPUT = ["sh", "-c", "dd if=/dev/zero bs=64k count=256 2>/dev/null; dd if=/dev/zero bs=64k count=256 >&2 2>/dev/null"]
_IN_BACKGROUND = ["sh", "-c", "sleep 600 >/dev/null 2>&1 & echo $! >/tmp/to-kill"]
_KILL = ["sh", "-c", "read pid </tmp/to-kill && kill -KILL $pid"]


def latency(lab: Lab, rounds: int) -> list[Measurement]:
    """Many rounds, as each is short. Three ways by turns: podkit's figures serve for both comparisons."""
    beside_exec, beside_host = Measurement.of("command"), Measurement.of("command-host")
    session, container = lab.live_session("latency"), lab.live_container()

    def with_podkit() -> None:
        with milliseconds(beside_exec.podkit):
            run(session)

    def with_sdk() -> None:
        with milliseconds(beside_exec.plain):
            exec_run(container)

    def on_the_host() -> None:
        with milliseconds(beside_host.plain):
            subprocess.run(COMMAND, capture_output=True, check=True)

    by_turns(5 * rounds, with_podkit, with_sdk, on_the_host)
    beside_host.podkit = beside_exec.podkit
    return [beside_exec, beside_host]


def cpu(lab: Lab, rounds: int) -> list[Measurement]:
    """Processor time of this process, user's and kernel's, all threads."""
    taken = Measurement.of("cpu", f"{_COMMANDS_PER_ROUND} commands a round")
    session, container = lab.live_session("cpu"), lab.live_container()

    def spent(into: list[float], command: Callable[[], None]) -> None:
        began = time.process_time()
        for _ in range(_COMMANDS_PER_ROUND):
            command()
        into.append((time.process_time() - began) * 1000 / _COMMANDS_PER_ROUND)

    by_turns(
        rounds,
        lambda: spent(taken.podkit, lambda: run(session)),
        lambda: spent(taken.plain, lambda: exec_run(container)),
    )
    return [taken]


def output(lab: Lab, rounds: int) -> list[Measurement]:
    """Half of it through each stream."""
    taken = Measurement.of("output")
    session, container = lab.live_session("output"), lab.live_container()

    def with_podkit() -> None:
        with milliseconds(taken.podkit):
            result = session.execute_command(_OUTPUT, max_output_bytes=2 * _OUTPUT_BYTES).check()
        assert len(result.stdout) == len(result.stderr) == _OUTPUT_BYTES

    def with_sdk() -> None:
        with milliseconds(taken.plain):
            code, output = container.exec_run(_OUTPUT, demux=True)
        assert (code, *map(len, cast("tuple[bytes, bytes]", output))) == (0, _OUTPUT_BYTES, _OUTPUT_BYTES)

    by_turns(rounds, with_podkit, with_sdk)
    return [taken]


def kill(lab: Lab, rounds: int) -> list[Measurement]:
    """Only the killing is timed; podkit's waits until nothing of the command runs, the other one does not."""
    taken = Measurement.of("kill", "an exec of the shell's `kill`: quicker than `pkill`, and there in any image")
    session, container = lab.live_session("kill"), lab.live_container()

    def with_podkit() -> None:
        running = session.popen(["sleep", "600"])
        with milliseconds(taken.podkit):
            running.kill()
        assert running.wait().exit_code == 137

    def with_sdk() -> None:
        container.exec_run(_IN_BACKGROUND)
        with milliseconds(taken.plain):
            code, _ = container.exec_run(_KILL)
        assert code == 0

    by_turns(rounds, with_podkit, with_sdk)
    return [taken]


def threads_on_many(lab: Lab, rounds: int) -> list[Measurement]:
    """Each thread has a session, or a container, of its own."""
    taken = Measurement.of("rate-16")
    with ThreadPoolExecutor(THREADS) as threads:
        sessions = list(threads.map(lab.live_session, (f"thread-{number}" for number in range(THREADS))))
        containers = list(threads.map(lambda _: lab.live_container(), range(THREADS)))
        podkit, plain = (
            [partial(run, session) for session in sessions],
            [partial(exec_run, container) for container in containers],
        )
        by_turns(
            rounds,
            lambda: taken.podkit.append(_rate(threads, podkit, 25)),
            lambda: taken.plain.append(_rate(threads, plain, 2)),
        )
        list(threads.map(lambda session: session.close(), sessions))
    return [taken]


def threads_on_one(lab: Lab, rounds: int) -> list[Measurement]:
    """All threads share one session, or one container."""
    taken = Measurement.of("rate-4")
    session, container = lab.live_session("shared"), lab.live_container()
    with ThreadPoolExecutor(4) as threads:
        podkit, plain = [partial(run, session)] * 4, [partial(exec_run, container)] * 4
        by_turns(
            rounds,
            lambda: taken.podkit.append(_rate(threads, podkit, 100)),
            lambda: taken.plain.append(_rate(threads, plain, 4)),
        )
    return [taken]


def _rate(threads: ThreadPoolExecutor, tasks: Sequence[Callable[[], None]], repetitions: int) -> float:
    """Have each thread repeat its task; give how often that was done per second."""

    def repeat(task: Callable[[], None]) -> None:
        for _ in range(repetitions):
            task()

    began = time.perf_counter()
    list(threads.map(repeat, tasks))
    return len(tasks) * repetitions / (time.perf_counter() - began)
