"""The backend for Docker, over its HTTP API; only `_docker_sdk.py`, which is imported late, imports the SDK.

Works with engines from API 1.41 (20.10) on; never speaks a newer API than 1.51, because later ones drop fields.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from podkit.backends._docker_calls import CONFLICT, MISSING, create_container, exists, put_archive
from podkit.backends._docker_errors import (
    SOURCE_MISSING,
    engine_errors,
    exec_error,
    image_missing,
    not_started,
    start_error,
)
from podkit.backends._docker_json import (
    container_request,
    exec_request,
    published_ports,
    workload_info,
    workload_row,
)
from podkit.backends._docker_volume import SharedVolumes
from podkit.backends._endpoint import Endpoint, dial, find_endpoints
from podkit.backends._frames import FrameReader
from podkit.backends._http import NOT_MODIFIED, HttpClient, Refused
from podkit.backends._stream import SocketStream, open_raw_stream
from podkit.backends.base import (
    ExecSpec,
    ExecStream,
    Filters,
    WorkloadInfo,
    WorkloadRow,
    WorkloadSpec,
    filter_values,
    is_root,
    matches,
)
from podkit.errors import (
    ContainerError,
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
)
from podkit.utils._deadline import ENGINE_CALL_SECONDS, Deadline, call_deadline, wait_until
from podkit.utils._fork import renew_after_fork

if TYPE_CHECKING:
    import docker

NEWEST_API = (1, 51)
CONNECT_SECONDS = 10
_LOG_MAX_BYTES = 64 << 10
_BAD, _NOT_IMPLEMENTED = 400, 501  # what the engine answers with


class DockerBackend:
    """A Docker engine, found the way the `docker` command finds it. Implements `podkit.backends.base.Backend`.

    Making the object does no I/O. Safe to use from many threads; a forked child connects anew at its first call.

    Args:
        logger: where to log; by default this module's logger.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        self._logger = logger or logging.getLogger(__name__)
        self._lock = threading.Lock()  # guards the four below
        self._client: docker.DockerClient | None = None
        self._http: HttpClient | None = None
        self._endpoint: Endpoint | None = None
        self._version = ""
        self._shared = SharedVolumes(self._logger)
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()
        self._client = self._http = None  # their sockets stay the parent's

    # --- connection ---------------------------------------------------------------------------------

    def connect(self) -> None:
        """Find the engine: `DOCKER_HOST`, then the current docker context, then the usual sockets.

        Blocks for at most 10 s for each address. Twice is harmless.

        Raises:
            EngineUnavailable: nothing answers; the message lists what was tried, in order.
            EngineAccessDenied: an engine is there, but this user may not talk to it.
        """
        with self._lock:
            if self._http is not None:
                return
            tried: list[str] = []
            denied = False
            for endpoint in [self._endpoint] if self._endpoint else find_endpoints(os.environ):
                try:
                    self._version = _ask_version(endpoint)
                except (Refused, EngineError, OSError) as exc:
                    reason = _root_cause(exc)
                    denied = denied or isinstance(reason, PermissionError)
                    tried.append(f"{endpoint}: {str(reason) or 'no answer in time'}")
                else:
                    self._endpoint, self._http = endpoint, HttpClient(endpoint, f"/v{self._version}")
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
        with self._lock:
            if self._endpoint is None:
                raise EngineUnavailable("this backend is not connected: call connect() first")
            if self._client is None:
                from podkit.backends._docker_sdk import make_client  # late: it takes longer than connecting

                self._client = make_client(self._endpoint, self._version)
            return self._client

    @property
    def _api(self) -> HttpClient:
        if self._http is None and self._endpoint is not None:  # after a fork
            self.connect()
        if self._http is None:
            raise EngineUnavailable("this backend is not connected: call connect() first")
        return self._http

    # --- images -------------------------------------------------------------------------------------

    def pull_image(self, image: str, progress: Callable[[str], None]) -> None:
        """See `Backend.pull_image`."""
        from podkit.backends._docker_sdk import SdkError, explanation, pull, sdk_errors  # late: see `client`

        with sdk_errors(f"pulling image {image!r}"):
            try:
                for event in pull(self.client, image):
                    if "error" in event:
                        raise ImageNotFound(image_missing(image, str(event["error"])))
                    if text := " ".join(filter(None, (event.get("id"), event.get("status"), event.get("progress")))):
                        progress(text)
            except SdkError as exc:  # also where the client's store of credentials is broken
                raise ImageNotFound(image_missing(image, explanation(exc))) from exc

    # --- lifecycle ----------------------------------------------------------------------------------

    def create_workload(self, spec: WorkloadSpec) -> str:
        """See `Backend.create_workload`."""
        if spec.shared:
            with engine_errors(f"placing {spec.shared.name} on the engine"):
                self._shared.place(self._api, spec.shared, spec.image)
        with engine_errors(f"creating container {spec.name!r}"):
            try:
                id = create_container(self._api, spec.name, self._body(spec))
            except Refused as exc:
                raise self._creation_error(exc, spec) from exc
            try:
                for network in spec.networks[1:]:  # before API 1.44, creating takes one network only
                    self._api.ask("POST", "networks", network, "connect", body={"Container": id})
                if spec.open_directory is not None:
                    self._open_directory(id, spec.open_directory)
            except BaseException as exc:
                self.remove_workload(id)
                if isinstance(exc, Refused):
                    raise self._creation_error(exc, spec) from exc
                raise
        return id

    def _body(self, spec: WorkloadSpec) -> dict[str, Any]:
        def subpath(mount: Mapping[str, Any]) -> str | None:
            return (mount.get("VolumeOptions") or {}).get("Subpath")

        mounts = [dict(mount) for mount in spec.mounts if subpath(mount) is None]
        if spec.shared:
            source, target = spec.shared.name, spec.shared.target
            mounts.append({"Type": "volume", "Source": source, "Target": target, "ReadOnly": True})
        binds = [self._volume_directory(mount, path) for mount in spec.mounts if (path := subpath(mount)) is not None]
        return container_request(spec, mounts, binds)

    def _volume_directory(self, mount: Mapping[str, Any], subpath: str) -> str:
        """Give one directory of a volume as an old-style bind, which makes the directory where it is missing.

        `VolumeOptions.Subpath` itself needs API 1.45 and a directory that exists.
        """
        volume = self._api.ask("POST", "volumes", "create", body={"Name": mount["Source"]})  # gives one that exists too
        flags = "ro" if mount.get("ReadOnly") else "rw"
        return f"{volume['Mountpoint']}/{subpath}:{mount['Target']}:{flags}"

    def _open_directory(self, id: str, directory: str) -> None:
        """Let a user other than root write to a directory that the engine has made. The container has never run."""
        if not is_root(self._api.ask("GET", "containers", id, "json")["Config"].get("User") or ""):
            from podkit.backends._archive import of_open_directory  # late: most containers have root

            # unpacked at the root: for what is mounted, the engine ignores the mode of the top of an archive
            put_archive(self._api, id, "/", of_open_directory(directory))

    def _creation_error(self, exc: Refused, spec: WorkloadSpec) -> PodkitError:
        text = str(exc)
        if exc.status == CONFLICT:
            return NameTaken(f"a container named {spec.name!r} exists: {text}")
        if missing := SOURCE_MISSING.search(text):
            return MountSourceNotFound(
                f"the mount source {missing[1]!r} does not exist on the Docker host: make it there first. Where podkit "
                "runs in a container, name it as the host sees it (a workspace by workspace_host)"
            )
        if exc.status == MISSING:
            for network in spec.networks:
                if not exists(self._api, "networks", network):
                    return NetworkNotFound(
                        f"the network {network!r} does not exist: make it with 'docker network create {network}'"
                    )
            if not exists(self._api, "images", spec.image, "json"):
                return ImageNotFound(image_missing(spec.image, text))
        if exc.status == _BAD:
            return InvalidInput(f"the engine refuses container {spec.name!r} of image {spec.image!r}: {text}")
        return EngineError(f"creating container {spec.name!r}: {text}")

    def _is_gone(self, id: str) -> bool:
        return not exists(self._api, "containers", id, "json")

    def start_workload(self, id: str) -> None:
        """See `Backend.start_workload`."""
        with engine_errors(f"starting container {id[:12]}"):
            self._start(id)

    def start_attached(self, id: str) -> ExecStream | None:
        """See `Backend.start_attached`."""
        with engine_errors(f"starting container {id[:12]}"):
            target = f"/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1"
            stream = self._raw_stream(target, {}, lambda _: self._main_exit_code(id))
            started = False
            try:
                started = self._start(id)
            finally:
                if not started:
                    stream.close()
            return stream if started else None

    def _start(self, id: str) -> bool:
        """Start a container; whether it did not run already."""
        try:
            self._api.ask("POST", "containers", id, "start")
        except Refused as exc:
            if exc.status == NOT_MODIFIED:
                return False
            if exc.status == MISSING and self._is_gone(id):
                raise
            raise start_error(exc, id) from exc
        return True

    def _main_exit_code(self, id: str) -> int | None:
        with engine_errors(f"asking how container {id[:12]} ended"):
            state = self._api.ask("GET", "containers", id, "json")["State"]
            return None if state["Running"] else int(state["ExitCode"])

    def stop_workload(self, id: str, timeout: float) -> None:
        """See `Backend.stop_workload`."""
        with engine_errors(f"stopping container {id[:12]}"):
            if timeout > 0:
                seconds = max(1, round(timeout))
                deadline = call_deadline(ENGINE_CALL_SECONDS + seconds)
                try:
                    self._api.ask("POST", "containers", id, "stop", query={"t": seconds}, deadline=deadline)
                except Refused as exc:
                    if exc.status != NOT_MODIFIED:
                        raise
                return
            try:
                self._api.ask("POST", "containers", id, "kill")
            except Refused as exc:
                if exc.status != CONFLICT:  # that: it does not run
                    raise
            # the engine answers once it has sent the signal
            deadline = call_deadline()
            if not wait_until(lambda: not self._runs(id), deadline=deadline, interval=0.005, longest_interval=0.1):
                raise EngineTimeout(f"container {id[:12]} still runs after it was killed")

    def _runs(self, id: str) -> bool:
        return bool(self._api.ask("GET", "containers", id, "json")["State"]["Running"])

    def remove_workload(self, id: str, *, force: bool = True) -> bool:
        """See `Backend.remove_workload`."""
        with engine_errors(f"removing container {id[:12]}"):
            try:
                self._remove(id, force=force)
            except Refused as exc:
                if exc.status == MISSING:
                    return False
                if exc.status != CONFLICT:
                    raise
                if not force and self._runs(id):
                    raise ContainerError(f"container {id[:12]} runs: it is not removed") from exc
                # another caller is removing it right now
                if not wait_until(lambda: self._is_gone(id), deadline=call_deadline(), interval=0.01):
                    raise
                return False
        return True

    def _remove(self, id: str, *, force: bool = True) -> None:
        self._api.ask("DELETE", "containers", id, query={"v": "true", "force": "true" if force else "false"})

    # --- looking ------------------------------------------------------------------------------------

    def inspect_workload(self, id: str) -> WorkloadInfo:
        """See `Backend.inspect_workload`."""
        with engine_errors(f"inspecting container {id!r}"):
            return workload_info(self._api.ask("GET", "containers", id, "json"))

    def list_workloads(self, filters: Filters | None = None) -> list[WorkloadRow]:
        """See `Backend.list_workloads`."""
        filters = filters or {}
        if unknown := filters.keys() - {"label", "name"}:
            raise InvalidInput(f"list_workloads has no filter {sorted(unknown)}: there are 'label' and 'name'")
        with engine_errors("listing containers"):
            labels = filter_values(filters, "label")
            query = {"all": 1} | ({"filters": json.dumps({"label": labels})} if labels else {})
            found = self._api.ask("GET", "containers", "json", query=query)
        rows = [workload_row(row) for row in found]
        return [row for row in rows if matches(row, filters)]

    def get_workload_logs(self, id: str, lines: int) -> str:
        """See `Backend.get_workload_logs`."""
        with engine_errors(f"reading the log of container {id[:12]}"):
            query = {"stdout": 1, "stderr": 1, "tail": lines}
            try:
                data = self._api.fetch("GET", "containers", id, "logs", query=query)
            except Refused as exc:
                if exc.status != _NOT_IMPLEMENTED:
                    raise
                return ""  # whoever attached has what it wrote
            text = b"".join(chunk.data for chunk in FrameReader().feed(data))
        return text[-_LOG_MAX_BYTES:].decode(errors="replace")

    def get_accessible_ports(self, id: str) -> dict[int, int]:
        """See `Backend.get_accessible_ports`."""
        with engine_errors(f"inspecting container {id[:12]}"):
            published = self._api.ask("GET", "containers", id, "json")["NetworkSettings"].get("Ports") or {}
        return published_ports(published)

    # --- commands -----------------------------------------------------------------------------------

    def open_stream(self, id: str, spec: ExecSpec) -> ExecStream:
        """See `Backend.open_stream`."""
        doing = f"starting a command in container {id[:12]}"
        with engine_errors(doing):
            try:
                exec_id = str(self._api.ask("POST", "containers", id, "exec", body=exec_request(spec))["Id"])
                body = {"Detach": False, "Tty": False}
                exit_code = lambda output: self._exec_exit_code(exec_id, output)  # noqa: E731
                return self._raw_stream(f"/exec/{exec_id}/start", body, exit_code)
            except Refused as exc:
                raise exec_error(exc.status, doing, str(exc)) from exc

    def _raw_stream(self, target: str, body: object, exit_code: Callable[[str | None], int | None]) -> SocketStream:
        assert self._endpoint is not None  # set by connect()
        deadline = call_deadline()
        connection = dial(self._endpoint, deadline)
        try:
            received = open_raw_stream(connection, f"/v{self._version}{target}", body, deadline)
            return SocketStream(connection, received, exit_code)
        except BaseException:
            connection.close()
            raise

    def _exec_exit_code(self, exec_id: str, output: str | None) -> int | None:
        with engine_errors("asking how a command ended"):
            state = self._api.ask("GET", "exec", exec_id, "json")
        if state["Running"] or state["ExitCode"] is None:
            return None
        code = int(state["ExitCode"])
        if code in (126, 127, 128) and not state.get("Pid"):
            if output is None:
                return None  # the engine's reason is still on its way
            raise not_started(output)
        return code


def _ask_version(endpoint: Endpoint) -> str:
    """Give the version of the API to be spoken, once it is known that an engine answers."""
    deadline = Deadline.after(CONNECT_SECONDS)
    dial(endpoint, deadline).close()  # says what is wrong in the kernel's words
    client = HttpClient(endpoint)
    try:
        offered = client.ask("GET", "version", deadline=deadline)["ApiVersion"]
        version = min(NEWEST_API, tuple(int(part) for part in offered.split(".")))
    except (KeyError, TypeError, AttributeError, ValueError) as exc:
        raise EngineUnavailable("the answer has no version of the API: is it a Docker engine?") from exc
    finally:
        client.close()
    return ".".join(map(str, version))


def _root_cause(exc: BaseException) -> BaseException:
    while (cause := exc.__cause__ or exc.__context__) is not None:
        exc = cause
    return exc
