"""A container's exact privileges, in one place."""

from __future__ import annotations

STANDARD_CAPABILITIES = (
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "NET_BIND_SERVICE",
    "SETGID",
    "SETUID",
)
"""The capabilities that package managers and servers need. All others are dropped."""
