"""Background processes, beside detached execs and `ps`."""

from __future__ import annotations

from tests.benchmarks.lab import Lab
from tests.benchmarks.measure import Measurement, by_turns, milliseconds

_MANY = 50
_COMMAND = ["sleep", "600"]
_PS = ["sh", "-c", "cat /proc/[0-9]*/stat"]  # what `ps` reads: the image has none


def starting(lab: Lab, rounds: int) -> list[Measurement]:
    """Start one; what was started is ended outside of the measured time."""
    taken = Measurement.of("process-start")
    session, container = lab.live_session("process-start"), lab.live_container()

    def with_podkit() -> None:
        with milliseconds(taken.podkit):
            process = session.processes.start_process(_COMMAND)
        assert session.processes.stop_process(process.id, force=True)

    def with_sdk() -> None:
        with milliseconds(taken.plain):
            container.exec_run(_COMMAND, detach=True)
        container.exec_run(["sh", "-c", "kill $(pidof sleep)"])

    by_turns(rounds, with_podkit, with_sdk)
    return [taken]


def looking(lab: Lab, rounds: int) -> list[Measurement]:
    """The state of fifty of them."""
    taken = Measurement.of("process-list")
    session, container = lab.live_session("process-list"), lab.live_container()
    for _ in range(_MANY):
        session.processes.start_process(_COMMAND)
        container.exec_run(_COMMAND, detach=True)

    def with_podkit() -> None:
        with milliseconds(taken.podkit):
            found = session.processes.list_processes()
        assert sum(process.is_running for process in found) == _MANY

    def with_sdk() -> None:
        with milliseconds(taken.plain):
            found = container.exec_run(_PS)
        assert found.output.count(b"(sleep)") >= _MANY

    by_turns(rounds, with_podkit, with_sdk)
    return [taken]
