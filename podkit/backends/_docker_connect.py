"""Find the Docker engine that answers, and its API version."""

from __future__ import annotations

from collections.abc import Sequence

from podkit.backends._endpoint import Endpoint, dial
from podkit.backends._http import HttpClient, Refused
from podkit.errors import EngineAccessDenied, EngineError, EngineUnavailable
from podkit.utils._deadline import Deadline, call_deadline

NEWEST_API = (1, 51)


def find_engine(endpoints: Sequence[Endpoint], deadline: Deadline | None, longest: float) -> tuple[Endpoint, str]:
    """Return the first endpoint with an engine, and its API version.

    Blocks until the deadline at most, and for `longest` seconds at most at each endpoint.

    Raises:
        EngineUnavailable: no engine answers; the message lists each endpoint with its error, in order.
        EngineAccessDenied: the same, and at least one refused this user.
    """
    tried: list[str] = []
    denied = False
    for endpoint in endpoints:
        # a deadline for each: a frozen engine leaves time for the next endpoint
        try:
            return endpoint, _ask_version(endpoint, call_deadline(deadline, longest))
        except (Refused, EngineError, OSError) as exc:
            reason = _root_cause(exc)  # the kernel's own words
            denied = denied or isinstance(reason, PermissionError)
            tried.append(f"{endpoint}: {str(reason) or 'no answer in time'}")
    if denied:
        raise EngineAccessDenied(
            f"this user may not talk to the Docker engine. Tried: {'; '.join(tried)}. "
            "Add the user to the group 'docker' (and log in again), or point DOCKER_HOST to an engine of its own"
        )
    raise EngineUnavailable(
        f"no Docker engine answers. Tried: {'; '.join(tried)}. Start one, or set DOCKER_HOST to where it listens"
    )


def _ask_version(endpoint: Endpoint, deadline: Deadline) -> str:
    """Return the API version to speak. Proves that an engine answers."""
    dial(endpoint, deadline).close()  # a bare connection first: its error is the kernel's own
    client = HttpClient(endpoint)
    try:
        offered = client.until(deadline).ask("GET", "version")["ApiVersion"]
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
