"""Files inside a container, through a small shell script: for what is not mounted from the host.

The path is resolved inside the container, so no link can reach anything of the host. Needs `sh`, `cat`, `cp`, `mkdir`,
`mv`, `readlink` and `rm` in the image (a busybox has them all).
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import NoReturn

from podkit.agent.commands import CommandRequest, Outcome
from podkit.agent.runner import Runner
from podkit.core._checks import cut
from podkit.errors import FileError, FileMissing, FileTooLarge, NotAFile, PathEscape, PodkitError

FILE_SECONDS = 300.0
"""How long one file may take."""

ESCAPE, NOT_A_FILE, TOO_LARGE, MISSING = 77, 78, 79, 80  # what the scripts exit with

# $1 is an absolute path, $2 the directory that it must not leave ("" for none). A link swapped in between two lines
# harms nobody but the container: all this happens inside it.
WRITE_SCRIPT = f"""
above=${{1%/*}}
while [ ! -d "$above/" ]; do
  if [ -e "$above" ]; then echo "$above is not a directory" >&2; exit {NOT_A_FILE}; fi
  above=${{above%/*}}
done
cd -P -- "$above/" || exit 1
case "${{PWD%/}}/" in "$2"/*) ;; *) exit {ESCAPE};; esac
mkdir -p -- "${{1%/*}}/" && cd -P -- "${{1%/*}}/" || exit 1
case "${{PWD%/}}/" in "$2"/*) ;; *) exit {ESCAPE};; esac
name=./${{1##*/}} new=./.podkit-$$
if [ -L "$name" ]; then exit {ESCAPE}; fi
if [ -e "$name" ] && [ ! -f "$name" ]; then exit {NOT_A_FILE}; fi
trap 'rm -f "$new"' EXIT
if [ -e "$name" ]; then cp -p "$name" "$new" || exit 1; fi
cat > "$new" && mv -f "$new" "$name"
"""

READ_SCRIPT = f"""
if [ ! -e "$1" ] && [ ! -L "$1" ]; then exit {MISSING}; fi
file=$(readlink -f -- "$1") || exit {MISSING}
case "$file" in "$2"/*) ;; *) exit {ESCAPE};; esac
if [ ! -e "$file" ]; then exit {MISSING}; fi
if [ ! -f "$file" ]; then exit {NOT_A_FILE}; fi
size=$(stat -c %s -- "$file" 2>/dev/null) || size=0
if [ "$size" -gt "$3" ]; then exit {TOO_LARGE}; fi
exec cat -- "$file"
"""


def write_file(runner: Runner, container_id: str, path: PurePosixPath, content: bytes, root: str) -> None:
    """Write a file in one step: a reader sees the old one or the new one.

    Runs as the container's user. A file that exists keeps its mode.

    Args:
        runner: runs the script.
        container_id: of a running container.
        path: absolute, without `..`.
        content: what to write.
        root: the directory that no link may leave, `""` for none.

    Raises:
        FileError: the file could not be written; a more exact class where one fits.
        ContainerError: the container is gone or does not run.
    """
    outcome = _run(runner, container_id, WRITE_SCRIPT, [str(path), root], content, 0)
    if outcome.exit_code or outcome.timed_out:
        _fail("write", path, outcome, 0)


def read_file(runner: Runner, container_id: str, path: PurePosixPath, root: str, limit_bytes: int) -> bytes:
    """Read a regular file; links are followed as long as they stay below `root`.

    Raises:
        FileMissing: there is no such file.
        FileTooLarge: it has more than `limit_bytes`.
        FileError: it could not be read; a more exact class where one fits.
        ContainerError: the container is gone or does not run.
    """
    outcome = _run(runner, container_id, READ_SCRIPT, [str(path), root, str(limit_bytes)], None, limit_bytes)
    data = outcome.stdout.data
    if outcome.exit_code or outcome.timed_out or len(data) > limit_bytes:
        _fail("read", path, outcome, limit_bytes)
    return data


def _run(
    runner: Runner, container_id: str, script: str, arguments: list[str], input: bytes | None, limit_bytes: int
) -> Outcome:
    argv = ["sh", "-c", script, "podkit-file", *arguments]
    return runner.run(
        container_id,
        CommandRequest(
            argv=argv,
            working_dir="/",
            input=input,
            timeout=FILE_SECONDS,
            max_output_bytes=max(limit_bytes + 1, 64 << 10),
        ),
    )


def _fail(doing: str, path: PurePosixPath, outcome: Outcome, limit_bytes: int) -> NoReturn:
    code = outcome.exit_code
    errors: dict[int | None, tuple[type[PodkitError], str]] = {
        ESCAPE: (PathEscape, "it is a symlink, or one on the way leaves its directory; remove it"),
        NOT_A_FILE: (NotAFile, "no regular file is there, or a part of the path is not a directory"),
        MISSING: (FileMissing, "there is no such file"),
        TOO_LARGE: (FileTooLarge, f"it has more than {limit_bytes} bytes"),
    }
    if not code and not outcome.timed_out:  # it grew after it was measured
        code = TOO_LARGE
    if outcome.timed_out:
        raise FileError(f"cannot {doing} '{path}': it took longer than {FILE_SECONDS:g} s")
    said = cut(outcome.stderr.text.strip()) or f"the script ended with exit code {code}"
    error, why = errors.get(code, (FileError, said))
    raise error(f"cannot {doing} '{path}' in the container: {why}")
