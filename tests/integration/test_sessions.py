"""A session from its opening to its closing, and who else sees it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from podkit import SessionProxy, get_docker_session, reset_lifecycle_cache
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus, Mount
from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted, SessionConflict, SessionNotFound
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine, container_of
from tests.support.processes import run_python
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

AGENT = ("volume", False)
"""The mount of podkit's agent: a volume, read-only."""


def test_opening_a_session_makes_one_container_that_runs(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()

    info = session.get_info()
    assert engine.names() == [info.container_name]
    assert info.container_id == engine.inspect(info.container_name)["Id"]
    assert engine.state(info.container_name) == "running"
    assert info.status is ContainerStatus.RUNNING


def test_opening_a_session_twice_gives_the_same_container(open_session: OpenSession, engine: Engine) -> None:
    first = open_session().get_info()

    assert open_session().get_info() is first
    assert len(engine.names()) == 1


def test_a_session_knows_when_it_was_made_and_used(open_session: OpenSession) -> None:
    before = datetime.now(UTC)
    session = open_session()
    info = session.get_info()
    created, active = info.created_at, info.last_active_at

    session.execute_command("true")

    assert created.utcoffset() == timedelta(0)
    assert before - timedelta(seconds=1) <= created <= datetime.now(UTC)
    assert active < info.last_active_at <= datetime.now(UTC)
    assert info.created_at == created


def test_updating_a_sessions_activity_moves_its_idle_clock(
    sessions: BaseSessionManager, open_session: OpenSession
) -> None:
    info = open_session().get_info()
    info.last_active_at = datetime.now(UTC) - timedelta(days=1)
    assert info.is_expired()

    sessions.update_session_activity("bob", "123")

    assert not info.is_expired()


def test_the_data_directory_is_the_workspace_as_this_process_sees_it(
    open_session: OpenSession, workspace: Path
) -> None:
    session = open_session()

    session.execute_command("echo from inside > made-inside")

    directory = session.get_info().data_dir
    assert directory == workspace / "workspaces" / "bob" / "123"
    assert (directory / "made-inside").read_text() == "from inside\n"


def test_without_a_workspace_nothing_of_the_host_is_mounted(
    backend: DockerBackend, prefix: str, open_session: OpenSession, engine: Engine
) -> None:
    session = open_session(on=BaseSessionManager(SimpleContainerManager(backend, prefix, None)))

    info = session.get_info()
    assert info.data_dir is None
    assert [(mount["Type"], mount["RW"]) for mount in engine.inspect(info.container_name)["Mounts"]] == [AGENT]
    assert session.execute_command("pwd && touch file").ok


# --- closing -----------------------------------------------------------------------------------------


def test_closing_a_session_removes_the_container_and_keeps_the_workspace(
    open_session: OpenSession, engine: Engine
) -> None:
    session = open_session()
    session.write_file("kept.txt", "kept")
    info = session.get_info()

    session.close()

    assert engine.names() == []
    assert info.data_dir is not None
    assert (info.data_dir / "kept.txt").read_text() == "kept"
    assert (info.status, info.container_id) == (ContainerStatus.STOPPED, None)


def test_a_reopened_session_finds_its_workspace(open_session: OpenSession) -> None:
    first = open_session()
    first.write_file("kept.txt", "kept")
    first.close()

    assert open_session().read_file("kept.txt") == "kept"


def test_closing_may_remove_the_workspace_with_whatever_the_container_left_there(open_session: OpenSession) -> None:
    session = open_session()
    directory = session.get_info().data_dir
    assert directory is not None
    session.execute_command(
        "mkdir -p a/b/c && touch a/b/file .hidden ..odd -rf && chmod 0 a/b && ln -s /etc link && mkfifo fifo",
        user="nobody",
    )

    session.close(remove_workspace=True)

    assert not directory.exists()
    assert Path("/etc/passwd").exists()


def test_closing_a_session_leaves_the_workspaces_of_others_alone(open_session: OpenSession) -> None:
    other = open_session(session_id="other")
    other.write_file("file", "theirs")

    open_session().close(remove_workspace=True)

    assert other.read_file("file") == "theirs"


def test_closing_twice_is_harmless(open_session: OpenSession) -> None:
    session = open_session()

    session.close()
    session.close()
    session.close(remove_workspace=True)


def test_closing_a_session_whose_container_is_gone_is_harmless(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()
    engine.remove(session.get_info().container_name)

    session.close()

    assert engine.names() == []


def test_after_closing_nothing_of_a_session_works(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()
    session.close()

    for use in (
        lambda: session.execute_command("true"),
        lambda: session.write_file("file", "text"),
        lambda: session.read_file("file"),
        lambda: session.get_info(),
        lambda: session.get_accessible_ports(),
    ):
        with pytest.raises(SessionNotFound, match="123"):
            use()
    assert engine.names() == []


def test_a_session_as_a_context_manager_is_closed_at_the_end(open_session: OpenSession, engine: Engine) -> None:
    with open_session() as session:
        assert session.execute_command("echo inside").stdout == "inside\n"

    assert engine.names() == []


def test_a_session_as_a_context_manager_is_closed_after_an_error(open_session: OpenSession, engine: Engine) -> None:
    with pytest.raises(ZeroDivisionError), open_session():
        raise ZeroDivisionError

    assert engine.names() == []


def test_closing_a_session_interrupts_its_commands(open_session: OpenSession) -> None:
    session, begun = open_session(), threading.Event()

    with ThreadPoolExecutor() as threads:
        running = threads.submit(session.execute_command, "echo begun; sleep 60", on_stdout=lambda _: begun.set())
        assert begun.wait(20)
        session.close()
        error = running.exception(timeout=10)

    assert isinstance(error, CommandInterrupted)


def test_cleaning_up_removes_every_session_and_keeps_the_workspaces(
    sessions: BaseSessionManager, open_session: OpenSession, engine: Engine
) -> None:
    for name in ("one", "two", "three"):
        open_session(session_id=name).write_file("file", name)
    engine.remove(open_session(session_id="two").get_info().container_name)

    sessions.cleanup_all()
    sessions.cleanup_all()

    assert engine.names() == []
    assert open_session(session_id="three").read_file("file") == "three"


def test_cleaning_up_a_container_manager_removes_what_it_used(
    manager: SimpleContainerManager, open_session: OpenSession, engine: Engine
) -> None:
    open_session(session_id="one")
    engine.remove(open_session(session_id="two").get_info().container_name)
    assert len(manager.containers) == 2

    manager.cleanup_all()
    manager.cleanup_all()

    assert (engine.names(), manager.containers) == ([], {})


def test_idle_sessions_are_closed_and_others_are_not(
    sessions: BaseSessionManager, open_session: OpenSession, engine: Engine
) -> None:
    idle, busy = open_session(session_id="idle"), open_session(session_id="busy")
    idle.get_info().session_inactivity_timeout_seconds = 1
    idle.get_info().last_active_at = datetime.now(UTC) - timedelta(seconds=5)

    closed = sessions.cleanup_expired_sessions()

    assert [session.session_id for session in closed] == ["idle"]
    assert engine.names() == [busy.get_info().container_name]


def test_a_session_with_a_running_command_does_not_expire(
    sessions: BaseSessionManager, open_session: OpenSession
) -> None:
    session, begun = open_session(long_config(session_inactivity_timeout_seconds=1)), threading.Event()

    with ThreadPoolExecutor() as threads:
        running = threads.submit(session.execute_command, "echo begun; sleep 3", on_stdout=lambda _: begun.set())
        assert begun.wait(20)
        session.get_info().last_active_at = datetime.now(UTC) - timedelta(hours=1)
        closed = sessions.cleanup_expired_sessions()

    assert closed == []
    assert running.result().ok


def make_idle(session: SessionProxy) -> None:
    session.get_info().last_active_at = datetime.now(UTC) - timedelta(hours=1)


def test_a_health_check_of_the_image_does_not_keep_a_session(
    sessions: BaseSessionManager, open_session: OpenSession, engine: Engine
) -> None:
    image = engine.changed_image(['HEALTHCHECK --interval=1s --timeout=60s CMD ["sleep", "50"]'])
    session = open_session(long_config(image=image, session_inactivity_timeout_seconds=1))
    id = session.get_info().container_id or ""
    assert eventually(lambda: "sleep 50" in engine.processes(id), seconds=20)
    make_idle(session)

    assert [closed.session_id for closed in sessions.cleanup_expired_sessions()] == ["123"]
    assert engine.names() == []


def test_an_exec_that_was_never_started_does_not_keep_a_session(
    sessions: BaseSessionManager, open_session: OpenSession, engine: Engine
) -> None:
    session = open_session(long_config(session_inactivity_timeout_seconds=1))
    engine.client.api.exec_create(session.get_info().container_id, ["true"])
    make_idle(session)

    assert [closed.session_id for closed in sessions.cleanup_expired_sessions()] == ["123"]


# --- another configuration ---------------------------------------------------------------------------


def test_another_configuration_is_a_conflict_that_names_the_fields(
    open_session: OpenSession, manager: SimpleContainerManager
) -> None:
    open_session()

    with pytest.raises(SessionConflict, match=r"cpu_limit.*memory_limit") as caught:
        open_session(long_config(cpu_limit=0.5, memory_limit="256m"), on=BaseSessionManager(manager))
    assert "pids_limit" not in str(caught.value)


def test_the_manager_that_made_a_session_names_the_fields_of_a_conflict_too(open_session: OpenSession) -> None:
    open_session()

    with pytest.raises(SessionConflict, match=r"cpu_limit.*memory_limit"):
        open_session(long_config(cpu_limit=0.5, memory_limit="256m"))


def test_another_way_to_say_the_same_is_no_conflict(open_session: OpenSession, manager: SimpleContainerManager) -> None:
    id = container_of(open_session(long_config(memory_limit="256m", networks=[], environment={"A": "1", "B": "2"})))

    for same in ({"memory_limit": "256MiB"}, {"memory_limit": 256 << 20}, {"environment": {"B": "2", "A": "1"}}, {}):
        for on in (None, BaseSessionManager(manager)):
            assert container_of(open_session(ContainerConfig(**same), on=on)) == id


def test_a_conflict_never_shows_values_of_the_environment(
    open_session: OpenSession, manager: SimpleContainerManager
) -> None:
    open_session(long_config(environment={"TOKEN": "canary-old"}))

    with pytest.raises(SessionConflict, match="environment") as caught:
        open_session(long_config(environment={"TOKEN": "canary-new"}), on=BaseSessionManager(manager))
    assert "canary" not in str(caught.value)


def test_another_mount_is_a_conflict(open_session: OpenSession, manager: SimpleContainerManager) -> None:
    open_session()

    with pytest.raises(SessionConflict, match="volumes"):
        open_session(long_config(volumes=[Mount(type="tmpfs", target="/ram")]), on=BaseSessionManager(manager))


def test_another_workspace_is_a_conflict(
    open_session: OpenSession, backend: DockerBackend, prefix: str, workspace: Path, workspace_host: Path
) -> None:
    open_session()
    (workspace / "other").mkdir()
    other = SimpleContainerManager(backend, prefix, workspace / "other", workspace_host / "other")

    with pytest.raises(SessionConflict, match="workspace"):
        open_session(on=BaseSessionManager(other))


def test_a_conflict_leaves_the_session_as_it_was(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()
    before = engine.inspect(session.get_info().container_name)

    with pytest.raises(SessionConflict):
        open_session(long_config(cpu_limit=2.0))

    after = engine.inspect(before["Id"])
    assert (after["State"], after["HostConfig"]) == (before["State"], before["HostConfig"])
    assert session.execute_command("true").ok


def test_no_configuration_takes_what_there_is(open_session: OpenSession, manager: SimpleContainerManager) -> None:
    made = open_session(long_config(cpu_limit=0.5)).get_info()

    found = BaseSessionManager(manager).create_session("bob", "123")

    assert (found.container_id, found.config) == (made.container_id, made.config)


def test_a_configuration_that_is_changed_later_changes_no_session(open_session: OpenSession) -> None:
    config = long_config()
    session = open_session(config)

    config.environment["LATER"] = "1"
    config.cpu_limit = 2.0

    assert session.get_info().config == long_config()


# --- the facade --------------------------------------------------------------------------------------


def test_forgetting_the_managers_removes_no_container(facade: Engine) -> None:
    with get_docker_session("bob", "forgotten") as session:
        id = session.get_info().container_id

        reset_lifecycle_cache()

        assert get_docker_session("bob", "forgotten").get_info().container_id == id


def test_at_the_end_of_a_program_nothing_is_open_and_the_container_lives(facade: Engine) -> None:
    printed = run_python("""
        import atexit, os, stat

        def count_sockets():  # registered first, so called last
            print(sum(stat.S_ISSOCK(os.fstat(fd).st_mode) for fd in range(3, 20) if is_open(fd)))

        def is_open(fd):
            return os.path.exists(f"/proc/self/fd/{fd}")

        atexit.register(count_sockets)
        from podkit import get_docker_session

        print(get_docker_session("bob", "end").execute_command("echo ran").stdout, end="")
    """)

    assert printed == "ran\n0\n"
    [name] = facade.names()
    assert facade.state(name) == "running"


def test_the_facade_takes_the_default_image_from_the_environment(facade: Engine, busybox_image: str) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PODKIT_DEFAULT_IMAGE", busybox_image)
        with get_docker_session("bob", "image") as session:
            assert facade.inspect(session.get_info().container_name)["Config"]["Image"] == busybox_image


def test_a_session_may_be_used_through_several_proxies(facade: Engine) -> None:
    config = ContainerConfig(container_lifetime_seconds=600)
    proxies = [get_docker_session("bob", "proxies", config) for _ in range(3)]

    assert len({proxy.get_info().container_id for proxy in proxies}) == 1
    proxies[0].close()
    assert isinstance(proxies[1], SessionProxy)
    with pytest.raises(SessionNotFound):
        proxies[1].execute_command("true")


def test_forgetting_the_managers_leaves_running_commands_alone(facade: Engine) -> None:
    session = get_docker_session("bob", "123")
    with session.popen("sleep 1; echo done") as running:
        reset_lifecycle_cache()
        assert running.wait(20).stdout == "done\n"
    assert session.execute_command("echo on").stdout == "on\n"
    session.close()
