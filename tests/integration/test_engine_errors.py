"""What the engine refuses: a typed error, soon, with the cure in it, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from podkit import run_in_docker
from podkit.core.models import ContainerConfig, Mount
from podkit.core.session import BaseSessionManager
from podkit.errors import (
    ContainerFailedToStart,
    ContainerNotFound,
    ImageNotFound,
    InvalidInput,
    MountSourceNotFound,
    NameTaken,
    NetworkNotFound,
    PodkitError,
    PortUnavailable,
)
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine
from tests.support.waiting import eventually, within

pytestmark = pytest.mark.integration

SOON = 4  # 2 s, and a busy machine's noise


@contextmanager
def refused(engine: Engine, error: type[PodkitError], message: str) -> Iterator[None]:
    """A block that must raise soon and leave no container, in whatever state."""
    before = engine.names()
    with within(SOON), pytest.raises(error, match=message) as caught:
        yield
    assert caught.value.__cause__ is not None or isinstance(caught.value, InvalidInput | NameTaken)
    assert engine.names() == before


def test_a_mount_source_that_does_not_exist(open_session: OpenSession, engine: Engine, workspace_host: Path) -> None:
    mount = Mount(source=workspace_host / "missing", target="/data")

    with refused(engine, MountSourceNotFound, "missing' does not exist on the Docker host"):
        open_session(long_config(volumes=[mount]))


def test_a_workspace_that_the_engine_does_not_see(engine: Engine, backend: object, workspace: Path) -> None:
    from podkit.core.manager import SimpleContainerManager

    missing = f"/{engine.prefix}/no/such/place"  # of this test alone: some engines make what is missing
    manager = SimpleContainerManager(backend, engine.prefix, workspace, missing)  # type: ignore[arg-type]

    with refused(engine, MountSourceNotFound, missing):
        BaseSessionManager(manager).create_session("bob", "123", long_config())


def test_an_image_that_is_neither_there_nor_to_be_pulled(open_session: OpenSession, engine: Engine) -> None:
    # a registry on the engine's own loopback, where nobody listens: no network is needed to be refused
    with refused(engine, ImageNotFound, r"localhost:1/podkit/no-such-image:1.*PODKIT_DEFAULT_IMAGE"):
        open_session(long_config(image="localhost:1/podkit/no-such-image:1"))


def test_an_image_name_that_no_engine_takes(open_session: OpenSession, engine: Engine) -> None:
    with within(SOON), pytest.raises(PodkitError, match="NOT/AN:IMAGE"):
        open_session(long_config(image="NOT/AN:IMAGE:NAME"))
    assert engine.names() == []


def test_a_working_directory_that_is_a_file_in_the_image(open_session: OpenSession, engine: Engine) -> None:
    with refused(engine, InvalidInput, r"working_dir='/etc/passwd' is a file"):
        open_session(long_config(working_dir="/etc/passwd"))


def test_a_network_that_does_not_exist(open_session: OpenSession, engine: Engine) -> None:
    with refused(engine, NetworkNotFound, "no-such-network.*docker network create"):
        open_session(long_config(networks=["no-such-network"]))


def test_a_second_network_that_does_not_exist(open_session: OpenSession, engine: Engine) -> None:
    with refused(engine, NetworkNotFound, "no-such-network"):
        open_session(long_config(networks=[engine.network(), "no-such-network"]))


def test_a_port_that_another_container_has(open_session: OpenSession, engine: Engine) -> None:
    [port] = engine.free_ports(1)
    engine.container(ports={f"{port}/tcp": ("127.0.0.1", port)})

    with refused(engine, PortUnavailable, f"{port}.*already allocated.*another port"):
        open_session(long_config(ports=[port]))


def test_a_port_that_a_program_of_the_host_has(open_session: OpenSession, engine: Engine) -> None:
    [port] = engine.free_ports(1)
    listen = (
        f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); print('up', flush=True); time.sleep(60)"
    )
    listener = engine.container(["python3", "-c", listen], network_mode="host")
    assert eventually(lambda: listener.logs() == b"up\n")

    with refused(engine, PortUnavailable, str(port)):
        open_session(long_config(ports=[port]))


def test_an_entrypoint_that_does_not_exist(open_session: OpenSession, engine: Engine) -> None:
    with refused(engine, ContainerFailedToStart, "failed to start.*no-such-program"):
        open_session(ContainerConfig(entrypoint=["no-such-program"]))


def test_a_user_that_does_not_exist(open_session: OpenSession, engine: Engine) -> None:
    with refused(engine, ContainerFailedToStart, "no-such-user"):
        open_session(long_config(user="no-such-user"))


def test_a_refused_session_may_be_asked_for_again(open_session: OpenSession, engine: Engine) -> None:
    for _ in range(2):
        with refused(engine, NetworkNotFound, "no-such-network"):
            open_session(long_config(networks=["no-such-network"]))

    assert open_session(long_config()).execute_command("echo up").stdout == "up\n"


# --- a name that is not ours to take -----------------------------------------------------------------


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"podkit.schema": "99"},
        {"podkit.schema": "1", "podkit.prefix": "{prefix}", "podkit.user_id": "eve", "podkit.session_id": "123"},
        {"podkit.schema": "1", "podkit.prefix": "other", "podkit.user_id": "bob", "podkit.session_id": "123"},
    ],
    ids=["unlabelled", "schema of tomorrow", "another user", "another prefix"],
)
def test_a_name_that_belongs_to_another_container_is_refused_and_that_one_never_touched(
    open_session: OpenSession, sessions: BaseSessionManager, engine: Engine, labels: dict[str, str]
) -> None:
    session = open_session()
    name = session.get_info().container_name
    session.close()
    labels = {key: value.format(prefix=engine.prefix) for key, value in labels.items()}
    other = engine.container(name=name, labels=labels)

    for use in (
        lambda: open_session(),
        lambda: sessions.get_session("bob", "123"),
        lambda: sessions.execute_command("bob", "123", "true"),
        lambda: sessions.close_session("bob", "123"),
    ):
        with within(SOON), pytest.raises(NameTaken, match=name):
            use()
    sessions.cleanup_all()

    other.reload()
    assert (other.status, other.name) == ("running", name)


def test_a_stopped_container_with_the_name_is_not_touched_either(open_session: OpenSession, engine: Engine) -> None:
    session = open_session()
    name = session.get_info().container_name
    session.close()
    other = engine.container(name=name, start=False)

    with refused(engine, NameTaken, name):
        open_session()

    other.reload()
    assert other.status == "created"


# --- a container that is gone, for the layers below ---------------------------------------------------


def test_a_container_that_is_gone_is_a_typed_error_of_the_container_manager(
    open_session: OpenSession, engine: Engine, manager: object
) -> None:
    from podkit.core.manager import SimpleContainerManager

    assert isinstance(manager, SimpleContainerManager)
    id = open_session().get_info().container_id
    assert id is not None
    engine.remove(id)

    with pytest.raises(ContainerNotFound):
        manager.execute_command(id, "true")
    with pytest.raises(ContainerNotFound):
        manager.get_container_status(id)
    with pytest.raises(ContainerNotFound):
        manager.start_container(id, long_config())
    manager.remove_container(id)


def test_a_recreation_that_is_refused_leaves_the_session_to_be_tried_again(
    open_session: OpenSession, engine: Engine
) -> None:
    network = engine.network()
    session = open_session(long_config(networks=[network]))
    session.write_file("file", "kept")
    engine.remove(session.get_info().container_name)
    engine.client.networks.get(network).remove()

    with refused(engine, NetworkNotFound, network):
        session.execute_command("true")

    engine.client.networks.create(network, driver="bridge", labels={"pt.run": "again"})
    try:
        assert session.execute_command("cat file").stdout == "kept"
    finally:
        session.close()
        engine.client.networks.get(network).remove()


def test_run_in_docker_leaves_nothing_where_the_engine_refuses(facade: Engine) -> None:
    with refused(facade, ImageNotFound, "localhost:1/podkit/no-such-image"):
        run_in_docker("true", image="localhost:1/podkit/no-such-image")
