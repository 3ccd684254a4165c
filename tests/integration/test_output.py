"""Output: how it is decoded, shown while it comes, and kept within bounds."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from podkit import SessionProxy
from tests.support.engine import Engine
from tests.support.processes import ask_python

pytestmark = pytest.mark.integration

MIB = 1 << 20

GROWTH = """
import json, os, re, sys
from pathlib import Path
from podkit import get_docker_session
from podkit.core.models import ContainerConfig

def peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

with get_docker_session("memory", f"{os.getpid()}", ContainerConfig(container_lifetime_seconds=600)) as session:
    session.execute_command("head -c 1000000 /dev/zero; head -c 1000000 /dev/zero >&2")
    before = peak_kib()
    result = session.execute_command(sys.argv[1], timeout=120, max_output_bytes=int(sys.argv[2]) or None)
    grown = peak_kib() - before
print(json.dumps([grown * 1024, result.exit_code, len(result.stdout), result.stdout_truncated, len(result.stderr),
                  result.stderr_truncated, result.timed_out]))
"""


@pytest.mark.parametrize(("redirection", "stream"), [("", "stdout"), (" >&2", "stderr")])
def test_three_hundred_megabytes_of_output_leave_the_caller_small(
    facade: Engine, redirection: str, stream: str
) -> None:
    command = f"head -c 300000000 /dev/zero{redirection}; exit 3"

    grown, exit_code, stdout, stdout_cut, stderr, stderr_cut, timed_out = ask_python(GROWTH, command, "0")

    assert grown < 32 * MIB
    assert (exit_code, timed_out) == (3, False)
    assert (stdout_cut, stderr_cut) == (stream == "stdout", stream == "stderr")
    assert (stdout, stderr) == ((10 * MIB, 0) if stream == "stdout" else (0, 10 * MIB))


def test_both_streams_may_flood_at_once(facade: Engine) -> None:
    command = "head -c 150000000 /dev/zero & head -c 150000000 /dev/zero >&2; wait"

    grown, exit_code, stdout, stdout_cut, stderr, stderr_cut, _ = ask_python(GROWTH, command, str(1 * MIB))

    assert grown < 32 * MIB
    assert (exit_code, stdout, stdout_cut, stderr, stderr_cut) == (0, 1 * MIB, True, 1 * MIB, True)


def test_output_up_to_the_limit_is_whole_and_not_flagged(shell: SessionProxy) -> None:
    result = shell.execute_command("head -c 5000 /dev/zero | tr '\\0' x", max_output_bytes=5000)

    assert (result.stdout, result.stdout_truncated) == ("x" * 5000, False)


def test_output_over_the_limit_is_its_beginning_and_flagged(shell: SessionProxy) -> None:
    result = shell.execute_command("echo abcdef; echo uvwxyz >&2", max_output_bytes=3)

    assert (result.stdout, result.stdout_truncated) == ("abc", True)
    assert (result.stderr, result.stderr_truncated) == ("uvw", True)


def test_no_output_at_all_may_be_kept(shell: SessionProxy) -> None:
    result = shell.execute_command("echo abc; exit 4", max_output_bytes=0)

    assert (result.exit_code, result.stdout, result.stdout_truncated) == (4, "", True)


def test_each_stream_has_a_limit_of_its_own(shell: SessionProxy) -> None:
    result = shell.execute_command("echo abcdef; echo xy >&2", max_output_bytes=4)

    assert (result.stdout_truncated, result.stderr, result.stderr_truncated) == (True, "xy\n", False)


def test_a_limit_in_the_middle_of_a_character_shows_no_broken_one(shell: SessionProxy) -> None:
    result = shell.execute_command(["printf", "aü€"], max_output_bytes=4)  # 1, 2 and 3 bytes

    assert (result.stdout, result.stdout_truncated) == ("aü", True)


def test_bytes_that_are_not_utf8_are_replaced_and_lose_nothing_after_them(shell: SessionProxy) -> None:
    result = shell.execute_command(r"printf 'a\377b\300c\342\202d€\n'; printf '\376e\n' >&2")

    assert result.stdout == "a\ufffdb\ufffdc\ufffdd€\n"
    assert result.stdout_bytes == b"a\xffb\xc0c\xe2\x82d\xe2\x82\xac\n"
    assert (result.stderr, result.stderr_bytes) == ("\ufffde\n", b"\xfee\n")


def test_a_character_that_is_never_completed_is_replaced(shell: SessionProxy) -> None:
    assert shell.execute_command(r"printf 'end\342\202'").stdout == "end\ufffd"


def test_a_character_that_comes_in_two_pieces_is_one(shell: SessionProxy) -> None:
    pieces: list[str] = []

    result = shell.execute_command(r"printf 'a\342'; sleep 0.3; printf '\202\254b'", on_stdout=pieces.append)

    assert result.stdout == "a€b"
    assert pieces == ["a", "€b"]


def test_random_bytes_never_raise(shell: SessionProxy) -> None:
    pieces: list[str] = []

    result = shell.execute_command("head -c 300000 /dev/urandom; echo; echo the end", on_stdout=pieces.append)

    assert result.stdout.endswith("\nthe end\n")
    assert "".join(pieces) == result.stdout


def test_nul_bytes_are_kept(shell: SessionProxy) -> None:
    assert shell.execute_command(r"printf 'a\0b\0'").stdout == "a\0b\0"


def test_callbacks_see_each_stream_as_it_comes(shell: SessionProxy) -> None:
    seen: list[tuple[str, str]] = []

    shell.execute_command(
        "echo one; sleep 0.3; echo two >&2; sleep 0.3; echo three",
        on_stdout=lambda text: seen.append(("out", text)),
        on_stderr=lambda text: seen.append(("err", text)),
    )

    assert seen == [("out", "one\n"), ("err", "two\n"), ("out", "three\n")]


def test_a_callback_is_called_while_the_command_runs(shell: SessionProxy) -> None:
    come = threading.Event()

    with ThreadPoolExecutor() as threads:
        running = threads.submit(shell.execute_command, "echo begun; sleep 3", on_stdout=lambda _: come.set())
        assert come.wait(2.5)
        assert not running.done()

    assert running.result().stdout == "begun\n"


def test_callbacks_are_called_in_the_callers_thread(shell: SessionProxy) -> None:
    threads: list[threading.Thread] = []

    shell.execute_command("echo text", on_stdout=lambda _: threads.append(threading.current_thread()))

    assert threads == [threading.current_thread()]


def test_a_callback_sees_also_what_is_not_kept(shell: SessionProxy) -> None:
    seen: list[str] = []

    result = shell.execute_command("echo abcdef", max_output_bytes=2, on_stdout=seen.append)

    assert (result.stdout, "".join(seen)) == ("ab", "abcdef\n")


def test_sixteen_threads_get_each_their_own_output(shell: SessionProxy) -> None:
    with ThreadPoolExecutor(16) as threads:
        results = list(threads.map(lambda number: shell.execute_command(["echo", f"answer {number}"]), range(32)))

    assert [result.stdout for result in results] == [f"answer {number}\n" for number in range(32)]
