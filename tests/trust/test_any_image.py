"""The agent in whatever image: it needs nothing of it, and where it cannot be had the engine's exec takes its place."""

from __future__ import annotations

import logging
import tarfile
from collections.abc import Iterator
from io import BytesIO

import pytest

from podkit import SessionProxy
from podkit.agent import agent_program
from podkit.backends.docker import DockerBackend
from podkit.core.models import Mount
from podkit.errors import InvalidInput, NotSupported
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import Engine, container_of
from tests.support.payloads import MARK, PAYLOADS
from tests.support.run import new_prefix
from tests.support.victim import Victim

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def static_image(backend: DockerBackend) -> Iterator[str]:
    """An image with nothing but one static program, which says how it is used and ends with 64."""
    content = BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        program = agent_program.file_for().read_bytes()
        entry = tarfile.TarInfo("hello")
        entry.size, entry.mode = len(program), 0o755
        archive.addfile(entry, BytesIO(program))
    name = f"{new_prefix()}-static"
    backend.client.api.import_image_from_data(content.getvalue(), repository=name, tag="latest")
    yield f"{name}:latest"
    backend.client.api.remove_image(f"{name}:latest", force=True)


@pytest.fixture(scope="module")
def own_image(own_engine: Engine, nginx_image: str) -> Iterator[str]:
    """An image with a first process of its own."""
    name = f"{own_engine.prefix}-own"
    container = own_engine.container([], image=nginx_image, start=False)
    container.commit(repository=name, tag="latest", changes='CMD ["nginx", "-g", "daemon off;"]')
    yield f"{name}:latest"
    own_engine.clean_up()
    own_engine.client.api.remove_image(f"{name}:latest", force=True)


def assert_agent(session: SessionProxy) -> None:
    """Its commands run through the agent, and a tree is killed."""
    assert session.isolation.commands == "agent"
    result = session.execute_command(PAYLOADS["setsid"].command, timeout=0.4)
    assert (result.timed_out, result.container_restarted) == (True, False)
    assert session.execute_command("echo alive").stdout == "alive\n"


# --- images and configurations with the agent ------------------------------------------------------------------


def test_an_image_with_nothing_but_one_program_runs_it(open_session: OpenSession, static_image: str) -> None:
    session = open_session(long_config(image=static_image))
    result = session.execute_command(["/hello"])
    assert (result.exit_code, session.isolation.commands) == (64, "agent")
    assert result.stderr.startswith("usage")

    missing = session.execute_command("echo there is no shell")
    assert missing.exit_code == 127
    assert "'sh'" in missing.stderr


def test_an_image_with_nothing_but_one_program_is_killed_in_time(
    open_session: OpenSession, engine: Engine, static_image: str
) -> None:
    session = open_session(long_config(image=static_image))
    result = session.execute_command(["/hello", "sleep", MARK], timeout=0.4)
    assert (result.exit_code, result.timed_out, result.container_restarted) == (124, True, False)
    assert not [line for line in engine.processes(container_of(session)) if MARK in line]


@pytest.mark.parametrize(
    "fields",
    [
        {"entrypoint": ["nginx"], "command": ["-g", "daemon off;"]},
        {"entrypoint": []},
        {"command": ["sleep", "600"]},
        {"user": "nobody"},
        {"user": "65534:65534"},
    ],
    ids=str,
)
def test_the_agent_runs_beside_whatever_first_process(
    open_session: OpenSession, nginx_image: str, fields: dict[str, object]
) -> None:
    assert_agent(open_session(long_config(image=nginx_image, **fields)))


def test_the_agent_runs_beside_the_images_own_first_process(
    open_session: OpenSession, engine: Engine, own_image: str
) -> None:
    session = open_session(long_config(image=own_image, use_image_defaults=True))
    assert_agent(session)
    assert [line for line in engine.processes(container_of(session)) if line.startswith("nginx: master")]


def test_the_agent_runs_where_what_is_mounted_cannot_be_written(open_session: OpenSession, engine: Engine) -> None:
    volume = engine.volume()
    mounts = [Mount(source=volume, target=place, type="volume", read_only=True) for place in ("/tmp", "/var/tmp")]
    assert_agent(open_session(long_config(volumes=mounts)))


def test_a_command_is_the_user_that_the_container_is_for(open_session: OpenSession, busybox_image: str) -> None:
    session = open_session(long_config(image=busybox_image, user="65534:65534"))
    assert session.execute_command("id -u; id -g").stdout == "65534\n65534\n"


@pytest.mark.parametrize("use", ["execute_command", "popen"])
def test_a_user_that_is_not_there_is_refused_and_costs_the_others_no_agent(
    open_session: OpenSession, busybox_image: str, use: str
) -> None:
    session = open_session(long_config(image=busybox_image, user="65534:65534"))  # each user has a channel of its own
    for _ in range(2):
        with pytest.raises(InvalidInput, match="nosuchuser"):
            getattr(session, use)("id", user="nosuchuser")
    assert_agent(session)


def test_an_image_without_any_users_runs_commands_as_a_number(open_session: OpenSession, static_image: str) -> None:
    session = open_session(long_config(image=static_image, user="4242"))
    assert session.execute_command(["/hello"], user="4343").exit_code == 64
    with pytest.raises(InvalidInput, match="nobody"):
        session.execute_command(["/hello"], user="nobody")
    assert session.isolation.commands == "agent"


# --- without it ---------------------------------------------------------------------------------------------------


@pytest.fixture
def without(backend: DockerBackend, engine: Engine, busybox_image: str) -> Victim:
    """A container whose agent cannot be found any more: root of it has moved the directory above."""
    victim = Victim(backend, engine, busybox_image)
    assert victim.session.execute_command("mv /run /away").ok
    return victim


def test_where_the_agent_cannot_be_run_that_is_said_once(without: Victim, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, logger="podkit"):
        session = without.opened_anew()
        for _ in range(3):
            assert session.execute_command("echo alive").stdout == "alive\n"

    assert [record.getMessage().count("engine's exec") for record in caplog.records] == [1]
    assert session.isolation.commands == "engine exec"
    assert session.isolation.commands_reason


def test_without_the_agent_a_timeout_leaves_nothing_running_either(without: Victim) -> None:
    session = without.opened_anew()
    result = session.execute_command(PAYLOADS["setsid"].command, timeout=0.4)
    assert (result.exit_code, result.timed_out, result.container_restarted) == (124, True, True)
    assert without.processes() == []


def test_without_the_agent_a_running_command_is_refused_with_the_reason(without: Victim) -> None:
    with pytest.raises(NotSupported, match="agent"):
        without.opened_anew().popen(["cat"])
