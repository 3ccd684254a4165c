"""SE-03 to SE-05: a secret is shown by nothing that podkit makes of it; beside it the same value as a `str`, which is.

What a container's engine and a real command see of one is in tests/trust/test_secrets.py.
"""

from __future__ import annotations

import copy
import json
import logging
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from podkit.agent.commands import CommandRequest
from podkit.agent.protocol import encode_start
from podkit.core import _identity
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, Session
from podkit.core.secret import MASK, Secret, unknown_secret
from podkit.core.session import BaseSessionManager
from podkit.errors import AgentUnavailable, InvalidInput, SessionConflict
from podkit.testing import FakeBackend
from tests.unit.support import CANARY, Recorder, another, everything_said, inspected

TOKEN = Secret(CANARY)
BAD_VALUES = {"a NUL": f"{CANARY}\0", "half of a surrogate pair": f"{CANARY}\ud800", "bytes": CANARY.encode()}


def config(value: str | Secret = TOKEN, **fields: Any) -> ContainerConfig:
    return ContainerConfig(environment={"TOKEN": value, "PLAIN": "1"}, **fields)


def session(value: str | Secret) -> Session:
    return Session(user_id="bob", session_id="1", container_name="c", config=config(value))


def token_of(shown: ContainerConfig) -> Secret:
    found = shown.environment["TOKEN"]
    assert isinstance(found, Secret)
    return found


# --- what shows a value ------------------------------------------------------------------------------


def log_record(value: object) -> str:
    return logging.LogRecord("podkit", logging.DEBUG, "", 0, "%s %r", (value, value), None).getMessage()


def in_an_exception(value: object) -> str:
    try:
        raise ValueError(value)
    except ValueError as exc:
        return everything_said(exc)


def with_locals(value: object) -> str:
    try:
        raise ValueError
    except ValueError as exc:
        return "".join(traceback.TracebackException.from_exception(exc, capture_locals=True).format())


SURFACES: dict[str, Callable[[Any], object]] = {
    "repr": repr,
    "str": str,
    "an f-string": lambda value: f"{value} {value!r} {value!s} {value!a}",
    "a format with a width": lambda value: f"{value:>40}",
    "percent": lambda value: "%s %r" % (value, value),  # noqa: UP031 - that is the point
    "in a dict": lambda value: repr({"TOKEN": [value]}),
    "a log record": log_record,
    "an exception": in_an_exception,
    "the locals of a traceback": with_locals,
    "JSON with a default": lambda value: json.dumps({"TOKEN": value}, default=repr),
    "repr of a configuration": lambda value: repr(config(value)),
    "str of a configuration": lambda value: str(config(value)),
    "a dump": lambda value: config(value).model_dump(),
    "a dump for JSON": lambda value: config(value).model_dump(mode="json"),
    "JSON of a configuration": lambda value: config(value).model_dump_json(),
    "repr of a session": lambda value: repr(session(value)),
    "JSON of a session": lambda value: session(value).model_dump_json(),
    "repr of a request": lambda value: repr(CommandRequest.checked("ls", environment={"TOKEN": value})),
    "what a label shows": lambda value: _identity.config_to_label(config(value)),
    "an unknown field": lambda value: refused(lambda: ContainerConfig(env={"TOKEN": value})),
    "a field of another type": lambda value: refused(lambda: ContainerConfig(image=value, user=[value])),
    "an argument of another type": lambda value: refused(lambda: CommandRequest.checked(["ls", 5, value])),
}


def refused(act: Callable[[], object]) -> str:
    with pytest.raises(InvalidInput) as caught:
        act()
    return everything_said(caught.value)


@pytest.mark.parametrize("surface", SURFACES)
def test_a_secret_is_masked(surface: str) -> None:
    """SE-03, SE-04, SE-05."""
    assert CANARY not in str(SURFACES[surface](TOKEN))


UNSEEN = {"what a label shows", "an argument of another type", "a field of another type"}


@pytest.mark.parametrize("surface", sorted(SURFACES.keys() - UNSEEN))
def test_control_the_same_value_as_a_str_is_shown(surface: str) -> None:
    """SE-03, SE-04, SE-05."""
    assert CANARY in str(SURFACES[surface](CANARY))


def test_a_secret_gives_its_value_to_who_asks() -> None:
    assert TOKEN.reveal() == CANARY
    assert repr(TOKEN) == str(TOKEN) == f"{TOKEN}" == MASK


def test_secrets_are_equal_where_their_values_are_and_to_nothing_else() -> None:
    assert Secret("a") == Secret("a")
    assert len({Secret("a"), Secret("a"), Secret("b")}) == 2
    assert Secret("a") != "a"
    assert unknown_secret() != Secret("")


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("holder", [TOKEN, config(), session(TOKEN)], ids=["secret", "config", "session"])
def test_a_secret_is_not_pickled(holder: object, protocol: int) -> None:
    """SE-05."""
    with pytest.raises(TypeError, match="cannot be pickled") as caught:
        pickle.dumps(holder, protocol)
    assert CANARY not in everything_said(caught.value)
    assert CANARY.encode() in pickle.dumps(config(CANARY), protocol)  # the control


def test_what_asks_for_the_state_of_a_secret_is_refused() -> None:
    """SE-05."""
    with pytest.raises(TypeError, match="cannot be pickled"):
        TOKEN.__getstate__()
    assert not hasattr(TOKEN, "__dict__")


def test_a_copy_of_a_secret_is_itself() -> None:
    assert copy.copy(TOKEN) is TOKEN
    assert token_of(copy.deepcopy(config())) is TOKEN
    assert token_of(config().checked_copy()) is TOKEN
    assert token_of(ContainerConfig(**config().model_dump())) is TOKEN


@pytest.mark.parametrize("value", BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_value_that_no_variable_can_have_is_refused_without_being_shown(value: Any) -> None:
    """SE-04."""
    for make in (Secret, lambda bad: CommandRequest.checked("ls", environment={"T": bad})):
        with pytest.raises(InvalidInput, match="not a str of valid Unicode") as caught:
            make(value)
        assert CANARY not in everything_said(caught.value)
        assert caught.value.__context__ is None, "what reports errors may walk along these, and this one has the value"


@pytest.mark.parametrize("text", [str(TOKEN), f"Bearer {TOKEN}"])
def test_a_masked_text_is_no_value(text: str) -> None:
    with pytest.raises(InvalidInput, match="masked"):
        CommandRequest.checked("ls", environment={"TOKEN": text})
    with pytest.raises(InvalidInput, match="masked"):
        ContainerConfig.model_validate_json(config().model_dump_json())


def test_a_configuration_has_a_schema_and_refuses_other_values() -> None:
    variables = ContainerConfig.model_json_schema()["properties"]["environment"]
    assert variables["additionalProperties"] == {"type": "string"}
    with pytest.raises(InvalidInput, match=r"environment\.T: Input should be a valid string or a Secret; pass a dict"):
        ContainerConfig(environment={"T": 5})


# --- to the agent, and not to the engine -------------------------------------------------------------


def test_the_agent_is_sent_the_value() -> None:
    request = CommandRequest.checked(["ls"], environment={"TOKEN": TOKEN, "A": "1"})
    frame = encode_start(
        1, request.argv, user="", working_dir="", environment=request.environment, timeout=None, window=1, flags=0
    )
    assert frame is not None
    assert f"\0TOKEN={CANARY}\0A=1\0".encode() in frame


def test_a_secret_of_a_configuration_reaches_no_part_of_the_container(
    fake: FakeBackend, manager: SimpleContainerManager
) -> None:
    """SE-02."""
    ids = [manager.create_container("bob", id, config(value))[0] for id, value in (("1", TOKEN), ("2", CANARY))]
    secret, plain = (inspected(fake, id) for id in ids)
    assert secret.environment == {"PLAIN": "1"}
    assert CANARY not in repr(secret)
    assert CANARY in repr(plain)  # the control
    assert json.loads(secret.labels[_identity.CONFIG])["secrets"] == ["TOKEN"]


def test_the_digest_of_a_configuration_has_the_names_of_its_secrets_alone() -> None:
    """SE-02: a hash of a short value could be found by trying."""
    assert _identity.config_digest(config()) == _identity.config_digest(config(Secret("another")))
    named = ContainerConfig(environment={"OTHER": TOKEN, "PLAIN": "1"})
    assert len({_identity.config_digest(one) for one in (config(), config(CANARY), named)}) == 3
    assert _identity.config_digest(config(CANARY)) != _identity.config_digest(config("another"))  # the control


@pytest.mark.parametrize("where", ["the configuration", "the command"])
def test_without_the_agent_a_command_with_a_secret_is_refused_before_anything_is_sent(
    fake: FakeBackend, sessions: BaseSessionManager, where: str
) -> None:
    """SE-02."""
    in_config = where == "the configuration"
    sessions.create_session("bob", "1", config() if in_config else None)
    assert sessions.execute_command("bob", "1", "echo hi", environment={"TOKEN": "plain"}).stdout == "hi\n"
    fake.calls.clear()
    with pytest.raises(AgentUnavailable, match="'TOKEN' is a Secret") as caught:
        sessions.execute_command("bob", "1", "echo hi", environment=None if in_config else {"TOKEN": TOKEN})
    assert fake.calls == []
    assert CANARY not in everything_said(caught.value)


def test_files_of_a_session_with_secrets_need_no_agent(sessions: BaseSessionManager) -> None:
    sessions.create_session("bob", "1", config())
    sessions.write_file("bob", "1", "/tmp/a", "b")
    assert sessions.read_file("bob", "1", "/tmp/a") == "b"


# --- who knows the value -----------------------------------------------------------------------------


def known_to(sessions: BaseSessionManager) -> str | None:
    """What the commands of the session get as TOKEN; `None` for nothing."""
    [id] = sessions.container_manager.containers
    given = sessions.container_manager.containers[id].known_secrets
    found = sessions.get_session("bob", "1")
    assert found is not None
    assert token_of(found.config).is_known == ("TOKEN" in given)
    return given["TOKEN"].reveal() if "TOKEN" in given else None


def test_a_manager_that_reconnects_without_the_configuration_knows_the_name_alone(
    sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    sessions.create_session("bob", "1", config())
    other = another(manager)
    found = other.create_session("bob", "1")
    assert (known_to(sessions), known_to(other)) == (CANARY, None)
    assert found.config.environment["PLAIN"] == "1"
    with pytest.raises(InvalidInput, match="pass it again"):
        token_of(found.config).reveal()


@pytest.mark.parametrize("knows", ["nothing", "the session", "the value"])
def test_a_reconnection_with_another_value_uses_it_from_then_on(
    sessions: BaseSessionManager, manager: SimpleContainerManager, knows: str
) -> None:
    id = sessions.create_session("bob", "1", config()).container_id
    asking = sessions if knows == "the value" else another(manager)
    if knows == "the session":
        asking.create_session("bob", "1")
    assert asking.create_session("bob", "1", config(Secret("rotated"))).container_id == id
    assert known_to(asking) == "rotated"
    asking.create_session("bob", "1")
    assert known_to(asking) == "rotated"


def test_a_secret_in_place_of_a_str_is_another_configuration(sessions: BaseSessionManager) -> None:
    sessions.create_session("bob", "1", config(CANARY))
    with pytest.raises(SessionConflict, match=r"\(environment\)") as caught:
        sessions.create_session("bob", "1", config())
    assert CANARY not in everything_said(caught.value)


def test_a_conflict_does_not_name_the_environment_where_only_the_value_of_a_secret_differs(
    sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    sessions.create_session("bob", "1", config())
    for asking in (sessions, another(manager)):
        with pytest.raises(SessionConflict, match=r"\(ports\)"):
            asking.create_session("bob", "1", config(Secret("other"), ports=[80]))


def test_a_container_that_is_made_anew_keeps_its_secrets(fake: FakeBackend, sessions: BaseSessionManager) -> None:
    before = sessions.create_session("bob", "1", config()).container_id
    assert before is not None
    fake.remove_workload(before)
    found = sessions.create_session("bob", "1")
    assert found.container_id != before
    assert known_to(sessions) == CANARY


def test_a_container_that_another_manager_has_made_anew_keeps_the_secrets_of_this_one(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    before = sessions.create_session("bob", "1", config()).container_id
    other = another(manager)
    other.create_session("bob", "1")
    assert before is not None
    fake.remove_workload(before)
    anew = other.create_session("bob", "1").container_id
    assert anew != before
    assert sessions.create_session("bob", "1").container_id == anew
    assert known_to(sessions) == CANARY
    third = another(manager)
    third.create_session("bob", "1", config(Secret("third")))  # the names have outlived one who knew no value
    assert known_to(third) == "third"


def test_a_secret_that_an_event_handler_adds_is_given_too(sessions: BaseSessionManager, recorder: Recorder) -> None:
    recorder.change = lambda given: given.model_copy(update={"environment": {"TOKEN": TOKEN}})
    sessions.create_session("bob", "1")
    assert known_to(sessions) == CANARY


def test_a_session_is_not_created_with_a_secret_whose_value_nobody_knows(
    fake: FakeBackend, sessions: BaseSessionManager, manager: SimpleContainerManager
) -> None:
    sessions.create_session("bob", "1", config())
    read_back = another(manager).create_session("bob", "1").config
    fake.calls.clear()
    with pytest.raises(InvalidInput, match="without its value"):
        another(manager).create_session("bob", "2", read_back)
    assert "create_workload" not in fake.calls
