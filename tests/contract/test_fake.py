"""The contract suite over the fake: nothing above the seam knows Docker."""

from __future__ import annotations

import shlex

import pytest

from podkit._models.config import default_image
from podkit.backends.base import Chunk, Stream
from podkit.testing import Background, FakeBackend, IgnoreSigterm, Invocation, Pause, Program, Reply, Steps, suite


def in_turn(*commands: str, code: int = 0) -> Program:
    """A program that runs others, one after another."""

    def program(run: Invocation) -> Steps:
        for command in commands:
            yield from run.call(shlex.split(command))
        return code

    return program


def file_of(path: str, text: str, *, shows: bool = False) -> Program:
    """A program that writes a file, and may show it."""

    def program(run: Invocation) -> Reply:
        run.files[path] = text.encode()
        return Reply(text if shows else "")

    return program


def greet_and_echo(run: Invocation) -> Steps:
    yield "begun\n"
    yield Chunk(Stream.STDERR, b"err\n")
    return (yield from run.call(["cat"]))


def leave_a_child(run: Invocation) -> Steps:
    yield Background(run.call(["sleep", "60"]))
    yield "done\n"
    return 0


def ignore_sigterm(run: Invocation) -> Steps:
    yield IgnoreSigterm()
    yield "ready\n"
    yield Pause(120)
    return 0


def speak_in_turn(run: Invocation) -> Steps:
    yield "first\n"
    yield Chunk(Stream.STDERR, b"second\n")
    yield "thîrd\n"
    return 0


SCRIPTS: dict[str, Program] = {
    "pwd; echo err >&2; exit 3": lambda run: Reply(run.working_dir + "\n", "err\n", exit_code=3),
    "cat; printenv A; pwd; whoami": in_turn("cat", "printenv A", "pwd", "whoami"),
    "echo early; sleep 60": in_turn("echo early", "sleep 60"),
    "echo early; sleep 20": in_turn("echo early", "sleep 20"),
    "echo begun; sleep 60": in_turn("echo begun", "sleep 60"),
    "sleep 1; echo late": in_turn("sleep 1", "echo late"),
    "sleep 60 & echo done": leave_a_child,
    "sleep 20 & echo done": leave_a_child,
    "echo begun; echo err >&2; cat": greet_and_echo,
    "cat; echo the rest; exit 5": in_turn("cat", "echo the rest", code=5),
    "cat; exit 6": in_turn("cat", code=6),
    "echo out; echo err >&2": Reply("out\n", "err\n"),
    "echo out; echo err >&2; exit 3": Reply("out\n", "err\n", exit_code=3),
    "trap '' TERM; echo ready; sleep 60; sleep 60": ignore_sigterm,
    "echo first; echo second >&2; echo thîrd": speak_in_turn,
    "echo kept > /scratch/f; cat /scratch/f": file_of("/scratch/f", "kept\n", shows=True),
    "echo kept > /workspace/f": file_of("/workspace/f", "kept\n"),
    "echo kept > /tmp/file": file_of("/tmp/file", "kept\n"),
    "echo made inside > /workspace/f": file_of("/workspace/f", "made inside\n"),
}
"""What the suite has a shell do."""


@pytest.fixture(scope="module")
def image() -> str:
    return default_image()


@pytest.fixture(scope="module")
def backend(image: str) -> FakeBackend:
    fake = FakeBackend(SCRIPTS, images={image})
    fake.missing_sources.add(suite.Contract.missing_source)
    fake.connect()
    return fake


class TestWorkloads(suite.WorkloadContract):
    kind = "fake"


class TestStreams(suite.StreamContract):
    kind = "fake"


class TestSessions(suite.SessionContract):
    kind = "fake"


class TestSessionsWithoutWorkspace(suite.SessionContract):
    kind = "fake"

    @pytest.fixture
    def workspace_base(self) -> None:
        return None
