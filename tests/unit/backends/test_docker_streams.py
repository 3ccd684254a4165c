"""Images, commands and time: the Docker backend against an engine that answers late, wrongly or not at all."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podkit.backends.base import ExecSpec, NotStarted
from podkit.backends.docker import DockerBackend
from podkit.errors import (
    ContainerNotFound,
    ContainerNotRunning,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    ImageNotFound,
    InvalidInput,
    PodkitError,
)
from podkit.utils._deadline import Deadline
from tests.support.waiting import within
from tests.unit.backends.peer import CHUNKED, ID, MISSING, EngineServer, Step, chunk, error, freeze, hang_up, reply
from tests.unit.support import make_spec

EXEC = ExecSpec(argv=["ls"])
UPGRADE = b"HTTP/1.1 101 UPGRADED\r\n\r\n"


# --- images ----------------------------------------------------------------------------------------

PULL = "POST /images/create"


def pull(server: EngineServer, backend: DockerBackend, *script: Step, deadline: Deadline | None = None) -> list[str]:
    """Create a container whose image has to be pulled first; give what was said meanwhile."""
    told: list[str] = []

    def answer(connection: socket.socket) -> None:
        server.answers["POST /containers/create"] = [reply(201, {"Id": ID})]
        connection.sendall(MISSING)

    server.answers |= {"POST /containers/create": [answer], PULL: list(script)}
    backend.create_workload(make_spec(), pulling=told.append, deadline=deadline)
    return told


def test_a_pull_tells_of_its_progress(server: EngineServer, backend: DockerBackend) -> None:
    events = b'{"status":"Pulling","id":"1"}\r\n{"sta', b'tus":"Done"}\r\n{"status":"The end"}'
    assert pull(server, backend, CHUNKED, *map(chunk, events), chunk(b"")) == ["1 Pulling", "Done", "The end"]
    assert "POST /v1.41/images/create?fromImage=some&tag=image" in server.requests


@pytest.mark.parametrize(
    "script",
    [
        error(404, "manifest unknown"),
        error(500, "no route to the registry"),
        [CHUNKED, chunk(b'{"status":"Pulling"}\n'), chunk(b'{"error":"manifest unknown"}\n'), chunk(b"")],
    ],
)
def test_an_image_that_cannot_be_had_is_named(server: EngineServer, backend: DockerBackend, script: list[Step]) -> None:
    with pytest.raises(ImageNotFound, match="'some:image'"):
        pull(server, backend, *script)


@pytest.mark.parametrize(
    "script",
    [
        [hang_up],
        [CHUNKED, chunk(b'{"status":"Pulling"}\n'), hang_up],
        [CHUNKED, chunk(b'{"status":"Pulling"}\n')[:-9], hang_up],
        [CHUNKED, chunk(b"no json\n"), chunk(b"")],
        [CHUNKED, chunk(b"[1]\n"), chunk(b"")],
    ],
)
def test_a_pull_that_breaks_off_is_a_typed_error(
    server: EngineServer, backend: DockerBackend, script: list[Step]
) -> None:
    with within(2), pytest.raises(PodkitError):
        pull(server, backend, *script)


def test_a_pull_that_hangs_is_held_to_the_callers_deadline(server: EngineServer, backend: DockerBackend) -> None:
    with within(0.9), pytest.raises(EngineTimeout):
        pull(server, backend, CHUNKED, chunk(b'{"status":"Pulling"}\n'), freeze, deadline=Deadline.after(0.1))


@pytest.mark.parametrize("config", ['{"auths": {"some.registry": {"auth": ""}}}', "[]", '{"auths": null}', "\xff"])
def test_credentials_that_cannot_be_read_are_not_used(
    server: EngineServer, backend: DockerBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str
) -> None:
    (tmp_path / "config.json").write_bytes(config.encode("latin-1"))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert pull(server, backend, CHUNKED, chunk(b'{"status":"Done"}'), chunk(b"")) == ["Done"]


# --- commands --------------------------------------------------------------------------------------


def frame(data: bytes) -> bytes:
    return struct.pack(">BxxxL", 1, len(data)) + data


def expect_exec(server: EngineServer, *script: Step, ended: dict[str, Any] | None = None) -> None:
    server.answers |= {
        f"POST /containers/{ID}/exec": [reply(201, {"Id": "e1"})],
        "POST /exec/e1/start": list(script),
        "GET /exec/e1/json": [reply(200, {"Running": False, "ExitCode": 0, "Pid": 5} | (ended or {}))],
    }


def run(backend: DockerBackend) -> tuple[bytes, int | None]:
    stream = backend.open_stream(ID, EXEC)
    try:
        output = b""
        while (piece := stream.read(Deadline.after(1))) and piece.data:
            output += piece.data
        return output, stream.exit_code()
    finally:
        stream.close()


def test_a_commands_output_and_exit_code_are_read(server: EngineServer, backend: DockerBackend) -> None:
    expect_exec(server, UPGRADE + frame(b"hello"), hang_up, ended={"ExitCode": 3})
    assert run(backend) == (b"hello", 3)


@pytest.mark.parametrize("state", [{"Running": True}, {"ExitCode": None}])
def test_a_command_that_runs_has_no_exit_code(
    server: EngineServer, backend: DockerBackend, state: dict[str, Any]
) -> None:
    expect_exec(server, UPGRADE, hang_up, ended=state)
    assert run(backend) == (b"", None)


@pytest.mark.parametrize(
    ("said", "code", "result"),
    [
        ('exec: "nope": executable file not found in $PATH: unknown', 127, 127),
        ('exec: "/nope": stat /nope: no such file or directory: unknown', 127, 127),
        ('exec: "/etc/passwd": permission denied: unknown', 126, 126),
        ('exec: "/loop": stat /loop: too many levels of symbolic links: unknown', 126, 126),
        ('exec: "unable to find user": executable file not found in $PATH: unknown', 127, 127),
        ('exec: "chdir to cwd (no such file or directory": permission denied: unknown', 126, 126),
        (r'exec: "odd \"\\\": no such file or directory": permission denied: unknown', 126, 126),
        ('exec: "' + "x" * 4096 + '": file name too long: unknown', 126, 126),  # longer than what is kept of it
    ],
)
def test_a_program_that_could_not_be_started_is_told_from_one_that_ended_so(
    server: EngineServer, backend: DockerBackend, said: str, code: int, result: int
) -> None:
    expect_exec(server, UPGRADE + frame(said.encode()), hang_up, ended={"ExitCode": code, "Pid": 0})
    with pytest.raises(NotStarted) as caught:
        run(backend)
    assert caught.value.exit_code == result
    expect_exec(server, UPGRADE + frame(said.encode()), hang_up, ended={"ExitCode": code, "Pid": 5})
    assert run(backend)[1] == code


@pytest.mark.parametrize("code", [126, 127, 128])
@pytest.mark.parametrize(
    "said",
    [
        "OCI runtime exec failed: exec failed: unable to start container process: unable to create new parent process: "
        "namespace path: lstat /proc/77/ns/ipc: no such file or directory: unknown",
        "OCI runtime exec failed: exec failed: cannot exec in a stopped container: unknown",
        "OCI runtime exec failed: read init-p: connection reset by peer, permission denied: unknown",
        "",
    ],
)
def test_an_engines_own_failure_is_never_taken_for_the_programs(
    server: EngineServer, backend: DockerBackend, said: str, code: int
) -> None:
    expect_exec(server, UPGRADE + (frame(said.encode()) if said else b""), hang_up, ended={"ExitCode": code, "Pid": 0})
    with pytest.raises(NotStarted) as caught:
        run(backend)
    assert caught.value.exit_code is None


@pytest.mark.parametrize(
    "said",
    [
        "unable to find user bob: no matching entries",
        "chdir to cwd (/nope) failed: no such file or directory",
        'chdir to cwd ("/exec: \\"x\\"") failed: no such file or directory',
    ],
)
def test_a_user_or_directory_that_does_not_exist_is_bad_input(
    server: EngineServer, backend: DockerBackend, said: str
) -> None:
    expect_exec(server, UPGRADE + frame(said.encode()), hang_up, ended={"ExitCode": 126, "Pid": 0})
    with pytest.raises(InvalidInput, match=r"user|working_dir"):
        run(backend)


@pytest.mark.parametrize(
    ("status", "ours"),
    [(400, InvalidInput), (404, ContainerNotFound), (409, ContainerNotRunning), (500, EngineError)],
)
@pytest.mark.parametrize("step", ["POST /containers/{id}/exec", "POST /exec/e1/start"])
def test_a_command_that_is_refused_is_a_typed_error(
    server: EngineServer, backend: DockerBackend, status: int, ours: type[PodkitError], step: str
) -> None:
    expect_exec(server)
    server.answers[step.format(id=ID)] = error(status, "the engine's words")
    with pytest.raises(ours, match="the engine's words") as caught:
        backend.open_stream(ID, EXEC)
    assert type(caught.value) is ours


@pytest.mark.parametrize("script", [[hang_up], [b"SSH-2.0-OpenSSH\r\n\r\n"], [UPGRADE + b"\x09" * 20]])
def test_a_command_whose_stream_is_none_is_a_typed_error(
    server: EngineServer, backend: DockerBackend, script: list[Step]
) -> None:
    expect_exec(server, *script)
    with pytest.raises(PodkitError):
        run(backend)


def soon() -> Deadline:
    return Deadline.after(0.05)


# --- time ------------------------------------------------------------------------------------------

CALLS: dict[str, tuple[str, Callable[[DockerBackend], object]]] = {
    "create": ("POST /containers/create", lambda backend: backend.create_workload(make_spec(), deadline=soon())),
    "start": (f"POST /containers/{ID}/start", lambda backend: backend.start_workload(ID, deadline=soon())),
    "remove": (f"DELETE /containers/{ID}", lambda backend: backend.remove_workload(ID, deadline=soon())),
    "inspect": (f"GET /containers/{ID}/json", lambda backend: backend.inspect_workload(ID, deadline=soon())),
    "list": ("GET /containers/json", lambda backend: backend.list_workloads(deadline=soon())),
    "exec": (f"POST /containers/{ID}/exec", lambda backend: backend.open_stream(ID, EXEC, deadline=soon())),
}


@pytest.mark.parametrize("key", CALLS)
def test_a_frozen_engine_is_a_timeout_by_the_callers_deadline(
    server: EngineServer, backend: DockerBackend, key: str
) -> None:
    request, act = CALLS[key]
    server.answers[request] = [freeze]
    with within(0.9), pytest.raises(EngineTimeout):
        act(backend)


def test_an_engine_that_freezes_in_the_middle_of_an_answer_is_a_timeout(
    server: EngineServer, backend: DockerBackend
) -> None:
    server.answers["GET /containers/json"] = [reply(200, ["x" * 100])[:-50], freeze]
    with within(0.9), pytest.raises(EngineTimeout):
        backend.list_workloads(deadline=soon())


def test_an_answer_that_is_cut_is_unavailable(server: EngineServer, backend: DockerBackend) -> None:
    server.answers["GET /containers/json"] = [reply(200, ["x" * 100])[:-50], hang_up]
    with pytest.raises(EngineUnavailable):
        backend.list_workloads()


def test_an_answer_that_is_no_json_is_a_typed_error(server: EngineServer, backend: DockerBackend) -> None:
    server.answers["GET /containers/json"] = [b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"]
    with pytest.raises(PodkitError):
        backend.list_workloads()
