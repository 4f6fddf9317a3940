"""Which items the same users take up: two-way counts over the last 50 items, K neighbours a row.

For every fresh positive x, for each of the user's `window` newest items a before it::

    C[a, x] += 1      C[x, a] += 1      c[x] += 1 (once)

A full row gives the place of its lightest neighbour to the newcomer, which goes on from three
quarters of the count it finds there (as in `learners.transitions`). Scores, j = 0 for the newest::

    s(b) = sum_j .95^j C[a_j, b] / sqrt((c[a_j] + 5) (c[b] + 5))  /  sum_j .95^j

References
----------
Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import inlined, kernel
from schemas.learner import Arrays, Contexts, Interactions
from schemas.runs import Float32, Int32

from .growth import grown
from .neighbour_rows import NeighbourRows, NeighbourTable
from .prefetch import prefetch_row
from .state import taken
from .transition_kernels import INHERITED, Bools, find, lightest

DISCOUNT: Final = 0.95
SHRINKAGE: Final = 5.0
WIDTH: Final = 128
"""Neighbours kept a row."""

_FIRST_ITEMS: Final = 1_024
_EXPORTED: Final = ("nbr", "w", "counts", "filled")


@inlined
def _place(a: int, b: int, nbr: Int32, w: Float32, bits: Int32, filled: Int32) -> int:
    k = find(nbr[a], filled[a], b)
    if k >= 0:
        return k
    if filled[a] < nbr.shape[1]:
        k = int(filled[a])
        filled[a] += 1
    else:
        k = lightest(bits[a])
        w[a, k] *= np.float32(INHERITED)
    nbr[a, k] = b
    return k


@kernel
def _learn(
    items: Int32,
    positive: Bools,
    history: Int32,
    window: int,
    nbr: Int32,
    w: Float32,
    bits: Int32,
    counts: Float32,
    norm: Float32,
    filled: Int32,
    dirty: Bools,
) -> None:
    """Count a batch; `bits` is the memory of `w`, whose floats, never below 0, integers order alike."""
    n, h = len(filled), history.shape[1]
    for i in range(len(items)):
        x = items[i]
        if not positive[i] or x < 0 or x >= n:
            continue
        counts[x] += np.float32(1.0)
        norm[x] = np.float32(1.0) / np.sqrt(counts[x] + np.float32(SHRINKAGE))
        dirty[x] = True
        for d in range(1, min(window, h) + 1):
            a = history[i, h - d]
            if a < 0:
                break
            if d < h:
                prefetch_row(history[i, h - d - 1], nbr, w)
            if a == x or a >= n:
                continue
            w[a, _place(a, x, nbr, w, bits, filled)] += np.float32(1.0)
            w[x, _place(x, a, nbr, w, bits, filled)] += np.float32(1.0)
            dirty[a] = True


@kernel
def score_neighbours(history: Int32, items: Int32, rows: NeighbourRows, out: Float32) -> None:
    """S of each context and candidate, (B, C); slow and plain, for tests and single questions."""
    nbr, w, norm = rows.nbr, rows.w, rows.norm
    n, h = len(nbr), history.shape[1]
    for i in range(len(history)):
        for q in range(len(items)):
            b = items[q]
            gain, total, mass = 1.0, 0.0, 0.0
            for j in range(h):
                a = history[i, h - 1 - j]
                if a < 0:
                    break
                mass += gain
                if a < n and 0 <= b < n:
                    for k in range(nbr.shape[1]):
                        if nbr[a, k] < 0:
                            break
                        if nbr[a, k] == b:
                            total += gain * w[a, k] * norm[a] * norm[b]
                gain *= rows.discount
            out[i, q] = total / mass if mass > 0.0 else 0.0


class Cooccurrence(NeighbourTable):
    """The learner; see the module's docstring.

    Parameters
    ----------
    width : int
        K.
    window : int
        History items that a visit is counted with.
    max_items : int
        Rows at most; items of higher slots are not learned.

    Notes
    -----
    learn_many equals folding learn_one, bit by bit. Cost: 4 to 8 microseconds an event with a full
    history; 8 K + 13 bytes an item.
    """

    def __init__(self, width: int = WIDTH, *, window: int = 50, max_items: int = 2_000_000) -> None:
        if width < 1 or window < 1 or max_items < 1:
            raise ValueError("width, window and max_items are positive")
        self._window = window
        super().__init__(max_items)
        n = min(_FIRST_ITEMS, max_items)
        self._nbr: Int32 = np.full((n, width), -1, dtype=np.int32)
        self._w: Float32 = np.zeros((n, width), dtype=np.float32)
        self._counts: Float32 = np.zeros(n, dtype=np.float32)
        self._norm: Float32 = _norms(self._counts)
        self._filled: Int32 = np.zeros(n, dtype=np.int32)
        self._dirty: Bools = np.zeros(n, dtype=np.bool_)

    @property
    def name(self) -> str:
        """Stable name."""
        return "cooccurrence"

    def view(self) -> NeighbourRows:
        """The rows for a ranking kernel: shared arrays, valid until the next learn_many."""
        return NeighbourRows(self._nbr, self._w, self._norm, DISCOUNT)

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """S of each candidate; (B, C)."""
        out = np.zeros((len(contexts.history), len(items)), dtype=np.float32)
        score_neighbours(contexts.history, items, self.view(), out)
        return out

    def learn_many(self, batch: Interactions) -> None:
        """Count the batch's fresh positives, in order."""
        if not len(batch):
            return
        self._reserve(max(int(batch.items.max()), int(batch.history.max(initial=-1))) + 1)
        positive = batch.fresh & (batch.weight > 0)
        _learn(
            batch.items, positive, batch.history, self._window,
            self._nbr, self._w, self._w.view(np.int32), self._counts, self._norm, self._filled, self._dirty,
        )  # fmt: skip

    def fade(self, kept: float) -> None:
        """Let everything counted so far weigh `kept` of what it did. O(N K): 15 ms at 50 000 items."""
        self._w *= np.float32(kept)
        self._counts *= np.float32(kept)
        self._norm = _norms(self._counts)
        self._dirty[: self._n_items] |= self._counts[: self._n_items] > 0

    def _grow(self, n: int) -> None:
        n = min(n, self._max_items)
        if n > len(self._filled):
            self._nbr, self._w = grown(self._nbr, n, -1), grown(self._w, n)
            self._counts, self._filled = grown(self._counts, n), grown(self._filled, n)
            self._dirty, self._norm = grown(self._dirty, n), _norms(self._counts)

    def export_rows(self, items: Int32) -> Arrays:
        """Absolute values of the rows of `items` (B,), for `import_rows` of another instance; copies.

        ``nbr`` (B, K) int32, ``w`` (B, K) and ``counts`` (B,) float32, ``filled`` (B,) int32.
        """
        held = (items >= 0) & (items < self._n_items)
        at = np.where(held, items, 0)
        arrays: Arrays = {name: getattr(self, f"_{name}")[at] for name in _EXPORTED}
        arrays["nbr"][~held] = -1
        for name in ("w", "counts", "filled"):
            arrays[name][~held] = 0
        return arrays

    def import_rows(self, items: Int32, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over rows of distinct `items` (B,) as `export_rows` gave them.

        The number of items comes with `import_dense`.

        Raises
        ------
        StateError
            Arrays are missing, or of another width.
        """
        rows = {name: taken(arrays, name, getattr(self, f"_{name}"), rows=len(items)) for name in _EXPORTED}
        if not len(items):
            return
        self._grow(int(items.max()) + 1)
        fits = items < len(self._filled)
        for name, array in rows.items():
            getattr(self, f"_{name}")[items[fits]] = array[fits]
        self._norm[items[fits]] = _norms(self._counts[items[fits]])

    def snapshot(self) -> Arrays:
        """Copy of the rows by item slot."""
        names = (*_EXPORTED, "dirty")
        return {name: getattr(self, f"_{name}")[: self._n_items].copy() for name in names}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            Arrays are missing, or of another width.
        """
        filled = taken(arrays, "filled", self._filled)
        n = len(filled)
        nbr, w = taken(arrays, "nbr", self._nbr, rows=n), taken(arrays, "w", self._w, rows=n)
        counts, dirty = (
            taken(arrays, "counts", self._counts, rows=n),
            taken(arrays, "dirty", self._dirty, rows=n),
        )
        self._nbr, self._w, self._counts, self._filled, self._dirty = nbr, w, counts, filled, dirty
        self._norm = _norms(counts)
        self._n_items = n


def _norms(counts: Float32) -> Float32:
    norms: Float32 = (np.float32(1.0) / np.sqrt(counts + np.float32(SHRINKAGE))).astype(np.float32)
    return norms
