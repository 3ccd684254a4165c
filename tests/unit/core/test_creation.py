"""Get it or create it: of many that ask at once one creates, and whatever fails leaves nothing."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from podkit._models.identity import Identity
from podkit._models.labels import Label
from podkit.core._container_record import config_to_label, read_record
from podkit.core._creation import find, get_or_create
from podkit.core._requested_config import Request
from podkit.core._startup_verification import wait_until_up
from podkit.core.models import ContainerConfig, ContainerStatus, StartupVerificationConfig
from podkit.errors import (
    ContainerFailedToStart,
    ContainerNotFound,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    ImageNotFound,
    NameTaken,
    SessionConflict,
)
from podkit.testing import FakeBackend, Pause, Reply, Steps
from podkit.utils._deadline import Deadline
from tests.support.waiting import within
from tests.unit.support import CANARY, at_once, everything_said, make_spec, names_on

IDENTITY = Identity.of("unit", "bob", "1")
CONFIG = ContainerConfig(image="some:image", environment={"TOKEN": CANARY})


def labels(config: ContainerConfig = CONFIG, **changes: str) -> dict[str, str]:
    return IDENTITY.labels | {
        Label.CONFIG: config_to_label(config),
        Label.REQUESTED: Request.of(config).to_label(),
        Label.WORKSPACE: "/srv/bob/1",
        **changes,
    }


def spec(config: ContainerConfig = CONFIG, **changes: Any) -> Any:
    return make_spec(IDENTITY.name, **({"labels": labels(config), "environment": config.environment} | changes))


def get(fake: FakeBackend, wanted: Any = None, seconds: float | None = None) -> tuple[str, bool]:
    """Get or create; give the id, and whether it was adopted."""
    deadline = None if seconds is None else Deadline.after(seconds)
    id, adopted = get_or_create(fake, IDENTITY, wanted or spec(), lambda text: None, lambda id: None, deadline=deadline)
    return id, adopted is not None


# --- one of many -----------------------------------------------------------------------------------


def test_the_first_creates_and_the_second_adopts(fake: FakeBackend) -> None:
    id, adopted = get(fake)
    assert not adopted
    assert get(fake) == (id, True)


def test_of_sixteen_at_once_one_creates(fake: FakeBackend) -> None:
    found = at_once(16, lambda _: get(fake))
    assert len({id for id, _ in found}) == 1
    assert [adopted for _, adopted in found].count(False) == 1


def test_a_container_that_is_being_removed_is_waited_for(fake: FakeBackend) -> None:
    old = fake.create_workload(spec())
    fake.end(old, status=ContainerStatus.DEAD)
    for _ in range(2):
        fake.interpose("inspect_workload", lambda: None)
    fake.interpose("inspect_workload", lambda: fake.vanish(old))
    id, adopted = get(fake)
    assert (id != old, adopted) == (True, False)


def test_a_dead_container_that_stays_does_not_block_its_session_for_ever(fake: FakeBackend) -> None:
    """An engine that failed to remove a container leaves it dead; it is ours by its labels, and must make room."""
    old = fake.create_workload(spec())
    fake.end(old, status=ContainerStatus.DEAD)
    with within(2):
        id, _ = get(fake, seconds=1)
    assert id != old


def test_a_name_that_is_free_again_is_taken(fake: FakeBackend) -> None:
    old = fake.create_workload(spec())
    fake.interpose("create_workload", lambda: None)
    fake.interpose("inspect_workload", lambda: fake.vanish(old))
    id, adopted = get(fake)
    assert (id != old, adopted) == (True, False)


# --- strangers -------------------------------------------------------------------------------------

STRANGERS: dict[str, dict[str, str]] = {
    "no labels": {},
    "another session's": Identity.of("unit", "eve", "1").labels,
    "another prefix's": IDENTITY.labels | {Label.PREFIX: "other"},
    "another schema": IDENTITY.labels | {Label.SCHEMA: "99"},
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_a_stranger_with_our_name_is_refused_and_not_touched(fake: FakeBackend, stranger: str) -> None:
    id = fake.create_workload(make_spec(IDENTITY.name, labels=STRANGERS[stranger]))
    fake.start_workload(id)
    fake.calls.clear()
    with pytest.raises(NameTaken, match=r"not touched.*another container_prefix") as caught:
        get(fake)
    assert IDENTITY.name in str(caught.value)
    assert not {"remove_workload", "stop_workload", "start_workload"} & set(fake.calls)
    assert names_on(fake) == [IDENTITY.name]


def test_an_id_that_looks_like_our_name_is_not_ours(fake: FakeBackend) -> None:
    class Confused(FakeBackend):
        """An engine that takes a name for the beginning of an id."""

        def inspect_workload(self, id: str, *, deadline: Deadline | None = None) -> Any:
            return super().inspect_workload(stranger if id == IDENTITY.name else id, deadline=deadline)

    confused = Confused()
    confused.connect()
    stranger = confused.create_workload(make_spec("somebody", labels=labels()))
    with pytest.raises(NameTaken):
        find(confused, IDENTITY, {})


# --- conflicts -------------------------------------------------------------------------------------


def test_another_configuration_is_a_conflict_that_names_the_fields(fake: FakeBackend) -> None:
    get(fake)
    other = CONFIG.model_copy(update={"memory_limit": "1g", "ports": [80]})
    with pytest.raises(SessionConflict, match=r"memory_limit \(536870912, not 1073741824\), ports.*close it first"):
        get(fake, spec(other))


def test_another_environment_is_a_conflict_that_tells_no_value(fake: FakeBackend) -> None:
    get(fake)
    other = CONFIG.model_copy(update={"environment": {"TOKEN": CANARY + "2"}})
    with pytest.raises(SessionConflict, match="environment") as caught:
        get(fake, spec(other))
    assert CANARY not in everything_said(caught.value)


def test_another_workspace_is_a_conflict(fake: FakeBackend) -> None:
    get(fake)
    with pytest.raises(SessionConflict, match="workspace"):
        get(fake, spec(labels=labels(**{Label.WORKSPACE: "/elsewhere"})))


def test_a_label_that_cannot_be_read_is_a_conflict(fake: FakeBackend) -> None:
    garbled = labels(**{Label.CONFIG: '{"colour":"red"}', Label.REQUESTED: "x"})
    fake.create_workload(spec(labels=garbled))
    with pytest.raises(SessionConflict, match="configuration"):
        get(fake)


def test_looking_without_a_wish_finds_any_configuration(fake: FakeBackend) -> None:
    id, _ = get(fake)
    found = find(fake, IDENTITY, {})
    assert found is not None
    assert found.id == id


def test_looking_for_what_is_not_there_finds_nothing(fake: FakeBackend) -> None:
    assert find(fake, IDENTITY, {}) is None


# --- images ----------------------------------------------------------------------------------------


def test_a_missing_image_is_pulled_with_progress() -> None:
    fake, told = FakeBackend(images=[], registry=["some:image"]), []
    fake.connect()
    get_or_create(fake, IDENTITY, spec(), told.append, lambda id: None)
    assert told == ["some:image: pulled"]


def test_an_image_that_cannot_be_pulled_is_an_error_that_leaves_nothing() -> None:
    fake = FakeBackend(images=[])
    fake.connect()
    with pytest.raises(ImageNotFound, match="some:image"):
        get(fake)
    assert fake.calls.count("create_workload") == 1
    assert names_on(fake) == []


# --- lost answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [EngineTimeout("late"), EngineUnavailable("broken"), EngineError("502 Bad Gateway"), RuntimeError("a defect")],
)
def test_a_creation_whose_answer_was_lost_leaves_nothing(fake: FakeBackend, error: Exception) -> None:
    fake.fail("create_workload", error, after=True)
    with pytest.raises(type(error)):
        get(fake)
    assert names_on(fake) == []


def test_a_creation_that_is_interrupted_by_its_user_leaves_nothing(fake: FakeBackend) -> None:
    fake.fail("create_workload", KeyboardInterrupt, after=True)
    with pytest.raises(KeyboardInterrupt):
        get(fake)
    assert names_on(fake) == []


def test_the_container_of_another_caller_survives_our_lost_answer(fake: FakeBackend) -> None:
    theirs, _ = get(fake)
    fake.fail("create_workload", EngineUnavailable("broken"))
    with pytest.raises(EngineUnavailable):
        get(fake)
    assert names_on(fake) == [IDENTITY.name]
    assert get(fake) == (theirs, True)


def test_a_clean_up_that_fails_too_leaves_the_first_error(fake: FakeBackend) -> None:
    fake.fail("create_workload", EngineTimeout("the first"), after=True)
    fake.fail("inspect_workload", EngineUnavailable("the second"))
    with pytest.raises(EngineTimeout, match="the first"):
        get(fake)


def test_an_engine_that_freezes_does_not_keep_the_clean_up_waiting(fake: FakeBackend) -> None:
    fake.interpose("create_workload", fake.freeze)
    threading.Timer(0.3, fake.recover).start()  # else the clean-up takes its 2 s
    with within(2.5), pytest.raises(EngineTimeout):
        get(fake, seconds=0.1)
    assert names_on(fake) == []


# --- staying up ------------------------------------------------------------------------------------


def steady(checks: int = 2, wait: float = 1.0) -> StartupVerificationConfig:
    return StartupVerificationConfig(
        required_consecutive_checks=checks, check_interval_seconds=0.005, max_wait_seconds=wait
    )


def dies_soon(run: Any) -> Steps:
    yield "first line\nlast words\n"
    yield Pause(0.01)
    return 3


def started(fake: FakeBackend, command: list[str]) -> str:
    id = fake.create_workload(make_spec(command=command))
    fake.start_workload(id)
    fake.calls.clear()
    return id


@pytest.mark.parametrize("checks", [1, 3])
def test_a_container_must_be_found_running_so_many_times(fake: FakeBackend, checks: int) -> None:
    id = started(fake, ["sleep", "60"])
    wait_until_up(fake, id, ContainerConfig(command=["sleep", "60"], startup_verification=steady(checks)))
    assert fake.calls == ["inspect_workload"] * checks


def test_a_container_that_ends_says_its_exit_code_and_its_last_words(fake: FakeBackend) -> None:
    fake.programs["serve"] = dies_soon
    id = started(fake, ["serve"])
    with pytest.raises(ContainerFailedToStart, match=r"(?s)failed to start.*exit code 3.*last words") as caught:
        wait_until_up(fake, id, ContainerConfig(command=["serve"], startup_verification=steady(50)))
    assert isinstance(caught.value, RuntimeError)
    assert (caught.value.exit_code, caught.value.log) == (3, "first line\nlast words\n")


def test_a_container_that_ends_with_0_did_not_stay_up_either(fake: FakeBackend) -> None:
    fake.programs["once"] = Reply("done\n")
    id = started(fake, ["once"])
    with pytest.raises(ContainerFailedToStart, match="exit code 0"):
        wait_until_up(fake, id, ContainerConfig(command=["once"], startup_verification=steady()))


def test_without_a_verification_nothing_is_waited_for(fake: FakeBackend) -> None:
    fake.programs["once"] = Reply("done\n")
    id = started(fake, ["once"])
    wait_until_up(fake, id, ContainerConfig(command=["once"], startup_verification=None))
    assert fake.calls == []


def test_podkits_own_sleep_is_not_waited_for(fake: FakeBackend) -> None:
    wait_until_up(fake, started(fake, ["sleep", "60"]), ContainerConfig())
    assert fake.calls == []


def test_a_container_that_is_not_found_running_in_time_did_not_start(fake: FakeBackend) -> None:
    id = started(fake, ["sleep", "60"])
    fake.pause(id)
    with within(1), pytest.raises(ContainerFailedToStart, match=r"failed to start.*startup_verification"):
        wait_until_up(fake, id, ContainerConfig(command=["sleep", "60"], startup_verification=steady(wait=0.05)))


def test_a_container_that_vanishes_while_it_is_waited_for_is_not_found(fake: FakeBackend) -> None:
    id = started(fake, ["sleep", "60"])
    fake.vanish(id)
    with pytest.raises(ContainerNotFound):
        wait_until_up(fake, id, ContainerConfig(command=["sleep", "60"], startup_verification=steady()))


def test_a_log_that_cannot_be_read_does_not_hide_the_exit_code(fake: FakeBackend) -> None:
    fake.programs["once"] = Reply(exit_code=5)
    id = started(fake, ["once"])
    fake.fail("get_workload_logs", EngineError("no log"))
    with pytest.raises(ContainerFailedToStart, match="exit code 5"):
        wait_until_up(fake, id, ContainerConfig(command=["once"], startup_verification=steady()))


# --- records ---------------------------------------------------------------------------------------


def test_a_record_is_read_from_the_labels(fake: FakeBackend) -> None:
    id, _ = get(fake)
    record = read_record(fake.inspect_workload(id))
    assert (record.id, record.name, record.user_id, record.session_id) == (id, IDENTITY.name, "bob", "1")
    assert record.config == CONFIG
    assert not Request.of(CONFIG).differences(record.requested)
    assert Request.of(ContainerConfig(image="other")).differences(record.requested)
