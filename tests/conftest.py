"""The run, its engine, and its end: nothing that it made may be left.

All that a run makes carries the run's id in its prefix, so that neither the run nor its check touches what is not its
own. Everything here works the same in the runner's container, where the host is another machine for the tests.
"""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.failures import Failures
from tests.support.run import IN_RUNNER, WORKER, new_prefix, run_id, workspaces, workspaces_host

if TYPE_CHECKING:  # the unit tests load no engine's SDK
    from podkit.backends.docker import DockerBackend
    from podkit.core.manager import SimpleContainerManager
    from podkit.core.session import BaseSessionManager
    from tests.support.engine import Engine

DEFAULT_IMAGE = "podkit-sandbox:bookworm"
BUSYBOX_IMAGE = "podkit-test-busybox:bookworm"
NGINX_IMAGE = "podkit-test-nginx:bookworm"

_engine_pids = pytest.StashKey[set[int]]()
_leftovers = pytest.StashKey[list[str]]()
_failures = pytest.StashKey[Failures]()

# --- the run -----------------------------------------------------------------------------------------


def pytest_configure(config: pytest.Config) -> None:
    """Give the run an id, images and places, which its workers and other processes inherit."""
    os.environ.setdefault("PODKIT_TEST_RUN_ID", secrets.token_hex(4))
    os.environ.setdefault("PODKIT_DEFAULT_IMAGE", DEFAULT_IMAGE)
    os.environ.setdefault("PODKIT_TEST_BUSYBOX_IMAGE", BUSYBOX_IMAGE)
    os.environ.setdefault("PODKIT_TEST_NGINX_IMAGE", NGINX_IMAGE)
    # the facade's prefix: a user's own sessions are never touched, and neither are another worker's
    os.environ["PODKIT_CONTAINER_PREFIX"] = f"pt-{run_id()}-{WORKER}-facade"
    if not os.environ.get("PODKIT_TEST_WORKSPACE"):
        made = os.environ["PODKIT_TEST_WORKSPACE"] = tempfile.mkdtemp(prefix=f"podkit-tests-{run_id()}-")
        config.add_cleanup(lambda: shutil.rmtree(made, ignore_errors=True))
    os.environ.setdefault("PODKIT_TEST_WORKSPACE_HOST", os.environ["PODKIT_TEST_WORKSPACE"])
    config.stash[_engine_pids] = set()
    config.stash[_leftovers] = []
    if not hasattr(config, "workerinput"):
        config.stash[_failures] = Failures(config)
        config.pluginmanager.register(config.stash[_failures])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Note whether tests of this process use an engine."""
    if any(item.get_closest_marker("integration") for item in session.items):
        session.config.stash[_engine_pids].add(os.getpid())


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Hear from a worker of pytest-xdist whether it used an engine."""
    if pid := getattr(node, "workeroutput", {}).get("engine_pid"):
        node.config.stash[_engine_pids].add(pid)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run if a container, network or volume of it is left."""
    pids = session.config.stash[_engine_pids]
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["engine_pid"] = os.getpid() if pids else 0
        return
    if pids:
        _look_for_leftovers(session, pids)
    if path := os.environ.get("PODKIT_TEST_FAILED"):
        only_tests = session.exitstatus == pytest.ExitCode.TESTS_FAILED and not session.config.stash[_leftovers]
        session.config.stash[_failures].write(path, all_else_is_well=only_tests)


def _look_for_leftovers(session: pytest.Session, pids: set[int]) -> None:
    from podkit.backends.docker import DockerBackend
    from tests.support.leftovers import Run, find_leftovers, remove

    run = Run(run_id(), frozenset({*pids, os.getpid()}), has_host=IN_RUNNER)
    try:
        backend = DockerBackend()
        backend.connect()
    except ConnectionError as exc:
        session.config.stash[_leftovers].append(f"nobody knows what: {exc}")
    else:
        found = find_leftovers(backend.client, run)
        session.config.stash[_leftovers].extend(found)
        remove(found)
        backend.client.close()
    if session.config.stash[_leftovers] and session.exitstatus == pytest.ExitCode.OK:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Name what was left."""
    if left := config.stash[_leftovers]:
        terminalreporter.section("left on the engine", red=True)
        for name in left:
            terminalreporter.line(name, red=True)


# --- the engine --------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def default_image() -> str:
    """An image with sh, Python and root."""
    return os.environ["PODKIT_DEFAULT_IMAGE"]


@pytest.fixture(scope="session")
def busybox_image() -> str:
    """An image with nothing but busybox."""
    return os.environ["PODKIT_TEST_BUSYBOX_IMAGE"]


@pytest.fixture(scope="session")
def nginx_image() -> str:
    """An image with nginx."""
    return os.environ["PODKIT_TEST_NGINX_IMAGE"]


@pytest.fixture(scope="session")
def backend() -> Iterator[DockerBackend]:
    """podkit's backend for the engine of this machine; without one this fails, and nothing is skipped."""
    from podkit.backends.docker import DockerBackend

    backend = DockerBackend()
    backend.connect()
    yield backend
    backend.client.close()


@pytest.fixture
def prefix(engine: Engine) -> str:
    """The test's own container prefix; whatever carries it is removed after the test."""
    return engine.prefix


@pytest.fixture
def engine(backend: DockerBackend, default_image: str) -> Iterator[Engine]:
    """The engine as seen from outside, and what is not podkit's on it; cleans up after the test."""
    from tests.support.engine import Engine

    engine = Engine(backend.client, new_prefix(), default_image)
    yield engine
    engine.clean_up()


# --- workspaces --------------------------------------------------------------------------------------


@pytest.fixture
def workspace(engine: Engine) -> Iterator[Path]:
    """A directory for workspaces as this process sees it; removed after the test, with what containers put there."""
    from tests.support.engine import remove_directory

    directory = workspaces() / engine.prefix
    directory.mkdir()
    yield directory
    remove_directory(engine, directory)


@pytest.fixture
def workspace_host(workspace: Path) -> Path:
    """The same directory as the engine sees it."""
    return workspaces_host() / workspace.name


# --- podkit's layers ---------------------------------------------------------------------------------


@pytest.fixture
def manager(backend: DockerBackend, prefix: str, workspace: Path, workspace_host: Path) -> SimpleContainerManager:
    """A container manager with workspaces on the host."""
    from podkit.core.manager import SimpleContainerManager

    return SimpleContainerManager(backend, prefix, workspace, workspace_host)


@pytest.fixture
def sessions(manager: SimpleContainerManager) -> BaseSessionManager:
    """A session manager over `manager`."""
    from podkit.core.session import BaseSessionManager

    return BaseSessionManager(manager)
