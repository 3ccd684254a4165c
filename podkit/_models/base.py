"""The base of the models. It raises podkit's own errors and allows assignment from many threads."""

from __future__ import annotations

import threading
from pathlib import PurePath
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from podkit.errors import InvalidInput
from podkit.utils import _checks
from podkit.utils._fork import renew_after_fork


class _Assigning:
    """Holds one lock for the assignments to all models."""

    def __init__(self) -> None:
        self._after_fork()
        renew_after_fork(self)

    def _after_fork(self) -> None:
        self.lock = threading.RLock()


_assigning = _Assigning()


class Model(BaseModel):
    """A pydantic model that raises podkit's errors."""

    # pydantic's own text appears in tracebacks, and an environment may hold secrets: so it hides its inputs
    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, revalidate_instances="always", hide_input_in_errors=True
    )

    def __init__(self, **data: Any) -> None:
        try:  # pydantic's error is no podkit error: callers catch only those
            super().__init__(**data)
        except ValidationError as exc:
            raise InvalidInput(_explain(type(self), exc)) from exc

    def __setattr__(self, name: str, value: Any) -> None:
        # pydantic replaces the dict of all fields: without the lock, one of two concurrent assignments would be lost
        with _assigning.lock:
            before = dict(self.__dict__)
            try:
                super().__setattr__(name, value)
            except ValidationError as exc:
                self.__dict__.update(before)  # pydantic checks fields against each other after it has assigned
                raise InvalidInput(_explain(type(self), exc)) from exc

    @classmethod
    def model_validate(cls, obj: Any, **options: Any) -> Self:
        """Make a model from a mapping, as the constructor does."""
        try:
            return super().model_validate(obj, **options)
        except ValidationError as exc:
            raise InvalidInput(_explain(cls, exc)) from exc

    @classmethod
    def model_validate_json(cls, json_data: str | bytes | bytearray, **options: Any) -> Self:
        """Make a model from JSON, as the constructor does."""
        try:
            return super().model_validate_json(json_data, **options)
        except ValidationError as exc:
            raise InvalidInput(_explain(cls, exc)) from exc


def _explain(model: type[BaseModel], exc: ValidationError) -> str:
    lines = []
    for error in exc.errors(include_url=False):
        field = ".".join(str(part) for part in error["loc"])
        cause = error.get("ctx", {}).get("error")
        if error["type"] == "extra_forbidden":
            known = ", ".join(model.model_fields)
            lines.append(f"{field}: unknown field; there are {known}")  # without its value, which may be a secret
        elif isinstance(cause, InvalidInput):
            lines.append(str(cause).removeprefix(f"{model.__name__}: "))  # a nested model has put it there
        elif "environment" in error["loc"]:  # without its values, which may be secrets
            lines.append(f"{field}: {error['msg']}")
        else:
            lines.append(f"{field}={_checks.shown(error['input'])}: {error['msg']}")
    return f"{model.__name__}: " + "; ".join(lines)


def _path_text(value: Any) -> Any:
    return str(value) if isinstance(value, PurePath) else value


PathText = Annotated[str, BeforeValidator(_path_text)]
"""A path that is passed as `str` or as a `pathlib` path and kept as `str`."""
