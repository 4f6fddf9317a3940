"""The frozen attention over a user's history, compiled: one logit for one item.

Everything that depends on an item alone (its embedding, its query, its key and value with each
outcome) is a row of a table, made once; see `learners.history_attention`. What remains an event::

    a_hj = q_h[x] . k_h[i_j, o_j] / sqrt(d / H) + pos_h[age of j]      and a_h0 = q_h[x] . k_h0
    c_h  = sum_j softmax(a_h)_j v_h[i_j, o_j]
    z    = MLP([e_x, c, e_x * c, log(1 + n) / 4, logit((n_long + 1.5) / (n + 4))]) + b_x

with the n newest entries of the history, the newest of age 1. The MLP has two hidden layers of
rectified units.
"""

from __future__ import annotations

import math
from typing import Final, NamedTuple

from numba import njit

from schemas.runs import Float32, Int32

MAX_HISTORY: Final = 50
N_HIDDEN: Final = 48
"""Width of the second hidden layer."""

_FAST: Final = {"reassoc", "contract", "nsz", "arcp"}


class AttentionTables(NamedTuple):
    """Arrays of a frozen attention over I items with H heads in d dimensions."""

    items: Float32  # (I, d)
    queries: Float32  # (I, d)
    keys: Float32  # (2 I, d), of item i with outcome o in row 2 i + o
    values: Float32  # (2 I, d)
    biases: Float32  # (I,)
    ages: Float32  # (H, MAX_HISTORY + 1)
    nothing: Float32  # (2, d): key and value of an empty history
    first: Float32  # (width, 3 d + 2)
    first_bias: Float32
    second: Float32
    second_bias: Float32
    last: Float32  # (width,)
    last_bias: Float32  # (1,)


class Attentions(NamedTuple):
    """Two attentions that were trained from different starts: their errors differ, and average out."""

    live: AttentionTables  # asked over everything a user watched
    prior: AttentionTables  # asked over the prior history alone


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def _layer(weights: Float32, bias: Float32, x: Float32, out: Float32) -> None:
    for a in range(len(weights)):
        z = bias[a]
        row = weights[a]
        for b in range(len(row)):
            z += row[b] * x[b]
        out[a] = max(z, 0.0)


@njit(nogil=True, cache=True, _nrt=False, fastmath=_FAST)
def attention_logit(tables: AttentionTables, item: int, history: Int32, work: Float32) -> float:
    """Logit z of an item for a history (n,) of rows 2 i + o of the tables, oldest first.

    0 for an item without a row. The second hidden layer is left in ``work[3]``: 0 for such an item.

    `work` is (4, at least 3 d + 2 and the widths) float32 scratch.
    """
    n_items, d = tables.items.shape
    if item < 0 or item >= n_items:
        for k in range(work.shape[1]):
            work[3, k] = 0.0
        return 0.0
    n_heads = len(tables.ages)
    width = d // n_heads
    n = len(history)
    x, scores = work[0], work[1]
    query = tables.queries[item]
    scale = 1.0 / math.sqrt(width)
    n_long = 0
    for entry in history:
        n_long += entry & 1
    for h in range(n_heads):
        at = h * width
        top = 0.0
        for k in range(width):
            top += query[at + k] * tables.nothing[0, at + k]
        top *= scale
        empty = top
        for j in range(n):
            key = tables.keys[history[j]]
            a = 0.0
            for k in range(width):
                a += query[at + k] * key[at + k]
            scores[j] = a * scale + tables.ages[h, n - j]
            top = max(top, scores[j])
        total = math.exp(empty - top)
        for k in range(width):
            x[d + at + k] = total * tables.nothing[1, at + k]
        for j in range(n):
            weight = math.exp(scores[j] - top)
            total += weight
            value = tables.values[history[j]]
            for k in range(width):
                x[d + at + k] += weight * value[at + k]
        for k in range(width):
            x[d + at + k] /= total
    for k in range(d):
        x[k] = tables.items[item, k]
        x[2 * d + k] = x[k] * x[d + k]
    rate = (n_long + 1.5) / (n + 4.0)
    x[3 * d] = math.log(1.0 + n) / 4.0
    x[3 * d + 1] = math.log(rate / (1.0 - rate))
    _layer(tables.first, tables.first_bias, x, work[2])
    _layer(tables.second, tables.second_bias, work[2], work[3])
    z = float(tables.last_bias[0] + tables.biases[item])
    for k in range(len(tables.last)):
        z += tables.last[k] * work[3, k]
    return z
