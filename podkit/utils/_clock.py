"""The wall clock. Durations are counted on the monotonic one: see `_deadline.py`."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present time, timezone-aware."""
    return datetime.now(UTC)
