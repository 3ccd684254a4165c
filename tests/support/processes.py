"""Other processes that use podkit: what one of them makes, another one must find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]


def start_python(
    code: str,
    *arguments: str,
    environment: Mapping[str, str | None] | None = None,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[str]:
    """Start a Python that runs `code`; a variable that is `None` is taken out of its environment."""
    inherited = os.environ | dict(environment or {})
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *arguments],
        cwd=PROJECT,
        env={name: value for name, value in inherited.items() if value is not None},
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], seconds: float = 90) -> str:
    """Give what a Python printed, once it has ended well."""
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, f"exit code {process.returncode}\n{stdout}\n{stderr}"
    return stdout


def run_python(code: str, *arguments: str, environment: Mapping[str, str | None] | None = None) -> str:
    """Run `code` in a Python of its own and give what it printed."""
    return finish(start_python(code, *arguments, environment=environment))


def ask_python(code: str, *arguments: str, environment: Mapping[str, str | None] | None = None) -> Any:
    """Run `code` in a Python of its own and give the JSON that it printed."""
    return json.loads(run_python(code, *arguments, environment=environment))
