"""The Docker backend against an engine that answers by a script, also late, wrongly or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podkit.backends.base import Deadline, ExecSpec, SharedFiles
from podkit.backends.docker import DockerBackend
from podkit.errors import (
    ContainerError,
    ContainerFailedToStart,
    ContainerNotFound,
    EngineAccessDenied,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    ImageNotFound,
    InvalidInput,
    MountSourceNotFound,
    NameTaken,
    NetworkNotFound,
    NotSupported,
    PodkitError,
    PortUnavailable,
)
from tests.support.waiting import within
from tests.unit.backends.peer import ID, EngineServer, Step, error, hang_up, reply
from tests.unit.backends.test_docker_json import answer
from tests.unit.support import make_spec

EXEC = ExecSpec(argv=["ls"])


# --- connecting ------------------------------------------------------------------------------------


def test_making_a_backend_does_no_io(server: EngineServer) -> None:
    DockerBackend()
    assert server.requests == []


def test_before_connecting_the_client_is_an_error_that_says_so() -> None:
    with pytest.raises(EngineUnavailable, match=r"call connect\(\) first"):
        _ = DockerBackend().client


def test_connecting_twice_asks_once(server: EngineServer, backend: DockerBackend) -> None:
    backend.connect()
    assert server.requests == []


def test_a_newer_engine_is_spoken_to_in_an_api_that_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    server = EngineServer(tmp_path / "s", api="1.99")
    server.answers["GET /containers/json"] = [reply(200, [])]
    backend = DockerBackend()
    backend.connect()
    backend.list_workloads()
    assert server.requests[-1].startswith("GET /v1.51/")
    backend.client.close()
    server.close()


def test_without_an_engine_the_error_lists_what_was_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with within(2), pytest.raises(EngineUnavailable, match=r"none\.sock.*DOCKER_HOST.*No such file") as caught:
        DockerBackend().connect()
    assert "Start one" in str(caught.value)


def test_a_socket_without_permission_is_an_error_of_its_own(server: EngineServer, tmp_path: Path) -> None:
    (tmp_path / "engine.sock").chmod(0)
    me = os.geteuid()
    if me == 0:
        os.seteuid(65534)  # nothing is forbidden to root
    try:
        with pytest.raises(EngineAccessDenied, match="group 'docker'"):
            DockerBackend().connect()
    finally:
        os.seteuid(me)


@pytest.mark.parametrize("host", ["ssh://host", "tcp://host:http", "nonsense", "tcp://" + "x" * 70 + ".example"])
def test_an_address_that_cannot_be_used_is_named_once(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", host)
    with pytest.raises(EngineUnavailable) as caught:
        DockerBackend().connect()
    assert str(caught.value).count(host) == 1


@pytest.mark.parametrize("script", [[hang_up], [b"SSH-2.0-OpenSSH\r\n"], [reply(500, {"message": "broken"})]])
def test_what_answers_and_is_no_engine_is_unavailable(server: EngineServer, script: list[Step]) -> None:
    server.answers["GET /version"] = script
    with within(2), pytest.raises(EngineUnavailable, match=r"engine\.sock"):
        DockerBackend().connect()


def test_a_backend_that_found_no_engine_finds_it_later(server: EngineServer) -> None:
    good, server.answers["GET /version"] = server.answers["GET /version"], [hang_up]
    backend = DockerBackend()
    with pytest.raises(EngineUnavailable):
        backend.connect()
    server.answers["GET /version"] = good
    backend.connect()
    backend.client.close()


def test_after_closing_the_next_call_connects_anew(server: EngineServer, backend: DockerBackend) -> None:
    server.answers["GET /containers/json"] = [reply(200, [])]
    backend.list_workloads()
    backend.close()
    backend.close()
    backend.list_workloads()
    asked = [request.split("?")[0] for request in server.requests]
    assert asked == ["GET /v1.41/containers/json", "GET /version", "GET /v1.41/containers/json"]


CREATE = "POST /containers/create"


# --- refusals --------------------------------------------------------------------------------------


def create(backend: DockerBackend, **changes: Any) -> str:
    return backend.create_workload(make_spec(**changes))


@pytest.mark.parametrize(
    ("script", "ours", "said"),
    [
        (error(409, "Conflict. The container name is in use"), NameTaken, "unit-x"),
        (error(404, "No such image: some:image"), ImageNotFound, "'some:image'"),
        (error(400, "invalid mount config: bind source path does not exist: /nope"), MountSourceNotFound, "'/nope'"),
        (error(400, "invalid something"), InvalidInput, "invalid something"),
        (error(500, "no space left on device"), EngineError, "no space left"),
        ([hang_up], EngineUnavailable, "creating container 'unit-x'"),
    ],
)
def test_a_creation_that_is_refused_is_a_typed_error(
    server: EngineServer, backend: DockerBackend, script: list[Step], ours: type[PodkitError], said: str
) -> None:
    server.answers[CREATE] = script
    with pytest.raises(ours) as caught:
        create(backend)
    assert type(caught.value) is ours
    assert said in str(caught.value)
    assert caught.value.__cause__ is not None


@pytest.mark.parametrize(("status", "ours"), [(403, NotSupported), (501, EngineError)])
def test_an_engine_that_refuses_to_tell_of_volumes_takes_no_shared_files(
    server: EngineServer, backend: DockerBackend, status: int, ours: type[PodkitError]
) -> None:
    shared = SharedFiles(name="podkit-agent-x", target="/run/podkit", by_architecture={})
    server.answers["GET /volumes/podkit-agent-x"] = error(status, "forbidden by policy")
    with pytest.raises(ours, match="forbidden by policy") as caught:
        create(backend, shared=shared)
    assert type(caught.value) is ours


def test_a_missing_network_is_told_from_a_missing_image(server: EngineServer, backend: DockerBackend) -> None:
    server.answers[CREATE] = error(404, "network nope not found")
    with pytest.raises(NetworkNotFound, match=r"'nope'.*docker network create nope"):
        create(backend, networks=["nope"])


def test_a_second_network_that_is_missing_leaves_no_container(server: EngineServer, backend: DockerBackend) -> None:
    server.answers |= {
        CREATE: [reply(201, {"Id": ID})],
        "GET /networks/front": [reply(200, {})],
        "POST /networks/back/connect": error(404, "network back not found"),
        f"DELETE /containers/{ID}": [reply(204, None)],
    }
    with pytest.raises(NetworkNotFound, match="'back'"):
        create(backend, networks=["front", "back"])
    assert any(request.startswith("DELETE") for request in server.requests)


@pytest.mark.parametrize(
    ("message", "ours"),
    [
        ("Bind for 127.0.0.1:80 failed: port is already allocated", PortUnavailable),
        ("listen tcp4 127.0.0.1:80: bind: address already in use", PortUnavailable),
        ('exec: "docker-init": executable file not found in $PATH', EngineError),
        ('exec: "nope": executable file not found in $PATH', ContainerFailedToStart),
    ],
)
def test_a_start_that_is_refused_is_a_typed_error(
    server: EngineServer, backend: DockerBackend, message: str, ours: type[PodkitError]
) -> None:
    server.answers[f"POST /containers/{ID}/start"] = error(500, message)
    with pytest.raises(ours) as caught:
        backend.start_workload(ID)
    assert type(caught.value) is ours
    assert message in str(caught.value)


def test_a_start_of_a_container_that_is_gone_says_that_it_is_gone(backend: DockerBackend) -> None:
    with pytest.raises(ContainerNotFound):
        backend.start_workload(ID)


def test_a_restart_whose_answer_was_lost_is_an_error_where_the_engine_stays_away(
    server: EngineServer, backend: DockerBackend
) -> None:
    for verb in ("restart", "start"):
        server.answers[f"POST /containers/{ID}/{verb}"] = [hang_up]
    with pytest.raises((EngineUnavailable, EngineTimeout)):
        backend.restart_workload(ID, deadline=Deadline.after(0.5))


def test_a_restart_whose_answer_was_lost_is_finished_by_a_start(server: EngineServer, backend: DockerBackend) -> None:
    server.answers[f"POST /containers/{ID}/restart"] = [hang_up]
    server.answers[f"POST /containers/{ID}/start"] = [reply(204, None)]
    backend.restart_workload(ID)
    assert f"POST /v1.41/containers/{ID}/start" in server.requests[-1]


def test_a_restart_that_misses_the_network_of_a_container_says_which(
    server: EngineServer, backend: DockerBackend
) -> None:
    server.answers |= {
        f"POST /containers/{ID}/restart": error(404, "network 0123456789ab not found"),
        f"GET /containers/{ID}/json": [reply(200, {"NetworkSettings": {"Networks": {"front": {}}}})],
        "GET /networks/front": error(404, "network front not found"),
    }
    with pytest.raises(NetworkNotFound, match="docker network create front"):
        backend.restart_workload(ID)


def test_a_logger_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"logger='tcp://h:2375'.*DOCKER_HOST"):
        DockerBackend("tcp://h:2375")  # type: ignore[arg-type]  # that is the point


MISSING_IS_GONE: dict[str, Callable[[DockerBackend], object]] = {
    "stop": lambda backend: backend.stop_workload(ID, 1),
    "kill": lambda backend: backend.stop_workload(ID, 0),
    "inspect": lambda backend: backend.inspect_workload(ID),
    "logs": lambda backend: backend.get_workload_logs(ID, 5),
    "ports": lambda backend: backend.get_accessible_ports(ID),
    "restart": lambda backend: backend.restart_workload(ID),
    "exec": lambda backend: backend.open_stream(ID, EXEC),
}


@pytest.mark.parametrize("act", MISSING_IS_GONE.values(), ids=list(MISSING_IS_GONE))
def test_a_container_that_is_gone_is_not_found(backend: DockerBackend, act: Callable[[DockerBackend], object]) -> None:
    with pytest.raises(ContainerNotFound):
        act(backend)


def test_removing_what_is_gone_is_no_error(backend: DockerBackend) -> None:
    assert backend.remove_workload(ID) is False
    assert backend.remove_workload(ID, force=False) is False


def test_removing_what_another_caller_is_removing_waits_for_its_end(
    server: EngineServer, backend: DockerBackend
) -> None:
    server.answers[f"DELETE /containers/{ID}"] = error(409, "removal of container is already in progress")
    assert backend.remove_workload(ID) is False
    assert server.requests[-1].startswith("GET /v1.41/containers/")


def test_a_running_container_is_not_removed_without_force(server: EngineServer, backend: DockerBackend) -> None:
    server.answers[f"DELETE /containers/{ID}"] = error(409, "You cannot remove a running container")
    server.answers[f"GET /containers/{ID}/json"] = [reply(200, {"State": {"Running": True}})]
    with pytest.raises(ContainerError, match="runs: it is not removed"):
        backend.remove_workload(ID, force=False)


# --- listing and looking ---------------------------------------------------------------------------


def test_a_listing_asks_by_label_and_filters_names_itself(server: EngineServer, backend: DockerBackend) -> None:
    rows = [{"Id": name, "Names": [f"/{name}"], "State": "running", "Labels": {"a": "b"}} for name in ("p-1", "xp-1")]
    server.answers["GET /containers/json"] = [reply(200, rows)]
    assert [row["name"] for row in backend.list_workloads({"name": "^p-", "label": "a=b"})] == ["p-1"]
    assert "all=1" in server.requests[-1]
    assert "name" not in server.requests[-1]


def test_an_unknown_filter_is_refused_before_the_engine_is_asked(server: EngineServer, backend: DockerBackend) -> None:
    with pytest.raises(InvalidInput, match="status"):
        backend.list_workloads({"status": "running"})
    assert server.requests == []


def test_a_container_is_inspected(server: EngineServer, backend: DockerBackend) -> None:
    server.answers[f"GET /containers/{ID}/json"] = [reply(200, answer())]
    assert backend.inspect_workload(ID).name == "unit-bob-1"
