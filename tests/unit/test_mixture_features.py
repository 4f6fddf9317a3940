"""The mixture's features against plain arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from learners.blend_kernels import BLOCKED, Rows
from learners.mixture_features import (
    N_SOURCES,
    Embedded,
    Sums,
    fill_embedded,
    fill_history,
    fill_newest,
    fill_products,
    fill_sums,
)
from learners.neighbour_rows import NeighbourRows

N_ITEMS = 12
BASE = 1 << 16
KAPPA = 5.0
IDS = np.array([3, 7, 1, 9, 4], dtype=np.int32)
PAST = np.array([-1, 4, 3, 2], dtype=np.int32)  # the newest is 2, which may not be shown


def features() -> Any:
    """Room for the features of the candidates, holding another user's."""
    return np.full((N_SOURCES, 8), 9.0, dtype=np.float32)


def places() -> Any:
    """Item -> place among the candidates, and item 2 blocked."""
    slot = np.zeros(N_ITEMS, dtype=np.int32)
    slot[IDS] = BASE + np.arange(len(IDS), dtype=np.int32)
    slot[2] = BASE + BLOCKED
    return slot


def rows_of_transitions(rng: np.random.Generator) -> Rows:
    nbr = np.full((N_ITEMS, 4), -1, dtype=np.int32)
    nbr[2, :3] = [7, 1, 5]  # 5 is no candidate
    w = rng.random((N_ITEMS, 4, 3)).astype(np.float32)
    return Rows(
        nbr=nbr, w=w, rowsum=w.sum(axis=1), gammas=np.array([0.4, 0.6, 0.7], dtype=np.float32),
        kappa=KAPPA, scale=0.5, n_last=8,
    )  # fmt: skip


def rows_of_cooccurrence(rng: np.random.Generator) -> NeighbourRows:
    nbr = np.full((N_ITEMS, 4), -1, dtype=np.int32)
    nbr[2, :2] = [9, 7]
    w = rng.random((N_ITEMS, 4)).astype(np.float32)
    return NeighbourRows(nbr, w, rng.random(N_ITEMS).astype(np.float32), 0.95)


def log1p(value: Any) -> Any:
    return np.log1p(np.asarray(value, dtype=np.float64))


def test_transitions_are_told_as_they_are_and_against_the_best() -> None:
    rng = np.random.default_rng(1)
    moves = (rng.random((N_ITEMS, 3)) * 0.2).astype(np.float32)
    moves[:, 2] = 0.0  # a channel that knows nothing of anyone
    near, linear, norm = (rng.random(N_ITEMS).astype(np.float32) for _ in range(3))
    x = features()
    fill_sums(len(IDS), IDS, np.float32(0.8), norm, Sums(moves, near, linear), x)
    found = x[:, : len(IDS)]
    np.testing.assert_allclose(found[0:3], log1p(1e4 * moves[IDS].T), atol=1e-3)
    np.testing.assert_allclose(
        found[18:20], (moves[IDS] / moves[IDS].max(axis=0).clip(1e-9))[:, :2].T, rtol=1e-5
    )
    assert (found[20] == 0.0).all()
    np.testing.assert_allclose(found[11], near[IDS] * norm[IDS] / 0.8, rtol=1e-5)


@pytest.mark.parametrize("n", [3, 0])
def test_the_newest_item_alone_is_told_of_candidates_only(n: int) -> None:
    rng = np.random.default_rng(2)
    moves, near = rows_of_transitions(rng), rows_of_cooccurrence(rng)
    past = PAST if n else np.full(4, -1, dtype=np.int32)
    x = features()
    fill_newest(len(IDS), past, n, moves, near, BASE, places(), x)
    expected = np.zeros((4, len(IDS)))
    if n:
        at = {int(item): place for place, item in enumerate(IDS)}
        for k, item in ((0, 7), (1, 1)):
            share = 0.5 * moves.w[2, k] / (moves.rowsum[2] * 0.5 + KAPPA)
            expected[0:2, at[item]] = log1p(1e4 * share[1:])
        cosine = {
            9: near.norm[2] * near.w[2, 0] * near.norm[9],
            7: near.norm[2] * near.w[2, 1] * near.norm[7],
        }
        for item, value in cosine.items():
            expected[2, at[item]] = log1p(1e3 * value)
            expected[3, at[item]] = value / max(cosine.values())
    np.testing.assert_allclose(x[22:26, : len(IDS)], expected, rtol=1e-3, atol=1e-4)


def test_the_encoder_is_told_against_its_best_and_says_nothing_of_items_it_does_not_know() -> None:
    rng = np.random.default_rng(3)
    matrix = rng.normal(size=(9, 4)).astype(np.float32)  # items 9 and later have no vector
    vector = rng.normal(size=(1, 4)).astype(np.float32)
    embedded = Embedded(
        vectors=vector, matrix=matrix, support=np.full(9, 20, dtype=np.int32),
        top=np.zeros((1, 0), dtype=np.int32), log_z=np.array([2.0], dtype=np.float32), log_n=2.5,
    )  # fmt: skip
    x, logit = features(), np.zeros(8, dtype=np.float32)
    fill_embedded(0, len(IDS), True, IDS, embedded, x, logit)
    known = IDS < 9
    scores = matrix[IDS[known]] @ vector[0]
    np.testing.assert_allclose(x[8, : len(IDS)][known], scores + 0.5, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(x[21, : len(IDS)][known], np.exp(scores - scores.max()), rtol=1e-4)
    assert (x[[8, 9, 21], : len(IDS)][:, ~known] == 0.0).all()
    fill_embedded(0, len(IDS), False, IDS, embedded, x, logit)
    assert (x[[8, 9, 21], : len(IDS)] == 0.0).all()


def test_what_was_visited_before_is_told_by_when_and_how_often() -> None:
    past = np.array([-1, 3, 9, 3, 4], dtype=np.int32)
    x = features()
    fill_history(len(IDS), past, 4, BASE, places(), x)
    found = x[:, : len(IDS)]
    np.testing.assert_array_equal(found[14], np.isin(IDS, past))
    np.testing.assert_allclose(found[15], [1 / 2, 0, 0, 1 / 3, 1])
    np.testing.assert_allclose(found[17], log1p([2, 0, 0, 1, 1]), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[26], IDS == 4)
    np.testing.assert_array_equal(found[27], IDS == 3)


def test_products_are_of_what_was_filled() -> None:
    rng = np.random.default_rng(4)
    x = rng.normal(size=(N_SOURCES, 8)).astype(np.float32)
    before = x.copy()
    fill_products(5, x)
    x0, x1, x8, x10 = before[0], before[1], before[8], before[10]
    expected = np.stack([x0 * x8 / 10, x8 * x10 / 10, x1 * x10 / 10, x8 * x8 / 20])
    np.testing.assert_allclose(x[28:32, :5], expected[:, :5], rtol=1e-5)
    np.testing.assert_array_equal(x[:28], before[:28])
    np.testing.assert_array_equal(x[28:, 5:], before[28:, 5:])
