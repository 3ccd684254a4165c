"""The models, imported on first use: pydantic is as slow to import as all of podkit.

`from podkit.core import _late as models`, for a module that uses them only within its functions.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig as ContainerConfig
    from podkit.core.models import Mount as Mount
    from podkit.core.models import ProcessResult as ProcessResult
    from podkit.core.models import Session as Session
    from podkit.core.models import check_config as check_config


def __getattr__(name: str) -> Any:
    if name.startswith("__"):  # what the import system asks of every module
        raise AttributeError(name)
    found = globals()[name] = getattr(import_module("podkit.core.models"), name)
    return found
