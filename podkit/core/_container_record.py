"""A container's record, and the labels that hold it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from podkit._models import lazy as models
from podkit._models.identity import Identity, this_owner
from podkit._models.labels import Label
from podkit.backends.base import WorkloadInfo
from podkit.core._requested_config import Request
from podkit.errors import InvalidInput
from podkit.utils._clock import utc_now

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerRecord:
    """A container, as its manager knows it.

    Attributes:
        id: the engine's full id.
        name: on the engine.
        user_id: whose session it serves.
        session_id: which one.
        config: as used, after the event handler's changes.
        requested: as asked for, before them.
        created_at: when, UTC.
        workspace: which one it has, as its label says; empty for none.
        mounts: Docker's mount dicts, as the engine sees them.
        was_found: whether it was read from the engine, and not made by this manager.
    """

    id: str
    name: str
    user_id: str
    session_id: str
    config: ContainerConfig
    requested: Request
    created_at: datetime
    workspace: str
    mounts: Sequence[Mapping[str, Any]]
    was_found: bool = False


def labels_of(record: ContainerRecord) -> dict[str, str]:
    """Return the labels that hold a record, and its maker. Its identity's labels stand beside them."""
    return {
        Label.OWNER: this_owner().to_label(),
        Label.CONFIG: config_to_label(record.config),
        Label.REQUESTED: record.requested.to_label(),
        Label.WORKSPACE: record.workspace,
        Label.MOUNTS: json.dumps(record.mounts, separators=(",", ":")),
    }


def read_record(info: WorkloadInfo) -> ContainerRecord:
    """Read a container's record from its labels.

    Raises:
        InvalidInput: they are not podkit's, or garbled.
    """
    identity = Identity.read(info.labels)
    config = config_from_label(info.labels.get(Label.CONFIG, ""), info.environment)
    return ContainerRecord(
        id=info.id,
        name=info.name,
        user_id=identity.user_id,
        session_id=identity.session_id,
        config=config,
        requested=_request_of(info.labels, config),
        created_at=info.created_at or utc_now(),
        workspace=info.labels.get(Label.WORKSPACE, ""),
        mounts=mounts_from_label(info.labels.get(Label.MOUNTS, "[]")),
        was_found=True,
    )


def _request_of(labels: Mapping[str, str], config: ContainerConfig) -> Request:
    try:
        return Request.read(labels.get(Label.REQUESTED, ""))
    except InvalidInput:  # another version's: compare with the used one
        return Request.of(config)


def config_to_label(config: ContainerConfig) -> str:
    """Encode a configuration for a label, without its environment's values.

    The values stand in the container's environment already; labels are shown in listings and events as well.
    """
    data = config.model_dump(mode="json") | {"environment": sorted(config.environment)}
    return json.dumps(data, separators=(",", ":"))


def config_from_label(text: str, environment: Mapping[str, str]) -> ContainerConfig:
    """Decode a configuration. The environment's values are the container's.

    Fields of a newer podkit are left out.

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
        raise InvalidInput(f"the label {Label.CONFIG} cannot be read: {exc}") from exc


def mounts_from_label(text: str) -> list[dict[str, Any]]:
    """Read Docker's mount dicts from a label.

    Raises:
        InvalidInput: the label is garbled.
    """
    try:
        mounts = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise InvalidInput(f"the label {Label.MOUNTS} cannot be read: {exc}") from exc
    if not isinstance(mounts, list) or not all(isinstance(mount, dict) and "Target" in mount for mount in mounts):
        raise InvalidInput(f"the label {Label.MOUNTS} holds no list of mounts")
    return mounts
