"""Which popular items compete for a place in a list, kept ready between calls.

The order of what is popular is renewed after every so many events (`Popularity.top`), for lists that are
published at most every `RENEW_EVERY_MS`; in between only the gate's weights and what is available change.
A choice of items holds as long as all of them are available and none that was left out is again. Two
choices are kept, for masks that take turns.

What a pool gives depends on what it was asked before. Scoring and learning therefore have a pool of
their own, settled at every cut: from there on it is a function of the batches alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
from msgspec import Struct

from learners.blend import POPULAR_CANDIDATES, prepare_popular, rescored, with_items
from learners.blend_kernels import Bools, Popular
from learners.popularity import ORDERED, is_available
from schemas.runs import Float32, Int32

if TYPE_CHECKING:
    from learners.popularity import Popularity

EARLY_EVENTS: Final = 1_024
"""Counted events up to which popularity is prepared anew at every call: shares change fast."""

RENEW_EVERY_MS: Final = 200
"""Half-lives are hours and days: nobody sees the difference, and under load a new order is there with
every batch."""

KEPT: Final = 2


class _Choice(Struct):
    popular: Popular
    weights: Float32
    depth: int
    items: Int32
    left_out: Int32

    def holds(self, withdrawn: Bools, depth: int) -> bool:
        if not len(withdrawn):
            return depth <= self.depth and not len(self.left_out)
        return (
            depth <= self.depth
            and bool(is_available(self.items, withdrawn).all())
            and not is_available(self.left_out, withdrawn).any()
        )


class PopularPool:
    """Popular items for a `Ranker`, of the first two half-lives.

    Cost: 30 microseconds a call, nothing where `withdrawn` is empty; 0.2 ms when other items have to be
    chosen, 1 ms at 50 000 items when the order was renewed, and as much where the `ORDERED` most popular
    items do not suffice.
    """

    def __init__(self, popularity: Popularity, *, list_size: int) -> None:
        self._popularity = popularity
        self._half_lives = (0, min(1, popularity.n_half_lives - 1))
        self._n_candidates = max(POPULAR_CANDIDATES, 2 * list_size)
        self._choices: list[_Choice] = []
        self._renewals = -1
        self._renewed_ms = 0

    def settle(self) -> None:
        """Keep nothing of earlier calls."""
        self._choices = []

    def prepared(self, weights: Float32, withdrawn: Bools, depth: int, now_ms: int | None = None) -> Popular:
        """Popularity as the kernels want it.

        Parameters
        ----------
        weights : Float32
            `Gate.weights`.
        withdrawn : Bools
            (n,) by item slot; later slots are available.
        depth : int
            So many items at least that may be listed, where there are so many.
        now_ms : int, optional
            Time of asking: an order younger than `RENEW_EVERY_MS` is not renewed. Without it what is
            given is the newest, a function of the batches.
        """
        if self._is_old(now_ms):
            popular = prepare_popular(
                np.stack([self._popularity.shares(which) for which in self._half_lives]),
                np.zeros(0, dtype=np.int32),
                weights,
            )
            self._choices = [self._choose(popular, weights, withdrawn, depth)]
            self._renewals = self._popularity.renewals
            self._renewed_ms = now_ms or 0
        found = next((choice for choice in self._choices if choice.holds(withdrawn, depth)), None)
        if found is None:
            found = self._choose(self._choices[0].popular, weights, withdrawn, depth)
            self._choices = [found, *self._choices][:KEPT]
        if not np.array_equal(weights[:, 3:5], found.weights[:, 3:5]):
            found.popular = rescored(found.popular, weights)
            found.weights = weights
        return found.popular

    def _is_old(self, now_ms: int | None) -> bool:
        if not self._choices or self._popularity.n_learned <= EARLY_EVENTS:
            return True
        if self._renewals == self._popularity.renewals:
            return False
        return now_ms is None or not 0 <= now_ms - self._renewed_ms < RENEW_EVERY_MS

    def _choose(self, popular: Popular, weights: Float32, withdrawn: Bools, depth: int) -> _Choice:
        popularity = self._popularity
        tops = [popularity.top(self._n_candidates, which, withdrawn=withdrawn) for which in self._half_lives]
        # The longest half-life has the most items with a count.
        reserve = popularity.top(depth, self._half_lives[-1], withdrawn=withdrawn)
        items = np.unique(np.concatenate([*tops, reserve]))
        heads = np.unique(np.concatenate([popularity.top(ORDERED, which) for which in self._half_lives]))
        heads = heads[heads >= 0]
        return _Choice(
            popular=with_items(popular, np.concatenate(tops), weights, reserve),
            weights=weights,
            depth=depth,
            items=items[items >= 0],
            left_out=heads[~is_available(heads, withdrawn)],
        )
