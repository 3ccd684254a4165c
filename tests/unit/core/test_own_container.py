"""The container that podkit runs in: its networks, and what its mounts say of paths."""

from __future__ import annotations

import pytest

from podkit.core._own_container import own_container_candidates, parent_networks, parent_workload, seen_by_engine
from podkit.testing import FakeBackend
from tests.unit.support import make_info, make_spec

PARENT = make_info(
    networks=("front", "host", "none", "back"),
    mounts=(("/srv/data", "/data"), ("/srv/special", "/data/special"), ("", "/data/tmpfs"), ("/", "/host")),
)


def test_outside_of_a_container_nothing_is_translated_or_joined() -> None:
    assert parent_networks(None) == []
    assert seen_by_engine("/data/x", None) == "/data/x"


def test_the_networks_of_the_host_and_of_nobody_are_not_joined() -> None:
    assert parent_networks(PARENT) == ["front", "back"]


@pytest.mark.parametrize(
    ("ours", "engines"),
    [
        ("/data", "/srv/data"),
        ("/data/a/b", "/srv/data/a/b"),
        ("/data/special/x", "/srv/special/x"),
        ("/data-evil/x", "/data-evil/x"),
        ("/database", "/database"),
        ("/elsewhere", "/elsewhere"),
        ("/host/etc", "/etc"),
    ],
)
def test_a_path_is_translated_by_the_innermost_mount(ours: str, engines: str) -> None:
    assert seen_by_engine(ours, PARENT) == engines


def test_the_order_of_the_mounts_does_not_matter() -> None:
    turned = make_info(mounts=tuple(reversed(PARENT.mounts)))
    assert seen_by_engine("/data/special/x", turned) == "/srv/special/x"


def test_a_process_in_no_container_of_this_engine_has_no_parent(fake: FakeBackend) -> None:
    assert parent_workload(fake) is None


def test_a_process_finds_the_container_that_it_runs_in(fake: FakeBackend) -> None:
    candidates = own_container_candidates()
    if not candidates:
        pytest.skip("these tests do not run in a container")
    fake.create_workload(make_spec(candidates[-1]))
    parent = parent_workload(fake)
    assert parent is not None
    assert parent.name == candidates[-1]
