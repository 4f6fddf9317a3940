"""A seeded stream of any size with structure to learn: topics, what follows what, and popularity.

Items belong to topics, and follow a power law. A user has a few topics. The next item is one of the
dozen successors of the last (drawn once, of its topic, popular ones more often), or any of a topic of
the user, by popularity. No user watches an item twice in a row, which is all that is seen to.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from schemas.learner import Interactions
from schemas.runs import Int32

N_SUCCESSORS = 12
USER_TOPICS = 4
FOLLOWS = 0.6
"""Share of events that follow from the last item."""

HISTORY = 50
EVENT_MS = 50


class Platform:
    """Items and users of the stream.

    Parameters
    ----------
    n_items, n_users : int
    seed : int
    """

    def __init__(self, n_items: int, n_users: int, seed: int = 0) -> None:
        self._rng = rng = np.random.default_rng(seed)
        n_topics = max(n_items // 100, 1)
        self._weight = rng.permutation(1.0 / (np.arange(n_items) + 50.0))
        topic = rng.integers(n_topics, size=n_items)
        self._by_topic = np.argsort(topic, kind="stable").astype(np.int32)
        self._ends = np.searchsorted(topic[self._by_topic], np.arange(n_topics), side="right")
        self._starts = np.concatenate([[0], self._ends[:-1]])
        self._mass = np.cumsum(self._weight[self._by_topic])
        self._successors = self._drawn(np.repeat(topic[:, None], N_SUCCESSORS, axis=1))
        self._tastes = rng.integers(n_topics, size=(n_users, USER_TOPICS))
        self._history: Int32 = np.full((n_users, HISTORY), -1, dtype=np.int32)
        self._now_ms = 0

    def _drawn(self, topics: NDArray[np.int64]) -> Int32:
        """An item of each of `topics`, by weight."""
        before = np.where(self._starts[topics] > 0, self._mass[self._starts[topics] - 1], 0.0)
        after = self._mass[self._ends[topics] - 1]
        places = np.searchsorted(self._mass, before + self._rng.random(topics.shape) * (after - before))
        drawn: Int32 = self._by_topic[np.minimum(places, len(self._mass) - 1)]
        return drawn

    def stream(self, n_events: int, size: int = 128) -> Iterator[Interactions]:
        """Micro-batches of `size` events; in each round every user has one, in random order."""
        rng, n_users = self._rng, len(self._history)
        left = n_events
        while left > 0:
            users = rng.permutation(n_users)[:left].astype(np.int32)
            left -= len(users)
            last = self._history[users, -1]
            taste = self._tastes[users, rng.integers(USER_TOPICS, size=len(users))]
            items = self._drawn(taste)
            follows = (rng.random(len(users)) < FOLLOWS) & (last >= 0)
            chosen = self._successors[last, np.minimum(rng.geometric(0.25, len(users)), N_SUCCESSORS) - 1]
            items = np.where(follows & (chosen != last), chosen, items).astype(np.int32)
            for first in range(0, len(users), size):
                part = slice(first, first + size)
                yield self._batch(users[part], items[part])
            self._history[users] = np.concatenate([self._history[users, 1:], items[:, None]], axis=1)

    def _batch(self, users: Int32, items: Int32) -> Interactions:
        n = len(users)
        ts_ms = self._now_ms + EVENT_MS * np.arange(1, n + 1)
        self._now_ms = int(ts_ms[-1])
        history = self._history[users]
        return Interactions(
            users=users,
            items=items,
            types=np.ones(n, dtype=np.int8),
            ts_ms=ts_ms,
            weight=np.ones(n, dtype=np.float32),
            history=history,
            fresh=~(history[:, -8:] == items[:, None]).any(axis=1),
            gap_ms=np.full(n, -1, dtype=np.int64),
        )
