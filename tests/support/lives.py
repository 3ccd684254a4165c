"""Whole lives of sessions, for tests that let them end in the middle; also run by processes that are killed."""

from __future__ import annotations

from pathlib import Path

from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager

LIFETIME_SECONDS = 2
"""Of containers that nobody comes back for."""

IDS = ("a", "b", "c")
"""Of the sessions that `live_on` makes; their user is bob."""


def new_podkit(prefix: str, workspace: Path) -> BaseSessionManager:
    """A podkit that has just been started, on the engine that the environment names."""
    backend = DockerBackend()
    backend.connect()
    return BaseSessionManager(SimpleContainerManager(backend, prefix, workspace))


def be_born(podkit: BaseSessionManager, id: str = "a") -> SessionProxy:
    """Make a session, or connect to it."""
    podkit.create_session("bob", id, ContainerConfig(container_lifetime_seconds=LIFETIME_SECONDS))
    return SessionProxy(podkit, "bob", id)


def work(session: SessionProxy) -> None:
    """Use a session in each way that there is."""
    assert session.execute_command("echo alive").stdout == "alive\n"
    session.write_file("/workspace/file", "on the host")
    session.write_file("/tmp/file", "in the container")
    assert session.read_file("/tmp/file") == "in the container"
    assert session.isolation.commands == "agent"
    session.get_accessible_ports()
    with session.popen("cat") as command:
        command.stdin.write("said\n")
        assert next(iter(command)) == "said\n"


def die_and_rise(session: SessionProxy, podkit: BaseSessionManager) -> None:
    """Lose the container to a SIGKILL, and get another one by the next command; then have it stopped and started."""
    for seconds in (0, 1):
        id = session.get_info().container_id
        assert id is not None
        podkit.container_manager.backend.stop_workload(id, seconds)
        assert session.execute_command("echo risen").stdout == "risen\n"


def end(session: SessionProxy) -> None:
    """Close it, and leave no workspace."""
    session.close(remove_workspace=True)


def live(podkit: BaseSessionManager) -> None:
    """The whole life of a session."""
    session = be_born(podkit)
    work(session)
    die_and_rise(session, podkit)
    end(session)


def live_on(prefix: str, workspace: str) -> None:
    """Live one life after the other, until somebody ends this process."""
    print("ready", flush=True)
    podkit = new_podkit(prefix, Path(workspace))
    while True:
        for first, second in zip(IDS, IDS[1:] + IDS[:1], strict=True):
            be_born(podkit, second)
            session = be_born(podkit, first)
            work(session)
            die_and_rise(session, podkit)
            end(session)
