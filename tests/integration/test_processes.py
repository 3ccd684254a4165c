"""Background processes: what they are, what they print, how they are told things, and how they end."""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from podkit import SessionProxy
from podkit.core.models import Session
from podkit.core.session import BaseSessionManager
from podkit.errors import (
    ContainerNotRunning,
    InvalidInput,
    NotSupported,
    ProcessFailedToStart,
    ProcessNotFound,
    ProcessStillRunning,
)
from podkit.processes import Process, ProcessManager, ProcessStatus
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine, container_of
from tests.support.programs import FORK_STORM, MARK, SURVIVORS
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration

LISTEN = """
import socket, time
sockets = [socket.create_server(("127.0.0.1", port)) for port in (8081, 8080)]
sockets.append(socket.create_server(("::", 8082), family=socket.AF_INET6))
print("ready", flush=True)
time.sleep(600)
"""


def ended(session: SessionProxy, process: Process) -> bool:
    """Whether it ends; seen by looking at it."""
    return eventually(lambda: not session.processes.is_running(process.id))


def test_a_process_runs_on_while_commands_come_and_go(either: SessionProxy) -> None:
    process = either.processes.start_process("echo begun; sleep 600", "worker", {"A": "b"}, "/tmp")

    assert either.execute_command(f"kill -0 {process.pid}").ok
    assert either.processes.get_status(process.id) is ProcessStatus.RUNNING
    assert eventually(lambda: either.processes.get_logs(process.id)["stdout"] == "begun\n")
    assert datetime.now(UTC) - process.started_at < timedelta(minutes=1)
    assert (uuid.UUID(process.id).version, process.ports) == (4, [])
    assert either.processes.stop_process(process.id)


def test_the_end_is_seen_with_its_exit_code(either: SessionProxy) -> None:
    good, bad, shot = (either.processes.start_process(command) for command in ("true", "exit 3", "kill -USR1 $$"))

    assert good.status is bad.status is ProcessStatus.RUNNING  # what is given is running, however soon it ends
    assert all(ended(either, process) for process in (good, bad, shot))
    assert [process.status for process in (good, bad, shot)] == ["stopped", "failed", "failed"]
    assert (good.exit_code, bad.exit_code) == (0, 3)
    assert shot.exit_code in (138, 144)  # 128 + SIGUSR1, which not every architecture numbers alike
    assert good.ended_at is not None
    assert good.ended_at >= good.started_at


def test_waiting_ends_with_the_process_and_not_with_what_it_has_left(either: SessionProxy) -> None:
    process = either.processes.start_process("sleep 600 & sleep 0.3; exit 7")

    with pytest.raises(ProcessStillRunning):
        either.processes.wait(process.id, timeout=0.01)
    with within(5):
        assert either.processes.wait(process.id) is process
    assert (process.exit_code, process.status, process.descendants) == (7, ProcessStatus.FAILED, 1)
    assert either.processes.stop_process(process.id, force=True)


def test_environment_directory_and_user_are_those_of_a_command(either: SessionProxy) -> None:
    show = "pwd; id -u; echo $A; echo $HOME; umask; echo hi > /dev/stdout"
    for options in ({}, {"environment": {"A": "b"}, "working_dir": "/tmp", "user": "nobody"}):
        process = either.processes.start_process(show, **options)
        assert ended(either, process)
        assert either.processes.get_logs(process.id) == {
            "stdout": either.execute_command(show, **options).stdout,
            "stderr": "",
        }


def test_a_list_holds_what_every_manager_has_started(either: SessionProxy, engine: Engine) -> None:
    process = either.processes.start_process(["sleep", "600"], "mine")
    other = ProcessManager(either._sessions.container_manager, container_of(either), either.user_id, either.session_id)

    [found] = [one for one in other.list_processes() if one.id == process.id]

    assert found is not process
    assert (found.name, found.command, found.pid) == ("mine", ["sleep", "600"], process.pid)
    assert (found.started_at, found.status) == (process.started_at, ProcessStatus.RUNNING)
    assert other.stop_process(process.id, force=True)
    assert either.processes.get_status(process.id) is ProcessStatus.FAILED
    assert process.exit_code == 137


def test_a_signal_that_is_caught_is_seen(either: SessionProxy) -> None:
    process = either.processes.start_process("trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done")
    assert eventually(lambda: either.processes.get_logs(process.id)["stdout"])

    either.processes.send_signal(process.id, "INT")

    assert ended(either, process)
    assert (process.exit_code, either.processes.get_logs(process.id)["stdout"]) == (5, "ready\ncaught\n")
    either.processes.send_signal(process.id, "TERM")  # nothing happens


def test_a_stopped_process_is_paused_until_it_goes_on(either: SessionProxy) -> None:
    process = either.processes.start_process(["sleep", "600"])

    either.processes.send_signal(process.id, "STOP")
    assert either.processes.get_status(process.id) is ProcessStatus.PAUSED
    assert either.processes.is_running(process.id)
    either.processes.send_signal(process.id, "CONT")
    assert either.processes.get_status(process.id) is ProcessStatus.RUNNING
    either.processes.send_signal(process.id, "STOP")
    with within(5):
        assert either.processes.stop_process(process.id)
    assert process.exit_code == 143  # gently all the same


def test_a_process_without_input_finds_it_empty(either: SessionProxy) -> None:
    process = either.processes.start_process("cat; echo end")

    assert ended(either, process)
    with pytest.raises(BrokenPipeError):
        either.processes.write_stdin(process.id, "text")


def test_a_process_reads_what_is_written_to_it(either: SessionProxy) -> None:
    process = either.processes.start_process("cat", stdin=True)

    assert either.processes.write_stdin(process.id, "ünï\n") == 6
    assert either.processes.write_stdin(process.id, b"bytes\n") == 6
    assert eventually(lambda: either.processes.get_logs(process.id)["stdout"] == "ünï\nbytes\n")
    either.processes.close_stdin(process.id)
    either.processes.close_stdin(process.id)
    with pytest.raises(BrokenPipeError):
        either.processes.write_stdin(process.id, "late")
    assert ended(either, process)
    assert process.status is ProcessStatus.STOPPED
    assert either.processes.get_logs(process.id)["stdout"] == "ünï\nbytes\n"


def test_another_users_process_reads_its_input_too(either: SessionProxy) -> None:
    process = either.processes.start_process("cat /dev/stdin", user="nobody", stdin=True)

    either.processes.write_stdin(process.id, "text")
    either.processes.close_stdin(process.id)

    assert ended(either, process)
    assert either.processes.get_logs(process.id) == {"stdout": "text", "stderr": ""}


def test_writing_to_a_process_that_does_not_read_ends_in_time(either: SessionProxy) -> None:
    process = either.processes.start_process(["sleep", "600"], stdin=True)

    with within(8):
        taken = either.processes.write_stdin(process.id, bytes(1 << 20), timeout=1)

    assert 4096 <= taken < 1 << 20
    assert either.processes.stop_process(process.id)


def test_megabytes_of_input_arrive_whole(either: SessionProxy) -> None:
    process = either.processes.start_process("wc -c", stdin=True)

    assert either.processes.write_stdin(process.id, bytes(5 << 20), timeout=30) == 5 << 20
    either.processes.close_stdin(process.id)

    assert ended(either, process)
    assert either.processes.get_logs(process.id)["stdout"].strip() == str(5 << 20)


@pytest.mark.parametrize("shape", SURVIVORS)
def test_stopping_leaves_nothing_of_the_tree(either: SessionProxy, engine: Engine, shape: str) -> None:
    other = either.processes.start_process(["sleep", "600.5"])
    process = either.processes.start_process(SURVIVORS[shape])
    assert eventually(lambda: any(MARK in line for line in engine.processes(container_of(either))))

    with within(10):
        assert either.processes.stop_process(process.id, timeout=1)

    assert not [line for line in engine.processes(container_of(either)) if MARK in line]
    assert not process.is_running
    assert process.descendants == 0
    assert either.processes.is_running(other.id)
    assert either.processes.stop_process(other.id, force=True)
    assert other.exit_code == 137


@pytest.mark.parametrize("timeout", [0, 1])
def test_a_fork_storm_that_leaves_no_process_to_be_made_is_stopped(
    open_session: OpenSession, engine: Engine, timeout: int
) -> None:
    session = open_session(long_config(pids_limit=64))
    process = session.processes.start_process(FORK_STORM)
    assert eventually(lambda: len(engine.processes(container_of(session))) >= 60)

    with within(10):
        assert session.processes.stop_process(process.id, timeout=timeout)

    assert not [line for line in engine.processes(container_of(session)) if MARK in line]


def test_a_process_that_ends_gently_is_not_killed(either: SessionProxy) -> None:
    process = either.processes.start_process(
        "trap 'sleep 0.3; echo saved; exit 0' TERM; echo up; while :; do sleep 0.1; done"
    )
    assert eventually(lambda: either.processes.get_logs(process.id)["stdout"])

    assert either.processes.stop_process(process.id, timeout=10)

    assert (process.status, process.exit_code) == (ProcessStatus.STOPPED, 0)
    assert either.processes.get_logs(process.id)["stdout"] == "up\nsaved\n"


def test_what_an_ended_process_left_running_is_counted_logged_and_stopped(either: SessionProxy, engine: Engine) -> None:
    process = either.processes.start_process(
        "(for i in 1 2 3 4 5 6 7 8 9; do sleep 0.1; echo $i; done; exec sleep 98765) & exit 0"
    )

    assert eventually(lambda: either.processes.get_status(process.id) is ProcessStatus.STOPPED)
    assert process.descendants >= 1
    assert eventually(lambda: either.processes.get_logs(process.id)["stdout"].endswith("9\n"))
    with pytest.raises(InvalidInput, match="still runs"):
        either.processes.remove_process(process.id)
    assert either.processes.stop_process(process.id)
    assert not [line for line in engine.processes(container_of(either)) if MARK in line]
    assert (process.exit_code, process.descendants) == (0, 0)


def test_a_zombie_child_is_no_descendant_that_runs(shell: SessionProxy) -> None:
    process = shell.processes.start_process(
        [
            "python3",
            "-uc",
            "import subprocess, time; subprocess.Popen(['true']); time.sleep(0.5); print(1); time.sleep(600)",
        ]
    )
    assert eventually(lambda: shell.processes.get_logs(process.id)["stdout"])

    assert shell.processes.get_status(process.id) is ProcessStatus.RUNNING
    assert process.descendants == 0
    assert shell.processes.stop_process(process.id)


@pytest.mark.parametrize("user", [None, "nobody"])
def test_listening_ports_are_found_for_whatever_user(shell: SessionProxy, user: str | None) -> None:
    process = shell.processes.start_process(["sh", "-c", 'python3 -c "$0" & wait', LISTEN], user=user)
    assert eventually(lambda: shell.processes.get_logs(process.id)["stdout"])

    shell.processes.get_status(process.id)

    assert process.ports == [8080, 8081, 8082]
    assert shell.processes.stop_process(process.id)
    assert process.ports == []


def test_a_port_is_found_without_any_tool_in_the_image(busybox: SessionProxy) -> None:
    process = busybox.processes.start_process(["nc", "-l", "-p", "9099"])

    assert eventually(lambda: busybox.processes.get_process(process.id).ports == [9099])
    assert busybox.processes.stop_process(process.id)


def test_ports_of_a_process_that_hides_itself_are_not_known(shell: SessionProxy) -> None:
    hide = """
import ctypes, socket, time
listening = socket.create_server(("127.0.0.1", 8083))
ctypes.CDLL(None).prctl(4, 0)
print("ready", flush=True)
time.sleep(600)
"""
    process = shell.processes.start_process(["python3", "-c", hide], user="nobody")
    assert eventually(lambda: shell.processes.get_logs(process.id)["stdout"])

    assert shell.processes.get_status(process.id) is ProcessStatus.RUNNING
    assert process.ports is None
    assert shell.processes.stop_process(process.id)


def test_a_log_is_followed_from_an_offset_to_the_end(either: SessionProxy) -> None:
    process = either.processes.start_process("for i in 1 2 3 4 5; do echo line $i; sleep 0.2; done; echo bye >&2")

    pieces = list(either.processes.follow_log(process.id))
    from_there = "".join(either.processes.follow_log(process.id, offset=7))

    assert "".join(pieces) == "line 1\nline 2\nline 3\nline 4\nline 5\n"
    assert len(pieces) > 1  # as it comes, and not at the end
    assert from_there == "line 2\nline 3\nline 4\nline 5\n"
    assert list(either.processes.follow_log(process.id, "stderr")) == ["bye\n"]


def test_a_log_can_be_read_from_its_end(either: SessionProxy) -> None:
    process = either.processes.start_process("seq 1 1000")
    assert ended(either, process)

    tail = either.processes.read_log(process.id, offset=-9)

    assert (tail.text, tail.ended) == ("999\n1000\n", True)
    assert tail.next_offset == 3893
    beyond = either.processes.read_log(process.id, offset=5000)
    assert (beyond.data, beyond.offset) == (b"", 5000)
    first = either.processes.read_log(process.id, offset=-9000, max_bytes=4)
    assert (first.text, first.ended) == ("1\n2\n", False)  # more follows, though the process has ended


def test_a_flood_is_bounded_on_disk_and_its_offsets_stay_true(either: SessionProxy) -> None:
    process = either.processes.start_process("i=0; while [ $i -lt 400 ]; do printf '%0131071d\\n' $i; i=$((i+1)); done")
    assert eventually(lambda: not either.processes.is_running(process.id), seconds=120)

    piece = either.processes.read_log(process.id, offset=0, max_bytes=20 << 20)
    kept = either.execute_command(f"du -sk /run/podkit-processes-0/{process.id}").stdout.split()[0]

    assert piece.next_offset == 400 << 17
    assert 5 << 20 <= len(piece.data) <= (10 << 20) + (128 << 10)
    assert int(kept) <= 10 * 1024 + 256
    assert piece.text.endswith("399\n")
    number = int(either.processes.read_log(process.id, offset=300 << 17, max_bytes=1).offset) >> 17
    assert number >= 300  # dropped: what is given begins later
    assert either.processes.read_log(process.id, offset=399 << 17).text.strip("0\n") == "399"
    logs = either.processes.get_logs(process.id)
    assert logs["stdout"] == piece.text


@pytest.mark.parametrize(
    ("command", "options", "error", "says"),
    [
        (["no-such-program"], {}, ProcessFailedToStart, "no-such-program"),
        (["/etc/passwd"], {}, ProcessFailedToStart, "ermission"),
        (["sh"], {"user": "no-such-user"}, InvalidInput, "no-such-user"),
        (["sh"], {"working_dir": "/no/such"}, InvalidInput, "/no/such"),
        (["sh", "-c", "x" * (200 << 10)], {}, InvalidInput, "takes at most"),
        (["sh", *["x" * (100 << 10)] * 30], {}, InvalidInput, "too long"),
        (["sh", *["x" * (100 << 10)] * 60], {}, InvalidInput, "4 MiB"),
    ],
)
def test_what_cannot_be_started_is_an_error_and_leaves_nothing(
    either: SessionProxy, command: list[str], options: dict[str, str], error: type[Exception], says: str
) -> None:
    before = {process.id for process in either.processes.list_processes()}

    with pytest.raises(error, match=says) as caught:
        either.processes.start_process(command, **options)

    if isinstance(caught.value, ProcessFailedToStart):
        assert caught.value.exit_code == (127 if command[0] == "no-such-program" else 126)
    assert {process.id for process in either.processes.list_processes()} == before
    assert either.execute_command("true").ok


def test_an_unknown_id_is_an_error(shell: SessionProxy) -> None:
    for ask in (shell.processes.get_status, shell.processes.get_logs, shell.processes.stop_process):
        with pytest.raises(ProcessNotFound):
            ask(str(uuid.uuid4()))


def test_a_removed_process_leaves_nothing_on_disk(either: SessionProxy) -> None:
    process = either.processes.start_process("echo hi", stdin=True)
    assert ended(either, process)
    either.processes.remove_process(process.id)

    assert not either.execute_command(f"ls /run/podkit-processes-0/{process.id}").ok
    with pytest.raises(ProcessNotFound):
        either.processes.get_logs(process.id)


def test_fifty_processes_run_side_by_side(open_session: OpenSession, busybox_image: str) -> None:
    session = open_session(long_config(image=busybox_image))
    started = [
        session.processes.start_process(f"echo {number} $SECRET; exec sleep 600", environment={"SECRET": "s"})
        for number in range(50)
    ]

    listed = session.processes.list_processes()

    assert [process.id for process in listed] == [process.id for process in started]
    assert all(process.status is ProcessStatus.RUNNING for process in listed)
    for number, process in enumerate(started):
        assert session.processes.get_logs(process.id)["stdout"] == f"{number} s\n"
        assert session.processes.stop_process(process.id)
    assert not any(process.is_running for process in session.processes.list_processes())


def test_the_oldest_that_have_ended_are_forgotten_and_none_that_runs(
    open_session: OpenSession, busybox_image: str
) -> None:
    session = open_session(long_config(image=busybox_image))
    processes = session.processes
    running = [processes.start_process(["sleep", "600"]) for _ in range(40)]
    ended = [processes.start_process(["true"]) for _ in range(140)]
    assert eventually(lambda: sum(process.is_running for process in processes.list_processes()) == 40)
    oldest = f"/run/podkit-processes-0/{ended[35].id}"
    assert session.execute_command(f"mkdir {oldest}/spoilt && touch -t 200001010000 {oldest}").ok
    last = processes.start_process(["true"])

    left = {process.id for process in processes.list_processes()}

    assert len(left) == 40 + 128
    assert ended[35].id not in left  # though it could not be removed
    assert {last.id, *(process.id for process in running)} <= left
    assert {process.id for process in ended[-100:]} <= left  # it is the oldest that go
    assert processes.stop_process(running[0].id)


@pytest.mark.parametrize("host", ["stays", "goes"])
def test_a_container_outlives_its_lifetime_while_a_process_runs_and_a_whole_one_more(
    open_session: OpenSession, engine: Engine, host: str
) -> None:
    session = open_session(long_config(container_lifetime_seconds=3))
    process = session.processes.start_process("sleep 8; touch /tmp/ended; exit 3")
    other = ProcessManager(session._sessions.container_manager, container_of(session), "bob", "123")
    if host == "goes":
        session._sessions.container_manager.close()
    began = time.monotonic()

    assert engine.wait_for_end(container_of(session)) == 0

    assert time.monotonic() - began > 10.5  # eight seconds, and a lifetime that begins with the end of the process
    with pytest.raises(ContainerNotRunning):
        other.get_status(process.id)
    assert session.processes.get_status(process.id) is ProcessStatus.FAILED  # which starts the container
    assert (process.exit_code, process.failure_reason) == (3, None)


def test_what_a_process_has_left_running_keeps_its_container_too(open_session: OpenSession, engine: Engine) -> None:
    session = open_session(long_config(container_lifetime_seconds=1))
    process = session.processes.start_process("(sleep 600) & exit 0")
    session._sessions.container_manager.close()

    time.sleep(4)

    assert engine.state(container_of(session)) == "running"
    assert session.processes.get_status(process.id) is ProcessStatus.STOPPED
    assert session.processes.stop_process(process.id)
    assert engine.wait_for_end(container_of(session)) == 0


def test_nothing_that_a_command_leaves_running_keeps_the_container(open_session: OpenSession, engine: Engine) -> None:
    """Whatever name it takes, and whoever has opened the channels that it is looked at through."""
    session = open_session(long_config(container_lifetime_seconds=2))
    left = "echo keeper-00000000 > /proc/self/comm; exec 3>&-; while :; do sleep 0.2; done"
    session.execute_command(["setsid", "-f", "bash", "-c", left])
    assert eventually(lambda: "keeper-00000000" in session.execute_command("cat /proc/*/comm").stdout)
    containers = session._sessions.container_manager
    assert not containers.is_busy(container_of(session))
    containers.close()
    began = time.monotonic()

    assert engine.wait_for_end(container_of(session)) == 0
    assert time.monotonic() - began < 15


def test_a_session_is_idle_from_the_end_of_its_last_process_on(open_session: OpenSession) -> None:
    session = open_session(long_config(session_inactivity_timeout_seconds=2))
    began = time.monotonic()
    session.processes.start_process(["sleep", "5"])
    closed: list[Session] = []

    def has_expired() -> bool:  # as a health monitor finds it
        closed.extend(session._sessions.cleanup_expired_sessions())
        return bool(closed)

    assert eventually(has_expired, seconds=60)
    assert time.monotonic() - began > 6.5
    assert [one.session_id for one in closed] == [session.session_id]


def test_without_the_agent_the_error_says_so(open_session: OpenSession, engine_exec: BaseSessionManager) -> None:
    session = open_session(on=engine_exec)
    with pytest.raises(NotSupported, match="the agent cannot be placed: not on this one"):
        session.processes.start_process("sleep 1")
