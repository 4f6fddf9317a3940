"""Compiled choice of the best k of a few hundred scores, by vector code without unforeseeable branches.

Arrays of scores have room up to the next multiple of `LANES`.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.compiled import inlined, kernel, reassociated
from schemas.runs import Float32, Int32

from .blend_kernels import Work

LANES: Final = 16
"""Scores are padded to a multiple of so many, so that loops over them are vectors only."""
_SPARE: Final = 12
"""Candidates beyond k that a bound may leave for the exact selection."""


@inlined
def padded(n: int) -> int:
    """The next multiple of `LANES`."""
    return (n + LANES - 1) // LANES * LANES


@reassociated()
def count_above(n: int, values: Float32, above: Int32) -> None:
    """How many of the first `n` values, padded with -inf, are above each; equal ones get equal counts.

    Counting all pairs is branch-free vector code (floats count exactly up to 2^24): for the
    lengths at hand several times faster than a sort.
    """
    for j in range(n):
        v = values[j]
        total = np.float32(0.0)
        for i in range(padded(n)):
            total += np.float32(1.0) if values[i] > v else np.float32(0.0)
        above[j] = np.int32(total)


@reassociated()
def n_reaching(n: int, values: Float32, bound: np.float32) -> int:
    """How many of the first `n` values, padded with -inf, reach `bound`."""
    total = np.float32(0.0)
    for i in range(padded(n)):
        total += np.float32(1.0) if values[i] >= bound else np.float32(0.0)
    return int(total)


@reassociated("nnan", "nsz")
def fill_piles(count: int, n_piles: int, score: Float32, best: Float32) -> None:
    """Deal `count` scores, at least `n_piles`, into piles; `best` gets the maximum of each."""
    for j in range(n_piles):
        best[j] = score[j]
    whole = count // n_piles
    for r in range(1, whole):
        part = score[r * n_piles :]
        for j in range(n_piles):
            v = part[j]
            best[j] = max(best[j], v)
    part = score[whole * n_piles :]
    for j in range(count - whole * n_piles):
        v = part[j]
        best[j] = max(best[j], v)


@kernel
def low_bound(count: int, k: int, score: Float32, best: Float32) -> np.float32:
    """A score that at least `k` of the scores, padded with -inf, reach, and mostly few more.

    The least of the maxima of k or more piles is one; halving the way to the highest score finds a
    tighter one.
    """
    n_piles = padded(k)
    fill_piles(count, n_piles, score, best)
    low = high = best[0]
    for j in range(n_piles):
        v = best[j]
        low = min(low, v)
        high = max(high, v)
    n = n_reaching(count, score, low)
    for _ in range(12):
        if n <= k + _SPARE:
            break
        middle = (low + high) * np.float32(0.5)
        reached = n_reaching(count, score, middle)
        if reached < k:
            high = middle
        else:
            low, n = middle, reached
    return np.float32(low)


@kernel
def select_best(count: int, k: int, work: Work) -> int:
    """The best `k` candidates into top_items, top_scores, in order; returns how many there are.

    Few candidates reach a lower bound of the k-th best score, and only those are sorted. Of equal
    scores the lower number wins.
    """
    ids, score, above, taken = work.ids, work.score, work.above, work.taken
    top_items, top_scores = work.top_items, work.top_scores
    short, short_scores = work.short, work.short_scores
    minus_infinity = np.float32(-np.inf)
    m = 0
    if count <= max(k + _SPARE, padded(k)):
        for c in range(count):
            short[c] = c
        m = count
    else:
        for c in range(count, padded(count)):
            score[c] = minus_infinity
        bound = low_bound(count, k, score, short_scores)
        for c in range(count):
            short[m] = c
            m += 1 if score[c] >= bound else 0
    for j in range(m):
        short_scores[j] = score[short[j]]
    for j in range(m, padded(m)):
        short_scores[j] = minus_infinity
    count_above(m, short_scores, above)
    for j in range(m):
        taken[j] = 0
    for j in range(m):
        place = above[j] + taken[above[j]]
        taken[above[j]] += 1
        top_items[place] = ids[short[j]]
        top_scores[place] = short_scores[j]
    return min(m, k)


@inlined
def push(item: int, score: np.float32, n: int, k: int, top_items: Int32, top_scores: Float32) -> int:
    """Insert into the best `k` so far, `n` of them; of equal scores the first to come stays ahead."""
    if n < k:
        p = n
        n += 1
    elif score > top_scores[k - 1]:
        p = k - 1
    else:
        return n
    while p > 0 and top_scores[p - 1] < score:
        top_scores[p] = top_scores[p - 1]
        top_items[p] = top_items[p - 1]
        p -= 1
    top_scores[p] = score
    top_items[p] = item
    return n
