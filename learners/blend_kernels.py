"""Compiled candidates, features, scores and learning step of the blend; plain arrays only.

A candidate's features are zero where a source knows nothing (a constant added to every candidate
leaves a softmax as it is, so each logarithm is taken relative to its floor)::

    x0..x2 = log(1 + s_c / 1e-4)           s_c of transitions, c = next, forward, backward
    x3, x4 = log(1 + share_h / 1e-5)       popularity shares at two half-lives
    x5     = 1 if the item is in the user's history

`Work.slot` maps an item to its place among the candidates of the user at hand. An entry is `base` +
place, `base` + `BLOCKED` for what may not be listed, or less than `base`: not met. As every user has
a higher base, nothing is cleared between users. The other work arrays are as long as the largest
candidate set, so they stay in the first-level cache.

Logarithm and exponential are polynomials (errors below 1e-5) that compile to vector code; the
library functions would be most of the cost. The same arrays give the same bits every time.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import inlined, kernel, reassociated
from schemas.runs import Float32, Int8, Int32, Int64

from .user_kernels import FRESH_WINDOW

N_FEATURES: Final = 6
N_BUCKETS: Final = 6
BLOCKED: Final = 65_535
"""Above every place of a candidate."""
_BASE_BITS: Final = 16
_LAST_STAMP: Final = 32_767
NEVER_AGAIN: Final = FRESH_WINDOW
"""So many newest items of a history are never listed, not even where seen items may be: being
watched again they would be no target."""

TRANSITIONS: Final = 0
EMBEDDING: Final = 1
POPULARITY: Final = 2

Bools = NDArray[np.bool_]

_PER_S: Final = np.float32(1e4)


class Rows(NamedTuple):
    """Transition rows as the kernels read them; see `learners.transitions`."""

    nbr: Int32  # (N, K) -1 empty
    w: Float32  # (N, K, 3)
    rowsum: Float32  # (N, 3)
    gammas: Float32  # (3,)
    kappa: float
    scale: float
    n_last: int  # how many of the newest history items to follow


class Popular(NamedTuple):
    """Popularity prepared for a while: features of all items, and popular-only lists by bucket."""

    features: Float32  # (N, 2) x3, x4
    items: Int32  # (N_BUCKETS, P) the same P items, best first by the bucket's weights
    scores: Float32  # (N_BUCKETS, P) w3 x3 + w4 x4
    mass: Float32  # (N_BUCKETS,) sum exp(scores - scores[0])
    uniform: float  # x3 of an item with share 1/N
    reserve: Int32  # (R,) further items, most popular first, for lists that the others do not fill


class Work(NamedTuple):
    """Scratch memory, reused; one set a thread."""

    slot: Int32  # (N,) for every item with a row, a vector or popularity
    stamp: Int64  # (1,) base of the last user, by `2 ** _BASE_BITS`
    places: Int32  # (n_last K,) candidate at each place of the rows followed, C for none
    hits: Int32  # (n_last K + 1,)
    ids: Int32  # (C,)
    x: Float32  # (N_FEATURES, C)
    score: Float32  # (C,)
    mass: Float32  # (C,)
    short: Int32  # (C,)
    short_scores: Float32  # (C,)
    above: Int32  # (C,)
    taken: Int32  # (C,)
    listed: Int32  # (C + 1,) place in the list of each candidate, -1 for none
    top_items: Int32  # (C,) at least k
    top_scores: Float32  # (C,)
    most: Float32  # (C,)


class Lists(NamedTuple):
    """Where rankings are written; (B, k) each."""

    items: Int32
    scores: Float32
    relevance: Float32
    sources: Int8
    reasons: Int32


@inlined
def log32(x: np.float32) -> np.float32:
    """Natural logarithm of a positive, normal float32; log32(1) is exactly 0."""
    bits = np.float32(x).view(np.int32)
    exponent = np.float32(np.int32(bits >> 23) - 127)
    m = np.int32((bits & 0x7FFFFF) | 0x3F800000).view(np.float32) - np.float32(1.0)
    p = np.float32(-0.023979573) * m + np.float32(0.10150005)
    p = p * m + np.float32(-0.21029369)
    p = p * m + np.float32(0.32529514)
    p = p * m + np.float32(-0.4993726)
    p = p * m + np.float32(0.99999183)
    return np.float32(0.69314718) * exponent + p * m


@inlined
def exp32(x: np.float32) -> np.float32:
    """Exponential of a float32 below 80; arguments below -80 count as -80."""
    y = max(np.float32(x), np.float32(-80.0)) * np.float32(1.44269504)
    whole = np.floor(y)
    f = np.float32(y - whole)
    p = np.float32(0.0136839829) * f + np.float32(0.0517177355)
    p = p * f + np.float32(0.241621323)
    p = p * f + np.float32(0.692969551)
    p = p * f + np.float32(1.0000036)
    return p * np.int32((np.int32(whole) + 127) << 23).view(np.float32)


@kernel
def bucket_of(n_history: int) -> int:
    """History-length bucket: 0, 1, 2-4, 5-14, 15-49, 50 and more."""
    if n_history < 2:
        return n_history
    if n_history < 5:
        return 2
    if n_history < 15:
        return 3
    return 4 if n_history < 50 else 5


@kernel
def length_of(history: Int32) -> int:
    """Items in one right-aligned history (H,)."""
    n = 0
    for p in range(len(history) - 1, -1, -1):
        if history[p] < 0:
            break
        n += 1
    return n


@kernel
def begin_user(history: Int32, n: int, seen: Int32, exclude_seen: bool, slot: Int32, stamp: Int64) -> int:
    """A base for the next user, for whom what they may not be shown is blocked."""
    stamp[0] += 1
    if stamp[0] > _LAST_STAMP:
        slot[:] = 0
        stamp[0] = 1
    base = stamp[0] << _BASE_BITS
    value = base + BLOCKED
    h = len(history)
    n_blocked = n if exclude_seen else min(n, NEVER_AGAIN)
    for p in range(h - n_blocked, h):
        if history[p] < len(slot):
            slot[history[p]] = value
    if exclude_seen:
        for p in range(len(seen)):
            b = seen[p]
            if 0 <= b < len(slot):
                slot[b] = value
    return int(base)


@inlined
def open_place(b: int, c: int, features: Float32, slot: Int32, base: int, ids: Int32, x: Float32) -> None:
    """Make item `b` candidate number `c`; the caller sets x0..x2."""
    slot[b] = base + c
    ids[c] = b
    if b < len(features):
        x[3, c] = features[b, 0]
        x[4, c] = features[b, 1]
    else:
        x[3, c] = np.float32(0.0)
        x[4, c] = np.float32(0.0)
    x[5, c] = np.float32(0.0)


@kernel
def follow_rows(
    history: Int32, n: int, rows: Rows, features: Float32, withdrawn: Bools, base: int, work: Work
) -> int:
    """Candidates and their s_c from the rows of the newest items; returns how many.

    s_c(b) = sum_j gamma_c^j T_c[a_j -> b] / (rowsum_c(a_j) + kappa), j = 0 for the newest.
    """
    # Arrays are taken out of their tuples once: each access counts a reference, atomically.
    slot, ids, x, places = work.slot, work.ids, work.x, work.places
    nbr, w, rowsum, gammas = rows.nbr, rows.w, rows.rowsum, rows.gammas
    x0, x1, x2, x3, x4, x5 = x[0], x[1], x[2], x[3], x[4], x[5]
    h, width, none = len(history), nbr.shape[1], len(ids)
    scale, kappa = np.float32(rows.scale), np.float32(rows.kappa)
    g0 = g1 = g2 = np.float32(1.0)
    count = 0
    for j in range(min(n, rows.n_last)):
        a = history[h - 1 - j]
        at = places[j * width : (j + 1) * width]
        if a < len(nbr):
            f0 = g0 * scale / (rowsum[a, 0] * scale + kappa)
            f1 = g1 * scale / (rowsum[a, 1] * scale + kappa)
            f2 = g2 * scale / (rowsum[a, 2] * scale + kappa)
            row, weights = nbr[a], w[a]
            for k in range(width):
                b = row[k]
                place = none
                if b >= 0:  # and below len(slot): neighbours are items with a row
                    v0 = f0 * max(weights[k, 0], np.float32(0.0))
                    v1 = f1 * max(weights[k, 1], np.float32(0.0))
                    v2 = f2 * max(weights[k, 2], np.float32(0.0))
                    c = slot[b] - base
                    if c < 0:
                        if not (b < len(withdrawn) and withdrawn[b]):
                            slot[b] = base + count
                            ids[count] = b
                            is_known = b < len(features)
                            x3[count] = features[b, 0] if is_known else np.float32(0.0)
                            x4[count] = features[b, 1] if is_known else np.float32(0.0)
                            x0[count] = v0
                            x1[count] = v1
                            x2[count] = v2
                            place = count
                            count += 1
                    elif c != BLOCKED:
                        x0[c] += v0
                        x1[c] += v1
                        x2[c] += v2
                        place = c
                at[k] = place
        else:
            at[:] = none
        g0 *= gammas[0]
        g1 *= gammas[1]
        g2 *= gammas[2]
    for c in range(count):
        x5[c] = np.float32(0.0)
    return count


@kernel
def add_items(
    items: Int32, count: int, features: Float32, withdrawn: Bools, flag: float, base: int, work: Work
) -> int:
    """Add `items` as candidates unless blocked, withdrawn or there; `flag` becomes x5 when not 0."""
    slot, ids, x = work.slot, work.ids, work.x
    for p in range(len(items)):
        b = items[p]
        if b < 0 or b >= len(slot):
            continue
        c = slot[b] - base
        if c < 0 and not (b < len(withdrawn) and withdrawn[b]) and count < len(ids):
            c = count
            open_place(b, c, features, slot, base, ids, x)
            x[0, c] = np.float32(0.0)
            x[1, c] = np.float32(0.0)
            x[2, c] = np.float32(0.0)
            count += 1
        if 0 <= c < BLOCKED and flag != 0.0:
            x[5, c] = np.float32(flag)
    return count


@kernel
def take_logs(count: int, x: Float32) -> None:
    """s_c to x0..x2, in place."""
    for f in range(3):
        row = x[f]
        for c in range(count):
            row[c] = log32(np.float32(1.0) + row[c] * _PER_S)


@reassociated()
def dot(a: Float32, b: Float32) -> np.float32:
    """Inner product of two rows."""
    total = np.float32(0.0)
    for i in range(len(a)):
        total += a[i] * b[i]
    return total


@kernel
def score_candidates(count: int, weights: Float32, work: Work) -> None:
    """Scores: weights . x for the first `count` candidates."""
    x, score = work.x, work.score
    for c in range(count):
        score[c] = (
            weights[0] * x[0, c]
            + weights[1] * x[1, c]
            + weights[2] * x[2, c]
            + weights[3] * x[3, c]
            + weights[4] * x[4, c]
            + weights[5] * x[5, c]
        )


@kernel
def softmax_mass(count: int, peak: np.float32, score: Float32, mass: Float32) -> np.float32:
    """Fill in mass = exp(score - peak), return its sum."""
    for c in range(count):
        mass[c] = exp32(score[c] - peak)
    total = np.float32(0.0)
    for c in range(count):
        total += mass[c]
    return total
