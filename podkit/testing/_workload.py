"""A fake workload, and the stream to its processes."""

from __future__ import annotations

import math
import posixpath
import secrets
from collections.abc import Mapping
from pathlib import Path

from podkit._models.container_status import ContainerStatus
from podkit.backends.base import (
    Chunk,
    Deadline,
    ExecSpec,
    MountSpec,
    NotStarted,
    Stream,
    WorkloadInfo,
    WorkloadRow,
    WorkloadSpec,
)
from podkit.errors import (
    ContainerError,
    ContainerFailedToStart,
    ContainerNotFound,
    ContainerNotRunning,
    EngineTimeout,
    EngineUnavailable,
    InvalidInput,
)
from podkit.testing._files import Files, Place
from podkit.testing._gate import Gate
from podkit.testing._process import Process
from podkit.testing._programs import Invocation, Program, find_program, run_program
from podkit.utils._deadline import call_deadline

KILLED = 137
TERMINATED = 143
_LOG_MAX_BYTES = 64 << 10
_ROUNDS_AT_ONCE = 16
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Workload:
    """One workload. Guarded by the lock of its fake.

    Args:
        spec: its specification.
        gate: the fake's.
        programs: the programs that it can run.
        volumes: the engine's volumes, by name.
    """

    def __init__(
        self, spec: WorkloadSpec, gate: Gate, programs: Mapping[str, Program], volumes: dict[str, dict[str, bytes]]
    ) -> None:
        self.id = secrets.token_hex(32)
        self.spec = spec
        self.status = ContainerStatus.CREATING
        self.removed = False
        self._gate = gate
        self._programs = programs
        self._tmpfs: list[dict[str, bytes]] = []  # emptied by each start
        self.files = Files([self._place(mount, volumes) for mount in spec.mounts])
        self.files["/etc/passwd"] = b"root:x:0:0:root:/root:/bin/sh\n"
        self.files.make_directory(spec.working_dir)
        self._log = bytearray()
        self._main: Process | None = None
        self._attached: Process | None = None  # its main process, between `attach` and `start`
        self._commands: list[Process] = []  # those that still run, or have a child that does
        self._exit_code: int | None = None
        self._oom_killed = False
        self._error = ""
        self._created = gate.now
        self._started: float | None = None
        self._finished: float | None = None

    def _place(self, mount: MountSpec, volumes: dict[str, dict[str, bytes]]) -> Place:
        kind, source, target = mount.type, mount.source, mount.target
        store: Path | dict[str, bytes]
        if kind == "tmpfs":
            store = {}
            self._tmpfs.append(store)
        elif kind == "bind" and Path(source).is_dir():
            store = Path(source)
        else:
            store = volumes.setdefault(f"{source}/{mount.subpath}" if mount.subpath else source, {})
        return Place(target, store, read_only=mount.read_only)

    # --- its life -----------------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether its main process lives, paused or not."""
        return self.status in (ContainerStatus.RUNNING, ContainerStatus.PAUSED)

    @property
    def ignores_sigterm(self) -> bool:
        """Whether its main process lives on at SIGTERM."""
        return self._main is not None and self._main.ignores_sigterm

    @property
    def wakes_at(self) -> float:
        """The fake's time at which it goes on by itself."""
        if self.status is not ContainerStatus.RUNNING:
            return math.inf
        return min(process.wakes_at for process in self._processes())

    def attach(self) -> Process:
        """Return its main process, not yet started. See `Backend.open_stream`."""
        if not self.spec.attachable or self.status is not ContainerStatus.CREATING:
            raise ContainerError(f"container {self.id[:12]} cannot be attached to: it was started, or not made for it")
        argv = self._main_argv()
        self._attached = Process(argv, run_program(self._invocation(argv)), self._gate.now, stdin=True)
        return self._attached

    def _main_argv(self) -> list[str]:
        return [*(self.spec.entrypoint or ()), *(self.spec.command or ())] or ["sleep", "infinity"]

    def start(self) -> bool:
        """Start its main process. See `Backend.start_workload`."""
        if self.status is ContainerStatus.RUNNING:
            return False
        if self.status is ContainerStatus.PAUSED:
            raise ContainerFailedToStart(f"container {self.id[:12]} failed to start: it is paused")
        argv = self._main_argv()
        if find_program(self._programs, argv) is None:
            self._error = f"exec: {argv[0]!r}: executable file not found in $PATH"
            self._exit_code = 127
            raise ContainerFailedToStart(f"container {self.id[:12]} failed to start: {self._error}", exit_code=127)
        # created or ended -> running; no check comes after this line
        for store in self._tmpfs:
            store.clear()
        self._started, self._finished = self._gate.now, None
        self._exit_code, self._oom_killed, self._error = None, False, ""
        self.status = ContainerStatus.RUNNING
        main, self._attached = self._attached, None
        self._main = main or Process(argv, run_program(self._invocation(argv)), self._started, stdin=False)
        self.catch_up()
        return True

    def end(
        self,
        exit_code: int,
        at: float,
        *,
        oom_killed: bool = False,
        status: ContainerStatus = ContainerStatus.EXITED,
    ) -> None:
        """End its main process and all of its commands."""
        for process in self._commands:
            process.kill(KILLED, at)
        if self._main is not None:
            self._main.kill(exit_code, at)
            self._drain_log()  # the last output of a process that is gone
        self._main, self._commands = None, []
        # running -> ended
        self.status, self._exit_code, self._oom_killed, self._finished = status, exit_code, oom_killed, at

    def catch_up(self) -> None:
        """Advance its processes to the present time."""
        if self.status is not ContainerStatus.RUNNING or self._main is None:
            return
        now, main = self._gate.now, self._main
        # a full pipe stops the main process, and the log empties the pipe; bounded, for it may print for ever
        for _ in range(_ROUNDS_AT_ONCE):
            main.advance(now)
            if not self._drain_log():
                break
        if self._main is not main:
            return  # its program has ended the workload itself
        # the commands get no further than the end of the main process, which kills them
        ended_at = main.ended_at
        for process in list(self._commands):
            process.advance(now if ended_at is None else min(ended_at, now))
        self._commands = [process for process in self._commands if not process.done]
        if self._main is main and main.exit_code is not None and ended_at is not None:
            self.end(main.exit_code, ended_at)

    def _processes(self) -> list[Process]:
        return [*([self._main] if self._main else ()), *self._commands]

    def _drain_log(self) -> bool:
        found = False
        # the output of an attachable workload goes to its stream instead
        while self._main is not None and not self.spec.attachable and (chunk := self._main.take()):
            self._log += chunk.data
            found = True
        del self._log[:-_LOG_MAX_BYTES]
        return found

    # --- commands -----------------------------------------------------------------------------------

    def run(self, spec: ExecSpec) -> Process:
        """Start a command; see `Backend.open_stream`."""
        if self.status is not ContainerStatus.RUNNING:
            raise ContainerNotRunning(f"container {self.id[:12]} is {self.status}: it takes no command")
        run = self._invocation(list(spec.argv), spec)
        if not run.user_is_known:
            raise InvalidInput(f"user={run.user!r}: container {self.id[:12]} has no such user")
        if not self.files.is_directory(run.working_dir):
            raise InvalidInput(f"working_dir={run.working_dir!r}: container {self.id[:12]} has no such directory")
        process = Process(run.argv, run_program(run), self._gate.now, stdin=spec.stdin)
        process.not_started = find_program(self._programs, run.argv) is None
        self._commands.append(process)
        self.catch_up()
        return process

    def _invocation(self, argv: list[str], spec: ExecSpec | None = None) -> Invocation:
        default = {"PATH": _PATH, "HOSTNAME": self.id[:12], "HOME": "/root"}
        return Invocation(
            argv=argv,
            environment=default | dict(self.spec.environment) | (dict(spec.environment) if spec else {}),
            working_dir=posixpath.normpath((spec.working_dir if spec else None) or self.spec.working_dir),
            user=(spec.user if spec else None) or self.spec.user or "",
            files=self.files,
            workload_id=self.id,
            programs=self._programs,
        )

    # --- looking ------------------------------------------------------------------------------------

    def info(self) -> WorkloadInfo:
        """Return its present state."""
        return WorkloadInfo(
            id=self.id,
            name=self.spec.name,
            status=self.status,
            labels=dict(self.spec.labels),
            exit_code=None if self.running else self._exit_code,
            oom_killed=self._oom_killed,
            error=self._error,
            created_at=self._gate.time_of(self._created),
            started_at=self._gate.time_of(self._started),
            finished_at=self._gate.time_of(self._finished),
            environment=dict(self.spec.environment),
            user=self.spec.user or "",
            working_dir=self.spec.working_dir,
            networks=tuple(self.spec.networks or ("bridge",)),
            mounts=tuple((mount.source, mount.target) for mount in self.spec.mounts),
        )

    def row(self) -> WorkloadRow:
        """Return its row in a listing."""
        return WorkloadRow(id=self.id, name=self.spec.name, status=self.status, labels=dict(self.spec.labels))

    def log(self, lines: int) -> str:
        """Return its log's last lines."""
        kept = self._log.decode(errors="replace").splitlines(keepends=True)
        return "".join(kept[-lines:]) if lines > 0 else ""

    def running_argvs(self) -> list[list[str]]:
        """Return the command lines of its processes, the main process's first."""
        return [process.argv for process in self._processes()]


class FakeStream:
    """An `ExecStream` to a process of a fake workload."""

    def __init__(self, gate: Gate, workload: Workload, process: Process) -> None:
        self._gate = gate
        self._workload = workload
        self._process = process
        self._connection = gate.connection

    def wait(self, deadline: Deadline) -> bool:
        """See `ExecStream.wait`."""
        with self._gate.stream_call("wait"):
            return self._wait(deadline)

    def read(self, deadline: Deadline) -> Chunk | None:
        """See `ExecStream.read`."""
        with self._gate.stream_call("read"):
            if not self._wait(deadline):
                return None
            return self._process.take() or Chunk(Stream.STDOUT, b"")

    def _wait(self, deadline: Deadline) -> bool:
        while True:
            try:
                self._pass(deadline, "reading a command's output")
            except EngineTimeout:
                return False  # a frozen engine sends nothing
            if self._process.has_output or self._process.done:
                return True
            if deadline.expired:
                return False
            self._gate.wait(deadline, self._workload.wakes_at)

    def write(self, data: bytes, deadline: Deadline) -> None:
        """See `ExecStream.write`."""
        left = memoryview(data)
        with self._gate.stream_call("write"):
            while left:
                self._pass(deadline, "writing a command's input")
                if not self._process.takes_input:
                    raise BrokenPipeError("the command takes no more input")
                taken = self._process.give(left)
                left = left[taken:]
                if taken:
                    self._workload.catch_up()
                    self._gate.notify()  # these bytes may lead to output that a reader waits for
                    continue
                if deadline.expired:
                    raise EngineTimeout("the command did not read its input before the deadline")
                self._gate.wait(deadline, self._workload.wakes_at)

    def close_stdin(self) -> None:
        """See `ExecStream.close_stdin`."""
        with self._gate.locked():
            self._process.close_input()
            self._workload.catch_up()

    def exit_code(self, *, deadline: Deadline | None = None) -> int | None:
        """See `ExecStream.exit_code`."""
        deadline = call_deadline(deadline)
        with self._gate.stream_call("exit_code"):
            self._gate.pass_engine(deadline, "asking how a command ended")
            if self._workload.removed:
                raise ContainerNotFound(f"container {self._workload.id[:12]} is gone")
            self._workload.catch_up()
            code = self._process.exit_code
            if self._process.not_started and code is not None:
                name = self._process.argv[0]
                raise NotStarted(
                    f"exec: {name!r}: not found; script it: FakeBackend({{{name!r}: Reply(...)}})", exit_code=code
                )
            return code

    def close(self) -> None:
        """See `ExecStream.close`."""
        with self._gate.locked():
            self._connection = -1  # open -> closed: every later call fails
            self._process.close_input()
            self._process.discards_output = True  # the process lives on, and must not stop at a full pipe
            while self._process.take():
                pass

    def _pass(self, deadline: Deadline, doing: str) -> None:
        if self._connection != self._gate.connection:
            raise EngineUnavailable(f"{doing}: the connection is closed")
        self._gate.pass_engine(deadline, doing)
        self._workload.catch_up()
