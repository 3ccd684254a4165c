"""Where the engine may be: in the order of the docker command, with the files that it reads."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path
from typing import Any

import pytest

from podkit.backends._endpoint import Endpoint, Tls, dial, find_endpoints
from podkit.errors import EngineUnavailable
from podkit.utils._deadline import Deadline
from tests.support.waiting import within


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with an empty configuration of the docker command."""
    (tmp_path / ".docker").mkdir()
    return tmp_path


def write_context(home: Path, name: str, endpoint: Any, *, tls: bool = False) -> Path:
    """Write a context as the docker command does; give the directory of its certificates."""
    key = hashlib.sha256(name.encode()).hexdigest()
    meta = home / ".docker/contexts/meta" / key
    meta.mkdir(parents=True)
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Endpoints": {"docker": endpoint}}))
    certificates = home / ".docker/contexts/tls" / key / "docker"
    if tls:
        certificates.mkdir(parents=True)
    return certificates


def choose(home: Path, name: str) -> None:
    (home / ".docker/config.json").write_text(json.dumps({"currentContext": name}))


def urls(environ: dict[str, str]) -> list[str]:
    return [endpoint.url for endpoint in find_endpoints(environ)]


# --- the order -------------------------------------------------------------------------------------


def test_without_anything_the_usual_sockets_are_tried_in_order(home: Path) -> None:
    assert urls({"HOME": str(home), "XDG_RUNTIME_DIR": "/run/user/1000"}) == [
        "unix:///var/run/docker.sock",
        "unix:///run/user/1000/docker.sock",
        f"unix://{home}/.docker/run/docker.sock",
        f"unix://{home}/.docker/desktop/docker.sock",
    ]


def test_docker_host_alone_counts_where_it_is_set(home: Path) -> None:
    write_context(home, "remote", {"Host": "tcp://remote:2376"})
    choose(home, "remote")
    environ = {"HOME": str(home), "DOCKER_HOST": "tcp://host:2375", "DOCKER_CONTEXT": "remote"}
    [found] = find_endpoints(environ)
    assert (found.url, found.source, found.tls) == ("tcp://host:2375", "DOCKER_HOST", None)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1:2375", "tcp://127.0.0.1:2375"),
        ("localhost:2375", "tcp://localhost:2375"),
        (" unix:///run/docker.sock \n", "unix:///run/docker.sock"),
    ],
)
def test_docker_host_is_taken_in_the_forms_that_the_docker_command_takes(home: Path, host: str, url: str) -> None:
    [found] = find_endpoints({"HOME": str(home), "DOCKER_HOST": host})
    assert found.url == url


def test_the_context_of_the_environment_comes_before_the_one_of_the_configuration(home: Path) -> None:
    write_context(home, "one", {"Host": "tcp://one:2376"})
    write_context(home, "two", {"Host": "tcp://two:2376"})
    choose(home, "one")
    assert urls({"HOME": str(home)}) == ["tcp://one:2376"]
    assert urls({"HOME": str(home), "DOCKER_CONTEXT": "two"}) == ["tcp://two:2376"]


def test_a_context_alone_counts_and_is_named_as_the_source(home: Path) -> None:
    write_context(home, "remote", {"Host": "unix:///remote.sock"})
    choose(home, "remote")
    [found] = find_endpoints({"HOME": str(home)})
    assert str(found) == "unix:///remote.sock (docker context 'remote')"


def test_the_configuration_may_lie_elsewhere(home: Path) -> None:
    write_context(home, "remote", {"Host": "tcp://remote:2376"})
    choose(home, "remote")
    assert urls({"HOME": "/nowhere", "DOCKER_CONFIG": str(home / ".docker")}) == ["tcp://remote:2376"]


@pytest.mark.parametrize("environ", [{"DOCKER_CONTEXT": "default"}, {"DOCKER_HOST": ""}, {"DOCKER_CONTEXT": ""}])
def test_the_default_context_means_the_usual_sockets(home: Path, environ: dict[str, str]) -> None:
    assert urls({"HOME": str(home)} | environ)[0] == "unix:///var/run/docker.sock"


@pytest.mark.parametrize(
    "config", ["", "{", "[]", "5", '{"currentContext": 5}', '{"currentContext": ""}', "{}", "\udcff"]
)
def test_a_configuration_that_names_no_context_counts_as_none(home: Path, config: str) -> None:
    (home / ".docker/config.json").write_bytes(config.encode(errors="surrogateescape"))
    assert urls({"HOME": str(home)})[0] == "unix:///var/run/docker.sock"


# --- broken contexts -------------------------------------------------------------------------------


def test_a_context_that_does_not_exist_is_an_error_with_the_cure(home: Path) -> None:
    with pytest.raises(EngineUnavailable, match=r"'gone'.*docker context use.*DOCKER_HOST"):
        find_endpoints({"HOME": str(home), "DOCKER_CONTEXT": "gone"})


@pytest.mark.parametrize("endpoint", [None, {}, [], "x", {"Host": None}, {"Host": 5}, {"Host": ""}])
def test_a_broken_context_is_never_replaced_by_another_engine(home: Path, endpoint: Any) -> None:
    write_context(home, "broken", endpoint)
    try:
        found = find_endpoints({"HOME": str(home), "DOCKER_CONTEXT": "broken"})
    except EngineUnavailable as exc:
        assert "'broken'" in str(exc)
    else:
        assert [endpoint.source for endpoint in found] == ["docker context 'broken'"]
        with pytest.raises(EngineUnavailable):
            dial(found[0], Deadline.after(1))


@pytest.mark.parametrize("content", ["", "{", "[]", "5", '{"Endpoints": []}', '{"Endpoints": {"kubernetes": {}}}'])
def test_an_unreadable_context_is_an_error(home: Path, content: str) -> None:
    certificates = write_context(home, "broken", {})
    meta = home / ".docker/contexts/meta" / certificates.parent.name / "meta.json"
    meta.write_text(content)
    with pytest.raises(EngineUnavailable, match="'broken'"):
        find_endpoints({"HOME": str(home), "DOCKER_CONTEXT": "broken"})


# --- certificates ----------------------------------------------------------------------------------


def test_docker_host_is_encrypted_and_verified_where_the_environment_says_so(home: Path) -> None:
    environ = {"HOME": str(home), "DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": "/certs"}
    [found] = find_endpoints(environ)
    assert found.tls == Tls(Path("/certs"), verify=True)


def test_docker_host_may_be_encrypted_without_being_verified(home: Path) -> None:
    [found] = find_endpoints({"HOME": str(home), "DOCKER_HOST": "tcp://h:2376", "DOCKER_TLS": "1"})
    assert found.tls == Tls(home / ".docker", verify=False)


@pytest.mark.parametrize("skip", [True, False])
def test_a_contexts_certificates_lie_beside_it(home: Path, skip: bool) -> None:
    certificates = write_context(home, "remote", {"Host": "tcp://h:2376", "SkipTLSVerify": skip}, tls=True)
    [found] = find_endpoints({"HOME": str(home), "DOCKER_CONTEXT": "remote"})
    assert found.tls == Tls(certificates, verify=not skip)


def test_a_context_without_certificates_is_not_encrypted(home: Path) -> None:
    write_context(home, "remote", {"Host": "tcp://h:2375"})
    [found] = find_endpoints({"HOME": str(home), "DOCKER_CONTEXT": "remote"})
    assert found.tls is None


def test_only_certificates_that_are_there_are_named(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    tls = Tls(tmp_path, verify=True)
    assert tls.file("ca.pem") == str(tmp_path / "ca.pem")
    assert tls.file("cert.pem") is None


# --- dialling --------------------------------------------------------------------------------------


def listener_at(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    return listener


def test_a_unix_socket_is_dialled(tmp_path: Path) -> None:
    with listener_at(tmp_path / "s"), dial(Endpoint(f"unix://{tmp_path}/s", "test"), Deadline.after(1)) as connection:
        assert connection.family == socket.AF_UNIX


def test_a_socket_that_is_not_there_is_refused_in_the_kernels_words(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        dial(Endpoint(f"unix://{tmp_path}/none", "test"), Deadline.after(1))


def test_a_socket_that_nobody_listens_on_is_refused(tmp_path: Path) -> None:
    listener_at(tmp_path / "s").close()
    with pytest.raises(ConnectionRefusedError):
        dial(Endpoint(f"unix://{tmp_path}/s", "test"), Deadline.after(1))


def test_a_listener_that_takes_nobody_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen(0)
        endpoint, waiting = Endpoint(f"unix://{tmp_path}/s", "test"), []
        with within(1), pytest.raises(OSError, match=r"timed out|unavailable"):
            for _ in range(5):
                waiting.append(dial(endpoint, Deadline.after(0.05)))
        for connection in waiting:
            connection.close()


@pytest.mark.parametrize(
    "url", ["ssh://host", "npipe:////./pipe/docker", "fd://", "http://h:80", "h:2375", "", "tcp://"]
)
def test_an_address_that_is_not_spoken_is_refused_with_the_cure(url: str) -> None:
    with pytest.raises(EngineUnavailable, match="ssh -NL"):
        dial(Endpoint(url, "DOCKER_HOST"), Deadline.after(1))


@pytest.mark.parametrize("url", ["tcp://host:http", "tcp://host:99999", "tcp://[::1", "unix://", "unix://" + "x" * 200])
def test_an_address_that_cannot_be_read_is_a_typed_error_or_the_kernels(url: str) -> None:
    with pytest.raises(OSError):  # EngineUnavailable is one: connect() lists both as what was tried
        dial(Endpoint(url, "DOCKER_HOST"), Deadline.after(1))
