"""What a session may not have is refused before any engine call, with the name in `allow_unsafe` that lets it in."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from podkit.backends.base import WorkloadInfo
from podkit.core._profiles import UNSAFE
from podkit.core._sources import judged_source
from podkit.core.manager import BaseContainerManager, SimpleContainerManager
from podkit.core.models import ContainerConfig, Mount
from podkit.errors import InvalidInput, NotEnforced
from podkit.testing import FakeBackend
from tests.unit.support import PREFIX, names_on

HOME = os.path.expanduser("~")

OF_THE_HOST = (
    "/",
    "/boot",
    "/dev",
    "/dev/shm",
    "/etc",
    "/etc/ssl/certs",
    "/proc",
    "/proc/1/root",
    "/sys/fs/cgroup",
    "/root",
    "/run",
    "/var",
    "/var/run",
    "/var/lib/docker",
    "/var/lib/docker/volumes/x/_data",
    "/var/lib/kubelet",
    HOME,
    f"{HOME}/.ssh",
    f"{HOME}/.docker/config.json",
    "/home/alice/.ssh/id_rsa",
    "/srv/deploy/.kube",
)
SOCKETS = (
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman",
    "/run/user/1000/podman/podman.sock",
)


@pytest.mark.parametrize("read_only", [False, True], ids=["writable", "read-only"])
@pytest.mark.parametrize("source", [*OF_THE_HOST, *SOCKETS])
def test_what_belongs_to_the_host_cannot_be_mounted(source: str, read_only: bool) -> None:
    """CF-01, CF-03."""
    mount = Mount(source=source, target="/inside", read_only=read_only)
    with pytest.raises(InvalidInput, match=r"allow_unsafe=\{'(host-paths|engine-socket)'\}") as caught:
        ContainerConfig(volumes=[mount])
    assert repr(source) in str(caught.value)


@pytest.mark.parametrize("source", [*OF_THE_HOST, *SOCKETS])
def test_what_is_allowed_by_name_can_be_mounted(source: str) -> None:
    allowed = {"host-paths", "engine-socket"}
    ContainerConfig(volumes=[Mount(source=source, target="/inside")], allow_unsafe=allowed)


@pytest.mark.parametrize(
    "source", ["/srv", "/srv/data", "/home/alice/project", "/root/project", "/opt", "/etcetera", "/mnt"]
)
def test_other_directories_can_be_mounted(source: str) -> None:
    ContainerConfig(volumes=[Mount(source=source, target="/inside")])


def test_a_link_is_judged_by_where_it_leads(tmp_path: Path) -> None:
    """CF-02."""
    (tmp_path / "direct").symlink_to("/etc")
    (tmp_path / "chain").symlink_to(tmp_path / "direct")
    (tmp_path / "parent").symlink_to("/")
    for name in ("direct", "chain", "parent/etc", "direct/ssl"):
        with pytest.raises(InvalidInput, match="which leads to '/etc"):
            ContainerConfig(volumes=[Mount(source=tmp_path / name, target="/inside")])


def test_a_link_that_is_changed_after_the_check_changes_nothing(tmp_path: Path) -> None:
    """CF-02: the engine is given what was checked."""
    (tmp_path / "good").mkdir()
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "good")
    source = judged_source(str(link), ())
    link.unlink()
    link.symlink_to("/etc")
    assert source == str(tmp_path / "good")


def test_a_directory_with_an_engines_socket_in_it_cannot_be_mounted(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "docker.sock"))
        for source in (tmp_path, tmp_path / "docker.sock"):
            with pytest.raises(InvalidInput, match="engine's socket"):
                judged_source(str(source), {"host-paths"})


def test_the_socket_of_this_programs_own_engine_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///srv/engine/odd.socket")
    for source in ("/srv/engine/odd.socket", "/srv/engine", "/srv"):
        with pytest.raises(InvalidInput, match="engine's socket"):
            judged_source(source, {"host-paths"})


class Mounting(BaseContainerManager):
    """Mounts what a test says."""

    source = ""

    def get_mounts(self, user_id: str, session_id: str, config: ContainerConfig) -> list[dict[str, Any]]:
        return [{"Type": "bind", "Source": self.source, "Target": "/inside"}]

    def write_file(self, *arguments: Any) -> Path:
        raise NotImplementedError


def test_the_mounts_of_a_managers_own_are_judged_as_well(fake: FakeBackend, tmp_path: Path) -> None:
    manager = Mounting(fake, PREFIX, tmp_path)
    for source, said in (
        ("/etc", "host-paths"),
        ("/run/docker.sock", "engine-socket"),
        (f"{tmp_path}/workspaces/bob/1/sub", "where its container can put a link"),
    ):
        manager.source = source
        with pytest.raises(InvalidInput, match=said):
            manager.create_container("bob", "1", ContainerConfig())
    assert "create_workload" not in fake.calls
    for source in (f"{tmp_path}/shared", f"{tmp_path}/workspaces/bob/1"):
        manager.source = source
        manager.create_container("bob", source, ContainerConfig())


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"networks": ["host"]}, "host-network"),
        ({"networks": ["container:other"]}, "host-network"),
        ({"profile": "locked", "user": "root"}, "root"),
        ({"profile": "locked", "user": "0:0"}, "root"),
        ({"profile": "locked", "user": "00"}, "root"),
        ({"profile": "locked", "user": "app"}, "root"),
        ({"profile": "locked", "networks": ["front"]}, "network"),
        ({"profile": "locked", "ports": [8080]}, "network"),
        ({"profile": "locked", "inherit_parent_networks": True}, "network"),
    ],
    ids=str,
)
def test_what_a_profile_does_not_allow_is_refused_with_the_name_that_lets_it_in(
    fields: dict[str, Any], name: str
) -> None:
    """CF-05."""
    with pytest.raises(InvalidInput, match=f"allow_unsafe={{'{name}'}} would let it in"):
        ContainerConfig(**fields)
    ContainerConfig(**fields, allow_unsafe={name})
    assert name in UNSAFE


@pytest.mark.parametrize(
    "field", ["privileged", "cap_add", "devices", "pid_mode", "ipc_mode", "security_opt", "sysctls", "host_config"]
)
def test_there_is_no_field_for_raw_arguments_of_the_engine(field: str) -> None:
    """CF-05."""
    with pytest.raises(InvalidInput, match="unknown field"):
        ContainerConfig(**{field: True})


@pytest.mark.parametrize(
    "name", ["", "all", "Privileged", "capability:", "capability:sys_admin", "capability:CAP_KILL", "capability:ALL"]
)
def test_a_name_that_weakens_nothing_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="which weakens nothing: there are privileged, "):
        ContainerConfig(allow_unsafe={name})


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"profile": "open"}, "pass 'standard' or 'locked'"),
        ({"runtime": "run sc"}, "such as 'runsc'"),
        ({"publish_address": "localhost"}, "is no IP address"),
        ({"networks": ["none", "front"]}, "'none' stands alone"),
        ({"allow_unsafe": "network"}, "pass a set of names"),
    ],
)
def test_other_bad_values_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        ContainerConfig(**fields)


class WeakEngine(FakeBackend):
    """One whose kernel counts no processes, as Docker then says in its inspect."""

    def inspect_workload(self, id: str) -> WorkloadInfo:
        info = super().inspect_workload(id)
        return info._replace(confinement=info.confinement._replace(pids_limit=None))


def test_an_engine_that_does_not_enforce_a_profile_is_an_error_and_the_container_is_removed() -> None:
    """CF-09."""
    weak = WeakEngine()
    weak.connect()
    manager = SimpleContainerManager(weak, PREFIX, None)
    with pytest.raises(NotEnforced, match=r"does not enforce pids_limit on .*'unenforced-limits'"):
        manager.create_container("bob", "1", ContainerConfig())
    assert names_on(weak) == []
    manager.create_container("bob", "1", ContainerConfig(allow_unsafe={"unenforced-limits"}))
    assert len(names_on(weak)) == 1
