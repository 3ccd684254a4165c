"""Mounts as managers name them: Docker's mount dicts, checked and translated. Pure code."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from podkit.agent import agent_program
from podkit.backends.base import MountSpec
from podkit.errors import InvalidInput
from podkit.utils._checks import check_absolute_path, shown
from podkit.utils.paths import DEFAULT_WORKING_DIR

if TYPE_CHECKING:
    from podkit.core._container_record import ContainerRecord
    from podkit.core.models import Mount

_OPTIONS: dict[str, dict[str, type]] = {
    "VolumeOptions": {"Subpath": str},
    "TmpfsOptions": {"SizeBytes": int, "Mode": int},
}
_KEYS = {"Type": str, "Target": str, "Source": str, "ReadOnly": bool}
_TYPES = ("bind", "volume", "tmpfs")


def mount_to_dict(mount: Mount, memory_bytes: int) -> dict[str, Any]:
    """Return a mount as Docker's mount dict. `memory_bytes` is the container's limit.

    A tmpfs as large as the limit could fill it up and have the commands killed.
    """
    made: dict[str, Any] = {"Type": mount.type, "Target": mount.target, "ReadOnly": mount.read_only}
    if mount.type == "tmpfs":
        return made | {"TmpfsOptions": {"SizeBytes": mount.size_bytes or memory_bytes // 2}}
    return made | ({"Source": mount.source} if mount.source else {})


def mount_spec(mount: Mapping[str, Any]) -> MountSpec:
    """Return a mount dict as a backend's `MountSpec`.

    Raises:
        InvalidInput: a key or a value is none that podkit can pass on to every engine.
    """
    _check(mount, "a mount", _KEYS, _OPTIONS.keys())
    for name, known in _OPTIONS.items():
        _check(mount.get(name) or {}, f"a mount's {name}", known)
    type = mount.get("Type", "bind")
    if type not in _TYPES:
        raise InvalidInput(f"a mount's Type is {shown(type)}: use one of {', '.join(_TYPES)}")
    memory = mount.get("TmpfsOptions") or {}
    return MountSpec(
        type=type,
        target=mount.get("Target") or "",
        source=mount.get("Source") or "",
        read_only=bool(mount.get("ReadOnly")),
        subpath=(mount.get("VolumeOptions") or {}).get("Subpath") or "",
        size_bytes=memory.get("SizeBytes"),
        mode=memory.get("Mode"),
    )


def checked_mounts(made: object, to_engine: Callable[[str], str]) -> list[dict[str, Any]]:
    """Check the mounts of `get_mounts`. `to_engine` translates each bind source.

    Raises:
        InvalidInput: it is no list of mount dicts, or one of them cannot be mounted.
    """
    if not isinstance(made, list | tuple):
        raise InvalidInput(f"get_mounts returned {shown(made)}: return a list of mount dicts, [] for none")
    mounts: list[dict[str, Any]] = []
    for mount in made:
        if not isinstance(mount, Mapping):
            raise InvalidInput(f"get_mounts returned the mount {shown(mount)}: pass a dict")
        target = _checked_target(mount)
        if any(other["Target"] == target for other in mounts):
            raise InvalidInput(f"two mounts have the target {target!r}: keep one of them")
        if mount.get("Type", "bind") == "bind":
            source = check_absolute_path(mount.get("Source"), "a mount's Source")
            mount = {**mount, "Type": "bind", "Source": to_engine(source)}
        mounts.append({**mount, "Target": target})
    return mounts


def _checked_target(mount: Mapping[str, Any]) -> str:
    target = check_absolute_path(mount.get("Target"), "a mount's Target")
    path, agent = PurePosixPath(target), PurePosixPath(agent_program.DIRECTORY)
    if target == "/":
        raise InvalidInput("a mount's Target is '/': nothing can be mounted over the container's root")
    if path.is_relative_to(agent):
        raise InvalidInput(f"a mount's Target is {target!r}: podkit's agent is mounted there, use another one")
    if mount.get("ReadOnly") and agent.is_relative_to(path):
        raise InvalidInput(
            f"a mount on {target!r} is read-only, and podkit's agent is mounted below it, on {agent}: mount it "
            "elsewhere, or in parts"
        )
    return target


def directories_to_open(record: ContainerRecord, *, tmpfs_alone: bool) -> Iterator[tuple[PurePosixPath, bool]]:
    """Yield the directories to open to every user, and whether only empty ones."""
    mounts = {PurePosixPath(mount["Target"]): mount for mount in record.mounts}
    workspace, working_dir = PurePosixPath(DEFAULT_WORKING_DIR), PurePosixPath(record.config.working_dir)
    for path in dict.fromkeys((workspace, working_dir)):
        mount = next((mounts[above] for above in (path, *path.parents) if above in mounts), None)
        type = mount["Type"] if mount else None
        if tmpfs_alone and type != "tmpfs":
            continue
        lies_in_workspace = path != workspace and mount is not None and mount.get("Source") == record.workspace
        if type == "bind" and not lies_in_workspace:
            continue  # a directory of the host, or the workspace itself, which is open already
        is_podkits = mount is None or bool((mount.get("VolumeOptions") or {}).get("Subpath"))
        yield path, path != workspace or not is_podkits


def _check(found: object, what: str, known: Mapping[str, type], sections: Collection[str] = ()) -> None:
    if not isinstance(found, Mapping):
        raise InvalidInput(f"{what} is {shown(found)}: pass a dict")
    for key, value in found.items():
        if key not in known and key not in sections:
            raise InvalidInput(f"{what} has the key {shown(key)}: there are {', '.join([*known, *sections])}")
        if key in known and value is not None and not isinstance(value, known[key]):
            raise InvalidInput(f"{what} has {key}={shown(value)}: pass a {known[key].__name__}")
