"""The rest between takes: bounded, none when idle or under backlog, in between as load asks for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.transport_pace import FULL_RUN, rest_s

LONGEST_S = 0.02


@given(st.integers(0, 100), st.integers(0, 100_000), st.floats(0, 1))
def test_it_is_bounded_and_falls_with_fuller_runs(n_runs: int, n_records: int, longest_s: float) -> None:
    rest = rest_s(n_runs, n_records, longest_s)
    assert 0.0 <= rest <= longest_s
    assert rest_s(n_runs, n_records + 1, longest_s) <= rest
    assert rest_s(n_runs, n_runs * FULL_RUN, longest_s) == 0.0
    assert rest_s(0, 0, longest_s) == 0.0


def test_one_event_costs_the_next_four_milliseconds_at_most() -> None:
    assert rest_s(1, 1, LONGEST_S) <= 0.004


@pytest.mark.parametrize(
    ("events_per_s", "at_least", "at_most"), [(100, 0, 100), (20_000, 700, 800), (400_000, 600, 2_000)]
)
def test_runs_a_second_stay_affordable(events_per_s: int, at_least: int, at_most: int) -> None:
    """Sixteen partitions of one steady stream; an answer takes 2 ms."""
    now, runs, behind = 0.0, 0, 0.0
    while now < 10.0:
        n = int(behind)
        n_runs = min(16, n)
        runs += n_runs
        behind -= n
        step = 0.002 + rest_s(n_runs, n, LONGEST_S)
        now += step
        behind += events_per_s * step
    assert at_least <= runs / 10.0 <= at_most
