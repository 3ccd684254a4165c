"""The tree of errors: documented, picklable, caught by the classes that users already know."""

from __future__ import annotations

import pickle
import re

import pytest

from podkit import errors
from podkit.core.models import ProcessResult

CLASSES = sorted(
    (value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)),
    key=lambda error: error.__name__,
)

LINE = re.compile(r"^((?:[│ ]   )*)(?:[├└]── )?([A-Z]\w+)(?: \((\w+)\))?(?:\s{2,}.*|\s\S.*|)$")


def documented_tree() -> dict[str, tuple[str, str | None]]:
    """Read the tree from the docstring: name -> (parent, base of the standard library)."""
    assert errors.__doc__
    drawing = errors.__doc__.split("```")[1].strip("\n")
    found: dict[str, tuple[str, str | None]] = {}
    above: list[str] = []
    for line in drawing.splitlines():
        match = LINE.match(line)
        assert match, f"not understood: {line!r}"
        depth = 0 if line[0] not in "│├└ " else len(match[1]) // 4 + 1
        above[depth:] = [match[2]]
        found[match[2]] = above[depth - 1] if depth else "", match[3]
    return found


TREE = documented_tree()


def real_tree() -> dict[str, tuple[str, str | None]]:
    """The same, of the classes themselves."""
    found: dict[str, tuple[str, str | None]] = {}
    for error in CLASSES:
        first, *others = [base.__name__ for base in error.__bases__]
        is_root = error is errors.PodkitError
        found[error.__name__] = "" if is_root else first, others[0] if others else None
    return found


def test_the_documented_tree_is_that_of_the_classes() -> None:
    assert real_tree() == TREE


def test_an_error_survives_a_pickle_with_its_message() -> None:
    for error in CLASSES:
        copy = pickle.loads(pickle.dumps(error("what happened: what to do")))
        assert (type(copy), str(copy)) == (error, "what happened: what to do")


def test_a_container_that_failed_to_start_keeps_exit_code_and_log_in_a_pickle() -> None:
    error = errors.ContainerFailedToStart("failed to start", exit_code=3, log="last words")
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.exit_code, copy.log) == ("failed to start", 3, "last words")


@pytest.mark.parametrize("error", [errors.CommandError, errors.CommandFailed, errors.CommandInterrupted])
def test_a_command_error_keeps_its_result_in_a_pickle(error: type[errors.CommandError]) -> None:
    copy = pickle.loads(pickle.dumps(error("it failed", result=ProcessResult(exit_code=1, stdout="so far"))))
    assert copy.result == ProcessResult(exit_code=1, stdout="so far")


def test_a_command_error_without_a_result_says_so() -> None:
    assert errors.CommandInterrupted("lost").result is None


@pytest.mark.parametrize("error", [error for error in CLASSES if issubclass(error, errors.FileError)])
def test_a_file_error_is_an_oserror_that_shows_its_message_alone(error: type[Exception]) -> None:
    assert isinstance(error("cannot read 'x'"), OSError)
    assert str(error("cannot read 'x'")) == "cannot read 'x'"


def test_a_hostile_name_forges_no_line_and_can_be_printed() -> None:
    error = errors.FileError("cannot read 'a\n\x1b[2J\udcff ü'")
    assert str(error) == r"cannot read 'a\n\x1b[2J\udcff ü'"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_users_catch_podkits_errors_by_the_names_they_know() -> None:
    known = {
        ValueError: errors.InvalidInput,
        ConnectionError: errors.EngineUnavailable,
        TimeoutError: errors.EngineTimeout,
        RuntimeError: errors.ContainerFailedToStart,
        FileNotFoundError: errors.FileMissing,
    }
    assert all(issubclass(ours, theirs) for theirs, ours in known.items())
