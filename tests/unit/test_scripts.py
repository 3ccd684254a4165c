"""What the scripts print and decide, as far as that needs no engine."""

from __future__ import annotations

import os
import pty
import runpy
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SAY = ["bash", "-c", f"source {ROOT}/scripts/_lib.sh; say hello"]


def test_a_script_prints_plain_text_into_a_pipe() -> None:
    assert subprocess.run(SAY, check=True, stdout=subprocess.PIPE).stdout == b"==> hello\n"


def test_control_a_script_prints_bold_at_a_terminal() -> None:
    ours, theirs = pty.openpty()
    subprocess.run(SAY, check=True, stdout=theirs)
    os.close(theirs)
    assert os.read(ours, 100) == b"\x1b[1m==>\x1b[0m hello\r\n"
    os.close(ours)


# --- the audit ---------------------------------------------------------------------------------------

AUDIT = runpy.run_path(str(ROOT / "scripts/_audit.py"))
SAFE = {"name": "idna", "version": "3.20", "vulns": []}
VULNERABLE = {"name": "requests", "version": "2.19.0", "vulns": [{"id": "PYSEC-2018-28"}]}
UNKNOWN = {"name": "click", "skip_reason": "Dependency not found on PyPI and could not be audited: click (8.5.1)"}


@pytest.mark.parametrize(
    ("rows", "code"),
    [([SAFE], 0), ([SAFE, VULNERABLE], 1), ([VULNERABLE, UNKNOWN], 1), ([SAFE, UNKNOWN], 3), ("ConnectionError", 3)],
)
def test_an_audit_is_clean_only_where_each_package_was_looked_at(rows: list[object] | str, code: int) -> None:
    assert AUDIT["judge"](rows if isinstance(rows, str) else {"dependencies": rows}).code == code


@pytest.mark.parametrize(
    "answer", [{"dependencies": [UNKNOWN]}, {"dependencies": [{**VULNERABLE, "vulns": []}]}, "ConnectionError"]
)
def test_an_audit_that_misses_what_everybody_knows_has_audited_nothing(answer: object) -> None:
    verdict = AUDIT["judge_canary"](answer)
    assert verdict.code == 3
    assert "nothing was audited" in verdict.text
    assert AUDIT["judge_canary"]({"dependencies": [VULNERABLE]}) is None
