"""Files shared by an engine's containers, in a volume that is filled once.

The files go through a container that mounts the volume and never starts, the filler. Its existence is the state of the
volume: with a filler it is incomplete, without one it is complete.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from podkit._models.identity import Owner, this_owner
from podkit._models.labels import Label
from podkit.backends._docker_calls import CONFLICT, MISSING, create_container, put_archive
from podkit.backends._docker_errors import image_missing
from podkit.backends._http import Refused, Requests
from podkit.backends.base import SharedFiles
from podkit.errors import EngineError, EngineUnavailable, ImageNotFound, NotSupported
from podkit.utils._deadline import CLEAN_UP_SECONDS, Deadline, held, wait_until
from podkit.utils._fork import renew_after_fork

_FILL_SECONDS = 20  # longer than any filling takes
_FAILED = 500  # a status from here on is a failure of the engine; a lower one is its refusal
_LABEL = "podkit.shared"


class SharedVolumes:
    """Places shared files, each set in a volume of its own.

    Safe to use from many threads. When many processes ask at once, one of them fills the volume.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._placed: set[str] = set()
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        # guards _placed; held while a volume is looked for or filled, so that one thread of the process fills it
        self._lock = threading.RLock()

    def place(self, api: Requests, shared: SharedFiles, image: str) -> None:
        """Make sure that the volume exists and is complete.

        One request makes the volume and its filler, and the filler is removed after the filling. So a volume without a
        filler is complete, even if processes were killed at any moment.

        Raises:
            NotSupported: the engine refuses to make or fill the volume.
            ImageNotFound: the image is not on the engine.
        """
        patience = api.deadline.at_most(_FILL_SECONDS)
        with held(self._lock, patience, "placing files on the engine"):
            while True:
                labels = _labels(api, shared.name)
                if labels is None:  # never made, or pruned since
                    self._placed.discard(shared.name)
                elif labels.get(_LABEL) != shared.name:
                    raise NotSupported(f"there is a volume {shared.name} that is not podkit's: remove it")
                elif shared.name in self._placed or _find_filler(api, shared) is None:
                    self._placed.add(shared.name)  # complete
                    return
                if self._fill(api, shared, image):
                    self._placed.add(shared.name)
                    return
                # another process fills it: wait until it has finished, or died, or takes far too long
                wait_until(lambda: _is_left(_find_filler(api, shared)), deadline=patience)
                if filler := _find_filler(api, shared):
                    _finish(api, shared, filler)
                    patience = api.deadline.at_most(_FILL_SECONDS)

    def _fill(self, api: Requests, shared: SharedFiles, image: str) -> bool:
        """Make the volume and fill it. False if another process is doing that."""
        archive, attempt = _archive(api, shared), os.urandom(16).hex()
        options = {"Labels": {_LABEL: shared.name}}
        mount = {"Type": "volume", "Source": shared.name, "Target": shared.target, "VolumeOptions": options}
        body = {
            "Image": image,
            "Entrypoint": ["never-started"],
            "Cmd": [],
            "Labels": {
                _LABEL: shared.name,
                Label.OWNER: this_owner().to_label(),
                Label.ATTEMPT: attempt,
            },
            "HostConfig": {"Mounts": [mount], "NetworkMode": "none"},
        }
        try:
            id = create_container(api, _filler_name(shared), body)  # from here on, the volume is incomplete
        except Refused as exc:
            if exc.status == CONFLICT:  # the filler's name is taken: another process was first
                return False
            if exc.status == MISSING:
                raise ImageNotFound(image_missing(image, str(exc))) from exc
            raise NotSupported(str(exc)) from exc
        except BaseException:  # the answer was lost, or the wait interrupted: the engine may have made both
            _take_back(api, shared, attempt)
            raise
        try:
            put_archive(api, id, shared.target, archive)
        except BaseException as exc:
            _take_back(api, shared, attempt)
            if isinstance(exc, Refused):
                raise NotSupported(str(exc)) from exc
            raise
        _remove(api, id)  # now the volume is complete
        self._logger.debug("filled volume %s", shared.name)
        _drop_former(api, shared)
        return True


class _Filler(NamedTuple):
    """The container through which a volume is filled.

    Attributes:
        id: the engine's full id.
        labels: name the process that made it, and the attempt.
    """

    id: str
    labels: Mapping[str, str]


def _filler_name(shared: SharedFiles) -> str:
    return f"{shared.name}-fill"


def _find_filler(api: Requests, shared: SharedFiles) -> _Filler | None:
    """Return the filler, or `None` if nobody fills the volume.

    Raises:
        NotSupported: a container that is not podkit's has its name.
    """
    try:
        found = api.ask("GET", "containers", _filler_name(shared), "json")
    except Refused as exc:
        if exc.status != MISSING:
            raise
        return None
    labels = found["Config"].get("Labels") or {}
    if labels.get(_LABEL) != shared.name:
        raise NotSupported(f"there is a container {_filler_name(shared)} that is not podkit's: remove it")
    return _Filler(str(found["Id"]), labels)


def _is_left(filler: _Filler | None) -> bool:
    """Whether the filler is gone, or its process has died. False if that is unknown."""
    owner = Owner.from_label(filler.labels.get(Label.OWNER, "")) if filler else None
    return filler is None or (owner is not None and owner.alive() is False)


def _finish(api: Requests, shared: SharedFiles, filler: _Filler) -> None:
    """Fill the volume in the place of a process that was killed.

    Several processes may do this at once. The filler goes last: without it, a half-filled volume would look complete.
    """
    try:
        put_archive(api, filler.id, shared.target, _archive(api, shared))
    except Refused as exc:
        if exc.status == MISSING:
            return  # another process has finished it
        raise NotSupported(str(exc)) from exc
    _remove(api, filler.id)


def _take_back(api: Requests, shared: SharedFiles, attempt: str) -> None:
    """Remove the filler and the volume of this attempt. Another attempt's stay."""
    # a deadline of its own: the caller's may have expired
    api = api.until(Deadline.after(CLEAN_UP_SECONDS))
    with suppress(Refused, EngineError):
        filler = _find_filler(api, shared)
        if filler and filler.labels.get(Label.ATTEMPT) == attempt:
            _remove(api, filler.id)
            api.ask("DELETE", "volumes", shared.name)


def _archive(api: Requests, shared: SharedFiles) -> bytes:
    from podkit.backends._archive import of_programs  # late: each engine needs it once

    architecture = api.ask("GET", "version")["Arch"]
    files = shared.by_architecture.get(architecture)
    if files is None:
        raise NotSupported(f"there is none for the engine's architecture {architecture}")
    return of_programs(files)


def _labels(api: Requests, volume: str) -> Mapping[str, str] | None:
    try:
        found: Mapping[str, str] | None = api.ask("GET", "volumes", volume).get("Labels")
        return found or {}
    except Refused as exc:
        if exc.status == MISSING:
            return None
        if exc.status < _FAILED:  # such as the refusal of a proxy that lets only some requests pass
            raise NotSupported(str(exc)) from exc
        raise


def _remove(api: Requests, container: str) -> None:
    query = {"v": "true", "force": "true"}
    with suppress(Refused):  # another caller may have removed it
        try:
            api.ask("DELETE", "containers", container, query=query)
        except EngineUnavailable:  # a connection that was cut: a filler that stays would hold up the next caller
            api.ask("DELETE", "containers", container, query=query)


def _drop_former(api: Requests, shared: SharedFiles) -> None:
    """Remove unused volumes of other versions. Those versions fill them again on demand."""
    # a name is family-protocol-digest, hence two cuts
    family = shared.name.rpartition("-")[0].rpartition("-")[0]
    filters = json.dumps({"label": [_LABEL]})
    for volume in api.ask("GET", "volumes", query={"filters": filters})["Volumes"] or ():
        name, labels = str(volume["Name"]), volume.get("Labels") or {}
        if name != shared.name and name.startswith(f"{family}-") and labels.get(_LABEL) == name:
            with suppress(Refused):  # a container uses it
                api.ask("DELETE", "volumes", name)
