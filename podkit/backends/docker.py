"""The backend for Docker: the only module that imports its SDK.

Works with engines from API 1.41 (20.10) on; never speaks a newer API than 1.51, because later ones drop fields.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from collections.abc import Callable, Iterator, Mapping
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

from podkit.backends._docker_json import container_request, published_ports, workload_info, workload_row
from podkit.backends._endpoint import Endpoint, dial, find_endpoints
from podkit.backends._stream import Refused, SocketStream, open_raw_stream
from podkit.backends.base import (
    ExecSpec,
    ExecStream,
    Filters,
    NotStarted,
    WorkloadInfo,
    WorkloadRow,
    WorkloadSpec,
    filter_values,
    matches,
)
from podkit.errors import (
    ContainerError,
    ContainerFailedToStart,
    ContainerNotFound,
    ContainerNotRunning,
    EngineAccessDenied,
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
from podkit.utils._deadline import ENGINE_CALL_SECONDS, Deadline, call_deadline, wait_until
from podkit.utils._fork import renew_after_fork

NEWEST_API = (1, 51)
CONNECT_SECONDS = 10
_LOG_MAX_BYTES = 64 << 10

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

# The engine reports these only as text, with a status that means anything: so the text is read, here and nowhere else.
_START_REFUSALS: list[tuple[str, type[PodkitError], str]] = [
    (r"port is already allocated|address already in use", PortUnavailable, "choose another port, or stop its user"),
    (r"network (\S+) not found", NetworkNotFound, "make it with 'docker network create {}'"),
    (r"marked for removal", ContainerNotFound, "it is being removed"),
    (r"docker-init|tini", EngineError, "the engine's init is missing: install it (Debian: apt-get install tini)"),
]
_NOT_RUNNING = re.compile(r"is not running|is paused|is restarting")
_NEVER_STARTED = 126, 127, 128  # of an exec without a pid: 20.10 says 126, Engine 29 says 127 or 128
_PROGRAM = 'exec: "'
_REFUSALS = re.compile(rf"{_PROGRAM}|unable to find (?:user|group)|chdir to cwd")
_REST_OF_NAME = re.compile(r'(?s)\A(?:[^"\\]|\\.)*"')  # as Go quotes it
_PROGRAM_MISSING = re.compile(r"executable file not found|no such file or directory")
_SOURCE_MISSING = re.compile(r"bind source path does not exist: (.+)")


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


@contextmanager
def _errors(doing: str) -> Iterator[None]:
    """Let the SDK's errors cross as podkit's."""
    try:
        yield
    except tuple(ERRORS) as exc:
        known = next(ERRORS[base] for base in type(exc).__mro__ if base in ERRORS)
        if known is EngineTimeout or (known is EngineUnavailable and _is_timeout(exc)):
            raise EngineTimeout(f"{doing}: the engine did not answer in time") from exc
        if known is EngineUnavailable:
            raise EngineUnavailable(f"{doing}: the engine cannot be reached: {_root_cause(exc)}") from exc
        raise known(f"{doing}: {_explanation(exc)}") from exc
    except OSError as exc:
        if isinstance(exc, PodkitError):
            raise
        raise EngineUnavailable(f"{doing}: {exc}") from exc


def _is_timeout(exc: BaseException) -> bool:
    # a body that stops in the middle is a ConnectionError around urllib3's own timeout
    return "timed out" in str(exc) and isinstance(exc, requests.exceptions.ConnectionError)


def _explanation(exc: Exception) -> str:
    return str(getattr(exc, "explanation", None) or exc)


class DockerBackend:
    """A Docker engine, found the way the `docker` command finds it. Implements `podkit.backends.base.Backend`.

    Making the object does no I/O. Safe to use from many threads; a forked child connects anew at its first call.

    Args:
        logger: where to log; by default this module's logger.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger(__name__)
        self._lock = threading.Lock()  # guards _client and _endpoint
        self._client: docker.DockerClient | None = None
        self._endpoint: Endpoint | None = None
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._client = None  # its sockets stay the parent's

    # --- connection ---------------------------------------------------------------------------------

    def connect(self) -> None:
        """Find the engine: `DOCKER_HOST`, then the current docker context, then the usual sockets.

        Blocks for at most 10 s for each address. Twice is harmless.

        Raises:
            EngineUnavailable: nothing answers; the message lists what was tried, in order.
            EngineAccessDenied: an engine is there, but this user may not talk to it.
        """
        with self._lock:
            if self._client is not None:
                return
            tried: list[str] = []
            denied = False
            for endpoint in [self._endpoint] if self._endpoint else find_endpoints(os.environ):
                try:
                    self._client = _connect(endpoint)
                except (docker.errors.DockerException, requests.exceptions.RequestException, OSError) as exc:
                    reason = _root_cause(exc)
                    denied = denied or isinstance(reason, PermissionError)
                    tried.append(f"{endpoint}: {reason}")
                else:
                    self._endpoint = endpoint
                    self._logger.debug("connected to Docker at %s", endpoint)
                    return
        if denied:
            raise EngineAccessDenied(
                f"this user may not talk to the Docker engine. Tried: {'; '.join(tried)}. "
                "Add the user to the group 'docker' (and log in again), or point DOCKER_HOST to an engine of its own"
            )
        raise EngineUnavailable(
            f"no Docker engine answers. Tried: {'; '.join(tried)}. Start one, or set DOCKER_HOST to where it listens"
        )

    @property
    def client(self) -> docker.DockerClient:
        """The Docker SDK's client.

        Raises:
            EngineUnavailable: `connect()` has not been called.
        """
        if self._client is None:
            raise EngineUnavailable("this backend is not connected: call connect() first")
        return self._client

    @property
    def _api(self) -> docker.APIClient:
        if self._client is None and self._endpoint is not None:  # after a fork
            self.connect()
        return self.client.api

    # --- images -------------------------------------------------------------------------------------

    def pull_image(self, image: str, progress: Callable[[str], None]) -> None:
        """See `Backend.pull_image`."""
        repository, tag = parse_repository_tag(image)
        with _errors(f"pulling image {image!r}"):
            try:
                for event in self._api.pull(repository, tag=tag or "latest", stream=True, decode=True):
                    if "error" in event:
                        raise ImageNotFound(_image_missing(image, str(event["error"])))
                    if text := " ".join(filter(None, (event.get("id"), event.get("status"), event.get("progress")))):
                        progress(text)
            except docker.errors.DockerException as exc:  # also where the client's store of credentials is broken
                raise ImageNotFound(_image_missing(image, _explanation(exc))) from exc

    # --- lifecycle ----------------------------------------------------------------------------------

    def create_workload(self, spec: WorkloadSpec) -> str:
        """See `Backend.create_workload`."""
        with _errors(f"creating container {spec.name!r}"):
            create = self._api.create_container_from_config
            try:
                id = str(create(self._body(spec), spec.name)["Id"])  # type: ignore[no-untyped-call]  # not in the stubs
            except docker.errors.APIError as exc:
                raise self._creation_error(exc, spec) from exc
            try:
                for network in spec.networks[1:]:  # before API 1.44, creating takes one network only
                    self._api.connect_container_to_network(id, network)
            except BaseException as exc:
                self.remove_workload(id)
                if isinstance(exc, docker.errors.APIError):
                    raise self._creation_error(exc, spec) from exc
                raise
        return id

    def _body(self, spec: WorkloadSpec) -> dict[str, Any]:
        def subpath(mount: Mapping[str, Any]) -> str | None:
            return (mount.get("VolumeOptions") or {}).get("Subpath")

        mounts = [dict(mount) for mount in spec.mounts if subpath(mount) is None]
        binds = [self._volume_directory(mount, path) for mount in spec.mounts if (path := subpath(mount)) is not None]
        return container_request(spec, mounts, binds)

    def _volume_directory(self, mount: Mapping[str, Any], subpath: str) -> str:
        """Give one directory of a volume as an old-style bind, which makes the directory where it is missing.

        `VolumeOptions.Subpath` itself needs API 1.45 and a directory that exists.
        """
        volume = self._api.create_volume(mount["Source"])  # also gives one that exists
        flags = "ro" if mount.get("ReadOnly") else "rw"
        return f"{volume['Mountpoint']}/{subpath}:{mount['Target']}:{flags}"

    def _creation_error(self, exc: docker.errors.APIError, spec: WorkloadSpec) -> PodkitError:
        text = _explanation(exc)
        if exc.status_code == 409:
            return NameTaken(f"a container named {spec.name!r} exists: {text}")
        if missing := _SOURCE_MISSING.search(text):
            return MountSourceNotFound(
                f"the mount source {missing[1]!r} does not exist on the Docker host: make it there first. Where podkit "
                "runs in a container, name the directory as the host sees it (workspace_host)"
            )
        if exc.status_code == 404:
            for network in spec.networks:
                if not self._exists(self._api.inspect_network, network):
                    return NetworkNotFound(
                        f"the network {network!r} does not exist: make it with 'docker network create {network}'"
                    )
            if not self._exists(self._api.inspect_image, spec.image):
                return ImageNotFound(_image_missing(spec.image, text))
        if exc.status_code == 400:
            return InvalidInput(f"the engine refuses container {spec.name!r} of image {spec.image!r}: {text}")
        return EngineError(f"creating container {spec.name!r}: {text}")

    def _exists(self, inspect: Callable[[str], object], name: str) -> bool:
        try:
            inspect(name)
        except docker.errors.NotFound:
            return False
        return True

    def start_workload(self, id: str) -> None:
        """See `Backend.start_workload`."""
        with _errors(f"starting container {id[:12]}"):
            try:
                self._api.start(id)
            except docker.errors.NotFound as exc:
                if self._exists(self._api.inspect_container, id):
                    raise _start_error(exc, id) from exc
                raise
            except docker.errors.APIError as exc:
                raise _start_error(exc, id) from exc

    def stop_workload(self, id: str, timeout: float) -> None:
        """See `Backend.stop_workload`."""
        with _errors(f"stopping container {id[:12]}"):
            if timeout > 0:
                self._api.stop(id, timeout=max(1, round(timeout)))
                return
            try:
                self._api.kill(id)
            except docker.errors.APIError as exc:
                if exc.status_code != 409:  # 409: it does not run
                    raise
            # the engine answers once it has sent the signal
            deadline = call_deadline()
            if not wait_until(lambda: not self._runs(id), deadline=deadline, interval=0.005, longest_interval=0.1):
                raise EngineTimeout(f"container {id[:12]} still runs after it was killed")

    def _runs(self, id: str) -> bool:
        state = self._api.inspect_container(id)["State"]
        return bool(state["Running"])

    def remove_workload(self, id: str, *, force: bool = True) -> None:
        """See `Backend.remove_workload`."""
        with _errors(f"removing container {id[:12]}"):
            try:
                self._api.remove_container(id, v=True, force=force)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as exc:
                if exc.status_code != 409:
                    raise
                if not force and self._runs(id):
                    raise ContainerError(f"container {id[:12]} runs: it is not removed") from exc
                # another caller is removing it right now
                gone = lambda: not self._exists(self._api.inspect_container, id)  # noqa: E731
                if not wait_until(gone, deadline=call_deadline(), interval=0.01):
                    raise

    # --- looking ------------------------------------------------------------------------------------

    def inspect_workload(self, id: str) -> WorkloadInfo:
        """See `Backend.inspect_workload`."""
        with _errors(f"inspecting container {id!r}"):
            return workload_info(self._api.inspect_container(id))

    def list_workloads(self, filters: Filters | None = None) -> list[WorkloadRow]:
        """See `Backend.list_workloads`."""
        filters = filters or {}
        if unknown := filters.keys() - {"label", "name"}:
            raise InvalidInput(f"list_workloads has no filter {sorted(unknown)}: there are 'label' and 'name'")
        with _errors("listing containers"):
            labels = filter_values(filters, "label")
            found = self._api.containers(all=True, filters={"label": labels} if labels else None)
        rows = [workload_row(row) for row in found]
        return [row for row in rows if matches(row, filters)]

    def get_workload_logs(self, id: str, lines: int) -> str:
        """See `Backend.get_workload_logs`."""
        with _errors(f"reading the log of container {id[:12]}"):
            data: bytes = self._api.logs(id, stdout=True, stderr=True, tail=lines)
        return data[-_LOG_MAX_BYTES:].decode(errors="replace")

    def get_accessible_ports(self, id: str) -> dict[int, int]:
        """See `Backend.get_accessible_ports`."""
        with _errors(f"inspecting container {id[:12]}"):
            published = self._api.inspect_container(id)["NetworkSettings"].get("Ports") or {}
        return published_ports(published)

    # --- commands -----------------------------------------------------------------------------------

    def open_stream(self, id: str, spec: ExecSpec) -> ExecStream:
        """See `Backend.open_stream`."""
        doing = f"starting a command in container {id[:12]}"
        with _errors(doing):
            api, endpoint = self._api, self._endpoint
            assert endpoint is not None  # set by connect()
            try:
                exec_id = api.exec_create(
                    id,
                    list(spec.argv),
                    stdin=spec.stdin,
                    user=spec.user or "",
                    workdir=spec.working_dir,
                    environment=dict(spec.environment) or None,
                )["Id"]
            except docker.errors.APIError as exc:
                raise _exec_error(exc.status_code, doing, _explanation(exc)) from exc
            deadline = call_deadline()
            connection = dial(endpoint, deadline)
            try:
                path = f"/v{api.api_version}/exec/{exec_id}/start"
                received = open_raw_stream(connection, path, {"Detach": False, "Tty": False}, deadline)
                return SocketStream(connection, received, lambda output: self._exec_exit_code(exec_id, output))
            except BaseException as exc:
                connection.close()
                if isinstance(exc, Refused):
                    raise _exec_error(exc.status, doing, str(exc)) from exc
                raise

    def _exec_exit_code(self, exec_id: str, output: str | None) -> int | None:
        with _errors("asking how a command ended"):
            state = self._api.exec_inspect(exec_id)
        if state["Running"] or state["ExitCode"] is None:
            return None
        code = int(state["ExitCode"])
        if code in _NEVER_STARTED and not state.get("Pid"):
            if output is None:
                return None  # the engine's reason is still on its way
            raise _not_started(output)
        return code


def _connect(endpoint: Endpoint) -> docker.DockerClient:
    def client(version: str) -> docker.DockerClient:
        tls: TLSConfig | bool = False
        if endpoint.tls:
            certificate, key = endpoint.tls.file("cert.pem"), endpoint.tls.file("key.pem")
            pair = (certificate, key) if certificate and key else None
            tls = TLSConfig(client_cert=pair, ca_cert=endpoint.tls.file("ca.pem"), verify=endpoint.tls.verify)
        return docker.DockerClient(endpoint.url, version=version, timeout=CONNECT_SECONDS, tls=tls, max_pool_size=64)

    dial(endpoint, Deadline.after(CONNECT_SECONDS)).close()  # says what is wrong in the kernel's words
    made = client("auto")  # asks for the version: bounded by the SDK's own timeout, as the deadlines come after it
    if tuple(int(part) for part in made.api.api_version.split(".")) > NEWEST_API:
        made.close()
        made = client(".".join(map(str, NEWEST_API)))
    made.api.timeout = int(ENGINE_CALL_SECONDS)
    for prefix, adapter in list(made.api.adapters.items()):
        made.api.mount(prefix, _DeadlineAdapter(adapter))
    return made


def _root_cause(exc: BaseException) -> BaseException:
    while (cause := exc.__cause__ or exc.__context__) is not None:
        exc = cause
    return exc


def _image_missing(image: str, text: str) -> str:
    return (
        f"the image {image!r} is not on the engine and cannot be pulled ({text}): "
        "check its name, pull or build it by hand, or set PODKIT_DEFAULT_IMAGE"
    )


def _start_error(exc: docker.errors.APIError, id: str) -> PodkitError:
    text = _explanation(exc)
    for pattern, error, cure in _START_REFUSALS:
        if found := re.search(pattern, text):
            return error(f"container {id[:12]} cannot be started: {text}; {cure.format(*found.groups())}")
    return ContainerFailedToStart(f"container {id[:12]} failed to start: {text}")


def _exec_error(status: int | None, doing: str, text: str) -> PodkitError:
    known: dict[int, type[PodkitError]] = {400: InvalidInput, 404: ContainerNotFound, 409: ContainerNotRunning}
    error = known.get(status or 0, EngineError)
    if _NOT_RUNNING.search(text):  # with status 500, where the container ended between two requests
        error = ContainerNotRunning
    return error(f"{doing}: {text}")


def _not_started(output: str) -> Exception:
    """Tell from the engine's text, which it prints as the command's output, why there was no process.

    Its phrase stands before the caller's words, which it quotes: the first one found is its own. A text without any
    blames the container, which is ending, whatever file of its own the engine missed.
    """
    found = _REFUSALS.search(output)
    if found is None:
        return NotStarted(output, exit_code=None)
    if found[0] != _PROGRAM:
        return InvalidInput(f"the engine refuses the command's user or working_dir: {output}")
    reason = _REST_OF_NAME.sub("", output[found.end() :])
    return NotStarted(output, exit_code=127 if _PROGRAM_MISSING.search(reason) else 126)
