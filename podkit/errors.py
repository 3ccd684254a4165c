"""Every error that podkit raises, in one tree.

A failing command is a result, not an error. These errors mean that the sandbox, the engine or the caller failed. There
is a class where a caller can react in another way; the message says how.

```
PodkitError
├── InvalidInput (ValueError)               a value cannot be right, and nothing was run
│   ├── PathNotMapped                       the path lies in no mount that podkit can translate
│   └── PathEscape (FileError)              the path leaves the directory that it must stay in
├── EngineError                             the engine refused or failed
│   ├── EngineUnavailable (ConnectionError) nothing answers, or it went away
│   │   └── EngineAccessDenied              it is there, but this user may not talk to it
│   ├── EngineTimeout (TimeoutError)        no answer before the deadline
│   ├── ImageNotFound                       neither on the engine nor to be pulled
│   ├── NetworkNotFound                     a network of the configuration does not exist
│   ├── MountSourceNotFound                 a mount's source does not exist where the engine is
│   ├── PortUnavailable                     a port of the configuration is taken on the host
│   ├── NameTaken                           the container's name belongs to something that is not ours
│   └── NotSupported                        this engine cannot do it at all
├── ContainerError
│   ├── ContainerNotFound                   it was removed
│   ├── ContainerNotRunning                 it is there, but stopped or paused
│   └── ContainerFailedToStart (RuntimeError)  it did not stay up; the exit code and the log are in the message
├── SessionError
│   ├── SessionNotFound                     no such session; create it first
│   ├── SessionConflict                     it exists with another configuration
│   └── SessionBusy (TimeoutError)          another thread still makes, recovers or closes it; try again
├── CommandError
│   ├── CommandFailed                       raised by `ProcessResult.check()`
│   ├── CommandStillRunning (TimeoutError)  `Command.wait` waited for as long as it was told to
│   └── CommandInterrupted                  the container or the engine ended under the command; its fate may be unknown
├── ProcessError
│   ├── ProcessNotFound (LookupError)       the container has no such background process (any more)
│   ├── ProcessStillRunning (TimeoutError)  `ProcessManager.wait` has waited for as long as it was told to
│   └── ProcessFailedToStart (RuntimeError) its program cannot be run
└── FileError (OSError)
    ├── FileMissing (FileNotFoundError)     there is no such file
    ├── FileExists (FileExistsError)        something is there already
    ├── FileDenied (PermissionError)        the user may not, or the file system is read-only
    ├── NotAFile                            it is a directory, a device, a FIFO or a socket
    │   └── IsADirectory (IsADirectoryError) it is a directory
    ├── NotADirectory (NotADirectoryError)  it, or a part of its path, is no directory
    ├── FileTooLarge                        it has more bytes than the limit of the call
    ├── TooManyFiles                        there are more names than the limit of the call
    ├── NoSpace                             the disk, or a quota, is full
    ├── FileTimeout (TimeoutError)          it took too long, or stood still
    └── NotText                             its bytes are not UTF-8; `files.read_bytes` takes them
```

Every error can be pickled. An error of another library is never raised through: it is the `__cause__`.
"""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from podkit.core.models import ProcessResult


class PodkitError(Exception):
    """The root of podkit's errors."""


class InvalidInput(PodkitError, ValueError):
    """A value cannot be right. Nothing was run; the message names it and the cure."""


class PathNotMapped(InvalidInput):
    """The path lies in no mount that podkit can translate."""


class EngineError(PodkitError):
    """The engine refused a request or failed at it."""


class EngineUnavailable(EngineError, ConnectionError):
    """No engine answers, or it went away. The message lists the addresses tried, in order."""


class EngineAccessDenied(EngineUnavailable):
    """The engine is there, but refuses this user."""


class EngineTimeout(EngineError, TimeoutError):
    """The engine did not answer before the deadline. The request may still succeed."""


class ImageNotFound(EngineError):
    """The image is missing and could not be pulled."""


class NetworkNotFound(EngineError):
    """A network of the configuration does not exist."""


class MountSourceNotFound(EngineError):
    """A mount's source does not exist on the engine's host."""


class PortUnavailable(EngineError):
    """A port is already taken on the engine's host."""


class NameTaken(EngineError):
    """The container's name is taken by something else. It was not touched."""


class NotSupported(EngineError):
    """This engine cannot do that. Another one may."""


class ContainerError(PodkitError):
    """Something is wrong with a container."""


class ContainerNotFound(ContainerError):
    """The container does not exist (any more)."""


class ContainerNotRunning(ContainerError):
    """The container is stopped or paused, so no command runs."""


class ContainerFailedToStart(ContainerError, RuntimeError):
    """The container did not start or did not stay up.

    Attributes:
        exit_code: of its main process, or `None` where the engine could not start it at all.
        log: the last lines that it wrote.
    """

    def __init__(self, message: str = "", *, exit_code: int | None = None, log: str = "") -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.log = log


class SessionError(PodkitError):
    """Something is wrong with a session."""


class SessionNotFound(SessionError):
    """There is no such session: create it first."""


class SessionConflict(SessionError):
    """The session exists with another configuration than the one asked for."""


class SessionBusy(SessionError, TimeoutError):
    """Another thread is still making, recovering or closing the session, or restarting its container.

    Nothing was done: try again, or with a longer timeout.
    """


class CommandError(PodkitError):
    """Something happened to a command.

    Attributes:
        result: as far as known, with the output so far; `None` if nothing is.
    """

    def __init__(self, message: str = "", *, result: ProcessResult | None = None) -> None:
        super().__init__(message)
        self.result = result


class CommandFailed(CommandError):
    """`ProcessResult.check()` found an exit code other than 0."""


class CommandStillRunning(CommandError, TimeoutError):
    """The command outlasted `Command.wait`. It goes on; `result` has the output so far."""


class CommandInterrupted(CommandError):
    """The container or the engine ended while the command ran.

    The command may have run in part, in full, or still be running; it is never sent a second time. The `exit_code` of
    `result` is -1 where it is not known.
    """


class ProcessError(PodkitError):
    """Something is wrong with a background process."""


class ProcessNotFound(ProcessError, LookupError):
    """The container has no such background process (any more)."""


class ProcessStillRunning(ProcessError, TimeoutError):
    """The process outlasted `ProcessManager.wait`. It goes on."""


class ProcessFailedToStart(ProcessError, RuntimeError):
    """The program of a background process cannot be run.

    Attributes:
        exit_code: as a shell reports it: 127 where there is no such program, 126 where it cannot be executed.
    """

    def __init__(self, message: str = "", *, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def _one_line(text: str) -> str:
    """Return text that prints anywhere as one line. All else becomes Python's escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


class FileError(PodkitError, OSError):
    """Something is wrong with a file.

    Attributes:
        errno: the system's error number; `None` where podkit itself refuses, such as above a limit.
        strerror: the system's words for it.
        filename: the path of the file.
        filename2: its new path, where it was to be renamed.
    """

    _number: ClassVar[int | None] = None

    def __init__(
        self, message: str = "", *, number: int | None = None, filename: str | None = None, filename2: str | None = None
    ) -> None:
        super().__init__(_one_line(message))  # names may be hostile
        self.errno = self._number if number is None else number
        self.strerror = None if self.errno is None else os.strerror(self.errno)
        self.filename, self.filename2 = filename, filename2

    def __str__(self) -> str:  # an `OSError` would leave the message out
        return str(self.args[0]) if self.args else ""

    def __reduce__(self) -> tuple[Any, ...]:
        told = {name: getattr(self, name) for name in ("errno", "strerror", "filename", "filename2")}
        return type(self), self.args, self.__dict__ | told


class FileMissing(FileError, FileNotFoundError):
    """There is no such file."""

    _number = errno.ENOENT


class FileExists(FileError, FileExistsError):
    """Something is there already."""

    _number = errno.EEXIST


class FileDenied(FileError, PermissionError):
    """The user may not, or the file system is read-only."""

    _number = errno.EACCES


class NotAFile(FileError):
    """A regular file was expected, and something else is there."""


class IsADirectory(NotAFile, IsADirectoryError):
    """A regular file was expected, and a directory is there."""

    _number = errno.EISDIR


class NotADirectory(FileError, NotADirectoryError):
    """Something else stands where a directory was expected."""

    _number = errno.ENOTDIR


class FileTooLarge(FileError):
    """The file or the tree has more bytes than allowed."""


class TooManyFiles(FileError):
    """There are more names than the limit of the call."""


class NoSpace(FileError):
    """The disk, or a quota, is full."""

    _number = errno.ENOSPC


class FileTimeout(FileError, TimeoutError):
    """It took longer than the call allows, or stood still."""

    _number = errno.ETIMEDOUT


class NotText(FileError):
    """The file's bytes are not UTF-8: read them with `files.read_bytes`."""


class PathEscape(InvalidInput, FileError):
    """The path leaves its directory, by `..` or a symlink."""
