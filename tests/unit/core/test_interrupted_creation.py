"""A signal's handler that raises, at each moment of making a session: nothing of it stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from podkit.testing import FakeBackend
from tests.support.interrupts import interrupt
from tests.unit.support import PREFIX, names_on

CONFIG = ContainerConfig(image="some:image")
STEP = 3  # which is enough to meet each step of a creation
LIMIT = 5_000
"""More moments than any of these actions has."""


@pytest.fixture
def afresh(workspace_base: Path) -> Callable[[], tuple[FakeBackend, BaseSessionManager]]:
    """Makes an engine, and a session manager over it."""

    def afresh() -> tuple[FakeBackend, BaseSessionManager]:
        fake = FakeBackend()
        fake.connect()
        return fake, BaseSessionManager(SimpleContainerManager(fake, PREFIX, workspace_base))

    return afresh


def test_an_interrupted_creation_leaves_nothing(
    afresh: Callable[[], tuple[FakeBackend, BaseSessionManager]], workspace_base: Path
) -> None:
    workspace, made_and_not_given = workspace_base / "workspaces/bob/1", 0
    for moment in range(1, LIMIT, STEP):
        fake, sessions = afresh()
        where = interrupt(lambda made=sessions: made.create_session("bob", "1", CONFIG), moment)
        if where is None:
            break
        if held := sessions.list_sessions():  # after all was done: it is the manager's, and can be closed
            made_and_not_given += 1
            assert names_on(fake) == [session.container_name for session in held], where
        else:
            assert (names_on(fake), workspace.exists()) == ([], False), where

        sessions.create_session("bob", "1", CONFIG)
        sessions.close_session("bob", "1", remove_workspace=True)
    assert made_and_not_given < 10
    assert 100 < moment < LIMIT - STEP


def test_an_interrupted_recovery_leaves_a_session_that_comes_back_and_can_be_closed(
    afresh: Callable[[], tuple[FakeBackend, BaseSessionManager]],
) -> None:
    for moment in range(1, LIMIT, STEP):
        fake, sessions = afresh()
        lost = sessions.create_session("bob", "1", CONFIG).container_id
        assert lost is not None
        fake.remove_workload(lost)
        where = interrupt(lambda made=sessions: made.create_session("bob", "1"), moment)
        if where is None:
            break
        if moment % (2 * STEP) == 1:
            assert sessions.create_session("bob", "1").container_id is not None, where
            assert len(names_on(fake)) == 1, where
        sessions.close_session("bob", "1")
        assert names_on(fake) == [], where
    assert 100 < moment < LIMIT - STEP
