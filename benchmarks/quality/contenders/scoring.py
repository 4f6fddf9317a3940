"""What the baselines share: a score for every item, and the place of the target by it."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from msgspec import Struct

from learners.prequential import Asked
from learners.stream_kernels import ranks_of
from schemas.learner import Interactions
from schemas.runs import Float32, Int32


class Room(Struct, frozen=True):
    """How many users and items a stream will ever have: sizes of arrays, nothing that is learned from."""

    n_users: int
    n_items: int


class ByScore(ABC):
    """A contender that scores every item known so far; unlike `ScoringContender` it keeps no lists."""

    name: str

    @abstractmethod
    def scores(self, asked: Asked) -> Float32:
        """Scores (B, n_items), the caller's to overwrite."""

    @abstractmethod
    def learn(self, batch: Interactions) -> None:
        """Learn from a micro-batch, in order."""

    def ranks(self, asked: Asked) -> Int32:
        """0-based place of each target among all items that may be ranked, ties against it; (B,)."""
        places = np.empty(len(asked), dtype=np.int32)
        ranks_of(np.ascontiguousarray(self.scores(asked)), asked.targets, asked.seen, places)
        return places
