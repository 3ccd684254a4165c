"""Asks pip-audit about what is locked, and says no more than its answer is worth.

pip-audit takes a package that its service does not know for one without a vulnerability, and a mirror of the registry
may know none. So a version that has some is asked for first: where nothing is found in that, nothing was audited.
"""

import json
import subprocess
import sys
import tempfile
from typing import Any, NamedTuple

LOCK = "requirements-dev.lock"  # the runner's is a part of it
CANARY = "requests==2.19.0"  # sent passwords over plain HTTP after a redirect: CVE-2018-18074
VULNERABLE, UNKNOWN = 1, 3


class Verdict(NamedTuple):
    code: int
    text: str


def main() -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(CANARY + "\n")
        file.flush()
        canary = ask("--no-deps", "-r", file.name)
    verdict = judge_canary(canary)
    if verdict is None:
        verdict = judge(ask("--require-hashes", "-r", LOCK))
    print(verdict.text, file=sys.stderr if verdict.code else sys.stdout)
    sys.exit(verdict.code)


def ask(*arguments: str) -> Any:
    """pip-audit's answer; its last line of complaint, as text, where there is none."""
    command = [sys.executable, "-m", "pip_audit", "--disable-pip", "--progress-spinner=off", "--format=json"]
    with tempfile.TemporaryDirectory() as cache:  # what was known yesterday is no answer
        done = subprocess.run([*command, f"--cache-dir={cache}", *arguments], capture_output=True, text=True)
    try:
        return json.loads(done.stdout)
    except ValueError:
        return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]


def judge_canary(answer: Any) -> Verdict | None:
    """`None` where the answer shows that the data can be reached."""
    if isinstance(answer, str):
        why = answer
    elif found(answer):
        return None
    else:
        why = f"what answers knows no vulnerability of {CANARY}, which has some"
    return Verdict(UNKNOWN, f"The data on vulnerabilities cannot be reached, nothing was audited: {why}")


def judge(answer: Any) -> Verdict:
    if isinstance(answer, str):
        return Verdict(UNKNOWN, f"The audit broke off: {answer}")
    if vulnerable := found(answer):
        return Verdict(VULNERABLE, "\n".join(vulnerable))
    rows = answer["dependencies"]
    if skipped := [row["name"] for row in rows if "skip_reason" in row]:
        return Verdict(UNKNOWN, f"{len(skipped)} of {len(rows)} packages were not audited: {', '.join(skipped)}")
    return Verdict(0, f"{len(rows)} locked packages have no known vulnerability")


def found(answer: Any) -> list[str]:
    return [
        f"{row['name']} {row['version']}: {', '.join(vulnerability['id'] for vulnerability in row['vulns'])}"
        for row in answer["dependencies"]
        if row.get("vulns")
    ]


if __name__ == "__main__":
    main()
