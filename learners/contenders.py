"""Contenders that score every candidate, and the two simplest: popularity and first-order Markov."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final

import numpy as np

from schemas.learner import Interactions
from schemas.runs import Float32, Int32

from .markov import FirstOrderMarkov
from .popularity import Popularity
from .prequential import Asked
from .stream_kernels import close_seen, ranks_of

DAY_MS: Final = 86_400_000


class ScoringContender(ABC):
    """A contender that has a score for every candidate; ranks and lists follow from it.

    Of equal scores the list shows the item met last, which is as good a guess as any; the rank
    counts all of them before the target.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._scores: Float32 = np.zeros((0, 0), dtype=np.float32)

    @abstractmethod
    def scores(self, asked: Asked) -> Float32:
        """Scores of all candidates, (B, n_items), a fresh array; -inf or nan for what is not known."""

    @abstractmethod
    def learn(self, batch: Interactions) -> None:
        """Learn a micro-batch."""

    def ranks(self, asked: Asked) -> Int32:
        """0-based place of each target; (B,)."""
        self._scores = np.ascontiguousarray(self.scores(asked), dtype=np.float32)
        places = np.empty(len(asked), dtype=np.int32)
        ranks_of(self._scores, asked.targets, asked.seen, places)
        return places

    def lists(self, asked: Asked, k: int) -> Int32:
        """First `k` places of each list; (B, k)."""
        scores = self._scores
        close_seen(scores, asked.seen)
        n = scores.shape[1]
        found = np.full((len(scores), k), -1, dtype=np.int32)
        top = np.argpartition(scores, max(n - k, 0), axis=1)[:, -k:] if n else found[:, :0]
        values = np.take_along_axis(scores, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        best = np.take_along_axis(top, order, axis=1).astype(np.int32)
        best[~np.isfinite(np.take_along_axis(values, order, axis=1))] = -1
        found[:, : best.shape[1]] = best
        return found


class PopularityContender(ScoringContender):
    """Decayed popularity: ``sum of 2^(-(now - t) / half_life)`` over the item's visits.

    Parameters
    ----------
    half_life_days : float
        Infinite for counts that never fade.
    name : str, optional
        By default ``popularity-<half_life_days>d``, ``popularity-ever`` without decay.
    """

    def __init__(self, half_life_days: float, name: str | None = None) -> None:
        own = "ever" if np.isinf(half_life_days) else f"{half_life_days:g}d"
        super().__init__(name or f"popularity-{own}")
        self._popularity = Popularity((half_life_days * DAY_MS,))

    def scores(self, asked: Asked) -> Float32:
        """Shares, the same in every row."""
        row = np.zeros(asked.n_items, dtype=np.float32)
        shares = self._popularity.shares()[: asked.n_items]
        row[: len(shares)] = shares
        return np.tile(row, (len(asked), 1))

    def learn(self, batch: Interactions) -> None:
        """Count."""
        self._popularity.learn_many(batch)


class MarkovContender(ScoringContender):
    """First-order Markov chain with rows that are never full; popularity decides between equals."""

    def __init__(self, name: str = "markov") -> None:
        super().__init__(name)
        self._markov = FirstOrderMarkov(width=1_024)
        self._popularity = Popularity((np.inf,))

    def scores(self, asked: Asked) -> Float32:
        """``p + 1e-3 q``: share p of the newest item's successors, q popularity over its largest."""
        n = asked.n_items
        scores = self._markov.scores(asked.contexts, n)
        shares = self._popularity.shares()[:n]
        scores[:, : len(shares)] += np.float32(1e-3) * shares / max(float(shares.max(initial=0.0)), 1e-9)
        return scores

    def learn(self, batch: Interactions) -> None:
        """Count."""
        self._markov.learn_many(batch)
        self._popularity.learn_many(batch)
