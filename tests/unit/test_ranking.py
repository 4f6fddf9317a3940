"""The ranker on real learners: filters, cold users, learning in the stream, similar items."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from learners.blend import Gate
from learners.blend_kernels import Popular
from learners.popularity import Popularity
from learners.transitions import Transitions
from schemas.learner import Contexts, Interactions
from schemas.runs import Int32
from serving.popular_pool import EARLY_EVENTS, RENEW_EVERY_MS, PopularPool
from serving.ranking import POPULARITY, TRANSITIONS, Ranker

H, N_ITEMS, N_USERS = 10, 60, 30
NO_SEEN = np.zeros((1, 0), dtype=np.int32)
AVAILABLE = np.zeros(0, dtype=np.bool_)


class Platform:
    """Users walk a ring of items: after item i mostly i + 1; sometimes one of a few hits, or any."""

    def __init__(self, *, exclude_seen: bool = True, list_size: int = 5) -> None:
        self.rng = np.random.default_rng(8)
        self.transitions = Transitions(16)
        self.popularity = Popularity((3_600_000.0, 86_400_000.0))
        self.gate = Gate()
        self.ranker = Ranker(
            self.transitions,
            self.popularity,
            self.gate,
            list_size=list_size,
            exclude_seen=exclude_seen,
        )
        self.history: Int32 = np.full((N_USERS, H), -1, dtype=np.int32)
        self.now_ms = 0
        self.hits: list[float] = []
        self.popular_hits: list[float] = []

    def play(self, steps: int, *, scored: bool = True) -> None:
        for _ in range(steps):
            self.now_ms += 60_000
            users = self.rng.permutation(N_USERS)[:16].astype(np.int32)
            last = self.history[users, -1]
            items = np.where(last < 0, self.rng.integers(0, N_ITEMS, 16), (last + 1) % N_ITEMS)
            chance = self.rng.random(16)
            items = np.where(chance < 0.05, self.rng.integers(0, 4, 16), items)
            items = np.where(chance > 0.9, self.rng.integers(0, N_ITEMS, 16), items).astype(np.int32)
            before = self.history[users]
            fresh = ~(before[:, -5:] == items[:, None]).any(axis=1)
            if scored:
                self._score(users, before, items, fresh)
            batch = Interactions(
                users=users,
                items=items,
                types=np.ones(16, dtype=np.int8),
                ts_ms=np.full(16, self.now_ms),
                weight=np.ones(16, dtype=np.float32),
                history=before,
                fresh=fresh,
                gap_ms=np.full(16, -1),
            )
            self.transitions.learn_many(batch)
            self.popularity.learn_many(batch)
            for user, item, is_fresh in zip(users, items, fresh, strict=True):
                if is_fresh:
                    self.history[user] = np.roll(self.history[user], -1)
                    self.history[user, -1] = item

    def _score(self, users: Int32, before: Int32, items: Int32, fresh: NDArray[np.bool_]) -> None:
        contexts = Contexts(users=users, history=before, now_ms=self.now_ms)
        ranked = self.ranker.rank(contexts, before, AVAILABLE, scoring=True)
        popular = self.ranker.rank_popularity(before, 5)
        self.hits.append(float((ranked.items == items[:, None]).any(axis=1)[fresh].mean()))
        self.popular_hits.append(float((popular == items[:, None]).any(axis=1)[fresh].mean()))
        self.ranker.learn_gate(contexts, np.where(fresh, items, -1).astype(np.int32), before, AVAILABLE)

    def context(self, *items: int) -> Contexts:
        history = np.full((1, H), -1, dtype=np.int32)
        if items:
            history[0, -len(items) :] = items
        return Contexts(users=np.array([-1], dtype=np.int32), history=history, now_ms=self.now_ms)


@pytest.fixture(scope="module")
def platform() -> Platform:
    played = Platform()
    played.play(120)
    return played


def test_it_learns_what_comes_next_and_beats_popularity(platform: Platform) -> None:
    assert np.mean(platform.hits[-50:]) > 0.5
    assert np.mean(platform.hits[-50:]) > 2 * np.mean(platform.popular_hits[-50:])
    assert platform.gate.n_learned > 0


def test_in_the_beginning_it_is_no_worse_than_popularity(platform: Platform) -> None:
    assert np.mean(platform.hits[:20]) > np.mean(platform.popular_hits[:20]) - 0.05


def test_the_next_item_is_listed_with_its_reason(platform: Platform) -> None:
    ranked = platform.ranker.rank(platform.context(29, 30), NO_SEEN, AVAILABLE)
    assert 31 in ranked.items[0, :3]
    place = ranked.items[0].tolist().index(31)
    assert ranked.sources[0, place] == TRANSITIONS
    assert ranked.reasons[0, place] in (29, 30)
    assert ((ranked.relevance > 0) & (ranked.relevance < 1)).all()
    assert (np.diff(ranked.scores[0]) <= 0).all()


def test_seen_and_withdrawn_items_are_not_listed(platform: Platform) -> None:
    withdrawn = np.zeros(N_ITEMS, dtype=np.bool_)
    withdrawn[[31, 32]] = True
    seen = np.array([[33, -1, 0, 1]], dtype=np.int32)
    ranked = platform.ranker.rank(platform.context(29, 30), seen, withdrawn)
    assert not set(ranked.items[0]) & {29, 30, 31, 32, 33, 0, 1}
    assert (ranked.items >= 0).all()


def test_a_cold_user_gets_what_is_popular(platform: Platform) -> None:
    ranked = platform.ranker.rank(platform.context(), NO_SEEN, AVAILABLE)
    assert set(ranked.items[0][:3]) <= set(platform.popularity.top(10, 0)) | set(
        platform.popularity.top(10, 1)
    )
    assert (ranked.sources == POPULARITY).all()
    assert (ranked.reasons == -1).all()
    assert ((ranked.relevance > 0) & (ranked.relevance < 1)).all()


def test_cold_and_warm_users_share_a_call(platform: Platform) -> None:
    cold, warm = platform.context(), platform.context(29, 30)
    both = Contexts(
        users=np.array([-1, -1, -1], dtype=np.int32),
        history=np.concatenate([warm.history, cold.history, warm.history]),
        now_ms=platform.now_ms,
    )
    none = np.zeros((3, 0), dtype=np.int32)
    ranked = platform.ranker.rank(both, none, AVAILABLE)
    for row, context in ((0, warm), (1, cold), (2, warm)):
        alone = platform.ranker.rank(context, NO_SEEN, AVAILABLE)
        assert ranked.items[row].tolist() == alone.items[0].tolist()
        assert ranked.sources[row].tolist() == alone.sources[0].tolist()


def test_ranking_changes_nothing(platform: Platform) -> None:
    learners: list[Any] = [platform.transitions, platform.popularity, platform.gate]
    before = [learner.digest() for learner in learners]
    first = platform.ranker.rank(platform.context(3, 4), NO_SEEN, AVAILABLE)
    again = platform.ranker.rank(platform.context(3, 4), NO_SEEN, AVAILABLE)
    assert first.items.tolist() == again.items.tolist()
    assert first.scores.tolist() == again.scores.tolist()
    assert [learner.digest() for learner in learners] == before


def test_no_users_no_lists(platform: Platform) -> None:
    nobody = Contexts(
        users=np.zeros(0, dtype=np.int32), history=np.zeros((0, H), dtype=np.int32), now_ms=platform.now_ms
    )
    assert platform.ranker.rank(nobody, np.zeros((0, 0), dtype=np.int32), AVAILABLE).items.shape == (0, 5)
    assert platform.ranker.learn_gate(nobody, np.zeros(0, dtype=np.int32)) == 0


def test_similar_items_are_the_neighbours(platform: Platform) -> None:
    items, scores = platform.ranker.similar_items(30, 6)
    assert {29, 31} <= set(items)
    assert 30 not in items
    assert len(items) == len(scores) == len(set(items)) == 6
    assert ((scores > 0) & (scores < 1)).all()
    assert (np.diff(scores) <= 0).all()
    unknown, _ = platform.ranker.similar_items(10_000, 6)
    assert len(unknown) == 0
    assert len(platform.ranker.similar_items(-1, 6)[0]) == 0


def test_popularity_lists_leave_out_seen_and_withdrawn(platform: Platform) -> None:
    top = platform.popularity.best(9, 0)
    withdrawn = np.zeros(int(top[1]) + 1, dtype=np.bool_)
    withdrawn[top[1]] = True
    lists = platform.ranker.rank_popularity(top[:1][None, :], 2, withdrawn=withdrawn)
    assert lists[0].tolist() == top[2:4].tolist()


def test_nothing_learned_nothing_listed() -> None:
    fresh = Platform()
    ranked = fresh.ranker.rank(fresh.context(1, 2), NO_SEEN, AVAILABLE)
    assert (ranked.items == -1).all()
    assert (fresh.ranker.rank_popularity(NO_SEEN, 3) == -1).all()
    assert len(fresh.ranker.similar_items(1, 3)[0]) == 0


def test_seen_items_come_back_where_they_may() -> None:
    played = Platform(exclude_seen=False, list_size=20)
    played.play(100)
    history = list(range(20, 30))
    ranked = played.ranker.rank(played.context(*history), np.array([history], dtype=np.int32), AVAILABLE)
    listed = set(ranked.items[0])
    assert not listed & set(history[-5:])
    assert listed & set(history[:-5])


def visits(items: Int32) -> Interactions:
    n = len(items)
    return Interactions(
        users=np.zeros(n, dtype=np.int32),
        items=items,
        types=np.ones(n, dtype=np.int8),
        ts_ms=np.full(n, 1_000),
        weight=np.ones(n, dtype=np.float32),
        history=np.full((n, H), -1, dtype=np.int32),
        fresh=np.ones(n, dtype=np.bool_),
        gap_ms=np.full(n, -1),
    )


def popular_only(n_items: int, list_size: int) -> Ranker:
    """A ranker that knows only how popular each of `n_items` is: the lower the slot, the more."""
    popularity = Popularity((3_600_000.0, 86_400_000.0))
    counts = np.arange(n_items, 0, -1) // 8 + 1
    popularity.learn_many(visits(np.repeat(np.arange(n_items, dtype=np.int32), counts)))
    return Ranker(Transitions(16), popularity, Gate(), list_size=list_size, exclude_seen=True)


def masked(n: int, withdrawn: slice) -> NDArray[np.bool_]:
    mask = np.zeros(n, dtype=np.bool_)
    mask[withdrawn] = True
    return mask


COLD = Contexts(users=np.array([-1], np.int32), history=np.full((1, H), -1, np.int32), now_ms=0)


@pytest.mark.parametrize("n_withdrawn", [0, 1, 150, 450, 700])
def test_lists_stay_full_when_the_most_popular_are_withdrawn(n_withdrawn: int) -> None:
    ranker = popular_only(800, 20)
    listed = ranker.rank(COLD, NO_SEEN, masked(800, slice(n_withdrawn))).items[0]
    assert (listed >= n_withdrawn).all()
    assert len(set(listed.tolist())) == 20


def test_a_long_list_is_filled_for_a_cold_user() -> None:
    ranker = popular_only(800, 500)
    listed = ranker.rank(COLD, NO_SEEN, AVAILABLE).items[0]
    assert len(set(listed[listed >= 0].tolist())) == 500
    listed = ranker.rank(COLD, NO_SEEN, masked(800, slice(299))).items[0]
    assert len(set(listed.tolist())) == 500
    assert listed.min() >= 299


def test_who_has_seen_what_is_popular_gets_a_full_list() -> None:
    """From the reserve, best first."""
    history = np.arange(H, dtype=np.int32)[None, :]
    warm = Contexts(users=np.array([-1], np.int32), history=history, now_ms=0)
    seen = np.arange(290, dtype=np.int32)[None, :]
    ranked = popular_only(800, 20).rank(warm, seen, masked(800, slice(300, 305)))
    assert ranked.items[0].tolist() == [*range(290, 300), *range(305, 315)]
    assert (ranked.sources == POPULARITY).all()
    assert ((ranked.relevance > 0) & (ranked.relevance < 1)).all()
    assert (np.diff(ranked.scores[0]) <= 0).all()


def test_popular_items_are_chosen_anew_only_when_availability_asks_for_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    popularity = Popularity((3_600_000.0, 86_400_000.0))
    counts = np.arange(800, 0, -1) // 8 + 1
    popularity.learn_many(visits(np.repeat(np.arange(800, dtype=np.int32), counts)))
    pool, weights = PopularPool(popularity, list_size=20), Gate().weights
    now, then, again = masked(800, slice(600)), masked(800, slice(50)), masked(800, slice(49))
    assert popularity.n_learned > EARLY_EVENTS
    pool.prepared(weights, now, 40)
    asked: list[int] = []
    top = popularity.top

    def counted(k: int, which: int = 0, *, withdrawn: NDArray[np.bool_] | None = None) -> Int32:
        asked.append(k)
        return top(k, which, withdrawn=withdrawn)

    monkeypatch.setattr(popularity, "top", counted)
    pool.prepared(weights, then, 40)
    n_first = len(asked)
    assert n_first > 0
    for _ in range(3):  # both masks in turn, and a withdrawal of what nobody would list
        assert pool.prepared(weights, now, 40).items.min() == 600
        assert pool.prepared(weights, then, 40).items.min() == 50
    pool.prepared(weights, masked(900, slice(850, 900)) | np.pad(now, (0, 100)), 40)
    assert len(asked) == n_first
    assert pool.prepared(weights, again, 40).items.min() == 49


def test_lists_take_a_new_order_after_a_while_and_scoring_at_once() -> None:
    popularity = Popularity((3_600_000.0, 86_400_000.0))
    popularity.learn_many(visits(np.repeat(np.arange(40, dtype=np.int32), 40)))
    published, scored = PopularPool(popularity, list_size=5), PopularPool(popularity, list_size=5)
    weights = Gate().weights
    assert popularity.n_learned > EARLY_EVENTS

    def best(popular: Popular) -> int:
        return int(popular.items[0, 0])

    assert best(published.prepared(weights, AVAILABLE, 9, now_ms=1_000)) == 0
    assert best(scored.prepared(weights, AVAILABLE, 9)) == 0
    popularity.learn_many(visits(np.full(4_000, 30, dtype=np.int32)))
    assert best(published.prepared(weights, AVAILABLE, 9, now_ms=1_000 + RENEW_EVERY_MS - 1)) == 0
    assert best(scored.prepared(weights, AVAILABLE, 9)) == 30
    assert best(published.prepared(weights, AVAILABLE, 9, now_ms=1_000 + RENEW_EVERY_MS)) == 30
    popularity.learn_many(visits(np.full(9_000, 20, dtype=np.int32)))
    assert best(published.prepared(weights, AVAILABLE, 9, now_ms=3)) == 20  # a clock that was set back


def test_the_baseline_is_exact_at_every_moment() -> None:
    popularity = Popularity((3_600_000.0, 86_400_000.0))
    rng = np.random.default_rng(3)
    ours = Ranker(Transitions(16), popularity, Gate(), list_size=5, exclude_seen=True)
    withdrawn = rng.random(2_000) < 0.4
    for _ in range(20):
        popularity.learn_many(visits((rng.zipf(1.2, 100) % 3_000).astype(np.int32)))
        shares = popularity.shares(1)
        shares[: len(withdrawn)][withdrawn[: len(shares)]] = 0.0
        order = np.argsort(-shares, kind="stable")
        order = order[shares[order] > 0]
        seen = order[[0, 3]].astype(np.int32)[None, :]
        expected = np.setdiff1d(order, seen[0], assume_unique=True)[:10]
        found = ours.rank_popularity(seen, 10, which=1, withdrawn=withdrawn)[0]
        assert found[found >= 0].tolist() == expected.tolist()


def test_withdrawn_items_are_similar_to_nothing(platform: Platform) -> None:
    items, _ = platform.ranker.similar_items(7, 5)
    withdrawn = np.zeros(N_ITEMS, dtype=np.bool_)
    withdrawn[items[0]] = True
    left, _ = platform.ranker.similar_items(7, 5, withdrawn)
    assert items[0] not in left.tolist()
    assert len(left) > 0


def test_from_a_cut_on_the_gate_depends_on_the_batches_alone() -> None:
    """One process goes on and publishes, another begins with the state at the cut: the same gate."""
    live = Platform()
    live.play(150)
    assert live.popularity.n_learned > EARLY_EVENTS
    live.ranker.settle()
    restored = Platform()
    restored.ranker.rank(restored.context(1), NO_SEEN, AVAILABLE, scoring=True)  # must not show
    for name in ("transitions", "popularity", "gate"):
        getattr(restored, name).restore(getattr(live, name).snapshot())
    restored.ranker.settle()
    restored.rng.bit_generator.state = live.rng.bit_generator.state
    restored.history[:], restored.now_ms = live.history, live.now_ms
    mask = masked(N_ITEMS, slice(0, 4))
    for step in range(80):
        scored = step % 4 == 0  # the others are learned only, as where the worker is behind
        live.play(1, scored=scored)
        restored.play(1, scored=scored)
        # Publishing, at moments of its own.
        live.ranker.rank(live.context(step % N_ITEMS), NO_SEEN, mask if step % 2 else AVAILABLE)
        assert live.gate.digest() == restored.gate.digest()
    assert live.hits[-20:] == restored.hits
    assert live.gate.n_learned > 0
