"""Compiled parts of the tag chain; plain arrays only. See `learners.tags`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from schemas.runs import Float32, Float64, Int32, Int64

from .transition_kernels import Bools, decay_exponent, reference_of


class ItemTags(NamedTuple):
    """Tag slots of every item: ``pool[start[i] : start[i] + length[i]]``."""

    start: Int64  # (N,)
    length: Int32  # (N,) 0 for an item without tags
    pool: Int32  # (P,)


@njit(nogil=True, cache=True)
def learn_tags(
    items: Int32,
    weights: Float32,
    fresh: Bools,
    ts_ms: Int64,
    last: Int32,
    tags: ItemTags,
    matrix: Float64,
    rowsum: Float64,
    clock: Int64,
    per_ms: float,
) -> None:
    """Spread each move from `last` to a fresh positive over all pairs of their tags."""
    n = len(tags.length)
    for i in range(len(items)):
        a, x = last[i], items[i]
        if not fresh[i] or weights[i] <= 0.0:
            continue
        if ts_ms[i] > clock[1]:
            clock[1] = ts_ms[i]
            reference = reference_of(ts_ms[i], per_ms)
            if reference != clock[0]:
                factor = 2.0 ** -decay_exponent(reference, clock[0], per_ms)
                for g in range(len(rowsum)):
                    rowsum[g] *= factor
                    for h in range(len(rowsum)):
                        matrix[g, h] *= factor
                clock[0] = reference
        if a < 0 or a >= n or x < 0 or x >= n or tags.length[a] == 0 or tags.length[x] == 0:
            continue
        v = weights[i] * 2.0 ** decay_exponent(ts_ms[i], clock[0], per_ms)
        v /= tags.length[a] * tags.length[x]
        for p in range(tags.start[a], tags.start[a] + tags.length[a]):
            for q in range(tags.start[x], tags.start[x] + tags.length[x]):
                matrix[tags.pool[p], tags.pool[q]] += v
                rowsum[tags.pool[p]] += v


@njit(nogil=True, cache=True)
def next_tags(
    history: Int32, tags: ItemTags, matrix: Float64, rowsum: Float64, gamma: float, n_lags: int, out: Float64
) -> float:
    """Mixture of the rows of one history's tags into `out` (G,); returns its mass, 0 or 1."""
    out[:] = 0.0
    h, total, discount = len(history), 0.0, 1.0
    for j in range(min(n_lags, h)):
        a = history[h - 1 - j]
        if 0 <= a < len(tags.length):
            for p in range(tags.start[a], tags.start[a] + tags.length[a]):
                t = tags.pool[p]
                if rowsum[t] > 0.0:
                    v = discount / tags.length[a]
                    total += v
                    for g in range(len(out)):
                        out[g] += v * matrix[t, g] / rowsum[t]
        discount *= gamma
    if total <= 0.0:
        return 0.0
    out /= total
    return 1.0


@njit(nogil=True, cache=True)
def score_tags(
    history: Int32,
    items: Int32,
    tags: ItemTags,
    matrix: Float64,
    rowsum: Float64,
    n_tags: int,
    gamma: float,
    n_lags: int,
    out: Float32,
) -> None:
    """Mean probability of a candidate's tags under the mixture of its context; `out` is (B, C)."""
    mixture = np.empty(n_tags, dtype=np.float64)
    for i in range(len(history)):
        if next_tags(history[i], tags, matrix, rowsum, gamma, n_lags, mixture) == 0.0:
            continue
        for q in range(len(items)):
            b = items[q]
            if b < 0 or b >= len(tags.length) or tags.length[b] == 0:
                continue
            total = 0.0
            for p in range(tags.start[b], tags.start[b] + tags.length[b]):
                total += mixture[tags.pool[p]]
            out[i, q] = total / tags.length[b]
