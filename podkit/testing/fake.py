r"""`FakeBackend`, an engine in memory, for tests.

It needs no Docker and no time. Pass it to a manager in the place of a real backend, and script its programs:

```python
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.testing import FakeBackend, Reply

fake = FakeBackend({"pytest -q": Reply("1 failed\n", exit_code=1)})
fake.connect()
sessions = BaseSessionManager(SimpleContainerManager(fake, "demo", None))
sessions.create_session("bob", "123")
assert sessions.execute_command("bob", "123", "pytest -q").exit_code == 1
```

Commands run without a process: a program is a Python function (see `Program`). Every workload has `cat`, `chown`,
`echo`, `false`, `ls`, `mkdir`, `printenv`, `pwd`, `rm`, `sleep`, `true`, `wc`, `whoami`, `yes`, and a `sh -c` that
runs one plain command. Script anything else whole, such as `FakeBackend({"make | tee log": Reply("done")})`. The fake
accepts limits of memory, CPU and processes and does not enforce them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from podkit._models.container_status import ContainerStatus
from podkit.backends.base import (
    Deadline,
    ExecSpec,
    ExecStream,
    Filters,
    WorkloadInfo,
    WorkloadRow,
    WorkloadSpec,
    matches,
)
from podkit.errors import (
    ContainerError,
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
from podkit.testing._file_scripts import FILE_SCRIPTS
from podkit.testing._files import Files
from podkit.testing._gate import Engine, Gate
from podkit.testing._programs import BUILT_INS, Program
from podkit.testing._workload import KILLED, TERMINATED, FakeStream, Workload
from podkit.utils._deadline import Clock

__all__ = ["FakeBackend", "ManualClock"]


class ManualClock:
    """A clock that tests move: `FakeBackend(clock=ManualClock())`."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return the present moment."""
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


class FakeBackend:
    """An engine in memory. Implements `podkit.backends.base.Backend`.

    Safe to use from many threads. It starts no thread of its own: a call that looks at a workload first advances the
    workload's processes to the present time. A forked child has a copy of it.

    Args:
        programs: programs beside the built-in ones. The key is the program's name, or a whole command line or `sh -c`
            script, which counts first.
        images: the images on the engine; `None` means every image.
        registry: the images that can be pulled.
        networks: the networks that exist.
        clock: the time inside, which `sleep` follows too; such as a `ManualClock`.

    Attributes:
        programs: all programs; a test may change this and the sets below at any time.
        images: the images on the engine.
        registry: the images that can be pulled.
        networks: the networks that exist.
        missing_sources: the bind sources that do not exist on the engine's host; all others do.
        taken_ports: the host's ports that somebody else uses.
        volumes: the files of named volumes, and of bind sources that are not a directory of this host.
        calls: the names of the `Backend` methods that were called, in order.
    """

    def __init__(
        self,
        programs: Mapping[str, Program] | None = None,
        *,
        images: Iterable[str] | None = None,
        registry: Iterable[str] = (),
        networks: Iterable[str] = ("bridge", "host", "none"),
        clock: Clock = time.monotonic,
    ) -> None:
        self.programs: dict[str, Program] = {**BUILT_INS, **FILE_SCRIPTS, **(programs or {})}
        self.images = None if images is None else set(images)
        self.registry = set(registry)
        self.networks = set(networks)
        self.missing_sources: set[str] = set()
        self.taken_ports: set[int] = set()
        self.volumes: dict[str, dict[str, bytes]] = {}
        self._workloads: dict[str, Workload] = {}  # by id; guarded by the gate's lock, as is everything inside
        self._gate = Gate(clock)

    @property
    def calls(self) -> list[str]:
        """The `Backend` methods called, in order. May be cleared."""
        return self._gate.calls

    # --- the seam -----------------------------------------------------------------------------------

    def connect(self, *, deadline: Deadline | None = None) -> None:
        """See `Backend.connect`."""
        with self._gate.call("connect", deadline):
            self._gate.connected = True

    def close(self) -> None:
        """See `Backend.close`; there is nothing to close."""
        with self._gate.locked():
            self.calls.append("close")

    def create_workload(
        self, spec: WorkloadSpec, *, pulling: Callable[[str], None] | None = None, deadline: Deadline | None = None
    ) -> str:
        """See `Backend.create_workload`.

        Raises:
            NotSupported: `spec.shared` is set; the programs of a fake are Python functions.
        """
        with self._gate.call("create_workload", deadline):
            if spec.shared:
                raise NotSupported("a FakeBackend runs Python functions, and the agent is none")
            if any(workload.spec.name == spec.name for workload in self._workloads.values()):
                raise NameTaken(f"a container named {spec.name!r} exists")
            if self.images is not None and spec.image not in self.images:  # pull it
                if spec.image not in self.registry:
                    raise ImageNotFound(f"the image {spec.image!r} is not on the engine and cannot be pulled")
                if pulling:
                    pulling(f"{spec.image}: pulled")
                self.images.add(spec.image)
            self._check_networks(spec)
            for mount in spec.mounts:
                if mount.type == "bind" and mount.source in self.missing_sources:
                    raise MountSourceNotFound(f"the mount source {mount.source!r} does not exist on the host")
            workload = Workload(spec, self._gate, self.programs, self.volumes)
            self._workloads[workload.id] = workload
            return workload.id

    def start_workload(self, id: str, *, deadline: Deadline | None = None) -> bool:
        """See `Backend.start_workload`."""
        with self._gate.call("start_workload", deadline):
            return self._start(id)

    def _start(self, id: str) -> bool:
        workload = self._find(id)
        if not workload.running:
            self._check_networks(workload.spec)
            self._check_ports(workload)
        return workload.start()

    def stop_workload(self, id: str, timeout: float, *, deadline: Deadline | None = None) -> None:
        """See `Backend.stop_workload`."""
        with self._gate.call("stop_workload", deadline) as until:
            workload = self._find(id)
            obeys = workload.status is ContainerStatus.RUNNING and not workload.ignores_sigterm
            if timeout > 0 and not obeys:  # paused, or ignoring SIGTERM: only SIGKILL ends it
                self._let_time_pass(workload, timeout, until)
            if workload.running:
                workload.end(TERMINATED if timeout > 0 and obeys else KILLED, self._gate.now)

    def restart_workload(self, id: str, *, deadline: Deadline | None = None) -> None:
        """See `Backend.restart_workload`."""
        with self._gate.call("restart_workload", deadline):
            workload = self._find(id)
            if workload.running:
                workload.end(KILLED, self._gate.now)
            self._start(id)

    def remove_workload(self, id: str, *, force: bool = True, deadline: Deadline | None = None) -> bool:
        """See `Backend.remove_workload`."""
        with self._gate.call("remove_workload", deadline):
            workload = self._workloads.get(id)
            if workload is None:
                return False
            workload.catch_up()
            if workload.running and not force:
                raise ContainerError(f"container {id[:12]} runs: it is not removed")
            self._remove(workload)
            return True

    def inspect_workload(self, id: str, *, deadline: Deadline | None = None) -> WorkloadInfo:
        """See `Backend.inspect_workload`."""
        with self._gate.call("inspect_workload", deadline):
            named = [workload for workload in self._workloads.values() if workload.spec.name == id]
            return (self._find(named[0].id) if named else self._find(id)).info()

    def list_workloads(self, filters: Filters | None = None, *, deadline: Deadline | None = None) -> list[WorkloadRow]:
        """See `Backend.list_workloads`."""
        filters = filters or {}
        if unknown := filters.keys() - {"label", "name"}:
            raise InvalidInput(f"list_workloads has no filter {sorted(unknown)}: there are 'label' and 'name'")
        with self._gate.call("list_workloads", deadline):
            rows = [self._find(id).row() for id in self._workloads]
            return [row for row in rows if matches(row, filters)]

    def get_workload_logs(self, id: str, lines: int, *, deadline: Deadline | None = None) -> str:
        """See `Backend.get_workload_logs`."""
        with self._gate.call("get_workload_logs", deadline):
            return self._find(id).log(lines)

    def get_accessible_ports(self, id: str, *, deadline: Deadline | None = None) -> dict[int, int]:
        """See `Backend.get_accessible_ports`."""
        with self._gate.call("get_accessible_ports", deadline):
            workload = self._find(id)
            return {port: port for port in workload.spec.ports} if workload.running else {}

    def open_stream(self, id: str, spec: ExecSpec | None, *, deadline: Deadline | None = None) -> ExecStream:
        """See `Backend.open_stream`."""
        with self._gate.call("open_stream", deadline):
            workload = self._find(id)
            return FakeStream(self._gate, workload, workload.attach() if spec is None else workload.run(spec))

    # --- behind podkit's back -----------------------------------------------------------------------

    def end(
        self,
        id: str,
        exit_code: int = 0,
        *,
        oom: bool = False,
        status: ContainerStatus = ContainerStatus.EXITED,
        seconds_ago: float = 0.0,
    ) -> None:
        """End a workload's main process and all that runs inside.

        Args:
            id: the full id.
            exit_code: of the main process.
            oom: whether the kernel killed it for memory; pass `exit_code=137` too.
            status: the workload's state afterwards, such as `ContainerStatus.DEAD`.
            seconds_ago: the age of this end, in the engine's report.
        """
        with self._gate.locked():
            self._find(id).end(exit_code, self._gate.now - seconds_ago, oom_killed=oom, status=status)

    def pause(self, id: str) -> None:
        """Pause a workload. A paused one takes no command."""
        with self._gate.locked():
            self._find(id).status = ContainerStatus.PAUSED

    def unpause(self, id: str) -> None:
        """Let a paused workload go on."""
        with self._gate.locked():
            self._find(id).status = ContainerStatus.RUNNING

    def vanish(self, id: str) -> None:
        """Remove a workload, as somebody else would."""
        with self._gate.locked():
            self._remove(self._find(id))

    def running(self, id: str) -> list[list[str]]:
        """Return the running command lines, the main process's first."""
        with self._gate.locked():
            return self._find(id).running_argvs()

    def files(self, id: str) -> Files:
        """Return a workload's file system, a mutable mapping of absolute paths to bytes."""
        with self._gate.locked():
            return self._find(id).files

    # --- faults -------------------------------------------------------------------------------------

    def fail(
        self, method: str, error: BaseException | type[BaseException], *, times: int = 1, after: bool = False
    ) -> None:
        """Have the next calls of a method fail.

        Args:
            method: one of `Backend`'s, or `wait`, `read`, `write` or `exit_code` of its streams.
            error: the error that they raise.
            times: the number of calls.
            after: whether to fail after the engine has done its work, as when its answer is lost.
        """

        def act() -> None:
            raise error

        self._gate.plan(method, act, times, after=after)

    def interpose(self, method: str, action: Callable[[], object], *, times: int = 1, after: bool = False) -> None:
        """Call something before or after a method's next calls, in their thread.

        This makes races happen: `fake.interpose("open_stream", lambda: fake.vanish(id))`.
        """
        self._gate.plan(method, action, times, after=after)

    def freeze(self) -> None:
        """Freeze the engine. Calls and reads raise `EngineTimeout` at their deadline."""
        self._gate.set_engine(Engine.FROZEN)

    def go_down(self) -> None:
        """Take the engine down. Streams break, calls raise `EngineUnavailable`; workloads live on."""
        self._gate.set_engine(Engine.DOWN)

    def recover(self) -> None:
        """End `freeze` or `go_down`. Streams that broke stay broken."""
        self._gate.set_engine(Engine.UP)

    # --- inside: all of it under the gate's lock ----------------------------------------------------

    def _find(self, id: str) -> Workload:
        # the way to every workload, so its processes are always up to date
        workload = self._workloads.get(id)
        if workload is None:
            raise ContainerNotFound(f"there is no container {id!r}")
        workload.catch_up()
        return workload

    def _remove(self, workload: Workload) -> None:
        if workload.running:
            workload.end(KILLED, self._gate.now)
        workload.removed = True
        self._workloads.pop(workload.id, None)

    def _check_networks(self, spec: WorkloadSpec) -> None:
        for network in spec.networks:
            if network not in self.networks:
                raise NetworkNotFound(f"the network {network!r} does not exist")

    def _check_ports(self, workload: Workload) -> None:
        taken = set(self.taken_ports)
        for other in self._workloads.values():
            other.catch_up()  # one that has ended by now holds no port
            if other.running:
                taken.update(other.spec.ports)
        if clash := sorted(taken.intersection(workload.spec.ports)):
            raise PortUnavailable(
                f"port {clash[0]} of the host is already in use: choose another one, or stop its user"
            )

    def _let_time_pass(self, workload: Workload, seconds: float, deadline: Deadline) -> None:
        """Wait for a workload's end for at most `seconds`."""
        # the deadline is the caller's own time, `seconds` is the time inside
        until = self._gate.now + seconds
        while workload.running and self._gate.now < until:
            if deadline.expired:
                raise EngineTimeout(f"container {workload.id[:12]} still runs")
            self._gate.wait(deadline, min(until, workload.wakes_at))
            workload.catch_up()
