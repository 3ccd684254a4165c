"""A handler that raises is logged and never breaks the operation."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from typing import Any

import pytest

from podkit.core.events import PodkitEventHandler, notify
from podkit.core.manager import SimpleContainerManager
from podkit.core.models import ContainerConfig
from podkit.core.session import BaseSessionManager
from podkit.errors import InvalidInput
from podkit.monitors.orphans import OrphanContainerCleaner
from podkit.testing import FakeBackend
from tests.unit.support import Recorder

EVENTS = [name for name in vars(PodkitEventHandler) if name.startswith("on_")]


def test_a_handler_that_overrides_nothing_does_nothing() -> None:
    handler, config = PodkitEventHandler(), ContainerConfig()
    assert handler.on_container_creating("bob", "1", config) is config
    for name in EVENTS:
        method = getattr(handler, name)
        if name != "on_container_creating":
            assert method(*[None for _ in inspect.signature(method).parameters]) is None


def test_the_recorder_of_these_tests_knows_every_event() -> None:
    assert [name for name in EVENTS if name not in vars(Recorder)] == []


def test_an_event_is_told_with_its_arguments() -> None:
    recorder = Recorder()
    notify(recorder.on_container_removed, "id", "name")
    assert recorder.events == [("on_container_removed", ("id", "name"))]


@pytest.mark.parametrize("error", [ValueError("mine"), RecursionError(), AssertionError(), OSError()])
def test_what_a_handler_raises_is_logged_and_goes_no_further(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    recorder = Recorder()
    recorder.raising["on_container_removed"] = error
    with caplog.at_level(logging.ERROR):
        notify(recorder.on_container_removed, "id", "name")
    assert "on_container_removed raised" in caplog.text
    assert type(error).__name__ in caplog.text


def test_ctrl_c_in_a_handler_is_not_swallowed() -> None:
    recorder = Recorder()
    recorder.raising["on_container_removed"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        notify(recorder.on_container_removed, "id", "name")


def test_a_class_in_the_place_of_a_handler_is_refused_by_everybody_who_takes_one() -> None:
    takers: list[Callable[[Any], object]] = [
        lambda handler: SimpleContainerManager(FakeBackend(), "p", None, event_handler=handler),
        lambda handler: BaseSessionManager(SimpleContainerManager(FakeBackend(), "p", None), event_handler=handler),
        lambda handler: OrphanContainerCleaner(FakeBackend(), "p", 1, 1, event_handler=handler),
    ]
    for take in takers:
        with pytest.raises(
            InvalidInput, match=r"event_handler is the class Recorder: pass an object of it, Recorder\(\)"
        ):
            take(Recorder)
        take(Recorder())
