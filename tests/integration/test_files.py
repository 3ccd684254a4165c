"""Files of a session: with a workspace on the host, without one, and in a volume."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

import pytest

from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import Mount
from podkit.core.session import BaseSessionManager
from podkit.errors import (
    FileDenied,
    FileMissing,
    FileTooLarge,
    IsADirectory,
    NotADirectory,
    NotAFile,
    NotText,
    PathEscape,
)
from tests.integration.conftest import long_config
from tests.support.engine import Engine, remove_directory
from tests.support.run import new_prefix, workspaces, workspaces_host
from tests.support.waiting import within

pytestmark = pytest.mark.integration

MIB = 1 << 20


@pytest.fixture(scope="module", params=["host", "container", "volume", "busybox"])
def session(
    request: pytest.FixtureRequest, backend: DockerBackend, default_image: str, busybox_image: str
) -> Iterator[SessionProxy]:
    """A session whose `/workspace` is a directory of the host, of the container, or of a named volume."""
    engine = Engine(backend.client, new_prefix(), default_image)
    directory, host = workspaces() / engine.prefix, workspaces_host() / engine.prefix
    directory.mkdir()
    if request.param == "host":
        manager = SimpleContainerManager(backend, engine.prefix, directory, host)
    elif request.param == "volume":
        manager = SimpleContainerManager(backend, engine.prefix, None, volume_name=engine.volume())
    else:
        manager = SimpleContainerManager(backend, engine.prefix, None)
    sessions = BaseSessionManager(manager)
    image = busybox_image if request.param == "busybox" else default_image
    volume = engine.volume()
    mounts = [Mount(source=volume, target=target, type="volume") for target in ("/workspace/shared", "/shared-too")]
    mounts.append(Mount(source=engine.volume(), target="/frozen", type="volume", read_only=True))
    sessions.create_session("bob", "files", long_config(image=image, volumes=mounts))
    yield SessionProxy(sessions, "bob", "files")
    remove_directory(engine, directory)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A name that no other test of the session uses."""
    return f"{request.node.name.split('[')[0]}.d"


def inside(session: SessionProxy, command: str, *arguments: str) -> str:
    """What a command in the container prints; it must succeed."""
    return session.execute_command(["sh", "-c", command, "sh", *arguments]).check().stdout


@pytest.mark.parametrize("path", ["plain.txt", "a/b/c.txt", "/workspace/absolute.txt", "./x/../y.txt", "ü €/📦 \n '\""])
def test_what_is_written_is_read_inside_and_outside(session: SessionProxy, name: str, path: str) -> None:
    path = path if path.startswith("/") else f"{name}/{path}"

    where = session.write_file(path, "text ü\n")

    assert where == Path(f"/workspace/{name}/y.txt" if "x/.." in path else Path("/workspace", path))
    assert inside(session, 'cat "$1"', str(where)) == "text ü\n"
    assert session.read_file(path) == "text ü\n"
    assert session.read_file(where) == "text ü\n"


@pytest.mark.parametrize("where", ["/tmp/deep/file", "/root/file", "/new-directory/file", "/top-level-file"])
def test_a_file_outside_of_the_workspace_is_written_and_read(session: SessionProxy, where: str) -> None:
    assert session.write_file(where, "outside") == Path(where)

    assert inside(session, 'cat "$1"', where) == "outside"
    assert session.read_file(PurePosixPath(where)) == "outside"


def test_what_is_made_inside_is_read_outside(session: SessionProxy, name: str) -> None:
    inside(session, 'mkdir "$1" && echo made inside > "$1/file"', name)

    assert session.read_file(f"{name}/file") == "made inside\n"


def test_bytes_are_written_and_read_as_they_are(session: SessionProxy, name: str) -> None:
    data = bytes(range(256)) * 10

    session.write_file(name, data)

    assert session.files.read_bytes(name) == data
    assert inside(session, 'wc -c < "$1"', name).strip() == "2560"


def test_bytes_that_are_not_text_are_an_error_that_names_the_way(session: SessionProxy, name: str) -> None:
    session.write_file(name, b"\xff\xfe")

    with pytest.raises(NotText, match=r"files\.read_bytes"):
        session.read_file(name)


def test_an_empty_file_is_written_and_read(session: SessionProxy, name: str) -> None:
    session.write_file(name, "")

    assert session.read_file(name) == ""


def test_a_hundred_megabytes_are_written_and_read(session: SessionProxy, name: str) -> None:
    data = b"0123456789abcdef" * (100 * MIB // 16)

    session.write_file(name, data)

    assert inside(session, 'wc -c < "$1"', name).strip() == str(len(data))
    assert session.files.read_bytes(name) == data
    inside(session, 'rm "$1"', name)


def test_a_file_that_exists_is_replaced_and_keeps_its_mode(session: SessionProxy, name: str) -> None:
    inside(session, 'echo a much longer old text > "$1" && chmod 754 "$1"', name)

    session.write_file(name, "new")

    assert session.read_file(name) == "new"
    assert inside(session, 'stat -c %a "$1"', name) == "754\n"


def test_a_reader_sees_the_old_file_or_the_new_one(session: SessionProxy, name: str) -> None:
    inside(session, 'printf old > "$1"', name)
    session.execute_command(
        ["sh", "-c", 'exec 3< "$1"; (sleep 1.5; cat <&3 > "$1.seen") > /dev/null 2>&1 &', "sh", name]
    )

    session.write_file(name, "new")

    assert inside(session, 'sleep 2; cat "$1" "$1.seen"', name) == "newold"


def test_readers_always_see_a_whole_version(session: SessionProxy, name: str) -> None:
    texts = {letter * 300_000 for letter in "ab"}
    session.write_file(name, min(texts))
    seen: set[str] = set()

    with ThreadPoolExecutor() as threads:
        writers = [threads.submit(lambda t=text: [session.write_file(name, t) for _ in range(8)]) for text in texts]
        while not all(writer.done() for writer in writers):
            seen.add(session.read_file(name))
            seen.add(inside(session, 'cat "$1"', name))

    for writer in writers:
        writer.result()
    assert seen <= texts


def test_any_user_inside_may_read_what_was_written(session: SessionProxy, name: str) -> None:
    session.write_file(f"{name}/file", "text")

    assert session.execute_command(["cat", f"{name}/file"], user="nobody").stdout == "text"


def test_a_missing_file_is_the_kin_of_file_not_found_error(session: SessionProxy, name: str) -> None:
    for path in (name, f"{name}/deeper", "/no/such/file"):
        with pytest.raises(FileMissing, match="no such file") as caught:
            session.read_file(path)
        assert isinstance(caught.value, FileNotFoundError)


@pytest.mark.parametrize("path", ["../outside", "a/../../outside", "/workspace/../outside", "/etc/../outside", ".."])
def test_dots_leave_the_workspace_neither_for_reading_nor_for_writing(session: SessionProxy, path: str) -> None:
    with pytest.raises(PathEscape, match=r"\.\."):
        session.read_file(path)
    with pytest.raises(PathEscape, match=r"\.\."):
        session.write_file(path, "text")
    assert session.execute_command("ls /outside /workspace/outside").stdout == ""


@pytest.mark.parametrize("make", ["mkdir", "mkfifo"])
def test_what_is_no_regular_file_is_neither_read_nor_replaced(session: SessionProxy, name: str, make: str) -> None:
    path = f"{name}-{make}"
    inside(session, f'{make} "$1"', path)

    with within(5):
        with pytest.raises(NotAFile):
            session.read_file(path)
        with pytest.raises(NotAFile):
            session.write_file(path, "text")
    assert inside(session, 'test -f "$1" && echo file || echo other', path) == "other\n"


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/tty"])
def test_a_device_is_neither_read_nor_replaced(session: SessionProxy, path: str) -> None:
    with within(5):
        with pytest.raises(NotAFile):
            session.read_file(path)
        with pytest.raises(NotAFile):
            session.write_file(path, "text")


def test_a_path_through_a_file_is_an_error_of_files(session: SessionProxy, name: str) -> None:
    session.write_file(name, "text")

    with pytest.raises(NotADirectory):
        session.write_file(f"{name}/below", "text")
    with pytest.raises(NotADirectory):
        session.read_file(f"{name}/below")


def test_a_sparse_file_of_four_terabytes_is_too_large(session: SessionProxy, name: str) -> None:
    inside(session, 'truncate -s 4398046511104 "$1"', name)

    with within(5), pytest.raises(FileTooLarge):
        session.read_file(name)
    inside(session, 'rm "$1"', name)


def test_a_file_in_a_mount_below_the_workspace_lands_in_that_mount(session: SessionProxy, name: str) -> None:
    session.write_file(f"shared/{name}", "in the mount")

    assert inside(session, 'cat "/shared-too/$1"', name) == "in the mount"
    assert session.read_file(f"shared/{name}") == "in the mount"


def test_a_read_only_mount_refuses_a_file_and_says_so(session: SessionProxy) -> None:
    with pytest.raises(FileDenied, match="read-only"):
        session.write_file("/frozen/file", "text")


def test_a_failed_write_leaves_no_half_file_behind(session: SessionProxy, name: str) -> None:
    inside(session, 'mkdir "$1" && mkdir "$1/file"', name)

    with pytest.raises(IsADirectory):
        session.write_file(f"{name}/file", "text")

    assert inside(session, 'ls -A "$1"', name) == "file\n"


LINKS = """
mkdir -p "$1/real" /outside && cd "$1" && printf text > real/f && printf text > /outside/f
ln -sf real/f to-file && ln -sfn "$PWD/real" to-directory && ln -sf /outside/f out && ln -sfn /outside out-directory
"""


def test_links_are_followed_as_any_program_inside_follows_them(session: SessionProxy, name: str) -> None:
    for top in (f"/workspace/{name}", f"/shared-too/{name}", f"/root/{name}"):
        inside(session, LINKS, top)
        for path in ("to-file", "to-directory/f", "out", "out-directory/f"):
            assert session.read_file(f"{top}/{path}") == "text"
        for path in ("to-file", "to-directory/f", "out", "out-directory/f"):
            session.write_file(f"{top}/{path}", path)
            assert session.read_file(f"{top}/{path}") == path
        assert inside(session, 'cd "$1"; readlink to-file; readlink out', top) == "real/f\n/outside/f\n"


def test_names_that_differ_in_a_newline_alone_are_two_files(session: SessionProxy, name: str) -> None:
    session.write_file(f"{name}/a", "one")
    session.write_file(f"{name}/a\n", "other")

    assert (session.read_file(f"{name}/a"), session.read_file(f"{name}/a\n")) == ("one", "other")


def test_a_file_that_the_engine_has_mounted_is_written_in_place(session: SessionProxy) -> None:
    before = session.read_file("/etc/hosts")

    session.write_file("/etc/hosts", f"{before}127.0.0.2 written\n")

    assert inside(session, "tail -n 1 /etc/hosts") == "127.0.0.2 written\n"
    assert inside(session, "ls -A /etc | grep podkit || true") == ""


def test_any_user_may_write_in_the_workspace(session: SessionProxy, name: str) -> None:
    assert session.execute_command(["touch", name], user="nobody").ok
    assert session.execute_command(["mkdir", f"{name}-dir"], user="1234").ok
