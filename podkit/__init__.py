"""Run untrusted commands in containers, one per user and session."""

from podkit._api import SessionProxy, get_docker_session, reset_lifecycle_cache, run_in_docker
from podkit.core._ports import PortPool
from podkit.core.events import PodkitEventHandler

__all__ = [
    "PodkitEventHandler",
    "PortPool",
    "SessionProxy",
    "get_docker_session",
    "reset_lifecycle_cache",
    "run_in_docker",
]
