"""Which container this process runs in, if any."""

from __future__ import annotations

import re
import socket
from pathlib import Path

_ID = re.compile(r"\b[0-9a-f]{64}\b")


def own_container_candidates() -> list[str]:
    """Return ids and names that may be this process's container, likeliest first. Empty outside of one.

    cgroup paths name the container with cgroup v1, the mounts that an engine makes for /etc/hostname with both; the
    host name is the id's beginning unless somebody chose another. None of it is proof: ask the engine, and compare.
    """
    if not (Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()):
        return []
    candidates: list[str] = []
    for name, marker in (("cgroup", ""), ("mountinfo", "/hostname")):
        try:
            lines = Path("/proc/self", name).read_text().splitlines()
        except OSError:
            continue
        candidates += [match[0] for line in lines if marker in line and (match := _ID.search(line))]
    return list(dict.fromkeys([*candidates, socket.gethostname()]))
