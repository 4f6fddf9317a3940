"""The probability learner on the columns that the model's learners share.

`learners.probability.Probability` takes impressions with their context. Here both are put together from
what the worker knows: the events of a batch (`schemas.learner.Interactions`), which
`learners.attribution` turns into exposures and what came of them, and of each item its creator, first
tag, duration and surface. To click and long view comes the like (`learners.like_filter`)::

    click          a watch that weighs more than 0, or any other act for the item
    long           a watch that weighs at least LONG_WEIGHT: to the end, or for as long as counts as the whole
    complete       a watch that weighs at least COMPLETE_WEIGHT: watched again
    like           a like before the exposure closed
    hour           of the day in three-hour steps, UTC
    surface        the event's, else the item's

Clicks and long views are learned as soon as they are known, likes when the exposure closes. All of it is
a function of the events and their order: state with everything in it, open exposures too, is small
enough for every checkpoint.

References
----------
As `learners.probability`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.learner import Arrays, Contexts, Interactions
from schemas.runs import Float32, Int8, Int32, Int64

from .attribution import (
    CLOCK,
    COMPLETE_WEIGHT,
    LONG_WEIGHT,
    SETTLE,
    Exposures,
    attribute,
    no_exposures,
    room_for,
)
from .growth import grown
from .history_attention_kernels import Attentions
from .impression_memory import Memory, no_memory
from .impressions import Impressions
from .like_filter import LIKE_KEYS, LikeFilter, learn_told, like_logits, like_room, no_likes
from .logistic_filter import sigmoid_of
from .probability import Probability, ProbabilityOptions
from .probability_inputs import CATEGORIES, keys_among
from .state import taken
from .target_statistics import N_TARGETS

__all__ = ["COMPLETE_WEIGHT", "LONG_WEIGHT", "ItemProbability", "Scores"]

DURATIONS_MS: Final = (7e3, 1e4, 1.5e4, 2e4, 3e4, 4.5e4, 6e4, 9e4, 1.2e5, 1.8e5, 3e5)
WINDOW_MS: Final = 1_800_000
CAPACITY: Final = 1 << 16

_SURFACE: Final = CATEGORIES.index("surface")
_HOUR_MS: Final = 3_600_000
_ATTRIBUTES: Final = 4  # creator, tag, duration, surface: the columns of CATEGORIES after the item


class Scores(Struct, kw_only=True):
    """What is expected of N impressions, each (N,) float32; probabilities are in (0, 1)."""

    click: Float32
    long: Float32
    like: Float32
    ranking: Float32
    """Mean of the ranking head's logits of click and long view: orders what one user may be shown."""


class ItemProbability(Probability):
    """Probabilities of click, long view and like for candidates; learns from the worker's batches.

    Parameters
    ----------
    options : ProbabilityOptions, optional
        Its `categories` are those of the product, whatever it says, and it has no numbers. Memory of
        users grows up to its `max_users`.
    max_items : int
        Items with attributes at most.
    window_ms : int
        Milliseconds of the stream for which an exposure stays open.
    capacity : int
        Exposures that are open at most, a power of two.
    rate : float
        Exposures a second of the stream that are learned at most, a fair sample of all; 0 for all.

    Notes
    -----
    Cost: about 0.2 microseconds an event, and that of `Probability.learn` an exposure that is learned.
    """

    def __init__(
        self,
        options: ProbabilityOptions | None = None,
        attention: Attentions | None = None,
        *,
        max_items: int = 2_000_000,
        window_ms: int = WINDOW_MS,
        capacity: int = CAPACITY,
        rate: float = 0.0,
    ) -> None:
        super().__init__(options, attention)
        if self.options.categories != CATEGORIES or self.options.numbers:
            raise ValueError("categories and numbers are the product's own")
        if capacity < 1 or capacity & (capacity - 1):
            raise ValueError("capacity is a power of two")
        self._max_items = max_items
        self._window_ms = window_ms
        self._rate = rate
        self._attributes: Int32 = np.full((0, _ATTRIBUTES), -1, dtype=np.int32)
        self._exposures = no_exposures(capacity)
        self._likes = no_likes(capacity)
        self._memory = no_memory(0)
        keys = list(keys_among(CATEGORIES))
        self._like_room = like_room([keys.index(key) for key in LIKE_KEYS], len(keys))

    def set_item(
        self, item: int, *, creator: int = -1, tag: int = -1, duration_ms: int = -1, surface: int = -1
    ) -> None:
        """Attributes of an item by their numbers; -1 for what is not known."""
        if not 0 <= item < self._max_items:
            return
        self._attributes = grown(self._attributes, item + 1, -1)
        length = int(np.searchsorted(DURATIONS_MS, duration_ms)) if duration_ms > 0 else -1
        self._attributes[item] = creator, tag, length, surface

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """Probability of a click (B, C) of candidate `items` (C,) for each context; state unchanged."""
        n_users, n_items = len(contexts.users), len(items)
        found = self.scores(np.repeat(contexts.users, n_items), np.tile(items, n_users), contexts.now_ms)
        return found.click.reshape(n_users, n_items)

    def scores(self, users: Int32, items: Int32, now_ms: int, surfaces: Int8 | None = None) -> Scores:
        """What is expected of N impressions, were each shown alone; state unchanged.

        Parameters
        ----------
        users, items : Int32
            (N,) slots; -1 and slots never met are known by what all have in common.
        now_ms : int
            Event time.
        surfaces : Int8, optional
            (N,) -1 for the item's own.
        """
        ts_ms = np.full(len(users), now_ms, dtype=np.int64)
        if surfaces is None:
            surfaces = np.full(len(users), -1, dtype=np.int8)
        unknown = np.full((len(users), 4), -1, dtype=np.int8)
        categories = self._categories(users, items, ts_ms, surfaces)
        batch = Impressions(
            users=users,
            items=items,
            ts_ms=ts_ms,
            categories=categories,
            numbers=np.zeros((len(users), 0), dtype=np.float32),
            outcomes=unknown,
        )
        logits = self.logits(batch, tied=False)
        likes = np.empty(len(users), dtype=np.float32)
        like_logits(ts_ms, categories, self._know, self._plan, self._likes, self._like_room, logits, likes)
        return Scores(
            click=sigmoid_of(logits[:, 0]),
            long=sigmoid_of(logits[:, 1]),
            like=sigmoid_of(likes),
            ranking=logits[:, N_TARGETS : N_TARGETS + 2].mean(axis=1, dtype=np.float32),
        )

    @property
    def clock_ms(self) -> int:
        """Event time that the stream has reached, -1 before the first event."""
        return int(self._exposures.numbers[CLOCK])

    def learn_many(self, batch: Interactions) -> None:
        """Learn what a batch's events say, in row order."""
        self.learn_some(batch)

    def learn_some(self, batch: Interactions, most: int | None = None) -> int:
        """As `learn_many`, from about `most` of the batch's exposures at most; how many were learned."""
        n = len(batch)
        if not n:
            return 0
        told = room_for(self._exposures, n)
        ratio = 1.0 if most is None else min(1.0, most / n)
        m = attribute(
            batch.users, batch.items, batch.types, batch.ts_ms, batch.weight, batch.surfaces,
            self._window_ms, self._rate, ratio, self._exposures, told,
        )  # fmt: skip
        if not m:
            return 0
        users, items = told.users[:m], told.items[:m]
        self._remember_users(int(users.max()) + 1)
        self._touched_items.append(np.unique(items))
        self._touched_users.append(np.unique(users))
        learn_told(
            m, told, self._categories(users, items, told.ts_ms[:m], told.surfaces[:m]),
            np.zeros((m, 0), dtype=np.float32), self._know, self._memory, self._attention, self._plan,
            self._scratch, self._likes, self._like_room,
            np.zeros(2 * N_TARGETS, dtype=np.float32),
        )  # fmt: skip
        return int(np.count_nonzero(told.what[:m] == SETTLE))

    def _remember_users(self, n: int) -> None:
        """Room in the memory for users below `n`, as far as options allow."""
        held = len(self._memory.counts)
        if n <= held or held >= self.options.max_users:
            return
        larger = no_memory(min(max(n, 2 * held, 64), self.options.max_users))
        for name in Memory._fields:
            getattr(larger, name)[:held] = getattr(self._memory, name)
        self._memory = larger

    def _categories(self, users: Int32, items: Int32, ts_ms: Int64, surfaces: Int8) -> Int32:
        categories = np.full((len(users), len(CATEGORIES)), -1, dtype=np.int32)
        categories[:, 0], categories[:, 1] = users, items
        known = np.flatnonzero((items >= 0) & (items < len(self._attributes)))
        categories[known, 2 : 2 + _ATTRIBUTES] = self._attributes[items[known]]
        categories[:, _SURFACE] = np.where(surfaces >= 0, surfaces, categories[:, _SURFACE])
        categories[:, 6] = ts_ms // (3 * _HOUR_MS) % 8
        return categories

    def _arrays(self) -> Arrays:
        arrays = super()._arrays()
        for name, part in (("exposures", self._exposures), ("likes", self._likes)):
            arrays |= {f"{name}.{field}": getattr(part, field) for field in part._fields}
        return arrays | {"items.attributes": self._attributes}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            Arrays are missing, or of another plan.
        """

        def part(name: str, like: Exposures | LikeFilter) -> dict[str, NDArray[np.generic]]:
            return {
                field: taken(arrays, f"{name}.{field}", array, rows=len(array))
                for field, array in like._asdict().items()
            }

        attributes = taken(arrays, "items.attributes", self._attributes)
        exposures, likes = part("exposures", self._exposures), part("likes", self._likes)
        if len(arrays.get("memory.counts", ())) > self.options.max_users:
            raise StateError(f"the state remembers more users than {self.options.max_users}")
        super().restore(arrays)
        self._attributes = attributes
        self._exposures = Exposures(**exposures)  # type: ignore[arg-type]
        self._likes = LikeFilter(**likes)  # type: ignore[arg-type]
