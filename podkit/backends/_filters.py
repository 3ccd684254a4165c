"""The filters of `Backend.list_workloads`, as pure code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from podkit.backends.base import WorkloadRow  # `base` imports this module, for its public names

Filters = Mapping[str, str | Sequence[str]]


def matches(row: WorkloadRow, filters: Filters) -> bool:
    """Whether a row passes the filters of `Backend.list_workloads`."""
    names, labels = filter_values(filters, "name"), filter_values(filters, "label")
    return all(_name_matches(row["name"], wanted) for wanted in names) and all(
        _label_matches(row["labels"], wanted) for wanted in labels
    )


def filter_values(filters: Filters, key: str) -> list[str]:
    """Return the texts of one filter as a list."""
    value = filters.get(key, ())
    return [value] if isinstance(value, str) else list(value)  # a str is a sequence too


def _name_matches(name: str, wanted: str) -> bool:
    if not wanted.startswith("^"):
        return name == wanted
    # all of the engine's pattern language that podkit has: a beginning, or with `$` a whole name
    begin = wanted[1:]
    return name == begin[:-1] if begin.endswith("$") else name.startswith(begin)


def _label_matches(labels: Mapping[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")  # the first one: a value may contain more
    return key in labels and (not equals or labels[key] == value)
