"""EASE on the items that matter most: a linear model of what goes with what, refitted as data grows.

A head of at most `n_head` items keeps exact counts of who took up both, over the last 50 items::

    G[x, x] += 1 for every fresh positive x        G[x, a] += 1, G[a, x] += 1 for a in the history
    P = (G + lambda I)^-1        B[a, b] = -P[a, b] / P[b, b], 0 for a = b

Items join as they are first met; once the head is full, those that others overtook give way at a
refit, and newcomers count from zero. A refit begins whenever a quarter more was counted than at the
last one, and `least_growth` more. It inverts by Gauss-Jordan elimination without pivots, `PANEL`
columns a learn_many and, for a head of n, at least ``PANEL_EVERY (n / N_HEAD)^2`` events apart: as a panel
costs n^2. So it never stops the learner for long, small batches pay no more an event than those of
`PANEL_EVERY`, a small head is refitted at once, and all is a function of the batches alone. Then the `width`
largest entries of each row are published. Scores, j = 0 for the newest::

    s(b) = sum_j .97^j B[a_j, b]

References
----------
Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from schemas.compiled import kernel
from schemas.learner import Arrays, Contexts, Interactions
from schemas.runs import Float32, Int32, Int64

from .blend_select import count_above, low_bound, padded
from .growth import grown
from .neighbour_rows import NeighbourRows, NeighbourTable
from .state import taken
from .transition_kernels import Bools

DISCOUNT: Final = 0.97
RIDGE: Final = 100.0
N_HEAD: Final = 1_500
WIDTH: Final = 128
"""Entries of a row that are published."""

GROWTH: Final = 1.25
FIRST_FIT: Final = 512
PANEL: Final = 64
"""Columns eliminated in one learn_many: 4 ms at 1 500 items."""

PANEL_EVERY: Final = 64
"""Events at least from one panel of `N_HEAD` items to the next."""

BLOCK: Final = 128
"""Rows updated together."""

_FIRST_ITEMS: Final = 1_024
_FIRST_HEAD: Final = 256


@kernel
def _learn(
    items: Int32,
    positive: Bools,
    history: Int32,
    place: Int32,
    counts: Int32,
    head: Int32,
    state: Int64,
    gram: Float32,
) -> None:
    n, h = len(place), history.shape[1]
    for i in range(len(items)):
        x = items[i]
        if not positive[i] or x < 0 or x >= n:
            continue
        counts[x] += 1
        state[1] += 1
        p = place[x]
        if p < 0:
            if state[0] >= len(head):
                continue
            p = np.int32(state[0])
            place[x], head[p] = p, x
            state[0] += 1
        row = gram[p]
        row[p] += np.float32(0.5)
        for d in range(1, h + 1):
            a = history[i, h - d]
            if a < 0:
                break
            if a < n and a != x and place[a] >= 0:
                row[place[a]] += np.float32(1.0)


class Room(NamedTuple):
    """Scratch memory of a choice among n scores, padded as `low_bound` wants."""

    size: Float32
    keys: Float32
    best: Float32
    found: Int32
    above: Int32
    taken: Int32


@kernel
def _largest(weights: Float32, head: Int32, nbr: Int32, w: Float32, room: Room) -> None:
    """Rows of the head: the entries of largest size of each row of `weights` (n, n), and whose they are.

    Of equal sizes the first wins.
    """
    size, keys, best, found, above, taken = room
    n, width = len(weights), nbr.shape[1]
    for b in range(n, padded(n)):
        size[b] = np.float32(-np.inf)
    for p in range(n):
        row = weights[p]
        for b in range(n):
            size[b] = abs(row[b])
        bound = np.float32(0.0)
        if n > padded(width):
            bound = low_bound(n, width, size, best)
        m = 0
        for b in range(n):
            found[m] = b
            keys[m] = size[b]
            m += 1 if size[b] >= bound and size[b] > np.float32(0.0) else 0
        for b in range(m, padded(m)):
            keys[b] = np.float32(-np.inf)
        count_above(m, keys, above)
        a = head[p]
        for b in range(m):
            taken[b] = 0
        for b in range(m):
            k = above[b] + taken[above[b]]
            taken[above[b]] += 1
            if k < width:
                nbr[a, k] = head[found[b]]
                w[a, k] = row[found[b]]
        for k in range(m, width):
            nbr[a, k] = -1
            w[a, k] = np.float32(0.0)


class Ease(NeighbourTable):
    """The learner; see the module's docstring.

    Parameters
    ----------
    n_head : int
        Items with exact counts.
    width : int
        Entries published a row.
    max_items : int
        Items of higher slots are not learned.
    """

    def __init__(self, n_head: int = N_HEAD, *, width: int = WIDTH, max_items: int = 2_000_000) -> None:
        if n_head < 1 or width < 1 or max_items < 1:
            raise ValueError("n_head, width and max_items are positive")
        super().__init__(max_items)
        self._max_head, self._width = n_head, width
        self.least_growth = 0
        """Events at least from one refit to the next; no part of the state."""
        n = min(_FIRST_ITEMS, max_items)
        # Head size, counted, counted at the last refit, columns done, events since the last panel.
        self._state: Int64 = np.zeros(5, dtype=np.int64)
        self._place: Int32 = np.full(n, -1, dtype=np.int32)
        self._counts: Int32 = np.zeros(n, dtype=np.int32)
        size = min(_FIRST_HEAD, n_head)
        self._head: Int32 = np.full(size, -1, dtype=np.int32)
        self._gram: Float32 = np.zeros((size, size), dtype=np.float32)
        self._nbr: Int32 = np.full((n, width), -1, dtype=np.int32)
        self._w: Float32 = np.zeros((n, width), dtype=np.float32)
        self._dirty: Bools = np.zeros(n, dtype=np.bool_)
        self._fitting: Float32 = np.zeros((0, 0), dtype=np.float32)
        self._fitted_head: Int32 = np.zeros(0, dtype=np.int32)
        self._ones: Float32 = np.ones(n, dtype=np.float32)

    @property
    def name(self) -> str:
        """Stable name."""
        return "ease"

    def view(self) -> NeighbourRows:
        """The published rows for a ranking kernel."""
        return NeighbourRows(self._nbr, self._w, self._ones, DISCOUNT)

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """S of each candidate; (B, C)."""
        scores = np.zeros((len(contexts.history), len(items)), dtype=np.float32)
        gain = 1.0
        for j in range(contexts.history.shape[1]):
            a = contexts.history[:, -1 - j]
            known = (a >= 0) & (a < self._n_items)
            at = np.where(known, a, 0)
            same = (self._nbr[at][:, None, :] == items[None, :, None]) & known[:, None, None]  # (B, C, K)
            scores += gain * (same * self._w[at][:, None, :]).sum(axis=2)
            gain *= DISCOUNT
        return scores

    def learn_many(self, batch: Interactions) -> None:
        """Count the batch's fresh positives, in order, and go on with a refit."""
        if not len(batch):
            return
        self._reserve(max(int(batch.items.max()), int(batch.history.max(initial=-1))) + 1)
        positive = batch.fresh & (batch.weight > 0)
        self._reserve_head(int(self._state[0]) + int(np.count_nonzero(positive)))
        _learn(
            batch.items,
            positive,
            batch.history,
            self._place,
            self._counts,
            self._head,
            self._state,
            self._gram,
        )
        self._go_on(len(batch))

    def _go_on(self, n_events: int) -> None:
        counted, fitted = int(self._state[1]), int(self._state[2])
        due = max(GROWTH * fitted, fitted + self.least_growth) if fitted else FIRST_FIT
        if not len(self._fitting) and counted >= due:
            self._begin_fit()
        if len(self._fitting):
            self._state[4] += n_events
            if self._state[4] * N_HEAD**2 >= PANEL_EVERY * len(self._fitting) ** 2:
                self._state[4] = 0
                self._eliminate()

    def _begin_fit(self) -> None:
        self._choose_head()
        n = int(self._state[0])
        counts = self._gram[:n, :n]
        fitting = counts + counts.T
        fitting[np.arange(n), np.arange(n)] += np.float32(RIDGE)
        self._fitting, self._fitted_head = fitting, self._head[:n].copy()
        self._state[2], self._state[3] = self._state[1], 0

    def _choose_head(self) -> None:
        """Let items that others overtook give way; the counts of newcomers begin at zero."""
        n = int(self._state[0])
        if n < self._max_head:
            return
        counts = self._counts[: self._n_items]
        best = np.argsort(-counts, kind="stable")[:n]
        new = best[self._place[best] < 0]
        keep = np.zeros(self._n_items, dtype=np.bool_)
        keep[best] = True
        old = np.flatnonzero(~keep[self._head[:n]])[: len(new)]
        self._place[self._head[old]] = -1
        self._place[new] = old
        self._head[old] = new
        self._gram[old] = 0.0
        self._gram[:, old] = 0.0

    def _eliminate(self) -> None:
        """Invert the next columns in place: [A B; C D] -> [A^-1, A^-1 B; -C A^-1, D - C A^-1 B].

        The inverted part is symmetric, so is the rest, and the parts between them are each other's
        negative: only blocks on and above the diagonal are computed, those below are not looked at.
        """
        m, n = self._fitting, len(self._fitting)
        first = int(self._state[3])
        part = slice(first, min(first + PANEL, n))
        inverse = np.linalg.inv(m[part, part].astype(np.float64)).astype(np.float32)
        rows = np.empty((part.stop - first, n), dtype=np.float32)
        rows[:, :first], rows[:, part], rows[:, part.stop :] = -m[:first, part].T, 0.0, m[part, part.stop :]
        columns = rows.T.copy()  # (n, p)
        columns[:first] *= np.float32(-1.0)
        rows = inverse @ rows
        rows[:, part] = inverse
        m[:first, part] = 0.0
        left, by, of = torch.from_numpy(m), torch.from_numpy(columns), torch.from_numpy(rows)
        for top in range(0, n, BLOCK):  # in place, which numpy's products are not
            left[top : top + BLOCK, top:].addmm_(by[top : top + BLOCK], of[:, top:], alpha=-1.0)
        m[part, first:] = rows[:, first:]
        self._state[3] = part.stop
        if part.stop == n:
            self._publish()

    def _publish(self) -> None:
        p = self._fitting
        for top in range(0, len(p), BLOCK):
            own = np.triu(p[top : top + BLOCK, top : top + BLOCK])
            p[top : top + BLOCK, top : top + BLOCK] = own + np.triu(own, 1).T
            p[top + BLOCK :, top : top + BLOCK] = p[top : top + BLOCK, top + BLOCK :].T
        scale = np.diagonal(p).copy()
        weights = -p / scale[None, :]
        np.fill_diagonal(weights, 0.0)
        self._dirty[: self._n_items] |= self._nbr[: self._n_items, 0] >= 0
        self._nbr[: self._n_items] = -1
        n = padded(len(p))
        floats, numbers = np.empty((2, n), dtype=np.float32), np.empty((3, n), dtype=np.int32)
        best = np.zeros(padded(self._width), dtype=np.float32)
        room = Room(floats[0], floats[1], best, numbers[0], numbers[1], numbers[2])
        _largest(weights, self._fitted_head, self._nbr, self._w, room)
        self._dirty[self._fitted_head] = True
        self._fitting = np.zeros((0, 0), dtype=np.float32)

    def _grow(self, n: int) -> None:
        n = min(n, self._max_items)
        if n > len(self._place):
            self._place, self._counts = grown(self._place, n, -1), grown(self._counts, n)
            self._nbr, self._w = grown(self._nbr, n, -1), grown(self._w, n)
            self._dirty, self._ones = grown(self._dirty, n), grown(self._ones, n, 1)

    def _reserve_head(self, n: int) -> None:
        n = min(n, self._max_head)
        if n > len(self._head):
            size = min(max(n, 2 * len(self._head)), self._max_head)
            gram = np.zeros((size, size), dtype=np.float32)
            gram[: len(self._gram), : len(self._gram)] = self._gram
            head = np.full(size, -1, dtype=np.int32)
            head[: len(self._head)] = self._head
            self._gram, self._head = gram, head

    def export_rows(self, items: Int32) -> Arrays:
        """Published rows of `items` (B,): ``nbr`` (B, K) int32, ``w`` (B, K) float32; copies."""
        held = (items >= 0) & (items < self._n_items)
        at = np.where(held, items, 0)
        nbr, w = self._nbr[at], self._w[at]
        nbr[~held], w[~held] = -1, 0.0
        return {"nbr": nbr, "w": w}

    def import_rows(self, items: Int32, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over published rows of distinct `items` (B,); counts stay with the learner.

        Raises
        ------
        StateError
            Arrays are missing, or of another width.
        """
        nbr, w = (
            taken(arrays, "nbr", self._nbr, rows=len(items)),
            taken(arrays, "w", self._w, rows=len(items)),
        )
        if not len(items):
            return
        self._grow(int(items.max()) + 1)
        fits = items < len(self._place)
        self._nbr[items[fits]], self._w[items[fits]] = nbr[fits], w[fits]

    def snapshot(self) -> Arrays:
        """Copy of counts, published rows, and a refit under way."""
        n, m = self._n_items, int(self._state[0])
        return {
            "state": self._state.copy(),
            "place": self._place[:n].copy(),
            "counts": self._counts[:n].copy(),
            "head": self._head[:m].copy(),
            "gram": self._gram[:m, :m].flatten(),
            "nbr": self._nbr[:n].copy(),
            "w": self._w[:n].copy(),
            "dirty": self._dirty[:n].copy(),
            "fitting": self._fitting.ravel().copy(),
            "fitted_head": self._fitted_head.copy(),
        }

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            Arrays are missing, or of another width.
        """
        state = taken(arrays, "state", self._state, rows=5)
        head, m = taken(arrays, "head", self._head, rows=int(state[0])), int(state[0])
        flat = np.zeros(0, dtype=np.float32)
        gram = taken(arrays, "gram", flat, rows=m * m).reshape(m, m)
        fitted_head = taken(arrays, "fitted_head", self._fitted_head)
        fitting = taken(arrays, "fitting", flat)
        side = len(fitted_head) if len(fitting) else 0
        fitting = taken(arrays, "fitting", flat, rows=side * side).reshape(side, side)
        place = taken(arrays, "place", self._place)
        n = len(place)
        counts = taken(arrays, "counts", self._counts, rows=n)
        nbr, w = taken(arrays, "nbr", self._nbr, rows=n), taken(arrays, "w", self._w, rows=n)
        self._dirty = taken(arrays, "dirty", self._dirty, rows=n)
        self._state, self._place, self._counts, self._nbr, self._w = state, place, counts, nbr, w
        self._head, self._gram, self._fitting, self._fitted_head = head, gram, fitting, fitted_head
        self._ones = np.ones(n, dtype=np.float32)
        self._n_items = n
