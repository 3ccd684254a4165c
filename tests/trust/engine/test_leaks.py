"""B9: nothing leaks: after a fault in any call, or the caller's end at any moment, the audit of the engine is empty.

`PODKIT_TEST_ROUNDS=200` kills so many callers at random moments, and gives each call every fault, where else it gets
one of them; `PODKIT_TEST_SEED` chooses other moments and faults.
"""

from __future__ import annotations

import queue
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest

from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted, PodkitError
from podkit.monitors.orphans import OrphanContainerCleaner
from tests.support import lives
from tests.support.engine import Engine
from tests.support.private_engine import PrivateEngine
from tests.support.processes import start_python
from tests.support.proxy import Fault, FaultyProxy
from tests.support.run import SEED, rounds, shares
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration


@pytest.fixture(autouse=True)
def unused(private: PrivateEngine) -> None:
    """An engine that podkit has never used, so that its agent has to be placed, too."""
    private.forget_agent()


def podkit_at(url: str, prefix: str, workspace: Path) -> BaseSessionManager:
    """A podkit that has just been started, on the engine at an address."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DOCKER_HOST", url)
        return lives.new_podkit(prefix, workspace)


def audit(private: PrivateEngine, workspace: Path) -> list[str]:
    """What is left on the engine and of the workspaces: containers, networks, volumes, directories, lock files."""
    return private.audit() + sorted(f"file {found.relative_to(workspace)}" for found in workspace.rglob("*"))


@contextmanager
def passing(proxy: FaultyProxy) -> Iterator[FaultyProxy]:
    try:
        yield proxy
    finally:
        proxy.go_away()


def count_calls(private: PrivateEngine, prefix: str, workspace: Path) -> list[str]:
    """Live a life without faults; the calls that podkit has made."""
    with passing(FaultyProxy(private.url)) as proxy:
        lives.live(podkit_at(proxy.url, prefix, workspace))
    assert audit(private, workspace) == []
    private.forget_agent()
    return proxy.calls


# --- a fault in one call ----------------------------------------------------------------------------


def live_with(proxy: FaultyProxy, prefix: str, workspace: Path, look: Callable[[], list[str]]) -> list[str]:
    """Live a life with a fault in it, which may raise an error of podkit's; what is left of it."""
    try:
        podkit = podkit_at(proxy.url, prefix, workspace)
        session = lives.be_born(podkit)
    except PodkitError:
        return look()  # a creation that failed leaves nothing, and nobody has to close it
    try:
        lives.work(session)
        lives.die_and_rise(session, podkit)
        lives.end(session)
    except PodkitError:
        lives.end(session)
    return look()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("fault", Fault, ids=lambda fault: fault.name.lower())
def test_a_fault_in_any_call_is_a_typed_error_and_leaves_nothing(
    private: PrivateEngine, engine: Engine, workspace: Path, fault: Fault
) -> None:
    """LC-02: for every call that podkit makes in the life of a session, from connecting to closing."""
    calls = count_calls(private, engine.prefix, workspace)
    left: dict[str, list[str]] = {}
    for number in shares(len(calls), len(Fault), list(Fault).index(fault)):
        call = f"{number} {calls[number - 1]}"
        with passing(FaultyProxy(private.url, number, fault)) as proxy:
            left[call] = live_with(proxy, engine.prefix, workspace, lambda: audit(private, workspace))
        with within(10):  # and nobody is held up by what was left half done
            session = lives.be_born(podkit_at(private.url, engine.prefix, workspace))
            assert session.isolation.commands == "agent"
            lives.end(session)
        left[call] += audit(private, workspace)
        private.forget_agent()

    assert len(calls) > 20
    assert not {call: found for call, found in left.items() if found}


# --- the caller's end -------------------------------------------------------------------------------

CALLER = """
import sys
from tests.support.lives import live_on

live_on(*sys.argv[1:])
"""


@contextmanager
def caller(url: str, prefix: str, workspace: Path, code: str = CALLER) -> Iterator[subprocess.Popen[str]]:
    """A process that lives sessions; it is dead at the end of the block, by SIGKILL."""
    with start_python(code, prefix, str(workspace), environment={"DOCKER_HOST": url}) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield process
            assert process.poll() in (None, -signal.SIGKILL), process.communicate()
        finally:
            process.kill()
            process.communicate()


def recover(private: PrivateEngine, prefix: str, workspace: Path) -> None:
    """What the next podkit does that knows which sessions there were: it goes on with them, and closes them."""
    podkit = podkit_at(private.url, prefix, workspace)
    for id in lives.IDS:
        session = lives.be_born(podkit, id)
        with suppress(CommandInterrupted):  # the caller's last word to the engine may have been to kill the container
            session.execute_command("true")
        assert session.execute_command("echo recovered").stdout == "recovered\n"
        assert session.isolation.commands == "agent"
        lives.end(session)


def reap(private: PrivateEngine, prefix: str, workspace: Path) -> None:
    """What the next podkit does that knows nothing: its cleaner takes what has ended by itself."""
    cleaner = OrphanContainerCleaner(private.backend(), prefix, check_interval=60, max_age_seconds=0)

    def done() -> bool:
        cleaner.tick()
        return not [line for line in private.audit() if prefix in line]

    assert eventually(done, seconds=lives.LIFETIME_SECONDS + 20, interval=0.2), private.audit()


@pytest.mark.parametrize("number", range(rounds(20)))
def test_a_caller_that_is_killed_at_a_random_moment_leaves_nothing_that_the_next_one_does_not_take(
    private: PrivateEngine, engine: Engine, workspace: Path, number: int
) -> None:
    """LC-01."""
    moment = random.Random(f"{SEED} {number}").uniform(0, 4)
    with caller(private.url, engine.prefix, workspace) as process:
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(moment)
        process.kill()

    if number % 2:
        reap(private, engine.prefix, workspace)
    with within(30):
        recover(private, engine.prefix, workspace)
    assert audit(private, workspace) == []


def kill_one(callers: queue.Queue[subprocess.Popen[str]]) -> None:
    callers.get(timeout=20).kill()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
def test_a_caller_that_is_killed_in_any_call_leaves_nothing_that_the_next_one_does_not_take(
    private: PrivateEngine, engine: Engine, workspace: Path, before: bool
) -> None:
    """LC-01: before the engine hears of a call, and after it has done what it was asked for."""
    calls = count_calls(private, engine.prefix, workspace)
    left: dict[str, list[str]] = {}
    for number in shares(len(calls), 4, 2 * before):
        callers: queue.Queue[subprocess.Popen[str]] = queue.Queue(1)
        kill = partial(kill_one, callers)
        proxy = (
            FaultyProxy(private.url, number, before=kill) if before else FaultyProxy(private.url, number, after=kill)
        )
        with passing(proxy), caller(proxy.url, engine.prefix, workspace) as process:
            callers.put(process)
            assert process.wait(60) == -signal.SIGKILL
        with within(20):
            recover(private, engine.prefix, workspace)
        left[f"{number} {calls[number - 1]}"] = audit(private, workspace)
        private.forget_agent()

    assert not {call: found for call, found in left.items() if found}


SDK = """
import os, sys
import docker

client = docker.DockerClient(base_url=os.environ["DOCKER_HOST"], version="1.41")
print("ready", flush=True)
while True:
    container = client.containers.run(os.environ["PODKIT_DEFAULT_IMAGE"], "sleep 600", detach=True)
    try:
        container.exec_run("true")
    finally:
        container.remove(force=True)
"""


def test_control_of_the_sdks_containers_some_stay(private: PrivateEngine, engine: Engine, workspace: Path) -> None:
    """LC-01: the plain way, with a `finally`."""
    for number in range(10):
        moment = random.Random(f"{SEED} {number}").uniform(0, 1)
        with caller(private.url, engine.prefix, workspace, SDK) as process:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(moment)
            process.kill()

    assert [line for line in private.audit() if line.startswith("container ")]
