r"""The `sh -c` of a fake workload: a small subset, which says so where a script goes beyond it.

It knows commands apart by `;`, newline, `&&`, `||` and `&`; single and double quotes, `\x`, `$NAME`, `${NAME}`, `$1`
and `$@` as a word of its own; `> file`, `>> file`, `2> file`, `>&2`, `2>&1`, `< file`; names such as `*.py`; and, as
commands of its own, `cd`, `exec`, `exit`, `trap '' TERM` and `:`. No pipes, no `$(...)`, no `if` or `for`: script
these as a whole, `FakeBackend({"make | tee log": Reply("done")})`.
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Callable
from dataclasses import dataclass, replace

from podkit.backends.base import Chunk, Stream
from podkit.testing._programs import Background, IgnoreSigterm, Input, Invocation, Steps, as_chunk, begin, resume

_TOKEN = re.compile(
    r"""[ \t]*(?:
        (?P<operator> && | \|\| | [;\n&] )
      | (?P<redirection> [12]?>&[12] | [12]?>>? | < )
      | (?P<word> (?: '[^']*' | "(?:\\.|[^"\\`])*" | \\. | [^\s'"\\;&|<>()`\#{}] | \{[^\s;{}]*\} | (?<=\S)\# )+ )
      | (?P<end> \Z )
    )""",
    re.VERBOSE | re.DOTALL,
)
_PIECE = re.compile(
    r"""'(?P<single>[^']*)'|"(?P<double>(?:\\.|[^"\\])*)"|\\(?P<escaped>.)|(?P<bare>[^'"\\]+)""", re.DOTALL
)
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+)|(.))", re.DOTALL)
_BEYOND = frozenset({"case", "for", "function", "if", "until", "while", "!", "{"})


class _NotUnderstood(Exception):
    """The script goes beyond the subset."""


class _Exit(Exception):
    def __init__(self, code: int) -> None:
        self.code = code


@dataclass(slots=True)
class _Command:
    words: list[str]
    redirections: list[tuple[str, str]]
    before: str = ";"  # the operator in front of it
    in_background: bool = False


def shell(run: Invocation) -> Steps:
    """Run `sh -c SCRIPT [NAME [ARGUMENT...]]`."""
    if run.argv[1:2] != ["-c"] or len(run.argv) < 3:
        yield Chunk(Stream.STDERR, b"sh: the fake's shell only knows sh -c SCRIPT\n")
        return 2
    script, state, not_understood = run.argv[2], _Shell(run), ""
    try:
        commands = _parse(script)
    except _NotUnderstood as exc:
        commands, not_understood = [], str(exc)
    if (program := run.programs.get(script)) is not None:
        plain = len(commands) == 1 and not commands[0].redirections and not commands[0].in_background
        return (yield from begin(program, replace(run, argv=state.words(commands[0])) if plain else run))
    if not_understood:
        yield Chunk(Stream.STDERR, f"sh: {not_understood}; script the whole: FakeBackend({{SCRIPT: ...}})\n".encode())
        return 2
    try:
        return (yield from _run_all(commands, state))
    except _Exit as exc:
        return exc.code


def _parse(script: str) -> list[_Command]:
    commands, current, before, position = [], _Command([], []), ";", 0
    while True:
        found = _TOKEN.match(script, position)
        if found is None:
            raise _NotUnderstood(f"the fake's shell does not understand {script[position : position + 20]!r}")
        position = found.end()
        if (word := found["word"]) is not None:
            if word in _BEYOND and not current.words:
                raise _NotUnderstood(f"the fake's shell does not know {word!r}")
            current.words.append(word)
        elif (redirection := found["redirection"]) is not None:
            current.redirections.append((redirection, ""))
            if "&" not in redirection:
                target = _TOKEN.match(script, position)
                if target is None or target["word"] is None:
                    raise _NotUnderstood(f"nothing behind {redirection!r}")
                current.redirections[-1] = (redirection, target["word"])
                position = target.end()
        else:
            if current.words or current.redirections:
                current.before, current.in_background = before, found["operator"] == "&"
                commands.append(current)
            if found["operator"] is None:
                return commands
            current, before = _Command([], []), found["operator"]


class _Shell:
    """What a shell remembers from one command to the next."""

    def __init__(self, run: Invocation) -> None:
        self.run = run
        self.code = 0
        self._arguments = run.argv[3:] or ["sh"]

    def words(self, command: _Command) -> list[str]:
        words: list[str] = []
        for word in command.words:
            words += self._arguments[1:] if word in ('"$@"', "$@") else self._paths(word) or [self.expand(word)]
        return words

    def _paths(self, word: str) -> list[str]:
        """Give the names in a directory that a pattern such as `*.py` means; nothing where it is none."""
        directory, pattern = posixpath.split(word)
        if not set("*?[") & set(pattern) or set("'\"\\") & set(word):
            return []
        names = self.run.files.names_in(self.run.path(directory))
        shown = [name for name in names if not name.startswith(".") or pattern.startswith(".")]
        return [posixpath.join(directory, name) for name in fnmatch.filter(shown, pattern)]

    def expand(self, word: str) -> str:
        def piece(found: re.Match[str]) -> str:
            if found["single"] is not None:
                return found["single"]
            if found["escaped"] is not None:
                return found["escaped"]
            if found["double"] is not None:
                return re.sub(r'\\(["\\$`])', r"\1", self._variables(found["double"]))
            return self._variables(found["bare"])

        return _PIECE.sub(piece, word)

    def _variables(self, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            name = found[1] or found[2]
            if name is None:
                return str(self.code) if found[3] == "?" else found[0]
            if name.isdigit():
                return self._arguments[int(name)] if int(name) < len(self._arguments) else ""
            return self.run.environment.get(name, "")

        return re.sub(r"(?<!\\)" + _VARIABLE.pattern, value, text, flags=re.DOTALL)


def _run_all(commands: list[_Command], state: _Shell) -> Steps:
    for command in commands:
        if (command.before == "&&" and state.code != 0) or (command.before == "||" and state.code == 0):
            continue
        if command.in_background:
            yield Background(_in_background(command, state))
            state.code = 0
        else:
            state.code = (yield from _run_one(command, state)) or 0
    return state.code


def _in_background(command: _Command, state: _Shell) -> Steps:
    try:
        return (yield from _run_one(command, state))
    except _Exit as exc:
        return exc.code


def _run_one(command: _Command, state: _Shell) -> Steps:
    words = state.words(command)
    own = _OWN.get(words[0]) if words else None
    steps = own(words, state) if own else state.run.call(words) if words else _nothing()
    if not command.redirections:
        return (yield from steps)
    return (yield from _redirect(steps, command, state))


def _redirect(steps: Steps, command: _Command, state: _Shell) -> Steps:
    goes: dict[Stream, Stream | str] = {stream: stream for stream in Stream}
    given: bytes | None = None  # what stands for standard input
    files = state.run.files
    for operator, word in command.redirections:
        path = state.run.path(state.expand(word))
        stream = Stream.STDERR if operator.startswith("2") else Stream.STDOUT
        if operator == "<":
            if path not in files:
                yield Chunk(Stream.STDERR, f"sh: {path}: No such file or directory\n".encode())
                return 1
            given = files[path]
        elif "&" in operator:
            goes[stream] = goes[Stream(int(operator[-1]))]
        else:
            goes[stream] = path
            files[path] = files.get(path, b"") if operator.endswith(">>") else b""
    data: bytes | None = None
    while True:
        try:
            step = resume(steps, data)
        except StopIteration as end:
            return end.value if isinstance(end.value, int) else 0
        data, chunk = b"", as_chunk(step)
        if chunk is not None and isinstance(target := goes[chunk.stream], str):
            files[target] = files.get(target, b"") + chunk.data
        elif chunk is not None:
            yield Chunk(goes[chunk.stream], chunk.data)  # type: ignore[arg-type]  # a str went to its file above
        elif isinstance(step, Input) and given is not None:
            data, given = given, b""
        else:
            data = yield step


# --- the shell's own commands -----------------------------------------------------------------------


def _nothing() -> Steps:
    yield from ()
    return 0


def _exit(words: list[str], state: _Shell) -> Steps:
    yield from ()
    raise _Exit(int(words[1]) % 256 if words[1:] else state.code)


def _cd(words: list[str], state: _Shell) -> Steps:
    path = state.run.path(words[1] if words[1:] else "/root")
    if not state.run.files.is_directory(path):
        yield Chunk(Stream.STDERR, f"sh: cd: {path}: No such file or directory\n".encode())
        return 1
    state.run = replace(state.run, working_dir=path)
    return 0


def _exec(words: list[str], state: _Shell) -> Steps:
    raise _Exit((yield from state.run.call(words[1:])) or 0)


def _trap(words: list[str], state: _Shell) -> Steps:
    if words[1] == "" and "TERM" in words[2:]:
        yield IgnoreSigterm()
    return 0


_OWN: dict[str, Callable[[list[str], _Shell], Steps]] = {
    ":": lambda words, state: _nothing(),
    "cd": _cd,
    "exec": _exec,
    "exit": _exit,
    "trap": _trap,
}
