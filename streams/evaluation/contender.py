"""reelflow itself as a contender: the recommender that the worker learns and ranks with."""

from __future__ import annotations

from typing import Final

import numpy as np

from learners.prequential import Asked
from schemas.learner import Interactions
from schemas.runs import Int32
from schemas.settings import LearnerSettings, RankerSettings
from serving.recommender import Recommender

from ..model_parts import build_parts

PLACES: Final = 100


class ReelflowContender:
    """The worker's `Recommender`, one configuration for every data set.

    Where seen items may be ranked, the newest may be, too: in a recorded stream they are watched
    again.

    Parameters
    ----------
    seed : int
    exclude_seen : bool
    name : str
    """

    def __init__(self, *, seed: int = 0, exclude_seen: bool = True, name: str = "reelflow") -> None:
        self.name = name
        parts = build_parts(
            LearnerSettings(seed=seed),
            RankerSettings(exclude_seen=exclude_seen),
            list_size=PLACES,
            device="cpu",
            n_never=0,
        )
        if not isinstance(parts.ranker, Recommender):
            raise TypeError("the evaluation needs embeddings")
        self._recommender = parts.ranker
        self._asked: Asked | None = None
        self._withdrawn = np.zeros(0, dtype=np.bool_)

    def ranks(self, asked: Asked) -> Int32:
        """Places among all that is proposed, some hundreds; (B,)."""
        self._asked = asked
        return self._recommender.places(asked.contexts, asked.targets, asked.seen, self._withdrawn)

    def lists(self, asked: Asked, k: int) -> Int32:
        """First `k` places of the lists; (B, k)."""
        return self._recommender.first_places(k, asked.contexts, asked.seen, self._withdrawn)

    def teach(self, asked: Asked) -> None:
        """The mixture learns from it with the next batch."""
        self._asked = asked

    def learn(self, batch: Interactions) -> None:
        """Learn as the worker does; the mixture from what was asked."""
        asked, self._asked = self._asked, None
        if asked is not None:
            self._recommender.learn_gate(asked.contexts, asked.targets, asked.seen)
        self._recommender.learn(batch)
