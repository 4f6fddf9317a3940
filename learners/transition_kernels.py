"""Compiled rows of decayed transition counts; plain arrays only. See `learners.transitions`."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from schemas.compiled import inlined, kernel
from schemas.runs import Float32, Int8, Int32, Int64

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
BLOCK: Final = 16
"""Rows that one thread learns together: as many as a line of cache has numbers of `filled`."""

Bools = NDArray[np.bool_]


class Rows(NamedTuple):
    """Transition rows of N items with room for K neighbours each."""

    nbr: Int32  # (N, K) -1 empty; filled from the left
    w: Float32  # (N, K, 3) forward-scaled weights
    rowsum: Float32  # (N, 3) sums of w over the neighbours
    filled: Int32  # (N,)
    dirty: Bools  # (N,) changed since the last drain
    stale: Bools  # (N,) changed since the last copy, see `learners.row_copies`
    keys: Int32  # (N, K) `total_key` of the neighbours there are: which weigh least is found from it


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


@kernel
def decay_exponent(ts_ms: int, reference_ms: int, per_ms: float) -> float:
    """Half-lives since the reference; 2 to this power is the forward weight."""
    return (ts_ms - reference_ms) * per_ms


@kernel
def reference_of(ts_ms: int, per_ms: float) -> int:
    """Newest point of the fixed grid of `REBASE_HALF_LIVES` that is not after `ts_ms`.

    The grid does not depend on what was learned, so neither does the rounding of a rebase.
    """
    if per_ms <= 0.0:
        return 0
    step = REBASE_HALF_LIVES / per_ms
    return int(np.floor(ts_ms / step) * step)


@inlined
def find(row: Int32, filled: int, item: int) -> int:
    """Place of `item`, which is met at most once, among the first `filled` of `row`, or -1."""
    wanted, place = np.int32(item), np.int32(-1)
    for k in range(filled):  # without an exit and in one width this compiles to vector compares
        place = max(place, np.int32(k) if row[k] == wanted else np.int32(-1))
    return int(place)


@inlined
def total_key(w: Float32, a: int, k: int) -> np.int32:
    """The bits of the total weight of neighbour `k`, turned so that integers order as the floats do.

    A least integer is found by vector code, a least float is not.
    """
    total = np.float32(w[a, k, 0] + w[a, k, 1] + w[a, k, 2] + np.float32(0.0))  # -0 + 0 is 0
    bits = total.view(np.int32)
    return bits ^ ((bits >> np.int32(31)) & np.int32(0x7FFFFFFF))


@inlined
def lightest(keys: Int32) -> int:
    """Place of the least of `keys` (K,): of the neighbour of least total weight; the first of equals."""
    n = len(keys)
    least = keys[0]
    for k in range(n):
        least = min(least, keys[k])
    place = np.int32(n)
    for k in range(n):
        place = min(place, np.int32(k) if keys[k] == least else np.int32(n))
    return int(place)


@kernel
def find_keys(items: Int32, rows: Rows) -> None:
    """Make the keys of the rows of `items` anew."""
    w, keys, filled = rows.w, rows.keys, rows.filled
    for a in items:
        for k in range(filled[a]):
            keys[a, k] = total_key(w, a, k)


@inlined
def place_for(nbr: Int32, w: Float32, rowsum: Float32, filled: Int32, keys: Int32, a: int, b: int) -> int:
    """Place of `b` in the row of `a`, made by eviction when the row is full (space-saving)."""
    k = find(nbr[a], filled[a], b)
    if k >= 0:
        return k
    if filled[a] < nbr.shape[1]:
        k = int(filled[a])
        filled[a] += 1
    else:
        k = lightest(keys[a])
        for c in range(CHANNELS):
            lost = w[a, k, c] * np.float32(1.0 - INHERITED)
            w[a, k, c] -= lost
            rowsum[a, c] -= lost
    nbr[a, k] = b
    return k


@kernel
def rescale(rows: Rows, factor: float) -> None:
    """Multiply every weight by `factor`."""
    small = np.float32(factor)
    for a in range(len(rows.filled)):
        for c in range(CHANNELS):
            rows.rowsum[a, c] *= small
            for k in range(rows.filled[a]):
                rows.w[a, k, c] *= small
        for k in range(rows.filled[a]):
            rows.keys[a, k] = total_key(rows.w, a, k)


@inlined
def prefetch_row(a: int, flat_nbr: Int32, flat_w: Float32, flat_rowsum: Float32, width: int) -> None:
    """Ask for the row of `a`."""
    for k in range(0, width, FLOATS_A_LINE):
        prefetch(flat_nbr, a * width + k)
    for k in range(0, CHANNELS * width, FLOATS_A_LINE):
        prefetch(flat_w, a * width * CHANNELS + k)
    prefetch(flat_rowsum, a * CHANNELS)


@kernel
def until_rebase(
    start: int, weights: Float32, ts_ms: Int64, fresh: Bools, clock: Int64, per_ms: float
) -> int:
    """Move the newest time, ``clock[1]``, over the fresh positives from `start` on.

    Returns the first that asks for another reference than ``clock[0]``, or N; the time of that one
    has not been taken yet.
    """
    for i in range(start, len(weights)):
        if fresh[i] and weights[i] > 0.0 and ts_ms[i] > clock[1]:
            if reference_of(ts_ms[i], per_ms) != clock[0]:
                return i
            clock[1] = ts_ms[i]
    return len(weights)


@kernel
def divide_rows(items: Int32, fresh: Bools, counts: Int32, owners: Int8) -> None:
    """Give each block of `BLOCK` rows to one of two threads, so that both have about as much to learn.

    A block goes to who has less so far, by the events on its items; `owners` (blocks,) gets 0 or 1,
    `counts` (blocks,) holds zeros.
    What comes out does not depend on the division: only who writes it does.
    """
    for i in range(len(items)):
        block = items[i] // BLOCK
        if fresh[i] and 0 <= block < len(owners):
            counts[block] += 1
    mine = other = 0
    for block in range(len(owners)):
        if mine <= other:
            owners[block] = 0
            mine += counts[block]
        else:
            owners[block] = 1
            other += counts[block]


@inlined
def is_own(a: int, owners: Int8, me: int) -> bool:
    """Whether row `a` is for `me` to write; all are where `owners` is empty."""
    block = a // BLOCK
    return len(owners) == 0 or (0 <= block < len(owners) and owners[block] == me)


@inlined
def ask_for(a: int, flat_nbr: Int32, flat_keys: Int32, flat_rowsum: Float32, width: int) -> None:
    """Ask for what finds a place in the row of `a`; of its weights only one line is needed then."""
    for k in range(0, width, FLOATS_A_LINE):
        prefetch(flat_nbr, a * width + k)
        prefetch(flat_keys, a * width + k)
    prefetch(flat_rowsum, a * CHANNELS)


@kernel
def learn_rows(
    start: int,
    end: int,
    items: Int32,
    weights: Float32,
    ts_ms: Int64,
    fresh: Bools,
    history: Int32,
    rows: Rows,
    reference_ms: int,
    n_lags: int,
    per_ms: float,
    owners: Int8,
    me: int,
) -> None:
    """Count each fresh positive of ``start .. end`` against its `n_lags` newest predecessors.

    Only rows that `me` owns are written; all of them where `owners` is empty. Each row meets its
    events in order either way, so it comes out the same.
    """
    # Arrays are taken out of their tuple once: each access counts a reference, atomically.
    nbr, w, rowsum, filled, keys = rows.nbr, rows.w, rows.rowsum, rows.filled, rows.keys
    dirty, stale = rows.dirty, rows.stale
    width, h, n = nbr.shape[1], history.shape[1], len(filled)
    flat_nbr, flat_rowsum, flat_keys = nbr.reshape(-1), rowsum.reshape(-1), keys.reshape(-1)
    n_lags = min(n_lags, h)
    for i in range(start, end):
        if i + AHEAD < end and fresh[i + AHEAD]:
            for d in range(n_lags + 1):
                a = history[i + AHEAD, h - d] if d else items[i + AHEAD]
                if is_own(a, owners, me):
                    ask_for(a, flat_nbr, flat_keys, flat_rowsum, width)
        x = items[i]
        if not fresh[i] or weights[i] <= 0.0 or x < 0 or x >= n:
            continue
        is_mine = is_own(x, owners, me)
        v = np.float32(weights[i] * 2.0 ** decay_exponent(ts_ms[i], reference_ms, per_ms))
        for d in range(1, n_lags + 1):
            a = history[i, h - d]
            if a < 0:
                break
            if a == x or a >= n:
                continue
            share = v / np.float32(d)
            if is_own(a, owners, me):
                k = place_for(nbr, w, rowsum, filled, keys, a, x)
                w[a, k, FORWARD] += share
                rowsum[a, FORWARD] += share
                if d == 1:
                    w[a, k, NEXT] += share
                    rowsum[a, NEXT] += share
                keys[a, k] = total_key(w, a, k)
                if not (dirty[a] and stale[a]):  # rows of both threads share its lines of cache
                    dirty[a] = stale[a] = True
            if is_mine:
                k = place_for(nbr, w, rowsum, filled, keys, x, a)
                w[x, k, BACKWARD] += share
                rowsum[x, BACKWARD] += share
                keys[x, k] = total_key(w, x, k)
                if not (dirty[x] and stale[x]):
                    dirty[x] = stale[x] = True


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
