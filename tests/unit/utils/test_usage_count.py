"""What is under way is counted, and nothing else."""

from __future__ import annotations

from podkit.utils._usage_count import UsageCount
from tests.support.interrupts import interrupt


def test_there_are_uses_until_the_last_one_has_ended() -> None:
    uses = UsageCount()
    with uses.counted():
        with uses.counted():
            assert uses
        assert uses
    assert not uses


def test_no_use_stays_counted_at_whatever_moment_a_signals_handler_raises() -> None:
    uses = UsageCount()

    def use() -> None:
        with uses.counted():
            pass

    moment = 1
    while where := interrupt(use, moment):
        assert not uses, where
        moment += 1
    assert moment > 5
