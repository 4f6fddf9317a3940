"""Places of targets by popularity and by first-order Markov, against ranking every item."""

from __future__ import annotations

import numpy as np
import pytest

from learners.baselines import BaselinePlaces
from learners.markov import FirstOrderMarkov
from learners.popularity import Popularity
from schemas.learner import Contexts, Interactions
from schemas.records import EVENT_TYPES
from schemas.runs import Int32

WATCH = EVENT_TYPES.index("watch")
NONE_GONE = np.zeros(0, dtype=np.bool_)


def visits_of(moves: list[tuple[int, int]]) -> Interactions:
    """Visits (item before, item), all at one time; -1 for nothing before."""
    last, items = np.array(moves, dtype=np.int32).T
    n = len(items)
    return Interactions(
        users=np.arange(n, dtype=np.int32), items=items.copy(), types=np.full(n, WATCH, np.int8),
        ts_ms=np.full(n, 1_000, np.int64), weight=np.ones(n, np.float32), history=last[:, None].copy(),
        fresh=np.ones(n, np.bool_), gap_ms=np.zeros(n, np.int64),
    )  # fmt: skip


def learned(moves: list[tuple[int, int]], k: int) -> tuple[BaselinePlaces, Popularity, FirstOrderMarkov]:
    popularity, markov = Popularity((86_400_000.0,)), FirstOrderMarkov()
    batch = visits_of(moves)
    popularity.learn_many(batch)
    markov.learn_many(batch)
    return BaselinePlaces(popularity, markov, k=k), popularity, markov


def contexts_of(histories: list[list[int]]) -> Contexts:
    history = np.array(histories, dtype=np.int32)
    return Contexts(users=np.arange(len(history), dtype=np.int32), history=history, now_ms=1_000)


def test_by_hand() -> None:
    # Visits: item 0 three, 1 and 2 two each, 3 one, 4 none. After item 0: 3 once, 1 once.
    places, *_ = learned([(-1, 0), (-1, 0), (-1, 0), (-1, 1), (-1, 2), (-1, 2), (0, 1), (0, 3)], k=20)
    contexts = contexts_of([[-1, -1], [-1, 2], [-1, 0], [-1, 0], [1, 0], [-1, 0], [-1, 0]])
    targets = np.array([0, 1, 1, 3, 3, 2, 4], np.int32)
    by_popularity, by_markov = places.places(contexts, targets, NONE_GONE)
    # 1 ties with 2, which counts unless it is in the history; nobody ever watched 4.
    assert by_popularity.tolist() == [0, 1, 1, 2, 1, 1, -1]
    # From 0: 1 and 3 tie in moves and 1 has more visits; then what is popular: 2.
    assert by_markov.tolist() == [0, 1, 0, 1, 0, 2, -1]


def test_what_is_withdrawn_is_in_nobodys_way() -> None:
    places, *_ = learned([(-1, 0), (-1, 0), (-1, 1), (3, 2), (3, 2), (3, 1)], k=20)
    gone = np.array([True, False, True])
    by_popularity, by_markov = places.places(
        contexts_of([[-1, -1], [-1, 3]]), np.array([1, 1], np.int32), gone
    )
    assert by_popularity.tolist() == [0, 0]
    assert by_markov.tolist() == [0, 0]


@pytest.mark.parametrize("k", [1, 5, 20])
@pytest.mark.parametrize("n_items", [4, 60, 400])
def test_as_ranking_every_item(k: int, n_items: int) -> None:
    rng = np.random.default_rng(k * n_items)
    draw = (rng.zipf(1.3, (2_000, 2)) % n_items).astype(np.int32)
    places, popularity, markov = learned([(int(a), int(b)) for a, b in draw], k=k)
    n = 300
    history = (rng.zipf(1.3, (n, 12)) % n_items).astype(np.int32)
    history[:20] = -1
    targets = rng.integers(0, n_items, n).astype(np.int32)
    clear = ~(history == targets[:, None]).any(axis=1)
    gone = rng.random(n_items) < 0.1
    gone[targets] = False
    contexts = contexts_of(history.tolist())
    by_popularity, by_markov = places.places(contexts, targets, gone)

    counts = popularity.view()[0][:n_items, 0]
    rows = markov.scores(contexts, n_items)

    def place(i: int, above: np.ndarray) -> int:
        at = int(np.count_nonzero([above[b] for b in range(n_items) if open_[b] and b != targets[i]]))
        return at if at < k and counts[targets[i]] > 0 else -1

    for i in np.flatnonzero(clear).tolist():
        t = targets[i]
        open_ = ~gone
        open_[history[i][history[i] >= 0]] = False
        assert by_popularity[i] == place(i, counts >= counts[t])
        above = (rows[i] > rows[i, t]) | ((rows[i] == rows[i, t]) & (counts >= counts[t]))
        assert by_markov[i] == place(i, above)


def test_nothing_is_known_before_anything_was_learned() -> None:
    places = BaselinePlaces(Popularity((86_400_000.0,)), FirstOrderMarkov(), k=20)
    targets: Int32 = np.array([0, 3], np.int32)
    for found in places.places(contexts_of([[-1], [2]]), targets, NONE_GONE):
        assert found.tolist() == [-1, -1]
