"""What everybody watches, newer events counting more."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learners.prequential import Asked
from schemas.learner import Interactions
from schemas.runs import Float32

from .scoring import ByScore, Room

DAY_MS: Final = 86_400_000
_GONE: Final = 1e-200


class Popular(ByScore):
    """``score_i = sum over positives of i of 2^(-age / half-life)``, the same for everybody.

    Parameters
    ----------
    half_life_days : float
        Infinity counts for ever.

    Notes
    -----
    Scores of one time are multiples of those of another, so `ranks` needs no decay; ties among
    items that were never watched, or so long ago that nothing is left, are ties. Cost: O(n_items)
    a micro-batch.
    """

    def __init__(self, room: Room, half_life_days: float = math.inf) -> None:
        self.name = "popularity_ever" if math.isinf(half_life_days) else f"popularity_{half_life_days:g}d"
        self._half_life_ms = half_life_days * DAY_MS
        self._at_ms = 0
        self._weight: NDArray[np.float64] = np.zeros(room.n_items, dtype=np.float64)

    def scores(self, asked: Asked) -> Float32:
        """Scores of all candidates, (B, n_items)."""
        one = self.now(asked.n_items).astype(np.float32)
        return np.repeat(one[None, :], len(asked.targets), axis=0)

    def now(self, n_items: int) -> NDArray[np.float64]:
        """Shares of what was watched (n_items,), of the time of the last micro-batch."""
        part = self._weight[:n_items]
        return part / max(float(part.sum()), 1.0)

    def learn(self, batch: Interactions) -> None:
        """Learn the positives of a micro-batch."""
        positive = batch.weight > 0
        now_ms = int(batch.ts_ms.max())
        self._weight *= 0.5 ** ((now_ms - self._at_ms) / self._half_life_ms)
        self._weight[self._weight < _GONE] = 0.0
        self._at_ms = now_ms
        age = (now_ms - batch.ts_ms[positive]) / self._half_life_ms
        np.add.at(self._weight, batch.items[positive], 0.5**age)
