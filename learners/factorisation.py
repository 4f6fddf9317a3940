"""Factorisation machine over hashed categories, learned by row-wise Adagrad.

The rows r of an event are the hashes of its (category, value) pairs::

    z = b + sum_r w_r + sum_{r < r'} v_r . v_r'
      = b + sum_r w_r + (|sum_r v_r|^2 - sum_r |v_r|^2) / 2

A step on the logistic loss, with g = sigmoid(z) - y::

    b   -= BIAS_RATE g
    w_r -= rate_w (g + l2 w_r) / sqrt(G_r)                            G_r += (.)^2
    v_r -= rate_v (g (sum_r' v_r' - v_r) + l2 v_r) / sqrt(S_r)        S_r += mean_k (.)_k^2

Rows share a table of fixed size: two pairs may fall into one row (2^18 rows hold a hundred thousand
pairs with a third of them shared), which costs accuracy and never memory.

References
----------
Rendle, Factorization machines, ICDM 2010. Weinberger et al., Feature hashing, ICML 2009.
"""

from __future__ import annotations

import math
from typing import Final

from numba import njit

from schemas.runs import Float32, Float64, Int64

from .logistic_filter import sigmoid

DIM: Final = 16
BIAS_RATE: Final = 0.02
FIRST_SQUARES: Final = 0.1
"""What G and S start from."""

L2: Final = 1e-2

_FAST: Final = {"reassoc", "contract", "nsz", "arcp"}


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def logit_of(rows: Int64, bias: float, linear: Float32, factors: Float32, total: Float32) -> float:
    """z; the sum of the vectors is left in `total` (D,)."""
    n_dims = len(total)
    z = bias
    squares = 0.0
    for k in range(n_dims):
        total[k] = 0.0
    for r in rows:
        if r < 0:
            continue
        z += linear[r]
        vector = factors[r]
        for k in range(n_dims):
            total[k] += vector[k]
            squares += vector[k] * vector[k]
    norm = 0.0
    for k in range(n_dims):
        norm += total[k] * total[k]
    return z + 0.5 * (norm - squares)


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def step(
    y: float,
    rows: Int64,
    first: int,
    bias: Float64,
    linear: Float32,
    linear_squares: Float32,
    factors: Float32,
    factor_squares: Float32,
    rate_w: float,
    rate_v: float,
    total: Float32,
) -> None:
    """Learn an event's outcome; rows before `first` stay as they are. `bias` is (1,)."""
    z = logit_of(rows, bias[0], linear, factors, total)
    if not math.isfinite(z):
        return
    g = sigmoid(z) - y
    bias[0] -= BIAS_RATE * g
    n_dims = len(total)
    for f in range(first, len(rows)):
        r = rows[f]
        if r < 0:
            continue
        slope = g + L2 * linear[r]
        linear_squares[r] += slope * slope
        linear[r] -= rate_w * slope / math.sqrt(linear_squares[r])
        vector = factors[r]
        mean = 0.0
        for k in range(n_dims):
            d = g * (total[k] - vector[k]) + L2 * vector[k]
            mean += d * d
        factor_squares[r] += mean / n_dims
        rate = rate_v / math.sqrt(factor_squares[r])
        for k in range(n_dims):
            vector[k] -= rate * (g * (total[k] - vector[k]) + L2 * vector[k])
