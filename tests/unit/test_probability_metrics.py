"""Figures of probabilities, against their definitions."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from learners.probability_metrics import (
    WINDOW,
    auc,
    best_threshold,
    calibration_error,
    decided,
    log_loss,
    reliability,
    repeats_of,
    score_decisions,
    user_auc,
)


def _by_pairs(y: np.ndarray, scores: np.ndarray) -> float:
    pairs = [1.0 if a > b else 0.5 if a == b else 0.0 for a, b in product(scores[y == 1], scores[y == 0])]
    return float(np.mean(pairs))


def _drawn(n: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    y = random.integers(0, 2, n).astype(np.int8)
    return y, random.integers(0, 12, n) / 12.0, random.integers(0, 9, n).astype(np.int32)


def test_auc_counts_pairs_and_ties_as_half() -> None:
    y, scores, _ = _drawn(200)
    assert auc(y, scores) == pytest.approx(_by_pairs(y, scores))
    assert np.isnan(auc(np.ones(3, np.int8), scores[:3]))


def test_user_auc_weighs_users_with_both_kinds_by_their_impressions() -> None:
    y, scores, users = _drawn(120)
    y[users == 4] = 1
    parts = [(users == u, int((users == u).sum())) for u in range(9) if u != 4]
    expected = np.average([_by_pairs(y[m], scores[m]) for m, _ in parts], weights=[n for _, n in parts])
    assert user_auc(y, scores, users) == pytest.approx(float(expected))
    order = np.random.default_rng(1).permutation(120)
    assert user_auc(y[order], scores[order], users[order]) == pytest.approx(float(expected))


def test_log_loss_and_calibration() -> None:
    y = np.array([1, 0, 1, 1], dtype=np.int8)
    p = np.array([0.9, 0.2, 0.6, 0.61])
    assert log_loss(y, p) == pytest.approx(-np.mean(np.log([0.9, 0.8, 0.6, 0.61])))
    bins = reliability(y, p)
    assert [one.n for one in bins] == [1, 2, 1]
    assert calibration_error(bins) == pytest.approx((0.1 + 0.2 + 0.39 + 0.4) / 4)


def test_the_best_threshold_is_the_best_of_all() -> None:
    y, scores, _ = _drawn(60)
    found = score_decisions(y, scores >= best_threshold(y, scores)).f1
    assert found == pytest.approx(max(score_decisions(y, scores >= cut).f1 for cut in scores))


def test_no_decision_uses_its_own_window() -> None:
    y, p, _ = _drawn(2 * WINDOW)
    decisions, has_one = decided(y, p)
    assert not has_one[:WINDOW].any()
    assert has_one[WINDOW:].all()
    y[WINDOW:] = 1 - y[WINDOW:]
    np.testing.assert_array_equal(decisions, decided(y, p)[0])


def test_repeats_are_of_the_users_previous_item() -> None:
    users = np.array([1, 2, 1, 1, 2], dtype=np.int32)
    items = np.array([5, 5, 5, 6, 5], dtype=np.int32)
    assert repeats_of(users, items).tolist() == [False, False, True, False, True]
