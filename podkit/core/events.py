"""Events for podkit's caller: subclass `PodkitEventHandler`, override some methods."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, ParamSpec

from podkit.errors import InvalidInput

if TYPE_CHECKING:
    from podkit.core.models import ContainerConfig, Session

__all__ = ["PodkitEventHandler"]

P = ParamSpec("P")

_logger = logging.getLogger(__name__)


class PodkitEventHandler:
    """Called once an event, in the thread that caused it.

    A method that raises is logged and breaks nothing, but for `on_container_creating`. A slow method makes the call
    that caused it slow. Container events come from the container manager, session events from the session manager:
    hand the handler to both to get both.
    """

    def on_container_creating(self, user_id: str, session_id: str, config: ContainerConfig) -> ContainerConfig:
        """A container is about to be created. The returned configuration is used.

        An exception ends the creation before anything is made.
        """
        return config

    def on_container_created(
        self, user_id: str, session_id: str, container_id: str, container_name: str, config: ContainerConfig
    ) -> None:
        """A container was created, and starts next."""

    def on_container_creation_failed(
        self, user_id: str, session_id: str, config: ContainerConfig, error: Exception
    ) -> None:
        """A container could not be created or started. Nothing of it stays."""

    def on_image_pulling(self, image: str, progress: str) -> None:
        """An image is being pulled. Called often, with the engine's progress."""

    def on_container_removed(self, container_id: str, container_name: str) -> None:
        """A container was removed."""

    def on_session_created(self, session: Session) -> None:
        """A session was created. Not called for one found alive."""

    def on_session_creation_failed(self, user_id: str, session_id: str, error: Exception) -> None:
        """A session could not be created."""

    def on_session_closing(self, session: Session) -> None:
        """A session is about to be closed. Its container still exists."""

    def on_session_closed(self, session: Session) -> None:
        """A session was closed and its container removed."""

    def on_session_expired(self, session: Session) -> None:
        """A session outlasted its idle timeout, and is closed next."""

    def on_orphan_container_removed(self, container_id: str, container_name: str, age_seconds: float) -> None:
        """The orphan cleaner removed a container, stopped for `age_seconds`."""


def checked_handler(handler: PodkitEventHandler | None) -> PodkitEventHandler:
    """Accept an event handler; `None` is one that does nothing."""
    if isinstance(handler, type):
        raise InvalidInput(f"event_handler is the class {handler.__name__}: pass an object of it, {handler.__name__}()")
    return handler or PodkitEventHandler()


def notify(method: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """Call an event method. An exception is logged, not raised."""
    try:
        method(*args, **kwargs)
    except (Exception, SystemExit):  # it is the user's code, and may raise anything; Ctrl-C is not its own
        _logger.exception("the event handler's %s raised", getattr(method, "__qualname__", method))
