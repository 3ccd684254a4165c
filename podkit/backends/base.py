"""The seam between podkit and an engine.

A backend makes, starts, stops, removes, inspects and lists workloads, and opens a byte stream to a process inside one.
Everything else (commands, timeouts, output limits, files, sessions) is written once, above the seam. A Kubernetes pod
fits the seam as well as a container: creating may already start it, its mounts are fixed, nothing transfers files, and
a restart is a method of its own. For a missing feature a backend raises `NotSupported`, and never returns a default.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypedDict

from podkit._models.container_status import ContainerStatus
from podkit.backends._filters import Filters, matches
from podkit.utils._deadline import Deadline

__all__ = [
    "Backend",
    "Chunk",
    "Deadline",
    "ExecSpec",
    "ExecStream",
    "Filters",
    "MountSpec",
    "NotStarted",
    "SharedFiles",
    "Stream",
    "WorkloadInfo",
    "WorkloadRow",
    "WorkloadSpec",
    "matches",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class MountSpec:
    """One mount of a workload.

    Attributes:
        type: `bind` for a directory or file of the engine's host, `volume`, or `tmpfs` for memory.
        target: the absolute path inside.
        source: the absolute path on the engine's host, or the name of the volume. A missing volume is made. One without
            a name is made for this workload alone.
        read_only: whether the workload can only read it.
        subpath: the one directory of the volume to mount, made if missing; `""` mounts the whole volume.
        size_bytes: capacity of a `tmpfs`; `None` for the engine's default.
        mode: the permissions of a `tmpfs`; `None` opens it to every user, as `/tmp`.
    """

    type: Literal["bind", "volume", "tmpfs"]
    target: str
    source: str = ""
    read_only: bool = False
    subpath: str = ""
    size_bytes: int | None = None
    mode: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SharedFiles:
    """Programs that all workloads of an engine share, read-only.

    Attributes:
        name: unique to this content, such as a name with a digest. No other content may ever use it.
        target: the absolute path of their directory inside a workload.
        by_architecture: the engine's architecture in Go's terms (`amd64`, `arm64`) -> name and file of each program.
    """

    name: str
    target: str
    by_architecture: Mapping[str, Mapping[str, Path]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """The specification of a workload, the same for every engine.

    Attributes:
        name: at most 63 characters; unique on the engine.
        image: reference of the image.
        labels: the key and value pairs that find the workload again.
        entrypoint: `None` leaves the image's own; an empty list removes it.
        command: `None` leaves the image's own.
        environment: variables of the main process and of every command.
        user: `None` means the image's.
        working_dir: absolute; the backend makes it if it is missing.
        mounts: each with a target of its own.
        ports: each is published on the same port of the host's loopback.
        networks: names of existing networks; empty means the engine's default.
        cpu_limit: cores.
        memory_bytes: limit of memory and swap together.
        pids_limit: limit of processes and threads.
        capabilities: the ones that the workload keeps; it loses every other.
        init: run the engine's own init as first process, which reaps and passes signals on.
        attachable: whether the main process reads and writes a stream, which `open_stream` opens. No log keeps its
            output then.
        shm_bytes: size of `/dev/shm`; `None` means the engine's default.
        extra_hosts: host name -> address, for the workload's `/etc/hosts`.
        shared: files beside the mounts. Creating the first workload that names them places them on the engine, without
            running anything; later workloads only use them.
    """

    name: str
    image: str
    labels: Mapping[str, str]
    entrypoint: Sequence[str] | None
    command: Sequence[str] | None
    environment: Mapping[str, str]
    user: str | None
    working_dir: str
    mounts: Sequence[MountSpec]
    ports: Sequence[int]
    networks: Sequence[str]
    cpu_limit: float
    memory_bytes: int
    pids_limit: int
    capabilities: Sequence[str]
    init: bool
    attachable: bool = False
    shm_bytes: int | None = None
    extra_hosts: Mapping[str, str] = field(default_factory=dict)
    shared: SharedFiles | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadInfo:
    """A workload's state, as the engine reports it at one moment.

    Attributes:
        id: the engine's full id.
        name: as podkit chose it, without an engine's prefix such as `/`.
        status: its state.
        labels: all of them, podkit's and the image's.
        exit_code: of the main process once it has ended, else `None`.
        oom_killed: the kernel killed the main process for memory.
        error: the engine's own words, where starting failed.
        created_at: by the engine's clock.
        started_at: of the present or last run; it differs between any two runs.
        finished_at: of the last run, `None` before its end.
        environment: of the main process.
        user: of the main process; empty means root, by the image's default.
        working_dir: the directory of its commands.
        networks: the names of its networks.
        mounts: pairs of the source on the engine's host and the target inside.
    """

    id: str
    name: str
    status: ContainerStatus
    labels: Mapping[str, str]
    exit_code: int | None = None
    oom_killed: bool = False
    error: str = ""
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    working_dir: str = "/"
    networks: Sequence[str] = ()
    mounts: Sequence[tuple[str, str]] = ()


class WorkloadRow(TypedDict):
    """One line of `Backend.list_workloads`."""

    id: str
    name: str
    status: ContainerStatus
    labels: dict[str, str]


class Stream(Enum):
    """Which of a command's streams some bytes belong to."""

    STDOUT = 1
    STDERR = 2


class Chunk(NamedTuple):
    """Some bytes of a command's output. Empty once both streams have ended."""

    stream: Stream
    data: bytes


class NotStarted(Exception):
    """The engine could not start a command. Nothing ran.

    Internal: callers see exit code 126 or 127, or `ContainerNotRunning`.

    Attributes:
        exit_code: 127 for a missing program, 126 for one that cannot be run, `None` if the program is not the reason.
    """

    def __init__(self, message: str = "", *, exit_code: int | None = 127) -> None:
        super().__init__(message)
        self.exit_code = exit_code


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecSpec:
    """A process to start inside a running workload.

    Attributes:
        argv: the program and its arguments, run without a shell.
        user: `None` means the workload's.
        working_dir: absolute; `None` means the workload's.
        environment: added to the workload's.
        stdin: whether the process can read from the stream; else its standard input is empty.
    """

    argv: Sequence[str]
    user: str | None = None
    working_dir: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: bool = False


class ExecStream(Protocol):
    """The byte stream to one process. One thread may read while another writes; `close` may come from any."""

    def wait(self, deadline: Deadline) -> bool:
        """Wait until `read` has something to return. Takes nothing.

        Returns:
            True once there are bytes or the streams have ended; false if the deadline expired first.

        Raises:
            EngineUnavailable: the connection broke.
        """
        ...

    def read(self, deadline: Deadline) -> Chunk | None:
        """Return the next bytes of output. An empty chunk, for ever, once both streams have ended.

        Bytes that have come are returned even after the deadline. `None` means that it expired first; the caller may
        read again.

        Raises:
            EngineUnavailable: the connection broke.
        """
        ...

    def write(self, data: bytes, deadline: Deadline) -> None:
        """Write `data` to the process's standard input. Blocks while it does not read.

        Raises:
            BrokenPipeError: the process has closed its standard input, or ended.
            EngineTimeout: the deadline expired before all was written. The stream takes no more input then.
        """
        ...

    def close_stdin(self) -> None:
        """End the process's standard input; its output goes on."""
        ...

    def exit_code(self, *, deadline: Deadline | None = None) -> int | None:
        """Return the exit code, `None` while the process runs. Asks the engine.

        Raises:
            NotStarted: nothing ran: the program was missing, could not be run, or the workload was just ending. Any
                output is the engine's own.
            ContainerNotFound: the workload is gone, and its exit codes with it.
            InvalidInput: the engine refused the user or the working directory at the start of the process.
            EngineTimeout: the engine did not answer in time.
        """
        ...

    def close(self) -> None:
        """Close the connection; the process inside may live on. Twice is harmless."""
        ...


class Backend(Protocol):
    """An engine. Making the object does no I/O; `connect` comes first.

    Every method raises only errors of `podkit.errors` and is safe to call from many threads. It blocks until its
    `deadline` at most, also while the engine is frozen, and then raises `EngineTimeout`; the engine may still carry out
    the request. The default is 60 s for each call to the engine. After `os.fork()` a child makes connections of its
    own. All methods take the engine's full id; `inspect_workload` takes a name too.
    """

    def connect(self, *, deadline: Deadline | None = None) -> None:
        """Find the engine and make sure that it answers. Twice is harmless; after `close` it connects anew.

        Raises:
            EngineUnavailable: none answers; the message lists every address that was tried, in order.
        """
        ...

    def close(self) -> None:
        """Close idle connections. Streams stay open, nothing on the engine changes, and twice is harmless."""
        ...

    def create_workload(
        self, spec: WorkloadSpec, *, pulling: Callable[[str], None] | None = None, deadline: Deadline | None = None
    ) -> str:
        """Make a workload and return its id. A missing image is pulled first.

        Some engines start it at once, the others at `start_workload`. When many threads and processes create the same
        name at once, one of them succeeds. A failed call leaves nothing behind.

        Args:
            spec: the workload to make.
            pulling: called with a short text every now and then while the image is pulled.
            deadline: when to give up; by default a pull may pause for 60 s between two signs of life.

        Raises:
            NameTaken: a workload with this name exists.
            ImageNotFound: the image is not on the engine and cannot be pulled.
            NetworkNotFound: a network does not exist; some engines look only at the start.
            MountSourceNotFound: a source does not exist on the engine's host.
            NotSupported: the engine lacks a feature that `spec` needs.
        """
        ...

    def start_workload(self, id: str, *, deadline: Deadline | None = None) -> bool:
        """Start a workload that was created or has ended. One that runs is no error.

        Returns:
            Whether this call started it: true for one of many concurrent calls.

        Raises:
            ContainerNotFound: it is gone.
            PortUnavailable: one of its ports is taken.
            NetworkNotFound: one of its networks is gone.
            ContainerFailedToStart: its main process cannot be run.
            NotSupported: it has ended, and this engine cannot start it again.
        """
        ...

    def stop_workload(self, id: str, timeout: float, *, deadline: Deadline | None = None) -> None:
        """Stop a workload. Returns once all of its processes have ended. One that does not run is no error.

        Close the streams to its commands first: an engine is slow to stop a workload whose output nobody reads.

        Args:
            id: the full id.
            timeout: seconds from SIGTERM to SIGKILL; 0 kills at once.
            deadline: when to give up; the default is 60 s plus `timeout`.

        Raises:
            ContainerNotFound: it is gone.
        """
        ...

    def restart_workload(self, id: str, *, deadline: Deadline | None = None) -> None:
        """Kill everything in a workload and start it again. Its id and files stay.

        A workload that has ended is started. Close the streams to its commands first.

        Raises:
            ContainerNotFound: it is gone.
            ContainerFailedToStart: its main process can no longer be run.
        """
        ...

    def remove_workload(self, id: str, *, force: bool = True, deadline: Deadline | None = None) -> bool:
        """Remove a workload and its unnamed volumes. A missing one is no error. Returns when it is gone.

        Called by `remove_container`, a failed create and the orphan cleaner: twice is normal.

        Args:
            id: the full id.
            force: whether to kill a running one first; else it stays and `ContainerError` is raised.
            deadline: when to give up.

        Returns:
            Whether this call removed it: true for one of many concurrent calls.
        """
        ...

    def inspect_workload(self, id: str, *, deadline: Deadline | None = None) -> WorkloadInfo:
        """Ask the engine for a workload's present state.

        Raises:
            ContainerNotFound: no workload has this id or name.
        """
        ...

    def list_workloads(self, filters: Filters | None = None, *, deadline: Deadline | None = None) -> list[WorkloadRow]:
        """List workloads in any state.

        Args:
            filters: `label`: texts `key=value`, or `key`, all of which must match; `name`: `"^text"` for names that
                begin with the text, `"text"` for the name that equals it. podkit matches names itself: engines differ.
            deadline: when to give up.

        Raises:
            InvalidInput: a filter is neither of these.
        """
        ...

    def get_workload_logs(self, id: str, lines: int, *, deadline: Deadline | None = None) -> str:
        """Return the main process's last lines, at most 64 KiB. Both streams, in order.

        Raises:
            ContainerNotFound: it is gone.
        """
        ...

    def get_accessible_ports(self, id: str, *, deadline: Deadline | None = None) -> dict[int, int]:
        """Return the published TCP ports, container -> host. Empty while it does not run.

        Raises:
            ContainerNotFound: it is gone.
        """
        ...

    def open_stream(self, id: str, spec: ExecSpec | None, *, deadline: Deadline | None = None) -> ExecStream:
        """Start a process in a running workload and open its stream.

        Args:
            id: the full id.
            spec: the process to start. `None` opens the stream to the main process of an `attachable` workload before
                its first start; only the caller that created the workload may do so. This stream ends with the
                workload, even if its main process closes its outputs. Closing it ends that process's standard input.
            deadline: when to give up.

        Raises:
            ContainerNotFound: it is gone; nothing was started.
            ContainerNotRunning: it is stopped or paused; nothing was started.
            InvalidInput: the engine refused the user or the working directory.
            NotSupported: the engine lacks a feature that `spec` needs, such as a user.
        """
        ...


def is_root(user: str) -> bool:
    """Whether a user, as an engine names it, is root."""
    return user.partition(":")[0] in ("", "0", "root")
