"""Why a program could not be run, as its caller is told."""

from __future__ import annotations

import errno
import os

from podkit.agent.command_output import Outcome
from podkit.agent.command_request import CommandRequest, refused_user
from podkit.agent.protocol import Failure
from podkit.errors import ContainerError, ContainerNotRunning, InvalidInput, PodkitError

_NOT_EXECUTABLE, _NOT_FOUND = 126, 127  # as a shell's
_ERRNO_MAX = 4095  # the kernel's last


def settle_not_started(request: CommandRequest, failure: int, error: int, outcome: Outcome) -> None:
    """Complete the outcome of a command whose program cannot be run, or raise why it did not start."""
    if failure == Failure.NO_PROGRAM and error != errno.E2BIG:
        outcome.exit_code, why = why_no_program(request.argv[0], error)
        outcome.stderr.feed(f"podkit: {why}\n".encode(errors="replace"))
        return
    raise why_not_started(request, failure, error)


def why_no_program(program: str, error: int) -> tuple[int, str]:
    """Return exit code and reason of an unusable program, as a shell does."""
    code = _NOT_FOUND if error in (errno.ENOENT, errno.ENOTDIR) else _NOT_EXECUTABLE
    return code, f"cannot run {program!r}: {_reason(error)}"


def _reason(error: int) -> str:
    return os.strerror(error) if error <= _ERRNO_MAX else f"error {error}"


def why_not_started(request: CommandRequest, failure: int, error: int) -> PodkitError:
    """Return the error of a command that did not start. Its program is not the reason."""
    why = _reason(error)
    if failure == Failure.NO_USER:
        return refused_user(request.user) if error == errno.ENOENT else refused_user(request.user, why)
    if failure == Failure.NO_DIRECTORY and (where := request.working_dir) is not None:
        below = "" if where.startswith("/") else ", which lies below the container's own"
        cure = "; make it first" if error == errno.ENOENT else ": name another one"
        return InvalidInput(f"the command cannot run in working_dir {where!r}{below}: {why}{cure}")
    if failure == Failure.NO_DIRECTORY:
        return ContainerError(
            f"the container's working_dir cannot be entered: {why}; a command has put something else there: "
            "name another working_dir, or close the session"
        )
    if failure == Failure.NO_PROGRAM:
        return InvalidInput("the command and its environment are too long for the container's kernel: use a file")
    if failure == Failure.NO_AGENT:
        return ContainerNotRunning(
            f"podkit's agent can start nothing any more and was given up ({why}): a command has lowered its resource "
            "limits; nothing was run, and the next command gets another agent"
        )
    if error in (errno.EMFILE, errno.ENFILE):
        return ContainerError(f"no process could be made in the container ({why}): run fewer of them at once")
    return ContainerError(
        f"no process could be made in the container ({why}): raise pids_limit or memory_limit, or end what fills them: "
        "'docker stop' it, and the next command starts it again with its files"
    )
