"""Metrics with their intervals, and what the report makes of them."""

from __future__ import annotations

import numpy as np
import pytest

from learners.ranking_metrics import (
    bootstrap_by_user,
    fading_mean,
    gain,
    hit,
    list_measures,
    mean_by_user,
    reciprocal,
    windows_of,
    worst_window,
)

RANKS = np.array([0, 1, 19, 20, -1], dtype=np.int32)


def test_metrics_of_known_places() -> None:
    assert hit(RANKS, 20).tolist() == [1, 1, 1, 0, 0]
    assert reciprocal(RANKS, 20).tolist() == [1, 0.5, 0.05, 0, 0]
    assert gain(RANKS, 10).round(4).tolist() == [1, 0.6309, 0, 0, 0]


def test_standard_errors_are_by_user_and_agree_with_the_bootstrap() -> None:
    random = np.random.default_rng(0)
    users = np.repeat(np.arange(300), random.integers(1, 30, size=300)).astype(np.int32)
    taste = random.random(300)
    values = (random.random(len(users)) < taste[users]).astype(np.float64)
    mean = mean_by_user(values, users)
    naive = float(values.std() / np.sqrt(len(values)))
    assert mean.se > 1.5 * naive
    low, high = bootstrap_by_user(values, users, n_draws=2_000, seed=0)
    assert (high - low) / 2 == pytest.approx(1.96 * mean.se, rel=0.15)


def test_the_worst_window_is_found_where_we_are_behind() -> None:
    random = np.random.default_rng(0)
    n = 10_000
    users = random.integers(500, size=n).astype(np.int32)
    theirs = (random.random(n) < 0.3).astype(np.float64)
    ours = (random.random(n) < 0.35).astype(np.float64)
    ours[4_000:6_000] = random.random(2_000) < 0.2
    found = worst_window(ours, theirs, users, 2_000)
    assert found is not None
    window, standard_errors = found
    assert (window.first, window.last) == (4_000, 6_000)
    assert standard_errors < -5
    assert worst_window(ours, ours, users, 2_000) == (windows_of(ours - ours, users, 2_000)[0], 0.0)
    assert worst_window(ours[:0], ours[:0], users[:0], 2_000) is None
    short = worst_window(ours[:300], theirs[:300], users[:300], 2_000)
    assert short is not None
    assert (short[0].first, short[0].last) == (0, 300)


def test_the_worst_window_may_begin_anywhere() -> None:
    """Half of it in one window of consecutive ones and half in the next would hide it."""
    random = np.random.default_rng(1)
    n = 8_000
    users = np.arange(n, dtype=np.int32)
    theirs = (random.random(n) < 0.3).astype(np.float64)
    ours = (random.random(n) < 0.35).astype(np.float64)
    ours[3_000:5_000] = random.random(2_000) < 0.2
    found = worst_window(ours, theirs, users, 2_000)
    assert found is not None
    assert abs(found[0].first - 3_000) <= 200
    consecutive = min(w.mean.value / w.mean.se for w in windows_of(ours - theirs, users, 2_000))
    assert found[1] < consecutive - 1


def test_a_short_last_window_joins_the_one_before() -> None:
    values, users = np.ones(4_500), np.arange(4_500, dtype=np.int32)
    assert [(w.first, w.last) for w in windows_of(values, users, 2_000)] == [(0, 2_000), (2_000, 4_500)]
    assert [w.last for w in windows_of(values[:900], users[:900], 2_000)] == [900]


def test_fading_in_steps_is_fading_event_by_event() -> None:
    values = np.random.default_rng(0).random(1_000)
    places, means = fading_mean(values, 0.99, n_points=37)
    total = weight = 0.0
    expected = {}
    for i, value in enumerate(values, start=1):
        total, weight = 0.99 * total + value, 0.99 * weight + 1.0
        expected[i] = total / weight
    np.testing.assert_allclose(means, [expected[int(place)] for place in places])


def test_what_lists_are_like() -> None:
    lists = np.array([[0, 1], [0, -1]], dtype=np.int32)
    measures = list_measures(
        lists,
        np.array([0.5, 0.25, 0.25, 0.0]),
        np.array([1, -1], dtype=np.int32),
        np.array([0.75, 0.1], dtype=np.float32),
        lambda rows: np.full(len(rows), 0.25),
    )
    assert measures.coverage == 0.5
    assert measures.novelty == pytest.approx((1 + 2 + 1) / 3)
    assert measures.diversity == 0.75
    assert measures.satisfaction == 0.75
