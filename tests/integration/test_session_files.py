"""`session.files` on an engine: in images with much and with nothing in them, by root and by others, on full disks."""

from __future__ import annotations

import errno
import os
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from podkit import SessionProxy
from podkit.core.models import Mount
from podkit.core.session import BaseSessionManager
from podkit.errors import (
    ContainerNotRunning,
    FileDenied,
    FileError,
    FileMissing,
    FileTimeout,
    FileTooLarge,
    InvalidInput,
    IsADirectory,
    NoSpace,
    NotADirectory,
    NotAFile,
    NotSupported,
    NotText,
    PathEscape,
    SessionNotFound,
    TooManyFiles,
)
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine
from tests.support.processes import ask_python, start_python
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration

MIB = 1 << 20


@pytest.fixture(params=["debian", "busybox", "static"])
def session(
    request: pytest.FixtureRequest, open_session: OpenSession, default_image: str, busybox_image: str
) -> SessionProxy:
    """A session of an image with much in it, with a busybox, and with one program and nothing else."""
    images = {"debian": default_image, "busybox": busybox_image}
    image = images.get(request.param) or request.getfixturevalue("static_image")
    return open_session(long_config(image=image))


def inside(session: SessionProxy, script: str) -> str:
    return session.execute_command(script).check().stdout


# --- whatever is in the image ----------------------------------------------------------------------------


def test_every_verb_works_whatever_the_image_holds(session: SessionProxy, tmp_path: Path) -> None:
    files = session.files
    assert files.write_text("a/b.txt", "text ü") == Path("/workspace/a/b.txt")
    assert files.read_text("/workspace/a/b.txt") == "text ü"
    assert files.write_bytes("/new/place/data", b"\x00\xff") == Path("/new/place/data")
    assert files.read_bytes("/new/place/data") == b"\x00\xff"
    assert files.mkdir("d/e", parents=True) == Path("/workspace/d/e")
    assert [(one.name, one.type) for one in files.list()] == [("a", "directory"), ("d", "directory")]
    assert files.rename("a/b.txt", "d/e/c.txt") == Path("/workspace/d/e/c.txt")
    assert (files.exists("a/b.txt"), files.exists("d/e/c.txt"), files.exists("d/e/c.txt/x")) == (False, True, False)
    found = files.stat("d/e/c.txt")
    assert (found.path, found.type, found.size, found.mode) == (Path("/workspace/d/e/c.txt"), "file", 7, 0o644)
    assert (found.uid, found.gid, found.target) == (0, 0, None)
    assert abs(found.modified_at - datetime.now(UTC)) < timedelta(minutes=5)

    done = files.download("d", tmp_path / "d")
    assert (done.path, done.files, done.size, done.skipped) == (tmp_path / "d", 1, 7, ())
    assert (tmp_path / "d/e/c.txt").read_text() == "text ü"
    assert files.upload(tmp_path / "d", "again") == Path("/workspace/again")
    assert files.upload(tmp_path / "d/e/c.txt", "one.txt") == Path("/workspace/one.txt")
    assert files.read_text("again/e/c.txt") == files.read_text("one.txt") == "text ü"
    assert files.download("one.txt", tmp_path / "one.txt").files == 1

    with pytest.raises(FileError, match="recursive=True"):
        files.remove("again")
    files.remove("again", recursive=True)
    files.remove("one.txt")
    with pytest.raises(FileMissing):
        files.remove("one.txt")
    files.remove("one.txt", missing_ok=True)
    assert [one.name for one in files.list()] == ["a", "d"]


def test_each_error_names_the_path_and_the_session_goes_on(session: SessionProxy, tmp_path: Path) -> None:
    files = session.files
    files.write_bytes("f", b"x" * 100)
    for error, act in (
        (FileMissing, lambda: files.read_bytes("no")),
        (FileTooLarge, lambda: files.read_bytes("f", max_bytes=99)),
        (IsADirectory, lambda: files.read_bytes("/workspace")),
        (NotAFile, lambda: files.read_bytes("/dev/zero")),
        (IsADirectory, lambda: files.write_bytes("/workspace", b"")),
        (NotAFile, lambda: files.write_bytes("/dev/null", b"")),
        (NotAFile, lambda: files.download("/dev/zero", tmp_path / "zero")),
        (NotADirectory, lambda: files.list("f")),
        (NotADirectory, lambda: files.write_bytes("f/x", b"")),
        (TooManyFiles, lambda: files.list("/dev", max_entries=2)),
        (TooManyFiles, lambda: files.download("/dev", tmp_path / "dev", max_files=2)),
        (FileDenied, lambda: files.write_bytes("/proc/new", b"")),
        (FileDenied, lambda: files.write_bytes("/run/podkit/agent", b"")),
    ):
        with within(10), pytest.raises(error, match=r"(?s)'/.*'") as caught:
            act()
        assert type(caught.value) is error, caught.value
    assert files.read_bytes("f") == b"x" * 100


def test_a_path_that_ends_in_a_slash_is_not_written_as_a_file(shell: SessionProxy, tmp_path: Path) -> None:
    (tmp_path / "f").touch()
    for act in (
        lambda: shell.files.write_text("slash/", "text"),
        lambda: shell.files.write_bytes("/root/slash/", b"text"),
        lambda: shell.files.upload(tmp_path / "f", "slash/"),
        lambda: shell.write_file("slash/", "text"),
    ):
        with pytest.raises(IsADirectory):
            act()
    shell.files.write_text("no-slash", "text")
    with pytest.raises(IsADirectory):
        shell.files.download("no-slash", f"{tmp_path}/new/")
    with pytest.raises(NotADirectory):
        shell.files.upload(f"{tmp_path}/f/", "slash")
    with pytest.raises(InvalidInput, match="progress=5"):
        shell.files.download("no-slash", tmp_path / "new", progress=5)  # type: ignore[arg-type]
    assert os.listdir(tmp_path) == ["f"]
    assert not shell.files.exists("slash")
    assert not shell.files.exists("/root/slash")


def test_a_directory_may_be_named_with_a_slash(shell: SessionProxy, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/f").touch()
    shell.files.upload(tmp_path / "tree", "tree-with-slash/")
    assert [one.name for one in shell.files.list("tree-with-slash/")] == ["f"]


@pytest.mark.parametrize("name", ["no", "file/x", "loop", "loop/x", "dangling", "x" * 256])
def test_what_no_name_can_mean_does_not_exist(shell: SessionProxy, name: str) -> None:
    shell.files.write_text("odd/file", "")
    inside(shell, "cd odd; ln -sf loop loop; ln -sf nowhere dangling")
    assert not shell.files.exists(f"odd/{name}")


def test_a_link_that_leads_nowhere_exists_itself(shell: SessionProxy) -> None:
    shell.files.mkdir("links", exist_ok=True)
    inside(shell, "cd links; ln -sf loop loop; ln -sf nowhere dangling")
    assert all(shell.files.exists(f"links/{name}", follow_symlinks=False) for name in ("loop", "dangling"))


def test_what_the_user_may_not_look_at_is_not_said_to_be_missing(open_session: OpenSession) -> None:
    session = open_session(long_config(user="1234"))
    with pytest.raises(FileDenied):
        session.files.exists("/root/.bashrc")


# --- rights and places -----------------------------------------------------------------------------------


def test_files_belong_to_the_sessions_user_who_may_not_do_everything(open_session: OpenSession) -> None:
    session = open_session(long_config(user="1234:4321"))
    session.files.write_text("f", "text")
    found = session.files.stat("f")
    assert (found.uid, found.gid) == (1234, 4321)
    with pytest.raises(FileDenied, match="/etc/new") as caught:
        session.files.write_text("/etc/new", "text")
    assert isinstance(caught.value, PermissionError)
    with pytest.raises(FileDenied):
        session.files.read_text("/etc/shadow")
    assert session.files.read_text("f") == "text"


def test_another_user_may_do_it_and_then_owns_it(shell: SessionProxy, tmp_path: Path) -> None:
    files = shell.files
    files.write_text("theirs/f", "text", mode=0o640, user="nobody")
    assert inside(shell, "stat -c '%a %U' theirs theirs/f") == "755 nobody\n640 nobody\n"
    files.write_text("theirs/f", "new")  # root may, and leaves it nobody's
    assert inside(shell, "stat -c '%a %U' theirs/f; cat theirs/f") == "640 nobody\nnew"
    files.write_text("roots", "text", mode=0o600)
    (tmp_path / "up").mkdir()
    files.upload(tmp_path / "up", "theirs/up", user="nobody")
    assert files.stat("theirs/up").uid == files.stat("theirs/f").uid == 65534
    for act in (
        lambda: files.read_text("roots", user="nobody"),
        lambda: files.write_text("roots", "", user="nobody"),
        lambda: files.list("/root", user="nobody"),
        lambda: files.stat("/root/.bashrc", user="nobody"),
        lambda: files.mkdir("/root/d", user="nobody"),
        lambda: files.remove("/etc/passwd", user="nobody"),
        lambda: files.rename("/etc/passwd", "/etc/p", user="nobody"),
        lambda: files.download("roots", tmp_path / "roots", user="nobody"),
        lambda: files.upload(__file__, "/root/f", user="nobody"),
    ):
        with pytest.raises(FileDenied):
            act()
    with pytest.raises(InvalidInput, match="no-such-user"):
        files.read_text("roots", user="no-such-user")


def test_a_mode_that_only_the_owner_may_set_is_refused_before_anything_is_lost(
    shell: SessionProxy, tmp_path: Path
) -> None:
    files = shell.files
    files.write_text("f", "old", mode=0o666)
    (tmp_path / "f").write_text("new")
    for act in (
        lambda: files.write_text("f", "new", mode=0o600, user="nobody"),
        lambda: files.upload(tmp_path / "f", "f", user="nobody"),
    ):
        with pytest.raises(FileDenied, match="mode"):
            act()
        assert inside(shell, "stat -c '%a %U' f; cat f") == "666 root\nold"
    files.write_text("f", "new", mode=0o666, user="nobody")
    assert inside(shell, "stat -c '%a %U' f; cat f") == "666 root\nnew"


def test_links_are_followed_as_inside_and_never_to_the_host(open_session: OpenSession, tmp_path: Path) -> None:
    session, victim = open_session(), tmp_path / "victim"
    victim.write_text("secret of the host")
    inside(session, f"ln -s {victim} out; ln -s /etc/hostname in; ln -s /proc/self/root/etc/hostname magic")
    assert session.files.stat("out", follow_symlinks=False).target == str(victim)
    with pytest.raises(FileMissing):
        session.files.read_bytes("out")
    assert session.files.read_text("in") == session.files.read_text("magic") == inside(session, "cat /etc/hostname")
    session.files.write_text("out", "made inside")
    assert victim.read_text() == "secret of the host"
    assert inside(session, f"cat {victim}") == "made inside"


def test_a_full_disk_is_said_and_leaves_the_old_file(open_session: OpenSession, engine: Engine, tmp_path: Path) -> None:
    volume = engine.client.volumes.create(
        engine.new_name("small"), driver="local", driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}
    )
    engine.will_remove_volume(str(volume.name))
    session = open_session(long_config(volumes=[Mount(source=str(volume.name), target="/small", type="volume")]))
    session.files.write_text("/small/f", "old")
    (tmp_path / "large").write_bytes(bytes(4 * MIB))

    with within(10), pytest.raises(NoSpace, match="/small/f"):
        session.files.write_bytes("/small/f", bytes(4 * MIB))
    with within(10), pytest.raises(NoSpace, match="/small/g"):
        session.files.upload(tmp_path / "large", "/small/g")

    assert session.files.read_text("/small/f") == "old"
    assert [one.name for one in session.files.list("/small")] == ["f"]


def test_a_renaming_to_another_file_system_names_both_and_what_else_there_is(open_session: OpenSession) -> None:
    session = open_session(long_config(volumes=[Mount(target="/ram", type="tmpfs")]))
    session.files.write_text("f", "text")
    with pytest.raises(FileError, match=r"'/workspace/f' to '/ram/f' .*'mv'") as caught:
        session.files.rename("f", "/ram/f")
    error = caught.value
    assert (error.errno, error.filename, error.filename2) == (errno.EXDEV, "/workspace/f", "/ram/f")


def test_a_read_only_mount_is_said(open_session: OpenSession, engine: Engine) -> None:
    mount = Mount(source=engine.volume(), target="/frozen", type="volume", read_only=True)
    session = open_session(long_config(volumes=[mount]))
    for act in (
        lambda: session.files.write_text("/frozen/f", "text"),
        lambda: session.files.mkdir("/frozen/d"),
        lambda: session.files.upload(__file__, "/frozen/f"),
    ):
        with pytest.raises(FileDenied, match="read-only"):
            act()


def test_what_cannot_be_right_is_refused_before_anything_is_asked(shell: SessionProxy, tmp_path: Path) -> None:
    files = shell.files
    for act in (
        lambda: files.read_bytes("../x"),
        lambda: files.read_bytes("f", max_bytes=-1),
        lambda: files.write_text("f", b"bytes"),  # type: ignore[arg-type]
        lambda: files.write_bytes("f", "text"),  # type: ignore[arg-type]
        lambda: files.write_text("f", "", mode=0o10000),
        lambda: files.write_text("f", "", user=""),
        lambda: files.list(max_entries=0),
        lambda: files.mkdir("f", mode=-1),
        lambda: files.rename("f", "/a/../b"),
        lambda: files.upload("", "f"),
        lambda: files.download("f", tmp_path / "f", max_files=0),
        lambda: files.download("f", tmp_path / "f", timeout=0),
    ):
        with pytest.raises(InvalidInput):
            act()


def test_bytes_that_are_not_text_are_an_error_that_names_the_way(shell: SessionProxy) -> None:
    shell.files.write_bytes("latin", "é".encode("latin-1"))
    with pytest.raises(NotText, match="read_bytes"):
        shell.files.read_text("latin")


def test_a_name_that_is_not_utf8_is_as_good_as_any(shell: SessionProxy, tmp_path: Path) -> None:
    inside(shell, "mkdir raw; printf text > \"raw/$(printf '\\377')\"")
    [found] = shell.files.list("raw")
    assert shell.files.read_text(found.path) == "text"
    shell.files.rename(found.path, "raw/plain")
    with pytest.raises(FileMissing) as caught:
        shell.files.remove(found.path)
    assert str(caught.value).encode()
    assert [one.name for one in shell.files.list("raw")] == ["plain"]


def test_a_time_that_no_calendar_holds_is_the_end_of_the_calendar(shell: SessionProxy) -> None:
    shell.files.write_text("old", "")
    inside(shell, "python3 -c 'import os; os.utime(\"old\", (0, -2**33))'")
    assert shell.files.stat("old").modified_at.year < 1970


# --- with the session's life -----------------------------------------------------------------------------


def test_a_stopped_container_is_started_a_paused_one_refused_and_a_closed_session_gone(
    open_session: OpenSession, engine: Engine
) -> None:
    session = open_session()
    id = session.get_info().container_id
    assert id is not None
    session.files.write_text("/root/f", "kept")
    engine.stop(id)
    assert session.files.read_text("/root/f") == "kept"
    engine.client.api.pause(id)
    threading.Event().wait(1.2)  # a channel that was silent for a second is asked for a sign of life
    try:
        with within(10), pytest.raises(ContainerNotRunning):
            session.files.read_text("/root/f")
    finally:
        engine.client.api.unpause(id)
    session.close()
    with pytest.raises(SessionNotFound):
        session.files.read_text("/root/f")


def test_without_the_agent_files_are_read_and_written_and_the_rest_says_why_not(
    open_session: OpenSession, engine_exec: BaseSessionManager, tmp_path: Path
) -> None:
    files = open_session(on=engine_exec).files
    files.write_text("a/f", "text")
    assert files.read_text("a/f") == "text"
    with pytest.raises(FileTooLarge):
        files.read_text("a/f", max_bytes=3)
    for act in (
        lambda: files.list(),
        lambda: files.stat("a"),
        lambda: files.mkdir("b"),
        lambda: files.remove("a/f"),
        lambda: files.rename("a", "b"),
        lambda: files.download("a", tmp_path / "a"),
        lambda: files.upload(__file__, "b"),
        lambda: files.write_text("a/f", "", mode=0o600),
    ):
        with pytest.raises(NotSupported, match="agent"):
            act()


def test_without_the_agent_too_a_directory_is_told_from_what_is_none(
    open_session: OpenSession, engine_exec: BaseSessionManager
) -> None:
    files = open_session(on=engine_exec).files
    files.write_text("/root/d/f", "text")
    for act in (lambda: files.read_bytes("/root/d"), lambda: files.write_bytes("/root/d", b"")):
        with pytest.raises(IsADirectory) as caught:
            act()
        assert (caught.value.errno, caught.value.filename) == (errno.EISDIR, "/root/d")
    with pytest.raises(NotADirectory):
        files.write_bytes("/root/d/f/x", b"")
    with pytest.raises(NotAFile):
        files.read_bytes("/dev/null")


KILLED = """
import sys
from podkit import get_docker_session

session = get_docker_session("bob", sys.argv[1])
print("ready", flush=True)
while True:
    session.files.write_bytes(sys.argv[2], sys.argv[3].encode() * 5_000_000)
"""


@pytest.mark.parametrize("place", ["/workspace/f", "/root/f"])
def test_a_client_that_is_killed_while_it_writes_leaves_a_whole_file_and_no_other(
    facade: Engine, place: str, default_image: str
) -> None:
    from podkit import get_docker_session

    id = f"killed-{place.replace('/', '-')}"
    session = get_docker_session("bob", id, long_config(image=default_image))
    for number in range(6):
        letter = "ab"[number % 2]
        writer = start_python(KILLED, id, place, letter)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        threading.Event().wait(0.1 + number * 0.037)
        writer.kill()
        writer.communicate()
        directory = str(Path(place).parent)
        assert eventually(
            lambda d=directory: not [one for one in session.files.list(d) if one.name.startswith(".podkit")]  # type: ignore[misc]
        )
        if session.files.exists(place):
            content = session.files.read_bytes(place)
            assert content in (b"a" * 5_000_000, b"b" * 5_000_000)
    session.close()


def test_a_reader_sees_whole_versions_of_two_writers(shell: SessionProxy) -> None:
    versions = {letter * 50_000 for letter in (b"a", b"b")}
    shell.files.write_bytes("raced", min(versions))
    seen = set()
    with ThreadPoolExecutor() as threads:
        writers = [
            threads.submit(lambda v=version: [shell.files.write_bytes("raced", v) for _ in range(200)])
            for version in versions
        ]
        while not all(writer.done() for writer in writers):
            seen.add(shell.files.read_bytes("raced"))
    for writer in writers:
        writer.result()
    assert seen <= versions
    assert not [one for one in shell.files.list() if one.name.startswith(".podkit")]


# --- trees, large ones, and hostile ones -----------------------------------------------------------------


def test_a_hostile_tree_leaves_nothing_outside_and_says_what_was_left_out(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session()
    victim, target = tmp_path / "victim", tmp_path / "down"
    victim.write_text("secret")
    inside(
        session,
        f"""mkdir -p t/sub && cd t && echo good > sub/good
        ln -s {victim} link; ln -s {tmp_path} directory; ln -s / root; ln -s ../../../../.. up
        mkfifo fifo; printf x > 'a\\b'; printf x > "$(printf 'new\\nline')"; printf x > -rf
        printf x > "$(printf '\\377raw')" """,
    )
    with within(20):
        done = session.files.download("t", target)

    assert sorted(done.skipped) == ["directory", "fifo", "link", "root", "up"]
    names = sorted(os.fsencode(path.relative_to(target)) for path in target.rglob("*"))
    assert names == sorted([b"sub", b"sub/good", b"a\\b", b"new\nline", b"-rf", b"\xffraw"])
    assert victim.read_text() == "secret"
    assert sorted(os.listdir(tmp_path)) == ["down", "victim"]


def test_a_link_that_stands_in_the_target_is_not_followed(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session()
    (tmp_path / "outside").mkdir()
    (tmp_path / "down").mkdir()
    (tmp_path / "down/sub").symlink_to("../outside")
    session.files.write_text("t/sub/f", "attack")
    with pytest.raises(PathEscape):
        session.files.download("t", tmp_path / "down")
    assert os.listdir(tmp_path / "outside") == []


@pytest.mark.parametrize("names", ["outside", "nowhere"])
def test_a_link_that_is_the_target_itself_is_not_followed(shell: SessionProxy, tmp_path: Path, names: str) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "down").symlink_to(names)
    shell.files.write_text("tree/f", "attack")
    for path in ("tree", "tree/f"):
        with pytest.raises(PathEscape, match=r"/down': .*symlink.*; remove it"):
            shell.files.download(path, tmp_path / "down")
    assert sorted(os.listdir(tmp_path)) == ["down", "outside"]
    assert os.listdir(tmp_path / "outside") == []


def test_a_giant_is_not_downloaded(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session()
    inside(session, "mkdir t; truncate -s 4T t/giant")
    with within(10), pytest.raises(FileTooLarge, match="giant"):
        session.files.download("t", tmp_path / "t")


def test_a_tree_that_changes_while_it_is_downloaded_makes_a_tree_or_a_typed_error(
    open_session: OpenSession, tmp_path: Path
) -> None:
    session = open_session()
    with session.popen(
        "mkdir -p t/sub real; echo text > t/sub/f; echo text > real/f; "
        "while :; do mv t/sub t/kept; ln -s /etc t/sub; rm t/sub; mv t/kept t/sub; done"
    ):
        assert eventually(lambda: session.files.exists("t/sub/f"))
        for number in range(50):
            target = tmp_path / str(number)
            try:
                session.files.download("t", target)
            except FileError:
                continue
            assert {path.name for path in target.rglob("*")} <= {"sub", "kept", "f"}


def test_progress_is_told_and_may_end_a_transfer(open_session: OpenSession, tmp_path: Path) -> None:
    session, told = open_session(), []
    for name in "ab":
        (tmp_path / "up" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "up" / name).write_bytes(bytes(3 * MIB))

    session.files.upload(tmp_path / "up", "t", progress=lambda files, size: told.append((files, size)))
    assert (told[-1], told) == ((2, 6 * MIB), sorted(told))
    told.clear()
    session.files.download("t", tmp_path / "down", progress=lambda files, size: told.append((files, size)))
    assert (told[-1], told) == ((2, 6 * MIB), sorted(told))

    def stop(files: int, size: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.files.upload(tmp_path / "up", "stopped", progress=stop)
    with pytest.raises(KeyboardInterrupt):
        session.files.download("t", tmp_path / "stopped", progress=stop)
    assert os.listdir(tmp_path / "stopped") == []
    assert [one.name for one in session.files.list("stopped")] == []
    assert session.execute_command("echo on").stdout == "on\n"


def test_a_download_that_is_over_its_time_ends(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session()
    inside(session, "truncate -s 900M large")
    with within(10), pytest.raises(FileTimeout, match=r"timeout=0\.01 s: pass a larger one"):
        session.files.download("large", tmp_path / "large", timeout=0.01)
    assert os.listdir(tmp_path) == []
    assert session.execute_command("echo on").stdout == "on\n"


def test_a_thousand_files_go_there_and_come_back(open_session: OpenSession, tmp_path: Path) -> None:
    session = open_session()
    for number in range(1000):
        file = tmp_path / "up" / str(number % 20) / str(number)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(str(number))
    session.files.upload(tmp_path / "up", "t")
    assert inside(session, "find t -type f | wc -l; cat t/19/999") == "1000\n999"
    assert session.files.download("t", tmp_path / "down").files == 1000
    subprocess.run(["diff", "-r", str(tmp_path / "up"), str(tmp_path / "down")], check=True)


GROWTH = """
import json, os, re, sys
from pathlib import Path
from podkit import get_docker_session

def peak_kib():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

session, here = get_docker_session("bob", sys.argv[1]), Path(sys.argv[2])
session.files.write_bytes("small", bytes(1 << 20))
session.files.download("small", here / "small")
session.files.upload(here / "small", "small")
before = peak_kib()
session.files.upload(here / "large", "large")
session.files.download("large", here / "back")
print(json.dumps(peak_kib() - before))
"""


def test_a_hundred_megabytes_go_there_and_back_in_little_memory(
    facade: Engine, tmp_path: Path, default_image: str
) -> None:
    from podkit import get_docker_session

    (tmp_path / "large").write_bytes(os.urandom(MIB) * 100)
    with get_docker_session("bob", "growth", long_config(image=default_image)):
        grown = ask_python(GROWTH, "growth", str(tmp_path))
    subprocess.run(["cmp", str(tmp_path / "large"), str(tmp_path / "back")], check=True)
    assert grown * 1024 < 32 * MIB
