"""Bad input is refused before any engine call, by a manager that knows the session and by one that does not."""

from __future__ import annotations

from typing import Any

import pytest

from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, Session
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput, PathEscape, PodkitError
from podkit.testing import FakeBackend
from tests.unit.support import PATHS_THAT_LEAVE, another

BAD_CALLS: dict[str, Any] = {
    "create: no user": lambda sessions: sessions.create_session("", "1"),
    "create: no session": lambda sessions: sessions.create_session("bob", ""),
    "create: NUL": lambda sessions: sessions.create_session("b\0b", "1"),
    "create: no text": lambda sessions: sessions.create_session("bob", 1),
    "create: overlong": lambda sessions: sessions.create_session("bob", "x" * 1_000_000),
    "create: a dict": lambda sessions: sessions.create_session("bob", "1", {"image": "x"}),
    "get: no user": lambda sessions: sessions.get_session("", "1"),
    "close: no user": lambda sessions: sessions.close_session("", "1"),
    "activity: no user": lambda sessions: sessions.update_session_activity("", "1"),
    "execute: no user": lambda sessions: sessions.execute_command("", "1", "ls"),
    "execute: no command": lambda sessions: sessions.execute_command("bob", "1", " "),
    "execute: outside": lambda sessions: sessions.execute_command("bob", "1", "ls", "../src"),
    "execute: no time": lambda sessions: sessions.execute_command("bob", "1", "ls", timeout=-1),
    "execute: environment": lambda sessions: sessions.execute_command("bob", "1", "ls", environment={"": "x"}),
    "write: content": lambda sessions: sessions.write_file("bob", "1", "a", 5),
    "write: no user": lambda sessions: sessions.write_file("", "1", "a", "x"),
}


@pytest.mark.parametrize("act", BAD_CALLS.values(), ids=list(BAD_CALLS))
@pytest.mark.parametrize("known", [True, False], ids=["known", "of another process"])
def test_bad_input_costs_no_engine_call(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager, act: Any, known: bool
) -> None:
    sessions.create_session("bob", "1")
    asked = sessions if known else another(manager)
    fake.calls.clear()
    with pytest.raises(InvalidInput):
        act(asked)
    assert fake.calls == []


@pytest.mark.parametrize("path", PATHS_THAT_LEAVE, ids=lambda path: path[:20])
@pytest.mark.parametrize("known", [True, False], ids=["known", "of another process"])
def test_a_path_that_leaves_costs_no_engine_call(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager, path: str, known: bool
) -> None:
    sessions.create_session("bob", "1")
    asked = sessions if known else another(manager)
    fake.calls.clear()
    for act in (lambda: asked.write_file("bob", "1", path, "x"), lambda: asked.read_file("bob", "1", path)):
        with pytest.raises(InvalidInput):
            act()
    assert fake.calls == []


def test_a_path_that_leaves_is_an_escape(sessions: BaseSessionManager) -> None:
    sessions.create_session("bob", "1")
    with pytest.raises(PathEscape):
        sessions.write_file("bob", "1", "../x", "x")


def test_a_configuration_that_was_spoilt_costs_no_engine_call(fake: FakeBackend, sessions: BaseSessionManager) -> None:
    config = ContainerConfig()
    config.ports.append(0)
    with pytest.raises(InvalidInput, match="ports"):
        sessions.create_session("bob", "1", config)
    assert fake.calls == []


def test_a_session_object_that_its_user_spoils_refuses(sessions: BaseSessionManager) -> None:
    session: Session = sessions.create_session("bob", "1")
    with pytest.raises(PodkitError):
        session.session_inactivity_timeout_seconds = -1
    assert session.session_inactivity_timeout_seconds == 3600
