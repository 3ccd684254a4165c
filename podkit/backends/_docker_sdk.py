"""The parts of podkit that need Docker's SDK.

These are `DockerBackend.client` and the user's registry credentials. The first use of either imports this module,
because the SDK takes longer to import than all of podkit.
"""

from __future__ import annotations

import logging

import docker
import docker.auth
import docker.errors
from docker.tls import TLSConfig
from docker.utils import parse_repository_tag

from podkit.backends._endpoint import Endpoint
from podkit.utils._deadline import ENGINE_CALL_SECONDS

_CONNECTIONS = 64

_logger = logging.getLogger("podkit.backends.docker")  # a public name, see docs/logging.md


def make_client(endpoint: Endpoint, version: str) -> docker.DockerClient:
    """Return a client of the SDK. Does no I/O, because the API's version is known."""
    tls: TLSConfig | bool = False
    if endpoint.tls:
        certificate, key = endpoint.tls.file("cert.pem"), endpoint.tls.file("key.pem")
        pair = (certificate, key) if certificate and key else None
        tls = TLSConfig(client_cert=pair, ca_cert=endpoint.tls.file("ca.pem"), verify=endpoint.tls.verify)
    client = docker.DockerClient(
        endpoint.url, version=version, timeout=int(ENGINE_CALL_SECONDS), tls=tls, max_pool_size=_CONNECTIONS
    )
    client.api.trust_env = False  # ignore HTTP_PROXY, as podkit's own requests do
    return client


def split_image(image: str) -> tuple[str, str]:
    """Return the repository of an image and its tag or digest."""
    repository, tag = parse_repository_tag(image)
    return repository, tag or "latest"


def registry_credentials(repository: str) -> str:
    """Return the `docker login` credentials for a repository, encoded for the engine. Empty without any."""
    try:
        registry, _ = docker.auth.resolve_repository_name(repository)
        found = docker.auth.load_config().resolve_authconfig(registry)
        return docker.auth.encode_header(found).decode() if found else ""
    except (docker.errors.DockerException, OSError, ValueError, TypeError, KeyError, AttributeError) as exc:
        # most images need no credentials; for the others, the engine's refusal says so
        _logger.warning("the docker client's credentials cannot be read and are not used: %s", exc)
        return ""
