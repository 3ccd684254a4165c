"""B8: a command that is over its time leaves nothing running. `python -m tests.trust.survivors` has the whole table."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator

import pytest

from podkit import get_docker_session
from podkit.backends.docker import DockerBackend
from podkit.core.command import Command
from podkit.errors import CommandInterrupted
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine
from tests.support.payloads import MARK, PAYLOADS, for_image
from tests.support.processes import start_python
from tests.support.victim import Victim
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration

RUNS = 3
TIMEOUT = 0.4
ON_IMAGES = [(image, name) for image in ("debian", "busybox") for name in for_image(image)]
QUIET = [(image, name) for image, name in ON_IMAGES if not (PAYLOADS[name].restarts or PAYLOADS[name].spins)]


@pytest.fixture(scope="module")
def victims(backend: DockerBackend, own_engine: Engine, default_image: str, busybox_image: str) -> dict[str, Victim]:
    images = {"debian": default_image, "busybox": busybox_image}
    return {name: Victim(backend, own_engine, image) for name, image in images.items()}


def wait_until_ready(command: Command) -> None:
    """Wait for a payload's word, which it may have sent before it took the channel with it."""
    assert next(iter(command)) == "ready\n"


# --- payloads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("image", "name"), ON_IMAGES)
def test_a_timed_out_command_leaves_nothing_running(victims: dict[str, Victim], image: str, name: str) -> None:
    """PR-01, PR-03."""
    victim, payload = victims[image], PAYLOADS[name]
    for _ in range(RUNS):
        before = victim.started_at()

        began = time.monotonic()
        result = victim.session.execute_command(payload.command, timeout=TIMEOUT)
        took = time.monotonic() - began

        assert victim.processes() == []
        assert took < TIMEOUT + (8 if result.container_restarted else 2)  # starting a container takes what it takes
        assert result.container_restarted == (victim.started_at() != before)
        assert result.container_restarted == payload.restarts or payload.spins
        assert result.timed_out or payload.restarts


@pytest.mark.parametrize(("image", "name"), QUIET)
def test_a_timeout_does_not_touch_other_commands_of_the_session(
    victims: dict[str, Victim], image: str, name: str
) -> None:
    victim = victims[image]
    with victim.bystander() as bystander:
        assert bystander.answers()
        victim.session.execute_command(PAYLOADS[name].command, timeout=TIMEOUT)
        assert bystander.answers()


@pytest.mark.parametrize(("image", "name"), QUIET)
def test_kill_leaves_nothing_running_and_does_not_touch_others(
    victims: dict[str, Victim], image: str, name: str
) -> None:
    victim = victims[image]
    before = victim.started_at()
    with victim.bystander() as bystander, victim.session.popen(PAYLOADS[name].command) as command:
        wait_until_ready(command)

        with within(3):
            command.kill()

        assert victim.processes() == []
        assert bystander.answers()
    result = command.wait(5)
    assert (result.exit_code, result.timed_out, result.container_restarted) == (137, False, False)
    assert victim.started_at() == before


@pytest.mark.parametrize("image", ["debian", "busybox"])
def test_the_end_of_a_session_is_the_end_of_all_that_runs_in_it(
    open_session: OpenSession, engine: Engine, default_image: str, busybox_image: str, image: str
) -> None:
    session = open_session(long_config(image=default_image if image == "debian" else busybox_image))
    id = session.get_info().container_id
    assert id is not None
    calm = [payload.command for payload in for_image(image).values() if not (payload.restarts or payload.takes_all)]
    commands = [session.popen(command) for command in calm]
    for command in commands:
        wait_until_ready(command)
    commands.append(session.popen(PAYLOADS["fork storm"].command))  # last: nothing can be started beside it
    wait_until_ready(commands[-1])

    session.close()

    assert not engine.exists(id)
    for command in commands:
        with within(5), pytest.raises(CommandInterrupted):
            command.wait(10)


# --- the control: the same on an exec of the engine -----------------------------------------------------------


@pytest.mark.parametrize("name", ["setsid", "double fork", "env -i setsid"])
@pytest.mark.parametrize("image", ["debian", "busybox"])
def test_timeout_in_an_exec_leaves_survivors(
    engine: Engine, default_image: str, busybox_image: str, image: str, name: str
) -> None:
    """PR-01, the control."""
    container = engine.container(image=default_image if image == "debian" else busybox_image)
    command = PAYLOADS[name].command
    assert isinstance(command, str)

    code, _ = container.exec_run(["timeout", "-k", "1", "1", "sh", "-c", command])

    assert code != 0
    assert [line for line in engine.processes(container.id) if MARK in line]


# --- ends that are none by time --------------------------------------------------------------------------------


@pytest.mark.parametrize("image", ["debian", "busybox"])
def test_a_command_that_ends_itself_by_a_signal_is_not_timed_out(victims: dict[str, Victim], image: str) -> None:
    """PR-05."""
    with within(5):
        result = victims[image].session.execute_command("kill -TERM $$", timeout=30)
    assert (result.exit_code, result.timed_out) == (143, False)


@pytest.mark.parametrize("image", ["debian", "busybox"])
def test_children_that_200_commands_orphaned_leave_no_zombie(victims: dict[str, Victim], image: str) -> None:
    """PR-07."""
    victim = victims[image]
    for _ in range(200):
        assert victim.session.execute_command("(sleep 0.01 &)").ok
    assert eventually(lambda: victim.processes() == []), victim.processes()


ENDS = {f"exit {code}": code for code in (*range(0, 256, 15), 1, 2, 124, 125, 126, 127, 128, 129, 137, 143)} | {
    "kill -HUP $$": 129,
    "kill -INT $$": 130,
    "kill -KILL $$": 137,
    "kill -SEGV $$": 139,
    "kill -PIPE $$": 141,
    "kill -ALRM $$": 142,
    "/nonexistent": 127,
    "/etc": 126,
    "/etc/passwd": 126,
}


@pytest.mark.parametrize("image", ["debian", "busybox"])
def test_no_exit_code_is_taken_for_a_failure_of_the_engine(victims: dict[str, Victim], image: str) -> None:
    """PR-10."""
    session = victims[image].session
    results = {command: session.execute_command(command, timeout=30) for command in ENDS}

    assert {command: result.exit_code for command, result in results.items()} == ENDS
    assert not [command for command, result in results.items() if result.timed_out or result.container_restarted]


@pytest.mark.parametrize("argv", [["/nonexistent"], ["nonexistent"], ["/etc/passwd/x"], ["/etc"], ["/etc/passwd"]])
def test_a_program_that_cannot_be_run_is_a_result(victims: dict[str, Victim], argv: list[str]) -> None:
    """PR-10."""
    result = victims["busybox"].session.execute_command(argv)
    assert result.exit_code == (126 if argv[0] in ("/etc", "/etc/passwd") else 127)
    assert argv[0] in result.stderr


INTERRUPTED = """
import sys
from podkit import get_docker_session

session = get_docker_session("bob", sys.argv[1])
session.execute_command(sys.argv[2], on_stdout=lambda text: print(text, end="", flush=True))
"""


INTERRUPTED_BESIDE_ANOTHER = """
import sys, threading
from podkit import get_docker_session

session = get_docker_session("bob", sys.argv[1])
results = []
other = threading.Thread(target=lambda: results.append(session.execute_command("sleep 2; echo to its end")))

def ready(text):  # this thread reads what comes for both
    other.start()
    print(text, end="", flush=True)

try:
    session.execute_command("echo ready; sleep 60", on_stdout=ready)
except KeyboardInterrupt:
    other.join()
print(results[0].stdout, end="")
"""


@pytest.fixture
def session_id(facade: Engine) -> Iterator[str]:
    yield uuid.uuid4().hex


@pytest.mark.parametrize("name", ["sigterm ignored", "setsid", "env -i setsid"])
def test_ctrl_c_in_the_client_ends_the_command_alone(facade: Engine, session_id: str, name: str) -> None:
    """PR-12."""
    command = PAYLOADS[name].command
    assert isinstance(command, str)
    with get_docker_session("bob", session_id) as session, session.popen(["cat"]) as bystander:
        id = session.get_info().container_id
        assert id is not None
        process = start_python(INTERRUPTED, session_id, command)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"

        process.send_signal(signal.SIGINT)
        with within(10):
            _, stderr = process.communicate(timeout=30)

        assert process.returncode == -signal.SIGINT
        assert stderr.splitlines()[-1] == "KeyboardInterrupt"
        assert not [line for line in facade.processes(id) if MARK in line]
        assert session.execute_command("echo alive").stdout == "alive\n"
        bystander.stdin.write("alive\n")
        assert next(iter(bystander)) == "alive\n"


def test_ctrl_c_in_one_thread_leaves_the_commands_of_others_alone(facade: Engine, session_id: str) -> None:
    """PR-12."""
    process = start_python(INTERRUPTED_BESIDE_ANOTHER, session_id)
    with get_docker_session("bob", session_id):
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=30)
    assert (stdout, stderr) == ("to its end\n", "")
