"""The one-line interface: bad input before any engine, a proxy over a session, and what is said without an engine."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from podkit import SessionProxy, get_docker_session, reset_lifecycle_cache, run_in_docker
from podkit.core.models import ContainerConfig, ContainerStatus
from podkit.core.session import BaseSessionManager
from podkit.errors import EngineUnavailable, FileMissing, InvalidInput, NotText, SessionNotFound
from podkit.testing import FakeBackend
from tests.support.waiting import within
from tests.unit.support import CANARY, PATHS_THAT_LEAVE, at_once, everything_said, names_on

# --- without an engine -----------------------------------------------------------------------------


@pytest.fixture
def no_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An environment whose engine does not exist: whoever asks it gets EngineUnavailable."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")


@pytest.mark.usefixtures("no_engine")
def test_without_an_engine_a_session_is_an_error_that_says_what_was_tried() -> None:
    with within(2), pytest.raises(EngineUnavailable, match=r"none\.sock \(DOCKER_HOST\)"):
        get_docker_session("bob", "1")


@pytest.mark.usefixtures("no_engine")
def test_without_an_engine_a_command_is_an_error_that_says_what_was_tried() -> None:
    with within(2), pytest.raises(EngineUnavailable, match=r"none\.sock"):
        run_in_docker("ls")


def test_forgetting_the_managers_is_harmless_at_any_time() -> None:
    reset_lifecycle_cache()
    reset_lifecycle_cache()


def test_forgetting_the_managers_closes_their_engines_and_removes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeBackend()
    monkeypatch.setattr("podkit.backends.docker.DockerBackend", lambda: fake)
    monkeypatch.setenv("DOCKER_HOST", "unix:///of/this/test")
    session = get_docker_session("bob", "1")
    reset_lifecycle_cache()
    assert fake.calls[-1] == "close"
    assert len(names_on(fake)) == 1
    assert session.execute_command("echo still").stdout == "still\n"
    assert get_docker_session("bob", "1").get_info().container_id == session.get_info().container_id
    reset_lifecycle_cache()


BAD_SESSIONS: dict[str, dict[str, Any]] = {
    "no user": {"user_id": ""},
    "no session": {"session_id": ""},
    "an id that is no text": {"user_id": 5},
    "an overlong id": {"session_id": "x" * 1025},
    "a config that is a dict": {"config": {"image": "x"}},
    "an empty workspace": {"workspace": ""},
    "a workspace with NUL": {"workspace": "/a\0"},
    "a workspace at home": {"workspace": "~/ws"},
    "a workspace that is no path": {"workspace": 5},
    "a relative workspace of the host": {"workspace": "/a", "workspace_host": "srv"},
    "a workspace of the host alone": {"workspace_host": "/srv"},
}


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize("arguments", BAD_SESSIONS.values(), ids=list(BAD_SESSIONS))
def test_a_session_refuses_bad_input_before_it_looks_for_an_engine(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        get_docker_session(**({"user_id": "bob", "session_id": "1"} | arguments))


@pytest.mark.usefixtures("no_engine")
def test_a_session_refuses_a_configuration_that_was_spoilt() -> None:
    config = ContainerConfig()
    config.ports.append(0)
    with pytest.raises(InvalidInput, match="ports"):
        get_docker_session("bob", "1", config)


@pytest.mark.usefixtures("no_engine")
def test_a_session_refuses_a_bad_prefix_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODKIT_CONTAINER_PREFIX", "not a prefix")
    with pytest.raises(InvalidInput, match="not a prefix"):
        get_docker_session("bob", "1")


@pytest.mark.usefixtures("no_engine")
def test_a_refused_configuration_does_not_tell_its_environment() -> None:
    with pytest.raises(InvalidInput) as caught:
        get_docker_session("bob", "1", {"environment": {"T": CANARY}})  # type: ignore[arg-type]  # that is the point
    assert CANARY not in everything_said(caught.value)


BAD_RUNS: dict[str, dict[str, Any]] = {
    "an empty command": {"command": ""},
    "NUL in a command": {"command": ["a\0"]},
    "an image with a space": {"image": "a b"},
    "an empty image": {"image": ""},
    "a relative working_dir": {"working_dir": "src"},
    "no time": {"command_timeout": 0},
    "time that is no number": {"command_timeout": float("nan")},
    "a bad environment": {"environment": {"A=": ""}},
    "content that is no text": {"files": {"a": 5}},
    "content with half of a surrogate pair": {"files": {"a": "\ud800"}},
    "files that are a list": {"files": ["a"]},
    **{f"a file at {path[:20]!r}": {"files": {path: "x"}} for path in PATHS_THAT_LEAVE},
}


@pytest.mark.usefixtures("no_engine")
@pytest.mark.parametrize("arguments", BAD_RUNS.values(), ids=list(BAD_RUNS))
def test_a_run_refuses_bad_input_before_it_looks_for_an_engine(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        run_in_docker(**({"command": "ls"} | arguments))


# --- the proxy -------------------------------------------------------------------------------------


@pytest.fixture
def proxy(sessions: BaseSessionManager) -> SessionProxy:
    """A session on the fake."""
    sessions.create_session("bob", "1", ContainerConfig(ports=[8080]))
    return SessionProxy(sessions, "bob", "1")


def test_a_proxy_runs_commands(proxy: SessionProxy) -> None:
    assert proxy.execute_command("printenv A", "/tmp", {"A": "1"}, 5).check().stdout == "1\n"
    assert proxy.execute_command("pwd", "/tmp").stdout == "/tmp\n"
    assert proxy.execute_command(["cat"], input="hi", user="nobody").stdout == "hi"


def test_a_proxy_hands_on_every_keyword(proxy: SessionProxy) -> None:
    told: list[str] = []
    result = proxy.execute_command("echo hello", max_output_bytes=2, on_stdout=told.append, on_stderr=told.append)
    assert (result.stdout, result.stdout_truncated, "".join(told)) == ("he", True, "hello\n")


def test_a_proxy_exchanges_files(proxy: SessionProxy) -> None:
    assert proxy.write_file("a.txt", "héllo") == Path("/workspace/a.txt")
    assert proxy.read_file("a.txt") == "héllo"
    with pytest.raises(FileMissing):
        proxy.read_file("none")


def test_a_proxys_files_are_text_or_bytes(proxy: SessionProxy) -> None:
    assert proxy.files.write_bytes("a", b"\xff") == Path("/workspace/a")
    assert proxy.files.read_bytes("a") == b"\xff"
    with pytest.raises(NotText, match=r"files\.read_bytes"):
        proxy.files.read_text("a")
    assert proxy.files.write_text("b", "héllo") == Path("/workspace/b")
    assert proxy.files.read_text("b") == "héllo"


def test_a_proxy_gives_the_live_session(proxy: SessionProxy, sessions: BaseSessionManager) -> None:
    assert proxy.get_info() is sessions.get_session("bob", "1")
    assert proxy.get_info().status is ContainerStatus.RUNNING


def test_a_proxy_knows_its_ports(proxy: SessionProxy, fake: FakeBackend) -> None:
    assert proxy.get_accessible_ports() == {8080: 8080}


def test_a_session_without_a_container_has_no_ports(proxy: SessionProxy) -> None:
    proxy.get_info().container_id = None
    assert proxy.get_accessible_ports() == {}


def test_a_proxy_is_closed_at_the_end_of_its_block_also_where_that_raises(
    proxy: SessionProxy, fake: FakeBackend
) -> None:
    with pytest.raises(KeyError), proxy as entered:
        assert entered is proxy
        raise KeyError
    assert names_on(fake) == []


def test_closing_twice_is_harmless_and_keeps_the_workspace(proxy: SessionProxy) -> None:
    data_dir = proxy.get_info().data_dir
    proxy.close()
    proxy.close()
    assert data_dir is not None
    assert data_dir.is_dir()


def test_closing_may_remove_the_workspace(proxy: SessionProxy) -> None:
    data_dir = proxy.get_info().data_dir
    proxy.close(remove_workspace=True)
    assert data_dir is not None
    assert not data_dir.exists()


@pytest.mark.parametrize("act", ["execute_command", "read_file", "get_info", "get_accessible_ports"])
def test_a_closed_proxy_says_that_its_session_is_gone(proxy: SessionProxy, act: str) -> None:
    proxy.close()
    with pytest.raises(SessionNotFound):
        getattr(proxy, act)(*(["x"] if act in ("execute_command", "read_file") else []))


def test_a_proxy_shows_whose_session_it_is(proxy: SessionProxy) -> None:
    assert repr(proxy) == "SessionProxy(user_id='bob', session_id='1')"


def test_a_proxy_may_be_used_from_many_threads(proxy: SessionProxy) -> None:
    found = at_once(16, lambda number: proxy.execute_command(f"echo {number}").stdout)
    assert found == [f"{number}\n" for number in range(16)]


def test_closing_from_many_threads_is_harmless(proxy: SessionProxy, fake: FakeBackend) -> None:
    threads = [threading.Thread(daemon=True, target=proxy.close) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert names_on(fake) == []
