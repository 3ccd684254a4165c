"""Files shared by an engine's containers, in a volume that is filled once."""

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

_FILL_SECONDS = 20  # longer than filling a volume takes
_FAILED = 500  # a status from here on says that the engine could not, and not that it will not
_LABEL = "podkit.shared"


class SharedVolumes:
    """Places shared files, each set in a volume of its own.

    Safe to use from many threads; of many processes that ask at once, one fills it.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._placed: set[str] = set()
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()  # held while a volume is looked for or filled; guards _placed

    def place(self, api: Requests, shared: SharedFiles, image: str) -> None:
        """Make sure that the volume exists and is whole.

        It is made together with the container that it is filled through, which is never started and goes once it is
        full: so a volume without that container is whole, whoever was killed when.

        Raises:
            NotSupported: the engine does not allow it.
            ImageNotFound: the image is not on the engine.
        """
        patience = api.deadline.at_most(_FILL_SECONDS)
        with held(self._lock, patience, "placing files on the engine"):
            while True:
                labels = _labels(api, shared.name)
                if labels is None:
                    self._placed.discard(shared.name)
                elif labels.get(_LABEL) != shared.name:
                    raise NotSupported(f"there is a volume {shared.name} that is not podkit's: remove it")
                elif shared.name in self._placed or _find_filler(api, shared) is None:
                    self._placed.add(shared.name)
                    return
                if self._fill(api, shared, image):
                    self._placed.add(shared.name)
                    return
                wait_until(lambda: _is_left(_find_filler(api, shared)), deadline=patience)
                if filler := _find_filler(api, shared):
                    _finish(api, shared, filler)
                    patience = api.deadline.at_most(_FILL_SECONDS)

    def _fill(self, api: Requests, shared: SharedFiles, image: str) -> bool:
        """Make the volume and fill it. False where another process is doing that."""
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
            id = create_container(api, _filler_name(shared), body)
        except Refused as exc:
            if exc.status == CONFLICT:
                return False
            if exc.status == MISSING:
                raise ImageNotFound(image_missing(image, str(exc))) from exc
            raise NotSupported(str(exc)) from exc
        except BaseException:  # the answer was lost, or nobody waited for it
            _take_back(api, shared, attempt)
            raise
        try:
            put_archive(api, id, shared.target, archive)
        except BaseException as exc:
            _take_back(api, shared, attempt)
            if isinstance(exc, Refused):
                raise NotSupported(str(exc)) from exc
            raise
        _remove(api, id)
        self._logger.debug("filled volume %s", shared.name)
        _drop_former(api, shared)
        return True


class _Filler(NamedTuple):
    """The container that a volume is filled through.

    Attributes:
        id: the engine's.
        labels: say whose it is.
    """

    id: str
    labels: Mapping[str, str]


def _filler_name(shared: SharedFiles) -> str:
    return f"{shared.name}-fill"


def _find_filler(api: Requests, shared: SharedFiles) -> _Filler | None:
    """Return it; `None` where nobody fills the volume.

    Raises:
        NotSupported: its name belongs to something else.
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
    """Whether the attempt to fill the volume was given up. False where that is unknown."""
    owner = Owner.from_label(filler.labels.get(Label.OWNER, "")) if filler else None
    return filler is None or (owner is not None and owner.alive() is False)


def _finish(api: Requests, shared: SharedFiles, filler: _Filler) -> None:
    """Fill the volume in the place of somebody who was killed.

    Several may do it at once. Removing the container first would leave a volume that looks whole.
    """
    try:
        put_archive(api, filler.id, shared.target, _archive(api, shared))
    except Refused as exc:
        if exc.status == MISSING:
            return  # it was finished by somebody else
        raise NotSupported(str(exc)) from exc
    _remove(api, filler.id)


def _take_back(api: Requests, shared: SharedFiles, attempt: str) -> None:
    """Remove whatever this attempt to fill the volume made. Another attempt's stays."""
    api = api.until(Deadline.after(CLEAN_UP_SECONDS))
    with suppress(Refused, EngineError):
        filler = _find_filler(api, shared)
        if filler and filler.labels.get(Label.ATTEMPT) == attempt:
            _remove(api, filler.id)
            api.ask("DELETE", "volumes", shared.name)


def _archive(api: Requests, shared: SharedFiles) -> bytes:
    from podkit.backends._archive import of_programs  # late: an engine is filled once

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
        if exc.status < _FAILED:  # such as by a proxy that lets only some requests pass
            raise NotSupported(str(exc)) from exc
        raise


def _remove(api: Requests, container: str) -> None:
    query = {"v": "true", "force": "true"}
    with suppress(Refused):  # another caller may have removed it
        try:
            api.ask("DELETE", "containers", container, query=query)
        except EngineUnavailable:  # a connection that was cut: what stays would hold up the next caller
            api.ask("DELETE", "containers", container, query=query)


def _drop_former(api: Requests, shared: SharedFiles) -> None:
    """Remove other versions' volumes that nothing uses. They fill them again on demand."""
    family = shared.name.rpartition("-")[0].rpartition("-")[0]
    filters = json.dumps({"label": [_LABEL]})
    for volume in api.ask("GET", "volumes", query={"filters": filters})["Volumes"] or ():
        name, labels = str(volume["Name"]), volume.get("Labels") or {}
        if name != shared.name and name.startswith(f"{family}-") and labels.get(_LABEL) == name:
            with suppress(Refused):  # in use
                api.ask("DELETE", "volumes", name)
