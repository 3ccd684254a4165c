"""Typical uses of the public API: only type-checked, never run. It fails when a signature drifts."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, assert_type

import podkit
from podkit import PodkitEventHandler, PortPool, SessionProxy, get_docker_session, reset_lifecycle_cache, run_in_docker
from podkit.backends.base import Backend, Deadline, ExecSpec, ExecStream, WorkloadInfo, WorkloadRow, WorkloadSpec
from podkit.backends.docker import DockerBackend
from podkit.core.command import Command, Output
from podkit.core.files import Downloaded, FileInfo
from podkit.core.isolation import Isolation
from podkit.core.manager import BaseContainerManager, ContainerRecord, SimpleContainerManager
from podkit.core.models import (
    ContainerConfig,
    ContainerStatus,
    Mount,
    ProcessResult,
    Session,
    StartupVerificationConfig,
)
from podkit.core.session import BaseSessionManager
from podkit.errors import (
    CommandFailed,
    CommandInterrupted,
    CommandStillRunning,
    ContainerFailedToStart,
    FileMissing,
    PodkitError,
)
from podkit.monitors.base import BaseThreadMonitor
from podkit.monitors.health import ContainerHealthMonitor
from podkit.monitors.orphans import OrphanContainerCleaner
from podkit.processes import LogPiece, Process, ProcessManager, ProcessStatus
from podkit.testing import FakeBackend
from podkit.utils.network import get_parent_container_networks
from podkit.utils.paths import container_to_host_path, get_workspace_path, host_to_container_path, write_to_mounted_path


def top_level() -> None:
    assert_type(podkit.get_docker_session("bob", "123"), SessionProxy)
    assert_type(get_docker_session("bob", "123", ContainerConfig(), "/app/data", Path("/app/data")), SessionProxy)
    assert_type(run_in_docker("pwd"), ProcessResult)
    assert_type(
        run_in_docker(
            ["python", "main.py"],
            image="python:3.11-alpine",
            files={"main.py": "print(1)", "data.bin": b"\0"},
            environment={"A": "b"},
            working_dir="/workspace",
            command_timeout=10,
        ),
        ProcessResult,
    )
    assert_type(reset_lifecycle_cache(), None)


def proxy(session: SessionProxy) -> None:
    result = session.execute_command([Path("/bin/pwd")], Path("src"), timeout=None)
    assert_type(result, ProcessResult)
    assert_type(session.execute_command("pwd", "/tmp", {"A": "b"}, 1.5), ProcessResult)
    lines: list[str] = []
    assert_type(
        session.execute_command(
            "cat", user="nobody", input=b"x", max_output_bytes=1 << 20, on_stdout=lines.append, on_stderr=print
        ),
        ProcessResult,
    )
    assert_type(session.write_file("a.txt", "text"), Path)
    assert_type(session.write_file(Path("/workspace/a.bin"), b"bytes"), Path)
    assert_type(session.read_file("a.txt"), str)
    assert_type(session.files.read_bytes("a.bin"), bytes)
    assert_type(session.files.read_text(Path("a.txt")), str)
    assert_type(session.files.write_bytes("a.bin", b""), Path)
    assert_type(session.files.write_text("a.txt", "", mode=0o600, user="nobody"), Path)
    assert_type(session.files.list(), list[FileInfo])
    assert_type(session.files.stat("a.txt").modified_at, datetime)
    assert_type(session.files.exists("a.txt"), bool)
    assert_type(session.files.rename("a.txt", "b.txt"), Path)
    assert_type(session.files.upload(Path("a"), "a", progress=print), Path)
    assert_type(session.files.download("a", Path("a")), Downloaded)
    assert_type(session.files.download("a", "a").skipped, tuple[str, ...])
    assert_type(session.get_info(), Session)
    assert_type(session.get_accessible_ports(), dict[int, int])
    assert_type(session.close(remove_workspace=True), None)
    with get_docker_session(user_id="bob", session_id="123") as opened:
        assert_type(opened, SessionProxy)
        assert_type(opened.user_id, str)


def running(session: SessionProxy) -> None:
    with session.popen(["cat"], "/tmp", {"A": "b"}, 1.5, user="nobody", max_output_bytes=1 << 20) as command:
        assert_type(command, Command)
        assert_type(command.stdin.write("text"), None)
        assert_type(command.stdin.write(b"bytes"), None)
        command.stdin.close()
        for output in command:
            assert_type(output, Output)
            assert_type(output.stream, Literal["stdout", "stderr"])
        assert_type(command.pid, int | None)
        assert_type(command.poll(), int | None)
        assert_type(command.send_signal("SIGINT"), None)
        assert_type(command.terminate(), None)
        assert_type(command.kill(), None)
        try:
            assert_type(command.wait(5), ProcessResult)
        except CommandStillRunning as exc:
            assert_type(exc.result, ProcessResult | None)
    assert_type(session.isolation, Isolation)
    assert_type(session.isolation.commands, Literal["agent", "engine exec"])
    assert_type(session.isolation.commands_reason, str | None)


def results(result: ProcessResult) -> None:
    assert_type(result.exit_code, int)
    assert_type(result.stdout, str)
    assert_type(result.stderr, str)
    assert_type(result.stdout_bytes, bytes)
    assert_type(result.stderr_bytes, bytes)
    assert_type(result.duration_seconds, float)
    assert_type(result.timed_out, bool)
    assert_type(result.stdout_truncated, bool)
    assert_type(result.stderr_truncated, bool)
    assert_type(result.oom_killed, bool)
    assert_type(result.container_restarted, bool)
    assert_type(result.ok, bool)
    assert_type(result.check(), ProcessResult)
    try:
        result.check()
    except CommandFailed as exc:
        assert_type(exc.result, ProcessResult | None)
    except CommandInterrupted as exc:
        assert_type(exc.result, ProcessResult | None)


def models(session: Session) -> None:
    config = ContainerConfig(
        image="python:3.11-alpine",
        entrypoint=[],
        container_lifetime_seconds=300,
        cpu_limit=0.5,
        memory_limit="512m",
        pids_limit=64,
        environment={"A": "b"},
        ports=[80],
        networks=["net"],
        inherit_parent_networks=True,
        volumes=[
            Mount(source="/data", target="/data", read_only=True),
            Mount(source=str(Path("/data")), target="/more", type="bind"),
            Mount(source="cache", target="/cache", type="volume"),
            Mount(target="/scratch", type="tmpfs"),
        ],
        user="nobody",
        working_dir="/workspace",
        startup_verification=StartupVerificationConfig(required_consecutive_checks=3),
        shm_size="128m",
        extra_hosts={"db": "10.0.0.5"},
        session_inactivity_timeout_seconds=600,
    )
    assert_type(config.entrypoint, list[str] | None)
    assert_type(config.memory_limit, str | int)
    config.memory_limit = 1 << 30
    config.startup_verification = None
    assert_type(config.volumes, list[Mount])
    assert_type(config.ports, list[int])
    assert_type(session.container_id, str | None)
    assert_type(session.container_name, str)
    assert_type(session.status, ContainerStatus)
    assert_type(session.config, ContainerConfig)
    assert_type(session.data_dir, Path | None)
    assert_type(session.created_at, datetime)
    assert_type(session.metadata, dict[str, Any])
    assert_type(session.is_expired(), bool)
    session.last_active_at = datetime.now(UTC)
    session.session_inactivity_timeout_seconds = 5
    status: str = ContainerStatus.RUNNING
    assert status == "running"


class OwnManager(BaseContainerManager):
    """As in Example 6, with annotations."""

    def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
        assert self.workspace_base is not None
        path = get_workspace_path(self.workspace_base, user_id, session_id)
        return [{"Type": "bind", "Source": str(path), "Target": "/workspace"}]

    def write_file(
        self, container_id: str, container_path: object, content: str | bytes, user_id: str, session_id: str
    ) -> Path:
        return write_to_mounted_path(
            str(container_path), content, lambda path: self.to_host_path(path, user_id, session_id)
        )


def layers(prefix: str) -> None:
    backend = DockerBackend()
    assert_type(backend.connect(), None)
    own = OwnManager(backend=backend, container_prefix=prefix, workspace_base=Path("/tmp/work"))
    simple = SimpleContainerManager(backend, prefix, None, volume_name="work")
    monitor = ContainerHealthMonitor(container_manager=own, check_interval=30, log_lines=50)
    sessions = BaseSessionManager(
        container_manager=own, default_image="python:3.11-alpine", health_monitor=monitor, event_handler=Handler()
    )
    assert_type(simple.create_container("bob", "123", ContainerConfig()), tuple[str, str])
    assert_type(simple.start_container("id", ContainerConfig()), None)
    assert_type(simple.execute_command("id", "pwd", timeout=1), ProcessResult)
    assert_type(simple.get_container_status("id"), ContainerStatus)
    assert_type(simple.to_host_path("/workspace/a", "bob", "123"), Path)
    assert_type(simple.to_container_path("/tmp/work/a", "bob", "123"), Path)
    assert_type(simple.containers, Mapping[str, ContainerRecord])
    assert_type(simple.remove_container("id"), None)
    assert_type(simple.cleanup_all(), None)

    assert_type(sessions.create_session("bob", "123"), Session)
    assert_type(sessions.get_session("bob", "123"), Session | None)
    assert_type(sessions.execute_command("bob", "123", ["pwd"], timeout=5), ProcessResult)
    assert_type(sessions.write_file("bob", "123", Path("/workspace/a"), "text"), Path)
    assert_type(sessions.read_file("bob", "123", "a"), str)
    assert_type(sessions.update_session_activity("bob", "123"), None)
    assert_type(sessions.close_session("bob", "123"), None)
    assert_type(sessions.cleanup_expired_sessions(), list[Session])
    assert_type(sessions.cleanup_all(), None)


def both_are_backends() -> list[Backend]:
    return [DockerBackend(), FakeBackend()]


def backends(backend: Backend, spec: WorkloadSpec) -> None:
    id = backend.create_workload(spec)
    assert_type(id, str)
    assert_type(backend.start_workload(id), bool)
    assert_type(backend.stop_workload(id, 5), None)
    assert_type(backend.restart_workload(id), None)
    assert_type(backend.remove_workload(id, deadline=Deadline.after(5)), bool)
    assert_type(backend.list_workloads({"label": "podkit.prefix=podkit", "name": ["^podkit-"]}), list[WorkloadRow])
    assert_type(backend.list_workloads()[0]["status"], ContainerStatus)
    assert_type(backend.list_workloads()[0]["labels"], dict[str, str])
    assert_type(backend.inspect_workload(id), WorkloadInfo)
    assert_type(backend.get_accessible_ports(id), dict[int, int])
    assert_type(backend.open_stream(id, ExecSpec(argv=["pwd"])), ExecStream)


class Handler(PodkitEventHandler):
    def on_container_creating(self, user_id: str, session_id: str, config: ContainerConfig) -> ContainerConfig:
        return config

    def on_container_created(
        self, user_id: str, session_id: str, container_id: str, container_name: str, config: ContainerConfig
    ) -> None: ...

    def on_container_creation_failed(
        self, user_id: str, session_id: str, config: ContainerConfig, error: Exception
    ) -> None: ...

    def on_session_created(self, session: Session) -> None: ...

    def on_session_creation_failed(self, user_id: str, session_id: str, error: Exception) -> None: ...

    def on_session_closing(self, session: Session) -> None: ...

    def on_session_closed(self, session: Session) -> None: ...

    def on_session_expired(self, session: Session) -> None: ...

    def on_orphan_container_removed(self, container_id: str, container_name: str, age_seconds: float) -> None: ...


class OwnMonitor(BaseThreadMonitor):
    def tick(self) -> None: ...


def monitors(backend: Backend) -> None:
    cleaner = OrphanContainerCleaner(backend, "podkit", 60, 0, event_handler=Handler())
    for monitor in (cleaner, OwnMonitor(1.5)):
        assert_type(monitor.start(), None)
        assert_type(monitor.running, bool)
        assert_type(monitor.stop(), None)


def ports_and_paths() -> None:
    pool = PortPool(8000, 8099, 2)
    assert_type(pool.allocate(), list[int])
    assert_type(pool.release([8000]), None)
    assert_type(pool.available_count, int)
    assert_type(get_workspace_path("/base", "bob", "123"), Path)
    assert_type(container_to_host_path("/workspace/a", "/workspace", Path("/base")), Path)
    assert_type(host_to_container_path("/base/a", "/workspace", "/base"), Path)
    assert_type(get_parent_container_networks(), list[str])


def processes(session: SessionProxy, manager: SimpleContainerManager) -> None:
    assert_type(session.processes, ProcessManager)
    found = ProcessManager(manager, "id", "bob", "123")
    process = found.start_process(
        ["ls", Path("/tmp")], name="ls", environment={"A": "b"}, working_dir=Path("/tmp"), user="0"
    )
    assert_type(process, Process)
    assert_type(process.ports, list[int] | None)
    assert_type(process.status, ProcessStatus)
    assert_type(found.list_processes(), list[Process])
    assert_type(found.wait(process.id, timeout=1), Process)
    assert_type(found.get_status(process.id), ProcessStatus)
    assert_type(found.is_running(process.id), bool)
    assert_type(found.get_logs(process.id), dict[str, str])
    assert_type(found.read_log(process.id, "stderr", offset=-5), LogPiece)
    assert_type(list(found.follow_log(process.id)), list[str])
    assert_type(found.write_stdin(process.id, "text"), int)
    assert_type(found.send_signal(process.id, "TERM"), None)
    assert_type(found.stop_process(process.id, timeout=1, force=True), bool)


def errors(session: SessionProxy) -> None:
    try:
        session.read_file("missing")
    except FileNotFoundError as exc:
        assert_type(exc, FileNotFoundError)
    error: PodkitError = ContainerFailedToStart("failed to start", exit_code=1, log="")
    try:
        raise error
    except ContainerFailedToStart as exc:
        assert_type(exc.exit_code, int | None)
        assert_type(exc.log, str)
    kinds: list[type[OSError | RuntimeError]] = [FileMissing, ContainerFailedToStart]
    kinds.clear()
