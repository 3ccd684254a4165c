"""The report of what holds a session in: how its commands run."""

from __future__ import annotations

import logging

import pytest

from podkit.core.session import BaseSessionManager
from tests.integration.conftest import OpenSession

pytestmark = pytest.mark.integration


def test_that_commands_go_through_the_engines_exec_is_said_here_and_once_in_the_log(
    open_session: OpenSession, engine_exec: BaseSessionManager, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="podkit"):
        session = open_session(on=engine_exec)
        for _ in range(3):
            assert session.execute_command("echo hi").stdout == "hi\n"
        open_session(session_id="another", on=engine_exec).execute_command("echo hi")

    assert (session.isolation.commands, session.isolation.commands_reason) == (
        "engine exec",
        "the agent cannot be placed: not on this one",
    )
    assert len([record for record in caplog.records if "engine's exec" in record.getMessage()]) == 1
