"""The report of what holds a session in, beside what a process inside sees."""

from __future__ import annotations

import logging

import pytest

from podkit.core.session import BaseSessionManager
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine

pytestmark = pytest.mark.integration

CAPABILITIES = {"CHOWN": 0, "DAC_OVERRIDE": 1, "FOWNER": 3, "FSETID": 4, "KILL": 5, "SETGID": 6, "SETUID": 7}
CAPABILITIES["NET_BIND_SERVICE"] = 10
"""Names -> bits. Source: linux/capability.h."""


def test_the_report_agrees_with_what_a_process_inside_sees(open_session: OpenSession) -> None:
    session = open_session(long_config(memory_limit="256m", cpu_limit=0.5, pids_limit=99))

    found = session.isolation
    status = session.execute_command(["cat", "/proc/self/status"]).stdout
    inside = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)

    assert found.capabilities is not None
    assert sum(1 << CAPABILITIES[name] for name in found.capabilities) == int(inside["CapEff"], 16)
    assert found.no_new_privileges == (inside["NoNewPrivs"] == "1")
    assert (found.memory_bytes, found.cpu_limit, found.pids_limit) == (256 << 20, 0.5, 99)
    assert (found.commands, found.user, found.networks) == ("agent", "root", ("bridge",))


def test_a_limit_that_was_taken_away_is_reported_as_not_enforced(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()
    id = session.get_info().container_id
    assert id is not None
    assert session.isolation.pids_limit == 256

    engine.client.api._post_json(engine.client.api._url("/containers/{0}/update", id), data={"PidsLimit": -1})

    assert session.isolation.pids_limit is None
    assert "the number of its processes has no limit" in session.isolation.not_enforced


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
        "it was made without the agent",
    )
    assert len([record for record in caplog.records if "engine's exec" in record.getMessage()]) == 1
