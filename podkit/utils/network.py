"""The networks around podkit itself."""

from __future__ import annotations

from podkit.backends._default_backend import default_backend
from podkit.core._own_container import own_container_candidates, parent_networks, parent_workload
from podkit.errors import EngineUnavailable


def get_parent_container_networks() -> list[str]:
    """Return the names of podkit's own container's networks.

    Asks the engine that the environment names. Empty outside of a container, if no engine answers, and if the engine
    does not know the container.
    """
    if not own_container_candidates():  # outside of a container: ask no engine
        return []
    try:
        return parent_networks(parent_workload(default_backend()))
    except EngineUnavailable:
        return []
