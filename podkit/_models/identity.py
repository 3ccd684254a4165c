"""The identity of a container: its name, its labels, the process that made it.

podkit chooses all of it before it creates a container, and writes it on the container. So any podkit can identify a
container after any crash. Two different ids never share a name, a set of labels or a path: a hash over length-prefixed
parts tells them apart, and the readable part is decoration.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from podkit._models.labels import SCHEMA_VERSION, Label
from podkit.errors import InvalidInput
from podkit.utils import _checks
from podkit.utils._naming import digest, readable_part

NAME_MAX_LENGTH = 63


@dataclass(frozen=True, slots=True)
class Identity:
    """The three words that name a session's container. `Identity.of` checks them."""

    prefix: str
    user_id: str
    session_id: str

    @classmethod
    def of(cls, prefix: str, user_id: str, session_id: str) -> Identity:
        """Check the parts and put them together.

        Raises:
            InvalidInput: one of them is not allowed in an identity.
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
        # the readable part is cut to fit; the hash never is, for it alone makes the name unique
        room = NAME_MAX_LENGTH - len(self.prefix) - len(suffix) - 1
        readable = "-".join(filter(None, (readable_part(self.user_id), readable_part(self.session_id))))[:room].strip(
            "-"
        )
        return self.prefix + ("-" + readable if readable else "") + suffix

    @property
    def labels(self) -> dict[str, str]:
        """The labels that find the container again. All must match."""
        return {
            Label.SCHEMA: SCHEMA_VERSION,
            Label.PREFIX: self.prefix,
            Label.USER_ID: self.user_id,
            Label.SESSION_ID: self.session_id,
        }

    def owns(self, labels: Mapping[str, str]) -> bool:
        """Whether a container with these labels belongs to this identity."""
        return self.labels.items() <= labels.items()  # the name alone proves nothing: anybody may choose it

    @classmethod
    def read(cls, labels: Mapping[str, str]) -> Identity:
        """Read the identity from a container's labels.

        Raises:
            InvalidInput: they are not podkit's, have another schema, or are garbled.
        """
        if labels.get(Label.SCHEMA) != SCHEMA_VERSION:
            raise InvalidInput(
                f"{Label.SCHEMA}={labels.get(Label.SCHEMA)!r}: this podkit reads schema {SCHEMA_VERSION}"
            )
        try:
            return cls.of(labels[Label.PREFIX], labels[Label.USER_ID], labels[Label.SESSION_ID])
        except KeyError as exc:
            raise InvalidInput(f"the label {exc.args[0]} is missing") from exc


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that made a container.

    Attributes:
        host: name, boot id and pid namespace of its machine. The pid is valid only there.
        pid: its process id.
        started: its start time in clock ticks since boot. A later process with the same pid has another one.
        instance: a random id, new for each process.
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
        try:  # anybody can write a label, so expect anything in it
            data = json.loads(text)
            return cls(str(data["host"]), int(data["pid"]), str(data["started"]), str(data["instance"]))
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return None

    def alive(self) -> bool | None:
        """Whether the process lives. `None` if this process cannot tell."""
        if self.host != this_owner().host or not self.started:  # without /proc, no start time is known
            return None
        return _process_started(self.pid) == self.started  # the pid alone may belong to a later process


def _process_started(pid: int) -> str:
    try:
        # count from the last parenthesis: the program's name before it may contain spaces and parentheses
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


@lru_cache(maxsize=1)  # by pid: a forked child computes its own
def _owner_of(pid: int) -> Owner:
    # with the boot id, because after a reboot another pid namespace may have the same number
    host = [socket.gethostname()]
    with suppress(OSError):  # not Linux
        host.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip())
        host.append(os.readlink("/proc/self/ns/pid"))
    return Owner(" ".join(host), pid, _process_started(pid), os.urandom(16).hex())


def this_owner() -> Owner:
    """Return this process as an owner. A forked child is another."""
    return _owner_of(os.getpid())
