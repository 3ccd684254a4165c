"""A fake workload's programs: a test's own, and a few built-in ones."""

from __future__ import annotations

import math
import posixpath
import re
import shlex
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace

from podkit.backends.base import Chunk, Stream
from podkit.testing._files import Files, absolute

__all__ = [
    "BUILT_INS",
    "Background",
    "IgnoreSigterm",
    "Input",
    "Invocation",
    "Pause",
    "Program",
    "Reply",
    "Step",
    "Steps",
    "as_chunk",
    "begin",
    "find_program",
    "read_all",
    "resume",
    "run_program",
]

_PROGRAM_DIRECTORIES = ("", "/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin")
_USERS = {"": "root", "0": "root", "root": "root", "nobody": "nobody", "65534": "nobody"}


@dataclass(frozen=True, slots=True)
class Reply:
    """A simple program: it prints and ends.

    Attributes:
        stdout: its output.
        stderr: its output on the error stream, which comes second.
        exit_code: its exit code.
    """

    stdout: str | bytes = b""
    stderr: str | bytes = b""
    exit_code: int = 0


@dataclass(frozen=True, slots=True)
class Pause:
    """A step that lets the fake's time pass."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Input:
    """A step that reads: `data = yield Input()` returns bytes, none at the end."""


@dataclass(frozen=True, slots=True)
class IgnoreSigterm:
    """A step that makes the main process ignore SIGTERM."""


@dataclass(frozen=True, slots=True)
class Background:
    """A step that leaves a background child, which holds the pipes.

    Attributes:
        steps: the child's running program.
    """

    steps: Steps


Step = str | bytes | Chunk | Pause | Input | IgnoreSigterm | Background
"""A step of a program: output (`str` and `bytes` are for standard output) or one of the classes above."""

Steps = Generator[Step, bytes, int | None]
"""A running program. It returns its exit code; `None` stands for 0."""

Program = Reply | Callable[["Invocation"], "Reply | Steps"]
"""A program: a fixed reply, a function that returns one, or a generator function that takes its time.

It runs in the thread of a caller of the fake, under the fake's lock, so it must not block; `yield Pause(seconds)`
instead. If it raises, it ends with exit code 1 and its traceback on the error stream, as a Python program does.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invocation:
    """One run of a program.

    Attributes:
        argv: the program and its arguments.
        environment: the workload's and the command's.
        working_dir: its directory.
        user: its user, empty for root.
        files: the workload's files.
        workload_id: the id of its workload.
        programs: the workload's programs, by name.
    """

    argv: list[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    working_dir: str = "/"
    user: str = ""
    files: Files = field(default_factory=Files)
    workload_id: str = ""
    programs: Mapping[str, Program] = field(default_factory=dict)

    def path(self, text: str) -> str:
        """Return an argument as an absolute path."""
        return absolute(posixpath.join(self.working_dir, text))

    @property
    def user_name(self) -> str | None:
        """Its user's name, `None` for a nameless number."""
        return _USERS.get(self.user.split(":")[0])

    @property
    def user_is_known(self) -> bool:
        """Whether an engine would know the user."""
        return self.user_name is not None or self.user.split(":")[0].isdigit()

    def call(self, argv: list[str]) -> Steps:
        """Run another program instead: `return (yield from run.call([...]))`."""
        return run_program(replace(self, argv=argv))


def find_program(programs: Mapping[str, Program], argv: list[str]) -> Program | None:
    """Find a program by its whole command line, or by its name."""
    directory, name = posixpath.split(argv[0])
    found = programs.get(shlex.join(argv))
    return found if found is not None or directory not in _PROGRAM_DIRECTORIES else programs.get(name)


def run_program(run: Invocation) -> Steps:
    """Run a program. A missing one ends as on an engine: 126 for a file, else 127."""
    program = find_program(run.programs, run.argv)
    if program is not None:
        return (yield from begin(program, run))
    mere_file = "/" in run.argv[0] and run.path(run.argv[0]) in run.files
    why = "permission denied" if mere_file else "no such program; script it: FakeBackend({'name': ...})"
    yield _error(f"exec: {run.argv[0]!r}: {why}\n")
    return 126 if mere_file else 127


def begin(program: Program, run: Invocation) -> Steps:
    """Run a program that exists."""
    done = program if isinstance(program, Reply) else program(run)
    if not isinstance(done, Reply):
        return (yield from done)
    if done.stdout:
        yield done.stdout
    if done.stderr:
        yield _error(done.stderr)
    return done.exit_code


def read_all() -> Generator[Step, bytes, bytes]:
    """Read standard input to its end, by `yield from`."""
    data = bytearray()
    while piece := (yield Input()):
        data += piece
    return bytes(data)


def as_chunk(step: Step) -> Chunk | None:
    """Return a step's output, `None` without any."""
    if isinstance(step, Chunk):
        return step
    if isinstance(step, str):
        return Chunk(Stream.STDOUT, step.encode())
    return Chunk(Stream.STDOUT, step) if isinstance(step, bytes) else None


def resume(steps: Steps, data: bytes | None) -> Step:
    """Run a program to its next step. `None` begins it."""
    # a generator takes no value before its first step
    return next(steps) if data is None else steps.send(data)


def _error(text: str | bytes) -> Chunk:
    return Chunk(Stream.STDERR, text if isinstance(text, bytes) else text.encode())


# --- the programs that every workload has -----------------------------------------------------------


def _echo(run: Invocation) -> Reply:
    words = run.argv[1:]
    without_newline = words[:1] == ["-n"]
    return Reply(" ".join(words[1:]) if without_newline else " ".join(words) + "\n")


def _cat(run: Invocation) -> Steps:
    code = 0
    for name in run.argv[1:]:
        if (path := run.path(name)) in run.files:
            yield run.files[path]
        else:
            why = "Is a directory" if run.files.is_directory(path) else "No such file or directory"
            yield _error(f"cat: {name}: {why}\n")
            code = 1
    if not run.argv[1:]:
        while data := (yield Input()):
            yield data
    return code


def _sleep(run: Invocation) -> Steps:
    yield Pause(math.inf if run.argv[1] == "infinity" else float(run.argv[1]))
    return 0


def _printenv(run: Invocation) -> Reply:
    if run.argv[1:]:
        found = [run.environment[name] for name in run.argv[1:] if name in run.environment]
        return Reply("".join(f"{value}\n" for value in found), exit_code=0 if len(found) == len(run.argv) - 1 else 1)
    return Reply("".join(f"{name}={value}\n" for name, value in run.environment.items()))


def _whoami(run: Invocation) -> Reply:
    if run.user_name is None:
        return Reply(stderr=f"whoami: cannot find name for user ID {run.user}\n", exit_code=1)
    return Reply(run.user_name + "\n")


def _yes(run: Invocation) -> Steps:
    line = (" ".join(run.argv[1:]) or "y") + "\n"
    block = line * max(1, 8192 // len(line))
    while True:
        yield block


def _wc(run: Invocation) -> Steps:
    size = 0
    while data := (yield Input()):  # counts bytes and ignores its options
        size += len(data)
    yield f"{size}\n"
    return 0


def _ls(run: Invocation) -> Reply:
    path = run.path(run.argv[-1]) if run.argv[1:] else run.working_dir
    if not run.files.is_directory(path):
        return Reply(stderr=f"ls: cannot access '{path}': No such file or directory\n", exit_code=2)
    return Reply("".join(f"{name}\n" for name in run.files.names_in(path)))


def _mkdir(run: Invocation) -> Reply:
    for name in run.argv[1:]:
        if name != "-p":
            run.files.make_directory(run.path(name))
    return Reply()


def _rm(run: Invocation) -> Reply:
    options = "".join(word for word in run.argv[1:] if word.startswith("-"))
    for name in (word for word in run.argv[1:] if not word.startswith("-")):
        path = run.path(name)
        if run.files.is_directory(path) and "r" in options:
            run.files.remove_directory(path)
        elif run.files.pop(path, None) is None and "f" not in options:
            return Reply(stderr=f"rm: cannot remove '{name}'\n", exit_code=1)
    return Reply()


_SYNTAX = re.compile(r"[;&|<>()$`\\*?\[\n{}!]")


def _sh(run: Invocation) -> Steps:
    """Run `sh -c SCRIPT`. It understands plain commands only; tests script the rest."""
    script = run.argv[2] if run.argv[1:2] == ["-c"] and run.argv[2:] else ""
    if (program := run.programs.get(script)) is not None:  # a test's own script, whole
        return (yield from begin(program, run))
    words = [] if _SYNTAX.search(script) else shlex.split(script)
    if words[:1] == ["exit"]:
        return int(words[1]) % 256 if words[1:] else 0
    if words:
        return (yield from run.call(words))
    yield _error(f"sh: the fake's shell runs one plain command; script the whole: FakeBackend({{{script!r}: ...}})\n")
    return 2


BUILT_INS: dict[str, Program] = {
    "cat": _cat,
    "chown": Reply(),  # a fake has no owners
    "echo": _echo,
    "false": Reply(exit_code=1),
    "ls": _ls,
    "mkdir": _mkdir,
    "printenv": _printenv,
    "pwd": lambda run: Reply(run.working_dir + "\n"),
    "rm": _rm,
    "sh": _sh,
    "sleep": _sleep,
    "true": Reply(),
    "wc": _wc,
    "whoami": _whoami,
    "yes": _yes,
}
