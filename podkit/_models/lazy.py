"""The models, imported on first use. Importing pydantic takes as long as importing all of podkit.

A module that uses them only within its functions imports them by `from podkit._models import lazy as models`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podkit._models.config import ContainerConfig as ContainerConfig
    from podkit._models.config import Mount as Mount
    from podkit._models.config import check_config as check_config
    from podkit._models.result import ProcessResult as ProcessResult
    from podkit._models.session import Session as Session

_MODULES = {
    "ContainerConfig": "config",
    "Mount": "config",
    "ProcessResult": "result",
    "Session": "session",
    "check_config": "config",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:  # such as `__path__`, which the import system looks up
        raise AttributeError(name)
    # kept in the module: the next use does not come here
    found = globals()[name] = getattr(import_module(f"podkit._models.{_MODULES[name]}"), name)
    return found
