"""The wall clock. Durations use the monotonic clock: see `_deadline.py`."""

from __future__ import annotations

from datetime import UTC, datetime


def utc_now() -> datetime:
    """Return the present time, timezone-aware."""
    return datetime.now(UTC)
