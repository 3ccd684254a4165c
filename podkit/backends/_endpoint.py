"""Where a Docker-compatible engine listens, and how to connect to it. Pure sockets, no SDK."""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

from podkit.errors import EngineUnavailable
from podkit.utils._deadline import Deadline

if TYPE_CHECKING:
    from podkit.backends._tls import TlsSocket

    Connection = socket.socket | TlsSocket

_UNSENT_BYTES = 1 << 20  # the kernel's buffer: a small one wakes the sender for every few bytes that the engine takes


class Tls(NamedTuple):
    """The certificates of a TLS connection.

    Attributes:
        directory: holds `ca.pem`, `cert.pem` and `key.pem`; each may be missing.
        verify: whether the engine's certificate is checked.
    """

    directory: Path
    verify: bool

    def file(self, name: str) -> str | None:
        """Return the path of a TLS file, `None` if missing."""
        path = self.directory / name
        return str(path) if path.is_file() else None


class Endpoint(NamedTuple):
    """An address at which an engine may listen.

    Attributes:
        url: `unix:///path` or `tcp://host:port`.
        source: the setting that named it, for messages.
        tls: the certificates, `None` for a plain connection.
    """

    url: str
    source: str
    tls: Tls | None = None

    def __str__(self) -> str:
        return f"{self.url} ({self.source})"


def find_endpoints(environ: Mapping[str, str]) -> list[Endpoint]:
    """List where the engine may be, in the `docker` command's order.

    If `DOCKER_HOST` is set, it alone counts. Next comes the current docker context (`DOCKER_CONTEXT`, or the one of the
    client's configuration file). Without either, the usual sockets are listed. Reads files and connects to nothing.

    Raises:
        EngineUnavailable: the context does not exist or is not readable.
    """
    if host := environ.get("DOCKER_HOST", "").strip():
        tls = None
        if environ.get("DOCKER_TLS_VERIFY") or environ.get("DOCKER_TLS"):
            directory = environ.get("DOCKER_CERT_PATH") or _config_directory(environ)
            tls = Tls(Path(directory), verify=bool(environ.get("DOCKER_TLS_VERIFY")))
        url = host if "://" in host else f"tcp://{host}"  # as the `docker` command reads it
        return [Endpoint(url, "DOCKER_HOST", tls)]
    if name := _current_context(environ):
        return [_context_endpoint(name, _config_directory(environ) / "contexts")]
    home, runtime = Path(environ.get("HOME", "/")), environ.get("XDG_RUNTIME_DIR")
    paths = ["/var/run/docker.sock"]
    paths += [f"{runtime}/docker.sock"] if runtime else []  # rootless
    paths += [str(home / ".docker/run/docker.sock"), str(home / ".docker/desktop/docker.sock")]  # Docker Desktop
    return [Endpoint(f"unix://{path}", "usual socket") for path in paths]


def _config_directory(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("DOCKER_CONFIG") or Path(environ.get("HOME", "/"), ".docker"))


def _current_context(environ: Mapping[str, str]) -> str | None:
    name = environ.get("DOCKER_CONTEXT")
    if not name:
        try:
            name = json.loads((_config_directory(environ) / "config.json").read_text()).get("currentContext")
        except (OSError, ValueError, AttributeError):  # the `docker` command goes on without a file, too
            return None
    return name if isinstance(name, str) and name not in ("", "default") else None


def _context_endpoint(name: str, contexts: Path) -> Endpoint:
    import hashlib  # late: it loads OpenSSL

    key = hashlib.sha256(name.encode()).hexdigest()  # the `docker` command names a context's directory so
    try:
        found = json.loads((contexts / "meta" / key / "meta.json").read_text())["Endpoints"]["docker"]
        url, skip_verify = str(found["Host"]), bool(found.get("SkipTLSVerify"))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise EngineUnavailable(
            f"the docker context {name!r} cannot be read ({exc}): "
            "choose another one with 'docker context use', or set DOCKER_HOST"
        ) from exc
    directory = contexts / "tls" / key / "docker"
    return Endpoint(
        url, f"docker context {name!r}", Tls(directory, verify=not skip_verify) if directory.is_dir() else None
    )


def dial(endpoint: Endpoint, deadline: Deadline) -> Connection:
    """Open a new connection to the engine, which the caller owns.

    Blocks until the deadline at most. The errors do not name the endpoint, which the caller knows.

    Raises:
        OSError: nothing listens, or nothing answered in time.
        EngineUnavailable: podkit does not speak this kind of address.
    """
    try:
        parts = urlsplit(endpoint.url)
        port = parts.port or (2376 if endpoint.tls else 2375)
    except ValueError as exc:
        raise EngineUnavailable(f"this is not an address: {exc}; use unix:///path or tcp://host:port") from exc
    if parts.scheme == "unix":
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _UNSENT_BYTES)  # or as much as the kernel allows
            connection.settimeout(deadline.wait_seconds())
            connection.connect(parts.path)
        except BaseException:
            connection.close()
            raise
        return connection
    if parts.scheme == "tcp" and parts.hostname:
        try:
            connection = socket.create_connection((parts.hostname, port), deadline.wait_seconds())
        except UnicodeError as exc:
            raise EngineUnavailable(f"this is not an address: {exc}; use unix:///path or tcp://host:port") from exc
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # small writes go out at once
        return _encrypt(connection, endpoint.tls, parts.hostname) if endpoint.tls else connection
    raise EngineUnavailable(
        "podkit speaks unix:// and tcp://; for ssh, forward the socket with "
        "'ssh -NL /tmp/docker.sock:/var/run/docker.sock HOST' and set DOCKER_HOST=unix:///tmp/docker.sock"
    )


def _encrypt(connection: socket.socket, tls: Tls, hostname: str) -> TlsSocket:
    import ssl  # late: most engines are on this machine

    from podkit.backends._tls import TlsSocket

    context = ssl.create_default_context(cafile=tls.file("ca.pem"))
    if not tls.verify:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate := tls.file("cert.pem"):
        context.load_cert_chain(certificate, tls.file("key.pem"))
    try:
        return TlsSocket(connection, context, hostname)
    except BaseException:
        connection.close()
        raise
