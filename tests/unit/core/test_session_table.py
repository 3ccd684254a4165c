"""The table of sessions: one entry for one session, held by one thread at a time."""

from __future__ import annotations

import threading

import pytest

from podkit.core._session_entry import SessionEntry
from podkit.core._session_table import SessionTable
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, Session
from podkit.errors import InvalidInput, SessionBusy
from podkit.utils._deadline import Deadline
from tests.support.waiting import within


def a_session(container_id: str = "f" * 64) -> Session:
    return Session(
        user_id="bob", session_id="1", container_id=container_id, container_name="n", config=ContainerConfig()
    )


@pytest.fixture
def table(manager: SimpleContainerManager) -> SessionTable:
    return SessionTable(manager)


def test_an_entry_with_a_session_stays_and_is_found_by_its_container(table: SessionTable) -> None:
    with table.locked("bob", "1") as entry:
        entry.session = a_session()
    assert table.entries() == [entry]
    assert table.serving("f" * 64) is entry
    assert table.serving("e" * 64) is None
    with table.locked("bob", "1") as again:
        assert again is entry


def test_an_entry_that_stays_empty_is_dropped(table: SessionTable) -> None:
    with table.locked("bob", "1"):
        assert len(table.entries()) == 1
    assert table.entries() == []


def test_an_entry_is_dropped_when_its_block_raises(table: SessionTable) -> None:
    with pytest.raises(KeyError), table.locked("bob", "1"):
        raise KeyError
    assert table.entries() == []


@pytest.mark.parametrize(("user_id", "session_id"), [("", "1"), ("bob", ""), ("a\0", "1")])
def test_an_impossible_id_is_refused_and_makes_no_entry(table: SessionTable, user_id: str, session_id: str) -> None:
    with pytest.raises(InvalidInput), table.locked(user_id, session_id):
        raise AssertionError("unreachable")
    assert table.entries() == []


def test_one_thread_at_a_time_holds_an_entry_also_where_it_holds_it_twice(table: SessionTable) -> None:
    """A lookup that finds nothing asks inside of what asked it; that must not let another thread in beside it."""
    entered = threading.Event()
    made: list[SessionEntry] = []

    def make() -> None:
        with table.locked("bob", "1") as entry:
            entered.set()
            entry.session = a_session()
            made.append(entry)

    thread = threading.Thread(daemon=True, target=make)
    with table.locked("bob", "1"):
        with table.locked("bob", "1"):
            pass
        thread.start()
        early = entered.wait(0.1)
    thread.join()
    assert not early
    assert table.entries() == made


def test_a_thread_that_waited_for_a_dropped_entry_gets_one_that_counts(table: SessionTable) -> None:
    holding = threading.Event()

    def make() -> None:
        holding.wait(5)
        with table.locked("bob", "1") as entry:
            entry.session = a_session()

    thread = threading.Thread(daemon=True, target=make)
    thread.start()
    with table.locked("bob", "1"):
        holding.set()
    thread.join()
    assert [entry.session is not None for entry in table.entries()] == [True]


def test_an_entry_that_another_thread_holds_is_waited_for_until_the_callers_deadline(table: SessionTable) -> None:
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with table.locked("bob", "1"):
            entered.set()
            leave.wait(5)

    thread = threading.Thread(daemon=True, target=hold)
    thread.start()
    entered.wait(5)
    late = pytest.raises(SessionBusy, match="another thread")
    with within(1), late, table.locked("bob", "1", deadline=Deadline.after(0.05)):
        raise AssertionError("unreachable")
    with within(0.1), table.locked("bob", "2"):
        pass
    leave.set()
    thread.join()


def test_an_entry_is_in_use_inside_the_block_and_idle_only_from_its_end_on(manager: SimpleContainerManager) -> None:
    entry = SessionEntry(manager, "bob", "1")
    entry.session = a_session()
    with entry.in_use():
        with entry.in_use():
            assert entry.is_busy()
        assert entry.is_busy()
        entry.session.last_active_at = entry.session.last_active_at.replace(year=2020)
    assert not entry.is_busy()
    assert entry.session.idle_seconds < 5
