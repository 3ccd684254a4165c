"""One session and several processes: who reconnects, who waits, and who must not see it."""

from __future__ import annotations

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from podkit import get_docker_session
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted, ContainerNotFound, ContainerNotRunning, SessionNotFound
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine
from tests.support.processes import ask_python, finish, run_python, start_python
from tests.support.run import LENGTH

pytestmark = pytest.mark.integration

USE = """
import json, sys
from podkit import get_docker_session

session = get_docker_session("bob", sys.argv[1])
result = session.execute_command(sys.argv[2])
print(json.dumps([session.get_info().container_id, result.exit_code, result.stdout]))
"""

OPEN_IN_SIXTEEN_THREADS = """
import json, sys, threading
from podkit import get_docker_session

gate, ids, lock = threading.Barrier(16), [], threading.Lock()

def ask():
    gate.wait()
    session = get_docker_session("bob", sys.argv[1], workspace=sys.argv[2], workspace_host=sys.argv[3])
    assert session.execute_command("echo here").stdout == "here\\n"
    with lock:
        ids.append(session.get_info().container_id)

threads = [threading.Thread(target=ask) for _ in range(16)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(json.dumps(ids))
"""


@pytest.fixture
def session_id() -> str:
    return uuid.uuid4().hex


def test_example_1_prints_the_workspace(facade: Engine) -> None:
    printed = run_python("""
        from podkit import get_docker_session

        result = get_docker_session(user_id="bob", session_id="123").execute_command("pwd")
        print(result.stdout)
    """)

    assert printed == "/workspace\n\n"
    assert len(facade.names()) == 1  # no auto-removing


def test_another_process_reconnects_to_a_running_container(facade: Engine, session_id: str) -> None:
    first = ask_python(USE, session_id, "echo made by the first > /tmp/file")
    second = ask_python(USE, session_id, "cat /tmp/file")

    assert second == [first[0], 0, "made by the first\n"]


def test_another_process_reconnects_to_an_exited_container(facade: Engine, session_id: str) -> None:
    with get_docker_session("bob", session_id, ContainerConfig(container_lifetime_seconds=1)) as session:
        id = session.get_info().container_id
        assert id is not None
        session.execute_command("echo made by the first > /tmp/file")
        assert facade.wait_for_end(id) == 0

        assert ask_python(USE, session_id, "cat /tmp/file") == [id, 0, "made by the first\n"]


def test_another_process_reconnects_to_a_container_that_was_stopped(facade: Engine, session_id: str) -> None:
    first = ask_python(USE, session_id, "echo made by the first > /tmp/file")
    facade.stop(first[0])

    assert ask_python(USE, session_id, "cat /tmp/file") == [first[0], 0, "made by the first\n"]


def test_another_process_recreates_a_container_that_was_killed(facade: Engine, session_id: str) -> None:
    first = ask_python(USE, session_id, "true")
    facade.kill(first[0])

    second = ask_python(USE, session_id, "echo alive")

    assert second[1:] == [0, "alive\n"]
    assert second[0] != first[0]
    assert len(facade.names()) == 1


def test_a_new_manager_finds_a_session_with_its_container_ports_and_data(
    open_session: OpenSession,
    backend: DockerBackend,
    prefix: str,
    workspace: Path,
    workspace_host: Path,
    engine: Engine,
) -> None:
    [port] = engine.free_ports(1)
    config = long_config(ports=[port], environment={"KEY": "value"}, session_inactivity_timeout_seconds=77)
    session = open_session(config)
    session.write_file("file", "data")
    made = session.get_info()

    other = BaseSessionManager(SimpleContainerManager(backend, prefix, workspace, workspace_host))
    found = other.get_session("bob", "123")

    assert found is not None
    assert (found.container_id, found.container_name) == (made.container_id, made.container_name)
    assert (found.config, found.data_dir, found.status) == (config, made.data_dir, made.status)
    assert found.session_inactivity_timeout_seconds == 77
    assert abs((found.created_at - made.created_at).total_seconds()) < 5
    assert other.read_file("bob", "123", "file") == "data"
    assert other.execute_command("bob", "123", "echo $KEY").stdout == "value\n"
    assert backend.get_accessible_ports(found.container_id or "") == {port: port}


def test_a_manager_uses_a_session_that_another_one_made_without_asking_for_it_first(
    open_session: OpenSession, manager: SimpleContainerManager
) -> None:
    open_session().write_file("file", "data")

    assert BaseSessionManager(manager).execute_command("bob", "123", "cat file").stdout == "data"


def test_what_one_manager_closes_is_gone_for_another(
    open_session: OpenSession, manager: SimpleContainerManager, engine: Engine
) -> None:
    open_session()

    BaseSessionManager(manager).close_session("bob", "123")

    assert engine.names() == []
    assert BaseSessionManager(manager).get_session("bob", "123") is None


def test_sixty_four_threads_in_four_processes_get_one_container(
    facade: Engine, session_id: str, workspace: Path, workspace_host: Path
) -> None:
    """CC-01."""
    arguments = session_id, str(workspace), str(workspace_host)
    processes = [start_python(OPEN_IN_SIXTEEN_THREADS, *arguments) for _ in range(4)]
    answers = [json.loads(finish(process)) for process in processes]

    [name] = facade.names()
    assert [len(ids) for ids in answers] == [16] * 4
    assert {id for ids in answers for id in ids} == {facade.inspect(name)["Id"]}


@pytest.mark.timeout(180 * LENGTH)
def test_opening_against_closing_leaves_nothing_half_made(
    open_session: OpenSession, manager: SimpleContainerManager, engine: Engine
) -> None:
    """CC-03: two managers stand for two processes; a command may find its session closed, and nothing worse."""
    managers = [BaseSessionManager(manager), BaseSessionManager(manager)]

    def live(number: int) -> None:
        session = open_session(on=managers[number % 2])
        with suppress(SessionNotFound, CommandInterrupted, ContainerNotFound, ContainerNotRunning):
            result = session.execute_command("echo alive")
            assert (result.exit_code, result.stdout, result.stderr) == (0, "alive\n", "")
        session.close()

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(live, range(12 * LENGTH)))

    for sessions in managers:
        sessions.close_session("bob", "123")
    assert engine.names() == []
    assert open_session().execute_command("echo again").stdout == "again\n"


def test_two_prefixes_never_see_each_others_sessions(
    open_session: OpenSession, backend: DockerBackend, prefix: str, engine: Engine
) -> None:
    mine = open_session()
    for other_prefix in (prefix + "-x", prefix + "x", prefix[:-1], prefix.upper()):
        other = BaseSessionManager(SimpleContainerManager(backend, other_prefix, None))

        assert other.get_session("bob", "123") is None
        other.close_session("bob", "123")
        other.cleanup_expired_sessions()
        other.cleanup_all()

    assert engine.names() == [mine.get_info().container_name]
    assert mine.execute_command("true").ok


def test_the_same_ids_under_two_prefixes_have_two_containers(
    open_session: OpenSession, backend: DockerBackend, prefix: str, engine: Engine
) -> None:
    other = BaseSessionManager(SimpleContainerManager(backend, prefix + "-x", None))
    mine, theirs = open_session(), open_session(on=other)

    mine.execute_command("echo mine > /tmp/whose")
    assert theirs.execute_command("cat /tmp/whose").exit_code != 0

    theirs.close()
    assert engine.names() == [mine.get_info().container_name]


def test_listing_by_a_name_prefix_is_exact(open_session: OpenSession, backend: DockerBackend, prefix: str) -> None:
    mine = open_session().get_info()
    other = BaseSessionManager(SimpleContainerManager(backend, f"{prefix}-x", None))
    theirs = open_session(on=other).get_info()
    open_session(on=BaseSessionManager(SimpleContainerManager(backend, "in." + prefix, None))).close()

    assert [row["id"] for row in backend.list_workloads({"name": f"^{prefix}-x-"})] == [theirs.container_id]
    assert {row["id"] for row in backend.list_workloads({"name": f"^{prefix}-"})} == {
        mine.container_id,
        theirs.container_id,
    }
    assert backend.list_workloads({"name": f"^{prefix[4:]}"}) == []


def test_a_forked_child_uses_the_session_and_disturbs_nothing_of_its_parents(facade: Engine, session_id: str) -> None:
    answers = ask_python(
        """
        import json, os, sys, threading
        from podkit import get_docker_session

        session = get_docker_session("bob", sys.argv[1])
        session.execute_command("echo before > /tmp/file")
        begun, answers = threading.Event(), []

        def run():  # a command of the parent that is under way at the fork
            command = "echo begun; sleep 2; echo ended"
            answers.append(session.execute_command(command, on_stdout=lambda _: begun.set()).stdout)

        thread = threading.Thread(target=run)
        thread.start()
        begun.wait()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                out = [session.execute_command("cat /tmp/file").stdout, session.get_info().container_id]
                again = get_docker_session("bob", sys.argv[1])
                out.append(again.execute_command("echo again").stdout)
                os.write(writing, json.dumps(out).encode())
            finally:
                os._exit(0)
        os.close(writing)
        os.waitpid(child, 0)
        theirs = json.loads(os.read(reading, 65536) or b"null")
        thread.join()
        answers.append(session.execute_command("echo still").stdout)
        print(json.dumps([theirs, session.get_info().container_id, answers]))
        """,
        session_id,
    )

    [of_child, id, of_parent] = answers
    assert of_child == ["before\n", id, "again\n"]
    assert of_parent == ["begun\nended\n", "still\n"]


def test_a_command_outlives_the_timeout_of_another_processs(facade: Engine, session_id: str) -> None:
    with get_docker_session("bob", session_id) as session:
        process = start_python(
            """
            import sys
            from podkit import get_docker_session

            session = get_docker_session("bob", sys.argv[1])
            print(session.execute_command("sleep 60", timeout=1).exit_code)
            """,
            session_id,
        )
        with session.popen("sleep 60") as command:
            assert finish(process) == "124\n"
            assert command.poll() is None
        assert len(facade.names()) == 1
