"""The contract suite, third part: sessions."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from podkit._models.identity import Identity
from podkit.backends.base import Backend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus
from podkit.core.session import BaseSessionManager
from podkit.errors import CommandInterrupted, ContainerNotFound, FileMissing, NameTaken, SessionNotFound
from podkit.testing._contract import Contract, Workloads

NewManager = Callable[[], BaseSessionManager]


class SessionContract(Contract):
    """The contract of sessions."""

    @pytest.fixture
    def workspace_base(self, tmp_path: Path) -> Path | None:
        """Return the directory of workspaces, `None` to have none."""
        return tmp_path

    @pytest.fixture
    def workspace_base_host(self) -> Path | None:
        """Return the path of `workspace_base` on the engine's host. `None` if the same."""
        return None

    @pytest.fixture
    def config(self, image: str) -> ContainerConfig:
        """Return the configuration of a test's sessions."""
        return ContainerConfig(image=image, container_lifetime_seconds=60)

    @pytest.fixture
    def new_manager(
        self, backend: Backend, prefix: str, workspace_base: Path | None, workspace_base_host: Path | None
    ) -> Iterator[NewManager]:
        """Return a function that makes independent session managers."""

        # a container manager for each, as in separate programs: they share only the engine
        def make() -> BaseSessionManager:
            return BaseSessionManager(SimpleContainerManager(backend, prefix, workspace_base, workspace_base_host))

        yield make
        for row in backend.list_workloads({"name": f"^{prefix}-"}):
            backend.remove_workload(row["id"])

    @pytest.fixture
    def manager(self, new_manager: NewManager) -> BaseSessionManager:
        """Return a session manager."""
        return new_manager()

    # --- creating and finding -----------------------------------------------------------------------

    def test_a_created_session_runs_commands_in_its_workspace(
        self, backend: Backend, manager: BaseSessionManager, config: ContainerConfig
    ) -> None:
        session = manager.create_session("bob", "123", config)
        result = manager.execute_command("bob", "123", "pwd; echo err >&2; exit 3")
        assert (result.exit_code, result.stdout, result.stderr) == (3, "/workspace\n", "err\n")
        assert session.container_id is not None
        assert backend.inspect_workload(session.container_id).status is ContainerStatus.RUNNING

    def test_a_second_manager_finds_the_session(
        self, manager: BaseSessionManager, new_manager: NewManager, config: ContainerConfig
    ) -> None:
        session = manager.create_session("bob", "123", config)
        other = new_manager()
        found = other.get_session("bob", "123")
        assert found is not None
        assert found.container_id == session.container_id
        assert found.config == session.config
        assert other.create_session("bob", "123", config).container_id == session.container_id
        assert other.execute_command("bob", "123", ["pwd"]).stdout == "/workspace\n"

    def test_many_that_ask_at_once_get_one_container(
        self, backend: Backend, prefix: str, new_manager: NewManager, config: ContainerConfig
    ) -> None:
        managers = [new_manager(), new_manager()]
        with ThreadPoolExecutor(8) as pool:  # four threads for each of two programs
            sessions = list(pool.map(lambda n: managers[n % 2].create_session("bob", "1", config), range(8)))
        rows = backend.list_workloads({"name": f"^{prefix}-"})
        assert {session.container_id for session in sessions} == {row["id"] for row in rows}
        assert len(rows) == 1

    @pytest.mark.parametrize("ids", [("a/b", "a-b"), ("..", "."), ("é" * 100, "é" * 100 + "x")], ids=str)
    def test_two_odd_ids_never_share(
        self, manager: BaseSessionManager, config: ContainerConfig, ids: tuple[str, str]
    ) -> None:
        for id in ids:
            manager.create_session(id, "s", config)
            manager.write_file(id, "s", "mine", id)
        assert [manager.read_file(id, "s", "mine") for id in ids] == list(ids)
        first, second = (manager.create_session(id, "s", config) for id in ids)
        assert first.container_id != second.container_id

    def test_a_container_of_somebody_else_is_not_touched(
        self,
        backend: Backend,
        workloads: Workloads,
        manager: BaseSessionManager,
        prefix: str,
        config: ContainerConfig,
    ) -> None:
        stranger = workloads.create(name=Identity.of(prefix, "bob", "123").name)
        with pytest.raises(NameTaken):
            manager.create_session("bob", "123", config)
        assert backend.inspect_workload(stranger).id == stranger

    # --- commands -----------------------------------------------------------------------------------

    def test_a_missing_program_is_a_result(self, manager: BaseSessionManager, config: ContainerConfig) -> None:
        manager.create_session("bob", "123", config)
        assert manager.execute_command("bob", "123", ["podkit-test-no-such-program"]).exit_code == 127

    def test_input_environment_user_and_directory_reach_the_command(
        self, manager: BaseSessionManager, config: ContainerConfig
    ) -> None:
        manager.create_session("bob", "123", config)
        result = manager.execute_command(
            "bob", "123", 'cat; printenv A; pwd; whoami', working_dir="/tmp",
            environment={"A": "1"}, user="nobody", input="in\n",
        )  # fmt: skip
        assert result.stdout == "in\n1\n/tmp\nnobody\n"

    def test_a_command_over_its_time_is_ended_and_the_result_says_how(
        self, backend: Backend, manager: BaseSessionManager, config: ContainerConfig
    ) -> None:
        id = manager.create_session("bob", "123", config).container_id
        assert id is not None
        before = backend.inspect_workload(id)
        result = manager.execute_command("bob", "123", "echo early; sleep 60", timeout=1)
        after = backend.inspect_workload(id)
        assert (result.exit_code, result.timed_out, result.stdout) == (124, True, "early\n")
        assert "timed out" in result.stderr
        assert not manager.container_manager.is_busy(id)  # the command is no longer counted
        # a backend may kill the command alone or restart the container, and the result must say which
        assert result.container_restarted == (after.started_at != before.started_at)
        assert manager.execute_command("bob", "123", "echo on").stdout == "on\n"

    def test_a_flood_is_ended_at_its_timeout_too(self, manager: BaseSessionManager, config: ContainerConfig) -> None:
        manager.create_session("bob", "123", config)
        began = time.monotonic()
        result = manager.execute_command("bob", "123", "yes", timeout=1, max_output_bytes=1000)
        assert time.monotonic() - began < 10
        assert (result.exit_code, len(result.stdout), result.stdout_truncated) == (124, 1000, True)

    def test_a_child_in_the_background_does_not_hold_the_result(
        self, manager: BaseSessionManager, config: ContainerConfig
    ) -> None:
        manager.create_session("bob", "123", config)
        began = time.monotonic()
        assert manager.execute_command("bob", "123", "sleep 60 & echo done").stdout == "done\n"
        assert time.monotonic() - began < 20

    def test_a_command_whose_container_is_removed_is_interrupted(
        self, backend: Backend, manager: BaseSessionManager, config: ContainerConfig
    ) -> None:
        id = manager.create_session("bob", "123", config).container_id
        assert id is not None
        with pytest.raises(CommandInterrupted) as caught:
            manager.execute_command(
                "bob", "123", "echo early; sleep 60", on_stdout=lambda text: backend.remove_workload(id)
            )
        assert caught.value.result is not None
        assert caught.value.result.stdout == "early\n"

    # --- files --------------------------------------------------------------------------------------

    @pytest.mark.parametrize("place", ["deep/er/é.txt", "/opt/podkit-test/f"])
    def test_a_written_file_is_read_by_podkit_and_by_commands(
        self, manager: BaseSessionManager, config: ContainerConfig, place: str
    ) -> None:
        manager.create_session("bob", "123", config)
        path = manager.write_file("bob", "123", place, "thîs\n")
        assert path == Path("/workspace") / place
        assert manager.read_file("bob", "123", place) == "thîs\n"
        assert manager.execute_command("bob", "123", ["cat", str(path)]).stdout == "thîs\n"
        manager.write_file("bob", "123", place, b"\x00\xff")
        assert manager.read_bytes("bob", "123", place) == b"\x00\xff"

    @pytest.mark.parametrize("place", ["missing", "/opt/missing"])
    def test_a_missing_file_is_missing(self, manager: BaseSessionManager, config: ContainerConfig, place: str) -> None:
        manager.create_session("bob", "123", config)
        with pytest.raises(FileMissing):
            manager.read_file("bob", "123", place)

    def test_a_file_that_a_command_wrote_can_be_read(
        self, manager: BaseSessionManager, config: ContainerConfig
    ) -> None:
        manager.create_session("bob", "123", config)
        manager.execute_command("bob", "123", "echo made inside > /workspace/f")
        assert manager.read_file("bob", "123", "f") == "made inside\n"

    # --- surviving ----------------------------------------------------------------------------------

    def test_a_stopped_container_is_started_by_the_next_command(
        self, backend: Backend, manager: BaseSessionManager, config: ContainerConfig
    ) -> None:
        session = manager.create_session("bob", "123", config)
        id = session.container_id
        assert id is not None
        backend.stop_workload(id, 10)
        assert manager.execute_command("bob", "123", ["pwd"]).stdout == "/workspace\n"
        assert session.container_id == id

    @pytest.mark.parametrize("loss", ["removed", "killed"])
    def test_a_lost_container_is_made_anew_on_the_same_workspace(
        self,
        backend: Backend,
        manager: BaseSessionManager,
        config: ContainerConfig,
        workspace_base: Path | None,
        loss: str,
    ) -> None:
        config.environment = {"KEPT": "yes"}
        session = manager.create_session("bob", "123", config)
        manager.write_file("bob", "123", "f", "kept")
        id = session.container_id
        assert id is not None
        if loss == "removed":
            backend.remove_workload(id)
        else:
            backend.stop_workload(id, 0)  # a killed container is made anew; a stopped one would be started
        assert manager.execute_command("bob", "123", ["printenv", "KEPT"]).stdout == "yes\n"
        assert session.container_id not in (None, id)
        with pytest.raises(ContainerNotFound):
            backend.inspect_workload(id)
        if workspace_base is not None:
            assert manager.read_file("bob", "123", "f") == "kept"

    # --- closing ------------------------------------------------------------------------------------

    def test_closing_twice_is_harmless_and_leaves_nothing(
        self, backend: Backend, manager: BaseSessionManager, prefix: str, config: ContainerConfig
    ) -> None:
        manager.create_session("bob", "123", config)
        manager.close_session("bob", "123")
        manager.close_session("bob", "123")
        assert backend.list_workloads({"name": f"^{prefix}-"}) == []
        assert manager.get_session("bob", "123") is None
        with pytest.raises(SessionNotFound):
            manager.execute_command("bob", "123", "pwd")

    def test_files_outlive_the_session_in_a_workspace_only(
        self, manager: BaseSessionManager, config: ContainerConfig, workspace_base: Path | None
    ) -> None:
        manager.create_session("bob", "123", config)
        manager.write_file("bob", "123", "f", "kept")
        manager.close_session("bob", "123")
        manager.create_session("bob", "123", config)
        expected = "" if workspace_base is None else "kept"
        assert manager.execute_command("bob", "123", ["cat", "f"]).stdout == expected

    def test_creating_and_closing_at_once_leave_a_session_or_none(
        self, backend: Backend, manager: BaseSessionManager, prefix: str, config: ContainerConfig
    ) -> None:
        def change(number: int) -> None:
            with suppress(SessionNotFound):
                if number % 2:
                    manager.close_session("bob", "123")
                else:
                    manager.create_session("bob", "123", config)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(change, range(8)))
        rows, session = backend.list_workloads({"name": f"^{prefix}-"}), manager.get_session("bob", "123")
        assert [row["id"] for row in rows] == ([session.container_id] if session else [])
