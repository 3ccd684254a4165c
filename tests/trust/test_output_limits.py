"""B6: neither output nor input exhausts the client.

AG-03 is in `tests/unit/agent`, and `python -m tests.trust.fuzz` has it at length.
"""

from __future__ import annotations

import pytest

from podkit import SessionProxy
from tests.integration.conftest import OpenSession
from tests.support.engine import Engine
from tests.support.processes import ask_python
from tests.support.run import LENGTH
from tests.support.waiting import within

pytestmark = pytest.mark.integration

MIB = 1 << 20
FLOOD_SECONDS = min(30, 5 * LENGTH)

PEAK = """
import json, os, re, sys
from pathlib import Path

def peak_bytes():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024
"""

FLOOD = (
    PEAK
    + """
from podkit import get_docker_session
from podkit.core.models import ContainerConfig

session = get_docker_session("flood", f"{os.getpid()}", ContainerConfig(container_lifetime_seconds=600))
session.execute_command("head -c 3000000 /dev/zero", max_output_bytes=1 << 20)
before = peak_bytes()
result = session.execute_command("cat /dev/zero", timeout=float(sys.argv[1]), max_output_bytes=1 << 20)
print(json.dumps([session.get_info().container_id, peak_bytes() - before, len(result.stdout),
                  result.stdout_truncated, result.timed_out]))
"""
)

CONTROL = (
    PEAK
    + """
from podkit.backends.docker import DockerBackend

backend = DockerBackend()
backend.connect()
container = backend.client.containers.get(sys.argv[1])
container.exec_run("true")
before = peak_bytes()
container.exec_run(["head", "-c", "100000000", "/dev/zero"])
print(json.dumps(peak_bytes() - before))
"""
)


def test_a_flood_leaves_the_client_small_and_its_producer_dead(facade: Engine) -> None:
    """RX-04."""
    id, grown, kept, cut, timed_out = ask_python(FLOOD, str(FLOOD_SECONDS))

    assert grown < 32 * MIB
    assert (kept, cut, timed_out) == (MIB, True, True)
    assert not [line for line in facade.processes(id) if "/dev/zero" in line]


def test_control_the_sdk_keeps_all_of_a_flood(engine: Engine) -> None:
    """RX-04: a third of what the bar's flood has; the SDK has no limit, and no timeout either."""
    assert ask_python(CONTROL, str(engine.container().id)) > 64 * MIB


@pytest.fixture
def session(open_session: OpenSession) -> SessionProxy:
    return open_session()


def test_sixty_four_mebibytes_of_input_arrive_exactly(session: SessionProxy) -> None:
    """RX-06."""
    with within(60):
        assert session.execute_command("wc -c", input=bytes(64 * MIB)).stdout.strip() == str(64 * MIB)


def test_input_that_a_sleeper_does_not_read_ends_neither_later_nor_in_a_deadlock(session: SessionProxy) -> None:
    """RX-06: once without a timeout, and once with one."""
    with within(15):
        assert session.execute_command("sleep 5", input=bytes(64 * MIB)).exit_code == 0
    with within(2 + 2):
        assert session.execute_command("sleep 5", input=bytes(64 * MIB), timeout=2).timed_out
    assert session.execute_command("echo alive").stdout == "alive\n"
