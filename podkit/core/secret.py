"""`Secret`: the value of an environment variable that a command gets and nobody else is shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NoReturn, final

from podkit.errors import InvalidInput

MASK = "Secret('***')"
"""What is shown in place of a value; never a value itself, so that what was masked is not used by mistake."""


def fits_variable(value: object) -> bool:
    """Whether the kernel takes it as the value of a variable: valid Unicode without NUL."""
    if not isinstance(value, str) or "\0" in value:
        return False
    try:
        value.encode()
    except UnicodeEncodeError:  # which holds the value, so it goes no further
        return False
    return True


@final
class Secret:
    """The value of an environment variable that must not be shown: not by podkit, nor by the engine.

    Give it in place of a `str` wherever podkit takes an environment. It goes to commands through podkit's agent, and
    stands in no `repr`, log, error, dump, label or request to the engine. Immutable, and equal where the values are.
    It is copied as itself, and cannot be pickled.

    Args:
        value: any text without NUL.

    Raises:
        InvalidInput: the value cannot be that of a variable; it is not shown.
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        if not fits_variable(value):
            raise InvalidInput("the value of a Secret is not a str of valid Unicode without NUL: pass one")
        self._value: str | None = value

    def reveal(self) -> str:
        """Give the value.

        Raises:
            InvalidInput: this process does not know it: the configuration was read back from the engine.
        """
        if self._value is None:
            raise InvalidInput(
                "this process does not know the value of the Secret, which is not kept on the engine: pass it again"
            )
        return self._value

    @property
    def is_known(self) -> bool:
        """Whether this process has the value; a configuration that is read back from the engine has its name only."""
        return self._value is not None

    def __repr__(self) -> str:
        return MASK

    def __format__(self, spec: str) -> str:
        return format(MASK, spec)

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __copy__(self) -> Secret:
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret cannot be pickled, which would show its value: hand over what reveal() gives")

    def __getstate__(self) -> NoReturn:
        self.__reduce_ex__(None)


def unknown_secret() -> Secret:
    """Give a secret whose value this process does not know."""
    made = Secret("")
    made._value = None
    return made


def revealed(environment: Mapping[str, str | Secret]) -> Iterator[str]:
    """Give the variables as the kernel takes them: `NAME=value`, for the agent and nobody else."""
    for name, value in environment.items():
        yield f"{name}={value.reveal() if isinstance(value, Secret) else value}"


def secrets_of(environment: Mapping[str, str | Secret]) -> dict[str, Secret]:
    """Give the variables that are secret."""
    return {name: value for name, value in environment.items() if isinstance(value, Secret)}


def shown_of(environment: Mapping[str, str | Secret]) -> dict[str, str]:
    """Give the variables that are not secret."""
    return {name: value for name, value in environment.items() if not isinstance(value, Secret)}
