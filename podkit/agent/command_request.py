"""A checked command, whichever way it runs."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from podkit.agent.command_output import MAX_OUTPUT_BYTES, TextCallback
from podkit.errors import InvalidInput
from podkit.utils import _checks
from podkit.utils._checks import CommandLike, StrPath


@dataclass(frozen=True, slots=True, kw_only=True)
class CommandRequest:
    """A checked command.

    Attributes:
        argv: the program and its arguments.
        working_dir: absolute, or below the container's; `None` means that one itself.
        environment: added to the container's.
        timeout: seconds, `None` for no limit.
        user: `None` means the container's.
        input: for the command to read; `None` is an empty one.
        max_output_bytes: how much of each stream is kept; the rest is read and dropped.
        on_stdout: called with each piece of text as it comes, in the caller's thread, also past the limit.
        on_stderr: the same for the error stream.
        built_in: `argv` is for a part of the agent itself, which its first word names.
    """

    argv: Sequence[str]
    working_dir: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    timeout: float | None = None
    user: str | None = None
    input: bytes | None = None
    max_output_bytes: int = MAX_OUTPUT_BYTES
    on_stdout: TextCallback | None = None
    on_stderr: TextCallback | None = None
    built_in: bool = False

    @classmethod
    def checked(
        cls,
        command: CommandLike,
        *,
        working_dir: StrPath | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        user: str | None = None,
        input: str | bytes | None = None,
        max_output_bytes: int | None = None,
        on_stdout: TextCallback | None = None,
        on_stderr: TextCallback | None = None,
    ) -> CommandRequest:
        """Check a caller's arguments.

        Raises:
            InvalidInput: one of the values cannot be right; the message names it and the cure.
        """
        kept = (
            MAX_OUTPUT_BYTES if max_output_bytes is None else _checks.check_size(max_output_bytes, "max_output_bytes")
        )
        for name, callback in (("on_stdout", on_stdout), ("on_stderr", on_stderr)):
            if callback is not None and not callable(callback):
                raise InvalidInput(f"{name}={_checks.shown(callback)}: pass a function that takes a str")
        return cls(
            argv=_checks.check_command(command),
            working_dir=None if working_dir is None else _checks.check_working_dir(working_dir),
            environment={} if environment is None else _checks.check_environment(environment),
            timeout=_checks.check_timeout(timeout),
            user=None if user is None else _checks.check_user(user),
            input=None if input is None else _checks.check_content(input, "input"),
            max_output_bytes=kept,
            on_stdout=on_stdout,
            on_stderr=on_stderr,
        )

    def directory_in(self, working_dir: str) -> str:
        """Return its directory, given the container's working directory."""
        return working_dir if self.working_dir is None else posixpath.join(working_dir, self.working_dir)


class Place(NamedTuple):
    """Where a command runs.

    Attributes:
        user: who runs it; `""` for the agent's own user.
        working_dir: the container's.
        home: whether `HOME` is to be the user's.
    """

    user: str
    working_dir: str
    home: bool


def refused_user(user: str | None, why: str = "there is no such user or group in the container") -> InvalidInput:
    """Return the error for an unusable user. `None` is the container's own."""
    whose = "the container's user" if user is None else f"user {user!r}"
    return InvalidInput(f"nothing in the container can run as {whose}: {why}; name another user, or a number")
