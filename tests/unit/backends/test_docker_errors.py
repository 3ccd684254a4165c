"""What the SDK raises crosses as podkit's own, by a table; and the table lacks nothing."""

from __future__ import annotations

import inspect
import pickle
from types import ModuleType

import docker.errors
import pytest
import requests.exceptions
import urllib3.exceptions

from podkit.backends import docker as podkit_docker
from podkit.errors import (
    ContainerNotFound,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    ImageNotFound,
    InvalidInput,
    PodkitError,
)


def classes(module: ModuleType) -> list[type[Exception]]:
    """The exceptions of a module, without its warnings."""
    found = [value for _, value in inspect.getmembers(module, inspect.isclass)]
    return [value for value in found if issubclass(value, Exception) and not issubclass(value, Warning)]


def crossed(error: Exception) -> BaseException:
    """What a caller of the backend sees of an error of the SDK."""
    try:
        with podkit_docker._errors("doing something"):
            raise error
    except BaseException as exc:  # noqa: BLE001 - whatever it is, it is looked at
        return exc


def made(error: type[Exception]) -> Exception:
    """Make an exception, whatever its constructor wants."""
    try:
        return error("what happened")
    except TypeError:
        instance = error.__new__(error)
        Exception.__init__(instance, "what happened")
        return instance


SDK = [
    *(error for error in classes(docker.errors) if error.__module__.startswith("docker")),
    *(error for error in classes(requests.exceptions) if error.__module__.startswith("requests")),
]


def test_there_are_classes_to_look_at() -> None:
    assert len(SDK) > 30


@pytest.mark.parametrize("error", SDK)
def test_the_table_has_every_class_of_the_sdk(error: type[Exception]) -> None:
    assert any(base in podkit_docker.ERRORS for base in error.__mro__)


@pytest.mark.parametrize("error", SDK)
def test_every_class_of_the_sdk_crosses_as_podkits_with_its_cause(error: type[Exception]) -> None:
    original = made(error)
    seen = crossed(original)
    assert isinstance(seen, PodkitError)
    assert seen.__cause__ is original
    assert str(seen).startswith("doing something: ")
    assert type(pickle.loads(pickle.dumps(seen))) is type(seen)


@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (docker.errors.NotFound("x"), ContainerNotFound),
        (docker.errors.ImageNotFound("x"), ImageNotFound),
        (docker.errors.APIError("x"), EngineError),
        (docker.errors.DockerException("x"), EngineError),
        (requests.exceptions.ConnectionError("x"), EngineUnavailable),
        (requests.exceptions.ReadTimeout("x"), EngineTimeout),
        (requests.exceptions.ConnectTimeout("x"), EngineTimeout),
        (requests.exceptions.ChunkedEncodingError("x"), EngineUnavailable),
        (requests.exceptions.ConnectionError("Read timed out."), EngineTimeout),
        (BrokenPipeError("x"), EngineUnavailable),
        (urllib3.exceptions.ProtocolError("x"), EngineUnavailable),
        (urllib3.exceptions.ReadTimeoutError(None, "", "x"), EngineTimeout),  # type: ignore[arg-type]
    ],
    ids=repr,
)
def test_the_most_specific_class_counts(error: Exception, ours: type[PodkitError]) -> None:
    assert type(crossed(error)) is ours


def test_podkits_own_errors_cross_as_they_are() -> None:
    error = InvalidInput("no")
    assert crossed(error) is error


def test_other_errors_are_not_touched() -> None:
    error = KeyError("a defect of ours")
    assert crossed(error) is error


def test_the_engines_explanation_is_what_is_said() -> None:
    error = docker.errors.APIError("500 Server Error", explanation="the disk is full")
    assert str(crossed(error)) == "doing something: the disk is full"
