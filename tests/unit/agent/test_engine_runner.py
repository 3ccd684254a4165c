"""Commands through the engine's own exec, over an engine in memory that does what it is told."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from podkit.agent.command_output import Outcome
from podkit.agent.command_request import CommandRequest
from podkit.agent.engine_runner import EngineRunner
from podkit.backends.base import Chunk, Stream
from podkit.core._restarts import Restarts
from podkit.core.models import ContainerStatus
from podkit.errors import (
    CommandInterrupted,
    ContainerNotFound,
    ContainerNotRunning,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    FileMissing,
    InvalidInput,
    PodkitError,
)
from podkit.testing import Background, FakeBackend, Input, Invocation, Pause, Reply, Steps, read_all
from tests.support.waiting import eventually, within
from tests.unit.support import at_once, inspected, make_spec


def talk(run: Invocation) -> Steps:
    """Print on both streams, with a pause in between."""
    yield "one "
    yield Chunk(Stream.STDERR, b"bad ")
    yield Pause(0.02)
    yield "two"
    yield Chunk(Stream.STDERR, b"worse")
    return 3


def hang(run: Invocation) -> Steps:
    """Print something and never end."""
    yield "so far"
    yield Pause(60)
    return 0


def leave_a_child(run: Invocation) -> Steps:
    """End at once, with a child in the background that holds the pipes."""

    def child() -> Steps:
        yield Pause(60)
        return 0

    yield "mine"
    yield Background(child())
    return 4


def half_characters(run: Invocation) -> Steps:
    for byte in "é🙂\n".encode():
        yield bytes([byte])
    return 0


def count_input(run: Invocation) -> Steps:
    data = yield from read_all()
    yield f"{len(data)}"
    return 0


def ignore_input(run: Invocation) -> Steps:
    yield Pause(0.05)
    return 0


def take_one_piece(run: Invocation) -> Steps:
    data = yield Input()
    yield data[:3]
    return 0


PROGRAMS = {
    "talk": talk,
    "hang": hang,
    "leave-a-child": leave_a_child,
    "half-characters": half_characters,
    "count": count_input,
    "ignore": ignore_input,
    "take-one": take_one_piece,
    "killed": Reply("last words", exit_code=137),
}


@pytest.fixture
def fake() -> FakeBackend:
    backend = FakeBackend(PROGRAMS)
    backend.connect()
    return backend


@pytest.fixture
def id(fake: FakeBackend) -> str:
    """A running container."""
    id = fake.create_workload(make_spec())
    fake.start_workload(id)
    fake.calls.clear()
    return id


@pytest.fixture
def engine_exec(fake: FakeBackend) -> EngineRunner:
    return EngineRunner(fake, Restarts(fake))


def request(command: Any, **arguments: Any) -> CommandRequest:
    return CommandRequest.checked(command, **arguments)


def commands_in(fake: FakeBackend, id: str) -> list[list[str]]:
    return fake.running(id)[1:]


# --- results ---------------------------------------------------------------------------------------


def test_output_is_kept_apart_and_the_exit_code_is_the_commands(engine_exec: EngineRunner, id: str) -> None:
    result = engine_exec.run(id, request(["talk"])).to_result(None)
    assert (result.stdout, result.stderr, result.exit_code) == ("one two", "bad worse", 3)
    assert result.duration_seconds >= 0.02
    assert not (result.timed_out or result.container_restarted)


@pytest.mark.parametrize("code", [0, 1, 2, 124, 125, 126, 127, 128, 130, 143, 255])
def test_every_exit_code_is_a_result(engine_exec: EngineRunner, id: str, code: int) -> None:
    assert engine_exec.run(id, request(f"exit {code}")).exit_code == code


def test_a_program_that_does_not_exist_is_a_result_of_127(engine_exec: EngineRunner, id: str) -> None:
    result = engine_exec.run(id, request(["nope"])).to_result(None)
    assert result.exit_code == 127
    assert "nope" in result.stderr
    assert result.stdout == ""


def test_a_file_that_is_no_program_is_a_result_of_126(engine_exec: EngineRunner, id: str) -> None:
    assert engine_exec.run(id, request(["/etc/passwd"])).exit_code == 126


def test_the_end_of_a_command_is_not_delayed_by_a_child_that_holds_its_pipes(
    fake: FakeBackend, engine_exec: EngineRunner, id: str
) -> None:
    with within(2):
        outcome = engine_exec.run(id, request(["leave-a-child"]))
    assert (outcome.exit_code, outcome.stdout.text) == (4, "mine")
    assert commands_in(fake, id) == [["leave-a-child"]]


def test_the_last_words_of_a_command_are_read_though_a_child_holds_its_pipes(
    fake: FakeBackend, engine_exec: EngineRunner, id: str
) -> None:
    def speak_late(run: Invocation) -> Steps:
        yield Background(hang(run))
        yield Pause(0.06)  # longer than a look at the stream, shorter than one at the exit code
        yield "last words"
        return 0

    fake.programs["speak-late"] = speak_late
    fake.interpose("exit_code", lambda: time.sleep(0.05))
    assert "last words" in engine_exec.run(id, request(["speak-late"])).stdout.text


def test_directory_user_environment_and_input_reach_the_command(engine_exec: EngineRunner, id: str) -> None:
    assert engine_exec.run(id, request("pwd", working_dir="/tmp")).stdout.text == "/tmp\n"
    assert engine_exec.run(id, request("whoami", user="nobody")).stdout.text == "nobody\n"
    assert engine_exec.run(id, request("printenv A", environment={"A": "b=c"})).stdout.text == "b=c\n"
    assert engine_exec.run(id, request(["cat"], input="héllo")).stdout.text == "héllo"


def test_a_command_without_input_reads_nothing(engine_exec: EngineRunner, id: str) -> None:
    assert engine_exec.run(id, request(["count"])).stdout.text == "0"


def test_characters_that_come_byte_by_byte_are_whole_for_the_callback(engine_exec: EngineRunner, id: str) -> None:
    told: list[str] = []
    outcome = engine_exec.run(id, request(["half-characters"], on_stdout=told.append))
    assert outcome.stdout.text == "".join(told) == "é🙂\n"


def test_each_callback_gets_its_own_stream_in_the_callers_thread(engine_exec: EngineRunner, id: str) -> None:
    out: list[tuple[str, int]] = []
    err: list[tuple[str, int]] = []
    engine_exec.run(
        id,
        request(
            ["talk"],
            on_stdout=lambda text: out.append((text, threading.get_ident())),
            on_stderr=lambda text: err.append((text, threading.get_ident())),
        ),
    )
    assert "".join(text for text, _ in out) == "one two"
    assert "".join(text for text, _ in err) == "bad worse"
    assert {thread for _, thread in out + err} == {threading.get_ident()}


# --- input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 64 << 10, (64 << 10) + 1, 4 << 20])
def test_input_of_any_size_arrives_whole(engine_exec: EngineRunner, id: str, size: int) -> None:
    assert engine_exec.run(id, request(["count"], input=b"x" * size, timeout=10)).stdout.text == str(size)


@pytest.mark.parametrize("program", ["ignore", "take-one", "true"])
def test_input_that_is_not_read_is_no_error_and_blocks_nobody(engine_exec: EngineRunner, id: str, program: str) -> None:
    with within(3):
        assert engine_exec.run(id, request([program], input=b"x" * (2 << 20))).exit_code == 0


def test_large_input_and_large_output_at_once_do_not_deadlock(engine_exec: EngineRunner, id: str) -> None:
    data = b"0123456789" * 300_000
    assert engine_exec.run(id, request(["cat"], input=data, timeout=10)).stdout.data == data


def test_no_thread_is_left_behind(engine_exec: EngineRunner, id: str) -> None:
    before = threading.active_count()
    engine_exec.run(id, request(["ignore"], input=b"x" * (2 << 20)))
    assert eventually(lambda: threading.active_count() <= before, seconds=2)


# --- timeouts --------------------------------------------------------------------------------------


def timed_out(engine_exec: EngineRunner, id: str, timeout: float = 0.1, **arguments: Any) -> Outcome:
    with within(timeout + 2):
        return engine_exec.run(id, request(["hang"], timeout=timeout, **arguments))


def test_a_timed_out_command_is_a_result_with_the_output_so_far(engine_exec: EngineRunner, id: str) -> None:
    result = timed_out(engine_exec, id).to_result(0.1)
    assert (result.exit_code, result.timed_out, result.stdout) == (124, True, "so far")
    assert "timed out" in result.stderr
    assert result.container_restarted


def test_a_timed_out_command_leaves_no_process_and_the_same_container_running(
    fake: FakeBackend, engine_exec: EngineRunner, id: str
) -> None:
    timed_out(engine_exec, id)
    assert commands_in(fake, id) == []
    assert inspected(fake, id).status is ContainerStatus.RUNNING


def test_a_timeout_kills_and_starts_the_container_once(fake: FakeBackend, engine_exec: EngineRunner, id: str) -> None:
    timed_out(engine_exec, id)
    assert fake.calls.count("restart_workload") == 1


def test_commands_that_time_out_together_restart_their_container_once(
    fake: FakeBackend, engine_exec: EngineRunner, id: str
) -> None:
    outcomes: list[bool] = at_once(4, lambda _: engine_exec.run(id, request(["hang"], timeout=0.15)).timed_out)
    assert outcomes == [True] * 4
    assert fake.calls.count("restart_workload") == 1


def test_a_command_beside_one_that_times_out_is_interrupted(engine_exec: EngineRunner, id: str) -> None:
    errors: list[BaseException] = []

    def beside() -> None:
        try:
            engine_exec.run(id, request(["hang"]))
        except CommandInterrupted as exc:
            errors.append(exc)

    thread = threading.Thread(daemon=True, target=beside)
    thread.start()
    time.sleep(0.05)
    timed_out(engine_exec, id)
    thread.join(5)
    assert len(errors) == 1


def test_a_flood_is_cut_and_ended_by_its_timeout(fake: FakeBackend, engine_exec: EngineRunner, id: str) -> None:
    end_in_any_case = threading.Timer(1.5, fake.go_down)
    end_in_any_case.start()
    with within(1):
        result = engine_exec.run(id, request(["yes"], timeout=0.2, max_output_bytes=1000)).to_result(0.2)
    end_in_any_case.cancel()
    assert (result.timed_out, len(result.stdout), result.stdout_truncated) == (True, 1000, True)
    assert commands_in(fake, id) == []


def test_a_timeout_with_a_container_that_went_away_is_still_a_timeout_or_an_interruption(
    fake: FakeBackend, engine_exec: EngineRunner, id: str
) -> None:
    fake.interpose("restart_workload", lambda: fake.vanish(id))
    try:
        assert timed_out(engine_exec, id).timed_out
    except CommandInterrupted as exc:
        assert exc.result is not None


def test_a_timeout_that_cannot_be_enforced_is_an_error_with_the_output_so_far(
    fake: FakeBackend, engine_exec: EngineRunner, id: str
) -> None:
    fake.fail("restart_workload", EngineError("the engine is broken"))
    with pytest.raises(CommandInterrupted, match="could not be ended") as caught:
        timed_out(engine_exec, id)
    assert caught.value.result is not None
    assert caught.value.result.stdout == "so far"
    assert isinstance(caught.value.__cause__, EngineError)


def test_an_engine_that_freezes_during_a_command_is_an_error_in_time(
    fake: FakeBackend, engine_exec: EngineRunner, id: str
) -> None:
    threading.Timer(0.05, fake.freeze).start()
    with within(0.2 + 2), pytest.raises(CommandInterrupted) as caught:
        engine_exec.run(id, request(["hang"], timeout=0.2))
    assert caught.value.result is not None
    assert caught.value.result.stdout == "so far"


def test_a_command_that_ends_right_at_its_deadline_did_end(engine_exec: EngineRunner, id: str) -> None:
    """With a child that holds its pipes, only the engine's exit code tells of its end."""
    outcome = engine_exec.run(id, request(["leave-a-child"], timeout=0.01))
    assert (outcome.exit_code, outcome.timed_out) == (4, False)


def test_a_child_that_goes_on_printing_does_not_hide_the_end_of_its_command(
    fake: FakeBackend, engine_exec: EngineRunner, id: str
) -> None:
    def chatter() -> Steps:
        for _ in range(1000):
            yield "."
            yield Pause(0.01)
        return 0

    def leave_a_chatterer(run: Invocation) -> Steps:
        yield Background(chatter())
        return 5

    fake.programs["leave-a-chatterer"] = leave_a_chatterer
    with within(4):
        assert engine_exec.run(id, request(["leave-a-chatterer"])).exit_code == 5


# --- whether anything runs -------------------------------------------------------------------------


def test_a_container_is_busy_while_a_command_runs_in_it(engine_exec: EngineRunner, id: str) -> None:
    seen: list[bool] = []
    engine_exec.run(id, request(["talk"], on_stdout=lambda text: seen.append(engine_exec.is_busy(id))))
    assert seen == [True, True]
    assert not engine_exec.is_busy(id)


# --- interruptions ---------------------------------------------------------------------------------


def behind_its_back(fake: FakeBackend, act: Any) -> None:
    """Have something happen while the command runs: at its third read."""
    fake.interpose("read", lambda: None, times=2)
    fake.interpose("read", act)


@pytest.mark.parametrize("how", ["removed", "killed", "ended", "engine down"])
def test_a_container_or_engine_that_ends_under_a_command_interrupts_it(
    fake: FakeBackend, engine_exec: EngineRunner, id: str, how: str
) -> None:
    acts = {
        "removed": lambda: fake.vanish(id),
        "killed": lambda: fake.end(id, 137),
        "ended": lambda: fake.end(id, 0),
        "engine down": fake.go_down,
    }
    behind_its_back(fake, acts[how])
    with within(3), pytest.raises(CommandInterrupted, match="not sent again") as caught:
        engine_exec.run(id, request(["hang"]))
    assert caught.value.result is not None
    assert caught.value.result.stdout == "so far"
    assert caught.value.__cause__ is not None


def test_a_container_that_was_killed_and_started_again_interrupts_its_commands(
    fake: FakeBackend, engine_exec: EngineRunner, id: str
) -> None:
    def restart() -> None:
        fake.end(id, 137)
        fake.start_workload(id)

    behind_its_back(fake, restart)
    with pytest.raises(CommandInterrupted):
        engine_exec.run(id, request(["hang"]))


def test_a_command_that_was_killed_on_its_own_is_a_result(engine_exec: EngineRunner, id: str) -> None:
    outcome = engine_exec.run(id, request(["killed"]))
    assert (outcome.exit_code, outcome.stdout.text) == (137, "last words")


@pytest.mark.parametrize("error", [EngineUnavailable("broken"), EngineError("broken"), ContainerNotFound("gone")])
@pytest.mark.parametrize("method", ["read", "exit_code"])
def test_a_command_is_never_sent_twice(
    fake: FakeBackend, engine_exec: EngineRunner, id: str, method: str, error: Exception
) -> None:
    fake.fail(method, error)
    with pytest.raises(CommandInterrupted):
        engine_exec.run(id, request(["talk"]))
    assert fake.calls.count("open_stream") == 1


@pytest.mark.parametrize("error", [EngineTimeout("late"), EngineUnavailable("cut"), KeyboardInterrupt()])
def test_a_command_that_may_have_been_sent_is_ended_and_never_sent_again(
    fake: FakeBackend, engine_exec: EngineRunner, id: str, error: BaseException
) -> None:
    fake.fail("open_stream", error, after=True)
    with pytest.raises(KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else CommandInterrupted):
        engine_exec.run(id, request(["hang"]))
    assert fake.calls.count("open_stream") == 1
    assert commands_in(fake, id) == []


# --- before anything was run -----------------------------------------------------------------------


@pytest.mark.parametrize("how", ["stopped", "paused", "gone"])
def test_a_container_that_cannot_run_commands_is_an_error_before_anything_is_run(
    fake: FakeBackend, engine_exec: EngineRunner, id: str, how: str
) -> None:
    {"stopped": fake.end, "paused": fake.pause, "gone": fake.vanish}[how](id)
    with pytest.raises(ContainerNotFound if how == "gone" else ContainerNotRunning):
        engine_exec.run(id, request("true"))
    assert "open_stream" not in fake.calls


@pytest.mark.parametrize("bad", [{"user": "nobody-there"}, {"working_dir": "/not/there"}])
def test_a_user_or_directory_that_the_container_has_not_is_bad_input(
    fake: FakeBackend, engine_exec: EngineRunner, id: str, bad: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        engine_exec.run(id, request("true", **bad))
    assert "restart_workload" not in fake.calls


def test_a_frozen_engine_is_a_timeout_in_time_and_nothing_is_run(
    fake: FakeBackend, engine_exec: EngineRunner, id: str
) -> None:
    fake.freeze()
    with within(0.1 + 2), pytest.raises(EngineTimeout):
        engine_exec.run(id, request("true", timeout=0.1))
    fake.recover()
    assert commands_in(fake, id) == []


# --- what the caller raises ------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyError("mine"), KeyboardInterrupt(), SystemExit(1)])
def test_what_a_callback_raises_ends_the_command_and_is_raised(
    fake: FakeBackend, engine_exec: EngineRunner, id: str, error: BaseException
) -> None:
    def callback(text: str) -> None:
        raise error

    with within(2), pytest.raises(type(error)) as caught:
        engine_exec.run(id, request(["hang"], on_stdout=callback))
    assert caught.value is error
    assert commands_in(fake, id) == []
    assert inspected(fake, id).status is ContainerStatus.RUNNING


@pytest.mark.parametrize("error", [InvalidInput, ContainerNotFound, EngineTimeout, FileMissing])
def test_a_callbacks_error_of_podkits_own_tree_ends_the_command_too(
    fake: FakeBackend, engine_exec: EngineRunner, id: str, error: type[PodkitError]
) -> None:
    """A callback that uses podkit itself, such as to write a file, may raise what that raises."""

    def callback(text: str) -> None:
        raise error("of the callback")

    with pytest.raises(error, match="of the callback"):
        engine_exec.run(id, request(["hang"], on_stdout=callback))
    assert commands_in(fake, id) == []
