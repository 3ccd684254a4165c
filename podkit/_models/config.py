"""The configuration of a container."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, ValidationInfo, model_validator
from pydantic import field_validator as validates

from podkit._models.base import Model, PathText
from podkit._models.container_status import ContainerStatus as ContainerStatus
from podkit.errors import InvalidInput
from podkit.utils import _checks
from podkit.utils.paths import DEFAULT_WORKING_DIR

DEFAULT_IMAGE = "python:3.11-alpine"

_PIDS_MINIMUM = 4  # the first process, its channel, a command and its supervisor
_PIDS_MAXIMUM = 1 << 22  # the kernel's own limit
_PAGE_BYTES = 4096
_VOLUME_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]+")

_HOST_NAME = re.compile(r"(?!.{254})[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*", re.I | re.A)
_HOST_GATEWAY = "host-gateway"

MountType = Literal["bind", "volume", "tmpfs"]


class Mount(Model):
    """One mount of a container.

    Attributes:
        source: the absolute path of a directory or file on the engine's host (`bind`), the name of a volume (`volume`),
            or empty (`tmpfs`). The engine checks whether it exists.
        target: absolute path inside the container.
        read_only: whether the container may only read it.
        type: `bind`, `volume` or `tmpfs`.
        size: capacity of a `tmpfs`: bytes, or `64m`, `1g`. It counts as memory of the container; by default half of the
            `memory_limit`.
    """

    source: PathText = ""
    target: PathText
    read_only: bool = False
    type: MountType = "bind"
    size: str | int | None = None

    if TYPE_CHECKING:  # the fields are `str`, but the constructor takes paths too

        def __init__(
            self,
            *,
            target: str | PurePath,
            source: str | PurePath = "",
            read_only: bool = False,
            type: MountType = "bind",
            size: str | int | None = None,
        ) -> None: ...

    @validates("target")
    @classmethod
    def _target(cls, value: str) -> str:
        target = _checks.check_absolute_path(value, "target")
        if target == "/":
            raise InvalidInput(
                "target='/': nothing can be mounted over the container's root; name a directory below it"
            )
        return target

    @model_validator(mode="after")
    def _source(self) -> Self:
        # the engine looks at the path itself: this host may be another one
        if self.type == "bind":
            _checks.check_absolute_path(self.source, "source", example=os.getcwd())
        elif self.type == "volume":
            if not _VOLUME_NAME.fullmatch(self.source):
                raise InvalidInput(
                    f"source={_checks.shown(self.source)}: a volume's name has letters, digits, '_', '.', '-'"
                )
        elif self.source:
            raise InvalidInput(f"source={_checks.shown(self.source)}: a tmpfs mount has no source, leave it out")
        if self.size_bytes is not None and self.type != "tmpfs":
            raise InvalidInput(f"size={_checks.shown(self.size)}: only a tmpfs mount has a size, leave it out")
        return self

    @property
    def size_bytes(self) -> int | None:
        """The size in bytes, `None` if not set."""
        return None if self.size is None else _checks.memory_bytes(self.size, "size", _PAGE_BYTES)


class StartupVerificationConfig(Model):
    """The checks after which a container counts as started.

    Attributes:
        required_consecutive_checks: the number of checks in a row that must find it running.
        check_interval_seconds: the pause between two checks.
        max_wait_seconds: the time after which podkit gives up.
    """

    required_consecutive_checks: int = Field(default=2, ge=1)
    check_interval_seconds: float = Field(default=0.1, gt=0)
    max_wait_seconds: float = Field(default=5.0, gt=0)


def default_image() -> str:
    """Return the default image: `PODKIT_DEFAULT_IMAGE`, else `python:3.11-alpine`."""
    return os.environ.get("PODKIT_DEFAULT_IMAGE") or DEFAULT_IMAGE


class ContainerConfig(Model):
    """The configuration of a session's container.

    Attributes:
        image: reference of the image; the default is read from `PODKIT_DEFAULT_IMAGE` when the object is made.
        entrypoint: `None`: podkit keeps the container alive with `sleep <container_lifetime_seconds>`, after which it
            stops by itself. `[]`: with `sleep infinity`. Anything else runs unchanged, without a lifetime. It has to
            end on SIGTERM: if `docker stop` has to kill it, podkit makes the container anew.
        command: the command to run in place of podkit's `sleep`, or the arguments of `entrypoint`.
        use_image_defaults: whether to run the image's own entrypoint and command.
        container_lifetime_seconds: see `entrypoint`.
        cpu_limit: cores, such as 0.5 or 2.0; at least 0.01.
        memory_limit: bytes, or `512m`, `1g`; swap is never more than memory.
        pids_limit: the largest number of processes and threads at once, at least 4. Two of them are the agent's, and
            each command has one more than it starts.
        environment: variables of every command.
        ports: each container port N is published on port N of the engine's host, on loopback.
        networks: names of existing networks to join, in place of the engine's default one.
        inherit_parent_networks: if podkit itself runs in a container, join that container's networks too.
        volumes: mounts besides the workspace.
        user: the user of the commands, as `name`, `uid` or `uid:gid`; `None` means the image's user.
        working_dir: the directory of the commands; it exists in every container.
        startup_verification: the checks that the container stays up; `None` means no waiting.
        shm_size: size of `/dev/shm`: bytes, or `64m`, `1g`. It counts as memory of the container; `None` means the
            engine's 64 MB.
        extra_hosts: host name -> address, in the container's `/etc/hosts`. `host-gateway` stands for Docker's host.
        session_inactivity_timeout_seconds: seconds without a command or a background process after which the session
            may be cleaned up.
    """

    image: str = Field(default_factory=default_image)
    entrypoint: list[str] | None = None
    command: list[str] | None = None
    use_image_defaults: bool = False
    container_lifetime_seconds: int = Field(default=60, gt=0)
    cpu_limit: float = Field(default=1.0, ge=0.01, le=10_000, allow_inf_nan=False)
    memory_limit: str | int = "512m"
    pids_limit: int = Field(default=256, ge=_PIDS_MINIMUM, le=_PIDS_MAXIMUM)
    environment: dict[str, str] = Field(default_factory=dict)
    ports: list[int] = Field(default_factory=list)
    networks: list[str] = Field(default_factory=list)
    inherit_parent_networks: bool = False
    volumes: list[Mount] = Field(default_factory=list)
    user: str | None = None
    working_dir: PathText = DEFAULT_WORKING_DIR
    startup_verification: StartupVerificationConfig | None = None
    shm_size: str | int | None = None
    extra_hosts: dict[str, str] = Field(default_factory=dict)
    session_inactivity_timeout_seconds: int = Field(default=3600, gt=0)

    @validates("image")
    @classmethod
    def _image(cls, value: str) -> str:
        _checks.check_text(value, "image")
        if not value or any(char.isspace() for char in value):
            raise InvalidInput(f"image={_checks.shown(value)}: pass a reference such as 'python:3.11-alpine'")
        return value

    @validates("entrypoint", "command")
    @classmethod
    def _argv(cls, value: list[str] | None, info: ValidationInfo) -> list[str] | None:
        # `[]` is an entrypoint with a meaning of its own, but not a command
        if value is not None and not (value[0] if value else info.field_name == "entrypoint"):
            raise InvalidInput(
                f"{info.field_name}={_checks.shown(value)}: name a program, or pass None for podkit's own"
            )
        return (
            None if value is None else [_checks.check_text(part, "an argument of the main process") for part in value]
        )

    @validates("memory_limit", "shm_size", mode="before")  # before: pydantic would turn a float or a bool into an int
    @classmethod
    def _memory(cls, value: Any, info: ValidationInfo) -> str | int | None:
        name = str(info.field_name)
        if value is None and name == "shm_size":
            return None
        if not isinstance(value, str | int):
            raise InvalidInput(f"{name}={_checks.shown(value)}: pass bytes, or text such as '512m' or '1g'")
        _checks.memory_bytes(value, name, _checks.MEMORY_MINIMUM if name == "memory_limit" else _PAGE_BYTES)
        return value

    @validates("environment")  # podkit's own check: its message never shows a value
    @classmethod
    def _environment(cls, value: dict[str, str]) -> dict[str, str]:
        return _checks.check_environment(value)

    @validates("ports")
    @classmethod
    def _ports(cls, value: list[int]) -> list[int]:
        for port in value:
            if not 1 <= port <= 65535:
                raise InvalidInput(f"ports contains {port}: a port lies between 1 and 65535")
            if value.count(port) > 1:
                raise InvalidInput(f"ports contains {port} twice: name each port once")
        return value

    @validates("networks")
    @classmethod
    def _networks(cls, value: list[str]) -> list[str]:
        for name in value:
            if not _checks.check_text(name, "a name in networks").strip():
                raise InvalidInput("networks contains an empty name: remove it")
            if value.count(name) > 1:
                raise InvalidInput(f"networks contains {name!r} twice: name each network once")
        return value

    @validates("volumes")
    @classmethod
    def _volumes(cls, value: list[Mount]) -> list[Mount]:
        targets = [mount.target for mount in value]
        for target in targets:  # normalised by `Mount`, so equal paths are equal texts
            if targets.count(target) > 1:
                raise InvalidInput(f"volumes has two mounts on target={target!r}: keep one of them")
        return value

    @validates("extra_hosts")
    @classmethod
    def _hosts(cls, value: dict[str, str]) -> dict[str, str]:
        for name, address in value.items():
            if not _HOST_NAME.fullmatch(name):
                raise InvalidInput(
                    f"extra_hosts contains the name {_checks.shown(name)}: pass a host name such as 'db.internal'"
                )
            if address != _HOST_GATEWAY and _checks.normal_address(address) is None:
                raise InvalidInput(
                    f"extra_hosts[{name!r}]={_checks.shown(address)} is no address: pass one such as '10.0.0.5', or "
                    f"'{_HOST_GATEWAY}'"
                )
        return value

    @validates("user")
    @classmethod
    def _user(cls, value: str | None) -> str | None:
        return None if value is None else _checks.check_user(value)

    @validates("working_dir")
    @classmethod
    def _working_dir(cls, value: str) -> str:
        return _checks.check_absolute_path(value, "working_dir")

    @model_validator(mode="after")
    def _hosts_of_network(self) -> Self:
        for name in self.networks if self.extra_hosts else ():
            if name.startswith("container:"):
                raise InvalidInput(
                    f"networks contains {name!r}, whose container has the hosts file: leave out extra_hosts"
                )
        return self

    @model_validator(mode="after")
    def _ports_of_network(self) -> Self:
        # an engine may publish nothing there, without an error
        for name in self.networks if self.ports else ():
            if name in ("host", "none") or name.startswith("container:"):
                raise InvalidInput(
                    f"networks contains {name!r}, where no port can be published: leave out ports, or name a "
                    "network of its own"
                )
        return self

    @model_validator(mode="after")
    def _main_process(self) -> Self:
        if self.use_image_defaults and (self.entrypoint is not None or self.command is not None):
            raise InvalidInput("use_image_defaults=True leaves no room for entrypoint or command: drop one of them")
        return self

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show the environment's names without values, which may be secrets."""
        for name, value in super().__repr_args__():
            yield name, dict.fromkeys(value, "***") if name == "environment" else value

    @property
    def memory_limit_bytes(self) -> int:
        """The memory limit in bytes."""
        return _checks.memory_bytes(self.memory_limit)

    @property
    def shm_size_bytes(self) -> int | None:
        """The size of `/dev/shm` in bytes, `None` if not set."""
        return None if self.shm_size is None else _checks.memory_bytes(self.shm_size, "shm_size", _PAGE_BYTES)

    @property
    def runs_keepalive(self) -> bool:
        """Whether the main process is podkit's own `sleep`."""
        return not self.use_image_defaults and not self.entrypoint and self.command is None

    @property
    def given_fields(self) -> set[str]:
        """The fields that were set, or changed in place."""
        # pydantic does not see a change within a list or dict, so compare with the defaults too
        return self.model_fields_set | {
            name
            for name, field in ContainerConfig.model_fields.items()
            if getattr(self, name) != field.get_default(call_default_factory=True)
        }

    def checked_copy(self) -> ContainerConfig:
        """Return a validated deep copy with the same fields set.

        Lists and dicts are mutable, so a configuration that was valid once may have become invalid.
        """
        # copied first: another thread may change the original during the check
        copy = ContainerConfig.model_validate(self.model_copy(deep=True))
        copy.model_fields_set.intersection_update(self.given_fields)  # validating marks all of them as set
        return copy


def check_config(value: object) -> ContainerConfig:
    """Accept a configuration."""
    if not isinstance(value, ContainerConfig):
        raise InvalidInput(f"config is of type {type(value).__name__}: pass a ContainerConfig")
    return value


# pickles and messages name the public module, wherever the class is defined
Mount.__module__ = "podkit.core.models"
StartupVerificationConfig.__module__ = "podkit.core.models"
ContainerConfig.__module__ = "podkit.core.models"
