"""The contract suite, first part: workloads."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from podkit._models.container_status import ContainerStatus
from podkit.backends.base import Backend, ExecSpec, MountSpec, SharedFiles, WorkloadSpec
from podkit.errors import (
    ContainerError,
    ContainerFailedToStart,
    ContainerNotFound,
    EngineTimeout,
    ImageNotFound,
    InvalidInput,
    MountSourceNotFound,
    NameTaken,
    NetworkNotFound,
    NotSupported,
    PortUnavailable,
)
from podkit.testing._contract import PATIENCE_SECONDS, Contract, Workloads, read_until, run, wait_for_end
from podkit.utils._deadline import Deadline, wait_until

NO_SUCH_ID = "0" * 64


class WorkloadContract(Contract):
    """The contract of workloads."""

    # --- creating -----------------------------------------------------------------------------------

    def test_a_created_workload_is_known_by_its_id_and_by_its_name(
        self, backend: Backend, workloads: Workloads
    ) -> None:
        spec = workloads.spec(labels={"app": "x"}, environment={"A": "1"}, user="nobody")
        id = backend.create_workload(spec)
        for key in (id, spec.name):
            info = backend.inspect_workload(key)
            assert (info.id, info.name) == (id, spec.name)
            assert info.labels["app"] == "x"
            assert info.environment["A"] == "1"
            assert info.user == "nobody"

    def test_a_created_workload_says_when_it_was_created_in_utc(self, backend: Backend, workloads: Workloads) -> None:
        info = backend.inspect_workload(workloads.create())
        assert info.created_at is not None
        assert info.created_at.tzinfo is not None

    def test_labels_survive_odd_characters(self, backend: Backend, workloads: Workloads) -> None:
        odd = {"podkit-test.odd": 'a=b "c" \\ \n é 🐟 / ..', "podkit-test.empty": ""}
        id = workloads.create(labels=odd)
        assert odd.items() <= dict(backend.inspect_workload(id).labels).items()

    def test_a_name_is_given_once(self, backend: Backend, workloads: Workloads) -> None:
        spec = workloads.spec()
        backend.create_workload(spec)
        with pytest.raises(NameTaken, match=spec.name):
            backend.create_workload(spec)

    def test_of_many_that_create_one_name_at_once_one_succeeds(self, backend: Backend, workloads: Workloads) -> None:
        spec = workloads.spec()

        def create(_: int) -> str | None:
            try:
                return backend.create_workload(spec)
            except NameTaken:
                return None

        with ThreadPoolExecutor(8) as pool:
            ids = [id for id in pool.map(create, range(8)) if id]
        assert [row["id"] for row in backend.list_workloads({"name": spec.name})] == ids
        assert len(ids) == 1

    def test_a_missing_image_is_named_and_nothing_stays(self, backend: Backend, workloads: Workloads) -> None:
        refuses(backend, workloads.spec(image="podkit-test/no-such-image:1"), ImageNotFound, "no-such-image")

    def test_a_missing_network_is_named_before_anything_runs(self, backend: Backend, workloads: Workloads) -> None:
        spec = workloads.spec(networks=["podkit-test-no-network"])
        with pytest.raises(NetworkNotFound, match="podkit-test-no-network"):  # some engines check it only at the start
            backend.start_workload(backend.create_workload(spec))
        assert ContainerStatus.RUNNING not in [row["status"] for row in backend.list_workloads({"name": spec.name})]

    def test_a_missing_mount_source_is_named_and_nothing_stays(self, backend: Backend, workloads: Workloads) -> None:
        mount = MountSpec(type="bind", source=self.missing_source, target="/data")
        refuses(backend, workloads.spec(mounts=[mount]), MountSourceNotFound, self.missing_source)

    def test_an_image_of_a_registry_that_does_not_answer_is_named(self, backend: Backend, workloads: Workloads) -> None:
        refuses(backend, workloads.spec(image="registry.invalid/podkit-test/none:1"), ImageNotFound, "registry.invalid")

    def test_memory_that_is_mounted_is_every_users_at_each_start(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start(mounts=[MountSpec(type="tmpfs", target="/scratch")])
        write = ["sh", "-c", "echo kept > /scratch/f; cat /scratch/f"]
        assert run(backend, id, write, user="1234").stdout == b"kept\n"
        backend.restart_workload(id)
        assert run(backend, id, write, user="1234").stdout == b"kept\n"

    # --- starting -----------------------------------------------------------------------------------

    def test_a_started_workload_runs(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.create()
        assert backend.inspect_workload(id).status in (ContainerStatus.CREATING, ContainerStatus.RUNNING)
        backend.start_workload(id)
        info = backend.inspect_workload(id)
        assert info.status is ContainerStatus.RUNNING
        assert info.exit_code is None
        assert info.started_at is not None
        assert info.finished_at is None

    def test_starting_twice_changes_nothing(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start()
        before = backend.inspect_workload(id)
        backend.start_workload(id)
        assert backend.inspect_workload(id).started_at == before.started_at

    def test_an_ended_workload_starts_again_as_itself(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start()
        first = backend.inspect_workload(id)
        run(backend, id, ["sh", "-c", "echo kept > /workspace/f"])
        backend.stop_workload(id, 0)
        backend.start_workload(id)
        again = backend.inspect_workload(id)
        assert again.status is ContainerStatus.RUNNING
        assert again.started_at != first.started_at
        assert run(backend, id, ["cat", "/workspace/f"]).stdout == b"kept\n"

    def test_a_main_process_that_does_not_exist_fails_to_start(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.create(command=["podkit-test-no-such-program"], init=False)
        with pytest.raises(ContainerFailedToStart, match="failed to start"):
            backend.start_workload(id)
        assert backend.inspect_workload(id).status is not ContainerStatus.RUNNING

    def test_the_end_of_the_main_process_ends_the_workload(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start(command=["sh", "-c", "echo out; echo err >&2; exit 3"])
        wait_for_end(backend, id)
        info = backend.inspect_workload(id)
        assert info.exit_code == 3
        assert not info.oom_killed
        assert info.finished_at is not None

    def test_a_main_process_that_sleeps_ends_by_itself(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start(command=["sleep", "1"])
        wait_for_end(backend, id)
        assert backend.inspect_workload(id).exit_code == 0

    def test_the_working_directory_exists(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start(working_dir="/srv/podkit test/é")
        assert run(backend, id, ["pwd"]).stdout == "/srv/podkit test/é\n".encode()

    # --- stopping -----------------------------------------------------------------------------------

    def test_a_stopped_main_process_ends_by_sigterm(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start()
        backend.stop_workload(id, 10)
        info = backend.inspect_workload(id)
        assert info.status is ContainerStatus.EXITED
        assert info.exit_code == 143
        assert info.finished_at is not None

    def test_a_main_process_that_ignores_sigterm_is_killed(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start(command=["sh", "-c", "trap '' TERM; echo ready; sleep 60; sleep 60"])
        # the trap must be set before the signal comes
        wait_until(lambda: "ready" in backend.get_workload_logs(id, 1), deadline=Deadline.after(PATIENCE_SECONDS))
        backend.stop_workload(id, 1)
        assert backend.inspect_workload(id).exit_code == 137

    def test_a_timeout_of_zero_kills_at_once(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start()
        backend.stop_workload(id, 0)
        info = backend.inspect_workload(id)
        assert info.status is ContainerStatus.EXITED
        assert info.exit_code == 137
        assert not info.oom_killed

    @pytest.mark.parametrize("timeout", [0, 1])
    def test_stopping_twice_is_harmless(self, backend: Backend, workloads: Workloads, timeout: float) -> None:
        id = workloads.start()
        backend.stop_workload(id, 0)
        backend.stop_workload(id, timeout)
        assert backend.inspect_workload(id).exit_code == 137

    # --- restarting ---------------------------------------------------------------------------------

    def test_a_restart_ends_all_that_runs_and_keeps_id_and_files(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start()
        run(backend, id, ["sh", "-c", "echo kept > /tmp/file"])
        before = backend.inspect_workload(id)
        stream = backend.open_stream(id, ExecSpec(argv=["sh", "-c", "echo begun; sleep 60"]))
        read_until(stream, b"begun\n")
        stream.close()
        backend.restart_workload(id)
        after = backend.inspect_workload(id)
        assert after.status is ContainerStatus.RUNNING
        assert after.started_at != before.started_at
        assert run(backend, id, ["cat", "/tmp/file"]).stdout == b"kept\n"

    def test_a_restart_starts_what_has_ended(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start()
        backend.stop_workload(id, 0)
        backend.restart_workload(id)
        assert backend.inspect_workload(id).status is ContainerStatus.RUNNING

    def test_what_is_gone_cannot_be_restarted(self, backend: Backend) -> None:
        with pytest.raises(ContainerNotFound):
            backend.restart_workload(NO_SUCH_ID)

    # --- removing -----------------------------------------------------------------------------------

    def test_removing_kills_what_runs_and_frees_the_name(self, backend: Backend, workloads: Workloads) -> None:
        spec = workloads.spec()
        id = backend.create_workload(spec)
        backend.start_workload(id)
        backend.remove_workload(id)
        assert backend.list_workloads({"name": spec.name}) == []
        assert backend.create_workload(spec) != id

    def test_removing_twice_is_harmless(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start()
        assert backend.remove_workload(id) is True
        assert backend.remove_workload(id) is False
        assert backend.remove_workload(id, force=False) is False

    def test_of_many_that_remove_at_once_one_did_and_all_return_when_it_is_gone(
        self, backend: Backend, workloads: Workloads
    ) -> None:
        id = workloads.start()

        def remove(_: int) -> bool:
            removed = backend.remove_workload(id)
            # gone for each of them at its own return, also for those who did not remove it
            with pytest.raises(ContainerNotFound):
                backend.inspect_workload(id)
            return removed

        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(remove, range(8))) == 1

    def test_without_force_what_runs_stays(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start()
        with pytest.raises(ContainerError):
            backend.remove_workload(id, force=False)
        assert backend.inspect_workload(id).status is ContainerStatus.RUNNING
        backend.stop_workload(id, 0)
        backend.remove_workload(id, force=False)
        with pytest.raises(ContainerNotFound):
            backend.inspect_workload(id)

    @pytest.mark.parametrize(
        "ask",
        [
            lambda backend: backend.inspect_workload(NO_SUCH_ID),
            lambda backend: backend.inspect_workload("podkit-test-no-such-name"),
            lambda backend: backend.start_workload(NO_SUCH_ID),
            lambda backend: backend.stop_workload(NO_SUCH_ID, 1),
            lambda backend: backend.stop_workload(NO_SUCH_ID, 0),
            lambda backend: backend.get_workload_logs(NO_SUCH_ID, 10),
            lambda backend: backend.get_accessible_ports(NO_SUCH_ID),
        ],
        ids=["inspect", "inspect by name", "start", "stop", "kill", "logs", "ports"],
    )
    def test_what_is_gone_is_said_to_be_gone(self, backend: Backend, ask: Callable[[Backend], object]) -> None:
        with pytest.raises(ContainerNotFound):
            ask(backend)

    # --- listing ------------------------------------------------------------------------------------

    def test_a_listing_shows_workloads_in_any_state(self, backend: Backend, workloads: Workloads, prefix: str) -> None:
        labels = {"podkit-test.group": prefix}
        created, running, ended = (workloads.create(labels=labels) for _ in range(3))
        backend.start_workload(running)
        backend.start_workload(ended)
        backend.stop_workload(ended, 0)
        rows = backend.list_workloads({"label": f"podkit-test.group={prefix}"})
        status = {row["id"]: row["status"] for row in rows}
        assert status.keys() == {created, running, ended}
        assert status[running] is ContainerStatus.RUNNING
        assert status[ended] is ContainerStatus.EXITED
        for row in rows:
            info = backend.inspect_workload(row["id"])
            assert (row["name"], row["labels"]) == (info.name, dict(info.labels))

    def test_labels_match_as_a_whole_and_together(self, backend: Backend, workloads: Workloads, prefix: str) -> None:
        both = workloads.create(labels={"podkit-test.group": prefix, "podkit-test.part": "a=b"})
        one = workloads.create(labels={"podkit-test.group": prefix, "podkit-test.part": "a"})

        def found(*labels: str) -> set[str]:
            return {row["id"] for row in backend.list_workloads({"label": [f"podkit-test.group={prefix}", *labels]})}

        assert found() == {both, one}
        assert found("podkit-test.part") == {both, one}
        assert found("podkit-test.part=a") == {one}
        assert found("podkit-test.part=a=b") == {both}
        assert found("podkit-test.par") == set()
        assert found("podkit-test.part=") == set()

    def test_names_match_exactly_or_from_their_beginning(
        self, backend: Backend, workloads: Workloads, prefix: str
    ) -> None:
        name = prefix + "-name"
        for suffix in ("", "-x", ".x"):
            workloads.create(name=name + suffix)

        def found(text: str) -> set[str]:
            return {row["name"] for row in backend.list_workloads({"name": text})}

        assert found(name) == {name}
        assert found(name[1:]) == set()  # an engine's own filter would look for a part of the name
        assert found(f"^{name}") == {name, f"{name}-x", f"{name}.x"}
        assert found(f"^{name}-") == {f"{name}-x"}
        assert found(f"^{name}$") == {name}
        assert found(f"^{name}.") == {f"{name}.x"}  # the dot is no pattern

    def test_an_unknown_filter_is_refused(self, backend: Backend) -> None:
        with pytest.raises(InvalidInput, match="status"):
            backend.list_workloads({"status": "running"})

    # --- shared files -------------------------------------------------------------------------------

    @pytest.fixture
    def shared(self, backend: Backend, workloads: Workloads, tmp_path: Path) -> Iterator[SharedFiles]:
        """Return this test's own files, removed by `drop_shared_files`."""
        program = tmp_path / "program"
        program.write_text("#!/bin/sh\necho shared\n")
        name = f"podkit-test-{uuid.uuid4().hex[:16]}"
        files = {architecture: {"program": program} for architecture in ("amd64", "arm64", "arm", "386", "riscv64")}
        made = SharedFiles(name=name, target="/run/shared", by_architecture=files)
        yield made
        workloads.remove_all()  # an engine may refuse to remove files in use
        self.drop_shared_files(backend, made)

    def test_shared_files_are_run_and_cannot_be_written(
        self, backend: Backend, workloads: Workloads, shared: SharedFiles
    ) -> None:
        id = workloads.start(shared=shared)
        assert run(backend, id, ["/run/shared/program"]).stdout == b"shared\n"
        assert run(backend, id, ["sh", "-c", "echo spoilt > /run/shared/program"]).exit_code != 0
        assert run(backend, id, ["/run/shared/program"]).stdout == b"shared\n"

    def test_files_are_shared_by_many_that_are_made_at_once(
        self, backend: Backend, workloads: Workloads, shared: SharedFiles
    ) -> None:
        specs = [workloads.spec(shared=shared) for _ in range(4)]
        with ThreadPoolExecutor(4) as pool:
            ids = list(pool.map(backend.create_workload, specs))
        backend.start_workload(ids[-1])
        assert run(backend, ids[-1], ["/run/shared/program"]).stdout == b"shared\n"

    def test_files_for_another_architecture_are_not_supported(
        self, backend: Backend, workloads: Workloads, shared: SharedFiles
    ) -> None:
        foreign = replace(shared, by_architecture={"no-such-architecture": {}})
        refuses(backend, workloads.spec(shared=foreign), NotSupported, "architecture")

    # --- logs and ports -----------------------------------------------------------------------------

    def test_the_log_has_the_last_lines_of_both_streams(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.start(command=["sh", "-c", "echo first; echo second >&2; echo thîrd"])
        wait_for_end(backend, id)
        assert set(backend.get_workload_logs(id, 10).splitlines()) == {"first", "second", "thîrd"}
        assert len(backend.get_workload_logs(id, 2).splitlines()) == 2

    def test_the_log_of_a_silent_main_process_is_empty(self, backend: Backend, workloads: Workloads) -> None:
        assert backend.get_workload_logs(workloads.start(), 10) == ""

    def test_ports_are_those_of_a_running_workload(self, backend: Backend, workloads: Workloads) -> None:
        port = any_port()
        id = workloads.create(ports=[port])
        assert backend.get_accessible_ports(id) == {}
        backend.start_workload(id)
        assert backend.get_accessible_ports(id) == {port: port}
        backend.stop_workload(id, 0)
        assert backend.get_accessible_ports(id) == {}

    def test_a_port_is_given_once(self, backend: Backend, workloads: Workloads) -> None:
        port = any_port()
        workloads.start(ports=[port])
        second = workloads.create(ports=[port])
        with pytest.raises(PortUnavailable, match=str(port)):
            backend.start_workload(second)
        assert backend.inspect_workload(second).status is not ContainerStatus.RUNNING

    # --- time ---------------------------------------------------------------------------------------

    def test_connecting_twice_is_harmless(self, backend: Backend) -> None:
        backend.connect()
        backend.connect()

    def test_no_call_begins_after_its_deadline(self, backend: Backend, workloads: Workloads) -> None:
        id, spec, over = workloads.create(), workloads.spec(), Deadline.after(0)
        for ask in (
            lambda: backend.create_workload(spec, deadline=over),
            lambda: backend.start_workload(id, deadline=over),
            lambda: backend.stop_workload(id, 1, deadline=over),
            lambda: backend.restart_workload(id, deadline=over),
            lambda: backend.remove_workload(id, deadline=over),
            lambda: backend.inspect_workload(id, deadline=over),
            lambda: backend.list_workloads(deadline=over),
            lambda: backend.get_workload_logs(id, 1, deadline=over),
            lambda: backend.get_accessible_ports(id, deadline=over),
            lambda: backend.open_stream(id, ExecSpec(argv=["true"]), deadline=over),
        ):
            with pytest.raises(EngineTimeout):
                ask()
        assert backend.inspect_workload(id).status is ContainerStatus.CREATING
        assert backend.list_workloads({"name": spec.name}) == []

    def test_after_closing_the_next_call_connects_anew(self, backend: Backend, workloads: Workloads) -> None:
        id = workloads.create()
        backend.close()
        backend.close()
        assert backend.inspect_workload(id).id == id


def refuses(backend: Backend, spec: WorkloadSpec, error: type[Exception], named: str) -> None:
    """Assert that a workload is refused and leaves nothing."""
    with pytest.raises(error, match=named):
        backend.create_workload(spec)
    assert backend.list_workloads({"name": spec.name}) == []


def any_port() -> int:
    """Return a port that is likely free, below the ephemeral ones."""
    return random.SystemRandom().randrange(20_000, 32_000)
