"""The backend for Docker, over its HTTP API. Only `_docker_sdk.py`, imported late, imports the SDK.

It works with engines from API 1.41 (20.10) on. It never speaks a newer API than 1.51, because later ones drop fields.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from podkit.backends._docker_calls import CONFLICT, MISSING, create_container, exists
from podkit.backends._docker_connect import find_engine
from podkit.backends._docker_errors import (
    NETWORK_MISSING,
    creation_error,
    engine_errors,
    exec_error,
    image_missing,
    network_missing,
    not_started,
    start_error,
)
from podkit.backends._docker_json import container_request, exec_request, published_ports, workload_info, workload_row
from podkit.backends._docker_tmpfs import open_tmpfs
from podkit.backends._docker_volume import SharedVolumes
from podkit.backends._endpoint import Endpoint, dial, find_endpoints
from podkit.backends._exec_stream import ExitCode, SocketStream, open_raw_stream
from podkit.backends._filters import filter_values
from podkit.backends._http import NOT_MODIFIED, HttpClient, Refused, Requests
from podkit.backends._stream_frames import FrameReader
from podkit.backends.base import (
    ExecSpec,
    ExecStream,
    Filters,
    MountSpec,
    WorkloadInfo,
    WorkloadRow,
    WorkloadSpec,
    matches,
)
from podkit.errors import (
    ContainerError,
    EngineTimeout,
    EngineUnavailable,
    ImageNotFound,
    InvalidInput,
    PodkitError,
)
from podkit.utils._deadline import CLEAN_UP_SECONDS, ENGINE_CALL_SECONDS, NEVER, Deadline, call_deadline, wait_until
from podkit.utils._fork import renew_after_fork

if TYPE_CHECKING:
    import docker  # noqa: TID251 - for the type of `client`; nothing is imported

__all__ = ["DockerBackend"]

CONNECT_SECONDS = 10
_LOG_MAX_BYTES = 64 << 10
_NOT_IMPLEMENTED = 501
_NEVER_STARTED = 126, 127, 128  # of an exec without a pid: 20.10 says 126, Engine 29 says 127 or 128


class DockerBackend:
    """A Docker engine, found the way the `docker` command finds it. Implements `podkit.backends.base.Backend`.

    Making the object does no I/O. Safe to use from many threads; a forked child connects anew at its first call.

    Args:
        logger: where to log; by default this module's logger.
    """

    def __init__(self, logger: logging.Logger | None = None) -> None:
        if logger is not None and not isinstance(logger, logging.Logger | logging.LoggerAdapter):
            raise InvalidInput(f"logger={logger!r}: pass a logging.Logger; DOCKER_HOST says where the engine listens")
        self._logger = logger or logging.getLogger(__name__)
        self._lock = threading.Lock()  # guards the four below; held while connecting, so that one thread connects
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

    def connect(self, *, deadline: Deadline | None = None) -> None:
        """Find the engine by `DOCKER_HOST`, the docker context, or the usual sockets.

        Blocks for at most 10 s for each address. Twice is harmless.

        Args:
            deadline: when to give up, if that is earlier.

        Raises:
            EngineUnavailable: nothing answers; the message lists every address that was tried, in order.
            EngineAccessDenied: an engine is there, but this user may not talk to it.
        """
        self._connect(deadline)

    def _connect(self, deadline: Deadline | None) -> HttpClient:
        with self._lock:
            if self._http is not None:
                return self._http
            # after `close` or a fork: the same engine again, because callers hold its ids
            endpoints = [self._endpoint] if self._endpoint else find_endpoints(os.environ)
            self._endpoint, self._version = find_engine(endpoints, deadline, CONNECT_SECONDS)
            self._http = HttpClient(self._endpoint, f"/v{self._version}")
            self._logger.debug("connected to Docker at %s", self._endpoint)
            return self._http

    def close(self) -> None:
        """Close idle connections, those of `client` too. See `Backend.close`."""
        with self._lock:
            client, http = self._client, self._http
            self._client = self._http = None  # the next call connects anew
        if client is not None:
            client.close()
        if http is not None:
            http.close()

    @property
    def client(self) -> docker.DockerClient:
        """The Docker SDK's client. podkit's deadlines do not apply to it.

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

    def _until(self, deadline: Deadline | None, longest: float = ENGINE_CALL_SECONDS) -> Requests:
        """Return the `Requests` of one call, with its deadline."""
        http = self._http
        if http is None:
            if self._endpoint is None:
                raise EngineUnavailable("this backend is not connected: call connect() first")
            http = self._connect(deadline)  # after a fork, or `close`
        return http.until(call_deadline(deadline, longest))

    # --- lifecycle ----------------------------------------------------------------------------------

    def create_workload(
        self, spec: WorkloadSpec, *, pulling: Callable[[str], None] | None = None, deadline: Deadline | None = None
    ) -> str:
        """See `Backend.create_workload`."""
        try:
            return self._create(spec, deadline)
        except ImageNotFound:  # no look beforehand: the image is nearly always there
            self._pull(spec.image, pulling, deadline)
        return self._create(spec, deadline)

    def _create(self, spec: WorkloadSpec, deadline: Deadline | None) -> str:
        with engine_errors(f"creating container {spec.name!r}"):
            api = self._until(deadline)
            if spec.shared:
                self._shared.place(api, spec.shared, spec.image)
            try:
                id = create_container(api, spec.name, self._body(api, spec))
            except Refused as exc:
                raise creation_error(api, exc, spec) from exc
            try:
                open_tmpfs(api, id, spec.mounts)
                for network in spec.networks[1:]:  # before API 1.44, creating takes one network only
                    api.ask("POST", "networks", network, "connect", body={"Container": id})
            except BaseException as exc:  # also Ctrl-C: nobody else knows this container's id
                with suppress(PodkitError):  # the first error counts
                    # a deadline of its own: the caller's may have expired
                    self.remove_workload(id, deadline=Deadline.after(CLEAN_UP_SECONDS))
                if isinstance(exc, Refused):
                    raise creation_error(api, exc, spec) from exc
                raise
        return id

    def _body(self, api: Requests, spec: WorkloadSpec) -> dict[str, Any]:
        return container_request(spec, [_volume_directory(api, mount) for mount in spec.mounts if mount.subpath])

    def _pull(self, image: str, pulling: Callable[[str], None] | None, deadline: Deadline | None) -> None:
        from podkit.backends._docker_sdk import registry_credentials, split_image  # late: see there

        self._logger.info("pulling image %s", image)
        repository, tag = split_image(image)
        credentials = registry_credentials(repository)
        headers = f"X-Registry-Auth: {credentials}\r\n" if credentials else ""
        api = self._until(None).until(deadline or NEVER)  # with `NEVER`, each piece of the answer has 60 s
        with engine_errors(f"pulling image {image!r}"):
            try:
                events = api.events("images", "create", query={"fromImage": repository, "tag": tag}, headers=headers)
                for event in events:
                    if "error" in event:  # the status of the answer was sent before, and said 200
                        raise ImageNotFound(image_missing(image, str(event["error"])))
                    text = " ".join(filter(None, (event.get("id"), event.get("status"), event.get("progress"))))
                    if pulling and text:
                        pulling(text)
            except Refused as exc:
                raise ImageNotFound(image_missing(image, str(exc))) from exc

    def start_workload(self, id: str, *, deadline: Deadline | None = None) -> bool:
        """See `Backend.start_workload`."""
        with engine_errors(f"starting container {id[:12]}"):
            return _start(self._until(deadline), id)

    def stop_workload(self, id: str, timeout: float, *, deadline: Deadline | None = None) -> None:
        """See `Backend.stop_workload`."""
        with engine_errors(f"stopping container {id[:12]}"):
            if timeout <= 0:
                _kill(self._until(deadline), id)
                return
            seconds = max(1, round(timeout))  # the engine counts whole seconds, and 0 leaves no time
            try:
                api = self._until(deadline, ENGINE_CALL_SECONDS + seconds)
                api.ask("POST", "containers", id, "stop", query={"t": seconds})
            except Refused as exc:
                if exc.status != NOT_MODIFIED:  # it does not run
                    raise

    def restart_workload(self, id: str, *, deadline: Deadline | None = None) -> None:
        """See `Backend.restart_workload`."""
        with engine_errors(f"restarting container {id[:12]}"):
            api = self._until(deadline)
            try:
                # one request: were podkit killed between a stop and a start, the container would look broken
                _start(api, id, "restart", {"t": 0})
            except EngineUnavailable:  # such as a connection that was cut: starting a running container is harmless
                if not wait_until(lambda: _started(api, id), deadline=api.deadline):
                    raise

    def remove_workload(self, id: str, *, force: bool = True, deadline: Deadline | None = None) -> bool:
        """See `Backend.remove_workload`."""
        with engine_errors(f"removing container {id[:12]}"):
            api = self._until(deadline)
            query = {"v": "true", "force": "true" if force else "false"}
            try:
                api.ask("DELETE", "containers", id, query=query)
            except Refused as exc:
                if exc.status == MISSING:
                    return False
                if exc.status != CONFLICT:
                    raise
                # a conflict has two causes: the container runs, or another caller is removing it right now
                if not force and _runs(api, id):
                    raise ContainerError(f"container {id[:12]} runs: it is not removed") from exc
                if not wait_until(
                    lambda: not exists(api, "containers", id, "json"), deadline=api.deadline, interval=0.01
                ):
                    raise
                return False
        return True

    # --- looking ------------------------------------------------------------------------------------

    def inspect_workload(self, id: str, *, deadline: Deadline | None = None) -> WorkloadInfo:
        """See `Backend.inspect_workload`."""
        with engine_errors(f"inspecting container {id!r}"):
            return workload_info(self._until(deadline).ask("GET", "containers", id, "json"))

    def list_workloads(self, filters: Filters | None = None, *, deadline: Deadline | None = None) -> list[WorkloadRow]:
        """See `Backend.list_workloads`."""
        filters = filters or {}
        if unknown := filters.keys() - {"label", "name"}:
            raise InvalidInput(f"list_workloads has no filter {sorted(unknown)}: there are 'label' and 'name'")
        with engine_errors("listing containers"):
            labels = filter_values(filters, "label")  # names are matched below: the engine takes them for patterns
            query = {"all": 1} | ({"filters": json.dumps({"label": labels})} if labels else {})
            found = self._until(deadline).ask("GET", "containers", "json", query=query)
            rows = [workload_row(row) for row in found]
        return [row for row in rows if matches(row, filters)]

    def get_workload_logs(self, id: str, lines: int, *, deadline: Deadline | None = None) -> str:
        """See `Backend.get_workload_logs`."""
        with engine_errors(f"reading the log of container {id[:12]}"):
            query = {"stdout": 1, "stderr": 1, "tail": lines}
            try:
                data = self._until(deadline).fetch("GET", "containers", id, "logs", query=query)
            except Refused as exc:
                if exc.status != _NOT_IMPLEMENTED:
                    raise
                return ""  # an attachable container keeps no log
            text = b"".join(chunk.data for chunk in FrameReader().feed(data))
        return text[-_LOG_MAX_BYTES:].decode(errors="replace")

    def get_accessible_ports(self, id: str, *, deadline: Deadline | None = None) -> dict[int, int]:
        """See `Backend.get_accessible_ports`."""
        with engine_errors(f"inspecting container {id[:12]}"):
            found = self._until(deadline).ask("GET", "containers", id, "json")
            return published_ports(found["NetworkSettings"].get("Ports") or {})

    # --- inside -------------------------------------------------------------------------------------

    def open_stream(self, id: str, spec: ExecSpec | None, *, deadline: Deadline | None = None) -> ExecStream:
        """See `Backend.open_stream`."""
        doing = f"starting a command in container {id[:12]}"
        with engine_errors(doing):
            api = self._until(deadline)
            try:
                if spec is None:
                    target = f"/containers/{id}/attach?stream=1&stdin=1&stdout=1&stderr=1"
                    return self._raw_stream(target, {}, lambda _, until: self._main_exit_code(id, until), api.deadline)
                exec_id = str(api.ask("POST", "containers", id, "exec", body=exec_request(spec))["Id"])
                target, body = f"/exec/{exec_id}/start", {"Detach": False, "Tty": False}
                return self._raw_stream(target, body, partial(self._exit_code, exec_id), api.deadline)
            except Refused as exc:  # `engine_errors` knows less: for an exec, each status has a cause of its own
                raise exec_error(exc.status, doing, str(exc)) from exc

    def _raw_stream(self, target: str, body: object, exit_code: ExitCode, deadline: Deadline) -> SocketStream:
        assert self._endpoint is not None  # set by connect()
        connection = dial(self._endpoint, deadline)
        try:
            received = open_raw_stream(connection, f"/v{self._version}{target}", body, deadline)
            return SocketStream(connection, received, exit_code)
        except BaseException:
            connection.close()
            raise

    def _main_exit_code(self, id: str, deadline: Deadline | None) -> int | None:
        with engine_errors(f"asking how container {id[:12]} ended"):
            state = self._until(deadline).ask("GET", "containers", id, "json")["State"]
            return None if state["Running"] or state["Status"] == "created" else int(state["ExitCode"])

    def _exit_code(self, exec_id: str, output: str | None, deadline: Deadline | None) -> int | None:
        with engine_errors("asking how a command ended"):
            state = self._until(deadline).ask("GET", "exec", exec_id, "json")
        if state["Running"] or state["ExitCode"] is None:  # no exit code yet: it has not begun
            return None
        code = int(state["ExitCode"])
        if code in _NEVER_STARTED and not state.get("Pid"):
            if output is None:
                return None  # the engine's reason is still on its way
            raise not_started(output)
        return code


def _start(api: Requests, id: str, verb: str = "start", query: Mapping[str, object] | None = None) -> bool:
    """Start a container. False if it ran already."""
    try:
        try:
            api.ask("POST", "containers", id, verb, query=query)
        except Refused as exc:
            if not NETWORK_MISSING.search(str(exc)):
                raise
            # somebody may have made a network of this name again, with another id
            _join_anew(api, id, exc)
            api.ask("POST", "containers", id, "start")
    except Refused as exc:
        if exc.status == NOT_MODIFIED:
            return False
        # the status alone does not tell a missing container from a missing program
        if exc.status == MISSING and not exists(api, "containers", id, "json"):
            raise
        raise start_error(exc, id) from exc
    return True


def _started(api: Requests, id: str) -> bool:
    try:
        _start(api, id)
    except EngineUnavailable:
        return False
    return True


def _join_anew(api: Requests, id: str, cause: Refused) -> None:
    """Connect a container to its networks by name. The engine keeps their ids, which change.

    Raises:
        NetworkNotFound: one of its networks no longer exists.
    """
    for name in api.ask("GET", "containers", id, "json")["NetworkSettings"]["Networks"]:
        if not exists(api, "networks", name):  # before it leaves any: the container alone still holds the names
            raise network_missing(name) from cause
        with suppress(Refused):  # the container is in no network of this id
            api.ask("POST", "networks", name, "disconnect", body={"Container": id, "Force": True})
        api.ask("POST", "networks", name, "connect", body={"Container": id})


def _kill(api: Requests, id: str) -> None:
    """Kill a container and wait for its end. The engine answers before that."""
    try:
        api.ask("POST", "containers", id, "kill")
    except Refused as exc:
        if exc.status != CONFLICT:  # a conflict: it does not run
            raise
    if not wait_until(lambda: not _runs(api, id), deadline=api.deadline, interval=0.005, longest_interval=0.1):
        raise EngineTimeout(f"container {id[:12]} still runs after it was killed")


def _runs(api: Requests, id: str) -> bool:
    return bool(api.ask("GET", "containers", id, "json")["State"]["Running"])


def _volume_directory(api: Requests, mount: MountSpec) -> str:
    """Return a volume's directory as an old-style bind, which makes a missing one.

    `VolumeOptions.Subpath` itself needs API 1.45 and a directory that exists.
    """
    volume = api.ask("POST", "volumes", "create", body={"Name": mount.source})  # also returns one that exists
    return f"{volume['Mountpoint']}/{mount.subpath}:{mount.target}:{'ro' if mount.read_only else 'rw'}"
