"""The manager of background processes, over a container that exists in a test only."""

from __future__ import annotations

import json
import uuid
from datetime import timedelta
from typing import Any

import pytest

from podkit import SessionProxy
from podkit.agent.processes import Left, State
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput, NotSupported, ProcessNotFound, ProcessStillRunning
from podkit.processes import ProcessManager, ProcessStatus
from podkit.testing import FakeBackend
from tests.unit.processes.support import MOMENT, FakeProcesses, FakeProcessesManager, make_row
from tests.unit.support import PREFIX, at_once

ID = str(uuid.uuid4())

BAD_CALLS: dict[str, Any] = {
    "start: no command": lambda processes: processes.start_process(" "),
    "start: empty list": lambda processes: processes.start_process([]),
    "start: no text": lambda processes: processes.start_process(5),
    "start: NUL": lambda processes: processes.start_process("a\0b"),
    "start: empty name": lambda processes: processes.start_process("ls", name=""),
    "start: name of two lines": lambda processes: processes.start_process("ls", name="a\nb"),
    "start: long name": lambda processes: processes.start_process("ls", name="x" * 201),
    "start: no name": lambda processes: processes.start_process("ls", name=7),
    "start: environment": lambda processes: processes.start_process("ls", environment={"a=b": "c"}),
    "start: outside": lambda processes: processes.start_process("ls", working_dir="../src"),
    "start: user": lambda processes: processes.start_process("ls", user="a b"),
    "start: stdin": lambda processes: processes.start_process("ls", stdin="text"),
    "status: no id": lambda processes: processes.get_status(""),
    "status: a path": lambda processes: processes.get_status("../../etc"),
    "status: short": lambda processes: processes.get_status(ID[:8]),
    "status: capitals": lambda processes: processes.get_status(ID.upper() + "A"),
    "status: a UUID object": lambda processes: processes.get_status(uuid.uuid4()),
    "running: no id": lambda processes: processes.is_running("x"),
    "logs: no id": lambda processes: processes.get_logs("x"),
    "log: stream": lambda processes: processes.read_log(ID, "stdin"),
    "log: offset": lambda processes: processes.read_log(ID, offset=1.5),
    "log: far": lambda processes: processes.read_log(ID, offset=1 << 70),
    "log: size": lambda processes: processes.read_log(ID, max_bytes=-1),
    "follow: at the call": lambda processes: processes.follow_log(ID, "output"),
    "start: no environment": lambda processes: processes.start_process("ls", environment=[]),
    "start: no program": lambda processes: processes.start_process(["", "a"]),
    "stop: force": lambda processes: processes.stop_process(ID, force="no"),
    "stop: no id": lambda processes: processes.stop_process("x"),
    "stop: before": lambda processes: processes.stop_process(ID, timeout=-1),
    "stop: never": lambda processes: processes.stop_process(ID, timeout=float("inf")),
    "stop: text": lambda processes: processes.stop_process(ID, timeout="5"),
    "stop: no number": lambda processes: processes.stop_process(ID, timeout=float("nan")),
    "signal: unknown": lambda processes: processes.send_signal(ID, "SIGNOTHING"),
    "signal: 0": lambda processes: processes.send_signal(ID, 0),
    "write: no id": lambda processes: processes.write_stdin("x", "text"),
    "write: no text": lambda processes: processes.write_stdin(ID, 5),
    "close: no id": lambda processes: processes.close_stdin("x"),
    "remove: no id": lambda processes: processes.remove_process("x"),
}


@pytest.fixture
def inside() -> FakeProcesses:
    return FakeProcesses()


@pytest.fixture
def containers(fake: FakeBackend, inside: FakeProcesses) -> FakeProcessesManager:
    manager = FakeProcessesManager(fake, PREFIX, None)
    manager.inside = inside
    return manager


@pytest.fixture
def processes(containers: FakeProcessesManager) -> ProcessManager:
    return ProcessManager(containers, "f" * 64, "bob", "1")


@pytest.mark.parametrize("act", BAD_CALLS.values(), ids=list(BAD_CALLS))
def test_bad_input_costs_no_engine_call(
    fake: FakeBackend, manager: SimpleContainerManager, sessions: BaseSessionManager, act: Any
) -> None:
    session = sessions.create_session("bob", "1")
    assert session.container_id is not None
    fake.calls.clear()

    for processes in (
        ProcessManager(manager, session.container_id, "bob", "1"),
        ProcessManager.of_session(sessions, "bob", "1"),
    ):
        with pytest.raises(InvalidInput):
            act(processes)
    assert fake.calls == []


@pytest.mark.parametrize("arguments", [(5, "bob", "1"), ("f" * 64, "", "1"), ("f" * 64, "bob", "a\0")])
def test_a_manager_of_nothing_is_refused(manager: SimpleContainerManager, arguments: Any) -> None:
    with pytest.raises(InvalidInput):
        ProcessManager(manager, *arguments)


def test_without_the_agent_the_error_says_why(sessions: BaseSessionManager) -> None:
    sessions.create_session("bob", "1")
    processes = SessionProxy(sessions, "bob", "1").processes

    with pytest.raises(NotSupported, match="the agent cannot be placed: "):
        processes.start_process("sleep 1")
    with pytest.raises(NotSupported, match="the agent cannot be placed: "):
        processes.list_processes()


def test_a_process_is_running_when_it_is_given(processes: ProcessManager, inside: FakeProcesses) -> None:
    process = processes.start_process("echo hi", "greeter", {"A": "b"}, "/tmp", user="nobody", stdin=True)

    assert (process.status, process.exit_code, process.is_running) == (ProcessStatus.RUNNING, None, True)
    assert process.display_name == f"greeter ({process.id[:8]})"
    assert (process.command, process.started_at) == ("echo hi", MOMENT)
    assert uuid.UUID(process.id).version == 4
    assert inside.asked == [("start", ["sh", "-c", "echo hi"], {"A": "b"}, "/tmp", "nobody", True)]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("python3 -m http.server", "python3"),
        ("/usr/bin/env FOO=1 x", "env"),
        (["/bin/sleep", "5"], "sleep"),
        (["/a/"], "process"),
        (["x" * 300], "x" * 200),
        (["a\nb"], "ab"),
        (["(odd program)"], "(odd program)"),
        ("(while true; do date; done)", "while"),
        ("i=0;while true; do date; done", "while"),
        ("{ echo hi; }", "echo"),
        ("! test", "test"),
        ("true;false", "true"),
        ("(((", "process"),
        ("PORT=80 HOST='a b' python3 app.py", "python3"),
        ("exec nginx", "nginx"),
        ("# serve\nnginx -g 'daemon off;'", "nginx"),
        ("'/opt/my programs/it is' x", "it is"),
        ("'it never ends", "it"),
        ("\x1b[2Jls", "[2Jls"),
        ("x" * 100_000, "x" * 200),
    ],
)
def test_without_a_name_it_is_called_by_its_program(processes: ProcessManager, command: Any, name: str) -> None:
    assert processes.start_process(command).name == name


def test_every_look_brings_the_same_object_up_to_date(processes: ProcessManager, inside: FakeProcesses) -> None:
    process = processes.start_process(["x"])
    looks: list[Any] = [
        lambda: processes.get_status(process.id),
        lambda: processes.is_running(process.id),
        lambda: processes.list_processes(),
        lambda: processes.get_process(process.id),
    ]
    for code, look in enumerate(looks):
        inside.rows[process.id] = make_row(process.id, state=State.ENDED, exit_code=code, left=Left.NOTHING)
        look()
        assert process.exit_code == code
        assert process.status is (ProcessStatus.FAILED if code else ProcessStatus.STOPPED)
    assert processes.get_process(process.id) is process
    assert processes.list_processes() == [process]
    assert processes.stop_process(process.id)
    assert process.exit_code == 143


@pytest.mark.parametrize(
    ("state", "code", "status", "running"),
    [
        (State.RUNNING, None, "running", True),
        (State.PAUSED, None, "paused", True),
        (State.ENDED, 0, "stopped", False),
        (State.ENDED, 1, "failed", False),
        (State.ENDED, 137, "failed", False),
        (State.LOST, None, "lost", False),
    ],
)
def test_a_state_is_a_status(
    processes: ProcessManager, inside: FakeProcesses, state: State, code: int | None, status: str, running: bool
) -> None:
    inside.rows[ID] = make_row(ID, state=state, exit_code=code)

    assert processes.get_status(ID) == status
    assert processes.is_running(ID) is running


def test_processes_of_another_podkit_are_listed_oldest_first(processes: ProcessManager, inside: FakeProcesses) -> None:
    started = [processes.start_process(["x"], name) for name in ("third", "second", "first")]
    other = str(uuid.uuid4())
    inside.rows[other] = make_row(other, started_at=MOMENT + timedelta(hours=1), ports=(80,))

    found = processes.list_processes()

    assert [process.name for process in found] == ["first", "second", "third", "n"]
    assert found[0] is started[2]
    assert (found[3].id, found[3].command, found[3].ports) == (other, "c", [80])


def test_ids_that_come_and_go_in_the_container_are_not_remembered(
    processes: ProcessManager, inside: FakeProcesses
) -> None:
    own = processes.start_process(["x"])
    for _ in range(3):
        inside.rows = {id: make_row(id) for id in (str(uuid.uuid4()) for _ in range(10))}
        processes.list_processes()
    assert len(processes._known) == 11
    assert own.status is ProcessStatus.LOST


def test_a_note_of_many_words_becomes_one_text(processes: ProcessManager, inside: FakeProcesses) -> None:
    inside.rows[ID] = make_row(ID, note=json.dumps({"name": "n", "command": ["x"] * 5000}).encode())
    assert processes.get_process(ID).command == " ".join(["x"] * 5000)


def test_an_unknown_id_is_an_error_that_names_it(processes: ProcessManager) -> None:
    for ask in (processes.get_status, processes.is_running, processes.get_logs, processes.stop_process):
        with pytest.raises(ProcessNotFound, match=ID):
            ask(ID)
    with pytest.raises(LookupError):
        processes.get_status(ID)


def test_one_that_the_container_does_not_know_is_lost_unless_it_was_seen_to_end(
    processes: ProcessManager, inside: FakeProcesses
) -> None:
    running, ended = processes.start_process(["x"]), processes.start_process(["y"])
    inside.rows[ended.id] = make_row(ended.id, state=State.ENDED, exit_code=0, left=Left.NOTHING)
    processes.get_status(ended.id)
    inside.rows.clear()

    assert processes.get_status(running.id) == "lost"
    assert processes.get_status(ended.id) == "stopped"
    assert not processes.stop_process(running.id)  # the container is the same: who knows
    assert processes.stop_process(ended.id)
    assert running.exit_code is None


def test_a_list_of_a_new_container_marks_the_old_ones_lost(processes: ProcessManager, inside: FakeProcesses) -> None:
    process = processes.start_process(["x"])
    inside.rows.clear()

    assert processes.list_processes() == []
    assert process.status is ProcessStatus.LOST


def test_stopping_says_whether_nothing_is_left(processes: ProcessManager, inside: FakeProcesses) -> None:
    process = processes.start_process(["x"])
    assert processes.stop_process(process.id, timeout=1.5)
    assert processes.stop_process(process.id, force=True)
    inside.rows[ID] = make_row(ID, state=State.LOST, left=Left.UNKNOWN)
    assert not processes.stop_process(ID, timeout=0)
    assert inside.asked[1:] == [("stop", 1500), ("stop", 0), ("stop", 0)]


def test_a_removed_one_is_forgotten_and_twice_is_harmless(processes: ProcessManager) -> None:
    process = processes.start_process(["x"])
    processes.remove_process(process.id)
    processes.remove_process(process.id)
    with pytest.raises(ProcessNotFound):
        processes.get_status(process.id)


def test_waiting_asks_again_until_it_has_ended_or_the_time_is_over(
    processes: ProcessManager, inside: FakeProcesses
) -> None:
    process = processes.start_process(["x"], "worker")
    with pytest.raises(ProcessStillRunning, match=r"worker \(.{8}\) still runs after 0 s"):
        processes.wait(process.id, timeout=0)
    with pytest.raises(TimeoutError):
        processes.wait(process.id, timeout=0.02)
    assert all(wait <= 0.02 for _, wait in inside.asked[1:])

    inside.rows[process.id] = make_row(process.id, state=State.ENDED, exit_code=3, left=Left.SOMETHING)
    assert processes.wait(process.id) is process
    assert (process.exit_code, inside.asked[-1]) == (3, ("wait", 10.0))


def test_logs_are_text_whatever_was_printed(processes: ProcessManager, inside: FakeProcesses) -> None:
    process = processes.start_process(["x"])
    inside.logs[process.id, "stdout"] = "ünï\n".encode() + b"\xff"
    assert processes.get_logs(process.id) == {"stdout": "ünï\n�", "stderr": ""}


def test_a_log_is_read_piece_by_piece(processes: ProcessManager, inside: FakeProcesses) -> None:
    process = processes.start_process(["x"])
    inside.logs[process.id, "stderr"] = b"0123456789"
    first = processes.read_log(process.id, "stderr", max_bytes=4)
    second = processes.read_log(process.id, "stderr", offset=first.next_offset)
    assert (first.data, second.text, second.next_offset, second.ended) == (b"0123", "456789", 10, False)


def test_following_ends_with_the_process_and_cuts_no_character(
    processes: ProcessManager, inside: FakeProcesses
) -> None:
    process = processes.start_process(["x"])
    inside.logs[process.id, "stdout"] = b"a\xc3"
    pieces = processes.follow_log(process.id)
    assert next(pieces) == "a"
    inside.logs[process.id, "stdout"] += b"\xbc\xc3"
    inside.rows[process.id] = make_row(process.id, state=State.ENDED, exit_code=0, left=Left.NOTHING)
    assert list(pieces) == ["ü", "�"]


def test_closing_an_input_that_is_closed_is_harmless(processes: ProcessManager) -> None:
    processes.close_stdin(ID)


def test_many_threads_share_a_manager(processes: ProcessManager) -> None:
    started = at_once(16, lambda number: processes.start_process(["x"], str(number)))
    at_once(16, lambda number: processes.get_status(started[number].id) or processes.list_processes())
    assert {process.id for process in processes.list_processes()} == {process.id for process in started}
