"""Lists in the order of a weighted mix."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from schemas.errors import ConfigurationError
from schemas.learner import Contexts
from schemas.settings import OrderSettings, RankerSettings, Settings
from serving.ordering import Ordering, is_mixed
from serving.ranking import Ranked
from streams.model import Model
from streams.ranker import run_ranker
from tests.simulation.world import SETTINGS
from tests.unit.test_item_probability import small, stream
from tests.unit.test_model_probabilities import ON, core_of, feed

N_USERS, N_PLACES = 3, 9


def lists() -> Ranked:
    """Users' lists of items 0 .. 8, best first; the last one is short."""
    items = np.tile(np.arange(N_PLACES, dtype=np.int32), (N_USERS, 1))
    items[2, 5:] = -1
    scores = np.tile(np.linspace(2.0, -2.0, N_PLACES, dtype=np.float32), (N_USERS, 1))
    return Ranked(
        items=items,
        scores=scores,
        relevance=scores + 5.0,
        sources=(items % 3).astype(np.int8),
        reasons=items + 100,
    )


def contexts() -> Contexts:
    users = np.arange(N_USERS, dtype=np.int32)
    return Contexts(users=users, history=np.full((N_USERS, 4), -1, dtype=np.int32), now_ms=0)


def test_the_order_is_the_weighted_sum_and_everything_moves_along() -> None:
    learner = small()
    learner.learn_many(stream(1_500))
    weights = OrderSettings(next_item=0.5, click=1.0, completion=0.25, like=2.0)
    ranked, now_ms = lists(), learner.clock_ms
    found = Ordering(learner).ordered(ranked, contexts(), now_ms, 6, weights)
    for user in range(N_USERS):
        items = ranked.items[user][ranked.items[user] >= 0]
        p = learner.scores(np.full(len(items), user, dtype=np.int32), items, now_ms)
        s = (
            0.5 * ranked.scores[user][: len(items)]
            + np.log(p.click)
            + 0.25 * np.log(p.long)
            + 2.0 * np.log(p.like)
        )
        best = items[np.argsort(-s, kind="stable")][:6]
        np.testing.assert_array_equal(found.items[user][: len(best)], best)
        assert (found.items[user][len(best) :] == -1).all()
        np.testing.assert_allclose(found.scores[user][: len(best)], np.sort(s)[::-1][: len(best)], atol=1e-5)
        np.testing.assert_array_equal(found.reasons[user][: len(best)], best + 100)
        np.testing.assert_array_equal(found.relevance[user][: len(best)], ranked.relevance[0][best])
    assert found.propensities is None
    # Users watch items of tag 1 nine times in ten and others hardly: those come first.
    assert set((found.items[0][:3] % 3).tolist()) == {1}


def test_the_next_item_alone_is_the_order_there_was() -> None:
    assert not is_mixed(OrderSettings())
    learner = small()
    learner.learn_many(stream(100))
    ranked = lists()
    same = Ordering(learner).ordered(ranked, contexts(), learner.clock_ms, N_PLACES, OrderSettings())
    np.testing.assert_array_equal(same.items, ranked.items)


def test_a_worker_orders_what_it_publishes_and_nothing_else_changes() -> None:
    """Of the same log: lists are ordered by the mix, and the probabilities learned are equal."""
    mixed = msgspec.structs.replace(
        ON, ranker=RankerSettings(list_size=5, order_weights=OrderSettings(next_item=0.0, click=1.0))
    )
    plain, other = core_of(), core_of(mixed)
    for core in (plain, other):
        feed(core, 5)
    asked = Contexts(
        users=np.arange(4, dtype=np.int32),
        history=np.full((4, 8), -1, dtype=np.int32),
        now_ms=1_900_000_000_000,
    )
    seen, none = np.full((4, 8), -1, dtype=np.int32), np.zeros(0, dtype=np.bool_)
    lists_of = []
    for core in (plain, other):
        ranked = core.model.ranker.rank(asked, seen, none)
        lists_of.append(core.model.ordered(ranked, asked, 5))
    assert plain.model.probability is not None
    assert other.model.probability is not None
    assert plain.model.probability.digest() == other.model.probability.digest()
    assert lists_of[1].items.shape == (4, 5)
    for user in range(4):
        items = lists_of[1].items[user]
        items = items[items >= 0]
        p = other.model.probability.scores(
            np.full(len(items), user, dtype=np.int32), items, other.model.probability.clock_ms
        )
        assert (np.diff(p.click) <= 0).all()


def test_a_mix_needs_probabilities_and_a_worker() -> None:
    weights = RankerSettings(order_weights=OrderSettings(like=1.0))
    with pytest.raises(ConfigurationError, match="need learner"):
        Model(SETTINGS.learner, weights)
    with pytest.raises(ConfigurationError, match="separate ranker"):
        run_ranker(Settings(ranker=weights))
