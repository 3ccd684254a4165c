"""The engine as seen from outside: through its own SDK, never through podkit."""

from __future__ import annotations

import itertools
import random
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import docker
from docker.errors import APIError, NotFound
from docker.models.containers import Container

from podkit import SessionProxy
from tests.support.leftovers import LABEL
from tests.support.run import run_id, workspaces_host
from tests.support.waiting import eventually

FETCH = """
import sys, time, urllib.request
for attempt in range(100):
    try:
        sys.stdout.write(urllib.request.urlopen(sys.argv[1], timeout=2).read().decode())
        break
    except OSError as exc:
        error = exc
        time.sleep(0.1)
else:
    sys.exit(f"no answer: {error}")
"""

FREE_PORTS = """
import socket, sys
free = []
for port in map(int, sys.argv[1:]):
    with socket.socket() as listener:
        try:
            listener.bind(("0.0.0.0", port))
            free.append(port)
        except OSError:
            pass
print(*free)
"""


class Engine:
    """Looks at containers, and makes what is not podkit's; `clean_up` removes that again.

    Args:
        client: the SDK's.
        prefix: begins the names of all that it makes.
        image: with a Python, for what must run on the engine's own network.
    """

    def __init__(self, client: docker.DockerClient, prefix: str, image: str) -> None:
        self.client = client
        self.prefix = prefix
        self.image = image
        self._labels = {LABEL: run_id()}
        self._numbers = itertools.count()
        self._made: list[Any] = []
        self._volumes: list[str] = []
        self._images: list[str] = []

    # --- looking ------------------------------------------------------------------------------------

    def inspect(self, id: str) -> dict[str, Any]:
        """What `docker inspect` says."""
        found: dict[str, Any] = self.client.api.inspect_container(id)
        return found

    def exists(self, id: str) -> bool:
        """Whether there is such a container, in whatever state."""
        try:
            self.inspect(id)
        except NotFound:
            return False
        return True

    def state(self, id: str) -> str:
        """`running`, `exited`, `created`..."""
        status: str = self.inspect(id)["State"]["Status"]
        return status

    def names(self, prefix: str | None = None) -> list[str]:
        """What `docker ps -a` shows of names that begin so, by default with the test's prefix; not what this made."""
        begin, own = "/" + (prefix or self.prefix), {made.id for made in self._made}
        return sorted(
            row["Names"][0].removeprefix("/")
            for row in self.client.api.containers(all=True)
            if row["Names"] and row["Names"][0].startswith(begin) and row["Id"] not in own
        )

    def processes(self, id: str) -> list[str]:
        """The command lines of all that runs in a container: what `docker top` shows."""
        top = self.client.api.top(id, ps_args="-eo pid,args")
        return [row[1] for row in top["Processes"] or ()]

    def started_at(self, id: str) -> str:
        """When it was started last."""
        started: str = self.inspect(id)["State"]["StartedAt"]
        return started

    # --- doing things behind podkit's back ----------------------------------------------------------

    def stop(self, id: str) -> None:
        """End a container by SIGTERM, and wait for its end."""
        self.wait_until_up(id)
        self.client.api.stop(id, timeout=10)

    def wait_until_up(self, id: str) -> None:
        """Wait until the main process takes signals: the engine's start returns a moment before, and loses them."""
        init = 2 if self.inspect(id)["HostConfig"].get("Init") else 1

        def up() -> bool:
            lines = self.processes(id)
            return len(lines) >= init and not any("runc" in line for line in lines)

        assert eventually(up), self.processes(id)

    def kill(self, id: str) -> None:
        """End a container by SIGKILL, and wait for its end."""
        self.client.api.kill(id)
        self.wait_for_end(id)

    def remove(self, id: str) -> None:
        """`docker rm -f`."""
        self.client.api.remove_container(id, force=True)

    def wait_for_end(self, id: str, seconds: float = 30) -> int:
        """Wait until a container does not run, and give its exit code."""
        assert eventually(lambda: self.state(id) == "exited", seconds=seconds), f"{id} is {self.state(id)}"
        code: int = self.inspect(id)["State"]["ExitCode"]
        return code

    # --- making what is not podkit's ----------------------------------------------------------------

    def new_name(self, what: str = "other") -> str:
        """A name that nothing has yet."""
        return f"{self.prefix}.{what}{next(self._numbers)}"  # a dot: not what podkit makes of this prefix

    def container(
        self, command: Sequence[str] = ("sleep", "600"), *, name: str | None = None, start: bool = True, **options: Any
    ) -> Container:
        """A container of the user's own."""
        labels = self._labels | options.pop("labels", {})
        options.setdefault("image", self.image)
        made = self.client.containers.create(
            command=list(command), name=name or self.new_name(), labels=labels, **options
        )
        self._made.append(made)
        if start:
            made.start()
        return made

    def network(self, name: str | None = None) -> str:
        """A network of the user's own; its name."""
        made = self.client.networks.create(name or self.new_name("network"), driver="bridge", labels=self._labels)
        self._made.append(made)
        return str(made.name)

    def volume(self, name: str | None = None) -> str:
        """A named volume, empty; its name."""
        made = self.client.volumes.create(name or self.new_name("volume"), labels=self._labels)
        self._made.append(made)
        return str(made.name)

    def will_remove_volume(self, name: str) -> None:
        """Remove a volume that podkit is about to make, at the end."""
        self._volumes.append(name)

    def changed_image(self, changes: Sequence[str]) -> str:
        """The test's image with instructions of a Dockerfile applied; its name."""
        container = self.container(["true"], start=False)
        name = f"{self.prefix}/changed{next(self._numbers)}:test"
        made = container.commit(repository=name.partition(":")[0], tag="test", changes="\n".join(changes))
        self._images.append(made.id)
        return name

    def run(self, command: Sequence[str], **options: Any) -> str:
        """Run a command in a container of its own and give what it printed."""
        container = self.container(command, **options)
        code = container.wait(timeout=60)["StatusCode"]
        text = container.logs().decode()
        container.remove(v=True)
        assert code == 0, f"{command}: exit code {code}\n{text}"
        return str(text)

    # --- the engine's own host, which is another than the tests' where these run in a container ------

    def fetch(self, url: str) -> str:
        """What a web server answers to the engine's host."""
        return self.run(["python3", "-c", FETCH, url], network_mode="host")

    def free_ports(self, count: int) -> list[int]:
        """Ports of the engine's host that nobody listens on, none of those that connections are made from."""
        tried = [str(port) for port in random.sample(range(20_000, 30_000), count + 20)]
        free = self.run(["python3", "-c", FREE_PORTS, *tried], network_mode="host").split()
        return [int(port) for port in free[:count]]

    def clean_up(self) -> None:
        """Remove all that was made here, and every container with the prefix, whatever it is."""
        for row in self.client.api.containers(all=True):
            if any(name.startswith(f"/{self.prefix}") for name in row["Names"] or ()):
                self._take_away(lambda id=row["Id"]: self.client.api.remove_container(id, v=True, force=True))
        for made in reversed(self._made):
            if isinstance(made, Container):
                self._take_away(lambda made=made: made.remove(v=True, force=True))
            else:
                self._take_away(made.remove)
        self._made.clear()
        for id in self._images:
            self._take_away(lambda id=id: self.client.api.remove_image(id, force=True))
        self._images.clear()
        for name in self._volumes:
            self._take_away(lambda name=name: self.client.api.remove_volume(name))

    def _take_away(self, remove: Any) -> None:
        with suppress(NotFound):
            try:
                remove()
            except APIError as exc:
                if exc.status_code != 409:  # its removal is under way
                    raise


def container_of(session: SessionProxy) -> str:
    """The id of a session's container, which there must be."""
    id = session.get_info().container_id
    assert id is not None
    return id


def remove_directory(engine: Engine, directory: Path) -> None:
    """Remove a directory of workspaces, with what containers put there, once they are gone."""
    engine.clean_up()
    shutil.rmtree(directory, ignore_errors=True)
    if directory.exists():  # made by a container's root, where this process is not root
        engine.run(["rm", "-rf", f"/all/{directory.name}"], volumes={str(workspaces_host()): {"bind": "/all"}})
        engine.clean_up()
