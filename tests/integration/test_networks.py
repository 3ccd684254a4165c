"""Networks that a container joins, and ports that it publishes."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from podkit import PortPool, SessionProxy
from podkit.errors import NetworkNotFound, PortUnavailable
from podkit.utils.network import get_parent_container_networks
from tests.integration.conftest import OpenSession, long_config
from tests.support.engine import FETCH, Engine, container_of
from tests.support.run import IN_RUNNER
from tests.support.waiting import eventually

pytestmark = pytest.mark.integration

SERVE = """
mkdir -p /tmp/www && cd /tmp/www && echo -n {answer} > index.html
python3 -m http.server {port} > /dev/null 2>&1 &
"""


def networks_of(engine: Engine, session: SessionProxy) -> dict[str, Any]:
    """The networks that a session's container is in."""
    found: dict[str, Any] = engine.inspect(session.get_info().container_name)["NetworkSettings"]["Networks"]
    return found


def serve(session: SessionProxy, port: int, answer: str = "hello") -> None:
    """Start a web server in a session."""
    session.execute_command(SERVE.format(port=port, answer=answer)).check()


def fetch_inside(session: SessionProxy, url: str) -> str:
    """What a web server answers to a session."""
    return session.execute_command(["python3", "-c", FETCH, url], timeout=60).check().stdout


# --- networks ----------------------------------------------------------------------------------------


def test_a_container_joins_the_network_that_it_names(open_session: OpenSession, engine: Engine) -> None:
    network = engine.network()

    assert networks_of(engine, open_session(long_config(networks=[network]))).keys() == {network}


def test_a_container_joins_all_networks_that_it_names(open_session: OpenSession, engine: Engine) -> None:
    names = [engine.network() for _ in range(3)]

    assert networks_of(engine, open_session(long_config(networks=names))).keys() == set(names)


def test_sessions_on_one_network_reach_each_other_by_name(open_session: OpenSession, engine: Engine) -> None:
    config = long_config(networks=[engine.network()])
    server, client = open_session(config, session_id="server"), open_session(config, session_id="client")
    serve(server, 8000)

    assert fetch_inside(client, f"http://{server.get_info().container_name}:8000/") == "hello"


def test_a_session_reaches_a_service_on_each_of_its_networks(open_session: OpenSession, engine: Engine) -> None:
    one, two = engine.network(), engine.network()
    first = open_session(long_config(networks=[one]), session_id="first")
    second = open_session(long_config(networks=[two]), session_id="second")
    both = open_session(long_config(networks=[one, two]), session_id="both")
    serve(first, 8000, "first")
    serve(second, 8000, "second")

    for server in (first, second):
        url = f"http://{server.get_info().container_name}:8000/"
        assert fetch_inside(both, url) == server.session_id


def made_anew(engine: Engine, network: str) -> None:
    """Remove a network, and make another one of its name."""
    engine.client.networks.get(network).remove()
    engine.network(network)


def test_a_session_comes_back_in_a_network_that_was_made_anew_under_its_name(
    open_session: OpenSession, engine: Engine
) -> None:
    names = [engine.network(), engine.network()]
    session = open_session(long_config(networks=names))
    id = container_of(session)
    session.execute_command("echo kept > /tmp/file").check()
    engine.client.api.stop(id, timeout=1)
    made_anew(engine, names[0])

    assert session.execute_command("cat /tmp/file").stdout == "kept\n"
    assert container_of(session) == id
    assert networks_of(engine, session).keys() == set(names)


def test_a_network_that_is_gone_is_named_each_time_until_it_is_back(open_session: OpenSession, engine: Engine) -> None:
    network = engine.network()
    session = open_session(long_config(networks=[network]))
    engine.client.api.stop(container_of(session), timeout=1)
    engine.client.networks.get(network).remove()

    for _ in range(2):
        with pytest.raises(NetworkNotFound, match=f"docker network create {network}"):
            session.execute_command("true")
    engine.network(network)
    assert session.execute_command("echo back").stdout == "back\n"
    assert networks_of(engine, session).keys() == {network}


def test_closing_a_session_leaves_the_network_as_it_was(open_session: OpenSession, engine: Engine) -> None:
    network = engine.network()
    session = open_session(long_config(networks=[network]))

    session.close()

    assert engine.client.networks.get(network).attrs["Containers"] == {}


# --- the networks around podkit ----------------------------------------------------------------------


@pytest.fixture
def server_here() -> Iterator[int]:
    """A web server in this very process; its port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"from podkit's own container")

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("0.0.0.0", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


if IN_RUNNER:

    def test_the_networks_of_podkits_own_container_are_found() -> None:
        assert get_parent_container_networks() == [os.environ["PODKIT_TEST_RUNNER_NETWORK"]]

    def test_a_container_inherits_the_networks_of_podkits_own(open_session: OpenSession, engine: Engine) -> None:
        session = open_session(long_config(inherit_parent_networks=True))

        assert networks_of(engine, session).keys() == {os.environ["PODKIT_TEST_RUNNER_NETWORK"]}

    def test_inherited_networks_come_besides_those_that_are_named(open_session: OpenSession, engine: Engine) -> None:
        named, own = engine.network(), os.environ["PODKIT_TEST_RUNNER_NETWORK"]
        session = open_session(long_config(networks=[named, own], inherit_parent_networks=True))

        assert networks_of(engine, session).keys() == {named, own}

    def test_a_session_reaches_a_server_in_podkits_own_container(open_session: OpenSession, server_here: int) -> None:
        session = open_session(long_config(inherit_parent_networks=True))
        address = socket.gethostbyname(socket.gethostname())

        assert fetch_inside(session, f"http://{address}:{server_here}/") == "from podkit's own container"

else:

    def test_outside_of_a_container_there_are_no_networks_to_inherit() -> None:
        assert get_parent_container_networks() == []

    def test_outside_of_a_container_nothing_is_inherited(open_session: OpenSession, engine: Engine) -> None:
        asked, plain = long_config(inherit_parent_networks=True), long_config()

        inherited = networks_of(engine, open_session(asked, session_id="asked"))
        assert inherited.keys() == networks_of(engine, open_session(plain, session_id="plain")).keys()


# --- ports -------------------------------------------------------------------------------------------


def test_ports_are_published_under_the_same_number_on_loopback_only(open_session: OpenSession, engine: Engine) -> None:
    ports = engine.free_ports(2)

    session = open_session(long_config(ports=ports))

    published = engine.inspect(session.get_info().container_name)["NetworkSettings"]["Ports"]
    assert published == {f"{port}/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}] for port in ports}
    assert session.get_accessible_ports() == {port: port for port in ports}


def test_a_server_inside_is_reached_on_the_hosts_port(open_session: OpenSession, engine: Engine) -> None:
    [port] = engine.free_ports(1)
    session = open_session(long_config(ports=[port]))
    serve(session, port)

    assert engine.fetch(f"http://127.0.0.1:{port}/") == "hello"


def test_nginx_serves_on_the_hosts_port(open_session: OpenSession, engine: Engine, nginx_image: str) -> None:
    """As in Example 3, with a port that is free and a server that is told of it."""
    [port] = engine.free_ports(1)
    session = open_session(long_config(image=nginx_image, ports=[port]))
    settings = f"events {{}} http {{ server {{ listen {port}; return 200 'nginx here'; }} }}"
    session.write_file("/tmp/nginx.conf", settings)
    session.execute_command("(nginx -c /tmp/nginx.conf -g 'daemon off;' > /tmp/log 2>&1 &)")

    assert engine.fetch(f"http://127.0.0.1:{port}/") == "nginx here"


def test_a_port_stays_the_sessions_through_a_restart(open_session: OpenSession, engine: Engine) -> None:
    [port] = engine.free_ports(1)
    session = open_session(long_config(ports=[port]))
    engine.stop(session.get_info().container_name)
    assert session.get_accessible_ports() == {}

    session.execute_command("true")
    serve(session, port)

    assert session.get_accessible_ports() == {port: port}
    assert engine.fetch(f"http://127.0.0.1:{port}/") == "hello"


def test_a_port_is_free_again_after_closing(open_session: OpenSession, engine: Engine) -> None:
    [port] = engine.free_ports(1)
    open_session(long_config(ports=[port]), session_id="first").close()

    assert open_session(long_config(ports=[port]), session_id="second").get_accessible_ports() == {port: port}


def test_a_session_without_ports_publishes_none(shell: SessionProxy) -> None:
    assert shell.get_accessible_ports() == {}


def test_sessions_get_their_ports_from_a_pool(open_session: OpenSession, engine: Engine) -> None:
    start = eventually_consecutive(engine, 4)
    pool = PortPool(start, start + 3, 2)

    first = open_session(long_config(ports=pool.allocate()), session_id="first")
    second = open_session(long_config(ports=pool.allocate()), session_id="second")

    assert first.get_accessible_ports() == {start: start, start + 1: start + 1}
    assert second.get_accessible_ports() == {start + 2: start + 2, start + 3: start + 3}
    with pytest.raises(PortUnavailable):
        pool.allocate()
    first.close()
    pool.release([start, start + 1])
    third = open_session(long_config(ports=pool.allocate()), session_id="third")
    assert third.get_accessible_ports().keys() == {start, start + 1}


def eventually_consecutive(engine: Engine, count: int) -> int:
    """The first of some free ports in a row."""
    found: list[int] = []

    def look() -> bool:
        free = set(engine.free_ports(2000))
        found.extend(port for port in free if free.issuperset(range(port, port + count)))
        return bool(found)

    assert eventually(look)
    return found[0]
