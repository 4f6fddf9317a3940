"""The worker's model: every event is counted, scoring and gradient steps are sampled when behind."""

from __future__ import annotations

from itertools import count

import numpy as np
import pytest

from schemas.errors import StateError
from schemas.learner import Contexts, Interactions
from schemas.records import Item
from schemas.settings import LearnerSettings, RankerSettings
from streams.model import MICRO_BATCH, MOST_SCORED, WATCH, Model, rows_of
from streams.overload import STEPPED, TAUGHT, is_chosen, n_chosen
from streams.scoring_budget import ScoringBudget
from tests.learner_data import contexts_of


def batch_of(n: int, n_items: int = 50, seed: int = 0) -> Interactions:
    rng = np.random.default_rng(seed)
    items = rng.integers(0, n_items, n).astype(np.int32)
    history = np.full((n, 8), -1, dtype=np.int32)
    history[:, -1] = (items + 1) % n_items
    return Interactions(
        users=rng.integers(0, 30, n).astype(np.int32), items=items,
        types=np.full(n, WATCH, np.int8),
        ts_ms=np.arange(n, dtype=np.int64) + 1_700_000_000_000, weight=np.ones(n, np.float32),
        history=history, fresh=np.ones(n, np.bool_), gap_ms=np.full(n, 1_000, np.int64),
    )  # fmt: skip


def model_of(*, embeddings: bool = True, evaluate_ratio: float = 1.0) -> Model:
    model = Model(
        LearnerSettings(embeddings=embeddings, dim=8, device="cpu", history=8),
        RankerSettings(evaluate_ratio=evaluate_ratio, evaluate_budget_us=1e6),
    )
    for i in range(50):
        model.put_item(Item(item_id=f"v{i}", tags=[f"t{i % 3}"]))
    return model


@pytest.mark.parametrize("n", [1, 3, 8, 9, 100, 512])
@pytest.mark.parametrize("most", [1, 8, 32])
def test_chosen_micro_batches_are_spread_and_bounded(n: int, most: int) -> None:
    chosen = [i for i in range(n) if is_chosen(i, n, most)]
    assert len(chosen) == min(n, most)
    if len(chosen) > 1:
        assert max(np.diff(chosen)) <= -(-n // len(chosen))


@pytest.mark.parametrize("n", [33, 127, 128, 129, 1_000])
def test_under_any_backlog_a_quarter_takes_encoder_steps_and_a_tenth_the_gates(n: int) -> None:
    assert 4 * n_chosen(n, STEPPED) >= n
    assert 10 * n_chosen(n, TAUGHT) >= n


def test_a_small_batch_is_scored_and_stepped_whole() -> None:
    model = model_of()
    learned = model.learn(batch_of(300), np.zeros(50, np.bool_))
    assert learned.scored == 300
    assert learned.stepped == 300
    assert model.board.n == 300
    assert model.scoring.share == 1.0
    assert learned.scoring_s > 0.0
    assert not model.ranker.hasty


@pytest.mark.parametrize("embeddings", [False, True])
def test_acts_that_say_nothing_move_nothing(embeddings: bool) -> None:
    """The same events with acts of weight 0 between them give the same model, bit by bit."""
    batch = batch_of(300)
    silent = np.arange(0, 300, 3)
    batch.weight[silent], batch.fresh[silent] = 0.0, False
    told = rows_of(batch, np.flatnonzero(batch.weight != 0))
    with_silence, without = model_of(embeddings=embeddings), model_of(embeddings=embeddings)
    with_silence.learn(batch, np.zeros(50, np.bool_))
    without.learn(told, np.zeros(50, np.bool_))
    assert with_silence.digest() == without.digest()


def test_a_large_batch_is_counted_whole_and_sampled() -> None:
    model = model_of()
    n = MICRO_BATCH * STEPPED[0] * 2
    learned = model.learn(batch_of(n), np.zeros(50, np.bool_))
    assert learned.scored == MICRO_BATCH * MOST_SCORED
    assert learned.stepped == MICRO_BATCH * STEPPED[0]
    assert learned.taught == MICRO_BATCH * MOST_SCORED
    assert model.ranker.hasty
    counted = model_of(embeddings=False, evaluate_ratio=0.0)
    counted.learn(batch_of(n), np.zeros(50, np.bool_))
    assert model.transitions.digest() == counted.transitions.digest()
    assert model.tags.digest() == counted.tags.digest()


def test_scores_come_before_learning() -> None:
    """A chain that only this batch shows cannot be predicted inside it, and can be after it."""
    model = model_of(embeddings=False)
    batch = batch_of(MICRO_BATCH)
    model.learn(batch, np.zeros(50, np.bool_))
    first = model.board.means("markov")["hit_rate_10"]
    model.learn(batch, np.zeros(50, np.bool_))
    second = model.board.means("markov")["hit_rate_10"] * 2 - first
    assert first < 0.3
    assert second > 0.9


def test_scored_are_watches_of_items_not_in_the_history() -> None:
    model = model_of(embeddings=False)
    batch = batch_of(10)
    batch.types[:3] = 0
    batch.fresh[3:5] = False
    batch.history[5, 0] = batch.items[5]
    assert model.learn(batch, np.zeros(50, np.bool_)).scored == 4


def test_events_on_what_is_not_available_are_not_scored() -> None:
    model = model_of(embeddings=False)
    batch = batch_of(100)
    gone = np.zeros(50, np.bool_)
    gone[batch.items[:30]] = True
    assert model.learn(batch, gone).scored == np.count_nonzero(~gone[batch.items]) < 100


@pytest.mark.parametrize("embeddings", [False, True])
def test_places_are_those_of_the_list_that_would_be_published(*, embeddings: bool) -> None:
    """Before anything of the batch is learned, and a place below 20 is the place in the list."""
    model = model_of(embeddings=embeddings)
    withdrawn = np.zeros(50, np.bool_)
    withdrawn[[3, 4]] = True
    model.learn(batch_of(1_000), withdrawn)
    batch = batch_of(MICRO_BATCH, seed=1)
    contexts = Contexts(users=batch.users, history=batch.history, now_ms=int(batch.ts_ms[-1]))
    lists = model.ranker.rank(contexts, batch.history, withdrawn)
    places = model.ranker.places(contexts, batch.items, batch.history, withdrawn)
    again = Contexts(users=batch.users, history=batch.history, now_ms=contexts.now_ms)
    model.ranker.prepare(again, batch.history, withdrawn)
    np.testing.assert_array_equal(model.ranker.places(again, batch.items, batch.history, withdrawn), places)
    found = 0
    for items, scores, target, place in zip(lists.items, lists.scores, batch.items, places, strict=True):
        listed = items[:20].tolist()
        if target in listed:
            level = int(np.count_nonzero(scores[:20] >= scores[listed.index(target)])) - 1
            assert place == level or (place == -1 and level == 19)
            found += 1
        else:
            assert place == -1 or place >= 20
    assert found > 10


def test_scoring_is_sampled_where_it_costs_too_much_and_learning_is_the_same() -> None:
    rich, poor = model_of(), model_of()
    seconds = count()
    poor.scoring = ScoringBudget(1.0, clock=lambda: 0.0, spent=lambda: float(next(seconds)))
    withdrawn = np.zeros(50, np.bool_)
    scored = [
        sum(model.learn(batch_of(4 * MICRO_BATCH, seed=seed), withdrawn).scored for seed in range(3))
        for model in (rich, poor)
    ]
    assert scored == [12 * MICRO_BATCH, MICRO_BATCH]  # the first took a second
    assert 0 < poor.scoring.share < rich.scoring.share == 1.0
    assert poor.digest() == rich.digest()


def test_popular_leaves_out_what_is_withdrawn() -> None:
    model = model_of(embeddings=False, evaluate_ratio=0.0)
    model.learn(batch_of(2_000), np.zeros(50, np.bool_))
    withdrawn = np.zeros(50, np.bool_)
    best = int(model.popular(1, withdrawn)[0][0])
    withdrawn[best] = True
    items, shares = model.popular(60, withdrawn)
    assert best not in items.tolist()
    assert len(items) == 49
    assert (np.diff(shares) <= 1e-6).all()


def test_rows_of_keeps_all_columns_together() -> None:
    batch = batch_of(6)
    part = rows_of(batch, np.array([4, 1]))
    assert part.items.tolist() == batch.items[[4, 1]].tolist()
    assert len(part) == 2


@pytest.mark.parametrize("embeddings", [False, True])
def test_what_follows_a_cut_depends_on_nothing_else(*, embeddings: bool) -> None:
    """Restored and gone on is the same as gone on, bit by bit, whatever was ranked in between."""
    model = model_of(embeddings=embeddings)
    withdrawn = np.zeros(50, np.bool_)
    for seed in range(3):
        model.learn(batch_of(700, seed=seed), withdrawn)
    capture = model.capture()
    model.ranker.settle()
    restored = Model(LearnerSettings(embeddings=embeddings, dim=8, device="cpu", history=8), RankerSettings())
    restored.restore(capture(), model.lineage)
    assert restored.digest() == model.digest()
    assert restored.lineage == model.lineage
    contexts = contexts_of(batch_of(40, seed=9))
    for seed in range(3, 6):
        model.learn(batch_of(700, seed=seed), withdrawn)
        model.ranker.rank(contexts, contexts.history, withdrawn)  # publishing goes on in one of them only
        restored.learn(batch_of(700, seed=seed), withdrawn, reports=False)
    assert restored.digest() == model.digest()
    assert restored.catalogue.describe(["v1"]) == model.catalogue.describe(["v1"])


def test_a_state_of_more_items_than_allowed_is_refused() -> None:
    model = model_of(embeddings=False)
    small = Model(LearnerSettings(embeddings=False, max_items=10), RankerSettings())
    with pytest.raises(StateError, match=r"learner\.max_items"):
        small.restore(model.capture()(), model.lineage)
