"""The probability learner on the columns that the model's learners share.

`learners.probability.Probability` takes impressions with their context. Here that context is put together
from what the worker knows: the events of a batch (`schemas.learner.Interactions`), and of each item its
creator, first tag and duration::

    exposure       impression, watch, skip          every other act says nothing of what was shown
    click          a watch that weighs more than 0
    long           a watch that weighs at least LONG_WEIGHT: watched to the end, or for half a minute
    complete       a watch that weighs at least COMPLETE_WEIGHT
    surface, hour  unknown in a batch that does not say

References
----------
As `learners.probability`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.learner import Arrays, Contexts, Interactions
from schemas.records import EVENT_TYPES
from schemas.runs import Float32, Int8, Int32, Int64

from .history_attention_kernels import AttentionTables
from .impressions import Impressions
from .probability import CATEGORIES, Probability, ProbabilityOptions
from .state import grown, taken

LONG_WEIGHT: Final = 0.7
COMPLETE_WEIGHT: Final = 1.0
DURATIONS_MS: Final = (7e3, 1e4, 1.5e4, 2e4, 3e4, 4.5e4, 6e4, 9e4, 1.2e5, 1.8e5, 3e5)

_WATCH: Final = EVENT_TYPES.index("watch")
_EXPOSURES: Final = np.array([name in {"impression", "watch", "skip"} for name in EVENT_TYPES])
_HOUR_MS: Final = 3_600_000


class ItemProbability(Probability):
    """Probability of a click for candidates; learns from the worker's batches.

    Parameters
    ----------
    options : ProbabilityOptions, optional
        Its `categories` are those of the product, whatever it says, and it has no numbers.
    max_items : int
        Items with attributes at most.
    """

    def __init__(
        self,
        options: ProbabilityOptions | None = None,
        attention: AttentionTables | None = None,
        *,
        max_items: int = 2_000_000,
    ) -> None:
        super().__init__(options, attention)
        if self.options.categories != CATEGORIES or self.options.numbers:
            raise ValueError("categories and numbers are the product's own")
        self._max_items = max_items
        self._attributes: Int32 = np.full((0, 3), -1, dtype=np.int32)

    def set_item(self, item: int, *, creator: int = -1, tag: int = -1, duration_ms: int = -1) -> None:
        """Attributes of an item by their numbers; -1 for what is not known."""
        if not 0 <= item < self._max_items:
            return
        self._attributes = grown(self._attributes, item + 1, -1)
        length = int(np.searchsorted(DURATIONS_MS, duration_ms)) if duration_ms > 0 else -1
        self._attributes[item] = creator, tag, length

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """Probability of a click (B, C) of candidate `items` (C,) for each context; state unchanged."""
        n_users, n_items = len(contexts.users), len(items)
        users = np.repeat(contexts.users, n_items)
        shown = np.tile(items, n_users)
        ts_ms = np.full(len(users), contexts.now_ms, dtype=np.int64)
        unknown = np.full((len(users), 4), -1, dtype=np.int8)
        # Candidates are alternatives, not a tie: each is described alone.
        batch = self._impressions(users, shown, ts_ms, unknown)
        found = self.probabilities(batch, tied=False)[:, 0]
        return found.reshape(n_users, n_items)

    def learn_many(self, batch: Interactions) -> None:
        """Learn the exposures of a batch in row order."""
        rows = np.flatnonzero(_EXPOSURES[batch.types])
        if not len(rows):
            return
        weight = batch.weight[rows]
        watch = (batch.types[rows] == _WATCH) & (weight > 0)
        outcomes = np.zeros((len(rows), 4), dtype=np.int8)
        outcomes[:, 0] = watch
        outcomes[:, 1] = watch & (weight >= LONG_WEIGHT)
        outcomes[:, 2] = watch & (weight >= COMPLETE_WEIGHT)
        self.learn(self._impressions(batch.users[rows], batch.items[rows], batch.ts_ms[rows], outcomes))

    def _impressions(self, users: Int32, items: Int32, ts_ms: Int64, outcomes: Int8) -> Impressions:
        categories = np.full((len(users), len(CATEGORIES)), -1, dtype=np.int32)
        categories[:, 0], categories[:, 1] = users, items
        known = np.flatnonzero((items >= 0) & (items < len(self._attributes)))
        categories[known, 2:5] = self._attributes[items[known]]
        categories[:, 6] = ts_ms // (3 * _HOUR_MS) % 8
        return Impressions(
            users=users,
            items=items,
            ts_ms=ts_ms,
            categories=categories,
            numbers=np.zeros((len(users), 0), dtype=np.float32),
            outcomes=outcomes,
        )

    def _arrays(self) -> Arrays:
        return super()._arrays() | {"items.attributes": self._attributes}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            Arrays are missing, or of another plan.
        """
        attributes = taken(arrays, "items.attributes", self._attributes)
        super().restore({name: array for name, array in arrays.items() if name != "items.attributes"})
        self._attributes = attributes
