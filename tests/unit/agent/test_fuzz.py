"""A channel whose other end is hostile or broken; `python -m tests.trust.fuzz` sends a million frames."""

from __future__ import annotations

from tests.support.fuzz import default_count, fuzz_agent, fuzz_host


def test_no_frames_from_inside_raise_hang_or_grow() -> None:
    """AG-03."""
    figures = fuzz_host(default_count(20_000), seed=1)

    assert figures.grown_bytes < 32 << 20
    assert figures.longest_seconds < 5
    assert len(figures.ends) > 10  # ways in which a channel broke


def test_no_frames_to_an_agent_hang_it_or_make_it_grow() -> None:
    """AG-03."""
    figures = fuzz_agent(default_count(10_000), seed=1)

    assert figures.longest_seconds < 5
    assert len(figures.ends) > 1
