"""The rest between takes: bounded, none when idle or under backlog, in between as load asks for it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.transport_pace import FULL_RUN, rest_s

LONGEST_S = 0.02


@given(st.integers(0, 100), st.integers(0, 100_000), st.floats(0, 1))
def test_it_is_bounded_and_full_runs_wait_for_nothing(n_runs: int, n_records: int, longest_s: float) -> None:
    rest = rest_s(n_runs, n_records, longest_s)
    assert 0.0 <= rest <= longest_s
    assert n_records < n_runs * FULL_RUN or rest == 0.0
    assert rest_s(n_runs, n_runs * FULL_RUN, longest_s) == 0.0
    assert rest_s(0, 0, longest_s) == 0.0


def test_one_event_costs_the_next_some_four_milliseconds() -> None:
    assert rest_s(1, 1, LONGEST_S) <= 0.0041


def test_runs_rest_longer_as_they_fill_and_less_again_when_they_are_nearly_full() -> None:
    rests = [rest_s(4, 4 * n, 1.0) for n in (1, 50, 150, 220)]
    assert rests == sorted(rests)
    assert rests[-1] > 1.7 * rests[0]
    rests = [rest_s(4, 4 * n, 1.0) for n in (220, 350, 450, 500)]
    assert rests == sorted(rests, reverse=True)
    assert rests[-1] < 0.003


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
