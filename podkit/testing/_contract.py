"""Fixtures and helpers of the contract suite."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from podkit._models.container_status import ContainerStatus
from podkit.backends.base import Backend, Chunk, ExecSpec, ExecStream, NotStarted, SharedFiles, Stream, WorkloadSpec
from podkit.core._capabilities import STANDARD_CAPABILITIES
from podkit.errors import PodkitError
from podkit.utils._deadline import Deadline, wait_until

PATIENCE_SECONDS = 30.0
"""The limit of waits that should end at once, chosen for a busy machine."""

_RUNS_NO_FILES = "its programs are Python functions, and no file inside can be run"

KNOWN_DIFFERENCES: dict[str, dict[str, str]] = {
    "fake": {
        "test_shared_files_are_run_and_cannot_be_written": _RUNS_NO_FILES,
        "test_files_are_shared_by_many_that_are_made_at_once": _RUNS_NO_FILES,
        "test_files_for_another_architecture_are_not_supported": _RUNS_NO_FILES,
    },
    "docker": {},
}
"""Kind of backend -> name of a test that must fail -> the reason. Such a test fails the suite if it passes."""

FOREVER = ("sleep", "infinity")


def workload_spec(name: str, image: str, **changes: Any) -> WorkloadSpec:
    """Return the specification of a sleeping workload, with `changes`."""
    fields: dict[str, Any] = {
        "name": name,
        "image": image,
        "labels": {},
        "entrypoint": [],
        "command": FOREVER,
        "environment": {},
        "user": None,
        "working_dir": "/workspace",
        "mounts": [],
        "ports": [],
        "networks": [],
        "cpu_limit": 1.0,
        "memory_bytes": 128 << 20,
        "pids_limit": 64,
        "capabilities": STANDARD_CAPABILITIES,
        "init": True,
    }
    return WorkloadSpec(**{**fields, **changes})


class Workloads:
    """Makes workloads for a test and removes them afterwards.

    Args:
        backend: the engine to make them on.
        image: their image, unless a test changes it.
        prefix: the beginning of their names.
    """

    def __init__(self, backend: Backend, image: str, prefix: str) -> None:
        self._backend = backend
        self._image = image
        self._prefix = prefix
        self._names: list[str] = []

    def spec(self, **changes: Any) -> WorkloadSpec:
        """Return a specification. Its workload is removed at the end."""
        # noted before anything is made: a creation that fails half-way is removed too
        name = f"{self._prefix}-{len(self._names)}"
        spec = workload_spec(**{"name": name, "image": self._image, **changes})
        self._names.append(spec.name)
        return spec

    def create(self, **changes: Any) -> str:
        """Create a workload."""
        return self._backend.create_workload(self.spec(**changes))

    def start(self, **changes: Any) -> str:
        """Create and start a workload."""
        id = self.create(**changes)
        self._backend.start_workload(id)
        return id

    def remove_all(self) -> None:
        """Remove all workloads."""
        for name in self._names:
            for row in self._backend.list_workloads({"name": name}):
                self._backend.remove_workload(row["id"])


@dataclass(frozen=True)
class Ended:
    """A command's exit code and output."""

    exit_code: int
    stdout: bytes
    stderr: bytes


def run(backend: Backend, id: str, argv: Sequence[str], *, input: bytes | None = None, **options: Any) -> Ended:
    """Run a command over the seam to its end."""
    stream = backend.open_stream(id, ExecSpec(argv=argv, stdin=input is not None, **options))
    try:
        # a thread of its own: a command may fill its output before it reads all of its input
        writer = threading.Thread(target=_write, args=(stream, input or b""), daemon=True)
        if input is not None:
            writer.start()
        output = read_all(stream)
        code = exit_code(stream)
        if input is not None:
            writer.join(PATIENCE_SECONDS)
        return Ended(code, output[Stream.STDOUT], output[Stream.STDERR])
    finally:
        stream.close()


def _write(stream: ExecStream, data: bytes) -> None:
    with suppress(OSError, PodkitError):  # a command need not read all of its input
        stream.write(data, Deadline.after(PATIENCE_SECONDS))
        stream.close_stdin()


def read_all(stream: ExecStream) -> Mapping[Stream, bytes]:
    """Read both streams to their end."""
    deadline = Deadline.after(PATIENCE_SECONDS)
    output = {Stream.STDOUT: b"", Stream.STDERR: b""}
    while (chunk := _next(stream, deadline)).data:
        output[chunk.stream] += chunk.data
    return output


def _next(stream: ExecStream, deadline: Deadline) -> Chunk:
    chunk = stream.read(deadline)
    assert chunk is not None, "the stream is silent"
    return chunk


def read_until(stream: ExecStream, wanted: bytes) -> bytes:
    """Read until `wanted` has come."""
    deadline, output = Deadline.after(PATIENCE_SECONDS), b""
    while wanted not in output:
        chunk = _next(stream, deadline)
        assert chunk.data, f"the stream ended after {output!r}"
        output += chunk.data
    return output


def exit_code(stream: ExecStream) -> int:
    """Wait for a command's exit code. 126 and 127 stand for one that never began."""
    found: list[int] = []

    def ended() -> bool:
        try:
            code = stream.exit_code()  # None for a moment after the output has ended
        except NotStarted as exc:
            code = exc.exit_code
        found.extend([] if code is None else [code])
        return bool(found)

    assert wait_until(ended, deadline=Deadline.after(PATIENCE_SECONDS)), "the command does not end"
    return found[0]


def wait_for_end(backend: Backend, id: str) -> None:
    """Wait until a workload's main process has ended."""

    def ended() -> bool:
        return backend.inspect_workload(id).status is ContainerStatus.EXITED

    assert wait_until(ended, deadline=Deadline.after(PATIENCE_SECONDS)), "the workload does not end"


class Contract:
    """The base of all contract tests; see `podkit.testing.suite`.

    Attributes:
        kind: of the backend; the key of its known differences.
        missing_source: a path that does not exist on the engine's host. It is new for each run, because some engines
            make a missing source.
    """

    kind: ClassVar[str] = ""
    missing_source: ClassVar[str] = f"/podkit-test-{uuid.uuid4().hex}/no/such/directory"

    @property
    def known_differences(self) -> Mapping[str, str]:
        """Test -> reason; override it, or fill `KNOWN_DIFFERENCES[kind]`."""
        return KNOWN_DIFFERENCES.get(self.kind, {})

    @classmethod
    def new_prefix(cls) -> str:
        """Return a unique prefix for one test's names. No other prefix begins with it."""
        return f"podkit-test-{uuid.uuid4().hex[:16]}"

    @classmethod
    def drop_shared_files(cls, backend: Backend, files: SharedFiles) -> None:
        """Remove one test's shared files from the engine. Override it: the seam has no method for it."""

    @pytest.fixture
    def prefix(self) -> str:
        """Return one test's prefix."""
        return self.new_prefix()

    @pytest.fixture
    def workloads(self, backend: Backend, image: str, prefix: str) -> Iterator[Workloads]:
        """Return one test's `Workloads`."""
        made = Workloads(backend, image, prefix)
        yield made
        made.remove_all()

    @pytest.fixture(autouse=True)
    def _expect_known_difference(self, request: pytest.FixtureRequest) -> None:
        name = getattr(request.node, "originalname", request.node.name)  # without the parameters
        if reason := self.known_differences.get(name):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
