"""What a configuration may ask for: the two profiles, and what weakens them by name. Pure code.

Every refusal comes before any engine call.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from podkit.errors import InvalidInput

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig

STANDARD_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
)
"""What package managers and servers need inside, and no more: all other capabilities are dropped."""

UNSAFE = {
    "privileged": "everything that the engine can grant, devices included: root inside is root on the host",
    "new-privileges": "programs with set-user-id or file capabilities give privileges, such as sudo",
    "seccomp-unconfined": "no filter of system calls",
    "host-network": "networks=['host'], or another container's: its loopback and its ports are the session's too",
    "host-pid": "the processes of the host are seen, and can be signalled by root",
    "host-ipc": "the shared memory of the host is the session's too",
    "host-paths": "mounts of the host's own directories, such as /etc, and of what holds keys",
    "engine-socket": "mounts of an engine's socket: who can use it is root on the host",
    "unenforced-limits": "an engine that does not enforce what the profile asks for",
    "root": "profile='locked' with root as its user",
    "writable-root": "profile='locked' with a root file system that can be written to",
    "network": "profile='locked' with a network, and with ports",
}
"""The names in `allow_unsafe`, and what each lets in. `capability:NAME` keeps a capability besides."""

CAPABILITY = "capability:"
"""The beginning of a name that keeps a capability."""

_A_CAPABILITY = re.compile(r"capability:(?!CAP_|ALL$)[A-Z][A-Z_]+")


def check_unsafe(names: set[str]) -> set[str]:
    """Accept the names of what weakens a profile."""
    for name in names:
        if name not in UNSAFE and not _A_CAPABILITY.fullmatch(name):
            raise InvalidInput(
                f"allow_unsafe has {name!r}, which weakens nothing: there are {', '.join(UNSAFE)}, and "
                "capability:NAME with a name such as SYS_PTRACE"
            )
    return names


def check_confines(config: ContainerConfig) -> None:
    """Refuse what a configuration's profile does not allow.

    Raises:
        InvalidInput: which names the value, and the name in `allow_unsafe` that would let it in.
    """
    for name in config.networks:
        if name == "host" or name.startswith("container:"):
            _require(config, "host-network", f"networks=[{name!r}]")
    if "none" in config.networks and len(config.networks) > 1:
        raise InvalidInput(f"networks={config.networks!r}: 'none' stands alone")
    if config.profile != "locked":
        return
    check_command_user(config, config.user)
    if config.networks and config.networks != ["none"]:
        _require(config, "network", f"networks={config.networks!r}")
    if config.inherit_parent_networks:
        _require(config, "network", "inherit_parent_networks=True")
    if config.ports:
        _require(config, "network", f"ports={config.ports!r}")


def check_command_user(config: ContainerConfig, user: str | None) -> None:
    """Refuse a user that the profile does not allow, the container's or a command's."""
    if config.profile == "locked" and not _is_numbered(user):
        _require(config, "root", f"user={user!r}, which may be root inside (give a number above 0)")


def _is_numbered(user: str | None) -> bool:
    """Whether this is certainly not root: a name may be root's in the image."""
    return user is None or (user.partition(":")[0].isdecimal() and int(user.partition(":")[0]) > 0)


def _require(config: ContainerConfig, name: str, what: str) -> None:
    if name not in config.allow_unsafe:
        raise InvalidInput(
            f"profile={config.profile!r} does not allow {what}: allow_unsafe={{{name!r}}} would let it in"
        )
