"""reelflow itself as a contender: the model that the worker learns and ranks with."""

from __future__ import annotations

from typing import Final

import numpy as np

from learners.evaluation import rank_of
from learners.prequential import Asked
from schemas.learner import Interactions
from schemas.runs import Int32
from schemas.settings import LearnerSettings, RankerSettings

from ..model import Model

PLACES: Final = 100


class ReelflowContender:
    """The worker's `Model`, one configuration for every data set.

    Parameters
    ----------
    seed : int
    exclude_seen : bool
    name : str
    """

    def __init__(self, *, seed: int = 0, exclude_seen: bool = True, name: str = "reelflow") -> None:
        self.name = name
        self._model = Model(
            LearnerSettings(seed=seed, device="cpu"),
            RankerSettings(list_size=PLACES, exclude_seen=exclude_seen),
        )
        self._lists: Int32 = np.zeros((0, PLACES), dtype=np.int32)
        self._withdrawn = np.zeros(0, dtype=np.bool_)

    def ranks(self, asked: Asked) -> Int32:
        """Places in lists of 100; (B,)."""
        ranked = self._model.ranker.rank(asked.contexts, asked.seen, self._withdrawn, scoring=True)
        self._lists = ranked.items
        return rank_of(asked.targets, self._lists)

    def lists(self, asked: Asked, k: int) -> Int32:
        """First `k` places of the lists; (B, k)."""
        return self._lists[:, :k]

    def learn(self, batch: Interactions) -> None:
        """Learn as the worker does."""
        self._model.learn(batch, self._withdrawn, reports=False)
