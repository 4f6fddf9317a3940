"""Which items the encoder has rows for: those with enough events (frequency admission).

An item is admitted in the step in which its events (targets and real negatives of the encoder's
steps) come to `least`. Until then its row is zero, it stands for nothing in a history, is no target
and no negative, and is not found. With `least` = 1, the default, every item has a row from the
beginning, an initial vector of its own, and nothing is counted here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.learner import Arrays
from schemas.runs import Int32

from .growth import grown
from .state import taken

Bools = NDArray[np.bool_]
UInt8 = NDArray[np.uint8]

MOST: Final = 255
HITS: Final = "item_hits"


class ItemAdmission:
    """Events of each item slot, up to `MOST`; 1 byte an item, nothing where `least` is 1.

    Parameters
    ----------
    least : int
        Events after which an item has a row, 1 to `MOST`.
    """

    def __init__(self, least: int) -> None:
        self.least = least
        self._hits: UInt8 = np.zeros(0, dtype=np.uint8)

    @property
    def is_open(self) -> bool:
        """Whether every item has a row."""
        return self.least <= 1

    def ensure(self, n: int) -> None:
        """Make room for item slots below `n`."""
        if not self.is_open:
            self._hits = grown(self._hits, n)

    def hits(self, items: Int32) -> UInt8:
        """Events of `items` (B,) as counted so far; a copy."""
        return self._hits[items]

    def put(self, items: Int32, hits: UInt8) -> None:
        """Set the events of distinct `items` (B,)."""
        self._hits[items] = hits

    def forget(self, items: Int32) -> None:
        """Have distinct `items` without an event."""
        if not self.is_open:
            self._hits[items] = 0

    def count(self, items: Int32) -> Int32:
        """Count an event of each of `items` (N,); the slots that are admitted by it, ascending."""
        touched, times = np.unique(items, return_counts=True)
        before = self._hits[touched]
        after = np.minimum(before + times, MOST)
        self._hits[touched] = after
        admitted: Int32 = touched[(before < self.least) & (after >= self.least)]
        return admitted

    def admits(self, items: Int32) -> Bools:
        """Which of `items`, any shape, have a row; slots beyond, and -1, have none."""
        if self.is_open:
            return np.ones(items.shape, dtype=np.bool_)
        known = (items >= 0) & (items < len(self._hits))
        return known & (self._hits[np.where(known, items, 0)] >= self.least) if len(self._hits) else known

    def masked(self, history: Int32) -> Int32:
        """`history` (B, H) without items that have no row: -1 in their places."""
        if self.is_open:
            return history
        masked: Int32 = np.where(self.admits(history), history, np.int32(-1))
        return masked

    def snapshot(self, n: int) -> Arrays:
        """``item_hits`` (n,) uint8, or (0,) where every item has a row."""
        return {HITS: self._hits[:n].copy()}

    def check(self, arrays: Mapping[str, NDArray[np.generic]], support: Int32) -> UInt8:
        """Events of the items with `support` (n,) as `snapshot` gave them, or StateError.

        Where none were counted, because every item had a row, an item's targets stand in.
        """
        hits = taken(arrays, HITS, self._hits)
        if self.is_open:
            return hits[:0]
        if len(hits) == len(support):
            return hits
        hits = taken(arrays, HITS, self._hits, rows=0)
        stand_in: UInt8 = np.where(support > 0, MOST, 0).astype(np.uint8)
        return stand_in

    def load(self, hits: UInt8) -> None:
        """Become what `check` returned."""
        self._hits = hits
