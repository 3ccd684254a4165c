"""B3: whatever a container puts or swaps where the host reads and writes, nothing of the host is reached.

`python -m tests.trust.races` races a million operations.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from podkit import SessionProxy
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput, PathEscape, PodkitError
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine
from tests.support.run import LENGTH
from tests.trust.races import Outside, Races

pytestmark = pytest.mark.integration

OPERATIONS = 10_000 * LENGTH


@pytest.fixture
def outside(workspace: Path) -> Outside:
    """A directory of the host, beside all workspaces."""
    return Outside(workspace / "outside")


@pytest.fixture
def session(open_session: OpenSession) -> SessionProxy:
    return open_session(long_config(cpu_limit=2.0))


def link(session: SessionProxy, target: Path | str, name: str) -> None:
    """Make a symlink from inside, as an attacker does."""
    session.execute_command(["ln", "-sfn", str(target), name]).check()


def refused(session: SessionProxy, path: str) -> float:
    """Have a path refused to the reader and to the writer; the seconds that the slower of them took."""
    took = []
    for act in (session.read_file, lambda path: session.write_file(path, "attack")):
        began = time.monotonic()
        with pytest.raises(PathEscape):
            act(path)
        took.append(time.monotonic() - began)
    return max(took)


# --- links that stand still -------------------------------------------------------------------------------


def test_a_file_that_is_a_link_to_the_host_is_neither_read_nor_written(session: SessionProxy, outside: Outside) -> None:
    """FS-02: by an absolute link, and by one that climbs."""
    for target in (outside.directory / "f", "../../../outside/f"):
        link(session, target, "f")
        refused(session, "f")
    assert not outside.changed()


def test_a_dangling_link_to_the_host_creates_nothing_there(session: SessionProxy, outside: Outside) -> None:
    """FS-03."""
    for target in (outside.directory / "new", "../../../outside/new", "../../../new/f"):
        link(session, target, "f")
        refused(session, "f")
    assert not outside.changed()
    assert not (outside.directory.parent / "new").exists()


def test_a_link_in_the_path_and_a_chain_of_links_are_refused_in_every_operation(
    session: SessionProxy, outside: Outside, tmp_path: Path
) -> None:
    """FS-04: `session.files` follows them inside, where they lead to nothing of the host."""
    link(session, outside.directory, "d")
    for name, target in (("chain", "chain-1"), ("chain-1", "chain-2"), ("chain-2", "../../../outside")):
        link(session, target, name)
    (tmp_path / "local").write_text("attack")
    files = session.files
    for top in ("d", "chain"):
        for path in (f"{top}/f", f"{top}/new", f"{top}/new/f"):
            refused(session, path)
        for act in (
            lambda top=top: files.read_text(f"{top}/f"),
            lambda top=top: files.list(top),
            lambda top=top: files.stat(f"{top}/f"),
            lambda top=top: files.remove(f"{top}/f"),
            lambda top=top: files.rename(f"{top}/f", f"{top}/g"),
            lambda top=top: files.download(top, tmp_path / "copy"),
            lambda top=top: files.write_text(f"{top}/new", "attack"),
            lambda top=top: files.mkdir(f"{top}/new", parents=True),
            lambda top=top: files.upload(tmp_path / "local", f"{top}/new"),
        ):
            with pytest.raises(PodkitError):
                act()
    assert not outside.changed()


def test_a_loop_of_links_is_refused_at_once(session: SessionProxy) -> None:
    """FS-04: the fastest of five counts, since the machine may be busy."""
    link(session, "b", "a")
    link(session, "a", "b")
    for path in ("a", "a/f"):
        assert min(refused(session, path) for _ in range(5)) < 0.1


def test_the_end_of_a_session_removes_its_links_and_not_what_they_name(
    session: SessionProxy, outside: Outside, workspace: Path
) -> None:
    """FS-06: also where the workspace goes with it."""
    for name, target in (("f", outside.directory / "f"), ("d", outside.directory), ("up", "../../../outside")):
        link(session, target, name)

    session.close(remove_workspace=True)

    assert os.listdir(workspace) == ["outside"]
    assert not outside.changed()


# --- links that are swapped -------------------------------------------------------------------------------


@pytest.mark.timeout(300 * LENGTH)
def test_raced_operations_never_leave_the_workspace_and_the_control_does(
    session: SessionProxy, sessions: BaseSessionManager, outside: Outside
) -> None:
    """FS-05, FS-06, FS-08: reads, writes that keep the owner, new directories, removals, and the end of the session."""
    workspace = session.get_info().data_dir
    assert workspace is not None
    races = Races(session, workspace, outside)

    with races.swapping():
        races.run(OPERATIONS)
    escapes = {kind: row.escapes for kind, row in races.rows.items()}
    control = {kind: row.control_escapes for kind, row in races.rows.items()}
    session.close(remove_workspace=True)

    assert set(escapes.values()) == {0}, escapes
    assert not outside.changed()
    assert all(row.ended for row in races.rows.values())
    assert control["read, a link in the path"] + control["read, the file a link"] > 0
    assert control["write, a link in the path"] + control["write, the file a link"] > 0


def test_the_end_of_a_session_under_attack_leaves_the_host_alone(
    open_session: OpenSession, outside: Outside, workspace: Path
) -> None:
    """FS-06: the workspace is removed while the container still swaps."""
    for number in range(3):
        session = open_session(session_id=str(number))
        data_dir = session.get_info().data_dir
        assert data_dir is not None
        races = Races(session, data_dir, outside)
        attack = races.swapping()
        attack.__enter__()  # its end would be that of the commands, which end with their container here

        session.close(remove_workspace=True)

        assert not data_dir.exists()
        assert not outside.changed()
    assert os.listdir(workspace) == ["outside"]


# --- the engine's own ways to the host ----------------------------------------------------------------------

ARCHIVES = {"archive-path", "extract-to-dir", "copy", "export"}


def events(engine: Engine, id: str, since: float) -> list[str]:
    """What the engine has noted of a container, in order."""
    seen = engine.client.api.events(
        since=int(since), until=int(time.time()) + 1, filters={"container": id, "type": "container"}, decode=True
    )
    return [event["Action"] for event in seen]


def test_no_archive_is_asked_of_a_container_that_has_run(
    open_session: OpenSession, engine: Engine, tmp_path: Path
) -> None:
    """FS-15: the engine notes whoever asks it for one, and the control is seen."""
    began = time.time() - 1
    session = open_session(long_config(user="1000:1000"))  # whose workspace podkit opens, before it runs
    id = session.get_info().container_id
    assert id is not None
    for path in ("f", "/tmp/f"):
        session.write_file(path, "text")
        assert session.read_file(path) == session.files.read_text(path) == "text"
    (tmp_path / "up").mkdir()
    session.files.upload(tmp_path / "up", "up")
    session.files.download("/tmp/f", tmp_path / "down")
    engine.stop(id)
    session.write_file("/tmp/f", "again")

    seen = events(engine, id, began)
    assert "start" in seen
    assert not ARCHIVES & set(seen[seen.index("start") :])

    container = engine.client.containers.get(id)
    container.get_archive("/etc/passwd")
    container.put_archive("/tmp", b"\0" * 1024)
    assert {"archive-path", "extract-to-dir"} <= set(events(engine, id, began))


WHERE = """
import os
here, root = os.stat("/".join([".."] * 30)), os.stat("/")
print("inside" if (here.st_dev, here.st_ino) == (root.st_dev, root.st_ino) else "OUTSIDE", os.listdir("."))
"""


def where_it_runs(session: SessionProxy, **options: Any) -> str:
    """Where a command runs: the root of its directory is that of the container, or it is refused."""
    try:
        result = session.execute_command(["python3", "-c", WHERE], **options)
    except (InvalidInput, PodkitError):
        return "refused"
    return result.stdout.split()[0] if result.ok else "refused"


def test_control_a_directory_outside_of_the_root_is_seen_to_be_so(engine: Engine) -> None:
    """FS-18: engines of today do not fail there; this makes the look itself fail, by a root that leaves it behind."""
    assert engine.run(["python3", "-c", f"import os; os.mkdir('/jail'); os.chroot('/jail'){WHERE}"]).startswith("OUT")


@pytest.mark.parametrize("by", ["its name", "a link"])
def test_a_working_directory_is_never_one_of_the_hosts_descriptors(session: SessionProxy, by: str) -> None:
    """FS-18: an engine's exec has kept descriptors of the host open (CVE-2024-21626)."""
    assert where_it_runs(session) == "inside"
    for number in range(40):
        directory = f"/proc/self/fd/{number}"
        if by == "a link":
            link(session, directory, "d")
            directory = "/workspace/d"
        assert where_it_runs(session, working_dir=directory) in ("inside", "refused")


def test_a_directory_that_is_swapped_for_a_link_to_a_descriptor_is_never_one_of_the_hosts(
    session: SessionProxy,
) -> None:
    """FS-18: the same, while the container exchanges the two."""
    session.execute_command("mkdir d; ln -s /proc/self/fd/7 d-link").check()
    swap = "while :; do mv -T d e; mv -T d-link d; mv -T d d-link; mv -T e d; done"
    with session.popen(swap):
        seen = {where_it_runs(session, working_dir="/workspace/d") for _ in range(60)}
    assert "inside" in seen
    assert seen <= {"inside", "refused"}


@pytest.mark.parametrize("number", [3, 7, 8, 9])
def test_a_container_that_is_to_start_in_a_descriptor_of_the_hosts_does_not(
    open_session: OpenSession, number: int
) -> None:
    """FS-18: the engine starts this one."""
    try:
        session = open_session(long_config(working_dir=f"/proc/self/fd/{number}"))
    except PodkitError:
        return
    assert where_it_runs(session) in ("inside", "refused")
