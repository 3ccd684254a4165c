"""The agent's program, here and in a container."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from podkit.agent.protocol import PROTOCOL
from podkit.backends.base import SharedFiles

DIRECTORY = "/run/podkit"
PATH = f"{DIRECTORY}/agent"
LABEL = "podkit.agent"
"""On containers that have the agent: the name of its volume."""
WHY_NOT_LABEL = "podkit.why_no_agent"
"""On those that have none: the reason."""
LIFETIME_LABEL = "podkit.lifetime"
"""On containers whose first process it is: how many seconds they live without a command, or `infinity`."""

WHY_NONE = "this copy of podkit was made without the agent"

_FILES = Path(__file__).parent / "bin"
_ARCHITECTURES = {"amd64": "agent-x86_64", "arm64": "agent-aarch64"}


def file_for(machine: str = os.uname().machine) -> Path:
    """Return the program for a machine, by its `uname -m` name. It may not exist."""
    return _FILES / f"agent-{machine}"


@cache
def shared_files() -> SharedFiles | None:
    """Return the program as shared files. `None` if this copy of podkit lacks it."""
    files = {name: _FILES / file for name, file in _ARCHITECTURES.items()}
    if not all(file.is_file() for file in files.values()):
        return None
    import hashlib  # late: it loads OpenSSL

    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files.values())).hexdigest()
    return SharedFiles(
        name=f"podkit-agent-{PROTOCOL}-{digest[:12]}",
        target=DIRECTORY,
        by_architecture={name: {"agent": file} for name, file in files.items()},
    )
