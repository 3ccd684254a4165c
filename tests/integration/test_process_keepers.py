"""Background processes outlive podkit, and what happens to their container, their keepers and their files is seen."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import ContainerError, InvalidInput, ProcessNotFound
from podkit.processes import Process, ProcessStatus
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine, container_of
from tests.support.processes import ask_python, start_python
from tests.support.programs import MARK
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration

PLACE = "/run/podkit-processes-0"

START_AND_WAIT = """
import sys
from podkit import get_docker_session

session = get_docker_session("bob", sys.argv[1])
process = session.processes.start_process("echo begun; echo trouble >&2; sleep 1; echo done; exit 7", "job")
print(process.id, flush=True)
session.execute_command("sleep 60")
"""

FIND = """
import json, sys
from podkit import get_docker_session

processes = get_docker_session("bob", sys.argv[1]).processes
list(processes.follow_log(sys.argv[2]))
[found] = [process for process in processes.list_processes() if process.id == sys.argv[2]]
print(json.dumps([found.display_name, found.status, found.exit_code, processes.get_logs(found.id)]))
"""


def keeper_of(session: SessionProxy, process: Process) -> int:
    return int(session.execute_command(f"cut -d' ' -f4 /proc/{process.pid}/stat").stdout)


def test_a_new_podkit_finds_exit_code_and_logs_after_the_old_one_was_killed(facade: Engine) -> None:
    with start_python(START_AND_WAIT, "keepers") as old:
        assert old.stdout is not None
        id = old.stdout.readline().strip()
        old.kill()

    assert ask_python(FIND, "keepers", id) == [
        f"job ({id[:8]})",
        "failed",
        7,
        {"stdout": "begun\ndone\n", "stderr": "trouble\n"},
    ]


def test_a_process_goes_on_when_the_channel_breaks(open_session: OpenSession) -> None:
    session = open_session()
    process = session.processes.start_process("sleep 0.5; echo after; sleep 600")

    session._sessions.container_manager.close()

    assert next(session.processes.follow_log(process.id)) == "after\n"
    assert session.processes.get_status(process.id) is ProcessStatus.RUNNING
    assert session.processes.stop_process(process.id)


def test_a_process_goes_on_when_the_command_that_ran_beside_it_is_killed(open_session: OpenSession) -> None:
    session = open_session()
    process = session.processes.start_process(["sleep", "600"])

    assert session.execute_command("sleep 60", timeout=0.5).timed_out

    assert session.processes.get_status(process.id) is ProcessStatus.RUNNING


def test_one_whose_keeper_was_killed_is_lost_and_dies_with_it(open_session: OpenSession) -> None:
    session = open_session()
    process = session.processes.start_process("echo before; exec sleep 600", user="nobody")
    assert eventually(lambda: session.processes.get_logs(process.id)["stdout"])

    session.execute_command(f"kill -9 {keeper_of(session, process)}")

    assert session.processes.get_status(process.id) is ProcessStatus.LOST
    assert process.exit_code is None
    assert eventually(lambda: not session.execute_command(f"kill -0 {process.pid}").ok)
    assert not session.processes.stop_process(process.id)  # nobody knows what else it had started
    assert session.processes.get_logs(process.id)["stdout"] == "before\n"
    session.processes.send_signal(process.id, "TERM")  # nothing happens
    session.processes.remove_process(process.id)
    with pytest.raises(ProcessNotFound):
        session.processes.get_status(process.id)


@pytest.mark.parametrize("what", ["*", "*/control"])
def test_one_that_is_put_out_of_reach_is_killed_as_soon_as_somebody_asks(
    open_session: OpenSession, engine: Engine, what: str
) -> None:
    """Else it could make itself one that nobody can stop, and that keeps its container for ever."""
    session = open_session()
    process = session.processes.start_process(["sleep", MARK])
    session.execute_command(f"rm -rf {PLACE}/{what}")

    stopped = session.processes.stop_process(process.id)

    assert stopped == (what != "*")  # nobody knows what a process did whose files are gone
    assert process.status is (ProcessStatus.LOST if what == "*" else ProcessStatus.FAILED)
    assert eventually(lambda: not [line for line in engine.processes(container_of(session)) if MARK in line])


def test_a_record_that_says_that_it_has_ended_stops_nothing(open_session: OpenSession) -> None:
    session = open_session()
    process = session.processes.start_process(["sleep", "600"])
    session.execute_command(f"printf '\\3' | dd of={PLACE}/{process.id}/record bs=1 conv=notrunc")

    session.processes.get_status(process.id)
    assert session.processes.stop_process(process.id, force=True)
    assert not session.execute_command(f"kill -0 {process.pid}").ok


REPLACE = """
import os, signal, socket, struct, sys, time

signal.signal(signal.SIGTERM, signal.SIG_IGN)
place = os.environ["PLACE"]
os.chdir(os.path.join(place, os.listdir(place)[0]))
if "record" in sys.argv:  # one that says that nothing of it is left, and that nobody locks
    record = struct.pack("<L", 3) + open("record", "rb").read()[4:]
    os.unlink("record")
    open("record", "wb").write(record)
os.unlink("control")
server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
server.bind("control")
if "listen" in sys.argv:
    server.listen(0)
else:
    server.close()  # refuses
print("armed", flush=True)
time.sleep(1000)
"""


@pytest.mark.parametrize("user", [None, "1000"])
@pytest.mark.parametrize("how", ["refuse", "listen", "record refuse", "record listen"])
def test_one_that_forges_its_files_is_stopped_before_that_is_said(
    open_session: OpenSession, engine: Engine, how: str, user: str | None
) -> None:
    """Of one that runs as the agent's user, who may write there."""
    session = open_session(long_config(user=user))
    place = PLACE if user is None else "/tmp/.podkit-processes-1000"
    command = ["python3", "-c", REPLACE, MARK, *how.split()]
    process = session.processes.start_process(command, environment={"PLACE": place})
    assert next(session.processes.follow_log(process.id)) == "armed\n"

    assert session.processes.stop_process(process.id, force=True)
    assert not [line for line in engine.processes(container_of(session)) if MARK in line]


def test_a_crowd_of_forged_processes_hides_none_that_runs(open_session: OpenSession) -> None:
    session = open_session()
    process = session.processes.start_process(["sleep", "600"])
    forge = "import os, uuid\nfor _ in range(3000): os.mkdir(f'{os.environ[\"PLACE\"]}/{uuid.uuid4()}')"
    session.execute_command(["python3", "-c", forge], environment={"PLACE": PLACE}).check()

    for _ in range(5):
        assert process.id in [found.id for found in session.processes.list_processes()]
        assert process.status is ProcessStatus.RUNNING


TRACE = """
import ctypes, os, time
if os.fork() or os.fork():
    os._exit(0)
os.setsid()
libc = ctypes.CDLL(None, use_errno=True)
seen = set()
while True:  # whatever runs as this user is never reaped by its parent any more
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if pid not in seen and int(pid) != os.getpid() and libc.ptrace(0x4206, int(pid), 0, 0) == 0:
            seen.add(pid)
            open("/tmp/traced", "a").write(pid + "\\n")
    time.sleep(0.05)
"""


def test_one_that_a_stranger_traces_is_over_when_it_ends(open_session: OpenSession, engine: Engine) -> None:
    session = open_session(long_config(container_lifetime_seconds=3))
    waits = "import os, time\nwhile not os.path.exists('/tmp/go'): time.sleep(0.05)"  # a child would be traced as well
    process = session.processes.start_process(["python3", "-c", waits], user="nobody")
    session.execute_command(["python3", "-c", TRACE], user="nobody")
    assert eventually(lambda: str(process.pid) in session.execute_command("cat /tmp/traced").stdout.split())
    session.execute_command("touch /tmp/go")

    assert eventually(lambda: session.processes.get_status(process.id) is ProcessStatus.FAILED)
    assert session.processes.stop_process(process.id)
    session._sessions.container_manager.close()
    assert engine.wait_for_end(container_of(session)) == 0


def test_a_process_starts_in_its_directory_as_its_own_user(open_session: OpenSession) -> None:
    session = open_session()
    session.execute_command("mkdir -m 700 /root/p; mkdir -m 755 /root/p/sub; echo secret > /root/p/sub/f")
    session.execute_command("ln -s /root/p/sub /tmp/way", user="nobody")

    with pytest.raises(InvalidInput, match=r"/tmp/way.*Permission denied"):
        session.processes.start_process("cat f", user="nobody", working_dir="/tmp/way")


def test_records_of_nonsense_spoil_only_themselves(open_session: OpenSession) -> None:
    session = open_session()
    good, spoilt = (session.processes.start_process(["sleep", "600"]) for _ in range(2))
    session.execute_command(
        f"printf '\\377%.0s' $(seq 16) | dd of={PLACE}/{spoilt.id}/record bs=1 seek=16 conv=notrunc"
    )

    assert {process.id for process in session.processes.list_processes()} == {good.id, spoilt.id}
    assert good.status is ProcessStatus.RUNNING


def test_one_keeper_that_is_stopped_does_not_keep_its_container(open_session: OpenSession, engine: Engine) -> None:
    session = open_session(long_config(container_lifetime_seconds=2))
    process = session.processes.start_process(["sleep", "1"])
    session.execute_command(f"kill -STOP {keeper_of(session, process)}")

    assert engine.wait_for_end(container_of(session)) == 0


def test_a_keeper_that_somebody_stopped_answers_all_the_same(open_session: OpenSession) -> None:
    session = open_session()
    ends, runs = session.processes.start_process("sleep 0.3; exit 4"), session.processes.start_process("sleep 600")
    for process in (ends, runs):
        session.execute_command(f"kill -STOP {keeper_of(session, process)}")

    with within(10):
        assert eventually(lambda: session.processes.get_status(ends.id) is ProcessStatus.FAILED)
        assert ends.exit_code == 4
        assert session.processes.get_status(runs.id) is ProcessStatus.RUNNING
        assert session.processes.stop_process(runs.id)


def test_a_process_that_kills_all_it_may_does_not_reach_its_keeper(open_session: OpenSession) -> None:
    session = open_session()
    process = session.processes.start_process(
        "trap '' TERM HUP INT; kill -TERM -1; kill -KILL $PPID; kill -KILL -1; kill -KILL $$", user="nobody"
    )

    assert eventually(lambda: not session.processes.is_running(process.id))
    assert (process.status, process.exit_code) == (ProcessStatus.FAILED, 137)


def test_a_root_that_asks_everything_to_end_does_not_end_the_keepers(open_session: OpenSession) -> None:
    session = open_session()
    process = session.processes.start_process(
        "trap '' TERM HUP INT QUIT USR1; for i in TERM HUP INT QUIT USR1; do kill -$i -1; done; echo here; exit 3"
    )

    assert eventually(lambda: not session.processes.is_running(process.id))
    assert process.exit_code == 3
    assert session.processes.get_logs(process.id)["stdout"] == "here\n"


def test_after_a_restart_of_the_container_its_processes_are_lost_and_their_logs_are_there(
    open_session: OpenSession, engine: Engine
) -> None:
    session = open_session()
    running = session.processes.start_process("echo before; sleep 600")
    ended = session.processes.start_process("exit 5")
    assert eventually(lambda: session.processes.get_logs(running.id)["stdout"])
    assert eventually(lambda: not session.processes.is_running(ended.id))
    engine.stop(container_of(session))

    assert {process.id for process in session.processes.list_processes()} == {running.id, ended.id}
    assert (running.status, running.exit_code) == (ProcessStatus.LOST, None)
    assert (ended.status, ended.exit_code) == (ProcessStatus.FAILED, 5)
    assert session.processes.get_logs(running.id)["stdout"] == "before\n"
    assert session.processes.stop_process(running.id)


def test_the_processes_of_a_session_follow_it_to_a_new_container(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()
    old = session.processes.start_process(["sleep", "600"])
    before = container_of(session)
    engine.remove(before)

    new = session.processes.start_process(["sleep", "600"])

    assert container_of(session) != before
    assert session.processes.get_status(old.id) is ProcessStatus.LOST
    assert session.processes.list_processes() == [new]
    assert session.processes.stop_process(old.id)
    with pytest.raises(ProcessNotFound):
        session.processes.get_logs(old.id)


def test_an_idle_keeper_needs_little_memory_and_no_time(open_session: OpenSession) -> None:
    session = open_session()
    long = {str(number): "x" * 100_000 for number in range(15)}  # which the keeper has seen, and does not keep
    process = session.processes.start_process(["sleep", "600"], environment=long)
    keeper = keeper_of(session, process)
    ticks = f"cut -d' ' -f14,15 /proc/{keeper}/stat"

    before = session.execute_command(ticks).stdout
    status = session.execute_command(f"sleep 1; cat /proc/{keeper}/status").stdout

    [rss] = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")]
    assert rss < 1024
    assert session.execute_command(ticks).stdout == before


def test_many_threads_start_and_stop_processes_at_once(open_session: OpenSession) -> None:
    session = open_session()

    def use(number: int) -> None:
        process = session.processes.start_process(f"echo {number}; sleep 600")
        assert eventually(lambda: session.processes.get_logs(process.id)["stdout"] == f"{number}\n")
        assert session.processes.stop_process(process.id)
        assert process.exit_code == 143

    with ThreadPoolExecutor(16) as threads:
        for done in [threads.submit(use, number) for number in range(48)]:
            done.result(60)
    assert len(session.processes.list_processes()) == 48


def test_a_follower_goes_on_when_the_channel_breaks(open_session: OpenSession) -> None:
    session = open_session()
    process = session.processes.start_process("echo begun; sleep 1; echo done")
    pieces = session.processes.follow_log(process.id)
    assert next(pieces) == "begun\n"
    breaks = threading.Timer(0.3, session._sessions.container_manager.close)
    breaks.start()

    assert next(pieces) == "done\n"
    assert list(pieces) == []


@pytest.mark.parametrize("how", ["stop", "remove"])
def test_a_follower_sees_that_the_container_goes(open_session: OpenSession, engine: Engine, how: str) -> None:
    session = open_session()
    process = session.processes.start_process("echo begun; sleep 600")
    pieces = session.processes.follow_log(process.id)
    assert next(pieces) == "begun\n"
    goes = threading.Timer(0.5, getattr(engine, how), [container_of(session)])
    goes.start()

    with within(30):
        if how == "remove":
            with pytest.raises(ProcessNotFound):
                next(pieces)
        else:
            assert list(pieces) == []
    assert session.processes.get_status(process.id) is ProcessStatus.LOST


# --- files that somebody has changed -----------------------------------------------------------------

HOSTILE: dict[str, str] = {
    "empty record": ": > record",
    "garbage in the record": "head -c 40 /dev/urandom > record",
    "huge record": "head -c 5000000 /dev/zero > record",
    "record is a directory": "rm record; mkdir record",
    "record is a FIFO": "rm record; mkfifo record",
    "record is a link": "rm record; ln -s /dev/zero record",
    "garbage in the note": "head -c 1000000 /dev/urandom > note",
    "note is a FIFO": "rm note; mkfifo note",
    "no control": "rm -f control",
    "control is a file": "rm -f control; : > control",
    "log is a FIFO": "rm -f 1.*; mkfifo 1.0000000000000000",
    "logs of odd offsets": ": > 1.ffffffffffffffff; : > 1.zz; : > 1.-5; echo x > 1.7fffffffffffffff",
    "all gone": "rm -rf ../$ID",
    "directory is a file": "cd ..; rm -rf $ID; : > $ID",
}


@pytest.fixture(scope="module")
def victim(backend: DockerBackend, default_image: str) -> Iterator[SessionProxy]:
    """A session whose state these tests may spoil."""
    from tests.support.run import new_prefix

    engine = Engine(backend.client, new_prefix(), default_image)
    sessions = BaseSessionManager(SimpleContainerManager(backend, engine.prefix, None))
    sessions.create_session("bob", "victim", long_config())
    yield SessionProxy(sessions, "bob", "victim")
    engine.clean_up()


@pytest.mark.parametrize("state", ["running", "ended"])
@pytest.mark.parametrize("how", HOSTILE)
def test_spoiled_files_are_a_typed_error_or_an_answer_and_never_a_hang(
    victim: SessionProxy, how: str, state: str
) -> None:
    processes = victim.processes
    process = processes.start_process("echo hi; exec sleep 600" if state == "running" else "echo hi", stdin=True)
    assert eventually(lambda: processes.get_logs(process.id)["stdout"] == "hi\n")  # its keeper has made the log
    if state == "ended":
        assert eventually(lambda: not processes.is_running(process.id))
    spoiled = victim.execute_command(f"ID={process.id}; cd {PLACE}/$ID && {{ {HOSTILE[how]}; }}")
    assert spoiled.ok, spoiled.stderr
    asks: list[Callable[[], Any]] = [
        lambda: processes.get_status(process.id),
        lambda: processes.list_processes(),
        lambda: processes.get_logs(process.id),
        lambda: processes.read_log(process.id, offset=-5),
        lambda: processes.write_stdin(process.id, "x", timeout=0.2),
        lambda: processes.send_signal(process.id, "USR1"),
        lambda: processes.stop_process(process.id, force=True),
        lambda: processes.remove_process(process.id),
    ]

    for ask in asks:
        with within(10):
            try:
                ask()
            except (ContainerError, ProcessNotFound, InvalidInput, BrokenPipeError):
                continue
    victim.execute_command(f"pkill -9 sleep; pkill -9 keeper-; rm -rf {PLACE}/{process.id}")

    assert processes.list_processes() == []
    assert processes.stop_process(processes.start_process(["sleep", "600"]).id)
    for one in processes.list_processes():
        processes.remove_process(one.id)


@pytest.mark.parametrize("spoil", ["rm -rf {}; : > {}", "rm -rf {}; ln -s /tmp {}", "mkdir -p {}; chmod 777 {}"])
def test_a_place_that_is_not_ours_is_not_used(open_session: OpenSession, spoil: str) -> None:
    session = open_session()
    session.execute_command(spoil.format(PLACE, PLACE))

    process = session.processes.start_process("echo hi")

    assert eventually(lambda: session.processes.get_logs(process.id)["stdout"] == "hi\n")
    assert session.execute_command(f"ls -d /tmp/.podkit-processes-0/{process.id}").ok


def test_no_place_at_all_is_an_error_that_says_what_is_needed(open_session: OpenSession) -> None:
    session = open_session()
    for place in (PLACE, "/tmp/.podkit-processes-0", "/dev/shm/.podkit-processes-0"):
        session.execute_command(f": > {place}")

    with pytest.raises(ContainerError, match="/dev/shm"):
        session.processes.start_process("echo hi")
    assert session.processes.list_processes() == []


class TinyPlace(SimpleContainerManager):
    """The first place for what belongs to processes is a disk of 1 MiB."""

    def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
        tiny = {"Type": "tmpfs", "Target": PLACE, "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700}}
        return [*super().get_mounts(user_id, session_id, config), tiny]


def test_a_full_disk_blocks_no_process_and_the_next_one_goes_elsewhere(
    open_session: OpenSession, backend: DockerBackend, prefix: str
) -> None:
    session = open_session(on=BaseSessionManager(TinyPlace(backend, prefix, None)))
    process = session.processes.start_process("yes | head -c 3000000; echo end; exit 6")

    assert eventually(lambda: not session.processes.is_running(process.id))
    piece = session.processes.read_log(process.id, max_bytes=10 << 20)
    second = session.processes.start_process("echo hi")

    assert process.exit_code == 6
    assert piece.next_offset == 3_000_004  # offsets stay true
    assert piece.data.startswith(b"y\n" * 100_000)
    assert piece.data.endswith(b"\0" * 100_000)  # what was lost reads as zeros
    assert eventually(lambda: session.processes.get_logs(second.id)["stdout"] == "hi\n")
    assert session.execute_command(f"ls -d /tmp/.podkit-processes-0/{second.id}").ok


# --- other images and users --------------------------------------------------------------------------


def test_a_container_without_root_keeps_its_processes_too(open_session: OpenSession, busybox_image: str) -> None:
    session = open_session(long_config(image=busybox_image, user="1000"))
    process = session.processes.start_process("id -u; exec nc -l -p 9099", stdin=True)

    assert eventually(lambda: session.processes.get_process(process.id).ports == [9099])
    assert session.processes.get_logs(process.id)["stdout"] == "1000\n"
    with pytest.raises(InvalidInput, match="own user is not root"):
        session.processes.start_process("id -u", user="nobody")
    assert session.processes.stop_process(process.id)
    assert session.processes.list_processes() == [process]


@pytest.mark.parametrize("user", [None, "1000"])
def test_nothing_is_needed_of_the_image(open_session: OpenSession, static_image: str, user: str | None) -> None:
    session = open_session(long_config(image=static_image, user=user))
    process = session.processes.start_process(["/busybox", "nc", "-l", "-p", "9099"], stdin=True)
    echo = session.processes.start_process(["/busybox", "echo", "hi"])

    assert eventually(lambda: session.processes.get_process(process.id).ports == [9099])
    assert eventually(lambda: session.processes.get_status(echo.id) is ProcessStatus.STOPPED)
    assert session.processes.get_logs(echo.id)["stdout"] == "hi\n"
    assert [one.name for one in session.processes.list_processes()] == ["busybox", "busybox"]
    assert session.processes.stop_process(process.id)
