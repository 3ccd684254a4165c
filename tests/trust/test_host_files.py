"""Whatever a container puts or swaps where the host reads and writes, nothing of the host is reached."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from podkit import SessionProxy
from podkit.errors import FileError, InvalidInput, PodkitError
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine, container_of

pytestmark = pytest.mark.integration

SECRET = "secret of the host"


@pytest.fixture
def outside(workspace: Path) -> Path:
    """A directory of the host with a file in it, beside all workspaces."""
    outside = workspace / "outside"
    outside.mkdir()
    (outside / "f").write_text(SECRET)
    return outside


@pytest.fixture
def session(open_session: OpenSession) -> SessionProxy:
    return open_session()


def is_unchanged(outside: Path) -> bool:
    return os.listdir(outside) == ["f"] and (outside / "f").read_text() == SECRET


# --- links -------------------------------------------------------------------------------------------


def test_no_operation_follows_a_link_to_the_host(session: SessionProxy, outside: Path, tmp_path: Path) -> None:
    """FS-02, FS-03, FS-04: by an absolute link, by one that climbs, and by a chain of links."""
    session.execute_command(
        f"ln -s {outside} d; ln -s ../../../outside up; ln -s chain-1 chain; ln -s d chain-1"
    ).check()
    (tmp_path / "local").write_text("attack")
    files = session.files
    for top in ("d", "up", "chain"):
        for act in (
            lambda top=top: files.read_text(f"{top}/f"),
            lambda top=top: files.list(top),
            lambda top=top: files.stat(f"{top}/f"),
            lambda top=top: files.remove(f"{top}/f"),
            lambda top=top: files.rename(f"{top}/f", f"{top}/g"),
            lambda top=top: files.download(top, tmp_path / "copy"),
        ):
            with pytest.raises(FileError):
                act()
        for act in (
            lambda top=top: files.write_text(f"{top}/new", "attack"),
            lambda top=top: files.mkdir(f"{top}/new-directory", parents=True),
            lambda top=top: files.upload(tmp_path / "local", f"{top}/uploaded"),
        ):
            with suppress(FileError):
                act()
    assert is_unchanged(outside)
    assert not (tmp_path / "copy").exists()


SWAP = "while :; do mv -T d e; mv -T link d; mv -T d link; mv -T e d; done"


def test_the_end_of_a_session_under_attack_leaves_the_host_alone(
    open_session: OpenSession, outside: Path, workspace: Path
) -> None:
    """FS-06: the workspace is removed while the container still swaps a directory and a link."""
    for number in range(3):
        session = open_session(session_id=str(number))
        directory = session.get_info().data_dir
        assert directory is not None
        session.execute_command(f"mkdir d; touch d/f; ln -s {outside} link; ln -s ../../../outside up").check()
        attack = session.popen(SWAP)

        session.close(remove_workspace=True)

        assert not directory.exists()
        assert is_unchanged(outside)
        with suppress(PodkitError):
            attack.kill()
    assert os.listdir(workspace) == ["outside"]


# --- the engine's own ways to the host -----------------------------------------------------------------

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
    session = open_session(long_config(user="1000:1000"))
    id = container_of(session)
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
            session.execute_command(["ln", "-sfn", directory, "d"]).check()
            directory = "/workspace/d"
        assert where_it_runs(session, working_dir=directory) in ("inside", "refused")


def test_a_directory_that_is_swapped_for_a_link_to_a_descriptor_is_never_one_of_the_hosts(
    session: SessionProxy,
) -> None:
    """FS-18: the same, while the container exchanges the two."""
    session.execute_command("mkdir d; ln -s /proc/self/fd/7 link").check()
    with session.popen(SWAP):
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
