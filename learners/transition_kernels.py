"""Compiled rows of decayed transition counts; plain arrays only. See `learners.transitions`."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from schemas.runs import Float32, Int32, Int64

from .prefetch import prefetch

NEXT: Final = 0
FORWARD: Final = 1
BACKWARD: Final = 2
CHANNELS: Final = 3
INHERITED: Final = 0.75
"""Share of the evicted weight that a newcomer goes on from.

At 1 rows fill up with passers-by, at 0 a newcomer is evicted before it is met again. R@20 of the
rows alone (K = 64, last fifth): ml-100k .265 at 0, .283 here, .242 at 1; movietweetings, where what
is new is what is watched, .208, .218, .253, and with a half-life of 7 days .264 here and .262 at 1.
"""
REBASE_HALF_LIVES: Final = 64
"""Forward weights reach 2^64 before a rebase: far from the end of float32, and from denormals."""

AHEAD: Final = 2
"""Events between asking for rows and learning from them."""
FLOATS_A_LINE: Final = 16

Bools = NDArray[np.bool_]


class Rows(NamedTuple):
    """Transition rows of N items with room for K neighbours each."""

    nbr: Int32  # (N, K) -1 empty; filled from the left
    w: Float32  # (N, K, 3) forward-scaled weights
    rowsum: Float32  # (N, 3) sums of w over the neighbours
    filled: Int32  # (N,)
    dirty: Bools  # (N,) changed since the last drain


class TransitionsView(NamedTuple):
    """The rows as a ranking kernel reads them: arrays shared, not to be changed.

    ``s_c(b) = sum_j gammas[c]^j w[a_j, k, c] scale / (rowsum[a_j, c] scale + kappa)`` over the
    history items a_j, j = 0 for the newest, with k the place of b in ``nbr[a_j]``.
    """

    nbr: Int32  # (capacity, K)
    w: Float32  # (capacity, K, 3)
    rowsum: Float32  # (capacity, 3)
    n_items: int
    gammas: Float32  # (3,)
    kappa: float
    scale: float


@njit(nogil=True, cache=True)
def decay_exponent(ts_ms: int, reference_ms: int, per_ms: float) -> float:
    """Half-lives since the reference; 2 to this power is the forward weight."""
    return (ts_ms - reference_ms) * per_ms


@njit(nogil=True, cache=True)
def reference_of(ts_ms: int, per_ms: float) -> int:
    """Newest point of the fixed grid of `REBASE_HALF_LIVES` that is not after `ts_ms`.

    The grid does not depend on what was learned, so neither does the rounding of a rebase.
    """
    if per_ms <= 0.0:
        return 0
    step = REBASE_HALF_LIVES / per_ms
    return int(np.floor(ts_ms / step) * step)


@njit(nogil=True, cache=True, inline="always")
def find(row: Int32, filled: int, item: int) -> int:
    """Place of `item`, which is met at most once, among the first `filled` of `row`, or -1."""
    wanted, place = np.int32(item), np.int32(-1)
    for k in range(filled):  # without an exit and in one width this compiles to vector compares
        place = max(place, np.int32(k) if row[k] == wanted else np.int32(-1))
    return int(place)


@njit(nogil=True, cache=True, inline="always")
def lightest(w: Float32, keys: Int32) -> int:
    """Place with the least total weight; the first of equals. `keys` (K,) is scratch memory.

    Totals are compared by their bits, turned so that integers order as the floats do: a least
    integer is found by vector code, a least float is not.
    """
    n = len(w)
    for k in range(n):
        total = np.float32(w[k, 0] + w[k, 1] + w[k, 2] + np.float32(0.0))  # -0 + 0 is 0
        bits = total.view(np.int32)
        keys[k] = bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))
    least = keys[0]
    for k in range(n):
        least = min(least, keys[k])
    place = np.int32(n)
    for k in range(n):
        place = min(place, np.int32(k) if keys[k] == least else np.int32(n))
    return int(place)


@njit(nogil=True, cache=True, inline="always")
def place_for(nbr: Int32, w: Float32, rowsum: Float32, filled: Int32, keys: Int32, a: int, b: int) -> int:
    """Place of `b` in the row of `a`, made by eviction when the row is full (space-saving)."""
    k = find(nbr[a], filled[a], b)
    if k >= 0:
        return k
    if filled[a] < nbr.shape[1]:
        k = int(filled[a])
        filled[a] += 1
    else:
        k = lightest(w[a], keys)
        for c in range(CHANNELS):
            lost = w[a, k, c] * np.float32(1.0 - INHERITED)
            w[a, k, c] -= lost
            rowsum[a, c] -= lost
    nbr[a, k] = b
    return k


@njit(nogil=True, cache=True)
def rescale(rows: Rows, factor: float) -> None:
    """Multiply every weight by `factor`."""
    small = np.float32(factor)
    for a in range(len(rows.filled)):
        for c in range(CHANNELS):
            rows.rowsum[a, c] *= small
            for k in range(rows.filled[a]):
                rows.w[a, k, c] *= small


@njit(nogil=True, cache=True, inline="always")
def prefetch_row(a: int, flat_nbr: Int32, flat_w: Float32, flat_rowsum: Float32, width: int) -> None:
    """Ask for the row of `a`."""
    for k in range(0, width, FLOATS_A_LINE):
        prefetch(flat_nbr, a * width + k)
    for k in range(0, CHANNELS * width, FLOATS_A_LINE):
        prefetch(flat_w, a * width * CHANNELS + k)
    prefetch(flat_rowsum, a * CHANNELS)


@njit(nogil=True, cache=True)
def learn_rows(
    items: Int32,
    weights: Float32,
    ts_ms: Int64,
    fresh: Bools,
    history: Int32,
    rows: Rows,
    clock: Int64,
    n_lags: int,
    per_ms: float,
) -> None:
    """Count every fresh positive against its `n_lags` newest predecessors; `clock` is [reference, newest]."""
    # Arrays are taken out of their tuple once: each access counts a reference, atomically.
    nbr, w, rowsum, filled, dirty = rows.nbr, rows.w, rows.rowsum, rows.filled, rows.dirty
    keys = np.empty(nbr.shape[1], dtype=np.int32)
    width, h, n = nbr.shape[1], history.shape[1], len(filled)
    flat_nbr, flat_w, flat_rowsum = nbr.reshape(-1), w.reshape(-1), rowsum.reshape(-1)
    for i in range(len(items)):
        if i + AHEAD < len(items) and fresh[i + AHEAD]:
            prefetch_row(items[i + AHEAD], flat_nbr, flat_w, flat_rowsum, width)
            for d in range(1, min(n_lags, h) + 1):
                prefetch_row(history[i + AHEAD, h - d], flat_nbr, flat_w, flat_rowsum, width)
        if not fresh[i] or weights[i] <= 0.0:
            continue
        ts, x = ts_ms[i], items[i]
        if ts > clock[1]:
            clock[1] = ts
            reference = reference_of(ts, per_ms)
            if reference != clock[0]:
                rescale(rows, 2.0 ** -decay_exponent(reference, clock[0], per_ms))
                clock[0] = reference
        if x < 0 or x >= n:
            continue
        v = np.float32(weights[i] * 2.0 ** decay_exponent(ts, clock[0], per_ms))
        for d in range(1, min(n_lags, h) + 1):
            a = history[i, h - d]
            if a < 0:
                break
            if a == x or a >= n:
                continue
            share = v / np.float32(d)
            k = place_for(nbr, w, rowsum, filled, keys, a, x)
            w[a, k, FORWARD] += share
            rowsum[a, FORWARD] += share
            if d == 1:
                w[a, k, NEXT] += share
                rowsum[a, NEXT] += share
            dirty[a] = True
            k = place_for(nbr, w, rowsum, filled, keys, x, a)
            w[x, k, BACKWARD] += share
            rowsum[x, BACKWARD] += share
            dirty[x] = True


@njit(nogil=True, cache=True)
def score_rows(history: Int32, items: Int32, view: TransitionsView, n_lags: int, out: Float32) -> None:
    """Sum of the channels' s_c for each context and candidate; `out` is (B, C, 3)."""
    n = view.n_items
    scores = np.zeros((n, CHANNELS), dtype=np.float32)
    scale, kappa = np.float32(view.scale), np.float32(view.kappa)
    h = history.shape[1]
    n_lags = min(n_lags, h)
    for i in range(len(history)):
        for pass_ in range(2):  # score, then clear what was written
            for j in range(n_lags):
                a = history[i, h - 1 - j]
                if a < 0 or a >= n:
                    continue
                for k in range(view.nbr.shape[1]):
                    b = view.nbr[a, k]
                    if b < 0:
                        break
                    for c in range(CHANNELS):
                        if pass_ == 1:
                            scores[b, c] = 0.0
                        else:
                            norm = view.gammas[c] ** j * scale / (view.rowsum[a, c] * scale + kappa)
                            scores[b, c] += view.w[a, k, c] * norm
            if pass_ == 0:
                for q in range(len(items)):
                    b = items[q]
                    for c in range(CHANNELS):
                        out[i, q, c] = scores[b, c] if 0 <= b < n else 0.0


@njit(nogil=True, cache=True)
def best_of(weights: Float32, n: int, k: int, nbr: Int32, out: Int32) -> None:
    """The `k` heaviest of the first `n` neighbours into `out`, heaviest first; of equals the first."""
    taken = np.zeros(n, dtype=np.bool_)
    for q in range(min(k, n)):
        best = -1
        for p in range(n):
            if not taken[p] and (best < 0 or weights[p] > weights[best]):
                best = p
        if weights[best] <= 0.0:
            return
        taken[best] = True
        out[q] = nbr[best]
