"""Scoring takes no more time than events have earned."""

from __future__ import annotations

import pytest

from streams.scoring_budget import FREE_SHARE, MOST_SAVED_S, ScoringBudget


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def played(
    us_per_event: float, cost_s: float, gap_s: float, n: int = 4_000, size: int = 100
) -> ScoringBudget:
    """`n` micro-batches of `size` events, `gap_s` apart, each of which would cost `cost_s` to score."""
    clock = Clock()
    budget = ScoringBudget(us_per_event, clock, spent=clock)
    for _ in range(4_000):
        clock.now_s += gap_s
        if budget.offer(100):
            with budget.spending():
                clock.now_s += cost_s
    return budget


def test_what_is_spent_is_what_was_earned() -> None:
    budget = played(10.0, cost_s=0.004, gap_s=0.0)
    earned_s = 4_000 * 100 * 10e-6
    assert budget.spent_s == pytest.approx(earned_s / (1 - FREE_SHARE), rel=0.02)
    assert budget.share == pytest.approx(1e-3 / 0.004 / (1 - FREE_SHARE), rel=0.02)


def test_all_is_scored_where_it_is_cheap() -> None:
    assert played(50.0, cost_s=0.004, gap_s=0.0).share == 1.0


def test_all_is_scored_where_few_events_come() -> None:
    assert played(0.0, cost_s=0.004, gap_s=0.004 / FREE_SHARE).share == 1.0


def test_a_pause_does_not_save_up_for_long() -> None:
    clock = Clock()
    budget = ScoringBudget(0.0, clock, spent=clock)
    budget.offer(1)
    clock.now_s = 3_600.0
    spent = 0
    while budget.offer(1):
        with budget.spending():
            clock.now_s += 0.01
        spent += 1
    assert spent * 0.01 <= MOST_SAVED_S * (1 + 2 * FREE_SHARE) + 0.01


def test_what_is_not_wanted_earns_and_counts() -> None:
    clock = Clock()
    budget = ScoringBudget(1_000.0, clock, spent=clock)
    assert not budget.offer(10, wanted=False)
    assert budget.share == 0.0
    assert budget.offer(10)
    assert budget.share == pytest.approx(0.5, rel=1e-3)
