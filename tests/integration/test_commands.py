"""What a command gets, and what comes back of it."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path

import pytest

from podkit import SessionProxy
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration


@pytest.mark.parametrize("code", [0, 1, 124, 125, 126, 127, 128, 137, 255])
def test_the_exit_code_is_the_commands_own(either: SessionProxy, code: int) -> None:
    result = either.execute_command(f"exit {code}")

    assert (result.exit_code, result.ok, result.timed_out) == (code, code == 0, False)


@pytest.mark.parametrize(("signal", "number"), [("HUP", 1), ("INT", 2), ("KILL", 9), ("USR1", 10), ("TERM", 15)])
def test_a_command_that_a_signal_ends_has_128_and_its_number(either: SessionProxy, signal: str, number: int) -> None:
    with within(10):
        result = either.execute_command(f"kill -{signal} $$; sleep 30", timeout=30)

    assert (result.exit_code, result.timed_out, result.container_restarted) == (128 + number, False, False)


def test_a_list_whose_program_is_missing_ends_with_127(either: SessionProxy) -> None:
    result = either.execute_command(["no-such-program", "argument"])

    assert result.exit_code == 127
    assert "no-such-program" in result.stderr
    assert result.stdout == ""


def test_a_shell_whose_program_is_missing_ends_with_127(either: SessionProxy) -> None:
    assert either.execute_command("no-such-program").exit_code == 127


@pytest.mark.parametrize("command", [["/etc/passwd"], ["/etc"], "/etc/passwd", "/etc"])
def test_what_cannot_be_run_ends_with_126(either: SessionProxy, command: str | list[str]) -> None:
    assert either.execute_command(command).exit_code == 126


def test_a_string_is_run_by_a_shell(either: SessionProxy) -> None:
    assert either.execute_command("echo $((6 * 7)) && echo two | tr a-z A-Z").stdout == "42\nTWO\n"


def test_a_list_is_run_as_it_is(either: SessionProxy) -> None:
    assert either.execute_command(["echo", "$HOME; ls *", "a  b", "", '"']).stdout == '$HOME; ls * a  b  "\n'


def test_commands_start_in_the_workspace(either: SessionProxy) -> None:
    assert either.execute_command("pwd").stdout == "/workspace\n"


def test_a_command_runs_in_the_directory_that_it_was_given(either: SessionProxy) -> None:
    assert either.execute_command(["pwd"], working_dir="/proc").stdout == "/proc\n"


@pytest.mark.parametrize("agent", [True, False])
def test_a_relative_directory_lies_below_that_of_the_container(
    open_session: OpenSession, engine_exec: BaseSessionManager, sessions: BaseSessionManager, agent: bool
) -> None:
    session = open_session(long_config(working_dir="/srv/job"), on=sessions if agent else engine_exec)
    session.execute_command(["mkdir", "-p", Path("/srv/job/src")])

    assert session.execute_command("pwd", Path("src")).stdout == "/srv/job/src\n"
    assert session.execute_command("pwd", ".").stdout == "/srv/job\n"


def test_a_working_directory_that_does_not_exist_is_an_error_that_names_it(either: SessionProxy) -> None:
    with pytest.raises(InvalidInput, match="/no/such/directory"):
        either.execute_command("pwd", working_dir="/no/such/directory")


def test_a_command_sees_its_environment(either: SessionProxy) -> None:
    value = "two words, a 'quote', an = and a\nsecond line, ü"

    result = either.execute_command(["sh", "-c", 'printf %s "$PODKIT_TEST"'], environment={"PODKIT_TEST": value})

    assert result.stdout == value


def test_the_environment_of_one_command_is_not_seen_by_the_next(either: SessionProxy) -> None:
    either.execute_command("true", environment={"PODKIT_ONCE": "1"})

    assert either.execute_command("echo ${PODKIT_ONCE-unset}").stdout == "unset\n"


def test_nothing_of_the_callers_environment_is_inside(either: SessionProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODKIT_CANARY", "canary-5b1f")

    assert "canary" not in either.execute_command("env").stdout


@pytest.mark.parametrize(("user", "uid"), [("nobody", "65534"), ("65534", "65534"), ("1234:5678", "1234"), ("0", "0")])
def test_a_command_runs_as_the_user_that_it_was_given(either: SessionProxy, user: str, uid: str) -> None:
    assert either.execute_command(["id", "-u"], user=user).stdout.strip() == uid


def test_a_command_runs_as_the_images_user_by_default(either: SessionProxy) -> None:
    assert either.execute_command("whoami").stdout == "root\n"


def test_a_user_that_the_container_does_not_know_is_an_error_that_names_it(either: SessionProxy) -> None:
    with pytest.raises(InvalidInput, match="no-such-user"):
        either.execute_command("id", user="no-such-user")


def test_another_user_may_open_its_streams_by_their_names(either: SessionProxy) -> None:
    result = either.execute_command(
        "cat /dev/stdin > /dev/stdout; echo err > /dev/stderr", user="12345", input="in\n", timeout=30
    )

    assert (result.stdout, result.stderr) == ("in\n", "err\n")


def test_standard_output_and_error_are_kept_apart(either: SessionProxy) -> None:
    result = either.execute_command("echo out; echo err >&2; echo out again; echo err again >&2")

    assert (result.stdout, result.stderr) == ("out\nout again\n", "err\nerr again\n")


def test_a_command_without_input_finds_it_empty(either: SessionProxy) -> None:
    with within(10):
        assert either.execute_command("cat; echo end", timeout=30).stdout == "end\n"


@pytest.mark.parametrize("text", ["", "one line\n", "ünï\0 \r\n", "x" * 70_000])
def test_a_command_reads_its_input_to_the_end(either: SessionProxy, text: str) -> None:
    assert either.execute_command(["cat"], input=text, timeout=30).stdout == text


def test_thirty_megabytes_of_input_arrive_whole(either: SessionProxy) -> None:
    data = bytes(range(256)) * (30 * 4096)

    result = either.execute_command("sha256sum", input=data, timeout=60)

    assert result.stdout.split()[0] == hashlib.sha256(data).hexdigest()


def test_a_write_to_a_command_that_is_over_its_time_says_so(either: SessionProxy) -> None:
    with either.popen("sleep 60", timeout=0.5) as command:
        with pytest.raises(BrokenPipeError, match=r"ended by its timeout of 0\.5 s"):
            while True:
                command.stdin.write(bytes(1 << 20))
        assert command.wait().timed_out
        with pytest.raises(BrokenPipeError, match=r"ended by its timeout of 0\.5 s"):
            command.stdin.write("more")


@pytest.mark.parametrize("command", [["head", "-n", "1"], "exec 0<&-; sleep 60", ["true"]], ids=str)
def test_who_only_writes_learns_that_a_command_reads_no_more(either: SessionProxy, command: str | list[str]) -> None:
    with either.popen(command) as running:

        def is_refused() -> bool:
            try:
                running.stdin.write("line\n")
            except BrokenPipeError:
                return True
            return False

        assert eventually(is_refused, seconds=10)


def test_input_that_a_command_does_not_read_delays_nothing(either: SessionProxy) -> None:
    with within(10):
        result = either.execute_command("head -c 5", input=b"12345" + bytes(30 << 20), timeout=60)

    assert (result.exit_code, result.stdout) == (0, "12345")


def test_the_duration_is_that_of_the_command(shell: SessionProxy) -> None:
    result = shell.execute_command("sleep 0.5")

    assert 0.5 <= result.duration_seconds < 5


HUNGRY = ["python3", "-c", "import subprocess, sys; subprocess.run([sys.executable, '-c', 'x = bytearray(10 ** 9)'])"]
"""Ends with 0, though the kernel has killed its child for memory, which only the kernel's own count tells."""


def test_out_of_memory_is_told_of_a_command_right_after_a_file_was_written(open_session: OpenSession) -> None:
    session = open_session(long_config(memory_limit="64m"))
    for _ in range(8):
        session.write_file("a", "b")
        result = session.execute_command(HUNGRY)
        assert (result.exit_code, result.oom_killed) == (0, True)
    assert not session.execute_command("true").oom_killed


def test_out_of_memory_of_what_runs_in_the_background_is_not_told_of_a_command(open_session: OpenSession) -> None:
    session = open_session(long_config(memory_limit="64m"))
    begin = "python3 -c 'import time; time.sleep(1); x = bytearray(10 ** 9)'; echo $? > /tmp/ended"
    wait = "until [ -e /tmp/ended ]; do sleep 0.1; done; cat /tmp/ended; rm /tmp/ended"
    session.execute_command(f"({begin}) > /dev/null 2>&1 &", user="1001")
    result = session.execute_command(wait, user="0")
    assert (result.stdout, result.oom_killed) == ("137\n", False)

    session.processes.start_process(begin)
    result = session.execute_command(wait)
    assert (result.stdout, result.oom_killed) == ("137\n", False)


def test_a_child_in_the_background_does_not_hold_up_the_result(either: SessionProxy, engine: Engine) -> None:
    id = either.get_info().container_id
    assert id is not None

    began = time.monotonic()
    result = either.execute_command("echo begun; sleep 4.25 & echo $!")
    took = time.monotonic() - began

    assert result.exit_code == 0
    assert result.stdout.startswith("begun\n")
    assert took < 3.5
    # until it is another program, the child has its shell's command line
    assert [line for line in engine.processes(id) if "sleep 4.25" in line]
    assert eventually(lambda: not [line for line in engine.processes(id) if "sleep 4.25" in line])


def test_what_a_command_printed_is_whole_even_if_a_child_holds_its_pipes(either: SessionProxy) -> None:
    result = either.execute_command("sleep 3.75 & i=0; while [ $i -lt 20000 ]; do echo line $i; i=$((i+1)); done")

    assert result.stdout.splitlines() == [f"line {number}" for number in range(20_000)]


def test_a_command_that_closes_its_output_and_goes_on_is_waited_for(either: SessionProxy) -> None:
    result = either.execute_command("echo first; exec > /dev/null 2>&1; sleep 1; exit 7")

    assert (result.exit_code, result.stdout) == (7, "first\n")
    assert result.duration_seconds >= 1
