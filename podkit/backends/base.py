"""The seam between podkit and an engine: only what an engine alone can do.

A backend makes, starts, stops, removes, inspects and lists workloads, and opens a byte stream to a process inside one.
Commands, timeouts, output limits, files, sessions are written once, above it. The seam is drawn so that a Kubernetes
pod fits as well as a container: creating may already start, mounts are fixed at birth, there is no file transfer, and
who wants a workload restarted asks for that. What an engine cannot do is `NotSupported`, never an empty answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypedDict

from podkit._models.status import ContainerStatus
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
        source: the absolute path on the engine's host, or the name of the volume, which is made where it is missing; a
            volume without a name is made for this workload alone.
        read_only: whether it refuses to be written to.
        subpath: the directory of the volume that is mounted alone, made where it is missing; `""` for all of it.
        size_bytes: how much a `tmpfs` may hold; `None` for the engine's default.
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
        name: unique to this content, such as a name with a digest; no other content ever has it.
        target: the absolute directory in which a workload sees them.
        by_architecture: the engine's architecture in Go's terms (`amd64`, `arm64`) -> name and file of each program.
    """

    name: str
    target: str
    by_architecture: Mapping[str, Mapping[str, Path]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """What a workload is made of, in no engine's terms.

    Attributes:
        name: at most 63 characters; unique on the engine.
        image: reference of the image.
        labels: what the workload is found by.
        entrypoint: `None` leaves the image's own, an empty list removes it.
        command: `None` leaves the image's own.
        environment: variables of the main process and of every command.
        user: `None` means the image's.
        working_dir: absolute; the backend sees that it exists.
        mounts: no two have the same target.
        ports: each is published on the same port of the host's loopback.
        networks: names of existing networks; empty means the engine's default.
        cpu_limit: cores.
        memory_bytes: limit of memory and swap together.
        pids_limit: limit of processes and threads.
        capabilities: all that the workload keeps.
        init: run the engine's own init as first process, which reaps and passes signals on.
        attachable: whether the main process reads and writes a stream, which `open_stream` gives; what it writes is
            kept in no log.
        shared: files that it sees besides its mounts; creating the first workload that names them places them on the
            engine, running nothing, and the others only use them.
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
    shared: SharedFiles | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadInfo:
    """What the engine says of a workload at one moment.

    Attributes:
        id: the engine's full id.
        name: without any decoration of the engine's.
        status: its state.
        labels: all of them, podkit's and the image's.
        exit_code: of the main process once it has ended, else `None`.
        oom_killed: the kernel killed the main process for memory.
        error: the engine's own words, where starting failed.
        created_at: by the engine's clock.
        started_at: of the present or last run; tells one run from the next.
        finished_at: of the last run, `None` before its end.
        environment: of the main process.
        user: who runs it, empty for the image's default of root.
        working_dir: where its commands run.
        networks: the names of the networks that it is in.
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
        exit_code: 127 where there is no such program, 126 where it cannot be run, `None` where it was not the program.
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
        stdin: whether the process gets a stream to read; else its standard input is empty.
    """

    argv: Sequence[str]
    user: str | None = None
    working_dir: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    stdin: bool = False


class ExecStream(Protocol):
    """The byte stream to one process. One thread may read while another writes; `close` may come from any."""

    def wait(self, deadline: Deadline) -> bool:
        """Wait until `read` is worth a try, also at the end. Takes nothing.

        Returns:
            Whether it has; false where nothing came before the deadline.

        Raises:
            EngineUnavailable: the connection broke.
        """
        ...

    def read(self, deadline: Deadline) -> Chunk | None:
        """Return the next bytes of output. An empty chunk, for ever, once both streams have ended.

        Bytes that are there are returned at once, whatever the deadline. `None` says that nothing came before it;
        reading may go on.

        Raises:
            EngineUnavailable: the connection broke.
        """
        ...

    def write(self, data: bytes, deadline: Deadline) -> None:
        """Write `data` to the process's standard input. Blocks while it does not read.

        Raises:
            BrokenPipeError: the process has closed its standard input, or ended.
            EngineTimeout: not all could be written before the deadline; nothing more can be written.
        """
        ...

    def close_stdin(self) -> None:
        """End the process's standard input; its output goes on."""
        ...

    def exit_code(self, *, deadline: Deadline | None = None) -> int | None:
        """Return the exit code, `None` while the process runs. Asks the engine.

        Raises:
            NotStarted: nothing has run: there was no such program, it could not be run, or the workload was just
                ending; what was read of the output is the engine's.
            ContainerNotFound: the workload is gone, and with it the answer.
            InvalidInput: the engine refused the user or the working directory when it started the process.
            EngineTimeout: the engine did not answer in time.
        """
        ...

    def close(self) -> None:
        """Close the connection; the process inside may live on. Twice is harmless."""
        ...


class Backend(Protocol):
    """An engine. Making the object does no I/O; `connect` comes first.

    Every method raises only errors of `podkit.errors` and is safe to call from many threads. It blocks until its
    `deadline` at most, also while the engine is frozen, and then raises `EngineTimeout`: what was asked may still
    happen. Without one a call to the engine has 60 s. After `os.fork()` a child makes connections of its own. All
    methods take the engine's full id; `inspect_workload` takes a name too.
    """

    def connect(self, *, deadline: Deadline | None = None) -> None:
        """Find the engine and make sure that it answers. Twice is harmless; after `close` it connects anew.

        Raises:
            EngineUnavailable: none answers; the message says what was tried, in order.
        """
        ...

    def close(self) -> None:
        """Close the connections that no call uses; streams go on. Nothing on the engine changes; twice is harmless."""
        ...

    def create_workload(
        self, spec: WorkloadSpec, *, pulling: Callable[[str], None] | None = None, deadline: Deadline | None = None
    ) -> str:
        """Make a workload and return its id. A missing image is pulled first.

        It runs after `start_workload`, at the latest. Called with the same name by many threads and processes at once:
        one succeeds. Leaves nothing behind when it fails.

        Args:
            spec: what to make.
            pulling: gets a short text every now and then while the image is pulled.
            deadline: until when; without one a pull has 60 s for each sign of life.

        Raises:
            NameTaken: a workload with this name exists.
            ImageNotFound: the image is neither on the engine nor to be had.
            NetworkNotFound: a network does not exist; some engines notice it only at the start.
            MountSourceNotFound: a source does not exist where the engine is.
            NotSupported: the engine has nothing for a part of `spec`.
        """
        ...

    def start_workload(self, id: str, *, deadline: Deadline | None = None) -> bool:
        """Start a workload that was created or has ended. One that runs is no error.

        Returns:
            Whether this call started it: of many at once that is one.

        Raises:
            ContainerNotFound: it is gone.
            PortUnavailable: one of its ports is taken.
            NetworkNotFound: one of its networks is gone.
            ContainerFailedToStart: its main process cannot be run.
            NotSupported: it has ended, and this engine cannot start it again.
        """
        ...

    def stop_workload(self, id: str, timeout: float, *, deadline: Deadline | None = None) -> None:
        """Stop a workload; returns when nothing of it runs. One that does not run is no error.

        Close the streams to its commands first: an engine that cannot get rid of their output is slow to stop it.

        Args:
            id: the full id.
            timeout: seconds from SIGTERM to SIGKILL; 0 kills at once.
            deadline: until when; without one 60 s and `timeout`.

        Raises:
            ContainerNotFound: it is gone.
        """
        ...

    def restart_workload(self, id: str, *, deadline: Deadline | None = None) -> None:
        """Kill everything in a workload and start it again. Its id and files stay.

        One that has ended is started. Close the streams to its commands first.

        Raises:
            ContainerNotFound: it is gone.
            ContainerFailedToStart: its main process cannot be run any more.
        """
        ...

    def remove_workload(self, id: str, *, force: bool = True, deadline: Deadline | None = None) -> bool:
        """Remove a workload with what was made for it alone. A missing one is no error. Returns when it is gone.

        Called by `remove_container`, a failed create and the orphan cleaner: twice is normal.

        Args:
            id: the full id.
            force: whether a running one is killed first; else it stays and `ContainerError` is raised.
            deadline: until when.

        Returns:
            Whether this call removed it: of many at once that is one.
        """
        ...

    def inspect_workload(self, id: str, *, deadline: Deadline | None = None) -> WorkloadInfo:
        """Return what the engine says of a workload now.

        Raises:
            ContainerNotFound: there is none with this id or name.
        """
        ...

    def list_workloads(self, filters: Filters | None = None, *, deadline: Deadline | None = None) -> list[WorkloadRow]:
        """List workloads in any state.

        Args:
            filters: `label`: texts `key=value`, or `key`, all of which must match; `name`: `"^text"` for names that
                begin with the text, `"text"` for the name that equals it, matched by podkit and never by the engine.
            deadline: until when.

        Raises:
            InvalidInput: there is no such filter.
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
            spec: what to start; `None` opens the stream to the main process of an `attachable` workload that was not
                started yet. At most one caller may: whoever created it, and then starts it. The stream ends with the
                workload, whatever its main process closes; closing it ends the main process's standard input.
            deadline: until when.

        Raises:
            ContainerNotFound: it is gone; nothing was started.
            ContainerNotRunning: it is stopped or paused; nothing was started.
            InvalidInput: the engine refused the user or the working directory.
            NotSupported: the engine has nothing for a part of `spec`, such as a user.
        """
        ...


def is_root(user: str) -> bool:
    """Whether a user, as an engine names it, is root."""
    return user.partition(":")[0] in ("", "0", "root")
