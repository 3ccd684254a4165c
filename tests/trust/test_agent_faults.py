"""The agent killed, stopped, replaced, cut off, or asked for what cannot be: an error or a restart, never a hang.

A command that was sent is never run twice: those that are interrupted here count themselves in a file.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.command import Command
from podkit.core.models import ProcessResult
from podkit.errors import CommandInterrupted, ContainerError, ContainerNotRunning, InvalidInput, PodkitError
from tests.support.engine import Engine
from tests.support.payloads import MARK, PAYLOADS
from tests.support.proxy import EngineProxy
from tests.support.victim import Victim
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration

CHANNEL = "read -r _ _ _ channel _ < /proc/$PPID/stat"
"""Finds the channel of the command's own supervisor."""

COUNTED = f"echo once >> /workspace/count; echo begun; sleep {MARK}"


@pytest.fixture
def victim(backend: DockerBackend, engine: Engine, default_image: str, workspace: Path, workspace_host: Path) -> Victim:
    return Victim(backend, engine, default_image, workspace=(workspace, workspace_host))


@pytest.fixture
def peer(backend: DockerBackend, engine: Engine, default_image: str, workspace: Path, workspace_host: Path) -> Victim:
    """One where the agent is of the payloads' user, who is not root, and so cannot guard its limits against them."""
    return Victim(backend, engine, default_image, workspace=(workspace, workspace_host), user="1000")


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def begun(threads: ThreadPoolExecutor, session: SessionProxy, *, timeout: float | None = 60) -> Future[ProcessResult]:
    """Run the command that counts itself; it has begun."""
    said: list[str] = []
    running = threads.submit(session.execute_command, COUNTED, timeout=timeout, on_stdout=said.append)
    assert eventually(lambda: said or running.done(), interval=0.005)
    return running


def assert_ended_once(running: Future[ProcessResult], session: SessionProxy, *, seconds: float = 10) -> None:
    """Its caller knows that it did not end by itself, and it ran once; the session works."""
    error = running.exception(timeout=seconds)
    assert isinstance(error, CommandInterrupted) or (error is None and running.result().container_restarted), error
    assert session.execute_command("cat /workspace/count").stdout == "once\n"
    with session.popen(["cat"]) as command:
        command.stdin.write("alive\n")
        assert next(iter(command)) == "alive\n"


# --- the agent's processes ---------------------------------------------------------------------------------


def test_a_channel_that_was_killed_costs_the_running_commands_and_nothing_else(
    victim: Victim, threads: ThreadPoolExecutor
) -> None:
    running = begun(threads, victim.session)
    with within(10):
        killer = threads.submit(victim.session.execute_command, f"{CHANNEL}; kill -KILL $channel; sleep 60", timeout=30)
        assert isinstance(killer.exception(20), CommandInterrupted) or killer.result().container_restarted
    assert_ended_once(running, victim.session)
    assert eventually(lambda: victim.processes() == [])


def test_a_channel_that_was_stopped_goes_on_with_the_commands_that_it_has(
    victim: Victim, threads: ThreadPoolExecutor
) -> None:
    before = victim.started_at()
    with within(10):
        result = victim.session.execute_command(f"{CHANNEL}; kill -STOP $channel; echo done")
    assert (result.exit_code, result.stdout, victim.started_at()) == (0, "done\n", before)


def test_a_channel_that_nothing_lets_go_on_is_given_up(
    backend: DockerBackend, engine: Engine, default_image: str
) -> None:
    victim = Victim(backend, engine, default_image, entrypoint=["sleep", "600"])  # no first process of podkit's
    with within(40), pytest.raises(CommandInterrupted):
        victim.session.execute_command(f"{CHANNEL}; kill -STOP $channel; sleep 600")
    assert victim.session.execute_command("echo alive").stdout == "alive\n"


def test_all_stopped_that_a_command_may_stop_is_no_hang(victim: Victim) -> None:
    with within(10):
        result = victim.session.execute_command("kill -STOP -1; echo done")
    assert (result.exit_code, result.stdout) == (0, "done\n")


def test_a_timeout_holds_while_the_channel_is_stopped_again_and_again(victim: Victim) -> None:
    with within(10):
        result = victim.session.execute_command(
            f"{CHANNEL}; (while :; do kill -STOP $channel; done) & sleep {MARK}", timeout=0.5
        )
    assert result.timed_out or result.container_restarted
    assert eventually(lambda: victim.processes() == [])
    assert victim.session.execute_command("echo alive").stdout == "alive\n"


@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "QUIT", "KILL", "STOP", "USR1", "ALRM", "CHLD", "RTMIN"])
def test_a_signal_from_inside_does_nothing_to_the_first_process(victim: Victim, engine: Engine, name: str) -> None:
    before = victim.started_at()
    result = victim.session.execute_command(["sh", "-c", f"kill -{name} 1; sleep 0.2; echo alive"])
    assert (result.stdout, victim.started_at(), engine.state(victim.id)) == ("alive\n", before, "running")


FORGED_FAREWELL = """
import ctypes, os, platform, struct
call = {"x86_64": 129, "aarch64": 138}[platform.machine()]  # rt_sigqueueinfo
for pid in filter(str.isdigit, os.listdir("/proc")):
    if open(f"/proc/{pid}/comm").read() == "podkit-channel\\n":
        for number in (35, 36):  # SIGRTMIN + 1, as the C libraries count
            info = struct.pack("iiixxxxiiQ", number, 0, -1, int(pid), 0, 2).ljust(128, b"\\0")
            assert ctypes.CDLL(None).syscall(call, 1, number, info) == 0
"""
"""Tells the first process in each channel's name that its lifetime is over."""


def test_nobody_else_can_say_that_a_channel_has_had_its_time(
    backend: DockerBackend, engine: Engine, default_image: str, threads: ThreadPoolExecutor
) -> None:
    victim = Victim(backend, engine, default_image, container_lifetime_seconds=2)
    before = victim.started_at()
    running = threads.submit(victim.session.execute_command, "sleep 4; echo done")
    assert eventually(lambda: "sleep 4" in victim.processes())
    victim.session.execute_command(["python3", "-c", FORGED_FAREWELL]).check()
    assert running.result(20).stdout == "done\n"
    assert victim.started_at() == before
    assert eventually(lambda: engine.state(victim.id) == "exited", seconds=30)


LIE = f"""
import os, signal, time
if os.fork() or (os.setsid() and os.fork()):
    os._exit(0)
end = time.time() + 60
while time.time() < end:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        if open(f"/proc/{{pid}}/comm").read() == "podkit-channel\\n":
            os.kill(int(pid), signal.SIGSTOP)
{FORGED_FAREWELL.replace(chr(10), chr(10) + "    ")}
    time.sleep(0.02)
"""
"""Stops the channel, and says again and again that its lifetime is over: then it is not looked at for a moment."""


@pytest.mark.parametrize("user", [None, "1000"])
def test_lies_about_a_channel_do_not_make_its_container_outlive_its_lifetime(
    backend: DockerBackend, engine: Engine, default_image: str, user: str | None
) -> None:
    victim = Victim(backend, engine, default_image, container_lifetime_seconds=2, user=user)
    victim.session.execute_command(["python3", "-c", LIE], timeout=1)
    assert eventually(lambda: engine.state(victim.id) == "exited", seconds=30)


# --- the agent's program ------------------------------------------------------------------------------------


def test_the_agents_program_cannot_be_changed_from_inside(victim: Victim) -> None:
    changes = (
        "echo x > /run/podkit/agent",
        "rm -f /run/podkit/agent",
        "mv /run/podkit /run/other",
        "chmod 0 /run/podkit/agent",
        "mount -o remount,rw /run/podkit",
        "umount /run/podkit",
        "mount -t tmpfs none /run/podkit",
    )
    before = victim.session.execute_command("sha256sum /run/podkit/agent").stdout
    results = {command: victim.session.execute_command(command).ok for command in changes}
    assert results == dict.fromkeys(changes, False)
    assert victim.session.execute_command("sha256sum /run/podkit/agent").stdout == before


FAKES = {
    "none": "",
    "no program": "garbage",
    "ends": "#!/bin/sh\nexit 3",
    "silent": "#!/bin/sh\nexec sleep 600",
    "garbage": "#!/bin/sh\nwhile :; do echo some garbage; done",
    "another version": "#!/bin/sh\nprintf '\\4\\0\\0\\0\\0\\0\\0\\0\\100\\0\\0\\0\\377\\0\\0\\0'; exec sleep 600",
    "deaf": "#!/bin/sh\nprintf '\\4\\0\\0\\0\\0\\0\\0\\0\\100\\0\\0\\0\\1\\0\\0\\0'; exec sleep 600",
    "says farewell": "#!/bin/sh\nprintf '\\4\\0\\0\\0\\0\\0\\0\\0\\100\\0\\0\\0\\1\\0\\0\\0'; read x; "
    "printf '\\0\\0\\0\\0\\0\\0\\0\\0\\110\\0\\0\\0'",
}


@pytest.mark.parametrize("name", FAKES)
def test_whatever_stands_in_the_agents_place_a_command_with_a_timeout_is_back_in_time(
    backend: DockerBackend, engine: Engine, busybox_image: str, name: str
) -> None:
    victim = Victim(backend, engine, busybox_image)
    put = "" if name == "none" else "mkdir -p /run/podkit; cat > /run/podkit/agent; chmod 755 /run/podkit/agent"
    assert victim.session.execute_command("mv /run /away").ok  # the mount goes with it, where /run is not the image's
    assert victim.session.execute_command(["sh", "-c", put], input=FAKES[name]).ok

    session = victim.opened_anew()
    for _ in range(2):
        began = time.monotonic()
        try:
            result = session.execute_command("echo really", timeout=1)
        except PodkitError:
            pass
        else:
            assert result.stdout == "really\n" or result.timed_out or result.container_restarted
        assert time.monotonic() - began < 1 + 8  # starting a container takes what it takes


# --- the container, the engine and the connection ---------------------------------------------------------------


@pytest.mark.parametrize("how", ["kill", "restart", "stop"])
def test_a_command_whose_container_is_taken_from_it_runs_once(
    victim: Victim, engine: Engine, threads: ThreadPoolExecutor, how: str
) -> None:
    running = begun(threads, victim.session)
    if how == "restart":
        engine.client.api.restart(victim.id, timeout=1)
    else:
        getattr(engine, how)(victim.id)
    assert_ended_once(running, victim.session)


def test_a_paused_container_refuses_a_command_and_can_be_closed(victim: Victim, engine: Engine) -> None:
    assert not eventually(lambda: False, seconds=1.1)  # one that was heard a moment ago is not asked whether it lives
    engine.client.api.pause(victim.id)
    with within(8), pytest.raises(ContainerNotRunning, match="paused"):
        victim.session.execute_command("true", timeout=5)
    with within(10):
        victim.session.close()
    assert not engine.exists(victim.id)


def test_a_container_that_was_paused_for_a_while_goes_on(
    victim: Victim, engine: Engine, threads: ThreadPoolExecutor
) -> None:
    command = victim.session.popen(["cat"])
    engine.client.api.pause(victim.id)
    assert not eventually(lambda: command.poll() is not None, seconds=1.5)
    engine.client.api.unpause(victim.id)
    command.stdin.write("alive\n")
    assert next(iter(command)) == "alive\n"
    command.kill()


FarAway = tuple[EngineProxy, Victim]


@pytest.fixture
def far_away(engine: Engine, default_image: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FarAway]:
    """A session through a connection that can be lost."""
    proxy = EngineProxy()
    monkeypatch.setenv("DOCKER_HOST", proxy.url)
    backend = DockerBackend()
    backend.connect()
    yield proxy, Victim(backend, engine, default_image)
    backend.client.close()
    proxy.go_away()


def test_a_command_whose_connection_is_cut_is_interrupted_and_runs_once(
    far_away: FarAway, threads: ThreadPoolExecutor
) -> None:
    proxy, victim = far_away
    running = begun(threads, victim.session)
    proxy.reset()
    assert_ended_once(running, victim.session)
    assert eventually(lambda: victim.processes() == []), victim.processes()


def test_a_connection_that_is_cut_at_any_moment_never_runs_a_command_twice(
    far_away: FarAway, threads: ThreadPoolExecutor
) -> None:
    proxy, victim = far_away
    sent = interrupted = 0
    cutting = threads.submit(lambda: [proxy.reset() for _ in range(15) if not eventually(lambda: False, seconds=0.15)])
    while not cutting.done():
        sent += 1
        try:
            victim.session.execute_command(f"echo {sent} >> /workspace/runs", timeout=20)
        except PodkitError:  # interrupted, or the engine could not be reached just then
            interrupted += 1
    cutting.result()

    runs = victim.session.execute_command("cat /workspace/runs").stdout.split()
    assert len(runs) == len(set(runs))
    assert len(runs) >= sent - interrupted
    assert interrupted < sent


FORGE_INPUT = """
import os, time
fd = os.open("/proc/self/fd/0", os.O_RDWR)
os.write(fd, b"forged")
if os.fork() == 0:
    os.setsid()
    time.sleep(60)
"""


def test_an_empty_input_is_nobodys_to_write_to_though_root_has_taken_the_null_device_away(victim: Victim) -> None:
    victim.session.execute_command("rm /dev/null; : > /dev/null")
    session = victim.opened_anew()  # through a channel that finds no such device
    session.execute_command(["python3", "-c", FORGE_INPUT], user="1001")
    with within(5):
        assert session.execute_command(["cat"], user="1002").stdout == ""


# --- limits -------------------------------------------------------------------------------------------------------

LOWER = """
import glob, resource, sys
name, limit, value = sys.argv[1], getattr(resource, sys.argv[2]), int(sys.argv[3])
for place in glob.glob('/proc/[0-9]*'):
    if open(place + '/comm').read().strip() == name:
        resource.prlimit(int(place.removeprefix('/proc/')), limit, (value, value))
"""
"""Lowers a limit of every process of a name, for ever."""

GUARDED = """
import os, resource
for pid in filter(str.isdigit, os.listdir("/proc")):
    if open(f"/proc/{pid}/comm").read().startswith(("agent\\n", "podkit-", "keeper-")):
        for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_SIGPENDING, resource.RLIMIT_CPU, resource.RLIMIT_RTTIME):
            try:
                resource.prlimit(int(pid), limit, (1, 1))
                print("lowered", pid, limit)
            except PermissionError:
                print("refused")
"""
"""Tries to lower the limits of all that is the agent's."""

LIMITS = {"open files": ("RLIMIT_NOFILE", "3"), "memory": ("RLIMIT_AS", "1000"), "stack": ("RLIMIT_STACK", "0")}


def test_root_inside_cannot_lower_the_limits_of_the_agent(victim: Victim) -> None:
    victim.session.processes.start_process(["sleep", MARK])
    tried = victim.session.execute_command(["python3", "-c", GUARDED]).check().stdout.split()
    assert tried == ["refused"] * 4 * 4  # first process, channel, supervisor, keeper
    assert victim.session.execute_command(["python3", "-c", GUARDED], user="nobody").stdout.split() == tried


@pytest.mark.parametrize("limit", LIMITS)
def test_a_channel_whose_limits_were_lowered_is_replaced_before_the_next_command(peer: Victim, limit: str) -> None:
    before = peer.started_at()
    peer.session.execute_command(["python3", "-c", LOWER, "podkit-channel", *LIMITS[limit]]).check()
    assert peer.session.execute_command("echo hello").check().stdout == "hello\n"
    assert peer.started_at() == before


def test_without_a_session_a_channel_whose_limits_were_lowered_is_an_error_that_says_so(peer: Victim) -> None:
    containers = peer.session._sessions.container_manager  # it has the first process's channel
    command = containers.popen(peer.id, ["sleep", MARK])
    containers.execute_command(peer.id, ["python3", "-c", LOWER, "podkit-channel", *LIMITS["open files"]]).check()
    with pytest.raises(ContainerNotRunning, match="lowered its resource limits; nothing was run"):
        containers.execute_command(peer.id, "echo hello")
    with pytest.raises(CommandInterrupted):  # this one had begun
        command.wait(20)
    assert containers.execute_command(peer.id, "echo hello").check().stdout == "hello\n"


def test_a_command_whose_supervisor_can_find_nothing_any_more_is_ended_with_the_container(
    peer: Victim, threads: ThreadPoolExecutor
) -> None:
    running = begun(threads, peer.session, timeout=2)
    peer.session.execute_command(["python3", "-c", LOWER, "podkit-command", "RLIMIT_NOFILE", "0"])
    result = running.result(20)
    assert (result.timed_out, result.container_restarted) == (True, True)
    assert peer.processes() == []


@pytest.mark.parametrize("limit", LIMITS)
def test_a_command_that_lowers_the_limits_of_all_that_watches_it_is_over_soon_after_its_timeout(
    peer: Victim, limit: str
) -> None:
    lower = ["python3", "-c", LOWER, "podkit-channel", *LIMITS[limit]]
    script = f'"$0" "$@"; set -- "$1" "$2" podkit-command "$4" "$5"; "$0" "$@"; setsid sleep {MARK} & sleep {MARK}'
    assert_over_soon(peer, ["sh", "-c", script, *lower])


def test_a_command_that_stops_all_that_watches_it_again_and_again_is_over_soon_after_its_timeout(
    victim: Victim,
) -> None:
    script = f"{CHANNEL}; (while :; do kill -STOP $PPID $channel; done) & setsid sleep {MARK} & sleep {MARK}"
    assert_over_soon(victim, ["sh", "-c", script])


def assert_over_soon(victim: Victim, argv: list[str]) -> None:
    """Its caller is back in time, with a result or knowing that there is none; nothing of it stays."""
    with within(10), suppress(CommandInterrupted):
        result = victim.session.execute_command(argv, timeout=1)
        assert (result.timed_out, victim.processes()) == (True, [])
    assert eventually(lambda: victim.processes() == [], seconds=9), victim.processes()
    assert victim.session.execute_command("echo alive").check().stdout == "alive\n"


FORSAKE = """
import os, resource, signal, sys, time
def lower(pid): resource.prlimit(pid, resource.RLIMIT_NOFILE, (0, 0))
def parent(pid): return int(open(f'/proc/{pid}/stat').read().rpartition(')')[2].split()[1])
supervisor = os.getppid(); channel = parent(supervisor)
if os.fork() == 0:
    os.setsid()
    lower(supervisor); lower(channel)
    print('ready', flush=True)
    while parent(supervisor) == channel: time.sleep(0.001)
    os.kill(supervisor, signal.SIGKILL)
    os.execvp('sleep', ['sleep', sys.argv[1]])
time.sleep(600)
"""
"""Lets its supervisor find nothing, and kills it as soon as its channel has gone."""


def test_a_command_that_kills_what_watches_it_once_the_channel_has_gone_does_not_live_on(peer: Victim) -> None:
    with peer.session.popen(["python3", "-c", FORSAKE, MARK]) as command:
        assert next(iter(command)) == "ready\n"
        assert peer.session.execute_command("echo alive").stdout == "alive\n"  # through another channel
        with pytest.raises(CommandInterrupted):
            command.wait(20)
    assert eventually(lambda: peer.processes() == [], seconds=9), peer.processes()
    assert peer.session.execute_command("echo alive").stdout == "alive\n"


def test_a_working_directory_is_not_made_through_a_link_that_somebody_inside_has_put_there(
    backend: DockerBackend, engine: Engine, default_image: str
) -> None:
    session = Victim(backend, engine, default_image, working_dir="/workspace/a/b").session
    session.execute_command("rm -rf /workspace/a && ln -s /etc /workspace/a", "/").check()
    with pytest.raises(ContainerError, match="working_dir cannot be entered"):
        session.execute_command("true")
    assert not session.execute_command("test -e /etc/b", "/").ok
    session.execute_command("rm /workspace/a && mkdir /workspace/a", "/").check()
    assert session.execute_command("pwd; stat -c %a .").stdout == "/workspace/a/b\n777\n"


# --- what cannot be done ------------------------------------------------------------------------------------------


@contextmanager
def same_channel(victim: Victim) -> Iterator[None]:
    """What happens inside leaves the channel and its commands alone."""
    with victim.bystander() as bystander:
        yield
        assert bystander.answers()


def test_a_full_pids_limit_is_a_typed_error_and_the_channel_goes_on(victim: Victim) -> None:
    with same_channel(victim):
        with victim.session.popen(PAYLOADS["fork storm"].command) as storm:
            assert next(iter(storm)) == "ready\n"

            def refused() -> bool:
                try:
                    victim.session.execute_command("true", timeout=5)
                except ContainerError as exc:
                    return "pids_limit" in str(exc)
                return False

            assert eventually(refused)
        assert victim.session.execute_command("echo alive").stdout == "alive\n"


REFUSED: dict[str, tuple[Callable[[SessionProxy], object], str]] = {
    "a user": (lambda session: session.execute_command("true", user="nosuchuser"), "'nosuchuser'"),
    "a group": (lambda session: session.execute_command("true", user="root:nosuchgroup"), "'root:nosuchgroup'"),
    "a directory": (lambda session: session.execute_command("true", "/nonexistent"), "'/nonexistent'.*No such file"),
    "a file": (lambda session: session.execute_command("true", "/etc/passwd"), "'/etc/passwd'.*Not a directory"),
    "a missing relative directory": (
        lambda session: session.execute_command("true", "none/such"),
        "'none/such'.*No such file",
    ),
    "a directory that is closed to it": (
        lambda session: session.execute_command("true", "/root", user="nobody"),
        "'/root'.*Permission denied",
    ),
    "popen in a missing directory": (lambda session: session.popen("true", "/nonexistent"), "'/nonexistent'"),
    "popen as a missing user": (lambda session: session.popen("true", user="nosuchuser"), "'nosuchuser'"),
    "arguments of 4 MiB": (lambda session: session.execute_command(["true", *["x" * 100_000] * 42]), "4 MiB"),
    "arguments of 3 MiB": (lambda session: session.execute_command(["true", *["x" * 100_000] * 31]), "kernel"),
    "one long argument": (lambda session: session.execute_command(["true", "x" * 200_000]), "131071"),
    "a long environment": (
        lambda session: session.execute_command("true", environment={f"A{n}": "x" * 100_000 for n in range(31)}),
        "kernel",
    ),
}


@pytest.fixture(scope="module")
def calm(backend: DockerBackend, own_engine: Engine, default_image: str) -> Victim:
    """One that nothing here breaks."""
    return Victim(backend, own_engine, default_image, pids_limit=4000, memory_limit="2g")


@pytest.mark.parametrize("row", REFUSED)
def test_what_cannot_be_run_is_refused_by_name_and_the_channel_goes_on(calm: Victim, row: str) -> None:
    act, said = REFUSED[row]
    with same_channel(calm), pytest.raises(InvalidInput, match=said):
        act(calm.session)


@pytest.mark.parametrize("number", ["SIGNOPE", "", " term", 0, -1, 65, 1 << 40, True, 9.0, None])
def test_a_signal_that_does_not_exist_is_refused(calm: Victim, number: object) -> None:
    with calm.session.popen(["cat"]) as command:
        with pytest.raises(InvalidInput, match="is no signal"):
            command.send_signal(number)  # type: ignore[arg-type]
        command.stdin.write("alive\n")
        assert next(iter(command)) == "alive\n"


# --- many, deaf, silent ----------------------------------------------------------------------------------------------


@pytest.mark.xdist_group("a thousand processes")  # one such storm at a time, here and in tests/unit/agent
def test_a_thousand_commands_of_one_session_run_at_once(calm: Victim, threads: ThreadPoolExecutor) -> None:
    with same_channel(calm):
        commands = list(threads.map(lambda number: _waiting(calm.session, number), range(1000)))
        for command in commands:
            command.stdin.write("go\n")
        assert [command.wait(30).exit_code for command in commands] == [number % 100 for number in range(1000)]


def _waiting(session: SessionProxy, number: int) -> Command:
    return session.popen(["sh", "-c", f"read line; exit {number % 100}"])


def test_input_that_a_command_does_not_read_stops_its_writer_alone(calm: Victim, threads: ThreadPoolExecutor) -> None:
    with same_channel(calm):
        command = calm.session.popen(["sleep", MARK])
        writer = threads.submit(command.stdin.write, bytes(2 << 20))
        assert calm.session.execute_command("echo alive").stdout == "alive\n"
        assert not writer.done()

        command.kill()
        assert isinstance(writer.exception(10), BrokenPipeError)


def test_output_that_nobody_reads_stops_its_command_alone(calm: Victim) -> None:
    with same_channel(calm), calm.session.popen(["cat", "/dev/zero"], max_output_bytes=0):
        for _ in range(3):
            result = calm.session.execute_command("head -c 20000000 /dev/zero | cksum; head -c 3000000 /dev/zero")
            assert len(result.stdout.encode()) > 3_000_000


def test_a_command_that_closes_its_output_and_goes_on_ends_when_it_ends(calm: Victim) -> None:
    began = time.monotonic()
    assert calm.session.execute_command("exec >&- 2>&-; sleep 0.5; exit 7").exit_code == 7
    assert time.monotonic() - began > 0.4


def test_a_child_that_holds_the_pipes_lives_on_until_the_session_ends(victim: Victim, engine: Engine) -> None:
    with within(5):
        result = victim.session.execute_command(f"echo before; sleep {MARK} & echo after")
    assert result.stdout == "before\nafter\n"
    assert victim.session.execute_command("true").ok
    assert [line for line in victim.processes() if MARK in line]

    victim.session.close()
    assert not engine.exists(victim.id)


def test_a_fault_is_said_once_in_the_log(victim: Victim, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="podkit"):
        victim.session.execute_command("kill -KILL $PPID; sleep 60", timeout=30)
    assert len(caplog.records) == 1
    assert victim.session.get_info().container_name in caplog.records[0].getMessage()
