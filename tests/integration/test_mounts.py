"""What is mounted, seen from the engine and from both sides."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from podkit import SessionProxy, get_docker_session
from podkit.backends.docker import DockerBackend
from podkit.core.manager import BaseContainerManager, SimpleContainerManager
from podkit.core.models import ContainerConfig, Mount
from podkit.core.session import BaseSessionManager
from podkit.errors import FileError, InvalidInput, MountSourceNotFound, PathEscape
from podkit.utils.paths import get_workspace_path, write_to_mounted_path
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine, container_of
from tests.support.run import IN_RUNNER

pytestmark = pytest.mark.integration

AGENT = "/run/podkit"


def mounts_of(engine: Engine, session: SessionProxy) -> dict[str, dict[str, Any]]:
    """The mounts of a session's container, by target."""
    found = engine.inspect(session.get_info().container_name)["Mounts"]
    return {mount["Destination"]: mount for mount in found}


def test_the_workspace_is_the_sessions_own_directory(
    open_session: OpenSession, engine: Engine, workspace_host: Path
) -> None:
    mounts = mounts_of(engine, open_session())

    assert mounts.keys() == {"/workspace", AGENT}
    assert mounts["/workspace"]["Source"] == str(workspace_host / "workspaces" / "bob" / "123")
    assert (mounts["/workspace"]["Type"], mounts["/workspace"]["RW"]) == ("bind", True)


def test_where_the_engine_sees_the_workspace_is_found_out(
    open_session: OpenSession, backend: DockerBackend, prefix: str, workspace: Path, engine: Engine
) -> None:
    """In the runner, which is a container, the directory has another name for the engine."""
    session = open_session(on=BaseSessionManager(SimpleContainerManager(backend, prefix, workspace)))
    session.write_file("file", "from outside")

    assert session.execute_command("cat file; echo back > answer").stdout == "from outside"
    assert (workspace / "workspaces" / "bob" / "123" / "answer").read_text() == "back\n"
    if IN_RUNNER:
        assert not mounts_of(engine, session)["/workspace"]["Source"].startswith(str(workspace))


def test_example_5b_writes_through_to_the_host(facade: Engine, workspace: Path, workspace_host: Path) -> None:
    with get_docker_session("bob", "task-456", workspace=workspace, workspace_host=workspace_host) as session:
        session.write_file("/workspace/output.txt", "results")

        assert session.execute_command("cat output.txt").stdout == "results"
    assert (workspace / "workspaces/bob/task-456/output.txt").read_text() == "results"


def test_a_directory_of_the_host_is_mounted(
    open_session: OpenSession, engine: Engine, workspace: Path, workspace_host: Path
) -> None:
    (workspace / "data").mkdir()
    (workspace / "data" / "file").write_text("of the host")

    session = open_session(long_config(volumes=[Mount(source=workspace_host / "data", target="/data")]))

    mount = mounts_of(engine, session)["/data"]
    assert (mount["Source"], mount["RW"]) == (str(workspace_host / "data"), True)
    assert session.execute_command("cat /data/file; echo inside > /data/new").stdout == "of the host"
    assert (workspace / "data" / "new").read_text() == "inside\n"


def test_a_read_only_mount_cannot_be_written(
    open_session: OpenSession, engine: Engine, workspace: Path, workspace_host: Path
) -> None:
    (workspace / "data").mkdir()
    (workspace / "data" / "file").write_text("of the host")
    mount = Mount(source=workspace_host / "data", target="/data", read_only=True)

    session = open_session(long_config(volumes=[mount]))

    assert mounts_of(engine, session)["/data"]["RW"] is False
    assert not session.execute_command("echo inside > /data/file").ok
    with pytest.raises(FileError, match=r"(?i)read-only"):
        session.write_file("/data/file", "outside")
    assert session.read_file("/data/file") == "of the host"
    assert (workspace / "data" / "file").read_text() == "of the host"


def test_a_single_file_of_the_host_is_mounted(open_session: OpenSession, workspace: Path, workspace_host: Path) -> None:
    (workspace / "settings").write_text("key=value")
    mount = Mount(source=workspace_host / "settings", target="/etc/settings", read_only=True)

    session = open_session(long_config(volumes=[mount]))

    assert session.execute_command("cat /etc/settings").stdout == "key=value"
    assert session.read_file("/etc/settings") == "key=value"


def test_a_directory_may_take_the_workspaces_place(
    backend: DockerBackend, prefix: str, open_session: OpenSession, workspace: Path, workspace_host: Path
) -> None:
    """As in Example 4: `config.volumes` with a mount on `/workspace`."""
    (workspace / "outputs").mkdir()
    config = long_config(volumes=[Mount(source=workspace_host / "outputs", target="/workspace")])
    session = open_session(config, on=BaseSessionManager(SimpleContainerManager(backend, prefix, None)))

    session.execute_command(["sh", "-c", "echo 'processing complete' > /workspace/results.txt"])
    session.write_file("written.txt", "too")

    assert (workspace / "outputs" / "results.txt").read_text() == "processing complete\n"
    assert (workspace / "outputs" / "written.txt").read_text() == "too"


def test_two_mounts_on_one_target_are_refused_and_nothing_is_made(
    open_session: OpenSession, engine: Engine, workspace_host: Path
) -> None:
    with pytest.raises(InvalidInput, match="/workspace"):
        open_session(long_config(volumes=[Mount(source=workspace_host, target="/workspace")]))

    assert engine.names() == []


def test_a_named_volume_outlives_its_container(open_session: OpenSession, engine: Engine) -> None:
    volume = engine.volume()
    config = long_config(volumes=[Mount(source=volume, target="/data", type="volume")])
    session = open_session(config)
    session.execute_command("echo kept > /data/file")
    assert mounts_of(engine, session)["/data"]["Name"] == volume
    session.close()

    assert open_session(config, session_id="another").execute_command("cat /data/file").stdout == "kept\n"


def test_a_tmpfs_is_in_memory(open_session: OpenSession, engine: Engine) -> None:
    session = open_session(long_config(volumes=[Mount(target="/ram", type="tmpfs")]))

    assert mounts_of(engine, session)["/ram"]["Type"] == "tmpfs"
    assert session.execute_command("stat -f -c %T /ram && echo x > /ram/x").stdout == "tmpfs\n"
    session.write_file("/ram/file", "text")
    assert session.read_file("/ram/file") == "text"


# --- workspaces in a named volume --------------------------------------------------------------------


@pytest.fixture
def in_volume(backend: DockerBackend, prefix: str, engine: Engine) -> BaseSessionManager:
    return BaseSessionManager(SimpleContainerManager(backend, prefix, None, volume_name=engine.volume()))


def test_a_session_sees_only_its_own_directory_of_the_volume(
    open_session: OpenSession, in_volume: BaseSessionManager
) -> None:
    mine = open_session(on=in_volume)
    other = open_session(on=in_volume, session_id="456")
    theirs = open_session(on=in_volume, user_id="eve")

    for session in (mine, other, theirs):
        session.write_file("own", session.session_id)

    for session in (mine, other, theirs):
        assert session.execute_command("ls -A; ls -A ..").stdout.split()[0] == "own"
        assert session.execute_command("ls -A").stdout == "own\n"
        assert session.read_file("own") == session.session_id


def test_a_workspace_in_a_volume_outlives_the_container(
    open_session: OpenSession, in_volume: BaseSessionManager, engine: Engine
) -> None:
    session = open_session(on=in_volume)
    session.execute_command("echo kept > file")
    session.close()
    assert engine.names() == []

    again = open_session(on=in_volume)

    assert again.execute_command("cat file").stdout == "kept\n"
    assert again.get_info().data_dir is None


def test_a_workspace_in_a_volume_may_be_removed_with_the_session(
    open_session: OpenSession, in_volume: BaseSessionManager
) -> None:
    other = open_session(on=in_volume, session_id="456")
    other.write_file("file", "theirs")
    session = open_session(on=in_volume)
    session.execute_command("mkdir -p a/b && touch a/b/c .hidden ..odd")

    session.close(remove_workspace=True)

    assert open_session(on=in_volume).execute_command("ls -A").stdout == ""
    assert other.read_file("file") == "theirs"


def test_a_volume_that_does_not_exist_is_made(backend: DockerBackend, prefix: str, engine: Engine) -> None:
    name = engine.new_name("volume")
    engine.will_remove_volume(name)
    sessions = BaseSessionManager(SimpleContainerManager(backend, prefix, None, volume_name=name))

    sessions.create_session("bob", "123", long_config())
    sessions.write_file("bob", "123", "file", "text")

    assert sessions.execute_command("bob", "123", "cat file").stdout == "text"
    assert engine.client.volumes.get(name).name == name


@pytest.mark.parametrize("user", ["nobody", "1234:5678"])
def test_a_workspace_in_a_volume_is_its_users_to_use(
    open_session: OpenSession, in_volume: BaseSessionManager, user: str
) -> None:
    session = open_session(long_config(user=user), on=in_volume)

    session.write_file("given", "given")

    assert session.execute_command("cat given && echo own > own && cat own").stdout == "givenown\n"


# --- a workspace that is removed ----------------------------------------------------------------------


def data_dir(session: SessionProxy) -> Path:
    directory = session.get_info().data_dir
    assert directory is not None
    return directory


@pytest.mark.parametrize("state", ["running", "stopped"])
@pytest.mark.parametrize("again", [False, True], ids=["gone", "made by somebody else"])
def test_a_workspace_that_was_removed_is_made_anew_and_mounted(
    open_session: OpenSession, engine: Engine, state: str, again: bool
) -> None:
    session = open_session()
    id = container_of(session)
    session.execute_command("echo kept > /tmp/file; echo lost > file").check()
    if state == "stopped":
        engine.client.api.stop(id, timeout=1)
    shutil.rmtree(data_dir(session))
    if again:
        data_dir(session).mkdir()

    assert session.execute_command("pwd; ls; touch from-inside; cat /tmp/file").stdout == "/workspace\nkept\n"
    session.write_file("from-outside", "")
    assert container_of(session) == id
    assert session.execute_command("ls").stdout == "from-inside\nfrom-outside\n"
    assert sorted(path.name for path in data_dir(session).iterdir()) == ["from-inside", "from-outside"]


def test_a_file_is_never_written_where_the_container_does_not_see_it(open_session: OpenSession) -> None:
    session = open_session()
    shutil.rmtree(data_dir(session))

    session.write_file("file", "seen")

    assert session.execute_command("cat file").stdout == "seen"


def test_a_mount_source_that_is_gone_is_named_each_time_until_it_is_back(
    open_session: OpenSession, engine: Engine, workspace: Path, workspace_host: Path
) -> None:
    directory, source = workspace / "data", workspace_host / "data"
    directory.mkdir()
    session = open_session(long_config(volumes=[Mount(source=source, target="/data")]))
    engine.client.api.stop(container_of(session), timeout=1)
    directory.rmdir()

    for _ in range(2):
        with pytest.raises(MountSourceNotFound, match=str(source)):
            session.execute_command("true")
    directory.mkdir()
    assert session.execute_command("ls -d /data").stdout == "/data\n"


# --- a project's own mounts --------------------------------------------------------------------------


class MyContainerManager(BaseContainerManager):
    """As in Example 6."""

    def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
        assert self.workspace_base is not None
        workspace = get_workspace_path(self.workspace_base, user_id, session_id)
        workspace.mkdir(parents=True, exist_ok=True)
        return [{"Type": "bind", "Source": str(workspace), "Target": "/workspace"}]

    def write_file(
        self, container_id: str, container_path: Any, content: str | bytes, user_id: str, session_id: str
    ) -> Path:
        return write_to_mounted_path(container_path, content, lambda path: self.to_host_path(path, user_id, session_id))


def test_a_container_manager_of_ones_own_mounts_what_it_says(
    open_session: OpenSession, backend: DockerBackend, prefix: str, workspace: Path
) -> None:
    session = open_session(on=BaseSessionManager(MyContainerManager(backend, prefix, workspace)))

    assert session.write_file(Path("/workspace/file.txt"), "Hello from podkit") == Path("/workspace/file.txt")

    assert session.execute_command("cat file.txt").stdout == "Hello from podkit"
    assert (workspace / "workspaces/bob/123/file.txt").read_text() == "Hello from podkit"
    session.execute_command('ln -s "$1" link'.replace("$1", "/etc"))
    with pytest.raises((PathEscape, FileError)):
        session.write_file("link/passwd", "attack")
