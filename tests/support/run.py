"""This run of the tests, and names that are its own."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

WORKER = os.environ.get("PYTEST_XDIST_WORKER", "main")
IN_RUNNER = bool(os.environ.get("PODKIT_TEST_IN_RUNNER"))
"""Whether the tests run in a container beside those that they make."""

LENGTH = int(os.environ.get("PODKIT_TEST_LENGTH", 1))
"""How many times as often as in CI the cases that race or repeat do so."""

SEED = int(os.environ.get("PODKIT_TEST_SEED") or 0)
"""Chooses what is tried by tests that cannot try everything."""

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


def rounds(few: int) -> int:
    """How often a test is repeated that finds more the longer it runs: `few` times, unless a soak asks for more."""
    return int(os.environ.get("PODKIT_TEST_ROUNDS") or few)


def shares(count: int, of: int, which: int) -> list[int]:
    """Which of the numbers 1 to `count` a test takes: every one in a soak, else its share of those that share them."""
    return [n for n in range(1, count + 1) if "PODKIT_TEST_ROUNDS" in os.environ or (n + SEED) % of == which]
