"""Baselines that count pairs of items: Markov chain, skip-grams, item neighbours."""

from __future__ import annotations

from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from learners.prequential import Asked
from schemas.learner import Interactions
from schemas.runs import Float32, Int32

from .pair_counts import pair_counts
from .popularity import Popular
from .scoring import ByScore, Room

_KAPPA: Final = np.float32(5.0)


class _Rows(ByScore):
    """Rows of counts of the newest items, mixed, each smoothed towards popularity (half-life of 7 days)::

        score_x = sum_j decay^j (C[a_j, x] + kappa q_x) / (C[a_j] + kappa)

    a_0 is the newest item, C[a] the sum of its row, q popularity's shares, kappa 5.
    """

    def __init__(self, room: Room, reach: int, newest: int, decay: float, *, two_way: bool) -> None:
        self._reach = reach
        self._fading = (decay ** np.arange(newest - 1, -1, -1)).astype(np.float32)
        self._two_way = two_way
        self._pairs = pair_counts(room.n_items)
        self._totals: Float32 = np.zeros(room.n_items, dtype=np.float32)
        self._popular = Popular(room, 7.0)

    def scores(self, asked: Asked) -> Float32:
        """Scores of all candidates, (B, n_items)."""
        rows = np.ascontiguousarray(asked.contexts.history[:, -len(self._fading) :])
        weight: Float32 = self._fading / (self._totals[rows] + _KAPPA)
        prior = self._popular.now(asked.n_items).astype(np.float32)
        out = self._pairs.mixed(rows, weight, asked.n_items)
        out += _KAPPA * weight.sum(axis=1, keepdims=True) * prior
        return out

    def learn(self, batch: Interactions) -> None:
        """Learn the positives of a micro-batch."""
        a, b, weight = _window(batch, self._reach)
        for head, tail in ((a, b), (b, a)) if self._two_way else ((a, b),):
            self._pairs.add(head, tail, weight)
            np.add.at(self._totals, head, weight)
        self._popular.learn(batch)


class Markov(_Rows):
    """First-order Markov chain, ``C[a, x] += 1`` for x right after a, over the rows of the last 8 items.

    The newest item's row alone is 1.9 to 5.3 points of R@20 weaker (four sets; not tried on kuairand).
    """

    def __init__(self, room: Room) -> None:
        self.name = "markov"
        super().__init__(room, 1, 8, 0.6, two_way=False)


class SkipGram(_Rows):
    """Two-way skip-gram counts: ``C[a, x] += 1 / d`` and ``C[x, a] += 1 / d`` for x the d-th after a, d <= 8.

    Over the rows of the last 20 items, decay .8.
    """

    def __init__(self, room: Room) -> None:
        self.name = "skip_gram"
        super().__init__(room, 8, 20, 0.8, two_way=True)


class ItemNeighbours(ByScore):
    """Item neighbours by co-occurrence among a user's last 50 positives.

    ``score_x = sum_j decay^j C[a_j, x] / sqrt((c[a_j] + 5) (c[x] + 5)) + 10 q_x``, C symmetric counts of
    pairs, c counts of positives, q shares of popularity (half-life of 7 days).
    """

    def __init__(
        self, room: Room, *, decay: float = 0.95, shrink: float = 5.0, back_off: float = 10.0
    ) -> None:
        self.name = "item_knn"
        self._back_off = np.float32(back_off)
        self._decay = decay
        self._shrink = shrink
        self._pairs = pair_counts(room.n_items)
        self._counts: Float32 = np.zeros(room.n_items, dtype=np.float32)
        self._popular = Popular(room, 7.0)

    def scores(self, asked: Asked) -> Float32:
        """Scores of all candidates, (B, n_items)."""
        rows = asked.contexts.history
        fading = self._decay ** np.arange(rows.shape[1] - 1, -1, -1, dtype=np.float32)
        damping = 1.0 / np.sqrt(self._counts + self._shrink)
        out = self._pairs.mixed(rows, (fading * damping[rows]).astype(np.float32), asked.n_items)
        out *= damping[: asked.n_items]
        out += self._back_off * self._popular.now(asked.n_items).astype(np.float32)
        return out

    def learn(self, batch: Interactions) -> None:
        """Learn the positives of a micro-batch."""
        a, b, _ = _window(batch, batch.history.shape[1])
        ones = np.ones(len(a), dtype=np.float32)
        self._pairs.add(a, b, ones)
        self._pairs.add(b, a, ones)
        np.add.at(self._counts, batch.items[batch.weight > 0], np.float32(1.0))
        self._popular.learn(batch)


def _window(batch: Interactions, reach: int) -> tuple[Int32, Int32, Float32]:
    """Pairs (earlier, later) up to `reach` positives apart, and 1 / distance; repeats are left out."""
    room = len(batch) * reach
    a, b = np.empty(room, dtype=np.int32), np.empty(room, dtype=np.int32)
    weight = np.empty(room, dtype=np.float32)
    n = _pairs_of(batch.items, batch.weight > 0, batch.history, reach, a, b, weight)
    return a[:n], b[:n], weight[:n]


@njit(nogil=True, cache=True)
def _pairs_of(
    items: Int32, positive: NDArray[np.bool_], history: Int32, reach: int, a: Int32, b: Int32, weight: Float32
) -> int:
    n = 0
    for i in range(len(items)):
        if not positive[i]:
            continue
        for d in range(1, min(reach, history.shape[1]) + 1):
            earlier = history[i, history.shape[1] - d]
            if earlier < 0:
                break
            if earlier != items[i]:
                a[n], b[n], weight[n] = earlier, items[i], np.float32(1.0 / d)
                n += 1
    return n
