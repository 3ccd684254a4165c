"""Checks of a process manager's arguments."""

from __future__ import annotations

import re
from typing import Literal, get_args

from podkit.errors import InvalidInput
from podkit.processes._names import NAME_MAX_BYTES, is_name
from podkit.utils import _checks

StreamName = Literal["stdout", "stderr"]

_LONGEST_SECONDS = 86_400.0
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def check_process_id(id: object) -> str:
    """Accept the id of a process."""
    text = _checks.check_text(id, "id")
    if not _UUID.fullmatch(text):
        raise InvalidInput(f"id={_checks.shown(text)} is no process's: pass the id of a Process, a UUID")
    return text


def check_name(value: object) -> str:
    """Accept a name: a printable line of 1 to 200 bytes."""
    name = _checks.check_text(value, "name")
    if not is_name(name):
        raise InvalidInput(
            f"name={_checks.shown(name)}: pass 1 to {NAME_MAX_BYTES} bytes of text without control characters"
        )
    return name


def check_stream(value: object) -> None:
    """Accept the name of a stream."""
    if value not in get_args(StreamName):
        raise InvalidInput(f"stream={_checks.shown(value)}: pass 'stdout' or 'stderr'")


def check_seconds(value: object) -> float:
    """Accept a number of seconds, at most a day."""
    seconds = _checks.check_age(value, "timeout")
    if isinstance(value, bool) or seconds > _LONGEST_SECONDS:
        raise InvalidInput(f"timeout={_checks.shown(value)}: pass seconds, at most {_LONGEST_SECONDS:g}")
    return seconds
