"""Files through a shell script, for containers without an agent.

Needs `sh`, `cat`, `cp`, `mkdir`, `mv`, `readlink`, `rm`, `rmdir` and `wc` in the image (a busybox has them all).
"""

from __future__ import annotations

from typing import NoReturn

from podkit.agent.command_output import Outcome
from podkit.agent.command_request import CommandRequest
from podkit.agent.file_requests import FILE_SECONDS, FileTask
from podkit.agent.runner import Runner
from podkit.errors import FileDenied, FileError, FileMissing, FileTooLarge, IsADirectory, NotADirectory, NotAFile
from podkit.utils._checks import check_text, cut

NOT_A_FILE, TOO_LARGE, MISSING, IS_A_DIRECTORY, NOT_A_DIRECTORY, DENIED = range(78, 84)  # the scripts' exit codes

# $1 is an absolute path, $2 how many bytes there are. The new file is made in a directory of its own, because making
# that fails where something has its name; and it takes the old one's place only when it is whole, because a caller that
# is killed looks like the end of the content. A mount cannot be replaced: it is written in place.
WRITE_SCRIPT = f"""
path=$1
if [ -L "$path" ]; then
  path=$(readlink -f -- "$path" && echo .) || exit {MISSING}
  path=${{path%??}}
fi
above=${{path%/*}}
while [ ! -d "$above/" ]; do
  if [ -e "$above" ]; then exit {NOT_A_DIRECTORY}; fi
  above=${{above%/*}}
done
mkdir -p -- "${{path%/*}}/" && cd -P -- "${{path%/*}}/" || exit 1
name=./${{path##*/}} try=0
if [ -d "$name" ]; then exit {IS_A_DIRECTORY}; fi
if [ -e "$name" ] && [ ! -f "$name" ]; then exit {NOT_A_FILE}; fi
if [ -e "$name" ] && [ ! -w "$name" ]; then exit {DENIED}; fi
until new=./.podkit-$$-$try && mkdir "$new" 2>/dev/null; do
  try=$((try + 1))
  if [ $try -gt 20 ]; then mkdir "$new"; exit 1; fi
done
trap 'rm -f "$new/file"; rmdir "$new"' EXIT
if [ -e "$name" ]; then cp -p "$name" "$new/file" || exit 1; fi
cat > "$new/file" || exit 1
if [ "$(wc -c < "$new/file")" -ne "$2" ]; then echo "the content ended too early" >&2; exit 1; fi
mv -f "$new/file" "$name" 2>/dev/null || cat "$new/file" > "$name"
"""

# $1 is an absolute path, $2 how many bytes may be read
READ_SCRIPT = f"""
if [ ! -e "$1" ]; then exit {MISSING}; fi
if [ -d "$1" ]; then exit {IS_A_DIRECTORY}; fi
if [ ! -f "$1" ]; then exit {NOT_A_FILE}; fi
if [ ! -r "$1" ]; then exit {DENIED}; fi
size=$(stat -L -c %s -- "$1" 2>/dev/null) || size=0
if [ "$size" -gt "$2" ]; then exit {TOO_LARGE}; fi
exec cat -- "$1"
"""

EMPTY_SCRIPT = "rm -rf -- ..?* .[!.]* *"

# $1 is a directory, $2 whether only an empty one is meant
OPEN_SCRIPT = """
if [ ! -e "$1" ] && [ ! -L "$1" ]; then mkdir -p -- "$1" 2>/dev/null; fi
if [ "$(readlink -f -- "$1")" != "$1" ]; then exit 0; fi
if [ ! -d "$1" ] || [ ! -O "$1" ]; then exit 0; fi
if [ "$2" = 1 ] && [ -n "$(ls -A -- "$1")" ]; then exit 0; fi
chmod 0777 -- "$1" 2>/dev/null || [ ! -w "$1" ]
"""


def write_file(runner: Runner, container_id: str, task: FileTask, content: bytes) -> None:
    """Write a file in one step.

    Raises:
        FileError: the file could not be written; a more exact class where one fits.
        ContainerError: the container is gone or does not run.
    """
    outcome = _run(runner, container_id, task, WRITE_SCRIPT, len(content), content)
    if outcome.exit_code or outcome.timed_out:
        _fail(task, outcome)


def read_file(runner: Runner, container_id: str, task: FileTask, max_bytes: int) -> bytes:
    """Read a regular file of at most `max_bytes`.

    Raises:
        FileError: it could not be read; a more exact class where one fits.
        ContainerError: the container is gone or does not run.
    """
    outcome = _run(runner, container_id, task, READ_SCRIPT, max_bytes, None)
    data = outcome.stdout.data
    if outcome.exit_code == TOO_LARGE or (len(data) > max_bytes and not outcome.exit_code):  # it may grow meanwhile
        task.fail(FileTooLarge, f"it has more than {max_bytes} bytes")
    if outcome.exit_code or outcome.timed_out:
        _fail(task, outcome)
    return data


def empty_directory(runner: Runner, container_id: str, task: FileTask) -> None:
    """Remove all that is in a directory.

    Raises:
        FileError: not all could be removed.
        ContainerError: the container is gone or does not run.
    """
    argv = ["sh", "-c", EMPTY_SCRIPT]
    request = CommandRequest(argv=argv, user=task.user, working_dir=str(task.path), timeout=FILE_SECONDS)
    outcome = runner.run(container_id, request)
    if outcome.exit_code or outcome.timed_out:
        _fail(task, outcome)


def open_to_all(runner: Runner, container_id: str, task: FileTask, *, if_empty: bool) -> None:
    """Open root's directory to every user.

    Raises:
        FileError: it could not be done.
        ContainerError: the container is gone or does not run.
    """
    outcome = _run(runner, container_id, task, OPEN_SCRIPT, int(if_empty), None)
    if outcome.exit_code or outcome.timed_out:
        _fail(task, outcome)


def _run(runner: Runner, container_id: str, task: FileTask, script: str, number: int, content: bytes | None) -> Outcome:
    path = check_text(str(task.path), "path")  # an engine takes no other bytes
    request = CommandRequest(
        argv=["sh", "-c", script, "podkit-file", path, str(number)],
        user=task.user,
        working_dir="/",
        input=content,
        timeout=task.timeout,
        max_output_bytes=64 << 10 if content is not None else max(number + 1, 64 << 10),
    )
    return runner.run(container_id, request)


_ERRORS: dict[int | None, tuple[type[FileError], str]] = {
    NOT_A_FILE: (NotAFile, "a device, a FIFO or a socket is there"),
    MISSING: (FileMissing, "there is no such file"),
    IS_A_DIRECTORY: (IsADirectory, "it is a directory"),
    NOT_A_DIRECTORY: (NotADirectory, "a part of its path is not a directory"),
    DENIED: (FileDenied, "permission denied"),
}


def _fail(task: FileTask, outcome: Outcome) -> NoReturn:
    if outcome.timed_out:
        task.too_late()
    code = outcome.exit_code
    said = cut(outcome.stderr.text.strip()) or f"the script ended with exit code {code}"
    task.fail(*_ERRORS.get(code, (FileError, said)))
