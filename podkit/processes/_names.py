"""Names of background processes that were given none."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator

from podkit.utils._checks import CommandLike

NAME_MAX_BYTES = 200

_LOOK_CHARACTERS = 1000  # of a script, which may have megabytes
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")


def is_name(text: str) -> bool:
    """Whether this is a printable line of 1 to 200 bytes."""
    return text.isprintable() and 0 < len(text.encode()) <= NAME_MAX_BYTES


def default_name(command: CommandLike) -> str:
    """Return a command's program name. A shell's command has its first word's."""
    if not isinstance(command, str):
        return _shown(os.fspath(command[0])) or "process"
    for word in _words(command[:_LOOK_CHARACTERS]):
        if word != "exec" and not _ASSIGNMENT.match(word) and any(map(str.isalnum, word)) and (name := _shown(word)):
            return name
    return "process"


def _words(text: str) -> Iterator[str]:
    """Yield a shell command's words, without quotes."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&`{}")
    lexer.whitespace_split = True
    try:
        yield from lexer
    except ValueError:  # an unclosed quote
        yield from re.findall(r"[^\s'\"]+", text)


def _shown(word: str) -> str:
    name = "".join(char for char in word.rpartition("/")[2] if char.isprintable())
    return name.encode()[:NAME_MAX_BYTES].decode(errors="ignore")
