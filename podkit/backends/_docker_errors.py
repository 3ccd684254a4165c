"""A Docker engine's refusals as podkit's errors.

Statuses alone do not tell them apart: half of them differ only in their text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from podkit.backends._docker_calls import CONFLICT, MISSING, exists
from podkit.backends._http import Refused, Requests
from podkit.backends.base import NotStarted, WorkloadSpec
from podkit.errors import (
    ContainerFailedToStart,
    ContainerNotFound,
    ContainerNotRunning,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    ImageNotFound,
    InvalidInput,
    MountSourceNotFound,
    NameTaken,
    NetworkNotFound,
    PodkitError,
    PortUnavailable,
)

_BAD = 400

# These refusals come with a status that may mean anything, so podkit reads their text. No other module does.
_SOURCE_MISSING = re.compile(r"bind source path does not exist: (.+)")
_NO_DIRECTORY = re.compile(r"Cannot mkdir: .+ is not a directory")
NETWORK_MISSING = re.compile(r"network \S+ not found")
_USER_MISSING = re.compile(r"unable to find (?:user|group)")
_PORT_TAKEN = re.compile(r"port is already allocated|address already in use")
_START_REFUSALS: list[tuple[re.Pattern[str], type[PodkitError], str]] = [
    (_PORT_TAKEN, PortUnavailable, "choose another port, or stop the container or program that uses it"),
    (NETWORK_MISSING, NetworkNotFound, "make it again"),
    (
        _SOURCE_MISSING,
        MountSourceNotFound,
        "make it there, on the Docker host, or close the session and open it with other mounts",
    ),
    (re.compile(r"marked for removal"), ContainerNotFound, "it is being removed"),
    (_USER_MISSING, ContainerFailedToStart, "set user= to one that is in the image, or to a number"),
    (
        re.compile(r"docker-init|tini"),
        EngineError,
        "the engine's init is missing: install it (Debian: apt-get install tini)",
    ),
]
_PROGRAM, _DIRECTORY = 'exec: "', "chdir to cwd"
_REFUSALS = re.compile(rf"{_PROGRAM}|{_DIRECTORY}|{_USER_MISSING.pattern}")
_REST_OF_NAME = re.compile(r'(?s)\A(?:[^"\\]|\\.)*"')  # a program's name up to its end, in Go's quotes
_PROGRAM_MISSING = re.compile(r"executable file not found|no such file or directory")
_NOT_RUNNING = re.compile(r"is not running|is paused|is restarting")


@contextmanager
def engine_errors(doing: str) -> Iterator[None]:
    """Turn a refusal into one of podkit's errors."""
    try:
        yield
    except Refused as exc:
        error = ContainerNotFound if exc.status == MISSING else EngineError
        raise error(f"{doing}: {exc}") from exc
    except (EngineTimeout, EngineUnavailable) as exc:
        raise type(exc)(f"{doing}: {exc}") from exc
    except OSError as exc:
        if isinstance(exc, PodkitError):  # several of podkit's errors are an OSError too
            raise
        raise EngineUnavailable(f"{doing}: {exc}") from exc
    except (KeyError, IndexError, TypeError, AttributeError) as exc:  # the JSON has another shape
        raise EngineUnavailable(f"{doing}: the answer is not a Docker engine's ({exc!r})") from exc


def image_missing(image: str, text: str) -> str:
    """Return the message for an image that cannot be had."""
    return (
        f"the image {image!r} is not on the engine and cannot be pulled ({text}): check its name, pull or build it by "
        "hand, or name another one (image=..., or PODKIT_DEFAULT_IMAGE where none is named)"
    )


def network_missing(name: str) -> NetworkNotFound:
    """Return the error of a missing network."""
    return NetworkNotFound(f"the network {name!r} does not exist: make it with 'docker network create {name}'")


def creation_error(api: Requests, exc: Refused, spec: WorkloadSpec) -> PodkitError:
    """Return the error of a container that was not made. Asks which part of `spec` is missing."""
    text = str(exc)
    if exc.status == CONFLICT:
        return NameTaken(f"a container named {spec.name!r} exists: {text}")
    if missing := _SOURCE_MISSING.search(text):
        return MountSourceNotFound(
            f"the mount source {missing[1]!r} does not exist on the Docker host: make it there first. Where podkit "
            "runs in a container, name it as the host sees it (a workspace by workspace_host)"
        )
    if exc.status == MISSING:  # the status does not tell which part is missing, so ask for each
        for network in spec.networks:
            if not exists(api, "networks", network):
                return network_missing(network)
        if not exists(api, "images", spec.image, "json"):
            return ImageNotFound(image_missing(spec.image, text))
    if _NO_DIRECTORY.search(text):
        return InvalidInput(f"working_dir={spec.working_dir!r} is a file in image {spec.image!r}: name a directory")
    if exc.status == _BAD:
        return InvalidInput(f"the engine refuses container {spec.name!r} of image {spec.image!r}: {text}")
    return EngineError(f"creating container {spec.name!r}: {text}")


def start_error(exc: Refused, id: str) -> PodkitError:
    """Return the error of a container that did not start."""
    text = str(exc)
    for pattern, error, cure in _START_REFUSALS:
        if pattern.search(text):
            return error(f"container {id[:12]} failed to start: {text}; {cure}")
    return ContainerFailedToStart(f"container {id[:12]} failed to start: {text}")


def exec_error(status: int | None, doing: str, text: str) -> PodkitError:
    """Return the error of a command that was not started."""
    known: dict[int, type[PodkitError]] = {400: InvalidInput, 404: ContainerNotFound, 409: ContainerNotRunning}
    error = known.get(status or 0, EngineError)
    if _NOT_RUNNING.search(text):  # the status is 500 if the container ended between two requests
        error = ContainerNotRunning
    return error(f"{doing}: {text}")


def not_started(output: str) -> Exception:
    """Return the error of a process that never started. The engine prints the reason as the command's output.

    The reason quotes the caller's words after the engine's own phrase, so the first phrase found is the engine's. A
    reason without a known phrase comes from a container that is just ending.
    """
    found = _REFUSALS.search(output)
    if found is None:  # the engine may blame any file of its own, so its words are no proof of a missing program
        return NotStarted(output, exit_code=None)
    if found[0] == _DIRECTORY:
        return InvalidInput(f"the command's working_dir is not a directory inside: make it first ({output})")
    if found[0] != _PROGRAM:
        return InvalidInput(f"the command's user is not in the container: name one that is, or a number ({output})")
    # skip the quoted name, which may itself contain the phrase
    reason = _REST_OF_NAME.sub("", output[found.end() :])
    return NotStarted(output, exit_code=127 if _PROGRAM_MISSING.search(reason) else 126)
