"""Runs the long forms of the trust tests, one after another, and writes report.md and report.json.

    python -m tests.trust.soak [--size ci] [--only NAME,...] [--seed N] [--out DIRECTORY]

Each row of `STEPS` is a program. It exits with 0 where its promise held, and says by `tell` what it tried and found.
Exits with 1 where a step found something, broke, or was not there, where a control found nothing, or where
something was left.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]
_RESULT = "PODKIT_SOAK_RESULT"
_GRACE_SECONDS = 60
_PR_SET_CHILD_SUBREAPER = 36

Audit = Mapping[str, Sequence[str]]
"""What is there of a kind, by name."""


@dataclass(frozen=True)
class Step:
    """A program to run.

    Attributes:
        name: one word.
        promise: the promises of docs/security.md that it is about.
        module: what `python -m` runs.
        arguments: of it; `{size}` and `{seed}` stand for these.
        ci: the size that takes minutes.
        soak: the whole one.
        most_seconds: after which the whole one counts as hanging; the small one has an hour.
    """

    name: str
    promise: str
    module: str
    arguments: tuple[str, ...]
    ci: int
    soak: int
    most_seconds: float


STEPS = (
    Step("survivors", "8", "tests.trust.survivors", ("--runs={size}",), 1, 50, 4 * 3600),
    Step("fuzz", "6", "tests.trust.fuzz", ("--frames={size}", "--seed={seed}"), 10_000, 1_000_000, 4 * 3600),
    Step("races", "3", "tests.trust.races", ("--operations={size}",), 10_000, 1_000_000, 4 * 3600),
)


@dataclass
class Outcome:
    """What a step came to.

    Attributes:
        name: of the step.
        promise: of the step.
        command: that was run.
        seconds: it took.
        exit_code: `None` where it was not there, or was ended.
        tried: how often; `None` where it did not say.
        found: how often a promise did not hold.
        control_tried: how often the naive way was tried.
        control_found: how often it failed, as it should.
        notes: in the step's own words.
        left: what it left behind.
        problems: why it does not count as passed.
    """

    name: str
    promise: str
    command: str
    seconds: float = 0.0
    exit_code: int | None = None
    tried: int | None = None
    found: int | None = None
    control_tried: int = 0
    control_found: int = 0
    notes: str = ""
    left: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def tell(*, tried: int, found: int, control_tried: int = 0, control_found: int = 0, notes: str = "") -> None:
    """Tell the soak, if there is one, what this program has tried and found."""
    if target := os.environ.get(_RESULT):
        told = {"tried": tried, "found": found, "control_tried": control_tried, "control_found": control_found}
        Path(target).write_text(json.dumps({**told, "notes": notes}))


# --- one step --------------------------------------------------------------------------------------------


def run_step(step: Step, *, size: int, seed: int, most_seconds: float, out: Path) -> Outcome:
    """Run a program to its end; what it prints goes to `NAME.log`."""
    arguments = [text.format(size=size, seed=seed) for text in step.arguments]
    outcome = Outcome(step.name, step.promise, " ".join(["python -m", step.module, *arguments]))
    if not _is_there(step.module):
        outcome.problems.append(f"not run: there is no {step.module}")
        return outcome
    result, began = out / f"{step.name}.json", time.monotonic()
    with (out / f"{step.name}.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", step.module, *arguments],
            env={**os.environ, _RESULT: str(result)},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            outcome.exit_code = process.wait(most_seconds)
        except subprocess.TimeoutExpired:
            outcome.problems.append(f"ended after {most_seconds:g} s")
        finally:
            if outcome.exit_code is None:
                os.killpg(process.pid, signal.SIGINT)  # it may remove what it has made
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_GRACE_SECONDS)
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    outcome.seconds = round(time.monotonic() - began, 1)
    if result.exists():
        for name, value in json.loads(result.read_text()).items():
            setattr(outcome, name, value)
        result.unlink()
    return outcome


def _is_there(module: str) -> bool:
    with suppress(ModuleNotFoundError):  # of a package above it
        return find_spec(module) is not None
    return False


def judge(outcome: Outcome) -> None:
    """Note why a step does not count as passed."""
    if outcome.exit_code:
        outcome.problems.append(f"exit code {outcome.exit_code}")
    if outcome.found:
        outcome.problems.append(f"found {outcome.found:,}")
    if outcome.control_tried and not outcome.control_found:
        outcome.problems.append("its control found nothing: the test is broken")
    if outcome.left:
        outcome.problems.append(f"left {len(outcome.left)}")


# --- what is left ----------------------------------------------------------------------------------------


def look_here() -> dict[str, list[str]]:
    """Processes below this one, those without a parent included, and its descriptors and threads."""
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # what has ended since, and had no parent
            pass
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    descriptors = []
    for fd in os.listdir("/proc/self/fd"):
        with suppress(OSError):  # of this very listing
            descriptors.append(f"{fd} {os.readlink(f'/proc/self/fd/{fd}')}")
    threads = os.listdir("/proc/self/task")
    return {"processes": children, "descriptors": descriptors, "threads": threads}


def look_at_engine() -> dict[str, list[str]]:
    """Containers in any state, networks and volumes that this run has made."""
    from podkit.backends.docker import DockerBackend
    from tests.support.leftovers import Run, find_leftovers

    backend = DockerBackend()
    backend.connect()
    found: dict[str, list[str]] = {"containers": [], "networks": [], "volumes": []}
    try:
        for text in find_leftovers(backend.client, Run(os.environ["PODKIT_TEST_RUN_ID"], {os.getpid()})):
            kind, name = text.split(" ", 1)
            found[f"{kind}s"].append(name)
    finally:
        backend.client.close()
    return found


def look() -> dict[str, list[str]]:
    """All that the leak audit counts."""
    return look_at_engine() | look_here()


def grown(before: Audit, after: Audit) -> list[str]:
    """What is there now and was not, by kind; of what has no names of its own, how many more."""
    return [
        f"{kind}: {', '.join(sorted(set(after[kind]) - set(before[kind]))) or 'more'}"
        for kind in after
        if len(after[kind]) > len(before[kind]) or (kind in _NAMED and set(after[kind]) - set(before[kind]))
    ]


_NAMED = ("containers", "networks", "volumes", "processes")


# --- the report ------------------------------------------------------------------------------------------


@dataclass
class Report:
    """All that a run came to.

    Attributes:
        size: `ci` or `soak`.
        seed: of all that is random.
        began: in UTC.
        versions: of what took part.
        machine: where.
        steps: in the order in which they ran.
        audit: the leak audit before and after.
    """

    size: str
    seed: int
    began: str
    versions: dict[str, str]
    machine: dict[str, str]
    steps: list[Outcome] = field(default_factory=list)
    audit: dict[str, dict[str, int]] = field(default_factory=dict)

    def write(self, out: Path) -> None:
        """Write both forms; after each step, so that a run that is cut off has its report too."""
        (out / "report.json").write_text(json.dumps(asdict(self), indent=2) + "\n")
        (out / "report.md").write_text(self.text())

    def text(self) -> str:
        """The report as Markdown."""
        facts = [("size", self.size), ("seed", str(self.seed)), ("began", self.began)]
        facts += [*self.versions.items(), *self.machine.items()]
        table = [
            "| step | promise | tried | found | the naive way failed | seconds | |",
            "|---|---|---:|---:|---:|---:|---|",
        ]
        table += [_row(step) for step in self.steps]
        counts = ["| | before | after |", "|---|---:|---:|"]
        before, after = self.audit.get("before", {}), self.audit.get("after", {})
        counts += [f"| {kind} | {before[kind]} | {after.get(kind, 'not counted')} |" for kind in before]
        lines = [
            "# Soak",
            "",
            *(f"- {name}: {value}" for name, value in facts),
            "",
            *table,
            "",
            *(f"- {step.name}: `{step.command}`{': ' + step.notes if step.notes else ''}" for step in self.steps),
            "",
            "## Leak audit",
            "",
            "Containers, networks and volumes of this run; processes, descriptors and threads of what ran the steps.",
            "",
            *counts,
        ]
        return "\n".join(lines) + "\n"


def _row(step: Outcome) -> str:
    def count(number: int | None) -> str:
        return "not told" if number is None else f"{number:,}"

    control = f"{step.control_found:,} of {step.control_tried:,}" if step.control_tried else "no control"
    verdict = "; ".join([*step.problems, *step.left]) or "held"
    cells = [step.name, step.promise, count(step.tried), count(step.found), control, f"{step.seconds:.1f}", verdict]
    return f"| {' | '.join(cells)} |"


def _versions() -> dict[str, str]:
    from podkit.backends.docker import DockerBackend

    backend = DockerBackend()
    backend.connect()
    try:
        engine = backend.client.version()
        cgroup = backend.client.info().get("CgroupVersion", "1")
    finally:
        backend.client.close()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    return {
        "podkit": f"{version('podkit')} {commit.strip()}".strip(),
        "python": platform.python_version(),
        "engine": f"{engine['Version']} (API {engine['ApiVersion']}, cgroup v{cgroup})",
        "kernel": engine["KernelVersion"],
        "docker SDK": version("docker"),
    }


def _machine() -> dict[str, str]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg())
    return {
        "processor": f"{len(os.sched_getaffinity(0))} x {platform.machine()}",
        "memory": f"{memory / 2**30:.0f} GiB",
        "load at the beginning": load,
    }


# --- all of it -------------------------------------------------------------------------------------------


def run(steps: Iterable[Step], report: Report, out: Path, look: Callable[[], Audit] = look) -> bool:
    """Run the steps, and keep the report up to date; whether all is well."""
    # What a step leaves without a parent becomes a child of this process, and so is seen.
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    out.mkdir(parents=True, exist_ok=True)
    before = look()
    report.audit["before"] = {kind: len(names) for kind, names in before.items()}
    for step in steps:
        whole = report.size == "soak"
        size, most_seconds = (step.soak, step.most_seconds) if whole else (step.ci, min(step.most_seconds, 3600))
        print(f"{step.name}: {size:,}", flush=True)
        outcome = run_step(step, size=size, seed=report.seed, most_seconds=most_seconds, out=out)
        eventually(lambda before=before: not grown(before, look()), seconds=5, interval=0.5)  # type: ignore[misc]
        after = look()
        outcome.left = grown(before, after)
        judge(outcome)
        report.steps.append(outcome)
        report.audit["after"] = {kind: len(names) for kind, names in after.items()}
        report.write(out)
        print(f"  {'; '.join(outcome.problems) or 'held'} ({outcome.seconds:.1f} s)", flush=True)
        before = after  # so that each step answers for its own
    return not any(outcome.problems for outcome in report.steps)


def main() -> Any:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("ci", "soak"), default="soak")
    parser.add_argument("--only", default="", help="names of steps, with commas between them")
    parser.add_argument("--seed", type=int, default=secrets.randbits(31))
    parser.add_argument("--out", type=Path, default=ROOT / ".test-cache/soak")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a step is ended, too
    names = options.only.split(",") if options.only else [step.name for step in STEPS]
    if unknown := set(names) - {step.name for step in STEPS}:
        parser.error(f"no such step: {', '.join(sorted(unknown))}")
    os.environ.setdefault("PODKIT_TEST_RUN_ID", secrets.token_hex(4))
    began = datetime.now(UTC).isoformat(timespec="seconds")
    report = Report(options.size, options.seed, began, _versions(), _machine())
    holds = run([step for step in STEPS if step.name in names], report, options.out)
    print(report.text())
    sys.exit(not holds)


if __name__ == "__main__":
    main()
