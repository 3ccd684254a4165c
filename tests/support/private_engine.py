"""An engine of the test's own, which may be frozen, killed, restarted and filled.

A `dockerd` with its own socket, data root, exec root and containerd, in network, mount and process namespaces of its
own: it takes neither the first engine's bridge nor its mounts away, and ends as a whole with its keeper. Needs root,
`dockerd` and `unshare` on this machine, which the runner's container does not have: see CONTRIBUTING.md.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import docker
import pytest
from docker.errors import APIError

from podkit.backends.docker import DockerBackend
from tests.support import engine_keeper
from tests.support.waiting import eventually

_HIDDEN = Path("/run/containerd")  # where shims have their sockets, whichever engine's they are
_EXEC_ROOT = _HIDDEN / "private-engine"
AGENT = "podkit-agent-"
"""How the volume that podkit places its agent in begins."""
_START_SECONDS = 60.0
_END_SECONDS = 60.0
_STARTS = 3
_SLOW_CONTAINERD = "timeout waiting for containerd to start\n"


def why_not() -> str | None:
    """Say why no engine can be started here; `None` where one can."""
    if os.geteuid() != 0:
        return "this needs root"
    missing = [program for program in ("dockerd", "containerd", "unshare") if shutil.which(program) is None]
    return f"this needs {', '.join(missing)} on this machine" if missing else None


class PrivateEngine:
    """An engine that runs from the beginning of a `with` block to its end.

    Args:
        directory: for its data, its socket and its log; made here, and removed at the end. Its path must be short: a
            socket's has at most 107 bytes.
        options: for `dockerd`, such as `--live-restore`.
        disk_bytes: keep its data on a file system of this size instead.
    """

    def __init__(self, directory: Path, *options: str, disk_bytes: int | None = None) -> None:
        self.directory = directory
        self.data = directory / "data"
        self.url = f"unix://{directory}/docker.sock"
        self.options: Sequence[str] = options
        self._disk_bytes = disk_bytes
        self._cgroup = f"podkit-{directory.name}"

    # --- its life -----------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        if reason := why_not():
            pytest.fail(f"an engine of the test's own cannot be started: {reason}; see CONTRIBUTING.md")
        self.data.mkdir(parents=True)
        (self.directory / "daemon.json").write_text("{}")  # not the host's
        _HIDDEN.mkdir(parents=True, exist_ok=True)
        self.log = self.directory / "engine.log"
        disk = [str(self._make_disk()), str(self.data)] if self._disk_bytes else []
        keeper = [sys.executable, engine_keeper.__file__, str(self.log), str(_HIDDEN), *disk]
        self._keeper = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", *keeper],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self.start()
            self.client = docker.DockerClient(base_url=self.url, version="1.41", timeout=60)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.client.close()
        self._end()

    def start(self, *options: str) -> None:
        """Start it, after it has ended; blocks until it answers. `options` stand beside those that it always has."""
        command = ["dockerd", f"--host={self.url}", f"--data-root={self.data}", f"--exec-root={_EXEC_ROOT}"]
        command += [f"--pidfile={self.directory}/docker.pid", f"--config-file={self.directory}/daemon.json"]
        command += ["--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{self._cgroup}"]
        # dockerd gives its containerd 15 s and no more, which a busy disk may exceed: started again, as systemd would
        for _ in range(_STARTS):
            assert self._tell("start", *command, *self.options, *options) == "started"
            assert eventually(self._answers_or_ended, seconds=_START_SECONDS), self._words()
            if self._tell("look") == "runs" or not self._words().endswith(_SLOW_CONTAINERD):
                break
        assert self._tell("look") == "runs", self._words()

    def freeze(self) -> None:
        """Stop its process with SIGSTOP: it says nothing any more, and its containers run on."""
        assert self._tell("signal", str(int(signal.SIGSTOP))) == "signalled"

    def thaw(self) -> None:
        """Let it go on."""
        self._tell("signal", str(int(signal.SIGCONT)))

    def kill(self) -> None:
        """End its process with SIGKILL; its containers run on until it is started again."""
        self._tell("signal", str(int(signal.SIGKILL)))
        assert self._tell("wait", str(_END_SECONDS)) == "ended"

    def stop(self) -> None:
        """End it in good order; without `--live-restore` its containers are stopped."""
        self._tell("signal", str(int(signal.SIGTERM)))
        assert self._tell("wait", str(_END_SECONDS)) == "ended", self._words()

    def recover(self) -> None:
        """Have it answer again, whatever has been done to it, with nothing on it but images and podkit's agent."""
        self.thaw()
        if self._tell("look") == "ended":
            self.start()
        assert eventually(self._without_containers), self.audit()
        self.client.api.prune_networks()
        for name in self._volumes():
            if not name.startswith(AGENT):
                self.client.api.remove_volume(name, force=True)

    def _without_containers(self) -> bool:
        """Remove all containers; whether there was none: one may be made or removed by a request of a moment ago."""
        found = self.client.api.containers(all=True)
        for row in found:
            with suppress(APIError):
                self.client.api.remove_container(row["Id"], v=True, force=True)
        return not found

    def forget_agent(self) -> None:
        """Remove the volume of podkit's agent, as on an engine that podkit has never used."""
        for name in self._volumes():
            self.client.api.remove_volume(name)

    def _volumes(self) -> list[str]:
        return [str(row["Name"]) for row in self.client.api.volumes()["Volumes"] or ()]

    def _tell(self, *words: str) -> str:
        assert self._keeper.stdin is not None
        assert self._keeper.stdout is not None
        self._keeper.stdin.write("\t".join(words) + "\n")
        self._keeper.stdin.flush()
        answer = self._keeper.stdout.readline().strip()
        assert answer, f"the keeper of the private engine has ended with {self._keeper.wait()}"
        return answer

    def _answers_or_ended(self) -> bool:
        with suppress(OSError), socket.socket(socket.AF_UNIX) as connection:  # not the SDK: it leaves sockets open
            connection.settimeout(5)
            connection.connect(self.url.removeprefix("unix://"))
            connection.sendall(b"GET /_ping HTTP/1.1\r\nHost: engine\r\n\r\n")
            return connection.recv(64).startswith(b"HTTP/1.1 200")
        return self._tell("look") == "ended"

    def _words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:] if self.log.exists() else "it has no log"

    def _end(self) -> None:
        with suppress(BrokenPipeError):
            self._keeper.communicate(timeout=_END_SECONDS)
        for parent in Path("/sys/fs/cgroup").glob(f"**/{self._cgroup}"):
            for directory, _, _ in os.walk(parent, topdown=False):
                with suppress(OSError):
                    os.rmdir(directory)
        shutil.rmtree(self.directory)

    def _make_disk(self) -> Path:
        disk = self.directory / "disk"
        with open(disk, "wb") as file:
            file.truncate(self._disk_bytes or 0)
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(disk)], check=True)
        return disk

    # --- what is on it ------------------------------------------------------------------------------

    def load(self, image: str, source: docker.DockerClient) -> None:
        """Copy an image from another engine: `docker save | docker load`."""
        self.client.api.load_image(source.api.get_image(image))

    def backend(self) -> DockerBackend:
        """A backend of podkit's that is connected to it."""
        backend = DockerBackend()
        with self.chosen():
            backend.connect()
        return backend

    @contextmanager
    def chosen(self) -> Iterator[None]:
        """A block in which the environment names this engine."""
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("DOCKER_HOST", self.url)
            yield

    def audit(self) -> list[str]:
        """What is on it besides its images and podkit's one volume for the agent: nothing, where nothing leaks."""
        api = self.client.api
        found = [f"container {row['Names']} ({row['Status']})" for row in api.containers(all=True)]
        found += [f"network {row['Name']}" for row in api.networks() if row["Name"] not in ("bridge", "host", "none")]
        volumes = self._volumes()
        agent = [name for name in volumes if name.startswith(AGENT)][:1]
        return found + [f"volume {name}" for name in volumes if name not in agent]
