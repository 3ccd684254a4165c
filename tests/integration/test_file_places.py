"""Files where mounts, users and working directories make it hard: a file call reaches what a command reaches there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from podkit import SessionProxy
from podkit.backends.docker import DockerBackend
from podkit.core.manager import BaseContainerManager, SimpleContainerManager
from podkit.core.models import ContainerConfig, Mount
from podkit.core.session import BaseSessionManager
from podkit.errors import FileDenied, FileError, NoSpace, TooManyFiles
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine, container_of
from tests.support.processes import ask_python, start_python
from tests.support.waiting import within

pytestmark = pytest.mark.integration


@pytest.fixture(params=["host", "container", "volume"])
def of_each_kind(
    request: pytest.FixtureRequest, backend: DockerBackend, engine: Engine, workspace: Path, workspace_host: Path
) -> SimpleContainerManager:
    """What keeps workspaces on the host, in the containers, or in a volume."""
    if request.param == "host":
        return SimpleContainerManager(backend, engine.prefix, workspace, workspace_host)
    volume = engine.volume() if request.param == "volume" else None
    return SimpleContainerManager(backend, engine.prefix, None, volume_name=volume)


def inside(session: SessionProxy, script: str) -> str:
    return session.execute_command(script).check().stdout


# --- mounts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("read_only", [False, True])
def test_a_file_that_is_mounted_into_the_workspace_is_the_mounted_one(
    open_session: OpenSession, workspace: Path, workspace_host: Path, *, read_only: bool
) -> None:
    (workspace / "settings.json").write_text("of the host")
    mount = Mount(source=workspace_host / "settings.json", target="/workspace/settings.json", read_only=read_only)
    session = open_session(long_config(volumes=[mount]))

    assert session.read_file("settings.json") == "of the host"
    if read_only:
        with pytest.raises(FileDenied, match="read-only"):
            session.write_file("settings.json", "new")
    else:
        session.write_file("settings.json", "new")
        assert inside(session, "cat settings.json") == "new"
    assert (workspace / "settings.json").read_text() == ("of the host" if read_only else "new")
    assert [one.name for one in session.files.list()] == ["settings.json"]


class ElsewhereManager(BaseContainerManager):
    """Mounts two directories of its own: one on `/workspace`, and one below it."""

    def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
        assert self.workspace_base is not None
        mounts = []
        for name, target in (("elsewhere", "/workspace"), ("below", "/workspace/below")):
            (self.workspace_base / name).mkdir(exist_ok=True)
            mounts.append({"Type": "bind", "Source": str(self.workspace_base / name), "Target": target})
        return mounts

    def write_file(
        self, container_id: str, container_path: Any, content: str | bytes, user_id: str, session_id: str
    ) -> Path:
        raise NotImplementedError


def test_what_a_manager_of_ones_own_mounts_is_read_and_written(
    open_session: OpenSession, backend: DockerBackend, prefix: str, workspace: Path, workspace_host: Path
) -> None:
    sessions = BaseSessionManager(ElsewhereManager(backend, prefix, workspace, workspace_host))
    session = open_session(on=sessions)

    inside(session, "echo one > f; echo two > below/f")
    assert (session.read_file("f"), session.read_file("below/f")) == ("one\n", "two\n")
    session.files.write_text("below/f", "new")
    assert (workspace / "below/f").read_text() == inside(session, "cat below/f") == "new"
    assert (workspace / "elsewhere/f").read_text() == "one\n"


# --- users -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("user", [None, "1234", "nobody"])
def test_every_user_may_write_in_the_workspace_and_in_the_working_directory(
    open_session: OpenSession, of_each_kind: SimpleContainerManager, user: str | None
) -> None:
    session = open_session(long_config(user=user, working_dir="/srv/job"), on=BaseSessionManager(of_each_kind))

    assert inside(session, "pwd; touch f; ls") == "/srv/job\nf\n"
    assert session.write_file("a.txt", "x") == Path("/workspace/a.txt")
    assert inside(session, "cat /workspace/a.txt; touch /workspace/f") == "x"
    session.write_file("/srv/job/b.txt", "y")
    assert inside(session, "cat b.txt") == "y"
    for other in ("nobody", "4321", "root"):
        assert session.execute_command(["mkdir", f"/workspace/{other}"], user=other).ok
        assert session.execute_command(["mkdir", other], user=other).ok


def test_a_new_volume_on_the_workspace_is_every_users(
    open_session: OpenSession, backend: DockerBackend, engine: Engine
) -> None:
    volume = Mount(source=engine.volume(), target="/workspace", type="volume")
    sessions = BaseSessionManager(SimpleContainerManager(backend, engine.prefix, None))
    session = open_session(long_config(user="1234", volumes=[volume]), on=sessions)

    inside(session, "touch f && mkdir d")
    session.write_file("d/g", "x")
    session.close()
    again = open_session(long_config(user="1234", volumes=[volume]), on=sessions)
    assert inside(again, "touch h; ls") == "d\nf\nh\n"


@pytest.mark.parametrize("target", ["/workspace", "/wd", "/data/scratch"])
def test_a_tmpfs_is_every_users_at_each_start(
    open_session: OpenSession, backend: DockerBackend, engine: Engine, target: str
) -> None:
    sessions = BaseSessionManager(SimpleContainerManager(backend, engine.prefix, None))
    config = long_config(user="1234", working_dir=target, volumes=[Mount(target=target, type="tmpfs")])
    session = open_session(config, on=sessions)

    inside(session, "touch f")
    engine.stop(container_of(session))
    assert inside(session, "ls; touch g; ls") == "g\n"
    engine.client.containers.get(container_of(session)).restart(timeout=0)
    assert inside(session, "ls; touch h; ls") == "h\n"


def test_a_full_tmpfs_is_no_space_and_costs_nothing_that_runs(open_session: OpenSession) -> None:
    scratch, small = Mount(target="/scratch", type="tmpfs"), Mount(target="/small", type="tmpfs", size="1m")
    session = open_session(long_config(memory_limit="64m", volumes=[scratch, small]))
    session.files.write_text("/scratch/f", "kept")

    with pytest.raises(NoSpace):
        session.files.write_bytes("/small/f", bytes(2 << 20))
    assert "No space left" in session.execute_command("head -c 50m /dev/zero > /scratch/g").stderr
    assert session.files.read_text("/scratch/f") == "kept"


def test_a_file_that_is_mounted_below_the_working_directory_does_not_close_it(
    open_session: OpenSession, workspace: Path, workspace_host: Path
) -> None:
    (workspace / "Makefile").write_text("all:\n")
    mounts = [
        Mount(source=workspace_host / "Makefile", target=target, read_only=True)
        for target in ("/build/src/Makefile", "/build/src/conf/Makefile")
    ]
    session = open_session(long_config(user="1234", working_dir="/build/src", volumes=mounts))

    assert inside(session, "touch out; ls") == "Makefile\nconf\nout\n"


def test_no_link_in_a_workspace_opens_a_directory_of_the_host(
    open_session: OpenSession, workspace: Path, workspace_host: Path
) -> None:
    (workspace / "data/src").mkdir(parents=True)
    (workspace / "data/src").chmod(0o755)
    config = long_config(
        user="1234",
        working_dir="/workspace/project/src",
        volumes=[Mount(source=workspace_host / "data", target="/data")],
    )
    session = open_session(config)
    session.execute_command("mv project old; ln -s /data project", working_dir="/workspace").check()
    session.close()

    open_session(config)

    assert (workspace / "data/src").stat().st_mode & 0o777 == 0o755


def test_a_directory_of_the_image_that_has_something_in_it_stays_as_it_is(open_session: OpenSession) -> None:
    session = open_session(long_config(user="1234", working_dir="/etc"))

    assert session.execute_command("touch f").exit_code == 1
    assert inside(session, "stat -c %a /etc") == "755\n"


def test_a_directory_of_the_host_that_is_mounted_stays_as_it_is(
    open_session: OpenSession, workspace: Path, workspace_host: Path
) -> None:
    (workspace / "data").mkdir()
    (workspace / "data").chmod(0o755)
    mount = Mount(source=workspace_host / "data", target="/data")

    open_session(long_config(user="1234", working_dir="/data", volumes=[mount]))

    assert (workspace / "data").stat().st_mode & 0o777 == 0o755


def test_the_workspace_goes_with_what_a_user_has_left_in_it(
    open_session: OpenSession, of_each_kind: SimpleContainerManager, engine: Engine
) -> None:
    sessions = BaseSessionManager(of_each_kind)
    session = open_session(long_config(user="1234"), on=sessions)
    inside(session, "mkdir d && touch d/f .hidden && chmod 0 d")

    session.close(remove_workspace=True)

    assert engine.names() == []
    assert inside(open_session(on=sessions), "ls -A") == ""


def test_a_workspace_that_cannot_be_emptied_is_said_when_the_container_is_gone(
    open_session: OpenSession, backend: DockerBackend, engine: Engine
) -> None:
    session = open_session(on=BaseSessionManager(SimpleContainerManager(backend, engine.prefix, None)))
    inside(session, "rmdir /workspace 2>/dev/null; mv /workspace /elsewhere; touch /workspace")

    with pytest.raises(FileError, match="/workspace"):
        session.close(remove_workspace=True)

    assert engine.names() == []
    session.close(remove_workspace=True)


# --- many --------------------------------------------------------------------------------------------

WORK = """
import sys
from concurrent.futures import ThreadPoolExecutor
from podkit import get_docker_session

session, who = get_docker_session("bob", sys.argv[1]), sys.argv[2]
versions = {letter * 20_000 for letter in "ab"}

def work(number):
    if number % 2:
        session.write_file("shared", max(versions) if number % 4 == 1 else min(versions))
        session.write_file(f"own/{who}/{number}", f"{who} {number}")
        return True
    return session.read_file("shared") in versions

with ThreadPoolExecutor(16) as threads:
    print(sum(threads.map(work, range(500))))
"""


def test_a_thousand_readers_and_writers_in_two_processes_lose_nothing(facade: Engine, default_image: str) -> None:
    from podkit import get_docker_session

    with get_docker_session("bob", "many", long_config(image=default_image)) as session:
        session.write_file("shared", "a" * 20_000)
        other = start_python(WORK, "many", "other")
        assert ask_python(WORK, "many", "one") == 500
        stdout, stderr = other.communicate(timeout=120)
        assert (stdout, stderr) == ("500\n", "")
        assert inside(session, "ls own/one | wc -l; ls own/other | wc -l; cat own/other/499") == "250\n250\nother 499"
        assert [one.name for one in session.files.list()] == ["own", "shared"]


def test_a_directory_of_a_hundred_thousand_names_is_listed_or_refused(shell: SessionProxy) -> None:
    inside(shell, "mkdir crowd; cd crowd; seq 100000 | xargs touch")

    with within(20), pytest.raises(TooManyFiles, match="at least 10001 names"):
        shell.files.list("crowd")
    assert len(shell.files.list("crowd", max_entries=100_000)) == 100_000
    shell.files.remove("crowd", recursive=True)
