"""Checks of arguments, before any engine call. Each error names the value and the cure."""

from __future__ import annotations

import math
import os
import posixpath
import re
from collections.abc import Mapping, Sequence

from podkit.errors import InvalidInput

ID_MAX_BYTES = 1024
PATH_MAX_BYTES = 4096
PREFIX_MAX_LENGTH = 40
_UID_MAXIMUM = (1 << 31) - 1  # engines refuse more, but only when the command starts
_STRING_MAX_BYTES = (128 << 10) - 1  # Linux's limit for one argument or variable (MAX_ARG_STRLEN), less the final NUL

_MESSAGE_LONGEST = 2000  # characters that a container may add to a message

StrPath = str | os.PathLike[str]
CommandLike = str | Sequence[StrPath]
"""A command as `subprocess` takes it: a `str` for a shell, or a program and its arguments."""

_PREFIX = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_MEMORY = re.compile(r"(\d+(?:\.\d+)?)(b|[kmgt]i?b?)?", re.IGNORECASE | re.ASCII)
_MEMORY_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
MEMORY_MINIMUM = 6 << 20  # Docker refuses less
_MEMORY_MAXIMUM = 1 << 63


def shown(value: object) -> str:
    """Return `repr(value)` for a message, cut if long."""
    try:
        text = repr(value)
    except Exception as exc:  # noqa: BLE001 - a value of the caller's: its repr may raise anything
        text = f"<a {type(value).__name__} whose repr raises {type(exc).__name__}>"
    return text if len(text) <= 80 else f"{text[:60]}… ({len(text)} characters)"


def cut(text: str) -> str:
    """Return a text's end, bounded for a message."""
    return text if len(text) <= _MESSAGE_LONGEST else f"… {text[-_MESSAGE_LONGEST:]}"


def over(unit: str, parameter: str, limit: int, found: int) -> str:
    """Describe a limit that was exceeded. Counting stopped at `found`."""
    return f"there are at least {found} {unit}, and {parameter} is {limit}: pass a larger {parameter}"


def check_text(value: object, what: str, *, any_bytes: bool = False) -> str:
    """Accept valid Unicode without NUL. `any_bytes` also allows the bytes that `os.fsdecode` escapes."""
    if not isinstance(value, str):
        raise InvalidInput(
            f"{what} is {shown(value)}: pass a str, such as {_text_of(value)}, not {type(value).__name__}"
        )
    if "\0" in value:
        raise InvalidInput(
            f"{what}={shown(value)} contains a NUL character, which no kernel interface takes: remove it"
        )
    try:
        value.encode(errors="surrogateescape" if any_bytes else "strict")
    except UnicodeEncodeError:
        raise InvalidInput(f"{what}={shown(value)} holds half of a surrogate pair: pass valid Unicode") from None
    return value


def _text_of(value: object) -> str:
    """Suggest an expression that turns a value into text."""
    if isinstance(value, bytes | bytearray):
        return "os.fsdecode(...) of it"
    for attribute in ("path", "id"):  # of a FileInfo or a Process
        if isinstance(getattr(value, attribute, None), str | os.PathLike):
            return f"its {attribute}"
    return "str(...) of it"


def check_id(value: object, what: str) -> str:
    """Accept a user or session id: 1 to 1,024 bytes of Unicode without NUL."""
    text = check_text(value, what)
    if not text:
        raise InvalidInput(f"{what}='' is empty: pass the id that tells this {what.split('_')[0]} from others")
    if len(text.encode()) > ID_MAX_BYTES:
        raise InvalidInput(
            f"{what}={shown(text)} is longer than {ID_MAX_BYTES} bytes: pass a shorter id, such as a hash"
        )
    return text


def check_prefix(value: object) -> str:
    """Accept a container prefix that leaves room in 63 characters."""
    text = check_text(value, "container_prefix")
    if not _PREFIX.fullmatch(text):
        raise InvalidInput(f"container_prefix={shown(text)}: use letters, digits, '_', '.' and '-', not '-' first")
    if len(text) > PREFIX_MAX_LENGTH:
        raise InvalidInput(
            f"container_prefix={shown(text)} leaves no room for the rest of the name: "
            f"use at most {PREFIX_MAX_LENGTH} characters"
        )
    return text


def check_path_text(value: object, what: str, *, any_bytes: bool = False) -> str:
    """Accept a `str` or `pathlib` path of 1 to 4,096 bytes. Returns a `str`."""
    text = check_text(os.fspath(value) if isinstance(value, os.PathLike) else value, what, any_bytes=any_bytes)
    if not text:
        raise InvalidInput(f"{what}='' is empty: pass a path")
    if len(text.encode(errors="surrogateescape")) > PATH_MAX_BYTES:
        raise InvalidInput(f"{what}={shown(text)} is longer than {PATH_MAX_BYTES} bytes: no Linux path is")
    if text.split("/")[0].startswith("~"):
        raise InvalidInput(
            f"{what}={shown(text)}: '~' is not expanded; write the directory out, or './~' for that name"
        )
    return text


def check_absolute_path(value: object, what: str, *, example: str = "/workspace") -> str:
    """Accept an absolute path without `..`. Returns it normalised; `example` is for the advice."""
    text = check_path_text(value, what)
    if not text.startswith("/"):
        advice = posixpath.normpath(posixpath.join(example, text))
        raise InvalidInput(f"{what}={shown(text)} is relative: pass an absolute path, such as '{advice}'")
    return _normalised(text, what)


def check_working_dir(value: object) -> str:
    """Accept a command's directory, absolute or relative, without `..`. Returns it normalised."""
    return _normalised(check_path_text(value, "working_dir"), "working_dir")


def _normalised(text: str, what: str) -> str:
    if ".." in text.split("/"):
        raise InvalidInput(f"{what}={shown(text)} contains '..': write the path without it")
    path = posixpath.normpath(text)
    return "/" + path.lstrip("/") if text.startswith("/") else path


def check_environment(value: Mapping[str, object], what: str = "environment") -> dict[str, str]:
    """Accept environment variables. No name is empty or holds `=`; values are text."""
    if not isinstance(value, Mapping):
        raise InvalidInput(f"{what} is of type {type(value).__name__}: pass a dict of names and values")
    checked = {}
    for name, content in value.items():
        check_text(name, f"a name in {what}")
        if not name or "=" in name:
            raise InvalidInput(f"{what} has the name {shown(name)}: a name must not be empty and must not contain '='")
        try:
            checked[name] = check_text(content, "")
        except InvalidInput:
            # the value may be a secret: the message leaves it out, and so does the chain of causes
            wrong = f"is not a str: pass str(...) of the {type(content).__name__}"
            if isinstance(content, str):
                wrong = "holds a NUL, or half of a surrogate pair: pass it without"
            raise InvalidInput(f"{what}[{name!r}] {wrong}") from None
        _check_length(f"{name}={content}", f"{what}[{name!r}]")
    return checked


def check_command(value: object) -> list[str]:
    """Accept a command. A `str` becomes `sh -c`; a list keeps its parts, with paths as text."""
    if isinstance(value, str):
        if not value.strip():
            raise InvalidInput(f"command={shown(value)} is empty: pass a command, such as 'ls -l'")
        return ["sh", "-c", _check_length(check_text(value, "command"), "command")]
    if not isinstance(value, Sequence) or isinstance(value, bytes | bytearray):
        raise InvalidInput(f"command is {shown(value)}: pass a str, or a list of str")
    parts = [os.fspath(part) if isinstance(part, os.PathLike) else part for part in value]
    if not parts:
        raise InvalidInput(f"command={shown(value)} is empty: pass a program and its arguments")
    if parts[0] == "":
        raise InvalidInput("command[0]='' is empty: pass the name of a program first")
    return [
        _check_length(check_text(part, f"command[{index}]"), f"command[{index}]") for index, part in enumerate(parts)
    ]


def _check_length(text: str, what: str) -> str:
    size = len(text.encode())
    if size > _STRING_MAX_BYTES:
        raise InvalidInput(
            f"{what} has {size} bytes, and Linux takes at most {_STRING_MAX_BYTES} for one argument or variable: pass "
            "it as input, or write a file of the session with write_file"
        )
    return text


def check_content(value: object, what: str) -> bytes:
    """Accept text, which is encoded as UTF-8, or bytes."""
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if not isinstance(value, str):
        raise InvalidInput(f"{what} is of type {type(value).__name__}: pass str or bytes")
    try:
        return value.encode()
    except UnicodeEncodeError:
        raise InvalidInput(f"{what} holds half of a surrogate pair: pass valid Unicode, or bytes") from None


def check_size(value: object, what: str) -> int:
    """Accept a number of bytes, at least 0."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise InvalidInput(f"{what}={shown(value)}: pass a whole number of bytes, at least 0")
    return value


def check_count(value: object, what: str) -> int:
    """Accept a number of things, at least 1."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidInput(f"{what}={shown(value)}: pass a whole number, at least 1")
    return value


def check_mode(value: object) -> int:
    """Accept the permission bits of a file."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o7777:
        text = oct(value) if isinstance(value, int) else shown(value)
        raise InvalidInput(f"mode={text}: pass permission bits, such as 0o644")
    return value


def check_timeout(value: float | None, what: str = "timeout") -> float | None:
    """Accept seconds above 0, or `None` for no limit."""
    if value is None:
        return None
    # bool is an int in Python, but True as a number of seconds is a mistake
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InvalidInput(f"{what} is {shown(value)}: pass seconds as a number, or None for no limit")
    seconds = _seconds(value)
    if not math.isfinite(seconds) or seconds <= 0:
        raise InvalidInput(f"{what}={shown(value)}: pass seconds above 0, or None for no limit")
    return seconds


def _seconds(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an int larger than any float
        return math.inf if value > 0 else -math.inf


def check_age(value: object, what: str) -> float:
    """Accept seconds of at least 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:  # also refuses NaN
        raise InvalidInput(f"{what}={shown(value)}: pass seconds, at least 0")
    return _seconds(value)


def memory_bytes(value: str | int, what: str = "memory_limit", least_bytes: int = MEMORY_MINIMUM) -> int:
    """Return an amount of memory such as `512m` in bytes."""
    amount: float
    if isinstance(value, str) and (match := _MEMORY.fullmatch(value)):
        # k and K, kb and KiB: the first letter counts, in powers of 1024 as Docker has them
        amount = float(match[1]) * _MEMORY_UNITS[(match[2] or "").lower()[:1]]
    elif isinstance(value, int) and not isinstance(value, bool):
        amount = value
    else:
        raise InvalidInput(f"{what}={shown(value)}: use bytes or a suffix, such as '512m'")
    if amount >= _MEMORY_MAXIMUM:
        raise InvalidInput(f"{what}={shown(value)} is more than any engine can count: use less, such as '512m'")
    if amount < least_bytes:
        raise InvalidInput(f"{what}={shown(value)} is too little: use at least {least_bytes} bytes")
    return int(amount)


def normal_address(text: str) -> str | None:
    """Return one spelling for all of an IP address. `None` if it is none, or has a scope."""
    import ipaddress  # late: few configurations name a host

    try:
        found = str(ipaddress.ip_address(text))
    except ValueError:
        return None
    return None if "%" in found else found  # a scope may hold any text, and hosts files take none


def check_user(value: object) -> str:
    """Accept a user as `name`, `uid` or `uid:gid`."""
    user = check_text(value, "user")
    parts = user.split(":")
    if not all(parts) or len(parts) > 2 or any(char.isspace() for char in user):
        raise InvalidInput(f"user={shown(user)}: pass a name, 'uid' or 'uid:gid', or None for the image's user")
    for part in parts:
        if part.startswith("-") or (part.isdecimal() and int(part) > _UID_MAXIMUM):
            raise InvalidInput(f"user={shown(user)}: a number lies between 0 and {_UID_MAXIMUM}")
    return user
