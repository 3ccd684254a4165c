"""A container's beginning: create or adopt it, see that it stays up.

Of many threads, processes and machines that ask for one session at once, the engine lets one create the name; the
others find it and adopt it, if its labels prove that it is the one they mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from podkit._models.container_status import ContainerStatus
from podkit._models.identity import Identity
from podkit._models.labels import Label
from podkit.backends.base import Backend, Deadline, WorkloadInfo, WorkloadSpec
from podkit.core._requested_config import Request
from podkit.errors import (
    ContainerNotFound,
    EngineError,
    EngineTimeout,
    EngineUnavailable,
    ImageNotFound,
    InvalidInput,
    MountSourceNotFound,
    NameTaken,
    NetworkNotFound,
    NotSupported,
    PodkitError,
    SessionConflict,
)
from podkit.utils._deadline import CLEAN_UP_SECONDS, NEVER, wait_until

if TYPE_CHECKING:
    pass

WITHOUT_CONFIG = "ask for it without a config"
_REMOVAL_SECONDS = 30.0  # how long another caller's removal of the same name is waited for


def get_or_create(
    backend: Backend,
    identity: Identity,
    spec: WorkloadSpec,
    pulling: Callable[[str], None],
    made: Callable[[str], None],
    *,
    deadline: Deadline | None = None,
) -> tuple[str, WorkloadInfo | None]:
    """Create the container, or adopt another caller's.

    Args:
        backend: the engine.
        identity: whose container.
        spec: of the new container.
        pulling: told how the pull of a missing image goes on.
        made: told the id of a container that was created, before it can be lost again.
        deadline: until when.

    Returns:
        Its id, and the engine's answer if it was adopted; `None` if it is new.

    Raises:
        NameTaken: the name belongs to something that is not podkit's; it was not touched.
        SessionConflict: the container that exists was asked for with another configuration.
        ImageNotFound: the image is neither there nor to be pulled.
        EngineError: the engine refused; nothing stays behind.
    """
    attempt = os.urandom(16).hex()
    spec = replace(spec, labels={**spec.labels, Label.ATTEMPT: attempt})
    patience = (deadline or NEVER).at_most(_REMOVAL_SECONDS)
    while True:
        try:
            id = backend.create_workload(spec, pulling=pulling, deadline=deadline)
            made(id)
            return id, None
        except NameTaken:
            found = find(backend, identity, spec.labels, deadline=deadline)
            if found:
                return found.id, found
            # the name is taken by a container that is going: its removal frees it
            if patience.expired:
                raise
            _wait_for_name(backend, identity, patience)
        except (InvalidInput, ImageNotFound, NetworkNotFound, MountSourceNotFound, NotSupported):
            raise  # the engine has refused it
        except BaseException as exc:
            answered = isinstance(exc, PodkitError) and not isinstance(exc, EngineTimeout | EngineUnavailable)
            _remove_attempt(backend, spec.name, attempt, answered=answered)
            raise


def find(
    backend: Backend, identity: Identity, wanted: Mapping[str, str], *, deadline: Deadline | None = None
) -> WorkloadInfo | None:
    """Find the session's container. `None` if there is none, or it is going.

    Args:
        backend: the engine.
        identity: whose container.
        wanted: labels that it must carry where they are given: `REQUESTED` and `WORKSPACE`.
        deadline: until when.

    Raises:
        NameTaken: something else has the container's name; it was not touched.
        SessionConflict: the container was asked for with another configuration or workspace.
    """
    try:
        info = backend.inspect_workload(identity.name, deadline=deadline)
    except ContainerNotFound:
        return None
    # the engine also finds ids by their beginnings: compare the whole name, then the labels
    if info.name != identity.name or not identity.owns(info.labels):
        raise NameTaken(
            f"the name {identity.name!r} belongs to a container that is not this session's, by its labels; it was not "
            "touched: remove or rename it, or use another container_prefix"
        )
    if info.status is ContainerStatus.DEAD:
        return None
    workspace, requested = wanted.get(Label.WORKSPACE), wanted.get(Label.REQUESTED)
    if workspace and info.labels.get(Label.WORKSPACE) != workspace:
        raise conflict(identity, "another workspace", "name the workspace that it was opened with")
    if requested and (what := _difference(info.labels, requested)):
        raise conflict(identity, what, WITHOUT_CONFIG)
    return info


def conflict(identity: Identity, what: str, cure: str) -> SessionConflict:
    """Return the error of a session that exists otherwise."""
    return SessionConflict(
        f"session {identity.session_id!r} of user {identity.user_id!r} exists with {what}: "
        f"close it first, use another session_id, or {cure}"
    )


def _difference(labels: Mapping[str, str], requested: str) -> str:
    try:
        existing = Request.read(labels.get(Label.REQUESTED, ""))
    except InvalidInput:
        return "a configuration that this version of podkit cannot read"
    return another_configuration(Request.read(requested), existing)


def another_configuration(requested: Request, existing: Request) -> str:
    """Describe how an existing configuration differs from the wanted one. Empty if it fits."""
    what = requested.differences(existing)
    return f"another configuration: {what}" if what else ""


def exists(backend: Backend, name: str, *, deadline: Deadline | None = None) -> bool:
    """Whether a container of this name exists."""
    try:
        backend.inspect_workload(name, deadline=deadline)
    except ContainerNotFound:
        return False
    return True


def _wait_for_name(backend: Backend, identity: Identity, patience: Deadline) -> None:
    """Wait for another caller's removal to free the name. A dead container is removed."""
    with suppress(ContainerNotFound, EngineError):
        info = backend.inspect_workload(identity.name, deadline=patience)
        if identity.owns(info.labels) and info.status is ContainerStatus.DEAD:
            backend.remove_workload(info.id, deadline=patience)
        wait_until(lambda: not exists(backend, identity.name, deadline=patience), deadline=patience.at_most(1.0))


def _remove_attempt(backend: Backend, name: str, attempt: str, *, answered: bool) -> None:
    """Remove a failed creation's leftovers. Found by label, so never another caller's.

    An engine that did not answer may still create it: wait for that.
    """
    deadline = Deadline.after(CLEAN_UP_SECONDS)

    def is_settled() -> bool:
        try:
            info = backend.inspect_workload(name, deadline=deadline)
        except ContainerNotFound:
            return answered
        if info.labels.get(Label.ATTEMPT) == attempt:
            backend.remove_workload(info.id, deadline=deadline)
        return True

    with suppress(EngineError, ContainerNotFound):
        wait_until(is_settled, deadline=deadline)
