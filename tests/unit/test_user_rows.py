"""Rows of users: when they are given out, and when they are taken back."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from learners.embedding_options import EmbeddingOptions, Optimizer
from learners.embeddings import Embeddings
from learners.user_rows import UserRows
from schemas.learner import Contexts
from schemas.runs import Int32
from schemas.settings import LearnerSettings, ObjectiveSettings
from tests.learner_data import interactions

DIM = 4


def _rows(admission: int = 1, idle_ms: int | None = None, rule: Optimizer = "adagrad") -> UserRows:
    return UserRows(
        DIM, torch.device("cpu"), rate=0.1, floor=1e-8, rule=rule, admission=admission, idle_ms=idle_ms
    )


def _learn(rows: UserRows, users: list[int], now_ms: int) -> None:
    slots: Int32 = np.array(users, dtype=np.int32)
    rows.ensure(int(slots.max()) + 1)
    rows.observe(slots, np.full(len(slots), now_ms, dtype=np.int64))
    gradient = torch.from_numpy(slots[:, None] + np.arange(1.0, DIM + 1.0, dtype=np.float32)).float()
    rows.apply(slots, np.ones(len(slots), dtype=np.int64), gradient, gradient.square().mean(1))


def test_a_user_gets_a_row_at_the_nth_positive() -> None:
    rows = _rows(admission=3)
    held = []
    for now in range(4):
        _learn(rows, [5], now)
        held.append(rows.n_rows)
    assert held == [0, 0, 1, 1]


def test_a_row_of_an_idle_user_goes_and_others_keep_theirs() -> None:
    rows = _rows(idle_ms=100)
    _learn(rows, [0, 1, 2, 3], 0)
    _learn(rows, [1, 3], 90)
    before = rows.export_rows(np.array([1, 3], dtype=np.int32))
    rows.touched()
    for _ in range(4):
        rows.observe(np.array([1, 3], dtype=np.int32), np.full(2, 150, dtype=np.int64))
    users = np.arange(4, dtype=np.int32)
    assert (rows.rows_of(users) >= 0).tolist() == [False, True, False, True]
    np.testing.assert_array_equal(rows.export_rows(users[[1, 3]]), before)
    assert not rows.export_rows(users[[0, 2]]).any()
    assert rows.touched().tolist() == [0, 2]


@pytest.mark.parametrize("rule", ["adagrad", "adam"])
def test_a_row_given_out_again_is_as_new(rule: Optimizer) -> None:
    used, new = _rows(idle_ms=100, rule=rule), _rows(idle_ms=100, rule=rule)
    _learn(used, [7, 8], 0)
    used.observe(np.array([9], dtype=np.int32), np.array([1_000], dtype=np.int64))
    assert used.n_rows == 0
    for rows in (used, new):
        _learn(rows, [3], 1_000)
    mine, theirs = used.snapshot(), new.snapshot()
    for name in ("users", "user_values", "user_squares", "user_moments", "user_newest"):
        np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)


def test_rows_in_use_are_bounded_however_many_users_come_and_go() -> None:
    rows = _rows(idle_ms=100)
    most = 0
    for now in range(2_000):
        _learn(rows, [3 * now, 3 * now + 1, 3 * now + 2], now)
        most = max(most, rows.n_rows)
    assert most < 1_000  # 300 users are active within 100 ms; 6 000 came by
    assert len(rows.values) <= 1_024


def test_a_replica_drops_the_rows_that_were_freed() -> None:
    rows, replica = _rows(idle_ms=100), _rows()
    _learn(rows, [0, 1, 2], 0)
    for now in (0, 90, 150, 150, 150):
        _learn(rows, [2], now)
        users = rows.touched()
        replica.import_rows(users, rows.export_rows(users))
    everyone = np.arange(3, dtype=np.int32)
    assert replica.n_rows == rows.n_rows == 1
    np.testing.assert_array_equal(replica.export_rows(everyone), rows.export_rows(everyone))


def test_an_objective_of_weight_0_teaches_nothing() -> None:
    batch = interactions(seed=1, n=600)
    nothing = ObjectiveSettings(watch=0, engagement=0, rejection=0, ignored=0)
    learner = Embeddings(dim=8, history=10, options=EmbeddingOptions(objectives=nothing))
    learner.learn_many(batch)
    assert not learner.support.any()
    watched = Embeddings(
        dim=8, history=10, options=EmbeddingOptions(objectives=ObjectiveSettings(engagement=0))
    )
    whole = Embeddings(dim=8, history=10)
    watched.learn_many(batch)
    whole.learn_many(batch)
    assert 0 < watched.support.sum() < whole.support.sum()


def test_a_heavier_rejection_lowers_the_scores_of_what_was_rejected() -> None:
    batch = interactions(seed=1, n=600)
    rejected = np.flatnonzero(batch.weight < 0)
    contexts = Contexts(users=batch.users[rejected], history=batch.history[rejected], now_ms=0)
    means = []
    for weight in (0.0, 1.0, 5.0):
        options = EmbeddingOptions(objectives=ObjectiveSettings(rejection=weight))
        learner = Embeddings(dim=8, history=10, options=options)
        learner.learn_many(batch)
        vectors = learner.user_vectors(contexts)
        means.append(float(learner.relevance(vectors, batch.items[rejected][:, None]).mean()))
    assert means[0] > means[1] > means[2]


def test_settings_reach_the_options() -> None:
    settings = LearnerSettings(user_admission=4, user_idle_days=2.0)
    options = EmbeddingOptions.of(settings)
    assert (options.user_admission, options.user_idle_ms) == (4, 172_800_000)
    assert options.objectives == ObjectiveSettings()
