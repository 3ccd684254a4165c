"""Defaults, results and sessions."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from podkit._models import session as session_model
from podkit.core import models as public
from podkit.core.models import ContainerConfig, ContainerStatus, Mount, ProcessResult, Session
from podkit.errors import CommandFailed, InvalidInput


def test_a_configuration_without_arguments_has_the_documented_defaults(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PODKIT_DEFAULT_IMAGE", raising=False)
    found = ContainerConfig().model_dump()
    documented = {
        "image": "python:3.11-alpine",
        "entrypoint": None,
        "command": None,
        "use_image_defaults": False,
        "container_lifetime_seconds": 60,
        "cpu_limit": 1.0,
        "memory_limit": "512m",
        "environment": {},
        "ports": [],
        "networks": [],
        "inherit_parent_networks": False,
        "volumes": [],
        "user": None,
        "working_dir": "/workspace",
        "startup_verification": None,
        "shm_size": None,
        "extra_hosts": {},
    }
    assert {name: found[name] for name in documented} == documented
    assert set(found) - set(documented) == {
        "pids_limit",
        "session_inactivity_timeout_seconds",
    }


def test_pids_and_inactivity_have_a_limit_by_default() -> None:
    config = ContainerConfig()
    assert config.pids_limit > 0
    assert config.session_inactivity_timeout_seconds > 0


def test_the_default_image_is_read_when_a_configuration_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODKIT_DEFAULT_IMAGE", "mine:1")
    assert ContainerConfig().image == "mine:1"
    monkeypatch.setenv("PODKIT_DEFAULT_IMAGE", "mine:2")
    assert ContainerConfig().image == "mine:2"


def test_an_empty_default_image_counts_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODKIT_DEFAULT_IMAGE", "")
    assert ContainerConfig().image == "python:3.11-alpine"


def test_a_bad_default_image_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PODKIT_DEFAULT_IMAGE", "not an image")
    with pytest.raises(InvalidInput, match="not an image"):
        ContainerConfig().checked_copy()


@pytest.mark.parametrize(
    ("limit", "size"),
    [
        ("512m", 512 << 20),
        ("1g", 1 << 30),
        ("1G", 1 << 30),
        ("1.5g", 3 << 29),
        ("8192k", 8 << 20),
        ("64mb", 64 << 20),
        ("67108864", 64 << 20),
        ("67108864b", 64 << 20),
        (64 << 20, 64 << 20),
        ("1t", 1 << 40),
        ("512MiB", 512 << 20),
        ("1Gi", 1 << 30),
        ("64Mi", 64 << 20),
    ],
)
def test_a_memory_limit_is_bytes_or_a_number_with_a_suffix(limit: str | int, size: int) -> None:
    assert ContainerConfig(memory_limit=limit).memory_limit_bytes == size


def test_a_working_dir_is_kept_normalised() -> None:
    assert ContainerConfig(working_dir="//workspace/./src/").working_dir == "/workspace/src"


def test_the_status_has_the_documented_members_with_their_names_in_capitals() -> None:
    names = ["creating", "running", "paused", "restarting", "exited", "stopped", "dead", "error", "unknown"]
    assert {status.name: status.value for status in ContainerStatus} == {name.upper(): name for name in names}


def test_a_status_is_text() -> None:
    assert f"{ContainerStatus.RUNNING}" == "running"
    assert ContainerStatus("exited") is ContainerStatus.EXITED


def test_mounts_may_be_volumes_and_tmpfs() -> None:
    assert Mount(source="data_1", target="/data", type="volume").type == "volume"
    assert Mount(target="/tmp", type="tmpfs").source == ""
    assert Mount(source="/a", target="/b").read_only is False


# --- results ---------------------------------------------------------------------------------------


def test_a_result_is_ok_where_the_exit_code_is_0() -> None:
    assert ProcessResult(exit_code=0).ok
    assert not ProcessResult(exit_code=1).ok


def test_a_result_that_is_made_of_text_has_its_bytes() -> None:
    result = ProcessResult(exit_code=0, stdout="é")
    assert (result.stdout_bytes, result.stderr_bytes) == ("é".encode(), b"")


def test_output_that_is_no_text_passes_through_json() -> None:
    result = ProcessResult(exit_code=0, stdout="\ufffd", stdout_bytes=b"\xff\0")
    assert ProcessResult.model_validate_json(result.model_dump_json()) == result


def test_checking_a_good_result_gives_it_back() -> None:
    result = ProcessResult(exit_code=0, stdout="fine")
    assert result.check() is result


def test_checking_a_failed_result_raises_with_the_result_and_its_last_words() -> None:
    result = ProcessResult(exit_code=3, stdout="out", stderr="first\nlast words\n")
    with pytest.raises(CommandFailed, match=r"exit code 3.*last words") as caught:
        result.check()
    assert caught.value.result is result


def test_a_failed_result_without_stderr_ends_in_its_last_line_of_stdout() -> None:
    with pytest.raises(CommandFailed, match="2 failed"):
        ProcessResult(exit_code=1, stdout="...\n2 failed\n").check()


def test_a_failed_check_can_be_pickled_with_its_result() -> None:
    with pytest.raises(CommandFailed) as caught:
        ProcessResult(exit_code=3).check()
    assert pickle.loads(pickle.dumps(caught.value)).result.exit_code == 3


def test_threads_may_assign_to_one_session_at_once() -> None:
    session = Session(user_id="bob", session_id="1", container_name="c", config=ContainerConfig())

    def assign(field: str) -> None:
        for number in range(3000):
            value = str(number)
            setattr(session, field, value)
            assert getattr(session, field) == value

    with ThreadPoolExecutor(3) as threads:
        list(threads.map(assign, ["container_id", "container_name", "user_id"]))


# --- sessions --------------------------------------------------------------------------------------


@pytest.fixture
def session() -> Session:
    return Session(
        user_id="bob",
        session_id="123",
        container_name="unit-bob-123",
        config=ContainerConfig(),
        session_inactivity_timeout_seconds=100,
    )


def ago(seconds: float) -> datetime:
    return datetime.now(UTC) - timedelta(seconds=seconds)


def test_a_new_session_is_not_expired(session: Session) -> None:
    assert not session.is_expired()
    assert session.data_dir is None
    assert session.metadata == {}


def test_assigning_the_last_activity_moves_the_idle_clock(session: Session) -> None:
    session.last_active_at = ago(101)
    assert session.is_expired()
    assert 101 <= session.idle_seconds < 102
    session.last_active_at = ago(1)
    assert not session.is_expired()


def test_the_last_activity_that_a_session_is_made_with_counts() -> None:
    session = Session(
        user_id="u", session_id="s", container_name="n", config=ContainerConfig(), last_active_at=ago(3601)
    )
    assert session.is_expired()


def test_assigning_anything_else_leaves_the_idle_clock_alone(session: Session) -> None:
    session.last_active_at = ago(101)
    session.status = ContainerStatus.RUNNING
    session.metadata["key"] = "value"
    assert session.is_expired()


def test_an_assigned_timeout_counts(session: Session) -> None:
    session.last_active_at = ago(50)
    session.session_inactivity_timeout_seconds = 49
    assert session.is_expired()
    session.session_inactivity_timeout_seconds = 3600
    assert not session.is_expired()


@pytest.mark.parametrize("field", ["created_at", "last_active_at"])
def test_a_time_without_a_zone_is_refused(session: Session, field: str) -> None:
    with pytest.raises(InvalidInput, match="time zone"):
        setattr(session, field, datetime(2026, 1, 1))  # noqa: DTZ001 - that is the point


def test_times_of_other_zones_are_kept_in_utc(session: Session) -> None:
    session.created_at = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    assert session.created_at.utcoffset() == timedelta(0)
    assert session.created_at == datetime(2026, 1, 1, 7, tzinfo=UTC)


def test_activity_in_the_future_is_activity_now(session: Session) -> None:
    session.last_active_at = ago(-3600)
    assert session.idle_seconds == 0


# the wall clock is replaced in its module: a session has no seam for it, and a test must not set the machine's


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(days=30)], ids=str)
@pytest.mark.parametrize("direction", [1, -1])
def test_an_active_session_survives_a_jump_of_the_clock(
    session: Session, monkeypatch: pytest.MonkeyPatch, jump: timedelta, direction: int
) -> None:
    monkeypatch.setattr(session_model, "utc_now", lambda: datetime.now(UTC) + direction * jump)
    assert not session.is_expired()


def test_an_idle_session_stays_expired_when_the_clock_is_set_back(
    session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.last_active_at = ago(101)
    monkeypatch.setattr(session_model, "utc_now", lambda: datetime.now(UTC) - timedelta(days=1))
    assert session.is_expired()


def test_activity_after_a_jump_of_the_clock_counts(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    for days in (30, -30):
        monkeypatch.setattr(session_model, "utc_now", lambda days=days: datetime.now(UTC) + timedelta(days=days))
        session.last_active_at = session_model.utc_now()
        assert not session.is_expired()


def test_a_session_survives_a_pickle(session: Session) -> None:
    copy = pickle.loads(pickle.dumps(session))
    assert copy == session
    assert not copy.is_expired()


def test_a_session_refuses_unknown_fields(session: Session) -> None:
    with pytest.raises(ValueError, match="statuss"):
        session.statuss = "x"  # type: ignore[attr-defined]  # that is the point


def test_a_sessions_data_dir_is_a_path(session: Session) -> None:
    session.data_dir = "/srv/workspaces/bob/123"  # type: ignore[assignment]  # what pydantic converts
    assert session.data_dir == Path("/srv/workspaces/bob/123")


def test_the_models_name_their_public_module_also_in_pickles() -> None:
    found = {getattr(public, name).__module__ for name in public.__all__}
    assert found == {"podkit.core.models"}
    result = ProcessResult(exit_code=1)
    assert b"podkit._models" not in pickle.dumps(result)
    assert pickle.loads(pickle.dumps(result)) == result
