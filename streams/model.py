"""The model of one worker: item names, learners, ranker, and the board that scores them.

Everything here is the fold of the whole log; nothing here belongs to a partition.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from learners.baselines import lists_with_popular
from learners.blend import Gate
from learners.device import resolve_device
from learners.drift import DriftMonitor
from learners.embeddings import Embeddings
from learners.evaluation import PrequentialBoard, rank_of
from learners.markov import FirstOrderMarkov
from learners.popularity import Popularity
from learners.tags import TagChain
from learners.transitions import Transitions
from schemas.interning import Interner
from schemas.learner import Contexts, Interactions
from schemas.records import EVENT_TYPES, Item
from schemas.runs import Float32, Int32
from schemas.settings import LearnerSettings, RankerSettings
from serving.ranking import Ranker

from .catalogue import Catalogue

TOP: Final = 10
MICRO_BATCH: Final = 128
WINDOW: Final = 100
BOARD_NAMES: Final = ("reelflow", "popularity", "markov")
HOUR_MS: Final = 3_600_000
WATCH: Final = EVENT_TYPES.index("watch")
POPULARITY_HALF_LIFE: Final = 0
"""The baseline uses the first (shortest) configured half-life."""

Bools = NDArray[np.bool_]


class Model:
    """Learners and what joins them; touched by one thread.

    Parameters
    ----------
    learner : LearnerSettings
    ranker : RankerSettings
    """

    def __init__(self, learner: LearnerSettings, ranker: RankerSettings) -> None:
        self.items = Interner(capacity=learner.max_items)
        self.users = Interner(capacity=learner.max_users)
        self.catalogue = Catalogue(self.items)
        self.transitions = Transitions(
            learner.transition_width,
            half_life_ms=learner.transition_half_life_h * HOUR_MS,
            max_items=learner.max_items,
        )
        self.markov = FirstOrderMarkov(max_items=learner.max_items)
        self.popularity = Popularity(
            tuple(hours * HOUR_MS for hours in learner.popularity_half_lives_h), max_items=learner.max_items
        )
        self.tags = TagChain()
        self.gate = Gate()
        self.embeddings: Embeddings | None = None
        self.device = "none"
        if learner.embeddings:
            device = resolve_device(learner.device)
            self.embeddings = Embeddings(
                dim=learner.dim, history=learner.history, seed=learner.seed, device=device
            )
            self.device = str(device)
        self.ranker = Ranker(
            self.transitions,
            self.popularity,
            self.embeddings,
            self.gate,
            list_size=max(ranker.list_size, TOP),
            exclude_seen=ranker.exclude_seen,
        )
        self.board = PrequentialBoard(BOARD_NAMES, k=TOP, window=WINDOW)
        self.drift = DriftMonitor()
        self.n_drifts = 0
        self._evaluate_ratio = ranker.evaluate_ratio
        self._rng = np.random.default_rng(learner.seed)

    def learn(self, batch: Interactions, withdrawn: Bools, *, on_scored: Callable[[int], None]) -> None:
        """Predict, score, then learn, in micro-batches of `MICRO_BATCH` events.

        Where nothing is scored and no gradient is taken, the whole batch is one step: counts do
        not depend on where batches end.
        """
        size = MICRO_BATCH if self.embeddings is not None or self._evaluate_ratio > 0 else len(batch)
        for start in range(0, len(batch), size):
            part = rows_of(batch, slice(start, start + size))
            if self._evaluate_ratio and self._rng.random() < self._evaluate_ratio:
                on_scored(self._score(part, withdrawn))
            self._learn(part)

    def _learn(self, batch: Interactions) -> None:
        self.transitions.learn_many(batch)
        self.popularity.learn_many(batch)
        self.tags.learn_many(batch)
        self.markov.learn_many(batch)
        if self.embeddings is not None:
            self.embeddings.learn_many(batch)

    def _score(self, batch: Interactions, withdrawn: Bools) -> int:
        """Rank for the users of fresh watches, before the batch is learned; train the gate on them.

        Scored are watches of items that are not in the user's history: lists leave those out.
        """
        scored = batch.fresh & (batch.types == WATCH) & ~(batch.history == batch.items[:, None]).any(axis=1)
        rows = np.flatnonzero(scored)
        if not len(rows):
            return 0
        asked = rows_of(batch, rows)
        contexts = Contexts(users=asked.users, history=asked.history, now_ms=int(asked.ts_ms[-1]))
        ours = self.ranker.rank(contexts, asked.history, withdrawn).items[:, :TOP]
        popular = self.popularity.top(TOP * 2 + asked.history.shape[1], POPULARITY_HALF_LIFE)
        none: Int32 = np.zeros((len(rows), 0), dtype=np.int32)
        lists = {
            "reelflow": ours,
            "popularity": lists_with_popular(none, asked.history, popular, withdrawn, TOP),
            "markov": lists_with_popular(
                self.markov.top(contexts, TOP * 2), asked.history, popular, withdrawn, TOP
            ),
        }
        ranks = {name: rank_of(asked.items, found) for name, found in lists.items()}
        self.board.update(ranks)
        self.n_drifts += self.drift.update(ranks["reelflow"] >= 0)
        self.ranker.learn_gate(contexts, asked.items, asked.history, withdrawn)
        return len(rows)

    def put_item(self, item: Item) -> None:
        """Take in catalogue facts."""
        self.tags.set_item_tags(self.catalogue.put(item), item.tags)

    def popular(self, limit: int, withdrawn: Bools) -> tuple[Int32, Float32]:
        """The most popular available items and their shares."""
        items = self.popularity.top(limit + int(withdrawn.sum()), POPULARITY_HALF_LIFE)
        items = items[items >= 0]
        items = items[~withdrawn[items]][:limit]
        return items, self.popularity.shares(POPULARITY_HALF_LIFE)[items]


def rows_of(batch: Interactions, rows: slice | NDArray[np.intp]) -> Interactions:
    """Some rows of a batch."""
    return Interactions(**{name: getattr(batch, name)[rows] for name in Interactions.__struct_fields__})
