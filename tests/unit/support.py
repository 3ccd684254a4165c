"""What the unit tests share."""

from __future__ import annotations

import os
import signal
import threading
import traceback
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

from podkit.backends.base import Deadline, ExecStream, WorkloadInfo, WorkloadSpec
from podkit.core.events import PodkitEventHandler
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, ContainerStatus, Session
from podkit.core.session import BaseSessionManager
from podkit.testing import FakeBackend, Invocation, Pause, Steps

T = TypeVar("T")

PREFIX = "unit"
CANARY = "canary-7f3a9e"
"""A secret: nothing that others read may contain it."""

PATHS_THAT_LEAVE = ["../x", "a/../../x", "/workspace/../etc/passwd", "~/x", "~root/x", "", "a\0b", "x" * 5000]
"""The paths of FS-01 that are refused for what they are, before anybody looks at a file."""

MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Recorder(PodkitEventHandler):
    """Remembers what it is told; `raising` holds what its methods raise, by name."""

    def __init__(self) -> None:
        self.events: list[tuple[str, tuple[Any, ...]]] = []
        self.raising: dict[str, BaseException] = {}
        self.change: Callable[[ContainerConfig], Any] = lambda config: config

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.events]

    def arguments(self, name: str) -> tuple[Any, ...]:
        """The arguments of the only event of this name."""
        [found] = [arguments for event, arguments in self.events if event == name]
        return found

    def _note(self, name: str, *arguments: Any) -> None:
        self.events.append((name, arguments))
        if name in self.raising:
            raise self.raising[name]

    def on_container_creating(self, user_id: str, session_id: str, config: ContainerConfig) -> ContainerConfig:
        self._note("on_container_creating", user_id, session_id, config)
        changed: ContainerConfig = self.change(config)
        return changed

    def on_container_created(self, *arguments: Any) -> None:
        self._note("on_container_created", *arguments)

    def on_container_creation_failed(self, *arguments: Any) -> None:
        self._note("on_container_creation_failed", *arguments)

    def on_image_pulling(self, image: str, progress: str) -> None:
        self._note("on_image_pulling", image, progress)

    def on_container_removed(self, container_id: str, container_name: str) -> None:
        self._note("on_container_removed", container_id, container_name)

    def on_session_created(self, session: Session) -> None:
        self._note("on_session_created", session)

    def on_session_creation_failed(self, user_id: str, session_id: str, error: Exception) -> None:
        self._note("on_session_creation_failed", user_id, session_id, error)

    def on_session_closing(self, session: Session) -> None:
        self._note("on_session_closing", session)

    def on_session_closed(self, session: Session) -> None:
        self._note("on_session_closed", session)

    def on_session_expired(self, session: Session) -> None:
        self._note("on_session_expired", session)

    def on_orphan_container_removed(self, container_id: str, container_name: str, age_seconds: float) -> None:
        self._note("on_orphan_container_removed", container_id, container_name, age_seconds)


def another(manager: SimpleContainerManager) -> BaseSessionManager:
    """A manager of a new process over the same prefix."""
    return BaseSessionManager(SimpleContainerManager(manager.backend, manager.container_prefix, manager.workspace_base))


def names_on(fake: FakeBackend) -> list[str]:
    """The names of all containers, without a trace in `calls`."""
    kept = list(fake.calls)
    names = [row["name"] for row in fake.list_workloads()]
    fake.calls[:] = kept
    return names


def inspected(fake: FakeBackend, id: str) -> WorkloadInfo:
    """What the engine says of a container, without a trace in `calls`."""
    kept = list(fake.calls)
    info = fake.inspect_workload(id)
    fake.calls[:] = kept
    return info


def make_info(**changes: Any) -> WorkloadInfo:
    """A container that runs, but for the changes."""
    values: dict[str, Any] = {
        "id": "f" * 64,
        "name": "unit-x",
        "status": ContainerStatus.RUNNING,
        "labels": {},
        "created_at": MOMENT,
        "started_at": MOMENT,
    }
    return WorkloadInfo(**(values | changes))


def make_spec(name: str = "unit-x", **changes: Any) -> WorkloadSpec:
    """A container that sleeps, but for the changes."""
    values: dict[str, Any] = {
        "image": "some:image",
        "labels": {},
        "entrypoint": [],
        "command": ["sleep", "60"],
        "environment": {},
        "user": None,
        "working_dir": "/workspace",
        "mounts": [],
        "ports": [],
        "networks": [],
        "cpu_limit": 1.0,
        "memory_bytes": 512 << 20,
        "pids_limit": 256,
        "capabilities": ["CHOWN"],
        "init": True,
    }
    return WorkloadSpec(name=name, **(values | changes))


def data_of(stream: ExecStream, seconds: float = 60.0) -> bytes:
    """Read what comes next of a stream, which must come in time."""
    chunk = stream.read(Deadline.after(seconds))
    assert chunk is not None, "nothing came"
    return chunk.data


def everything_said(error: BaseException) -> str:
    """All that a log or a pickle shows of an error, its causes included."""
    shown = "".join(traceback.format_exception(error))
    return "\n".join([shown, str(error), repr(error), repr(error.args)])


def at_once(count: int, action: Callable[[int], T]) -> list[T]:
    """Call `action` from so many threads at the same time; give what they return, or raise what one of them raised."""
    found: dict[int, T] = {}
    errors: list[BaseException] = []

    def act(number: int) -> None:
        try:
            found[number] = action(number)
        except BaseException as exc:  # noqa: BLE001 - it is raised below, in the thread of the test
            errors.append(exc)

    threads = [threading.Thread(target=act, args=(number,), daemon=True) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a thread hangs"
    if errors:
        raise errors[0]
    return [found[number] for number in range(count)]


def in_child(act: Callable[[], object]) -> None:
    """Fork, act in the child, and see that this went well; a deadlock ends by an alarm."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: threads and fork; that is the point
        pid = os.fork()
    if pid == 0:
        code = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)  # it may be pytest-timeout's
            signal.alarm(3)
            act()
            code = 0
        except BaseException:  # noqa: BLE001 - the child must never come back to pytest
            traceback.print_exc()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def hello(run: Invocation) -> Steps:
    """A program that says hello and goes on for some seconds."""
    yield "hello\n"
    yield Pause(float(run.argv[1]))
    return 0
