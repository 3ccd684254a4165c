"""Docker's mount dicts, by which container managers name mounts, and what a backend takes for them; pure code."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from podkit.backends.base import MountSpec
from podkit.core._checks import shown
from podkit.errors import InvalidInput

if TYPE_CHECKING:
    from podkit.core.models import Mount

_OPTIONS: dict[str, dict[str, type]] = {
    "VolumeOptions": {"Subpath": str},
    "TmpfsOptions": {"SizeBytes": int, "Mode": int},
}
_KEYS = {"Type": str, "Target": str, "Source": str, "ReadOnly": bool}
_TYPES = ("bind", "volume", "tmpfs")


def mount_to_dict(mount: Mount) -> dict[str, Any]:
    """Return a mount of a configuration as Docker's mount dict."""
    made: dict[str, Any] = {"Type": mount.type, "Target": mount.target, "ReadOnly": mount.read_only}
    return made | ({"Source": mount.source} if mount.source else {})


def mount_spec(mount: Mapping[str, Any]) -> MountSpec:
    """Return what a backend takes for a mount dict.

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


def _check(found: object, what: str, known: Mapping[str, type], sections: Collection[str] = ()) -> None:
    if not isinstance(found, Mapping):
        raise InvalidInput(f"{what} is {shown(found)}: pass a dict")
    for key, value in found.items():
        if key not in known and key not in sections:
            raise InvalidInput(f"{what} has the key {shown(key)}: there are {', '.join([*known, *sections])}")
        if key in known and value is not None and not isinstance(value, known[key]):
            raise InvalidInput(f"{what} has {key}={shown(value)}: pass a {known[key].__name__}")
