"""What podkit uses Docker's SDK for: its client, for those who want it, and pulling with the user's credentials.

Imported at the first use of either: the SDK takes longer to import than all of podkit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import docker.errors
import requests
import requests.exceptions
import urllib3.exceptions
from docker.tls import TLSConfig
from docker.utils import parse_repository_tag
from requests.adapters import BaseAdapter

from podkit.backends._endpoint import Endpoint
from podkit.errors import (
    ContainerNotFound,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    ImageNotFound,
    PodkitError,
)
from podkit.utils._deadline import ENGINE_CALL_SECONDS, call_deadline

_CONNECTIONS = 64

ERRORS: dict[type[Exception], type[PodkitError]] = {
    requests.exceptions.RequestException: EngineUnavailable,
    requests.exceptions.Timeout: EngineTimeout,
    urllib3.exceptions.HTTPError: EngineUnavailable,  # while an answer is read piece by piece
    urllib3.exceptions.TimeoutError: EngineTimeout,
    docker.errors.DockerException: EngineError,
    docker.errors.APIError: EngineError,  # which is also a RequestException
    docker.errors.NotFound: ContainerNotFound,
    docker.errors.ImageNotFound: ImageNotFound,
    docker.errors.StreamParseError: EngineError,
}
"""What the SDK raises -> what podkit raises: the most specific class counts."""

SdkError = docker.errors.DockerException


class _DeadlineAdapter(BaseAdapter):
    """Bounds every request of the SDK by the deadline of the podkit call that makes it."""

    def __init__(self, inner: BaseAdapter) -> None:
        super().__init__()
        self._inner = inner

    def send(
        self,
        request: requests.PreparedRequest,
        stream: bool = False,  # noqa: FBT001, FBT002 - requests' own signature
        timeout: Any = None,
        verify: Any = True,  # noqa: FBT002
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        longest = timeout if isinstance(timeout, int | float) else float("inf")
        seconds = call_deadline(longest).wait_seconds()
        return self._inner.send(request, stream=stream, timeout=seconds, verify=verify, cert=cert, proxies=proxies)

    def close(self) -> None:
        self._inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)  # the SDK asks its adapter for more than requests' interface


def make_client(endpoint: Endpoint, version: str) -> docker.DockerClient:
    """Make the SDK's client; no I/O, as the API's version is known."""
    tls: TLSConfig | bool = False
    if endpoint.tls:
        certificate, key = endpoint.tls.file("cert.pem"), endpoint.tls.file("key.pem")
        pair = (certificate, key) if certificate and key else None
        tls = TLSConfig(client_cert=pair, ca_cert=endpoint.tls.file("ca.pem"), verify=endpoint.tls.verify)
    made = docker.DockerClient(
        endpoint.url, version=version, timeout=int(ENGINE_CALL_SECONDS), tls=tls, max_pool_size=_CONNECTIONS
    )
    for prefix, adapter in list(made.api.adapters.items()):
        made.api.mount(prefix, _DeadlineAdapter(adapter))
    return made


def pull(client: docker.DockerClient, image: str) -> Iterator[dict[str, Any]]:
    """Pull an image and give the engine's events."""
    repository, tag = parse_repository_tag(image)
    yield from client.api.pull(repository, tag=tag or "latest", stream=True, decode=True)


@contextmanager
def sdk_errors(doing: str) -> Iterator[None]:
    """Let the SDK's errors cross as podkit's."""
    try:
        yield
    except tuple(ERRORS) as exc:
        known = next(ERRORS[base] for base in type(exc).__mro__ if base in ERRORS)
        if known is EngineTimeout or (known is EngineUnavailable and _is_timeout(exc)):
            raise EngineTimeout(f"{doing}: the engine did not answer in time") from exc
        if known is EngineUnavailable:
            raise EngineUnavailable(f"{doing}: the engine cannot be reached: {root_cause(exc)}") from exc
        raise known(f"{doing}: {explanation(exc)}") from exc
    except OSError as exc:
        if isinstance(exc, PodkitError):
            raise
        raise EngineUnavailable(f"{doing}: {exc}") from exc


def _is_timeout(exc: BaseException) -> bool:
    # a body that stops in the middle is a ConnectionError around urllib3's own timeout
    return "timed out" in str(exc) and isinstance(exc, requests.exceptions.ConnectionError)


def explanation(exc: Exception) -> str:
    """Give the engine's own words where it has said some."""
    return str(getattr(exc, "explanation", None) or exc)


def root_cause(exc: BaseException) -> BaseException:
    """Give what an exception came of, at the end of the chain."""
    while (cause := exc.__cause__ or exc.__context__) is not None:
        exc = cause
    return exc
