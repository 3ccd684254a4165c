"""Configuration, results, sessions.

All models are pydantic models that refuse unknown fields. They are mutable and not synchronised: a configuration is
copied when a session takes it, a `Session` is written by its session manager and by its users.
A value that a model refuses raises `podkit.errors.InvalidInput`, never pydantic's own error.
"""

from podkit._models.config import ContainerConfig, Mount, StartupVerificationConfig
from podkit._models.container_status import ContainerStatus
from podkit._models.result import ProcessResult
from podkit._models.session import Session

__all__ = ["ContainerConfig", "ContainerStatus", "Mount", "ProcessResult", "Session", "StartupVerificationConfig"]
