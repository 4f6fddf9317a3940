"""The baselines do what they say, on streams small enough to count by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from benchmarks.quality.contenders.counting import ItemNeighbours, Markov
from benchmarks.quality.contenders.pair_counts import _Matrix, _Table
from benchmarks.quality.contenders.popularity import DAY_MS, Popular
from benchmarks.quality.contenders.refits import Ease, Refitted
from benchmarks.quality.contenders.river_models import River
from benchmarks.quality.contenders.sasrec import windows
from benchmarks.quality.contenders.scoring import Room
from benchmarks.quality.field import BASELINES
from benchmarks.quality.figures import figure_of, gains_of
from learners.prequential import Asked
from schemas.learner import Contexts, Interactions
from schemas.runs import Float32, Int32, Int64

ROOM = Room(30, 12)


def batch_of(users: Int32, items: Int32, ts_ms: Int64 | None = None) -> Interactions:
    n, recent = len(users), np.full((ROOM.n_users, 50), -1, dtype=np.int32)
    history = np.empty((n, 50), dtype=np.int32)
    for i, (user, item) in enumerate(zip(users, items, strict=True)):
        history[i] = recent[user]
        recent[user] = np.append(recent[user][1:], item)
    return Interactions(
        users=users, items=items, types=np.zeros(n, np.int8), weight=np.ones(n, np.float32),
        ts_ms=np.arange(n, dtype=np.int64) if ts_ms is None else ts_ms, history=history,
        fresh=np.ones(n, np.bool_), gap_ms=np.zeros(n, np.int64),
    )  # fmt: skip


def asked_of(last: list[int], targets: list[int]) -> Asked:
    history = np.full((len(last), 50), -1, dtype=np.int32)
    history[:, -1] = last
    return Asked(
        contexts=Contexts(users=np.arange(len(last), dtype=np.int32), history=history, now_ms=0),
        ts_ms=np.zeros(len(last), np.int64), targets=np.array(targets, np.int32),
        seen=np.zeros((len(last), 0), np.int32), n_items=ROOM.n_items,
    )  # fmt: skip


def ints(*values: int) -> Int32:
    return np.array(values, dtype=np.int32)


def cycles(n_users: int = 30) -> Interactions:
    """Everyone watches 0, 1, ..., 11 in order, from a place of their own."""
    users = np.repeat(np.arange(n_users, dtype=np.int32), 12)
    items = ((np.arange(len(users)) + users) % 12).astype(np.int32)
    return batch_of(users, items)


def test_popularity_halves_in_a_half_life() -> None:
    popular = Popular(ROOM, 1.0)
    times = np.array([0, DAY_MS, DAY_MS], dtype=np.int64)
    popular.learn(batch_of(ints(0, 1, 2), ints(3, 4, 5), times))
    assert popular.now(6)[3:] == pytest.approx([0.2, 0.4, 0.4])


def test_ties_count_against_the_target() -> None:
    popular = Popular(ROOM)
    popular.learn(batch_of(ints(0, 1), ints(3, 4)))
    assert popular.ranks(asked_of([-1, -1], [3, 7])).tolist() == [1, 11]


def test_the_next_of_a_cycle_comes_first() -> None:
    markov = Markov(ROOM)
    markov.learn(cycles())
    assert markov.ranks(asked_of([1, 11], [2, 0])).tolist() == [0, 0]


class Noted(Refitted):
    """Notes of how much it was fitted."""

    def __init__(self, **options: float) -> None:
        super().__init__(ROOM, **options)  # type: ignore[arg-type]
        self.fitted: list[int] = []

    def fit(self, users: Int32, items: Int32) -> None:
        self.fitted.append(len(users))

    def fitted_scores(self, asked: Asked) -> Float32:
        return np.zeros((len(asked.targets), asked.n_items), dtype=np.float32)


def test_fits_that_nobody_asks_for_are_left_out() -> None:
    all_asked, last_asked = (Noted(growth=1e9, most=1_440) for _ in range(2))
    for _ in range(12):  # of 360 events each
        for noted in (all_asked, last_asked):
            noted.learn(cycles())
        all_asked.scores(asked_of([1], [2]))
    last_asked.learn(cycles())
    last_asked.scores(asked_of([1], [2]))
    assert all_asked.fitted == [1_080, 1_440, 2_880, 4_320]
    assert last_asked.fitted == [4_320], "as it was when it was due, not as it is when it is asked"


def test_fits_come_at_every_growth_by_a_quarter() -> None:
    noted = Noted()
    for _ in range(10):
        noted.learn(cycles())
        noted.scores(asked_of([1], [2]))
    assert noted.fitted == [1_080, 1_440, 1_800, 2_520, 3_240]


def two_tastes() -> tuple[Int32, Int32]:
    """Even users have items 0 to 4, odd ones 6 to 10."""
    users = np.repeat(np.arange(30, dtype=np.int32), 5)
    return users, (np.tile(np.arange(5), 30) + np.where(users % 2, 6, 0)).astype(np.int32)


def test_neighbours_are_of_the_same_taste() -> None:
    neighbours = ItemNeighbours(ROOM)
    neighbours.learn(batch_of(*two_tastes()))
    scores = neighbours.scores(asked_of([0], [1]))[0]
    assert scores[1:5].min() > scores[6:11].max()


def test_table_and_matrix_of_pairs_agree() -> None:
    rng = np.random.default_rng(0)
    matrix, table = _Matrix(500), _Table(500)
    for _ in range(4):
        a, b = rng.integers(0, 500, (2, 40_000)).astype(np.int32)
        weight = rng.integers(1, 4, 40_000).astype(np.float32)
        matrix.add(a, b, weight)
        table.add(a, b, weight)
    rows = rng.integers(-1, 500, (20, 3)).astype(np.int32)
    ones = np.ones(rows.shape, np.float32)
    assert np.array_equal(matrix.mixed(rows, ones, 450), table.mixed(rows, ones, 450))


def test_ease_is_its_closed_form() -> None:
    ease = Ease(Room(4, 3), lam=2.0, decay=0.5)
    ease.fit(ints(0, 0, 1, 1, 2, 3), ints(0, 1, 0, 1, 2, 1))
    P = np.linalg.inv(np.array([[2.0, 2, 0], [2, 3, 0], [0, 0, 1]]) + 2.0 * np.eye(3))
    B = np.eye(3) - P / np.diag(P)
    asked = asked_of([0], [1])
    asked.n_items = 3
    asked.contexts.history[0, -2] = 1
    assert ease.fitted_scores(asked)[0] == pytest.approx(B[0] + 0.5 * B[1], abs=1e-5)


@pytest.mark.parametrize("kind", ["biased_mf", "funk_mf"])
def test_river_scores_are_those_of_its_own_models(kind: Any) -> None:
    river = River(ROOM, kind=kind)
    river.learn(cycles())
    scores = river.scores(asked_of([0, 0], [0, 0]))
    for user in range(2):
        own = [river.predict_one(user, item) - river.offset(user) for item in range(12)]
        assert scores[user] == pytest.approx(own, abs=1e-5)


def test_windows_have_each_target_once() -> None:
    users, items = np.repeat(ints(0, 1), [23, 4]), np.arange(27, dtype=np.int32)
    inputs, targets = windows(users, items, length=8)
    found = np.sort(targets[targets > 0]) - 1
    assert found.tolist() == [item for item in range(27) if item not in {0, 23}]
    assert np.array_equal(inputs[targets > 0] + 1, targets[targets > 0])


@pytest.mark.parametrize(
    "name", ["markov", "skip_gram", "item_knn", "vs_knn", "isgd", "bpr", "river_biased_mf"]
)
def test_ranking_changes_nothing(name: str) -> None:
    asked, other = asked_of([3, 5], [4, 6]), asked_of([7], [9])
    contender, twin = BASELINES[name](ROOM), BASELINES[name](ROOM)
    for one in (contender, twin):
        one.learn(cycles())
    twin.ranks(other)
    assert contender.ranks(asked).tolist() == twin.ranks(asked).tolist()


def test_ials_prefers_what_others_of_the_same_taste_have() -> None:
    pytest.importorskip("implicit")
    ials: Any = BASELINES["ials"](ROOM)
    ials.fit(*two_tastes())
    scores = ials.fitted_scores(asked_of([0], [1]))[0]
    assert scores[1:5].min() > scores[6:11].max()


def test_interval_is_by_user() -> None:
    values, users = np.array([1.0, 1.0, 0.0, 0.0]), ints(0, 0, 1, 1)
    wide, narrow = figure_of(values, users), figure_of(values, ints(0, 1, 2, 3))
    assert wide.high - wide.mean == pytest.approx(1.96 * np.sqrt(2) / 4)
    assert narrow.high - narrow.mean == pytest.approx(1.96 / 4)


def test_a_rank_of_minus_one_gains_nothing() -> None:
    gains = gains_of(ints(0, 10, -1))
    assert gains["recall_20"].tolist() == [1.0, 1.0, 0.0]
    assert gains["mrr_20"] == pytest.approx([1.0, 1 / 11, 0.0])
    assert gains["ndcg_10"].tolist() == [1.0, 0.0, 0.0]
