"""The recommender's sources against plain arithmetic, and what its lists owe."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import learners.ease
from learners.cooccurrence import Cooccurrence
from learners.ease import FIRST_FIT, PANEL_EVERY, RIDGE, Ease
from learners.embeddings import Embeddings
from learners.mixture import Mixture
from learners.mixture_candidates import sum_rows
from learners.popularity import Popularity
from learners.transitions import Transitions
from schemas.learner import Contexts, Interactions
from serving.ranking import SOURCES
from serving.recommender import Recommender, half_lives_h
from tests.learner_data import interactions, rows_of, split

HOUR_MS = 3_600_000.0
N_ITEMS = 90
NOTHING = np.zeros(0, dtype=np.bool_)


def contexts_of(batch: Interactions) -> Contexts:
    return Contexts(users=batch.users, history=batch.history, now_ms=int(batch.ts_ms[-1]))


class Played:
    """A recommender that learned a stream, and what comes next."""

    def __init__(self, *, exclude_seen: bool = True, list_size: int = 10, n_events: int = 3_000) -> None:
        self.mixture = Mixture()
        self.embeddings = Embeddings(dim=8, history=10, seed=1)
        self.recommender = Recommender(
            Transitions(16),
            Popularity(tuple(hours * HOUR_MS for hours in half_lives_h((24.0, 240.0)))),
            self.embeddings,
            Cooccurrence(16, window=10),
            Ease(64, width=16),
            self.mixture,
            list_size=list_size,
            exclude_seen=exclude_seen,
        )
        batch = interactions(seed=7, n=n_events + 200, n_items=N_ITEMS)
        self.next = rows_of(batch, len(batch) - 100, len(batch))
        for part in split(rows_of(batch, 0, len(batch) - 100), 128) if n_events else ():
            self.teach(part)

    def teach(self, part: Interactions) -> None:
        targets = np.where(part.fresh & (part.weight > 0), part.items, np.int32(-1)).astype(np.int32)
        self.recommender.learn_gate(contexts_of(part), targets, part.history)
        self.recommender.learn(part)


def window_counts(batch: Interactions, n: int) -> Any:
    """Two-way counts of each fresh positive with its history, and visits: (n, n), (n,)."""
    pairs, visits = np.zeros((n, n)), np.zeros(n)
    for i in np.flatnonzero(batch.fresh & (batch.weight > 0)):
        x = batch.items[i]
        visits[x] += 1
        for a in batch.history[i][batch.history[i] >= 0]:
            if a != x:
                pairs[a, x] += 1
                pairs[x, a] += 1
    return pairs, visits


def test_cooccurrence_is_the_discounted_cosine() -> None:
    batch = interactions(seed=2, n=800, n_items=30)
    learner = Cooccurrence(64)
    learner.learn_many(batch)
    pairs, visits = window_counts(batch, 30)
    cosine = pairs / np.sqrt(np.outer(visits + 5.0, visits + 5.0))
    history = np.array([[-1, -1, 4, 9, 2]], dtype=np.int32)
    expected = (cosine[2] + 0.95 * cosine[9] + 0.95**2 * cosine[4]) / (1 + 0.95 + 0.95**2)
    contexts = Contexts(users=np.zeros(1, dtype=np.int32), history=history, now_ms=0)
    found = learner.predict(contexts, np.arange(30, dtype=np.int32))[0]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("panel", [7, 64])
def test_ease_is_the_closed_form_however_many_columns_are_eliminated_at_a_time(
    panel: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(learners.ease, "PANEL", panel)
    batch = interactions(seed=3, n=3 * FIRST_FIT, n_items=30)
    learner = Ease(64, width=64)
    learner.learn_many(batch)
    pairs, visits = window_counts(batch, 30)
    for _ in range(5):  # a refit under way goes on with the batches that come, whatever they hold
        learner.learn_many(rows_of(batch, 0, 1))
    inverse = np.linalg.inv(pairs + np.diag(visits) + RIDGE * np.eye(30))
    weights = -inverse / np.diagonal(inverse)[None, :]
    np.fill_diagonal(weights, 0.0)
    history = np.array([[-1, 5, 8]], dtype=np.int32)
    contexts = Contexts(users=np.zeros(1, dtype=np.int32), history=history, now_ms=0)
    found = learner.predict(contexts, np.arange(30, dtype=np.int32))[0]
    np.testing.assert_allclose(found, weights[8] + 0.97 * weights[5], rtol=2e-3, atol=2e-5)


def test_a_large_head_is_eliminated_no_faster_than_events_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learners.ease, "PANEL", 8)
    monkeypatch.setattr(learners.ease, "N_HEAD", 30)  # what is large
    batch = interactions(seed=3, n=3 * FIRST_FIT, n_items=30)
    learner = Ease(64, width=64)
    learner.learn_many(batch)
    done = [int(learner.snapshot()["state"][3])]
    single = rows_of(batch, 0, 1)
    for _ in range(3 * PANEL_EVERY):
        learner.learn_many(single)
        done.append(int(learner.snapshot()["state"][3]))
    assert done[0] == 8
    assert [n for n, later in enumerate(done[1:], 1) if later > done[n - 1]] == [64, 128, 192]
    assert len(learner.snapshot()["fitting"]) == 0  # published: 30 columns in four panels


def test_items_that_others_overtook_leave_the_head() -> None:
    batch = interactions(seed=4, n=4_000, n_items=60)
    learner = Ease(16, width=8)
    for part in split(batch, 128):
        learner.learn_many(part)
    state = learner.snapshot()
    _, visits = window_counts(batch, 60)
    assert len(state["head"]) == len(set(state["head"].tolist())) == 16
    assert (state["place"][state["head"]] == np.arange(16)).all()
    most = set(np.argsort(-visits)[:8].tolist())
    assert most <= set(state["head"].tolist())


def test_rows_are_summed_as_predicted_and_every_item_is_found_once() -> None:
    batch = interactions(seed=2, n=800, n_items=30)
    learner = Cooccurrence(16)
    learner.learn_many(batch)
    view = learner.view()
    total, found = np.zeros(len(view.nbr), dtype=np.float32), np.zeros(3 * 16, dtype=np.int32)
    history = np.array([-1, -1, 4, 9, 4], dtype=np.int32)
    n = sum_rows(history, 3, view, True, total, found)
    assert sorted(found[:n].tolist()) == sorted({*view.nbr[4].tolist(), *view.nbr[9].tolist()} - {-1})
    contexts = Contexts(users=np.zeros(1, dtype=np.int32), history=history[None, :], now_ms=0)
    expected = learner.predict(contexts, np.arange(30, dtype=np.int32))[0]
    np.testing.assert_allclose((total * view.norm)[:30], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_lists_are_full_and_hold_nothing_that_may_not_be_shown(exclude_seen: bool) -> None:
    played = Played(exclude_seen=exclude_seen)
    contexts, seen = contexts_of(played.next), np.ascontiguousarray(played.next.history[:, :8])
    withdrawn = np.zeros(N_ITEMS, dtype=np.bool_)
    withdrawn[[0, 1, 2, 5]] = True
    ranked = played.recommender.rank(contexts, seen if exclude_seen else seen[:, :0], withdrawn)
    assert (ranked.items >= 0).all()
    for i, row in enumerate(ranked.items):
        listed = set(row.tolist())
        assert len(listed) == 10
        assert not listed & {0, 1, 2, 5}
        hidden = contexts.history[i] if exclude_seen else contexts.history[i, -5:]
        assert not listed & set(hidden.tolist())
        assert (np.diff(ranked.scores[i]) <= 0).all()
        named = [SOURCES[code] in ("transitions", "neighbours") for code in ranked.sources[i]]
        assert [why >= 0 for why in ranked.reasons[i]] == named
        assert set(ranked.reasons[i][ranked.reasons[i] >= 0].tolist()) <= set(contexts.history[i].tolist())
    assert {SOURCES[code] for code in np.unique(ranked.sources)} >= {"neighbours"}
    assert ((ranked.relevance > 0) & (ranked.relevance < 1)).all()


def test_places_are_those_of_the_lists() -> None:
    played = Played(list_size=30)
    contexts = contexts_of(played.next)
    none = np.zeros((len(contexts.users), 0), dtype=np.int32)
    lists = played.recommender.rank(contexts, none, NOTHING).items
    places = played.recommender.places(contexts, lists[:, 4].copy(), none, NOTHING)
    assert (places >= 4).all()  # ties count against the target
    assert (places == 4).mean() > 0.9
    np.testing.assert_array_equal(played.recommender.first_places(30, contexts, none, NOTHING), lists)


def test_more_users_than_are_gathered_at_once_get_the_same() -> None:
    played = Played(list_size=30)
    batch = rows_of(interactions(seed=8, n=300, n_items=N_ITEMS), 0, 300)
    contexts, seen = contexts_of(batch), batch.history
    lists = played.recommender.rank(contexts, seen, NOTHING).items
    targets = batch.items.copy()
    places = played.recommender.places(contexts, targets, seen, NOTHING)
    np.testing.assert_array_equal(played.recommender.first_places(30, contexts, seen, NOTHING), lists)
    for first in (0, 128, 256):
        part = rows_of(batch, first, min(first + 128, 300))
        own = played.recommender.places(contexts_of(part), part.items.copy(), part.history, NOTHING)
        np.testing.assert_array_equal(own, places[first : first + 128])


def test_ranking_changes_nothing_and_its_candidates_teach_the_same() -> None:
    ranked, fresh = Played(), Played()
    assert ranked.mixture.digest() == fresh.mixture.digest()
    contexts = contexts_of(ranked.next)
    before = [ranked.mixture.digest(), ranked.embeddings.digest()]
    ranked.recommender.rank(contexts, ranked.next.history, NOTHING, scoring=True)
    assert [ranked.mixture.digest(), ranked.embeddings.digest()] == before
    targets = ranked.next.items.copy()
    n = ranked.recommender.learn_gate(contexts, targets, ranked.next.history, NOTHING)
    m = fresh.recommender.learn_gate(contexts_of(fresh.next), targets, fresh.next.history, NOTHING)
    assert n == m > 0
    assert ranked.mixture.digest() == fresh.mixture.digest()


def test_who_is_new_gets_what_is_popular() -> None:
    played = Played()
    nobody = Contexts(
        users=np.full(1, -1, dtype=np.int32), history=np.full((1, 10), -1, dtype=np.int32), now_ms=0
    )
    ranked = played.recommender.rank(nobody, np.zeros((1, 0), dtype=np.int32), NOTHING)
    assert {SOURCES[code] for code in ranked.sources[0]} == {"popularity"}
    popular = played.recommender.rank_popularity(np.zeros((1, 0), dtype=np.int32), 30)[0]
    assert set(ranked.items[0].tolist()) <= set(popular.tolist())


def test_nothing_learned_nothing_listed() -> None:
    fresh = Played(n_events=0)
    contexts = contexts_of(fresh.next)
    assert (fresh.recommender.rank(contexts, fresh.next.history, NOTHING).items == -1).all()


def test_who_has_seen_what_is_popular_gets_a_full_list() -> None:
    played = Played(list_size=5)
    popular = played.recommender.rank_popularity(np.zeros((1, 0), dtype=np.int32), N_ITEMS)
    warm = Contexts(users=np.full(1, -1, np.int32), history=popular[:, :10].copy(), now_ms=0)
    ranked = played.recommender.rank(warm, popular[:, :70].copy(), NOTHING)
    assert (ranked.items >= 0).all()
    assert not set(ranked.items[0].tolist()) & set(popular[0, :70].tolist())


def test_cold_and_warm_users_share_a_call() -> None:
    played = Played()
    history = played.next.history[-3:].copy()
    history[1] = -1
    both = Contexts(users=np.full(3, -1, np.int32), history=history, now_ms=0)
    ranked = played.recommender.rank(both, np.zeros((3, 0), dtype=np.int32), NOTHING)
    for row in range(3):
        one = Contexts(users=both.users[:1], history=history[row : row + 1], now_ms=0)
        alone = played.recommender.rank(one, np.zeros((1, 0), dtype=np.int32), NOTHING)
        assert ranked.items[row].tolist() == alone.items[0].tolist()
        assert ranked.sources[row].tolist() == alone.sources[0].tolist()


def test_the_nearest_of_the_encoder_are_available_ones() -> None:
    played = Played()
    embeddings, contexts = played.embeddings, contexts_of(rows_of(played.next, 0, 1))
    vectors = embeddings.user_vectors(contexts)
    every = embeddings.ranked(vectors, N_ITEMS, N_ITEMS)
    withdrawn = np.zeros(N_ITEMS, dtype=np.bool_)
    withdrawn[every.items[0, :40]] = True
    rest = embeddings.ranked(vectors, 5, N_ITEMS, withdrawn)
    assert rest.items[0].tolist() == every.items[0, 40:45].tolist()
    z = every.logits[0, 40:]
    assert rest.log_z[0] == pytest.approx(np.log(np.exp(z[np.isfinite(z)]).sum()), rel=1e-4)
    none = np.zeros((1, 0), dtype=np.int32)
    assert not withdrawn[played.recommender.rank(contexts, none, withdrawn).items[0]].any()
    nothing = played.recommender.rank(contexts, none, np.ones(N_ITEMS, dtype=np.bool_)).items
    assert (nothing == -1).all()


def test_a_mixture_of_another_build_is_refused() -> None:
    from schemas.errors import StateError

    arrays = Mixture().snapshot()
    arrays["shared"] = arrays["shared"][:-1]
    with pytest.raises(StateError, match="shared"):
        Mixture().restore(arrays)
