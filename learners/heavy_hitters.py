"""Which keys make up most of a stream, in bounded memory: users who send most, items that get most.

Lossy counting (river): of n keys it keeps those that may be more than ``EPSILON n``, at most
``log(EPSILON n) / EPSILON`` of them, and counts each too low by at most ``EPSILON n``. Two counts
share the stream, the last full window and the one under way, and a key's share is that of both
together: what is older than two windows is forgotten.

river's own forgetting (`fading_factor`) is left at 1: it fades the counts but not the age that it
drops them by, so that even a key that is every second one is dropped and counted from nothing every
few hundred buckets.

References
----------
Manku and Motwani, Approximate frequency counts over data streams, VLDB 2002; river.sketch.HeavyHitters.
"""

from __future__ import annotations

from heapq import nsmallest
from typing import Final

import numpy as np
from numpy.typing import NDArray
from river.sketch import HeavyHitters

from schemas.runs import Int64

EPSILON: Final = 0.002
WINDOW: Final = 16_384


class HeavyKeys:
    """Counts integer keys. Not part of any state.

    Memory: some 3 000 keys. Cost: 0.6 to 1 microseconds a key; up to 3 where no key returns.

    Parameters
    ----------
    window : int
        Keys after which a new count begins.

    >>> keys = HeavyKeys()
    >>> keys.update(np.array([7, 7, 3, 7]))
    >>> keys.top(1)
    [(7, 0.75)]
    """

    def __init__(self, window: int = WINDOW) -> None:
        self._window = window
        self._before, self._n_before = _count(), 0
        self._now, self._n_now = _count(), 0

    @property
    def n(self) -> int:
        """Keys that shares are of."""
        return self._n_before + self._n_now

    def update(self, keys: Int64 | NDArray[np.generic]) -> None:
        """Take in `keys` (n,) in order."""
        for key in keys.tolist():
            self._now.update(key)
            self._n_now += 1
            if self._n_now == self._window:
                self._before, self._n_before = self._now, self._n_now
                self._now, self._n_now = _count(), 0

    def share(self, key: int) -> float:
        """Share of a key, too low by at most `EPSILON`; 0 where nothing was counted."""
        return (self._before[key] + self._now[key]) / max(self.n, 1)

    def top(self, k: int) -> list[tuple[int, float]]:
        """At most `k` keys and their shares, heaviest first; equal ones by key. O(keys held)."""
        counts = dict(self._before.most_common())
        for key, n in self._now.most_common():
            counts[key] = counts.get(key, 0.0) + n
        found = nsmallest(k, ((-n, key) for key, n in counts.items()))
        return [(key, -n / max(self.n, 1)) for n, key in found]


def _count() -> HeavyHitters:
    """`most_common` of it names all that it holds: support is not used otherwise."""
    return HeavyHitters(support=EPSILON, epsilon=EPSILON, fading_factor=1.0)
