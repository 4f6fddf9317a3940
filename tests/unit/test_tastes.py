"""Tastes: the posterior against plain arithmetic, when a view is over, bounds, and what lists owe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from learners.mixture import TASTE_WEIGHT, Mixture
from learners.mixture_features import TASTE
from learners.popularity import Popularity
from learners.taste_kernels import (
    FIRST_AUTHOR,
    KEPT,
    KEPT_OWN,
    MEAN,
    N_HELD,
    N_KEYS,
    N_LIKED,
    POOL,
    VARIANCE,
    VARIANCE_AUTHOR,
    VARIANCE_ITEM,
    VARIANCE_KEY,
    VARIANCE_LEVEL,
    VARIANCE_OWN,
    liked_items,
)
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

SHORT = SURFACES.index("short_video")
CHESS, CARS, ANN = 3, 4, 9
NOTHING = np.zeros(0, dtype=np.bool_)


def acts(rows: list[tuple[int, int, str, float]]) -> Interactions:
    """(user, item, type, omega) in order."""
    users, items, kinds, omega = zip(*rows, strict=True)
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
    )


def asked(*users: int) -> Contexts:
    return Contexts(users=np.array(users, np.int32), history=np.full((len(users), 4), -1, np.int32), now_ms=0)


def items_of(*items: int) -> Any:
    return np.array(items, dtype=np.int32)


def view(user: int, item: int, reward: float) -> list[tuple[int, int, str, float]]:
    kind = ("watch", reward) if reward > 0 else ("skip", -1.0)
    return [(user, item, "impression", 0.0), (user, item, *kind)]


def test_a_view_moves_every_effect_as_the_equations_say() -> None:
    tastes = Tastes()
    tastes.set_item(0, [CHESS, CARS], [ANN])
    rewards = [0.7, 0.0, 1.0]
    for reward in rewards:
        tastes.learn_many(acts(view(0, 0, reward)))
    w = 1 / np.sqrt(3)
    factors = np.array([1, 1, 1, w, w, w, w, w, w])  # level, item, user; shared and own of three keys
    prior = np.array(
        [
            *(VARIANCE_LEVEL, VARIANCE_ITEM, VARIANCE_LEVEL),
            *(VARIANCE_KEY, VARIANCE_OWN, VARIANCE_KEY, VARIANCE_OWN, VARIANCE_KEY, VARIANCE_AUTHOR),
        ]
    ).astype(float)
    kept = np.array([KEPT, KEPT, KEPT_OWN, *[KEPT, KEPT_OWN] * 3]).astype(float)
    mean, variance = np.zeros(9), prior.copy()
    scatter = spread = 0.25
    for reward in rewards:
        variance = np.minimum(variance / kept, prior)
        p = 1 / (1 + np.exp(-(factors @ mean)))
        h = p * (1 - p)
        v, phi = float(factors**2 @ variance), scatter / spread
        den = 1 / (v + phi / h)
        scatter += (float(reward - p) ** 2 - float(h) ** 2 * v - scatter) / 2_000
        spread += (float(h) - spread) / 2_000
        mean += factors * variance * den * (reward - p) / h
        variance -= (factors * variance) ** 2 * den
    view_of = tastes.view()
    np.testing.assert_allclose(view_of.levels[SHORT], [mean[0], variance[0]], rtol=1e-5)
    np.testing.assert_allclose(view_of.items[0], [mean[1], variance[1]], rtol=1e-5)
    np.testing.assert_allclose(view_of.user_levels[0], [mean[2], variance[2]], rtol=1e-5)
    for place, key in enumerate((CHESS, CARS, FIRST_AUTHOR + ANN)):
        assert view_of.own_keys[0, place] == key
        np.testing.assert_allclose(view_of.keys[key, MEAN], mean[3 + 2 * place], rtol=1e-5)
        np.testing.assert_allclose(view_of.own[0, place, VARIANCE], variance[4 + 2 * place], rtol=1e-5)
    expected = factors[[1, *range(3, 9)]] @ mean[[1, *range(3, 9)]]
    np.testing.assert_allclose(tastes.predict(asked(0), items_of(0))[0, 0], expected, rtol=1e-5)
    of_others = factors[[1, 3, 5, 7]] @ mean[[1, 3, 5, 7]]
    np.testing.assert_allclose(tastes.predict(asked(5), items_of(0))[0, 0], of_others, rtol=1e-5)


@pytest.mark.parametrize(("shares", "low", "high"), [(False, 0.85, 1.15), (True, 0.25, 0.45)])
def test_how_much_a_reward_says_is_found(shares: bool, low: float, high: float) -> None:
    """A yes or no scatters as a coin does; shares about the odds scatter less, and count for more."""
    rng = np.random.default_rng(3)
    tastes = Tastes()
    odds = rng.uniform(0.2, 0.8, 40)
    rows = []
    for item in rng.integers(0, 40, 12_000).tolist():
        p = odds[item]
        rows += view(0, item, float(rng.beta(2 * p, 2 * (1 - p)) if shares else rng.random() < p))
    tastes.learn_many(acts(rows))
    scatter, spread = tastes.view().noise[SHORT]
    assert low < scatter / spread < high


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
        ([(0, 0, "like", 1.5)], [0, 0]),  # of nothing that was shown
        ([(-1, 0, "watch", 1.0)], [0, 0]),  # nobody
    ],
)  # fmt: skip
def test_when_a_view_is_over(rows: list[tuple[int, int, str, float]], signs: list[int]) -> None:
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
            tastes.learn_many(acts(view(user, turn, float(user == 0))))
            tastes.learn_many(acts(view(user, 20 + turn, float(user == 1))))
    return tastes


def test_a_taste_speaks_for_items_nobody_has_seen() -> None:
    tastes = chess_and_cars()
    found = tastes.predict(asked(0, 1, 2), items_of(15, 35))
    assert found[0, 0] > 0.5 > -0.5 > found[0, 1]
    assert found[1, 1] > 0.5 > -0.5 > found[1, 0]
    assert abs(found[2, 0] - found[2, 1]) < 0.2
    room = np.zeros(tastes.view().keys.shape[0], np.float32)
    items, logits = np.zeros(N_LIKED * POOL, np.int32), np.zeros(N_LIKED * POOL, np.float32)
    n = liked_items(0, tastes.view(), room, items, logits)
    assert set(items[:n].tolist()) == set(range(20))
    np.testing.assert_array_equal(logits[:n], tastes.predict(asked(0), items[:n])[0])
    assert not room.any()
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
        tastes.learn_many(acts(view(0, turn, 0.0) + view(0, 20 + turn, 1.0)))
    found = tastes.predict(asked(0), items_of(15, 35))[0]
    assert found[0] < 0 < found[1]


def test_a_user_holds_what_matters_most_of_many_keys() -> None:
    tastes = Tastes()
    for item in range(1, 120):
        tastes.set_item(item, [100 + item])
    tastes.set_item(0, [CHESS])
    for _ in range(6):
        tastes.learn_many(acts(view(0, 0, 1.0)))
    for item in range(1, 120):
        tastes.learn_many(acts(view(0, item, 0.5)))
    held = tastes.view().own_keys[0]
    assert (held >= 0).all()
    assert len(set(held.tolist())) == N_HELD
    assert CHESS in held


def test_pools_are_bounded_and_forget_what_is_withdrawn() -> None:
    tastes = Tastes()
    for item in range(POOL):
        tastes.set_item(item, [CHESS])
    tastes.learn_many(acts(view(0, 17, 0.0)))
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
