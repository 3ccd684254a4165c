"""Whether podkit runs in a container itself, and which one that is; true on any machine."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest

from podkit.core._own_container import own_container_candidates
from podkit.utils.network import get_parent_container_networks

INSIDE = Path("/.dockerenv").exists() or Path("/run/.containerenv").exists()


def test_outside_of_a_container_there_are_no_candidates() -> None:
    assert bool(own_container_candidates()) is INSIDE


def test_the_host_name_is_the_last_candidate_and_all_others_are_full_ids() -> None:
    candidates = own_container_candidates() or [socket.gethostname()]
    assert candidates[-1] == socket.gethostname()
    assert all(re.fullmatch("[0-9a-f]{64}", candidate) for candidate in candidates[:-1])


def test_a_candidate_is_named_once() -> None:
    candidates = own_container_candidates()
    assert len(candidates) == len(set(candidates))


def test_without_an_engine_there_are_no_parents_networks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert get_parent_container_networks() == []
