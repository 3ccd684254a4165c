"""Names, labels, owners and digests of podkit's containers.

Everything here is chosen before a container is born and written on it, so that any podkit, after any crash, can tell
whose it is. Two different ids never share a name, a set of labels or a path: what is readable in them is decoration,
what counts is a hash over length-prefixed parts.
"""

from __future__ import annotations

import base64
import json
import os
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from podkit.core import _checks
from podkit.core import _late as models
from podkit.errors import InvalidInput

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig

NAMESPACE = "podkit."
SCHEMA_VERSION = "1"
NAME_MAX_LENGTH = 63

SCHEMA = NAMESPACE + "schema"
PREFIX = NAMESPACE + "prefix"
USER_ID = NAMESPACE + "user_id"
SESSION_ID = NAMESPACE + "session_id"
OWNER = NAMESPACE + "owner"
CONFIG = NAMESPACE + "config"
REQUESTED = NAMESPACE + "requested"
ATTEMPT = NAMESPACE + "attempt"
WORKSPACE = NAMESPACE + "workspace"
MOUNTS = NAMESPACE + "mounts"

_PLAIN_COMPONENT = re.compile(r"[a-z0-9_][a-z0-9_.-]{0,99}")
_NOT_READABLE = re.compile(r"[^a-z0-9]+")


def digest(*parts: str, characters: int) -> str:
    """Hash `parts` into lower-case base32. They cannot run into each other."""
    import hashlib  # late: it loads OpenSSL

    hasher = hashlib.sha256()
    for part in parts:
        data = part.encode()
        hasher.update(len(data).to_bytes(8, "big") + data)
    return base64.b32encode(hasher.digest()).decode().lower()[:characters]


def _readable(text: str) -> str:
    return _NOT_READABLE.sub("-", text[:100].lower()).strip("-")


@dataclass(frozen=True, slots=True)
class Identity:
    """The three words that name a session's container.

    Made by `Identity.of`, which checks them.
    """

    prefix: str
    user_id: str
    session_id: str

    @classmethod
    def of(cls, prefix: str, user_id: str, session_id: str) -> Identity:
        """Check the parts and put them together.

        Raises:
            InvalidInput: one of them cannot be part of an identity.
        """
        return cls(
            _checks.check_prefix(prefix),
            _checks.check_id(user_id, "user_id"),
            _checks.check_id(session_id, "session_id"),
        )

    @property
    def name(self) -> str:
        """The container's name: `{prefix}-{readable}-{hash}`, at most 63 characters."""
        suffix = "-" + digest("name", self.prefix, self.user_id, self.session_id, characters=16)
        room = NAME_MAX_LENGTH - len(self.prefix) - len(suffix) - 1
        readable = "-".join(filter(None, (_readable(self.user_id), _readable(self.session_id))))[:room].strip("-")
        return self.prefix + ("-" + readable if readable else "") + suffix

    @property
    def labels(self) -> dict[str, str]:
        """The labels that find the container again. All must match."""
        return {SCHEMA: SCHEMA_VERSION, PREFIX: self.prefix, USER_ID: self.user_id, SESSION_ID: self.session_id}

    def owns(self, labels: Mapping[str, str]) -> bool:
        """Whether these labels prove that a container is this identity's."""
        return self.labels.items() <= labels.items()

    @classmethod
    def read(cls, labels: Mapping[str, str]) -> Identity:
        """Read the identity from a container's labels.

        Raises:
            InvalidInput: they are not podkit's, of another schema, or garbled.
        """
        if labels.get(SCHEMA) != SCHEMA_VERSION:
            raise InvalidInput(f"{SCHEMA}={labels.get(SCHEMA)!r}: this podkit reads schema {SCHEMA_VERSION}")
        try:
            return cls.of(labels[PREFIX], labels[USER_ID], labels[SESSION_ID])
        except KeyError as exc:
            raise InvalidInput(f"the label {exc.args[0]} is missing") from exc


def workspace_component(text: str) -> str:
    """Map an id one to one to a file name. A plain one is itself; others get `~` and a hash.

    Upper case is not plain: file systems that fold case would merge two ids.
    """
    if _PLAIN_COMPONENT.fullmatch(text):
        return text
    return f"{_readable(text)[:40]}~{digest('workspace', text, characters=26)}"


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that made a container.

    Attributes:
        host: name, boot id and pid namespace of its machine: a pid means something only there.
        pid: its process id.
        started: its start time in clock ticks since boot, which tells it from a later process with the same pid.
        instance: a random id of this process's life.
    """

    host: str
    pid: int
    started: str
    instance: str

    def to_label(self) -> str:
        """Encode the owner for a label."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_label(cls, text: str) -> Owner | None:
        """Decode an owner. `None` if it is garbled."""
        try:
            data = json.loads(text)
            return cls(str(data["host"]), int(data["pid"]), str(data["started"]), str(data["instance"]))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None

    def alive(self) -> bool | None:
        """Whether the process lives. `None` if unknown from here."""
        if self.host != this_owner().host or not self.started:
            return None
        return _process_started(self.pid) == self.started


def _process_started(pid: int) -> str:
    try:
        # the name in parentheses may itself contain spaces and parentheses
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@lru_cache(maxsize=1)
def _owner_of(pid: int) -> Owner:
    host = [socket.gethostname()]
    with suppress(OSError):  # not Linux
        host.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        host.append(os.readlink("/proc/self/ns/pid"))
    return Owner(" ".join(host), pid, _process_started(pid), os.urandom(16).hex())


def this_owner() -> Owner:
    """Return this process as an owner. A forked child is another."""
    return _owner_of(os.getpid())


def config_to_label(config: ContainerConfig) -> str:
    """Encode a configuration for a label, without its environment's values.

    The values stand in the container's environment already; labels are shown in listings and events as well.
    """
    data = config.model_dump(mode="json") | {"environment": sorted(config.environment)}
    return json.dumps(data, separators=(",", ":"))


def config_from_label(text: str, environment: Mapping[str, str]) -> ContainerConfig:
    """Decode a configuration. The environment's values are the container's.

    What only a newer version of podkit knows is left out.

    Raises:
        InvalidInput: the label is garbled.
    """
    try:
        data = json.loads(text)
        known = {name: value for name, value in data.items() if name in models.ContainerConfig.model_fields}
        known["environment"] = {name: environment.get(name, "") for name in data["environment"]}
        known["volumes"] = [
            {name: value for name, value in mount.items() if name in models.Mount.model_fields}
            for mount in data.get("volumes", ())
        ]
        return models.ContainerConfig(**known)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as exc:
        raise InvalidInput(f"the label {CONFIG} cannot be read: {exc}") from exc


def mounts_from_label(text: str) -> list[dict[str, Any]]:
    """Read Docker's mount dicts from a label.

    Raises:
        InvalidInput: the label is garbled.
    """
    try:
        mounts = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidInput(f"the label {MOUNTS} cannot be read: {exc}") from exc
    if not isinstance(mounts, list) or not all(isinstance(mount, dict) and "Target" in mount for mount in mounts):
        raise InvalidInput(f"the label {MOUNTS} holds no list of mounts")
    return mounts
