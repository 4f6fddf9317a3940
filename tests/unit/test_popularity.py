"""Decayed shares against a plain sum, the cached orders, and their bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from learners.popularity import Popularity
from schemas.errors import StateError
from schemas.learner import Contexts, Interactions
from tests.learner_data import T0_MS, interactions, split

HOUR_MS = 3_600_000.0
HALF_LIVES_MS = (HOUR_MS, 24 * HOUR_MS, float("inf"))


def visits(items: Any, ts_ms: Any = T0_MS) -> Interactions:
    items = np.asarray(items, dtype=np.int32)
    n = len(items)
    return Interactions(
        users=np.zeros(n, dtype=np.int32),
        items=items,
        types=np.ones(n, dtype=np.int8),
        ts_ms=np.broadcast_to(np.asarray(ts_ms, dtype=np.int64), (n,)).copy(),
        weight=np.full(n, 0.5, dtype=np.float32),
        history=np.full((n, 4), -1, dtype=np.int32),
        fresh=np.ones(n, dtype=np.bool_),
        gap_ms=np.full(n, -1, dtype=np.int64),
    )


def test_shares_are_the_decayed_counts_of_fresh_positives() -> None:
    batch = interactions(seed=21, n=4_000)
    learner = Popularity(HALF_LIVES_MS)
    for part in split(batch, 100):
        learner.learn_many(part)
    positive = batch.fresh & (batch.weight > 0)
    now = batch.ts_ms[positive].max()
    assert (now - batch.ts_ms.min()) / HOUR_MS > 128  # two rebases of the shortest half-life
    for which, half_life in enumerate(HALF_LIVES_MS):
        v = 2.0 ** ((batch.ts_ms[positive] - now) / half_life)
        counts = np.bincount(batch.items[positive], weights=v, minlength=len(learner.shares(which)))
        np.testing.assert_allclose(learner.shares(which), counts / counts.sum(), rtol=1e-5, atol=1e-12)
    everyone = np.arange(len(counts), dtype=np.int32)
    np.testing.assert_array_equal(
        learner.share_of(everyone), np.stack([learner.shares(which) for which in range(3)], axis=1)
    )


def test_unknown_items_and_a_cold_start_have_no_share() -> None:
    learner = Popularity(HALF_LIVES_MS)
    asked = np.array([0, -1, 10**6], dtype=np.int32)
    assert not learner.share_of(asked).any()
    assert learner.shares().shape == (0,)
    assert learner.top(3).tolist() == [-1, -1, -1]
    learner.learn_many(visits([0]))
    assert learner.share_of(asked)[:, 0].tolist() == [1.0, 0.0, 0.0]


def test_the_same_scores_for_everyone() -> None:
    learner = Popularity(HALF_LIVES_MS)
    learner.learn_many(visits([0, 1, 1, 1]))
    nobody = Contexts(
        users=np.full(2, -1, dtype=np.int32), history=np.full((2, 4), -1, dtype=np.int32), now_ms=0
    )
    scores = learner.predict(nobody, np.array([1, 0], dtype=np.int32))
    assert scores.tolist() == [[0.75, 0.25], [0.75, 0.25]]


def test_the_new_passes_the_old_sooner_at_the_shorter_half_life() -> None:
    learner = Popularity((HOUR_MS, 24 * HOUR_MS))
    learner.learn_many(visits([0] * 6, T0_MS))
    learner.learn_many(visits([1] * 3, T0_MS + 3 * int(HOUR_MS)))
    assert learner.top(2, 0).tolist() == [1, 0]
    assert learner.top(2, 1).tolist() == [0, 1]


def test_of_equals_the_item_met_first_comes_first() -> None:
    learner = Popularity((HOUR_MS,))
    learner.learn_many(visits([5, 3, 4]))
    assert learner.top(5).tolist() == [3, 4, 5, -1, -1]


@pytest.mark.parametrize("k", [1, 100, 512, 700])
def test_orders_are_right_and_at_most_so_old(k: int) -> None:
    rng = np.random.default_rng(0)
    learner = Popularity((HOUR_MS, float("inf")))
    n_items = 3_000
    for _ in range(60):
        learner.learn_many(
            visits((rng.zipf(1.1, 256) % n_items).astype(np.int32), T0_MS + rng.integers(0, 10**7, 256))
        )
    # 256 events a batch: the order was renewed at the end of the last one.
    for which in (0, 1):
        shares = learner.shares(which)
        order = np.argsort(-learner._counts[: learner._n_items, which], kind="stable")
        top = learner.top(k, which)
        np.testing.assert_array_equal(top, order[:k])
        assert (np.diff(shares[top]) <= 0).all()


@pytest.mark.parametrize("k", [1, 100, 400, 700])
@pytest.mark.parametrize("n_withdrawn", [0, 30, 500, 2_500])
def test_withdrawn_items_are_left_out_and_made_up_for(k: int, n_withdrawn: int) -> None:
    rng = np.random.default_rng(0)
    learner = Popularity((HOUR_MS, float("inf")))
    for _ in range(60):
        items = (rng.zipf(1.1, 256) % 3_000).astype(np.int32)
        learner.learn_many(visits(items, T0_MS + rng.integers(0, 10**7, 256)))
    for which in (0, 1):
        counts = learner._counts[: learner._n_items, which]
        order = np.argsort(-counts, kind="stable")
        withdrawn = np.zeros(int(order[:n_withdrawn].max(initial=-1)) + 1, dtype=np.bool_)
        withdrawn[order[:n_withdrawn]] = True
        left = order[n_withdrawn:][counts[order[n_withdrawn:]] > 0][:k]
        for found in (
            learner.top(k, which, withdrawn=withdrawn),
            learner.best(k, which, withdrawn=withdrawn),
        ):
            assert len(found) == k
            assert found[found >= 0].tolist() == left.tolist()


def test_asking_changes_no_later_answer() -> None:
    batch = interactions(seed=22, n=2_000)
    asked, quiet = Popularity(HALF_LIVES_MS), Popularity(HALF_LIVES_MS)
    for part in split(batch, 64):
        asked.learn_many(part)
        asked.top(10)
        asked.top(600, 1)
        quiet.learn_many(part)
    for which in range(3):
        np.testing.assert_array_equal(asked.top(600, which), quiet.top(600, which))


def test_a_list_is_the_callers_own() -> None:
    learner = Popularity((HOUR_MS,))
    learner.learn_many(visits([0, 1, 1]))
    learner.top(2)[:] = 77
    assert learner.top(2).tolist() == [1, 0]


def test_items_beyond_the_maximum_are_not_counted() -> None:
    learner = Popularity((HOUR_MS,), max_items=2)
    learner.learn_many(visits([0, 1, 7]))
    assert learner.shares().tolist() == [0.5, 0.5]


def test_other_half_lives_are_refused() -> None:
    with pytest.raises(StateError, match="half-lives"):
        Popularity((HOUR_MS,)).restore(Popularity((2 * HOUR_MS,)).snapshot())


@pytest.mark.parametrize("wrong", [(), (0.0,), (HOUR_MS, -1.0)])
def test_wrong_half_lives_are_refused(wrong: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="half_lives_ms"):
        Popularity(wrong)
