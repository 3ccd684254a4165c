"""The seam: how many methods it has, and how a listing is filtered."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from podkit.backends.base import Backend, WorkloadRow, matches
from podkit.core.models import ContainerStatus

ROW = WorkloadRow(
    id="f" * 64, name="unit-bob-1", status=ContainerStatus.RUNNING, labels={"podkit.prefix": "unit", "empty": ""}
)


def test_the_seam_has_at_most_twelve_methods() -> None:
    methods = [name for name, _ in inspect.getmembers(Backend, inspect.isfunction) if not name.startswith("_")]
    assert len(methods) <= 12


def test_every_method_of_the_seam_says_what_it_promises() -> None:
    assert all(method.__doc__ for name, method in vars(Backend).items() if not name.startswith("_"))


@pytest.mark.parametrize(
    ("filters", "passes"),
    [
        ({}, True),
        ({"name": "unit-bob-1"}, True),
        ({"name": "unit-bob"}, False),
        ({"name": "bob"}, False),
        ({"name": "^unit-"}, True),
        ({"name": "^unit-bob-1"}, True),
        ({"name": "^nit-"}, False),
        ({"name": "^unit-bob-1$"}, True),
        ({"name": "^unit-bob$"}, False),
        ({"name": "^unit.bob"}, False),
        ({"name": ["^unit-", "unit-bob-1"]}, True),
        ({"name": ["^unit-", "^other-"]}, False),
        ({"label": "podkit.prefix=unit"}, True),
        ({"label": "podkit.prefix=uni"}, False),
        ({"label": "podkit.prefix"}, True),
        ({"label": "podkit"}, False),
        ({"label": "empty="}, True),
        ({"label": "missing="}, False),
        ({"label": ["podkit.prefix=unit", "empty"]}, True),
        ({"label": ["podkit.prefix=unit", "missing"]}, False),
        ({"label": "podkit.prefix=unit", "name": "^other-"}, False),
        ({"label": [], "name": []}, True),
    ],
    ids=str,
)
def test_a_listing_is_filtered_exactly(filters: Any, passes: bool) -> None:
    assert matches(ROW, filters) is passes


def test_a_labels_value_may_itself_hold_an_equals_sign() -> None:
    row = ROW | WorkloadRow(id="", name="x", status=ContainerStatus.EXITED, labels={"user": "a=b"})
    assert matches(row, {"label": "user=a=b"})  # type: ignore[arg-type]  # a union of typed dicts is a dict
    assert not matches(row, {"label": "user=a"})  # type: ignore[arg-type]
