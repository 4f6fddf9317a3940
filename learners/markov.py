"""First-order Markov chain over items: the baseline that everybody knows.

``N[a -> x] += 1`` for every fresh positive x after a, the newest item of the history; the list for
a user is the row of their newest item, most counted first. No decay, no weights, no other lags.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from schemas.learner import Arrays, Contexts, Interactions, TouchedKeys
from schemas.runs import Float32, Int32

from .growth import grown
from .state import digest_arrays, taken
from .transition_kernels import Bools, best_of, find

_FIRST_ITEMS: Final = 1_024
_NO_USERS: Final = np.zeros(0, dtype=np.int32)


@njit(nogil=True, cache=True)
def _learn(
    items: Int32, positive: Bools, last: Int32, nbr: Int32, counts: Float32, filled: Int32, dirty: Bools
) -> None:
    n, width = nbr.shape
    for i in range(len(items)):
        a, x = last[i], items[i]
        if not positive[i] or a < 0 or a >= n or a == x or x < 0 or x >= n:
            continue
        k = find(nbr[a], filled[a], x)
        if k < 0:
            if filled[a] < width:
                k = filled[a]
                filled[a] += 1
            else:
                k = int(np.argmin(counts[a]))
            nbr[a, k] = x
        counts[a, k] += np.float32(1.0)
        dirty[a] = True


@njit(nogil=True, cache=True)
def _top(last: Int32, k: int, nbr: Int32, counts: Float32, filled: Int32, out: Int32) -> None:
    for i in range(len(last)):
        a = last[i]
        if 0 <= a < len(filled):
            best_of(counts[a], filled[a], k, nbr[a], out[i])


@njit(nogil=True, cache=True)
def _predict(last: Int32, items: Int32, nbr: Int32, counts: Float32, filled: Int32, out: Float32) -> None:
    for i in range(len(last)):
        a = last[i]
        if a < 0 or a >= len(filled):
            continue
        total = np.float32(0.0)
        for k in range(filled[a]):
            total += counts[a, k]
        for q in range(len(items)):
            place = find(nbr[a], filled[a], items[q])
            if place >= 0:
                out[i, q] = counts[a, place] / total


@njit(nogil=True, cache=True)
def _scores(last: Int32, nbr: Int32, counts: Float32, filled: Int32, out: Float32) -> None:
    for i in range(len(last)):
        a = last[i]
        if a < 0 or a >= len(filled):
            continue
        total = np.float32(0.0)
        for k in range(filled[a]):
            total += counts[a, k]
        for k in range(filled[a]):
            if nbr[a, k] < out.shape[1]:
                out[i, nbr[a, k]] = counts[a, k] / total


class FirstOrderMarkov:
    """The baseline; see the module's docstring.

    Parameters
    ----------
    width : int
        Neighbours kept a row; the least counted gives way (space-saving). R@20 on ml-100k: .115 at
        64, .137 at 128, .139 without a bound; a baseline must not be weak for want of room.
    max_items : int
        Rows at most; items of higher slots are not learned.

    Notes
    -----
    learn_many equals folding learn_one, bit by bit. Cost: about 0.1 microseconds an event, and
    8 K + 5 bytes an item.
    """

    def __init__(self, width: int = 128, *, max_items: int = 2_000_000) -> None:
        if width < 1 or max_items < 1:
            raise ValueError("width and max_items are positive")
        self._max_items = max_items
        self._n_items = 0
        n = min(_FIRST_ITEMS, max_items)
        self._nbr: Int32 = np.full((n, width), -1, dtype=np.int32)
        self._counts: Float32 = np.zeros((n, width), dtype=np.float32)
        self._filled: Int32 = np.zeros(n, dtype=np.int32)
        self._dirty: Bools = np.zeros(n, dtype=np.bool_)

    @property
    def name(self) -> str:
        """Stable name."""
        return "markov"

    def view(self) -> tuple[Int32, Float32, Int32]:
        """Rows (N, K): neighbours and counts, and how many of each are filled (N,); not to be changed."""
        return self._nbr, self._counts, self._filled

    def top(self, contexts: Contexts, k: int) -> Int32:
        """The `k` most counted successors of each newest item, -1 padded; (B, k)."""
        out = np.full((len(contexts.history), k), -1, dtype=np.int32)
        _top(_last(contexts.history), k, self._nbr, self._counts, self._filled, out)
        return out

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """Share of each candidate in the row of the newest item, 0 where unknown; (B, C)."""
        out = np.zeros((len(contexts.history), len(items)), dtype=np.float32)
        _predict(_last(contexts.history), items, self._nbr, self._counts, self._filled, out)
        return out

    def scores(self, contexts: Contexts, n_items: int) -> Float32:
        """`predict` for all slots below `n_items`, at the cost of the rows alone; (B, n_items)."""
        out = np.zeros((len(contexts.history), n_items), dtype=np.float32)
        _scores(_last(contexts.history), self._nbr, self._counts, self._filled, out)
        return out

    def learn_many(self, batch: Interactions) -> None:
        """Count the batch's fresh positives, in order."""
        if not len(batch):
            return
        last = _last(batch.history)
        n = min(max(int(batch.items.max()), int(last.max())) + 1, self._max_items)
        self._n_items = max(self._n_items, n)
        self._nbr = grown(self._nbr, n, -1)
        self._counts, self._filled = grown(self._counts, n), grown(self._filled, n)
        self._dirty = grown(self._dirty, n)
        positive = batch.fresh & (batch.weight > 0)
        _learn(batch.items, positive, last, self._nbr, self._counts, self._filled, self._dirty)

    def touched(self) -> TouchedKeys:
        """Items whose rows changed since the last call."""
        items = np.flatnonzero(self._dirty[: self._n_items]).astype(np.int32)
        self._dirty[items] = False
        return TouchedKeys(items=items, users=_NO_USERS)

    def snapshot(self) -> Arrays:
        """Copy of the rows by item slot."""
        n = self._n_items
        return {
            "nbr": self._nbr[:n].copy(),
            "counts": self._counts[:n].copy(),
            "filled": self._filled[:n].copy(),
            "dirty": self._dirty[:n].copy(),
        }

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            Arrays are missing, or of another width.
        """
        filled = taken(arrays, "filled", self._filled)
        n = len(filled)
        nbr, counts, dirty = (
            taken(arrays, "nbr", self._nbr, rows=n),
            taken(arrays, "counts", self._counts, rows=n),
            taken(arrays, "dirty", self._dirty, rows=n),
        )
        self._nbr, self._counts, self._filled, self._dirty, self._n_items = nbr, counts, filled, dirty, n

    def digest(self) -> str:
        """Hash of the rows by item slot."""
        arrays = self.snapshot()
        del arrays["dirty"]
        return digest_arrays(arrays)


def _last(history: Int32) -> Int32:
    """Newest item of each history, a contiguous (B,) copy."""
    return np.ascontiguousarray(history[:, -1])
