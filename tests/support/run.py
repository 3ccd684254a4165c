"""This run of the tests, and names that are its own."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
IN_RUNNER = bool(os.environ.get("PODKIT_TEST_IN_RUNNER"))
"""Whether the tests run in a container beside those that they make."""

_numbers = itertools.count()


def run_id() -> str:
    """The id of this run: scripts/test.sh knows it as well, and cleans up after a run that was killed."""
    return os.environ["PODKIT_TEST_RUN_ID"]


def new_prefix() -> str:
    """A container prefix that nothing else has, and that is the beginning of no other."""
    return f"pt-{run_id()}-{WORKER}-{next(_numbers):04d}"


def workspaces() -> Path:
    """Where all workspaces of this run lie, as this process sees it."""
    return Path(os.environ["PODKIT_TEST_WORKSPACE"])


def workspaces_host() -> Path:
    """The same directory as the engine sees it."""
    return Path(os.environ["PODKIT_TEST_WORKSPACE_HOST"])
