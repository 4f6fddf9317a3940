"""reelflow itself as a contender: the recommender that the worker learns and ranks with."""

from __future__ import annotations

from typing import Final

import numpy as np

from learners.evaluation import places_in
from learners.prequential import Asked, Bools
from schemas.learner import Contexts, Interactions
from schemas.runs import Int32
from schemas.settings import LearnerSettings, RankerSettings
from serving.ranking import Ranker
from serving.recommender import Recommender

from ..model_parts import Parts, build_parts

PLACES: Final = 100


def parts_of(learner: LearnerSettings, *, exclude_seen: bool) -> Parts:
    """Where seen items may be ranked, the newest may be, too: in a recorded stream they are watched again."""
    ranker = RankerSettings(exclude_seen=exclude_seen)
    return build_parts(learner, ranker, list_size=PLACES, device=learner.device, n_never=0, with_tastes=False)


class ReelflowContender:
    """The worker's `Recommender`.

    Parameters
    ----------
    learner : LearnerSettings
    exclude_seen : bool
    name : str
    """

    def __init__(
        self, learner: LearnerSettings, *, exclude_seen: bool = True, name: str = "reelflow"
    ) -> None:
        self.name = name
        parts = parts_of(learner, exclude_seen=exclude_seen)
        if not isinstance(parts.ranker, Recommender):
            raise TypeError("the evaluation needs embeddings")
        self._recommender = parts.ranker
        self._asked: Asked | None = None
        self._withdrawn = np.zeros(0, dtype=np.bool_)

    def ranks(self, asked: Asked) -> Int32:
        """Places among all that is proposed, some hundreds; (B,)."""
        self._asked = asked
        return self._recommender.places(asked.contexts, asked.targets, asked.seen, self._withdrawn)

    def places(self, contexts: Contexts, targets: Int32, seen: Int32, withdrawn: Bools) -> Int32:
        """Places among what is not withdrawn, for the asking; nothing is learned from it."""
        return self._recommender.places(contexts, targets, seen, withdrawn)

    def lists(self, asked: Asked, k: int) -> Int32:
        """First `k` places of the lists; (B, k)."""
        return self._recommender.first_places(k, asked.contexts, asked.seen, self._withdrawn)

    def teach(self, asked: Asked) -> None:
        """The mixture learns from it with the next batch."""
        self._asked = asked

    def learn(self, batch: Interactions) -> None:
        """Learn as the worker does; the mixture from what was asked."""
        self.teach_mixture()
        self._recommender.learn(batch)

    def teach_mixture(self) -> None:
        """Teach the mixture from what was asked since the last batch."""
        asked, self._asked = self._asked, None
        if asked is not None:
            self._recommender.learn_gate(asked.contexts, asked.targets, asked.seen)


class SparseContender:
    """The worker's `Ranker` without embeddings: transitions and popularity under the smaller gate.

    Parameters
    ----------
    learner : LearnerSettings
    exclude_seen : bool
    name : str
    """

    def __init__(
        self, learner: LearnerSettings, *, exclude_seen: bool = True, name: str = "reelflow"
    ) -> None:
        self.name = name
        parts = parts_of(learner, exclude_seen=exclude_seen)
        if not isinstance(parts.ranker, Ranker):
            raise TypeError("this is for settings without embeddings")
        self._ranker = parts.ranker
        self._learners = (parts.transitions, parts.popularity)
        self._asked: Asked | None = None
        self._listed: Int32 = np.zeros((0, PLACES), dtype=np.int32)
        self._withdrawn = np.zeros(0, dtype=np.bool_)

    def ranks(self, asked: Asked) -> Int32:
        """Places in lists of 100, ties within them against the target; (B,)."""
        self._asked = asked
        ranked = self._ranker.rank(asked.contexts, asked.seen, self._withdrawn, scoring=True)
        self._listed = ranked.items
        return places_in(asked.targets, ranked.items, ranked.scores)

    def lists(self, asked: Asked, k: int) -> Int32:
        """First `k` places of the lists just ranked; (B, k)."""
        return self._listed[:, :k]

    def teach(self, asked: Asked) -> None:
        """The gate learns from it with the next batch."""
        self._asked = asked

    def learn(self, batch: Interactions) -> None:
        """Learn as the worker does; the gate from what was asked."""
        asked, self._asked = self._asked, None
        if asked is not None:
            self._ranker.learn_gate(asked.contexts, asked.targets, asked.seen)
        for learner in self._learners:
            learner.learn_many(batch)
