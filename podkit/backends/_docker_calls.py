"""Single requests of the Docker Engine API that several modules make."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from podkit.backends._http import Refused, Requests

MISSING, CONFLICT = 404, 409
"""Statuses of the engine's refusals."""


def exists(api: Requests, *path: str) -> bool:
    """Whether the engine has an object at this path."""
    try:
        api.ask("GET", *path)
    except Refused as exc:
        if exc.status != MISSING:
            raise
        return False
    return True


def create_container(api: Requests, name: str, body: Mapping[str, Any]) -> str:
    """Make a container and return its id."""
    return str(api.ask("POST", "containers", "create", query={"name": name}, body=body)["Id"])


def put_archive(api: Requests, id: str, path: str, archive: bytes) -> None:
    """Unpack an archive in a container that has never run. Never turns a directory into a file, or the reverse."""
    query = {"path": path, "noOverwriteDirNonDir": "true"}
    api.ask("PUT", "containers", id, "archive", query=query, body=archive)
