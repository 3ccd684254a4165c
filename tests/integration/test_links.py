"""Symlinks that a container lays: they are followed inside, and never to anything of the host."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.manager import SimpleContainerManager
from podkit.core.session import BaseSessionManager
from podkit.errors import FileError, PodkitError
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine, remove_directory
from tests.support.run import new_prefix, workspaces, workspaces_host
from tests.support.waiting import within

pytestmark = pytest.mark.integration

SECRET = "secret of the host"

EXCHANGE = """
import ctypes, os, platform, sys
os.chdir(sys.argv[1])
renameat2 = {"x86_64": 316, "aarch64": 276}[platform.machine()]
call = ctypes.CDLL(None).syscall
while not os.path.exists("stop"):
    for _ in range(1000):
        assert call(renameat2, -100, b"sub", -100, b"evil", 2) == 0  # 2: RENAME_EXCHANGE
"""


class Attack:
    """A session whose container lays links, and a file of the host that they lead to."""

    def __init__(self, session: SessionProxy, victim: Path) -> None:
        self.session = session
        self.victim = victim

    def lay(self, script: str) -> str:
        """Run a script in a fresh directory of the workspace, and give that directory."""
        name = uuid.uuid4().hex
        command = f'mkdir "$1" && cd "$1" && {script}'
        self.session.execute_command(
            ["sh", "-c", command, "sh", name, str(self.victim), str(self.victim.parent)]
        ).check()
        return name

    def reaches_nothing(self, path: str) -> None:
        """See that whoever reads and writes the path is told no secret, and that the host is as it was."""
        before = sorted(os.listdir(self.victim.parent))
        with within(5):
            with suppress(FileError):
                assert SECRET not in self.session.read_file(path)
            with suppress(FileError):
                self.session.write_file(path, "attack")
        assert self.victim.read_text() == SECRET
        assert sorted(os.listdir(self.victim.parent)) == before


@pytest.fixture(scope="module", params=["host", "volume", "container"])
def attack(request: pytest.FixtureRequest, backend: DockerBackend, default_image: str) -> Iterator[Attack]:
    engine = Engine(backend.client, new_prefix(), default_image)
    directory, host = workspaces() / engine.prefix, workspaces_host() / engine.prefix
    (directory / "outside").mkdir(parents=True)
    victim = directory / "outside" / "victim"
    victim.write_text(SECRET)
    if request.param == "host":
        manager = SimpleContainerManager(backend, engine.prefix, directory, host)
    else:
        volume = engine.volume() if request.param == "volume" else None
        manager = SimpleContainerManager(backend, engine.prefix, None, volume_name=volume)
    sessions = BaseSessionManager(manager)
    sessions.create_session("bob", "links", long_config())
    session = SessionProxy(sessions, "bob", "links")
    # the same path inside: a link that is followed in the container finds something as well
    session.write_file(str(victim), "inside")
    yield Attack(session, victim)
    remove_directory(engine, directory)


@pytest.mark.parametrize(
    ("script", "path"),
    [
        ('ln -s "$2" file', "file"),
        ('ln -s "$3" sub', "sub/victim"),
        ('ln -s "$3" sub', "sub/new"),
        ('ln -s "$3" a && ln -s a b && ln -s b c', "c/victim"),
        ("ln -s ../../../../outside sub", "sub/victim"),
        ("ln -s ../../../../../../../../../../etc sub", "sub/hostname"),
        ("ln -s / sub", "sub/etc/motd"),
        ("ln -s /no/such/directory sub", "sub/file"),
        ("ln -s /proc/self/root root", "root/etc/motd"),
        ("ln -s a b && ln -s b a", "a"),
        ("ln -s a b && ln -s b a", "a/file"),
        ("ln -s . self && ln -s self/self/nowhere loop && ln -s loop/x x", "x/y"),
    ],
    ids=str,
)
def test_no_link_leads_to_the_host(attack: Attack, script: str, path: str) -> None:
    attack.reaches_nothing(f"{attack.lay(script)}/{path}")


def test_nothing_is_made_through_a_dangling_link(attack: Attack) -> None:
    where = attack.lay('ln -s "$3/made-by-the-attack" file')

    attack.reaches_nothing(f"{where}/file")


def test_a_deep_tree_is_no_way_out(attack: Attack) -> None:
    deep = "/".join(["d"] * 200)
    where = attack.lay(f'mkdir -p {deep} && ln -s "$3" {deep}/sub')

    attack.reaches_nothing(f"{where}/{deep}/sub/victim")


def test_a_directory_that_is_swapped_for_a_link_all_the_time_leaks_nothing_of_the_host(attack: Attack) -> None:
    where = attack.lay('mkdir sub && echo ours > sub/victim && ln -s "$3" evil')
    swap = ["python3", "-c", EXCHANGE, f"/workspace/{where}"]
    seen: set[str] = set()

    with ThreadPoolExecutor() as threads:
        swapper = threads.submit(attack.session.execute_command, swap)
        try:
            for number in range(300):
                with suppress(PodkitError):
                    seen.add(attack.session.read_file(f"{where}/sub/victim"))
                    attack.session.write_file(f"{where}/sub/victim", "ours")
                    attack.session.write_file(f"{where}/sub/new-{number}", "ours")
        finally:
            attack.session.write_file(f"{where}/stop", "")

    assert swapper.result().ok
    assert SECRET not in seen
    assert attack.victim.read_text() == SECRET
    assert os.listdir(attack.victim.parent) == ["victim"]


# --- whose files they are ----------------------------------------------------------------------------


@pytest.mark.parametrize("user", ["nobody", "1234:5678", None])
def test_whoever_the_user_is_the_workspace_is_theirs_to_use(open_session: OpenSession, user: str | None) -> None:
    session = open_session(long_config(user=user))
    session.write_file("given/file", "given\n")

    result = session.execute_command(
        "cat given/file && echo more >> given/file && echo own > own && mkdir -p given/x/y"
    )

    assert (result.exit_code, result.stderr) == (0, "")
    assert session.read_file("given/file") == "given\nmore\n"
    assert session.read_file("own") == "own\n"
    session.write_file("own", "ours")
    assert session.execute_command("cat own && echo theirs > own && cat own").stdout == "ourstheirs\n"


def test_a_file_that_a_user_made_stays_theirs_when_it_is_written(open_session: OpenSession) -> None:
    session = open_session(long_config(user="nobody"))
    session.execute_command("touch mine")

    session.write_file("mine", "new")

    assert session.execute_command("stat -c %U mine; cat mine").stdout == "nobody\nnew"


def test_other_users_of_the_host_do_not_get_at_a_workspace(open_session: OpenSession) -> None:
    directory = open_session().get_info().data_dir
    assert directory is not None

    assert directory.parent.stat().st_mode & 0o077 == 0
