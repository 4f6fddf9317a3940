"""Which items stand in lists that consumers may still show."""

from __future__ import annotations

import numpy as np

from learners.blend_kernels import Bools
from learners.growth import grown
from schemas.compiled import kernel
from schemas.runs import Float64, Int32


class Coverage:
    """When each item last stood in a published list, by item slot; 8 bytes an item.

    Parameters
    ----------
    ttl_s : float
        How long a list may be shown.

    >>> coverage = Coverage(ttl_s=60.0)
    >>> coverage.note(np.array([[0, 3], [3, -1]], np.int32), now_s=100.0)
    >>> withdrawn = np.array([False, True])
    >>> coverage.ratio(5, withdrawn, now_s=130.0), coverage.ratio(5, withdrawn, now_s=161.0)
    (0.5, 0.0)
    """

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._listed_s: Float64 = np.zeros(0, dtype=np.float64)

    def note(self, items: Int32, now_s: float) -> None:
        """Lists `items` (B, k), -1 padded, were published at `now_s` > 0."""
        highest = int(items.max(initial=-1))
        self._listed_s = grown(self._listed_s, highest + 1)
        _note(items, now_s, self._listed_s)

    def ratio(self, n_items: int, withdrawn: Bools, now_s: float) -> float:
        """Share of the available ones among `n_items` that stand in a list no older than `ttl_s`; O(N).

        Of slots `withdrawn` (n,) marks what is not available; later slots are.
        """
        available = np.ones(n_items, dtype=np.bool_)
        n = min(n_items, len(withdrawn))
        available[:n] = ~withdrawn[:n]
        last_s = self._listed_s[:n_items]
        listed = available[: len(last_s)] & (last_s > 0) & (last_s >= now_s - self._ttl_s)
        return float(np.count_nonzero(listed)) / max(int(np.count_nonzero(available)), 1)


@kernel
def _note(items: Int32, now_s: float, listed_s: Float64) -> None:
    for i in range(items.shape[0]):
        for place in range(items.shape[1]):
            if items[i, place] >= 0:
                listed_s[items[i, place]] = now_s
