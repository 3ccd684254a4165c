"""Tasks for the agent's part for files, and its refusals."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath, PurePosixPath
from typing import NoReturn

from podkit.agent.command_request import CommandRequest
from podkit.agent.file_records import Refusal, Refused
from podkit.errors import (
    CommandInterrupted,
    FileDenied,
    FileError,
    FileExists,
    FileMissing,
    FileTimeout,
    FileTooLarge,
    IsADirectory,
    NoSpace,
    NotADirectory,
    NotAFile,
    TooManyFiles,
)

FILE_SECONDS = 300.0
"""How long one call may take where its caller sets no limit."""

LATE = 110
"""Linux's ETIMEDOUT."""

NOT_THE_OWNER: Mapping[int, str] = {1: "only its owner may change its mode; without a new mode it can be written"}
"""Words for the error number of a write that sets a mode."""

NONSENSE = "the agent's answer makes no sense: close the session, it was tampered with"

_ANSWER_BYTES = 16 << 10  # the whole answer of a `put`

_ERRORS: dict[int, tuple[type[FileError], int | None, str]] = {
    1: (FileDenied, errno.EPERM, "the user may not do that"),
    2: (FileMissing, errno.ENOENT, "there is no such file or directory"),
    11: (NotAFile, errno.EAGAIN, "it is a special file of the kernel, which has nothing to read now"),
    13: (FileDenied, errno.EACCES, "permission denied"),
    16: (FileError, errno.EBUSY, "it is in use: a mount, or the directory of a mount"),
    17: (FileExists, errno.EEXIST, "something is there already"),
    18: (FileError, errno.EXDEV, "it would have to move to another file system"),
    20: (NotADirectory, errno.ENOTDIR, "it, or a part of its path, is not a directory"),
    21: (IsADirectory, errno.EISDIR, "it is a directory"),
    22: (FileError, errno.EINVAL, "the system refuses it"),
    26: (FileError, errno.ETXTBSY, "it is a program that runs"),
    27: (FileTooLarge, errno.EFBIG, "the file would be larger than the file system or a limit of the container allows"),
    28: (
        NoSpace,
        errno.ENOSPC,
        "no space is left on the device: remove something, or make the disk or the tmpfs larger",
    ),
    30: (FileDenied, errno.EROFS, "the file system is read-only: write elsewhere, or mount something writable there"),
    36: (FileError, errno.ENAMETOOLONG, "a name is too long, or the tree is too deep"),
    39: (FileError, errno.ENOTEMPTY, "it is a directory that is not empty"),
    40: (FileError, errno.ELOOP, "its symlinks lead in a circle"),
    122: (NoSpace, errno.EDQUOT, "the disk quota is used up: remove something"),
    Refusal.NOT_REGULAR: (NotAFile, None, "a device, a FIFO or a socket is there"),
    Refusal.TOO_LARGE: (FileTooLarge, None, "it has more bytes than the limit"),
    Refusal.TOO_MANY: (TooManyFiles, None, "there are more names than the limit"),
    Refusal.CUT_SHORT: (FileError, None, "the agent did not get all of it"),
    Refusal.NO_PARENT: (FileMissing, errno.ENOENT, "a directory on the way to it is missing"),
}
"""Linux's error numbers and podkit's own, each with this platform's number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileTask:
    """One call of the agent's part for files.

    Attributes:
        doing: a verb for messages, such as `read`.
        path: absolute, inside.
        argv: verb and arguments.
        user: who does it; `None` means the container's user.
        timeout: seconds, `None` for no limit.
        reasons: words for an error number, where `path` itself is meant and there is more to say than always.
        limits: words for one of podkit's own numbers, made of the count found.
        target: the new path, inside, where there is one.
    """

    doing: str
    path: PurePosixPath
    argv: Sequence[str]
    user: str | None = None
    timeout: float | None = FILE_SECONDS
    reasons: Mapping[int, str] = field(default_factory=dict)
    limits: Mapping[int, Callable[[int], str]] = field(default_factory=dict)
    target: PurePosixPath | None = None

    def request(self, *, with_input: bool = False) -> CommandRequest:
        """Return the request for the agent."""
        return CommandRequest(
            argv=["file", *self.argv],
            user=self.user,
            working_dir="/",
            timeout=self.timeout,
            input=b"" if with_input else None,
            max_output_bytes=_ANSWER_BYTES if with_input else 0,
            built_in=True,
        )

    def refuse(self, refused: Refused) -> NoReturn:
        """Raise the error of a refusal."""
        number = refused.number
        kind, known, why = _ERRORS.get(number, (FileError, number, os.strerror(number)))
        if explain := self.limits.get(number):
            why = explain(refused.found)
        elif not refused.below:
            why = self.reasons.get(number, why)
        self.fail(kind, why, refused.below, known)

    def fail(self, kind: type[FileError], why: str, below: bytes = b"", number: int | None = None) -> NoReturn:
        """Raise an error that names the path. `number` is the system's."""
        name = os.fsencode(self.path) + (b"/" + below if below else b"")
        target = None if self.target is None else str(self.target)
        becoming = "" if target is None else f" to '{printable(target)}'"
        message = f"cannot {self.doing} '{printable(os.fsdecode(name))}'{becoming} in the container: {why}"
        raise kind(message, number=number, filename=os.fsdecode(name), filename2=target) from None

    def interrupted(self, why: object) -> CommandInterrupted:
        """Return the error of a task whose container or engine ended."""
        return CommandInterrupted(f"cannot {self.doing} '{printable(self.path)}': {why}")

    def too_late(self) -> NoReturn:
        """Raise the error of a timed-out task."""
        self.fail(FileTimeout, self.reasons.get(LATE, f"it took longer than {self.timeout:g} s"))


def renaming(source: PurePosixPath, target: PurePosixPath) -> Mapping[int, str]:
    """Return words for a renaming's errors, which mix up its two paths."""
    old, new = printable(source), printable(target)
    not_empty = f"'{new}' is a directory that is not empty: remove it first, with recursive=True"
    return {
        2: f"there is no '{old}'",
        Refusal.NO_PARENT: f"there is no directory '{printable(target.parent)}': make it first, with "
        "mkdir(parents=True)",
        17: not_empty,
        18: "they lie on different file systems: copy it, or move it by a command such as 'mv'",
        20: f"a part of a path is not a directory, or '{new}' is a file and '{old}' a directory",
        21: f"'{new}' is a directory: pass the whole new path, such as '{printable(target / source.name)}'",
        22: "a directory cannot be moved into itself",
        39: not_empty,
    }


def printable(path: str | PurePath) -> str:
    """Return a path for a message. Bytes that are not UTF-8 appear as U+FFFD."""
    return os.fsencode(path).decode(errors="replace")
