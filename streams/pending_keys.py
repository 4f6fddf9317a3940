"""Changed keys of a model that wait to be published: the largest changes first, none for too long."""

from __future__ import annotations

from typing import Final

import numpy as np

from learners.growth import grown
from schemas.runs import Float64, Int32

OVERDUE_S: Final = 30.0
"""Who has waited so long goes before all others: with as many keys again at work, within a minute."""


class PendingKeys:
    """Slots that wait, with how often they were touched and since when; 12 bytes a slot.

    >>> pending = PendingKeys()
    >>> pending.add(np.array([3, 5], dtype=np.int32), 0.0)
    >>> pending.add(np.array([5], dtype=np.int32), 1.0)
    >>> pending.take(1, 2.0).tolist(), len(pending)
    ([5], 1)
    """

    def __init__(self) -> None:
        self._touches: Int32 = np.zeros(1024, dtype=np.int32)
        self._since_s: Float64 = np.zeros(1024, dtype=np.float64)
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def add(self, slots: Int32, now_s: float) -> None:
        """Note that distinct `slots` changed."""
        if not len(slots):
            return
        n = int(slots.max()) + 1
        self._touches, self._since_s = grown(self._touches, n), grown(self._since_s, n)
        new = slots[self._touches[slots] == 0]
        self._since_s[new] = now_s
        self._touches[slots] += 1
        self._n += len(new)

    def take(self, n: int, now_s: float, *, first: int = -1) -> Int32:
        """At most `n` slots, which wait no longer.

        Slots from `first` on come before all others, in their order (-1: none do): those are new,
        and whoever follows can name an item only after all lower ones. Then who is overdue, longest
        first; then by touches, of equals the longest waiting.
        """
        waiting = np.flatnonzero(self._touches).astype(np.int32)
        if n < len(waiting):
            since = self._since_s[waiting]
            overdue = since <= now_s - OVERDUE_S
            new = waiting >= first if first >= 0 else np.zeros(len(waiting), dtype=np.bool_)
            touches = np.where(new | overdue, 0, self._touches[waiting])
            order = np.lexsort((np.where(new, waiting, since), -touches, ~overdue, ~new))
            waiting = waiting[order[:n]]
        self._touches[waiting] = 0
        self._n -= len(waiting)
        return waiting

    def oldest_s(self, now_s: float) -> float:
        """How long the longest waiting slot has waited; 0 when none waits."""
        waiting = np.flatnonzero(self._touches)
        return max(0.0, now_s - float(self._since_s[waiting].min())) if len(waiting) else 0.0
