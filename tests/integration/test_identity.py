"""Odd ids: legal, and never mistaken for one another."""

from __future__ import annotations

import re
import unicodedata

import pytest

from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine

pytestmark = pytest.mark.integration

ALIKE = ["a.b", "a b", "a-b", "a_b", "a/b", "A.B", "a:b"]

ODD = [
    "..",
    "../../etc",
    "-rf",
    "~",
    "$(touch /tmp/x)",
    "new\nline",
    "📦🔥",
    "é" * 127 + "x",
    "\u202eabc",
    " ",
]

MORE_ODD = [
    ".",
    "/",
    "--help",
    "quote'\"`",
    "%s%n",
    unicodedata.normalize("NFD", "é"),
    unicodedata.normalize("NFC", "é"),
    "x" * 255,
    "x" * 254 + "y",
    "X" * 255,
]


def use(open_session: OpenSession, user_id: str, session_id: str) -> tuple[str, str, str]:
    """Write a marker into a session's workspace and container, and give what makes it distinct."""
    session = open_session(user_id=user_id, session_id=session_id)
    session.execute_command(["sh", "-c", 'printf %s "$1" > marker; printf %s "$1" > /tmp/marker', "sh", session_id])
    info = session.get_info()
    assert info.container_id is not None
    return info.container_id, info.container_name, str(info.data_dir)


def test_ids_that_look_alike_each_have_their_own_container_and_workspace(
    open_session: OpenSession, engine: Engine
) -> None:
    found = {id: use(open_session, "bob", id) for id in ALIKE}

    for kind in zip(*found.values(), strict=True):
        assert len(set(kind)) == len(ALIKE)
    for id in ALIKE:
        session = open_session(session_id=id)
        assert session.execute_command("cat marker /tmp/marker").stdout == id * 2
    assert len(engine.names()) == len(ALIKE)


def test_the_user_and_the_session_are_not_run_together(open_session: OpenSession, engine: Engine) -> None:
    pairs = [("a", "b-c"), ("a-b", "c"), ("a/b", "c"), ("a", "b/c")]

    found = [use(open_session, *pair) for pair in pairs]

    for kind in zip(*found, strict=True):
        assert len(set(kind)) == len(pairs)


@pytest.mark.parametrize("id", ODD, ids=ascii)
def test_an_odd_id_works(open_session: OpenSession, sessions: BaseSessionManager, engine: Engine, id: str) -> None:
    session = open_session(user_id=id, session_id=id)
    info = session.get_info()

    session.write_file("file", id)

    assert (info.user_id, info.session_id) == (id, id)
    assert session.execute_command(["cat", "file"]).stdout == id
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}", info.container_name)
    assert info.container_name.startswith(engine.prefix + "-")
    session.close(remove_workspace=True)
    assert engine.names() == []


def test_odd_ids_share_no_workspace_even_where_case_does_not_count(manager: SimpleContainerManager) -> None:
    workspaces = {str(manager.get_data_dir("bob", id)).casefold() for id in [*ALIKE, *ODD, *MORE_ODD]}

    assert len(workspaces) == len(ALIKE) + len(ODD) + len(MORE_ODD)


def test_a_new_manager_finds_a_session_with_an_odd_id(
    open_session: OpenSession, manager: SimpleContainerManager
) -> None:
    id = "../ 📦\n-rf"
    made = open_session(user_id=id, session_id=id).get_info()

    found = BaseSessionManager(manager).get_session(id, id)

    assert found is not None
    assert (found.user_id, found.session_id, found.container_id) == (id, id, made.container_id)


@pytest.mark.parametrize("id", ["", "x" * 1025, "nul\0", None, 5, b"bytes", "\ud800"], ids=ascii)
def test_an_id_that_cannot_be_is_refused_and_nothing_is_made(
    sessions: BaseSessionManager, engine: Engine, id: str
) -> None:
    with pytest.raises(InvalidInput, match="user_id"):
        sessions.create_session(id, "123", long_config())
    with pytest.raises(InvalidInput, match="session_id"):
        sessions.create_session("bob", id, long_config())

    assert engine.names() == []
