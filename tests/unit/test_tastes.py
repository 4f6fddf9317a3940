"""Tastes: the posterior against plain arithmetic, when a view is over, bounds, and what lists owe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from learners.mixture import TASTE_WEIGHT, Mixture
from learners.mixture_features import TASTE
from learners.popularity import Popularity
from learners.taste_kernels import (
    CURIOSITY,
    FEW_LIKE,
    FINISHED,
    FIRST_AUTHOR,
    KEPT,
    KEPT_OWN,
    KEPT_SLOPE,
    LIKED,
    MEAN,
    N_HELD,
    N_KEYS,
    N_PARTS,
    POOL,
    TAKEN,
    VARIANCE,
    VARIANCE_AUTHOR,
    VARIANCE_ITEM,
    VARIANCE_KEY,
    VARIANCE_LEVEL,
    VARIANCE_OWN,
    VARIANCE_SLOPE,
)
from learners.taste_lists import N_LIKED, liked_items, prior_by_key
from learners.tastes import Tastes
from learners.transitions import Transitions
from schemas.errors import ConfigurationError, StateError
from schemas.learner import Contexts, Interactions
from schemas.records import EVENT_TYPES, SURFACES
from schemas.settings import LearnerSettings, RankerSettings
from serving.ranking import SOURCES
from serving.recommender import Recommender
from streams.model import Model
from tests.learner_makers import new_evidence
from tests.unit.test_model import batch_of

SHORT = SURFACES.index("short_video")
CHESS, CARS, ANN = 3, 4, 9
NOTHING = np.zeros(0, dtype=np.bool_)


Row = tuple[int, int, str, float] | tuple[int, int, str, float, int]


def acts(rows: Sequence[Row]) -> Interactions:
    """(user, item, type, omega, whether it was watched to its end) in order; left out, nobody knows."""
    users, items, kinds, omega = zip(*(row[:4] for row in rows), strict=True)
    n = len(rows)
    return Interactions(
        users=np.array(users, np.int32),
        items=np.array(items, np.int32),
        types=np.array([EVENT_TYPES.index(kind) for kind in kinds], np.int8),
        ts_ms=np.arange(n, dtype=np.int64),
        weight=np.array(omega, np.float32),
        history=np.full((n, 4), -1, np.int32),
        fresh=np.array(omega) > 0,
        gap_ms=np.full(n, -1, np.int64),
        surfaces=np.full(n, SHORT, np.int8),
        finished=np.array([row[4] if len(row) > 4 else -1 for row in rows], np.int8),
    )


def asked(*users: int) -> Contexts:
    return Contexts(users=np.array(users, np.int32), history=np.full((len(users), 4), -1, np.int32), now_ms=0)


def items_of(*items: int) -> Any:
    return np.array(items, dtype=np.int32)


def view(user: int, item: int, taken: bool, finished: int = -1, liked: bool = False) -> list[Row]:
    rows: list[Row] = [(user, item, "impression", 0.0)]
    if liked:
        rows.append((user, item, "like", 1.5))
    return [*rows, (user, item, "watch", 0.7, finished) if taken else (user, item, "skip", -1.0)]


class Expected:
    """The equations for one user and one item, in double precision: plain vectors, nothing in place."""

    def __init__(self, keys: int, authors: int) -> None:
        w = 1 / np.sqrt(keys + authors)
        own = [VARIANCE_OWN] * keys + [VARIANCE_AUTHOR] * authors
        # Item and user; then of each key the effect for everybody and that for the user.
        self.factors = np.array([1.0, 1.0, *[w] * 2 * len(own)])
        self.prior = np.array(
            [VARIANCE_ITEM, VARIANCE_LEVEL, *np.array([[VARIANCE_KEY, v] for v in own]).ravel()]
        )
        self.kept = np.array([KEPT, KEPT_OWN, *[KEPT, KEPT_OWN] * len(own)]).astype(float)
        self.mean, self.variance = np.zeros(len(self.prior)), self.prior.astype(float)
        self.levels = np.array(
            [[FEW_LIKE if part == LIKED else 0.0, VARIANCE_LEVEL] for part in range(N_PARTS)], float
        )
        self.slopes = np.array([[1.0, VARIANCE_SLOPE if part else 0.0] for part in range(N_PARTS)])

    def learn(self, said: Sequence[bool | None]) -> None:
        """One view: whether it was taken up, finished, liked; None is not known."""
        self.variance = np.minimum(self.variance / self.kept, self.prior)
        for part, happened in enumerate(said):
            if happened is None or (part and not said[0]):
                continue
            level, slope = self.levels[part], self.slopes[part]
            level[1] = min(level[1] / KEPT, VARIANCE_LEVEL)
            if part:
                slope[1] = min(slope[1] / KEPT_SLOPE, VARIANCE_SLOPE)
            # The logit is level + slope (factors . mean): its derivatives by each of them.
            m = self.factors @ self.mean
            by = np.concatenate([[1.0, m], slope[0] * self.factors])
            mean = np.concatenate([[level[0], slope[0]], self.mean])
            variance = np.concatenate([[level[1], slope[1]], self.variance])
            p = 1 / (1 + np.exp(-(level[0] + slope[0] * m)))
            h = p * (1 - p)
            den = 1 / (by**2 @ variance + 1 / h)
            mean += by * variance * den * (happened - p) / h
            variance -= (by * variance) ** 2 * den
            level[:], slope[:] = (mean[0], variance[0]), (mean[1], variance[1])
            self.mean, self.variance = mean[2:], variance[2:]


def test_a_view_moves_every_effect_as_the_equations_say() -> None:
    tastes, expected = Tastes(), Expected(keys=2, authors=1)
    tastes.set_item(0, [CHESS, CARS], [ANN])
    happened = [(True, 1, False), (False, 0, False), (True, 0, True), (True, -1, False), (True, 1, True)]
    for taken, finished, liked in [*happened, (False, -1, False)]:
        tastes.learn_many(acts(view(0, 0, taken, finished, liked)))
        expected.learn([taken, None if finished < 0 else finished == 1, liked])
    found, mean, variance = tastes.view(), expected.mean, expected.variance
    np.testing.assert_allclose(found.levels[SHORT], expected.levels, rtol=1e-5)
    np.testing.assert_allclose(found.slopes[SHORT], expected.slopes, rtol=1e-5)
    np.testing.assert_allclose(found.items[0], [mean[0], variance[0]], rtol=1e-5)
    np.testing.assert_allclose(found.user_levels[0], [mean[1], variance[1]], rtol=1e-5)
    for place, key in enumerate((CHESS, CARS, FIRST_AUTHOR + ANN)):
        assert found.own_keys[0, place] == key
        np.testing.assert_allclose(found.keys[key, MEAN], mean[2 + 2 * place], rtol=1e-5)
        np.testing.assert_allclose(found.own[0, place, VARIANCE], variance[3 + 2 * place], rtol=1e-5)
    without_level = np.flatnonzero(np.arange(8) != 1)
    logit = expected.factors[without_level] @ mean[without_level]
    np.testing.assert_allclose(tastes.predict(asked(0), items_of(0))[0, 0], logit, rtol=1e-5)
    of_others = expected.factors[[0, 2, 4, 6]] @ mean[[0, 2, 4, 6]]
    np.testing.assert_allclose(tastes.predict(asked(5), items_of(0))[0, 0], of_others, rtol=1e-5)


def test_how_much_an_end_and_a_like_say_is_found() -> None:
    """Ends follow twice the logit, likes none of it; what was passed over is asked for neither."""
    rng = np.random.default_rng(3)
    tastes = Tastes()
    logits = rng.normal(0, 1.2, 40)
    rows: list[Row] = []
    for item in rng.integers(0, 40, 12_000).tolist():
        taken, finished = (rng.random() < 1 / (1 + np.exp(-c * logits[item])) for c in (1, 2))
        rows += view(0, item, bool(taken), int(finished), liked=bool(taken) and bool(rng.random() < 0.1))
    tastes.learn_many(acts(rows))
    slopes = tastes.view().slopes[SHORT, :, MEAN]
    assert slopes[TAKEN] == 1.0
    assert 1.6 < slopes[FINISHED] < 2.4
    assert abs(slopes[LIKED]) < 0.25
    found = tastes.predict(asked(-1), np.arange(40, dtype=np.int32))[0]
    assert np.corrcoef(found, logits)[0, 1] > 0.97


def test_what_is_not_known_well_is_tried_sooner_while_curious() -> None:
    tastes = Tastes()
    for item in range(2):
        tastes.set_item(item, [CHESS if item else CARS])
    for _ in range(30):
        tastes.learn_many(acts(view(0, 0, True) + view(0, 0, False)))
    digest = tastes.digest()
    known, unknown = tastes.predict(asked(0), items_of(0, 1))[0]
    assert not tastes.curious
    tastes.curious = True
    more = tastes.predict(asked(0), items_of(0, 1))[0]
    assert more[0] - known < more[1] - unknown
    spread = np.sqrt(VARIANCE_ITEM + VARIANCE_KEY + VARIANCE_OWN)
    np.testing.assert_allclose(more[1], unknown + CURIOSITY * spread, rtol=1e-5)
    assert tastes.digest() == digest
    again = Tastes()
    again.restore(tastes.snapshot())
    assert not again.curious
    np.testing.assert_array_equal(again.predict(asked(0), items_of(0, 1))[0], [known, unknown])


def test_lists_are_curious_while_the_model_adapts() -> None:
    model = Model(LearnerSettings(device="cpu", max_items=1_000, tastes=True), RankerSettings())
    assert model.tastes is not None
    for adapts in (False, True):
        if adapts:
            model.adapt()
        model.ranked(asked(0), np.zeros((1, 0), np.int32), NOTHING)
        assert model.tastes.curious is adapts


def test_lists_lean_on_tastes_while_the_model_adapts() -> None:
    model = Model(LearnerSettings(device="cpu", max_items=1_000, tastes=True), RankerSettings())
    for seed in range(2):
        model.learn(batch_of(512, seed=seed), NOTHING)
    batch = batch_of(6, seed=9)
    contexts, none = Contexts(users=batch.users, history=batch.history, now_ms=0), np.zeros((6, 0), np.int32)
    model.adapt()
    found = model.ranked(contexts, none, NOTHING)
    by_weight = [model.ranked(contexts, none, NOTHING, weight).scores for weight in (10.0, 30.0)]
    np.testing.assert_array_equal(found.scores, by_weight[1])
    assert (by_weight[0] != by_weight[1]).any()


@pytest.mark.parametrize(
    ("rows", "signs"),
    [
        ([(0, 0, "impression", 0)], [0, 0]),  # under way
        ([(0, 0, "impression", 0), (0, 1, "impression", 0)], [-1, 0]),  # passed over
        ([(0, 0, "impression", 0), (0, 0, "watch", 0.9)], [1, 0]),
        ([(0, 0, "impression", 0), (0, 0, "like", 1.5)], [0, 0]),  # still watching
        ([(0, 0, "impression", 0), (0, 0, "like", 1.5), (0, 0, "watch", 0.1)], [1, 0]),  # its best act
        ([(0, 0, "impression", 0), (0, 0, "skip", -1)], [-1, 0]),
        ([(0, 0, "impression", 0), (0, 0, "watch", -0.5)], [-1, 0]),  # swiped away
        ([(0, 0, "watch", 0.9), (0, 1, "skip", -1)], [1, -1]),  # a platform without impressions
        ([(0, 0, "impression", 0), (0, 0, "join", 0.8), (0, 1, "impression", 0)], [1, 0]),
        ([(0, 0, "watch", 0.9), (0, 0, "like", 1.5)], [1, 0]),  # a like that comes after
        ([(0, 0, "like", 1.5)], [1, 0]),  # found elsewhere, or shown by what tells of no impressions
        ([(0, 0, "dislike", -1.5)], [-1, 0]),
        ([(-1, 0, "watch", 1.0)], [0, 0]),  # nobody
    ],
)  # fmt: skip
def test_when_a_view_is_over(rows: list[Row], signs: list[int]) -> None:
    tastes = Tastes()
    tastes.learn_many(acts(rows))
    found = tastes.predict(asked(0), items_of(0, 1))[0]
    assert np.sign(found).tolist() == signs
    step_by_step = Tastes()
    for row in rows:
        step_by_step.learn_many(acts([row]))
    np.testing.assert_array_equal(step_by_step.predict(asked(0), items_of(0, 1))[0], found)


def chess_and_cars() -> Tastes:
    """Items 0..19 are of chess, 20..39 of cars; user 0 likes chess, user 1 cars."""
    tastes = Tastes()
    for item in range(40):
        tastes.set_item(item, [CHESS if item < 20 else CARS])
    for turn in range(8):
        for user in (0, 1):
            tastes.learn_many(acts(view(user, turn, user == 0)))
            tastes.learn_many(acts(view(user, 20 + turn, user == 1)))
    return tastes


def test_a_taste_speaks_for_items_nobody_has_seen() -> None:
    tastes = chess_and_cars()
    found = tastes.predict(asked(0, 1, 2), items_of(15, 35))
    assert found[0, 0] > 0.5 > -0.5 > found[0, 1]
    assert found[1, 1] > 0.5 > -0.5 > found[1, 0]
    assert abs(found[2, 0] - found[2, 1]) < 0.2
    room = prior_by_key()
    items, logits = np.zeros(N_LIKED * POOL, np.int32), np.zeros(N_LIKED * POOL, np.float32)
    n = liked_items(0, tastes.view(), room, items, logits)
    assert set(items[:n].tolist()) == set(range(20))
    np.testing.assert_array_equal(logits[:n], tastes.predict(asked(0), items[:n])[0])
    np.testing.assert_array_equal(room, prior_by_key())
    assert liked_items(7, tastes.view(), room, items, logits) == 0


def test_a_changed_taste_is_learned_and_a_faded_one_at_once_less_believed() -> None:
    tastes = chess_and_cars()
    before = tastes.predict(asked(0), items_of(15, 35))[0]
    own = tastes.view().own[0].copy()
    tastes.fade(0.3)
    np.testing.assert_allclose(tastes.view().own[0, :, MEAN], 0.3 * own[:, MEAN], rtol=1e-6)
    held = tastes.view().own_keys[0] >= 0
    variance = 0.09 * own[held, VARIANCE] + 0.91 * VARIANCE_OWN
    np.testing.assert_allclose(tastes.view().own[0, held, VARIANCE], variance, rtol=1e-6)
    after = tastes.predict(asked(0), items_of(15, 35))[0]
    assert before[0] > after[0] > 0 > after[1] > before[1]
    for turn in range(10):
        tastes.learn_many(acts(view(0, turn, False) + view(0, 20 + turn, True)))
    found = tastes.predict(asked(0), items_of(15, 35))[0]
    assert found[0] < 0 < found[1]


def test_a_user_holds_what_matters_most_of_many_keys() -> None:
    tastes = Tastes()
    for item in range(1, 120):
        tastes.set_item(item, [100 + item])
    tastes.set_item(0, [CHESS])
    for _ in range(6):
        tastes.learn_many(acts(view(0, 0, True)))
    for item in range(1, 120):
        tastes.learn_many(acts(view(0, item, item % 2 == 0)))
    held = tastes.view().own_keys[0]
    assert (held >= 0).all()
    assert len(set(held.tolist())) == N_HELD
    assert CHESS in held


def test_pools_are_bounded_and_forget_what_is_withdrawn() -> None:
    tastes = Tastes()
    for item in range(POOL):
        tastes.set_item(item, [CHESS])
    tastes.learn_many(acts(view(0, 17, False)))
    tastes.set_item(POOL, [CHESS])
    pool = tastes.view().pools[CHESS]
    assert sorted(pool.tolist()) == [item for item in range(POOL + 1) if item != 17]
    tastes.withdraw(5)
    left = pool[pool >= 0].tolist()
    assert len(left) == POOL - 1
    assert 5 not in left
    tastes.set_item(6, [CARS])
    assert 6 not in tastes.view().pools[CHESS]
    assert tastes.view().pools[CARS, 0] == 6
    tastes.set_item(7, range(1_000, 1_020))
    assert len(tastes.view().item_keys[7]) == N_KEYS


@pytest.mark.parametrize(
    ("name", "damaged"),
    [
        ("items", lambda array: array[:-1]),
        ("own", lambda array: np.full_like(array, np.nan)),
        ("item_keys", lambda array: np.full_like(array, 1 << 20)),
        ("pools", lambda array: array[:-1]),
    ],
)
def test_damaged_state_is_refused(name: str, damaged: Any) -> None:
    arrays = chess_and_cars().snapshot()
    arrays[name] = damaged(arrays[name])
    with pytest.raises(StateError):
        Tastes().restore(arrays)


def recommender(tastes: Tastes | None, *, exclude_seen: bool = True) -> Recommender:
    evidence = new_evidence()
    popularity = next(found for found in evidence if isinstance(found, Popularity))
    assert isinstance(evidence[0], Transitions)
    rows = [row for item in range(40) for row in [(9, item, "watch", 1.0)] * (1 + item % 3)]
    popularity.learn_many(acts(rows))
    return Recommender(*evidence, Mixture(), list_size=5, exclude_seen=exclude_seen, tastes=tastes)


def test_lists_are_ordered_by_tastes_and_places_are_not() -> None:
    tastes = chess_and_cars()
    with_tastes, without = recommender(tastes), recommender(None)
    contexts, unseen = asked(0, 1), np.zeros((2, 0), np.int32)
    ranked = with_tastes.rank(contexts, unseen, NOTHING)
    assert (ranked.items[0] < 20).all()
    assert (ranked.items[1] >= 20).all()
    # As `embedding` a list says that it matches a taste; `content` would say that the item is new.
    assert {SOURCES[code] for code in ranked.sources.ravel().tolist()} <= {"embedding", "popularity"}
    assert "embedding" in {SOURCES[code] for code in ranked.sources.ravel().tolist()}
    targets = items_of(35, 5)
    np.testing.assert_array_equal(
        with_tastes.places(contexts, targets, unseen, NOTHING),
        without.places(contexts, targets, unseen, NOTHING),
    )
    weights = Mixture().list_weights
    assert (weights[:, TASTE] == TASTE_WEIGHT).all()
    np.testing.assert_array_equal(weights[:, :TASTE], Mixture().weights[:, :TASTE])


def test_what_was_seen_comes_again_only_where_it_may() -> None:
    seen = np.arange(5, 40, dtype=np.int32)[None, :]
    contexts = asked(0)
    for exclude_seen in (True, False):
        ranked = recommender(chess_and_cars(), exclude_seen=exclude_seen).rank(contexts, seen, NOTHING)
        assert bool(np.isin(ranked.items, seen).any()) is not exclude_seen


def test_tastes_need_embeddings_and_are_off_unless_asked_for() -> None:
    with pytest.raises(ConfigurationError, match=r"learner\.tastes"):
        Model(LearnerSettings(tastes=True, embeddings=False), RankerSettings())
    assert Model(LearnerSettings(device="cpu", max_items=1_000), RankerSettings()).tastes is None
    assert (
        Model(LearnerSettings(device="cpu", max_items=1_000, tastes=True), RankerSettings()).tastes
        is not None
    )
