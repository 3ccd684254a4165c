"""Odd values that once crossed as foreign exceptions: each is refused by an error of podkit's."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from podkit import PortPool
from podkit.core._identity import mounts_from_label
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig, Mount, StartupVerificationConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput
from podkit.monitors.health import ContainerHealthMonitor
from podkit.testing import FakeBackend
from podkit.utils.paths import container_to_host_path, get_workspace_path, host_to_container_path

HUGE: Any = 10**5000
"""More digits than Python prints."""

ODD: Any = object()


class GivesNumber(os.PathLike[str]):
    def __fspath__(self) -> Any:
        return 5


REFUSED: dict[str, Callable[[SimpleContainerManager], object]] = {
    "a huge timeout": lambda manager: manager.execute_command("x", "true", timeout=HUGE),
    "a huge command": lambda manager: manager.execute_command("x", HUGE),
    "an environment that is false": lambda manager: manager.execute_command("x", "true", environment=ODD),
    "an empty list as environment": lambda manager: manager.execute_command("x", "true", environment=[]),  # type: ignore[arg-type]
    "a number as container": lambda manager: manager.execute_command(5, "true"),  # type: ignore[arg-type]
    "half a character as container": lambda manager: manager.execute_command("\ud800", "true"),
    "a path as container": lambda manager: manager.execute_command("../x", "true"),
    "a huge id": lambda manager: manager.create_container(HUGE, "s", ContainerConfig()),
    "a huge port": lambda manager: ContainerConfig(ports=[HUGE]),
    "a huge lifetime": lambda manager: ContainerConfig(container_lifetime_seconds=HUGE),
    "a huge memory limit": lambda manager: ContainerConfig(memory_limit=HUGE),
    "more processes than a kernel has": lambda manager: ContainerConfig(pids_limit=1 << 63),
    "a negative user": lambda manager: ContainerConfig(user="-1"),
    "a user past the last": lambda manager: ContainerConfig(user="99999999999"),
    "a field named self": lambda manager: ContainerConfig(self=1),
    "a mount of strings": lambda manager: ContainerConfig(volumes=["/a:/b"]),  # type: ignore[list-item]
    "an endless check": lambda manager: StartupVerificationConfig(check_interval_seconds=float("inf")),
    "an endless wait": lambda manager: StartupVerificationConfig(max_wait_seconds=1e300),
    "a default image that is none": lambda manager: BaseSessionManager(manager, default_image=5),  # type: ignore[arg-type]
    "negative log lines": lambda manager: ContainerHealthMonitor(manager, log_lines=-1),
    "a huge check interval": lambda manager: ContainerHealthMonitor(manager, check_interval=HUGE),
    "a pool of words": lambda manager: PortPool("a", 5, 1),  # type: ignore[arg-type]
    "a pool of halves": lambda manager: PortPool(1, 5, 1.5),  # type: ignore[arg-type]
    "a release of no list": lambda manager: PortPool(1, 5, 1).release(5),  # type: ignore[arg-type]
    "no workspace base": lambda manager: get_workspace_path(None, "u", "s"),
    "a number as workspace base": lambda manager: get_workspace_path(5, "u", "s"),  # type: ignore[arg-type]
    "a number as host root": lambda manager: container_to_host_path("/workspace/x", "/workspace", 5),  # type: ignore[arg-type]
    "a number as mount target": lambda manager: container_to_host_path("/workspace/x", 5, "/x"),  # type: ignore[arg-type]
    "a number as host path": lambda manager: host_to_container_path(5, "/workspace", "/x"),  # type: ignore[arg-type]
    "a path that gives a number": lambda manager: Mount(source="/x", target=GivesNumber()),  # type: ignore[arg-type]
    "a label of empty mounts": lambda manager: mounts_from_label("[{}]"),
    "a label of odd options": lambda manager: mounts_from_label('[{"Target":"/x","VolumeOptions":"x"}]'),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refused_before_any_engine_call(fake: FakeBackend, tmp_path: Path, what: str) -> None:
    manager = SimpleContainerManager(fake, "unit", tmp_path)
    with pytest.raises(InvalidInput):
        REFUSED[what](manager)
    assert fake.calls == []
