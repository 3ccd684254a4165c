"""The frame of the soak: what counts as passed, and what a step leaves. Its steps are programs written here."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.waiting import eventually
from tests.trust.soak import Outcome, judge

ROOT = Path(__file__).parents[2]
Soak = Callable[..., tuple[int, dict[str, object], str]]

TOLD = "from tests.trust.soak import tell\ntell(tried=7, found=0, control_tried=3, control_found=2, notes='seven')"
LEAVES = """
import subprocess
from tests.trust.soak import tell
subprocess.Popen(["sleep", "300"], start_new_session=True)
tell(tried=1, found=0)
"""

DRIVER = """
import sys
from pathlib import Path
from tests.trust.soak import Report, Step, look_here, run

out = Path(sys.argv[1])
steps = [Step(name, "8", name, (), 1, 1, float(sys.argv[2])) for name in sys.argv[3:]]
report = Report("soak", 5, "now", {"podkit": "1"}, {"memory": "1 GiB"})
sys.exit(not run(steps, report, out, look_here))
"""


@pytest.fixture
def soak(tmp_path: Path) -> Soak:
    """Run programs as steps, in a process of its own: that becomes the parent of what they leave."""

    def soak(programs: dict[str, str], *, most_seconds: float = 60) -> tuple[int, dict[str, object], str]:
        for name, code in programs.items():
            if code:
                (tmp_path / f"{name}.py").write_text(code)
        path = os.pathsep.join([str(tmp_path), str(ROOT), *filter(None, sys.path)])
        done = subprocess.run(
            [sys.executable, "-c", DRIVER, str(tmp_path / "out"), str(most_seconds), *programs],
            env={**os.environ, "PYTHONPATH": path},
            capture_output=True,
            text=True,
        )
        assert not done.stderr, done.stderr
        report = json.loads((tmp_path / "out/report.json").read_text())
        return done.returncode, report, (tmp_path / "out/report.md").read_text()

    return soak


def problems(report: dict[str, object]) -> list[list[str]]:
    steps = report["steps"]
    assert isinstance(steps, list)
    return [step["problems"] for step in steps]


def test_a_step_that_held_is_reported_with_its_figures_and_its_control(soak: Soak) -> None:
    code, report, page = soak({"step_held": TOLD})
    assert (code, problems(report)) == (0, [[]])
    assert "| step_held | 8 | 7 | 0 | 2 of 3 |" in page
    assert "| held |" in page
    assert "- seed: 5" in page
    assert "- step_held: `python -m step_held`: seven" in page


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise SystemExit(3)", "exit code 3"),
        (TOLD.replace("found=0", "found=1", 1), "found 1"),
        (TOLD.replace("control_found=2", "control_found=0"), "its control found nothing: the test is broken"),
        ("", "not run: there is no step_failed"),
    ],
)
def test_control_a_step_that_found_something_broke_or_is_missing_fails_the_soak(
    soak: Soak, code: str, problem: str
) -> None:
    status, report, page = soak({"step_failed": code, "step_held": TOLD})
    assert (status, problems(report)) == (1, [[problem], []])
    assert f"{problem} |" in page


def test_control_a_process_that_a_step_left_is_found_and_counts_against_that_step_alone(soak: Soak) -> None:
    status, report, _ = soak({"step_leaves": LEAVES, "step_held": TOLD})
    try:
        assert (status, problems(report)) == (1, [["left 1"], []])
    finally:
        steps = report["steps"]
        assert isinstance(steps, list)
        os.kill(int(steps[0]["left"][0].removeprefix("processes: ")), signal.SIGKILL)


def test_a_step_that_hangs_is_ended_and_the_next_one_runs(soak: Soak) -> None:
    status, report, _ = soak({"step_hangs": "import signal; signal.pause()", "step_held": TOLD}, most_seconds=5)
    assert (status, problems(report)) == (1, [["ended after 5 s"], []])


def test_the_end_of_the_soak_is_the_end_of_its_step(tmp_path: Path) -> None:
    (tmp_path / "step_hangs.py").write_text("import os, signal\nprint(os.getpid(), flush=True)\nsignal.pause()")
    path = os.pathsep.join([str(tmp_path), str(ROOT), *filter(None, sys.path)])
    driver = DRIVER.replace(
        "import sys\n", "import signal, sys\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
    )
    arguments = [str(tmp_path / "out"), "60", "step_hangs"]
    soak = subprocess.Popen([sys.executable, "-c", driver, *arguments], env={**os.environ, "PYTHONPATH": path})
    log = tmp_path / "out/step_hangs.log"
    assert eventually(lambda: log.exists() and log.read_text().strip())
    soak.terminate()
    assert soak.wait(60) == 143
    assert not Path("/proc", log.read_text().split()[0]).exists()


def test_a_step_that_says_nothing_is_judged_by_its_exit_code() -> None:
    outcome = Outcome("quiet", "3", "python -m quiet", exit_code=0)
    judge(outcome)
    assert (outcome.problems, outcome.tried) == ([], None)
