"""A session for payloads: what runs in its container, and a command that nothing may touch."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from podkit import SessionProxy
from podkit.backends.base import Backend
from podkit.core.command import Command
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from tests.support.engine import Engine
from tests.support.payloads import PIDS_LIMIT

_OURS = (
    "cat",
    "[agent]",  # ends just now, such as with its container
    "[podkit-command]",  # a supervisor that has told of its command's end, and is about to end itself
    "[podkit-command] <defunct>",
    "runc init",  # the engine answers a little before the first process is itself
)

Workspace = tuple[Path | None, Path | None]
"""Where podkit sees the workspaces, and where the engine sees them."""


class Victim:
    """A session in which payloads run as root.

    Attributes:
        session: to run them in.
        id: of its container.
    """

    def __init__(
        self, backend: Backend, engine: Engine, image: str, *, workspace: Workspace = (None, None), **config: object
    ) -> None:
        self._backend = backend
        self._engine = engine
        self._workspace = workspace
        fields = {"container_lifetime_seconds": 1800, "pids_limit": PIDS_LIMIT} | config
        self.session = self._open(image, ContainerConfig(image=image, **fields))
        self.session.execute_command("true")  # the channel is open from here on
        id = self.session.get_info().container_id
        assert id is not None
        self.id = id

    def _open(self, image: str, config: ContainerConfig | None) -> SessionProxy:
        manager = SimpleContainerManager(self._backend, self._engine.prefix, *self._workspace)
        sessions = BaseSessionManager(manager)
        sessions.create_session("victim", image, config)
        return SessionProxy(sessions, "victim", image)

    def opened_anew(self) -> SessionProxy:
        """The same session as another process sees it, with a channel of its own."""
        return self._open(self.session.session_id, None)

    def processes(self) -> list[str]:
        """The command lines of all that is neither the agent nor the bystander: what `docker top` shows."""
        lines = self._engine.processes(self.id)
        return [line for line in lines if "/run/podkit/agent" not in line and line not in _OURS]

    def started_at(self) -> str:
        """When its container was started last."""
        return self._engine.started_at(self.id)

    def bystander(self) -> Bystander:
        """A command that goes on while others are killed; it needs no further process for that."""
        return Bystander(self.session)


class Bystander:
    """A `cat` that gives back what it is told."""

    def __init__(self, session: SessionProxy) -> None:
        self.command: Command = session.popen(["cat"])
        self._lines = iter(self.command)

    def answers(self) -> bool:
        """Whether it still does."""
        self.command.stdin.write("alive\n")
        return next(self._lines) == "alive\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.command.__exit__(kind, error, traceback)
