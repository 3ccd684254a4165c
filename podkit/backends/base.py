"""The seam between podkit and an engine: what only an engine can do, and nothing else.

A backend makes, starts, stops, removes, inspects and lists workloads, and opens a byte stream to a process inside one.
Commands, timeouts, output limits, files, sessions are written once, above it. The seam is drawn so that a Kubernetes
pod fits as well as a container: creating may already start, mounts are fixed at birth, and there is no file transfer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, NamedTuple, Protocol, TypedDict

from podkit.core.models import ContainerStatus
from podkit.utils._deadline import Deadline

__all__ = [
    "Backend",
    "Chunk",
    "ExecSpec",
    "ExecStream",
    "Filters",
    "NotStarted",
    "Stream",
    "WorkloadInfo",
    "WorkloadRow",
    "WorkloadSpec",
    "matches",
]

Filters = Mapping[str, str | Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadSpec:
    """What a workload is made of, in no engine's terms but the mounts'.

    Attributes:
        name: at most 63 characters; unique on the engine.
        image: reference of the image.
        labels: what the workload is found by.
        entrypoint: `None` leaves the image's own, an empty list removes it.
        command: `None` leaves the image's own.
        environment: variables of the main process and of every command.
        user: `None` means the image's.
        working_dir: absolute; the backend sees that it exists.
        mounts: Docker's mount dicts: `Type`, `Source`, `Target`, `ReadOnly`, `VolumeOptions`, `TmpfsOptions`.
        ports: each is published on the same port of the host's loopback.
        networks: names of existing networks; empty means the engine's default.
        cpu_limit: cores.
        memory_bytes: limit of memory and swap together.
        pids_limit: limit of processes and threads.
        capabilities: all that the workload keeps.
        init: run the engine's own init as first process, which reaps and passes signals on.
    """

    name: str
    image: str
    labels: Mapping[str, str]
    entrypoint: Sequence[str] | None
    command: Sequence[str] | None
    environment: Mapping[str, str]
    user: str | None
    working_dir: str
    mounts: Sequence[Mapping[str, Any]]
    ports: Sequence[int]
    networks: Sequence[str]
    cpu_limit: float
    memory_bytes: int
    pids_limit: int
    capabilities: Sequence[str]
    init: bool


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
        networks: the names of the networks that it is in.
        mounts: pairs of the source on the engine's host and the target inside.
        running_commands: how many commands run in it besides the main process.
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
    networks: Sequence[str] = ()
    mounts: Sequence[tuple[str, str]] = ()
    running_commands: int = 0


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
    """Some bytes of a command's output; no bytes mean that both streams have ended."""

    stream: Stream
    data: bytes


class NotStarted(Exception):
    """The engine could not start a command: nothing of it has run. Goes no further than to whoever runs commands.

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

    def read(self, deadline: Deadline) -> Chunk:
        """Give the next bytes of output as they come; an empty chunk, for ever, once both streams have ended.

        Bytes that are there are given at once, whatever the deadline.

        Raises:
            EngineTimeout: nothing came before the deadline; reading may go on.
            EngineUnavailable: the connection broke.
        """
        ...

    def write(self, data: bytes, deadline: Deadline) -> None:
        """Write all of `data` to the process's standard input; blocks while it does not read.

        Raises:
            BrokenPipeError: the process has closed its standard input, or ended.
            EngineTimeout: not all could be written before the deadline.
        """
        ...

    def close_stdin(self) -> None:
        """End the process's standard input; its output goes on."""
        ...

    def exit_code(self) -> int | None:
        """Ask the engine for the exit code; `None` while the process runs.

        Raises:
            NotStarted: nothing has run: there was no such program, it could not be run, or the workload was just
                ending; what was read of the output is the engine's.
            ContainerNotFound: the workload is gone, and with it the answer.
            InvalidInput: the engine refused the user or the working directory when it started the process.
        """
        ...

    def close(self) -> None:
        """Close the connection; the process inside may live on. Twice is harmless."""
        ...


class Backend(Protocol):
    """An engine. Making the object does no I/O; `connect` comes first.

    Every method blocks for at most the deadline that its caller set (`podkit.utils._deadline.call_deadline`), also
    while the engine is frozen, raises only errors of `podkit.errors`, and is safe to call from many threads. After
    `os.fork()` a child makes connections of its own. All methods take the engine's full id; `inspect_workload` takes a
    name too.
    """

    def connect(self) -> None:
        """Find the engine and make sure that it answers; twice is harmless.

        Raises:
            EngineUnavailable: none answers; the message says what was tried, in order.
        """
        ...

    def pull_image(self, image: str, progress: Callable[[str], None]) -> None:
        """Fetch an image; blocks for as long as that takes. `progress` gets a short text every now and then.

        Called by the container manager when `create_workload` misses the image.

        Raises:
            ImageNotFound: it cannot be had.
        """
        ...

    def create_workload(self, spec: WorkloadSpec) -> str:
        """Make a workload and give its id. It runs after `start_workload`, at the latest.

        Called with the same name by many threads and processes at once: one succeeds. Leaves nothing behind when it
        fails.

        Raises:
            NameTaken: a workload with this name exists.
            ImageNotFound: the image is not on the engine.
            NetworkNotFound: a network does not exist; some engines notice it only at the start.
            MountSourceNotFound: a source does not exist where the engine is.
        """
        ...

    def start_workload(self, id: str) -> None:
        """Start a workload that was created or has ended; one that runs already is no error.

        Raises:
            ContainerNotFound: it is gone.
            PortUnavailable: one of its ports is taken.
            NetworkNotFound: one of its networks is gone.
            ContainerFailedToStart: its main process cannot be run.
        """
        ...

    def stop_workload(self, id: str, timeout: float) -> None:
        """Stop a workload; returns when nothing of it runs. One that does not run is no error.

        Close the streams to its commands first: an engine that cannot get rid of their output is slow to stop it.

        Args:
            id: the full id.
            timeout: seconds from SIGTERM to SIGKILL; 0 kills at once.

        Raises:
            ContainerNotFound: it is gone.
        """
        ...

    def remove_workload(self, id: str, *, force: bool = True) -> None:
        """Remove a workload and what was made for it alone; a missing one is no error. Returns when it is gone.

        Called by `remove_container`, a failed create and the orphan cleaner: twice is normal.

        Args:
            id: the full id.
            force: whether a running one is killed first; else it stays and `ContainerError` is raised.
        """
        ...

    def inspect_workload(self, id: str) -> WorkloadInfo:
        """Say what the engine knows of a workload now.

        Raises:
            ContainerNotFound: there is none with this id or name.
        """
        ...

    def list_workloads(self, filters: Filters | None = None) -> list[WorkloadRow]:
        """List workloads in any state.

        Args:
            filters: `label`: texts `key=value`, or `key`, all of which must match; `name`: `"^text"` for names that
                begin with the text, `"text"` for the name that equals it, matched by podkit and never by the engine.

        Raises:
            InvalidInput: there is no such filter.
        """
        ...

    def get_workload_logs(self, id: str, lines: int) -> str:
        """Give the last lines that the main process wrote, both streams together, at most 64 KiB.

        Raises:
            ContainerNotFound: it is gone.
        """
        ...

    def get_accessible_ports(self, id: str) -> dict[int, int]:
        """Give the published TCP ports: container port -> host port; empty while it does not run.

        Raises:
            ContainerNotFound: it is gone.
        """
        ...

    def open_stream(self, id: str, spec: ExecSpec) -> ExecStream:
        """Start a process inside a running workload and open the stream to it.

        Raises:
            ContainerNotFound: it is gone; nothing was started.
            ContainerNotRunning: it is stopped or paused; nothing was started.
            InvalidInput: the engine refused the user or the working directory.
        """
        ...


def matches(row: WorkloadRow, filters: Filters) -> bool:
    """Whether a row passes the filters, in the terms of `Backend.list_workloads`."""
    names, labels = filter_values(filters, "name"), filter_values(filters, "label")
    return all(_name_matches(row["name"], wanted) for wanted in names) and all(
        _label_matches(row["labels"], wanted) for wanted in labels
    )


def filter_values(filters: Filters, key: str) -> list[str]:
    """Give the texts of one filter as a list."""
    value = filters.get(key, ())
    return [value] if isinstance(value, str) else list(value)


def _name_matches(name: str, wanted: str) -> bool:
    if not wanted.startswith("^"):
        return name == wanted
    begin = wanted[1:]
    return name == begin[:-1] if begin.endswith("$") else name.startswith(begin)


def _label_matches(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)
