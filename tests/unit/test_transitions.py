"""Rows by hand, by a dictionary, under eviction, decay and rebase; the ranking view; the baseline."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.markov import FirstOrderMarkov
from learners.transition_kernels import INHERITED, REBASE_HALF_LIVES, Rows, find_keys, lightest
from learners.transitions import GAMMAS, Transitions
from schemas.errors import StateError
from schemas.learner import Contexts, Interactions
from tests.learner_data import T0_MS, contexts_of, interactions, split

HOUR_MS = 3_600_000
HALF_LIFE_MS = 6 * HOUR_MS


def visits(
    items: Sequence[int],
    *,
    weights: Sequence[float] | None = None,
    ts_ms: Sequence[int] | None = None,
    width: int = 10,
) -> Interactions:
    """One user's visits, each with those before it as history."""
    n = len(items)
    history = np.full((n, width), -1, dtype=np.int32)
    for row in range(n):
        before = items[max(0, row - width) : row]
        history[row, width - len(before) :] = before
    return Interactions(
        users=np.zeros(n, dtype=np.int32),
        items=np.array(items, dtype=np.int32),
        types=np.ones(n, dtype=np.int8),
        ts_ms=np.array(ts_ms if ts_ms is not None else [T0_MS] * n, dtype=np.int64),
        weight=np.array(weights if weights is not None else [1.0] * n, dtype=np.float32),
        history=history,
        fresh=np.ones(n, dtype=np.bool_),
        gap_ms=np.full(n, -1, dtype=np.int64),
    )


def weight_of(learner: Transitions, a: int, b: int) -> list[float]:
    """T_c[a -> b] now, for each channel."""
    view = learner.view()
    place = view.nbr[a].tolist().index(b)
    result: list[float] = (view.w[a, place] * view.scale).tolist()
    return result


def context(*items: int, width: int = 10) -> Contexts:
    history = np.array([[-1] * (width - len(items)) + list(items)], dtype=np.int32)
    return Contexts(users=np.array([-1], dtype=np.int32), history=history, now_ms=0)


def test_three_visits_by_hand() -> None:
    learner = Transitions(4)
    learner.learn_many(visits([0, 1, 2], weights=[1.0, 2.0, 3.0]))
    assert weight_of(learner, 0, 1) == [2.0, 2.0, 0.0]
    assert weight_of(learner, 1, 2) == [3.0, 3.0, 0.0]
    assert weight_of(learner, 0, 2) == [0.0, 1.5, 0.0]
    assert weight_of(learner, 1, 0) == [0.0, 0.0, 2.0]
    assert weight_of(learner, 2, 1) == [0.0, 0.0, 3.0]
    assert weight_of(learner, 2, 0) == [0.0, 0.0, 1.5]
    assert learner.touched().items.tolist() == [0, 1, 2]


def test_negatives_repeats_and_itself_add_nothing() -> None:
    learner = Transitions(4)
    batch = visits([0, 1, 2, 1])
    batch.weight[1] = -1.0
    batch.fresh[2] = False
    batch.history[3, -1] = 1  # itself, two visits before
    batch.history[3, :-1] = -1
    learner.learn_many(batch)
    assert not learner.view().rowsum.any()
    assert len(learner.touched().items) == 0


def test_eight_predecessors_count() -> None:
    learner = Transitions(16)
    learner.learn_many(visits(list(range(12)), width=11))
    row = learner.view()
    into_last = {
        a: weight_of(learner, a, 11)[1] for a in range(11) if 11 in row.nbr[a].tolist()
    }  # the last visit has the whole history before it
    assert into_last == pytest.approx({11 - d: 1 / d for d in range(1, 9)})


def _by_dictionary(batch: Interactions, per_ms: float) -> dict[tuple[int, int, int], float]:
    """T_c[a -> b] as of the newest event, plainly."""
    counts: dict[tuple[int, int, int], float] = defaultdict(float)
    positives = [i for i in range(len(batch)) if batch.fresh[i] and batch.weight[i] > 0]
    now = max(int(batch.ts_ms[i]) for i in positives)
    for i in positives:
        x = int(batch.items[i])
        v = float(batch.weight[i]) * 2.0 ** ((int(batch.ts_ms[i]) - now) * per_ms)
        for d in range(1, 9):
            a = int(batch.history[i, -d])
            if a in {-1, x}:
                continue
            counts[a, x, 1] += v / d
            counts[x, a, 2] += v / d
            if d == 1:
                counts[a, x, 0] += v
    return counts


@pytest.mark.parametrize("half_life_ms", [float("inf"), HALF_LIFE_MS, HOUR_MS])
def test_wide_rows_are_exact_across_rebases(half_life_ms: float) -> None:
    batch = interactions(seed=11, n=3_000)
    learner = Transitions(64, half_life_ms=half_life_ms)
    for part in split(batch, 100):
        learner.learn_many(part)
    view = learner.view()
    if half_life_ms == HOUR_MS:
        assert (batch.ts_ms.max() - batch.ts_ms.min()) / HOUR_MS > 2 * REBASE_HALF_LIVES
    expected = _by_dictionary(batch, 1.0 / half_life_ms)
    for (a, b, channel), value in expected.items():
        assert weight_of(learner, a, b)[channel] == pytest.approx(value, rel=1e-4, abs=1e-12)
    entries = (view.nbr[: view.n_items] >= 0).sum()
    assert entries == len({(a, b) for a, b, _ in expected})


def test_a_row_sums_to_its_rowsum_even_after_evictions() -> None:
    batch = interactions(seed=12, n=3_000)
    learner = Transitions(5, half_life_ms=HALF_LIFE_MS)
    learner.learn_many(batch)
    view = learner.view()
    assert (view.nbr[: view.n_items] >= 0).all(axis=1).any()
    np.testing.assert_allclose(view.w.sum(axis=1), view.rowsum, rtol=1e-4)
    filled = view.nbr >= 0
    np.testing.assert_array_equal(np.cumprod(filled, axis=1), filled)  # from the left, for readers
    for row in view.nbr[: view.n_items]:
        assert len(set(row[row >= 0])) == (row >= 0).sum()


def test_the_lightest_neighbour_gives_way() -> None:
    learner = Transitions(2)
    for follower, times in ((1, 3), (2, 1), (3, 1)):
        for _ in range(times):
            learner.learn_many(visits([0, follower]))
    assert set(learner.view().nbr[0].tolist()) == {1, 3}
    assert weight_of(learner, 0, 1)[0] == 3.0
    assert weight_of(learner, 0, 3)[0] == 1.0 + INHERITED  # too high by what it took over, and no more
    assert learner.view().rowsum[0, 0] == 4.0 + INHERITED


def test_a_frequent_follower_cannot_be_crowded_out() -> None:
    learner = Transitions(8)
    rng = np.random.default_rng(0)
    for _ in range(2_000):
        learner.learn_many(visits([0, 1 if rng.random() < 0.3 else int(rng.integers(2, 1_000))]))
    items, scores = learner.neighbours(0, 3)
    assert items[0] == 1
    assert scores[0] > 1.5 * scores[1]
    assert (np.diff(scores) <= 0).all()


def test_an_old_move_weighs_half_after_a_half_life() -> None:
    learner = Transitions(4, half_life_ms=HALF_LIFE_MS)
    learner.learn_many(visits([0, 1], ts_ms=[T0_MS, T0_MS]))
    learner.learn_many(visits([2, 3], ts_ms=[T0_MS + HALF_LIFE_MS] * 2))
    assert weight_of(learner, 0, 1)[0] == pytest.approx(0.5)
    assert weight_of(learner, 2, 3)[0] == pytest.approx(1.0)
    learner.learn_many(visits([4, 5], ts_ms=[T0_MS] * 2))  # late
    assert weight_of(learner, 4, 5)[0] == pytest.approx(0.5)


def test_scores_are_the_documented_equation() -> None:
    batch = interactions(seed=13, n=2_000)
    learner = Transitions(8, half_life_ms=HALF_LIFE_MS, kappa=3.0)
    learner.learn_many(batch)
    contexts = contexts_of(batch)
    view = learner.view()
    items = np.arange(45, dtype=np.int32)
    expected = np.zeros((len(contexts.history), len(items), 3))
    for i, history in enumerate(contexts.history):
        for j in range(8):
            a = history[-1 - j]
            if a < 0:
                continue
            for place, b in enumerate(view.nbr[a]):
                if b >= 0:
                    moved = view.w[a, place] * view.scale
                    expected[i, b] += (
                        np.array(GAMMAS) ** j * moved / (view.rowsum[a] * view.scale + view.kappa)
                    )
    found = learner.predict_channels(contexts, items)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(learner.predict(contexts, items), expected.sum(axis=2), rtol=1e-4, atol=1e-7)
    assert found.max() > 0.05


def test_memory_is_bounded_by_max_items() -> None:
    learner = Transitions(4, max_items=3)
    learner.learn_many(visits([0, 2, 5, 1]))
    assert learner.n_items == 3
    assert 5 not in learner.view().nbr
    assert weight_of(learner, 2, 1)[1] == pytest.approx(0.5)
    assert learner.predict(context(5), np.array([0, 5], dtype=np.int32)).tolist() == [[0.0, 0.0]]


def test_rows_grow_without_losing_anything() -> None:
    learner = Transitions(4)
    learner.learn_many(visits([0, 1]))
    learner.learn_many(visits([5_000, 1]))
    assert weight_of(learner, 0, 1)[0] == weight_of(learner, 5_000, 1)[0] == 1.0


def test_another_half_life_takes_effect_after_a_restore() -> None:
    slow = Transitions(4, half_life_ms=HALF_LIFE_MS)
    slow.learn_many(visits([0, 1]))
    before = weight_of(slow, 0, 1)
    quick = Transitions(4, half_life_ms=HOUR_MS)
    quick.restore(slow.snapshot())
    assert weight_of(quick, 0, 1) == pytest.approx(before)
    quick.learn_many(visits([2, 3], ts_ms=[T0_MS + HOUR_MS] * 2))
    assert weight_of(quick, 0, 1)[0] == pytest.approx(before[0] / 2)


def test_another_width_is_refused() -> None:
    with pytest.raises(StateError, match="nbr"):
        Transitions(8).restore(Transitions(4).snapshot())


def test_what_is_touched_survives_a_restart() -> None:
    learner, twin = Transitions(4), Transitions(4)
    learner.learn_many(visits([0, 1]))
    twin.restore(learner.snapshot())
    assert twin.touched().items.tolist() == [0, 1]


@pytest.mark.parametrize(
    "wrong", [{"width": 0}, {"half_life_ms": 0.0}, {"kappa": 0.0}, {"n_lags": 0}, {"max_items": 0}]
)
def test_wrong_parameters_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="positive"):
        Transitions(**wrong)


def test_unknown_items_have_no_neighbours() -> None:
    items, scores = Transitions(4).neighbours(3, 5)
    assert (len(items), len(scores)) == (0, 0)


def test_markov_lists_the_most_counted_successors_of_the_newest_item() -> None:
    chain = FirstOrderMarkov(8)
    for items in ([0, 1, 2], [0, 2], [0, 2], [0, 3], [1, 0]):
        chain.learn_many(visits(items))
    asked = Contexts(
        users=np.full(3, -1, dtype=np.int32),
        history=np.array([[-1, 3, 0], [-1, -1, 9], [-1, -1, -1]], dtype=np.int32),
        now_ms=0,
    )
    assert chain.top(asked, 5).tolist() == [[2, 1, 3, -1, -1], [-1] * 5, [-1] * 5]
    assert chain.top(asked, 2)[0].tolist() == [2, 1]
    shares = chain.predict(asked, np.array([2, 1, 3, 7], dtype=np.int32))
    np.testing.assert_allclose(shares[0], [0.5, 0.25, 0.25, 0.0])
    assert not shares[1:].any()


def test_markov_ignores_negatives_repeats_and_weights() -> None:
    chain = FirstOrderMarkov(8)
    batch = visits([0, 1, 2, 3], weights=[1.0, -1.0, 0.3, 2.0])
    batch.fresh[2] = False
    chain.learn_many(batch)
    assert chain.top(context(2), 2)[0].tolist() == [3, -1]
    assert chain.top(context(1), 2)[0].tolist() == [-1, -1]
    assert chain.touched().items.tolist() == [2]


def test_markov_rows_are_bounded() -> None:
    chain = FirstOrderMarkov(2, max_items=50)
    for follower in (1, 1, 2, 3, 60):
        chain.learn_many(visits([0, follower]))
    assert chain.top(context(0), 5)[0].tolist() == [1, 3, -1, -1, -1]
    with pytest.raises(ValueError, match="positive"):
        FirstOrderMarkov(0)


@settings(deadline=None)  # the first call compiles
@given(st.lists(st.sampled_from([0.0, -0.0, 1.5, 1e-30, 3e38, -2.0, 0.25]), min_size=3, max_size=60))
def test_the_lightest_is_the_first_of_the_least_totals(weights: list[float]) -> None:
    w = np.array(weights[: len(weights) // 3 * 3], dtype=np.float32).reshape(-1, 3)
    with np.errstate(over="ignore"):
        totals = w[:, 0] + w[:, 1] + w[:, 2]
    n = len(w)
    rows = Rows(
        nbr=np.zeros((1, n), dtype=np.int32),
        w=w[None].copy(),
        rowsum=np.zeros((1, 3), dtype=np.float32),
        filled=np.full(1, n, dtype=np.int32),
        dirty=np.zeros(1, dtype=np.bool_),
        stale=np.ones(1, dtype=np.bool_),
        keys=np.zeros((1, n), dtype=np.int32),
    )
    find_keys(np.zeros(1, dtype=np.int32), rows)
    assert lightest(rows.keys[0]) == int(totals.argmin())
