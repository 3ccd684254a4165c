"""What the fake does beyond the contract suite: scripts, its clock, faults, and what happens behind podkit's back."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from podkit.backends.base import Chunk, ExecSpec, MountSpec, Stream
from podkit.core.models import ContainerStatus
from podkit.errors import (
    ContainerNotFound,
    ContainerNotRunning,
    EngineTimeout,
    EngineUnavailable,
    ImageNotFound,
    NameTaken,
    NetworkNotFound,
    PortUnavailable,
)
from podkit.testing import (
    Background,
    FakeBackend,
    IgnoreSigterm,
    Input,
    Invocation,
    ManualClock,
    Pause,
    Program,
    Reply,
    Steps,
    read_all,
)
from podkit.testing.suite import run, workload_spec
from podkit.utils._deadline import Deadline
from tests.unit.support import data_of


def soon() -> Deadline:
    return Deadline.after(60)


def started(fake: FakeBackend, name: str = "box", **changes: Any) -> str:
    fake.connect()
    id = fake.create_workload(workload_spec(name, "some:image", **changes))
    fake.start_workload(id)
    fake.calls.clear()
    return id


def ran(programs: dict[str, Program], argv: list[str] | str, **options: Any) -> tuple[int, str, str]:
    """Run a command in a fresh fake."""
    fake = FakeBackend(programs)
    id = started(fake)
    return shown(fake, id, argv, **options)


def shown(fake: FakeBackend, id: str, argv: list[str] | str, **options: Any) -> tuple[int, str, str]:
    ended = run(fake, id, ["sh", "-c", argv] if isinstance(argv, str) else argv, **options)
    return ended.exit_code, ended.stdout.decode(), ended.stderr.decode()


def output(fake: FakeBackend, id: str, script: str) -> str:
    return shown(fake, id, script)[1]


# --- programs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["pytest -q", ["pytest", "-q"]])
def test_a_command_line_is_scripted_in_one_line(command: list[str] | str) -> None:
    programs: dict[str, Program] = {"pytest -q": Reply("1 failed\n", exit_code=1)}
    assert ran(programs, command) == (1, "1 failed\n", "")


def test_a_whole_script_is_scripted_in_one_line() -> None:
    programs: dict[str, Program] = {"make | tee log; exit 1": Reply("done\n")}
    assert ran(programs, "make | tee log; exit 1") == (0, "done\n", "")


def test_a_whole_command_line_counts_before_the_programs_name() -> None:
    programs: dict[str, Program] = {"git": Reply("other\n"), "git status": Reply("clean\n")}
    assert ran(programs, ["git", "status"])[1] == "clean\n"
    assert ran(programs, ["git", "log"])[1] == "other\n"


def test_a_program_sees_how_it_was_called() -> None:
    seen: list[Invocation] = []

    def look(run: Invocation) -> Reply:
        seen.append(run)
        return Reply()

    ran({"look": look}, ["look", "a b"], working_dir="/tmp", user="nobody", environment={"A": "1"})
    [run] = seen
    assert (run.argv, run.working_dir, run.user_name) == (["look", "a b"], "/tmp", "nobody")
    assert run.environment["A"] == "1"
    assert run.path("x/../y") == "/tmp/y"


def test_a_program_reads_prints_waits_and_ends() -> None:
    def chat(run: Invocation) -> Steps:
        yield "ready\n"
        yield Pause(0.01)
        yield Chunk(Stream.STDERR, (yield Input()).upper())
        return 7

    assert ran({"chat": chat}, ["chat"], input=b"hello") == (7, "ready\n", "HELLO")


def test_a_program_reads_all_of_its_input() -> None:
    def count(run: Invocation) -> Steps:
        data = yield from read_all()
        yield str(len(data))
        return None

    assert ran({"count": count}, ["count"], input=bytes(1 << 20)) == (0, str(1 << 20), "")


def test_a_program_that_raises_ends_as_pythons_own_would() -> None:
    def broken(run: Invocation) -> Reply:
        raise KeyError("nothing here")

    code, out, err = ran({"broken": broken}, ["broken"])
    assert (code, out) == (1, "")
    assert "KeyError: 'nothing here'" in err


def test_a_step_that_is_none_is_named() -> None:
    def wrong(run: Invocation) -> Steps:
        yield 3.0  # type: ignore[misc]  # the mistake that is tested
        return 0

    assert "a program yielded 3.0" in ran({"wrong": wrong}, ["wrong"])[2]


def test_a_generator_that_returns_no_exit_code_says_so() -> None:
    def wrong(run: Invocation) -> Steps:
        yield "begun"
        return Reply("done")  # type: ignore[return-value]  # the mistake that is tested

    code, out, err = ran({"wrong": wrong}, ["wrong"])
    assert (code, out) == (1, "begun")
    assert "returns its exit code, an int; this one returned Reply" in err


def test_every_fake_has_the_networks_that_every_docker_has() -> None:
    for name in ("bridge", "host", "none"):
        fake = FakeBackend()
        fake.connect()
        fake.create_workload(workload_spec("n", "i", networks=[name]))


def test_a_program_calls_another_one() -> None:
    def twice(run: Invocation) -> Steps:
        yield from run.call(run.argv[1:])
        return (yield from run.call(run.argv[1:]))

    assert ran({"twice": twice}, ["twice", "echo", "hi"])[1] == "hi\nhi\n"


def test_a_child_in_the_background_holds_the_stream_and_not_the_exit_code() -> None:
    def child() -> Steps:
        yield Pause(30)
        yield "late"
        return 0

    def parent(run: Invocation) -> Steps:
        yield Background(child())
        return 5

    fake, clock = with_clock({"parent": parent})
    stream = fake.open_stream(started(fake), ExecSpec(argv=["parent"]))
    assert stream.exit_code() == 5
    assert stream.read(Deadline.after(0.01)) is None
    clock.advance(30)
    assert data_of(stream) == b"late"
    assert data_of(stream) == b""


def test_an_endless_program_costs_no_memory_and_its_reader_no_patience() -> None:
    fake = FakeBackend()
    id = started(fake)
    stream = fake.open_stream(id, ExecSpec(argv=["yes"]))
    received = 0
    while received < 10 << 20:
        received += len(data_of(stream))
    assert stream.exit_code() is None
    assert fake.running(id)[1:] == [["yes"]]


def test_a_program_may_end_its_own_workload() -> None:
    fake = FakeBackend()

    def oom(run: Invocation) -> Steps:
        yield "growing"
        fake.end(run.workload_id, 137, oom=True)
        yield "never seen"
        return 0

    fake.programs["oom"] = oom
    id = started(fake)
    stream = fake.open_stream(id, ExecSpec(argv=["oom"]))
    assert data_of(stream) == b"growing"
    assert stream.exit_code() == 137
    assert fake.inspect_workload(id).oom_killed


# --- the shell ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo 'a  b' c", (0, "a  b c\n", "")),
        ("exit 3", (3, "", "")),
        (
            "no-such-program",
            (127, "", "exec: 'no-such-program': no such program; script it: FakeBackend({'name': ...})\n"),
        ),
    ],
)
def test_the_shell_runs_one_plain_command(script: str, expected: tuple[int, str, str]) -> None:
    assert ran({}, script) == expected


@pytest.mark.parametrize("script", ["echo a | cat", "echo $HOME", "echo `pwd`", "pwd; ls", "true && ls", "ls *.py", ""])
def test_a_script_that_is_more_says_how_to_script_it(script: str) -> None:
    code, out, err = ran({}, script)
    assert (code, out) == (2, "")
    assert f"FakeBackend({{{script!r}: ...}})" in err


# --- files -------------------------------------------------------------------------------------------


def make(run: Invocation) -> Reply:
    for name in run.argv[1:]:
        run.files[run.path(name)] = b"made\n"
    return Reply()


def test_files_are_seen_by_programs_and_by_the_test() -> None:
    fake = FakeBackend()
    id = started(fake)
    fake.files(id)["/data/in"] = b"given\n"
    fake.programs["make"] = make
    assert output(fake, id, "cat /data/in") == "given\n"
    assert output(fake, id, "make out") == ""
    assert fake.files(id)["/workspace/out"] == b"made\n"


def test_a_bind_mount_shows_this_hosts_directory(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("host\n")
    fake = FakeBackend({"make": make})
    id = started(fake, mounts=[MountSpec(type="bind", source=str(tmp_path), target="/data")])
    assert output(fake, id, "cat /data/in") == "host\n"
    assert output(fake, id, "make /data/deep/out") == ""
    assert output(fake, id, "ls /data") == "deep\nin\n"
    assert (tmp_path / "deep/out").read_text() == "made\n"


def test_no_path_inside_leaves_a_bind_mount_by_dots(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "secret").write_text("secret")
    fake = FakeBackend()
    id = started(fake, mounts=[MountSpec(type="bind", source=str(tmp_path / "shared"), target="/data")])
    assert shown(fake, id, ["cat", "/data/../secret"])[0] == 1


def test_what_is_mounted_read_only_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "in").write_text("host")
    fake = FakeBackend({"make": make})
    id = started(fake, mounts=[MountSpec(type="bind", source=str(tmp_path), target="/data", read_only=True)])
    for command in ("rm /data/in", "make /data/in"):
        code, _, err = shown(fake, id, command)
        assert code == 1
        assert "Read-only file system" in err
    assert (tmp_path / "in").read_text() == "host"


def test_a_volume_outlives_its_workload_and_a_subpath_shows_a_part_of_it() -> None:
    fake = FakeBackend({"make": make})

    def mount(subpath: str) -> MountSpec:
        return MountSpec(type="volume", source="v", target="/w", subpath=subpath)

    first = started(fake, mounts=[mount("a")])
    output(fake, first, "make /w/f")
    fake.remove_workload(first)
    again, other = started(fake, "again", mounts=[mount("a")]), started(fake, "other", mounts=[mount("b")])
    assert output(fake, again, "cat /w/f") == "made\n"
    assert output(fake, other, "ls /w") == ""


def test_memory_that_is_mounted_is_empty_after_a_restart() -> None:
    fake = FakeBackend({"make": make})
    id = started(fake, mounts=[MountSpec(type="tmpfs", target="/t")])
    output(fake, id, "make /t/f kept")
    fake.stop_workload(id, 0)
    fake.start_workload(id)
    assert output(fake, id, "ls /t") == ""
    assert output(fake, id, "cat kept") == "made\n"


# --- the clock ---------------------------------------------------------------------------------------


def with_clock(programs: dict[str, Program] | None = None) -> tuple[FakeBackend, ManualClock]:
    clock = ManualClock()
    return FakeBackend(programs, clock=clock), clock


def late(run: Invocation) -> Steps:
    yield Pause(float(run.argv[1]))
    yield "late\n"
    return 0


def test_a_lifetime_ends_by_the_clock_inside() -> None:
    fake, clock = with_clock()
    id = started(fake, command=["sleep", "60"])
    clock.advance(59)
    assert fake.inspect_workload(id).status is ContainerStatus.RUNNING
    clock.advance(1)
    info = fake.inspect_workload(id)
    assert (info.status, info.exit_code) == (ContainerStatus.EXITED, 0)


def test_a_workload_ended_when_its_time_was_over_and_not_when_somebody_looked() -> None:
    fake, clock = with_clock()
    id = started(fake, command=["sleep", "60"])
    clock.advance(1000)
    info = fake.inspect_workload(id)
    assert info.started_at is not None
    assert info.finished_at is not None
    assert (info.finished_at - info.started_at).total_seconds() == 60


def test_a_command_that_ended_before_its_workload_keeps_its_exit_code() -> None:
    fake, clock = with_clock({"late": late})
    id = started(fake, command=["sleep", "60"])
    short = fake.open_stream(id, ExecSpec(argv=["late", "30"]))
    long = fake.open_stream(id, ExecSpec(argv=["sleep", "90"]))
    clock.advance(1000)
    assert (short.exit_code(), long.exit_code()) == (0, 137)


def test_a_reader_notices_that_the_clock_jumped() -> None:
    fake, clock = with_clock({"late": late})
    stream = fake.open_stream(started(fake), ExecSpec(argv=["late", "600"]))
    threading.Timer(0.05, clock.advance, [600]).start()
    assert data_of(stream) == b"late\n"


def test_by_default_time_passes() -> None:
    fake = FakeBackend({"late": late})
    began = time.monotonic()
    assert shown(fake, started(fake), "late 0.1")[1] == "late\n"
    assert 0.1 <= time.monotonic() - began < 5


# --- the main process --------------------------------------------------------------------------------


def test_the_main_process_is_a_program_too() -> None:
    fake = FakeBackend({"server": Reply("listening\n", "warning\n", exit_code=2)})
    id = started(fake, entrypoint=["server"], command=["--port", "80"])
    assert fake.get_workload_logs(id, 10) == "listening\nwarning\n"
    assert fake.inspect_workload(id).exit_code == 2


def test_an_images_own_command_runs_until_it_is_stopped() -> None:
    fake, clock = with_clock()
    id = started(fake, entrypoint=None, command=None)
    clock.advance(10**9)
    assert fake.inspect_workload(id).status is ContainerStatus.RUNNING


def test_a_main_process_that_ignores_sigterm_is_killed_after_the_timeout() -> None:
    def stubborn(run: Invocation) -> Steps:
        yield IgnoreSigterm()
        yield Pause(10**9)
        return 0

    fake = FakeBackend({"stubborn": stubborn})
    id = started(fake, command=["stubborn"])
    fake.stop_workload(id, 0.05)
    assert fake.inspect_workload(id).exit_code == 137


def test_a_flooding_main_process_keeps_its_log_bounded() -> None:
    fake = FakeBackend()
    id = started(fake, command=["yes"])
    for _ in range(20):
        assert len(fake.get_workload_logs(id, 10**9)) <= 64 << 10


# --- behind podkit's back ----------------------------------------------------------------------------


def test_end_says_how_and_how_long_ago() -> None:
    fake, _ = with_clock()
    id = started(fake)
    fake.end(id, 137, oom=True, status=ContainerStatus.DEAD, seconds_ago=3600)
    info = fake.inspect_workload(id)
    assert (info.status, info.exit_code, info.oom_killed) == (ContainerStatus.DEAD, 137, True)
    assert info.started_at is not None
    assert info.finished_at is not None
    assert (info.started_at - info.finished_at).total_seconds() == 3600


def test_a_restart_forgets_how_the_last_run_ended() -> None:
    fake = FakeBackend()
    id = started(fake)
    fake.end(id, 137, oom=True)
    fake.start_workload(id)
    info = fake.inspect_workload(id)
    assert (info.status, info.exit_code, info.oom_killed) == (ContainerStatus.RUNNING, None, False)
    assert info.finished_at is None


def test_what_is_paused_stands_still_and_takes_no_command() -> None:
    fake, clock = with_clock({"late": late})
    id = started(fake, command=["sleep", "60"])
    stream = fake.open_stream(id, ExecSpec(argv=["late", "1"]))
    fake.pause(id)
    clock.advance(2)
    assert stream.read(Deadline.after(0)) is None
    with pytest.raises(ContainerNotRunning, match="paused"):
        fake.open_stream(id, ExecSpec(argv=["true"]))
    fake.unpause(id)
    assert data_of(stream) == b"late\n"


def test_what_vanished_is_gone_with_its_commands() -> None:
    fake = FakeBackend()
    id = started(fake)
    stream = fake.open_stream(id, ExecSpec(argv=["sleep", "60"]))
    fake.vanish(id)
    assert data_of(stream) == b""
    with pytest.raises(ContainerNotFound):
        stream.exit_code()
    with pytest.raises(ContainerNotFound):
        fake.inspect_workload(id)


def test_the_test_sees_what_runs_inside() -> None:
    fake = FakeBackend()
    id = started(fake)
    fake.open_stream(id, ExecSpec(argv=["sleep", "5"]))
    assert fake.running(id) == [["sleep", "infinity"], ["sleep", "5"]]
    fake.stop_workload(id, 0)
    fake.start_workload(id)
    assert fake.running(id) == [["sleep", "infinity"]]


# --- what the engine has -----------------------------------------------------------------------------


def test_every_image_is_there_unless_it_was_said_which_are() -> None:
    fake = FakeBackend()
    assert started(fake)
    strict = FakeBackend(images={"one"})
    with pytest.raises(ImageNotFound):
        started(strict)
    strict.images = {"some:image"}
    assert started(strict)


def test_pulling_tells_of_its_progress() -> None:
    fake = FakeBackend(images=[], registry={"some:image"})
    fake.connect()
    told: list[str] = []
    fake.create_workload(workload_spec("x", "some:image"), pulling=told.append)
    assert told
    assert fake.images == {"some:image"}


def test_a_network_may_be_lost_between_creating_and_starting() -> None:
    fake = FakeBackend(networks={"net"})
    fake.connect()
    id = fake.create_workload(workload_spec("box", "some:image", networks=["net"]))
    fake.networks.clear()
    with pytest.raises(NetworkNotFound, match="net"):
        fake.start_workload(id)


def test_a_port_that_somebody_else_uses_is_taken_until_it_is_free() -> None:
    fake = FakeBackend()
    fake.taken_ports.add(80)
    with pytest.raises(PortUnavailable, match="80"):
        started(fake, ports=[80])
    fake.taken_ports.clear()
    assert started(fake, "other", ports=[80])


# --- faults ------------------------------------------------------------------------------------------


def test_calls_are_noted_in_order() -> None:
    fake = FakeBackend()
    id = started(fake)
    assert fake.calls == []
    fake.inspect_workload(id)
    fake.list_workloads()
    assert fake.calls == ["inspect_workload", "list_workloads"]


def test_nothing_answers_before_connect() -> None:
    with pytest.raises(EngineUnavailable, match="connect"):
        FakeBackend().list_workloads()


def test_a_fault_comes_as_often_as_it_was_asked_for_and_before_anything_happens() -> None:
    fake = FakeBackend()
    id = started(fake)
    fake.fail("remove_workload", EngineUnavailable("gone"), times=2)
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match="gone"):
            fake.remove_workload(id)
        assert fake.inspect_workload(id).id == id
    fake.remove_workload(id)


def test_a_lost_answer_comes_after_it_has_happened() -> None:
    fake = FakeBackend()
    fake.connect()
    fake.fail("create_workload", EngineTimeout("no answer"), after=True)
    spec = workload_spec("box", "some:image")
    with pytest.raises(EngineTimeout, match="no answer"):
        fake.create_workload(spec)
    with pytest.raises(NameTaken):
        fake.create_workload(spec)


def test_a_fault_may_hit_a_stream() -> None:
    fake = FakeBackend()
    stream = fake.open_stream(started(fake), ExecSpec(argv=["echo", "x"]))
    fake.fail("read", EngineUnavailable)
    with pytest.raises(EngineUnavailable):
        stream.read(soon())
    assert data_of(stream) == b"x\n"


def test_a_fault_for_no_method_is_refused() -> None:
    with pytest.raises(ValueError, match="stop_workload"):
        FakeBackend().fail("stop_workloads", EngineTimeout)


def test_a_race_can_be_made_to_happen() -> None:
    fake = FakeBackend()
    id = started(fake)
    fake.interpose("open_stream", lambda: fake.vanish(id))
    with pytest.raises(ContainerNotFound):
        fake.open_stream(id, ExecSpec(argv=["true"]))


@pytest.mark.parametrize(
    "ask",
    [
        lambda fake, id, stream, deadline: fake.inspect_workload(id, deadline=deadline),
        lambda fake, id, stream, deadline: stream.exit_code(deadline=deadline),
    ],
    ids=["a call", "an exit code"],
)
def test_a_frozen_engine_holds_calls_until_their_deadline(ask: Callable[..., object]) -> None:
    fake = FakeBackend()
    id = started(fake)
    stream = fake.open_stream(id, ExecSpec(argv=["true"]))
    fake.freeze()
    began = time.monotonic()
    with pytest.raises(EngineTimeout):
        ask(fake, id, stream, Deadline.after(0.1))
    assert 0.1 <= time.monotonic() - began < 5
    threading.Timer(0.05, fake.recover).start()
    ask(fake, id, stream, None)


def test_a_frozen_engine_gives_no_output() -> None:
    fake = FakeBackend()
    stream = fake.open_stream(started(fake), ExecSpec(argv=["echo", "x"]))
    fake.freeze()
    assert stream.read(Deadline.after(0.01)) is None
    fake.recover()
    assert data_of(stream) == b"x\n"


def test_an_engine_that_goes_away_breaks_streams_for_ever_and_keeps_its_workloads() -> None:
    fake = FakeBackend()
    id = started(fake)
    stream = fake.open_stream(id, ExecSpec(argv=["echo", "x"]))
    fake.go_down()
    with pytest.raises(EngineUnavailable):
        fake.inspect_workload(id)
    fake.recover()
    assert fake.inspect_workload(id).status is ContainerStatus.RUNNING
    with pytest.raises(EngineUnavailable):
        stream.read(soon())


# --- streams, threads, processes ---------------------------------------------------------------------


def test_writing_to_what_has_ended_is_a_broken_pipe() -> None:
    fake = FakeBackend()
    stream = fake.open_stream(started(fake), ExecSpec(argv=["true"], stdin=True))
    with pytest.raises(BrokenPipeError):
        stream.write(b"x", soon())


def test_a_kill_by_another_thread_wakes_a_reader() -> None:
    fake = FakeBackend()
    id = started(fake)
    stream = fake.open_stream(id, ExecSpec(argv=["sleep", "60"]))
    threading.Timer(0.05, fake.stop_workload, [id, 0]).start()
    began = time.monotonic()
    assert data_of(stream) == b""
    assert time.monotonic() - began < 10


def test_a_closed_stream_leaves_its_command_alone() -> None:
    def work(run: Invocation) -> Steps:
        yield Pause(0.05)
        make(run)
        yield Pause(60)
        return 0

    fake = FakeBackend({"work": work})
    id = started(fake)
    stream = fake.open_stream(id, ExecSpec(argv=["work", "f"]))
    stream.close()
    with pytest.raises(EngineUnavailable):
        stream.read(soon())
    wait = fake.open_stream(id, ExecSpec(argv=["sleep", "0.1"]))
    assert data_of(wait) == b""
    assert fake.files(id)["/workspace/f"] == b"made\n"
    assert ["work", "f"] in fake.running(id)


def test_many_threads_may_use_it_at_once() -> None:
    fake = FakeBackend()
    ids = [started(fake, f"box-{number}") for number in range(4)]

    def work(number: int) -> bool:
        nonce = os.urandom(100_000)
        return run(fake, ids[number % 4], ["cat"], input=nonce).stdout == nonce

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(64)))


def test_a_forked_child_may_use_its_copy_while_the_parent_held_the_lock() -> None:
    fake = FakeBackend()
    id = started(fake)
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        held.set()
        done.wait(30)

    fake.interpose("list_workloads", hold)
    holder = threading.Thread(target=fake.list_workloads)
    holder.start()
    held.wait(30)
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)  # a child that hangs must not outlive the test
        signal.alarm(10)
        code = 1
        try:
            code = 0 if fake.inspect_workload(id).id == id else 2
        finally:
            os._exit(code)
    done.set()
    holder.join(30)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
