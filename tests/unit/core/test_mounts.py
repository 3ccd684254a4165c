"""Mount dicts, as managers of one's own write them, and what becomes of them."""

from __future__ import annotations

from typing import Any

import pytest

from podkit.backends.base import MountSpec
from podkit.core._mounts import mount_spec, mount_to_dict
from podkit.core.models import Mount
from podkit.errors import InvalidInput


@pytest.mark.parametrize(
    ("mount", "made"),
    [
        (
            Mount(source="/a", target="/b", read_only=True),
            {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True},
        ),
        (
            Mount(source="data", target="/b", type="volume"),
            {"Type": "volume", "Source": "data", "Target": "/b", "ReadOnly": False},
        ),
        (
            Mount(target="/b", type="tmpfs"),
            {"Type": "tmpfs", "Target": "/b", "ReadOnly": False, "TmpfsOptions": {"SizeBytes": 64 << 20}},
        ),
        (
            Mount(target="/b", type="tmpfs", size="8k", read_only=True),
            {"Type": "tmpfs", "Target": "/b", "ReadOnly": True, "TmpfsOptions": {"SizeBytes": 8192}},
        ),
    ],
    ids=lambda value: getattr(value, "type", ""),
)
def test_a_mount_becomes_dockers_mount_dict(mount: Mount, made: dict[str, Any]) -> None:
    assert mount_to_dict(mount, 128 << 20) == made


MADE: list[tuple[dict[str, Any], MountSpec]] = [
    ({"Source": "/a", "Target": "/b"}, MountSpec(type="bind", source="/a", target="/b")),
    (
        {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True},
        MountSpec(type="bind", source="/a", target="/b", read_only=True),
    ),
    (
        {"Type": "volume", "Source": "data", "Target": "/b", "VolumeOptions": {"Subpath": "x/y"}},
        MountSpec(type="volume", source="data", target="/b", subpath="x/y"),
    ),
    (
        {"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {"SizeBytes": 4096, "Mode": 0o700}},
        MountSpec(type="tmpfs", target="/b", size_bytes=4096, mode=0o700),
    ),
    (
        {"Type": "tmpfs", "Target": "/b", "Source": None, "VolumeOptions": None, "TmpfsOptions": None},
        MountSpec(type="tmpfs", target="/b"),
    ),
]


@pytest.mark.parametrize(("mount", "made"), MADE, ids=str)
def test_a_mount_dict_becomes_what_a_backend_takes(mount: dict[str, Any], made: MountSpec) -> None:
    assert mount_spec(mount) == made


@pytest.mark.parametrize(
    ("mount", "said"),
    [
        ({"Target": "/b", "BindOptions": {}}, "has the key 'BindOptions'"),
        ({"Target": "/b", "VolumeOptions": {"NoCopy": True}}, "VolumeOptions has the key 'NoCopy'"),
        ({"Target": "/b", "VolumeOptions": "Subpath"}, "VolumeOptions is 'Subpath'"),
        ({"Target": "/b", "Type": "npipe"}, "Type is 'npipe'"),
        ({"Target": "/b", "Type": 7}, "Type=7"),
        ({"Target": "/b", "ReadOnly": "yes"}, "ReadOnly='yes'"),
        ({"Target": ["/b"]}, "Target="),
        ("/a:/b", "pass a dict"),
    ],
    ids=str,
)
def test_what_no_engine_can_be_asked_for_is_refused_by_its_name(mount: Any, said: str) -> None:
    with pytest.raises(InvalidInput, match=said):
        mount_spec(mount)
