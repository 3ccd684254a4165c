"""What a run of the tests left on the engine."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import docker
from docker.errors import APIError

from podkit._models.identity import Owner, this_owner
from podkit._models.labels import Label

LABEL = "pt.run"
"""On what the tests make without podkit; its value is the run's id."""


@dataclass(frozen=True)
class Run:
    """One run of the tests.

    Attributes:
        id: stands in the prefix of all it makes, in the name of its workspace and in its label.
        pids: of pytest and its workers.
        has_host: whether nothing but this run makes containers from this host: it is the runner's.
    """

    id: str
    pids: Collection[int] = field(default_factory=frozenset)
    has_host: bool = False

    @property
    def prefix(self) -> str:
        """The beginning of the names of all that it makes."""
        return f"pt-{self.id}"

    def made(self, row: Mapping[str, Any]) -> bool:
        """Whether a row of a listing is of this run; what its user does meanwhile is not."""
        labels = row.get("Labels") or {}
        names = [name.removeprefix("/") for name in row.get("Names") or [row.get("Name", "")]]
        if any(name.startswith(self.prefix) for name in names):
            return True
        if labels.get(LABEL) == self.id or labels.get(Label.PREFIX, "").startswith(self.prefix):
            return True
        if Label.SCHEMA not in labels:
            return False
        owner = Owner.from_label(labels.get(Label.OWNER, ""))
        from_here = owner is not None and owner.host == this_owner().host
        return self.id in json.dumps(row) or (from_here and (self.has_host or owner.pid in self.pids))


def find_leftovers(client: docker.DockerClient, run: Run) -> dict[str, Callable[[], object]]:
    """Find what is left, by a name to show, with what removes it."""
    api = client.api
    found: dict[str, Callable[[], object]] = {}
    for row in filter(run.made, api.containers(all=True)):
        name = row["Names"][0].removeprefix("/") if row["Names"] else row["Id"]
        found[f"container {name} ({row['Status']})"] = lambda id=row["Id"]: api.remove_container(id, v=True, force=True)
    for row in filter(run.made, api.networks()):
        found[f"network {row['Name']}"] = lambda id=row["Id"]: api.remove_network(id)
    for row in filter(run.made, api.volumes()["Volumes"] or ()):
        found[f"volume {row['Name']}"] = lambda name=row["Name"]: api.remove_volume(name, force=True)
    return found


def remove(leftovers: Mapping[str, Callable[[], object]]) -> None:
    """Remove what was found, so that it does not disturb the next run."""
    for take_away in leftovers.values():
        with suppress(APIError):  # it was reported: that is what counts
            take_away()
