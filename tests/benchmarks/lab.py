"""What is measured on: sessions of podkit's and containers of the plain SDK, on one engine."""

from __future__ import annotations

import os
import platform
import secrets
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import docker
from docker.errors import NotFound
from docker.models.containers import Container

from podkit import SessionProxy, get_docker_session
from podkit._models.config import ContainerConfig, default_image
from podkit.backends.docker import DockerBackend

LABEL = "podkit-benchmark"
COMMAND = ["true"]
THREADS = 16
_LIFETIME_SECONDS = 3600


class Lab:
    """Makes what is measured, under a prefix of the run's own, and removes it."""

    def __init__(self) -> None:
        self.id = secrets.token_hex(4)
        self.prefix = os.environ["PODKIT_CONTAINER_PREFIX"] = f"pb-{self.id}"
        self.backend = DockerBackend()
        self.backend.connect()
        self.client = docker.from_env(max_pool_size=2 * THREADS)  # the default of 10 would slow the threads down
        if self.client.info()["ID"] != self.backend.client.info()["ID"]:
            sys.exit("podkit and docker.from_env() find different engines: set DOCKER_HOST")

    def session(self, name: str) -> SessionProxy:
        """Open a session."""
        return get_docker_session("benchmark", name, ContainerConfig(container_lifetime_seconds=_LIFETIME_SECONDS))

    def container(self) -> Container:
        """Create a container in the plain way."""
        return self.client.containers.create(
            default_image(), ["sleep", str(_LIFETIME_SECONDS)], labels={LABEL: self.id}
        )

    def live_session(self, name: str) -> SessionProxy:
        """Open a session that has run a command."""
        session = self.session(name)
        run(session)
        return session

    def live_container(self) -> Container:
        """Create and start a container that has run a command."""
        container = self.container()
        container.start()
        exec_run(container)
        return container

    def about(self) -> dict[str, Any]:
        """Tell of the machine and the versions."""
        engine, info = self.client.version(), self.client.info()
        return {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {
                "cpus": os.cpu_count(),
                "cpu": _cpu_model(),
                "memory_bytes": info["MemTotal"],
                "load_average": os.getloadavg(),
                "platform": platform.platform(),
            },
            "versions": {
                "podkit": version("podkit"),
                "docker_sdk": version("docker"),
                "python": platform.python_version(),
                "engine": engine["Version"],
                "api": self.client.api.api_version,
                "kernel": engine["KernelVersion"],
                "storage_driver": info["Driver"],
                "cgroup": info.get("CgroupVersion", "1"),
            },
            "image": default_image(),
        }

    def clean_up(self) -> None:
        """Remove all that was made."""

        def remove(id: str) -> None:
            try:
                self.client.api.remove_container(id, v=True, force=True)
            except NotFound:
                return

        labels = f"{LABEL}={self.id}", f"podkit.prefix={self.prefix}"
        with ThreadPoolExecutor(4) as threads:
            for label in labels:
                rows = self.client.api.containers(all=True, filters={"label": label})
                list(threads.map(remove, [row["Id"] for row in rows]))
        self.client.close()


def run(session: SessionProxy) -> None:
    """Run the shortest command."""
    session.execute_command(COMMAND).check()


def exec_run(container: Container) -> None:
    """Run the shortest command in the plain way."""
    code, _ = container.exec_run(COMMAND, demux=True)
    assert code == 0


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
