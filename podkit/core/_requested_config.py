"""A session as asked for, to be compared with the next request."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from podkit._models import lazy as models
from podkit.errors import InvalidInput
from podkit.utils._checks import normal_address, shown
from podkit.utils._naming import digest

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig


@dataclass(frozen=True, slots=True)
class Request:
    """A configuration as asked for, before any event handler.

    Attributes:
        values: field -> value, in one form for all values that mean the same; of the environment a hash.
        given: the fields that the caller set.
    """

    values: Mapping[str, Any]
    given: frozenset[str]

    @classmethod
    def of(cls, config: ContainerConfig) -> Request:
        """Return the request that a configuration is."""
        data = config.model_dump(mode="json")
        mounts = [mount.model_dump(mode="json", exclude_defaults=True) for mount in config.volumes]
        data |= {
            "memory_limit": config.memory_limit_bytes,
            "shm_size": config.shm_size_bytes,
            "extra_hosts": {name.lower(): normal_address(text) or text for name, text in config.extra_hosts.items()},
            "ports": sorted(config.ports),
            "networks": sorted(config.networks),
            "volumes": sorted(mounts, key=lambda mount: str(mount["target"])),
            "environment": digest("environment", json.dumps(config.environment, sort_keys=True), characters=26),
        }
        return cls(data, frozenset(config.given_fields))

    @classmethod
    def read(cls, label: str) -> Request:
        """Decode a request, also another podkit version's.

        Raises:
            InvalidInput: it is none of ours.
        """
        try:
            data = json.loads(label)
            return cls(dict(data["values"]), frozenset(map(str, data["given"])))
        except (ValueError, TypeError, KeyError, RecursionError) as exc:
            raise InvalidInput(f"the label of the session's request cannot be read: {exc}") from exc

    def to_label(self) -> str:
        """Encode the request for a label, without its environment's values."""
        return json.dumps({"values": self.values, "given": sorted(self.given)}, separators=(",", ":"))

    def differences(self, other: Request) -> str:
        """Describe how `other`, which exists, differs in the fields set here. Empty if it fits.

        A field that the other one's podkit did not know yet counts as its default.
        """
        existing_values = other.values
        if models.ContainerConfig.model_fields.keys() - existing_values.keys():
            existing_values = {**Request.of(models.ContainerConfig()).values, **existing_values}
        found = []
        for name in models.ContainerConfig.model_fields:
            existing, asked = existing_values[name], self.values.get(name)
            if name in self.given and existing != asked:
                values = "" if name == "environment" else f" ({shown(existing)}, not {shown(asked)})"
                found.append(f"{name}{values}")
        return ", ".join(found)
