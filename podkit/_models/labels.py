"""The labels that podkit writes on containers."""

from __future__ import annotations

from enum import StrEnum

NAMESPACE = "podkit."
SCHEMA_VERSION = "1"


class Label(StrEnum):
    """A label's key. docs/architecture.md lists their values."""

    SCHEMA = NAMESPACE + "schema"
    PREFIX = NAMESPACE + "prefix"
    USER_ID = NAMESPACE + "user_id"
    SESSION_ID = NAMESPACE + "session_id"
    OWNER = NAMESPACE + "owner"
    CONFIG = NAMESPACE + "config"
    REQUESTED = NAMESPACE + "requested"
    ATTEMPT = NAMESPACE + "attempt"
    WORKSPACE = NAMESPACE + "workspace"
    MOUNTS = NAMESPACE + "mounts"
