"""Files inside a container, through a small shell script: for containers in which the agent cannot run.

The path is resolved inside the container, so no link can reach anything of the host. Needs `sh`, `cat`, `cp`, `mkdir`,
`mv`, `readlink`, `rm`, `rmdir` and `wc` in the image (a busybox has them all).
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import NoReturn

from podkit.agent.commands import CommandRequest, Outcome
from podkit.agent.files import FILE_SECONDS
from podkit.agent.runner import CommandRunner
from podkit.errors import (
    FileError,
    FileMissing,
    FileTimeout,
    FileTooLarge,
    IsADirectory,
    NotADirectory,
    NotAFile,
    PathEscape,
    PodkitError,
)
from podkit.utils._hostfs import READ_LIMIT_BYTES, over_read_limit

ESCAPE, NOT_A_FILE, TOO_LARGE, MISSING, IS_A_DIRECTORY, NOT_A_DIRECTORY = range(77, 83)  # what the scripts exit with

# $1 is an absolute path, $2 the directory that it must not leave ("" for none), $3 how many bytes there are. A link
# swapped in between two lines harms nobody but the container: all this happens inside it. The new file is made in a
# directory of its own, because making that fails where something has its name; and it takes the old one's place only
# when it is whole, because a caller that is killed looks like the end of the content.
WRITE_SCRIPT = f"""
above=${{1%/*}}
while [ ! -d "$above/" ]; do
  if [ -e "$above" ]; then exit {NOT_A_DIRECTORY}; fi
  above=${{above%/*}}
done
cd -P -- "$above/" || exit 1
case "${{PWD%/}}/" in "$2"/*) ;; *) exit {ESCAPE};; esac
mkdir -p -- "${{1%/*}}/" && cd -P -- "${{1%/*}}/" || exit 1
case "${{PWD%/}}/" in "$2"/*) ;; *) exit {ESCAPE};; esac
name=./${{1##*/}} try=0
if [ -L "$name" ]; then exit {ESCAPE}; fi
if [ -d "$name" ]; then exit {IS_A_DIRECTORY}; fi
if [ -e "$name" ] && [ ! -f "$name" ]; then exit {NOT_A_FILE}; fi
until new=./.podkit-$$-$try && mkdir "$new" 2>/dev/null; do
  try=$((try + 1))
  if [ $try -gt 20 ]; then mkdir "$new"; exit 1; fi
done
trap 'rm -f "$new/file"; rmdir "$new"' EXIT
if [ -e "$name" ]; then cp -p "$name" "$new/file" || exit 1; fi
cat > "$new/file" || exit 1
if [ "$(wc -c < "$new/file")" -ne "$3" ]; then echo "the content ended too early" >&2; exit 1; fi
mv -f "$new/file" "$name"
"""

READ_SCRIPT = f"""
if [ ! -e "$1" ] && [ ! -L "$1" ]; then exit {MISSING}; fi
file=$(readlink -f -- "$1" && echo .) || exit {MISSING}
file=${{file%??}}
case "$file" in "$2"/*) ;; *) exit {ESCAPE};; esac
if [ ! -e "$file" ]; then exit {MISSING}; fi
if [ -d "$file" ]; then exit {IS_A_DIRECTORY}; fi
if [ ! -f "$file" ]; then exit {NOT_A_FILE}; fi
size=$(stat -c %s -- "$file" 2>/dev/null) || size=0
if [ "$size" -gt "$3" ]; then echo "$size" >&2; exit {TOO_LARGE}; fi
exec cat -- "$file"
"""


def write_file(commands: CommandRunner, container_id: str, path: PurePosixPath, content: bytes, root: str) -> None:
    """Write a file in one step: a reader sees the old one or the new one.

    Runs as the container's user. A file that exists keeps its mode.

    Args:
        commands: runs the script.
        container_id: of a running container.
        path: absolute, without `..`.
        content: what to write.
        root: the directory that no link may leave, `""` for none.

    Raises:
        FileError: the file could not be written; a more exact class where one fits.
        ContainerError: the container is gone or does not run.
    """
    outcome = _run(commands, container_id, WRITE_SCRIPT, [str(path), root, str(len(content))], content, 0)
    if outcome.exit_code or outcome.timed_out:
        _fail("write", path, outcome)


def read_file(
    commands: CommandRunner, container_id: str, path: PurePosixPath, root: str, max_bytes: int | None
) -> bytes:
    """Read a regular file; links are followed as long as they stay below `root`.

    Raises:
        FileMissing: there is no such file.
        FileTooLarge: it has more than `max_bytes`, or than the usual limit.
        FileError: it could not be read; a more exact class where one fits.
        ContainerError: the container is gone or does not run.
    """
    most = READ_LIMIT_BYTES if max_bytes is None else max_bytes
    outcome = _run(commands, container_id, READ_SCRIPT, [str(path), root, str(most)], None, most)
    data = outcome.stdout.data
    if outcome.exit_code == TOO_LARGE or (len(data) > most and not outcome.exit_code):  # it may grow meanwhile
        size = re.match(r"\d{1,19}\n", outcome.stderr.text, re.ASCII)
        why = over_read_limit(max_bytes, max(most + 1, int(size[0]) if size else 0))
        raise FileTooLarge(f"cannot read '{path}' in the container: {why}", filename=str(path))
    if outcome.exit_code or outcome.timed_out:
        _fail("read", path, outcome)
    return data


def empty_directory(commands: CommandRunner, container_id: str, path: PurePosixPath) -> None:
    """Remove all that is in a directory, as root: so whoever made it.

    Raises:
        FileError: not all could be removed.
        ContainerError: the container is gone or does not run.
    """
    argv = ["sh", "-c", "rm -rf -- ..?* .[!.]* *"]
    request = CommandRequest(argv=argv, user="0", working_dir=str(path), timeout=FILE_SECONDS)
    outcome = commands.run(container_id, request)
    if outcome.exit_code or outcome.timed_out:
        _fail("empty", path, outcome)


def _run(
    commands: CommandRunner, container_id: str, script: str, arguments: list[str], input: bytes | None, limit_bytes: int
) -> Outcome:
    argv = ["sh", "-c", script, "podkit-file", *arguments]
    return commands.run(
        container_id,
        CommandRequest(
            argv=argv,
            working_dir="/",
            input=input,
            timeout=FILE_SECONDS,
            max_output_bytes=max(limit_bytes + 1, 64 << 10),
        ),
    )


_ERRORS: dict[int | None, tuple[type[PodkitError], str]] = {
    ESCAPE: (PathEscape, "it is a symlink, or one on the way leaves its directory; remove it"),
    NOT_A_FILE: (NotAFile, "a device, a FIFO or a socket is there"),
    IS_A_DIRECTORY: (IsADirectory, "it is a directory"),
    NOT_A_DIRECTORY: (NotADirectory, "a part of its path is not a directory"),
    MISSING: (FileMissing, "there is no such file"),
}


def _fail(doing: str, path: PurePosixPath, outcome: Outcome) -> NoReturn:
    code = outcome.exit_code
    kind, why = _ERRORS.get(code, (FileError, outcome.stderr.text.strip() or f"the script ended with exit code {code}"))
    if outcome.timed_out:
        kind, why = FileTimeout, f"it took longer than {FILE_SECONDS:g} s"
    message = f"cannot {doing} '{path}' in the container: {why}"
    raise kind(message, filename=str(path)) if issubclass(kind, FileError) else kind(message)
