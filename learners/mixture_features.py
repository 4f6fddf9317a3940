"""Compiled features of the mixture's candidates; plain arrays only.

A candidate's features are zero where a source knows nothing::

    x0..x2   = log(1 + s_c / 1e-4)         transitions, c = next, forward, backward
    x3..x7   = log(1 + share_h / 1e-5)     popularity at five half-lives
    x8       = log(N p_emb)                embedding probability against a uniform draw (N with support)
    x9       = x8 log(1 + support) / 4
    x10      = log(1 + s / 1e-3)           co-occurrence
    x11      = s / max s                   co-occurrence against the best of the user's
    x12      = 4 s                         EASE, within [-8, 8]
    x13      = log(1 + max(s, 0) / 1e-2)   EASE
    x14      = 1 if the item is in the user's history
    x15      = 1 / (1 + age)               age: items since it was last there (1 for the newest)
    x16      = x0 x2 / 10
    x17      = log(1 + times)              how often it is there
    x18..x20 = s_c / max s_c               transitions against the best of the user's candidates
    x21      = p_emb / max p_emb           embedding probability against the best of the user's candidates
    x22, x23 = log(1 + s'_c / 1e-4)        transitions from the newest item alone, c = forward, backward
    x24      = log(1 + s' / 1e-3)          co-occurrence with the newest item alone
    x25      = s' / max s'                 the same against the best of the user's candidates
    x26, x27 = 1 if it is the newest item; the one before it
    x28      = x0 x8 / 10                  what transitions and encoder agree on
    x29      = x8 x10 / 10                 encoder and co-occurrence
    x30      = x1 x10 / 10                 transitions and co-occurrence
    x31      = x8^2 / 20
    x32      = logit that it is taken up if shown (`learners.tastes`)

s_c are the transitions' sums over the history, s' what its newest item says alone. Logarithms tell how
likely an item is, shares of the best how far it is ahead of the other candidates.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from schemas.compiled import inlined, kernel
from schemas.runs import Float32, Float64, Int32

from .blend_kernels import BLOCKED, Rows, dot, exp32, log32
from .neighbour_rows import NeighbourRows
from .prefetch import PER_LINE, prefetch

TASTE: Final = 32
N_SOURCES: Final = 33
"""Features; those below `TASTE` have weights that are learned."""
N_HALF_LIVES: Final = 5

AHEAD: Final = 4
"""Candidates between asking for a vector and reading it."""

_PER_MOVE: Final = np.float32(1e4)
_PER_SHARE: Final = np.float32(1e5)
_PER_NEAR: Final = np.float32(1e3)
_LEAST: Final = np.float32(1e-9)
"""No score to be best by: what is far below counts as nothing."""


class Embedded(NamedTuple):
    """The encoder's part for B users; `matrix` has no rows where it has learned nothing."""

    vectors: Float32  # (B, d)
    matrix: Float32  # (N, d)
    support: Int32  # (N,)
    top: Int32  # (B, M) candidates, -1 padded
    log_z: Float32  # (B,) log sum exp of the logits over the items with support
    log_n: float  # log of how many those are


class Sums(NamedTuple):
    """What the sources' rows say together, by item."""

    moves: Float32  # (N, 3) transitions, by channel
    near: Float32  # (N,) co-occurrence, before its norm
    linear: Float32  # (N,) EASE


@inlined
def log_row(count: int, per: np.float32, row: Float32) -> None:
    """Turn the first `count` values v of a row into log(1 + max(v, 0) per), as vector code."""
    for c in range(count):
        row[c] = log32(np.float32(1.0) + max(row[c], np.float32(0.0)) * per)


@kernel
def fill_sums(count: int, ids: Int32, most_near: np.float32, norm: Float32, sums: Sums, x: Float32) -> None:
    """Features of transitions, co-occurrence and EASE of all candidates, from the sums over the history."""
    moves, near, linear = sums.moves, sums.near, sums.linear
    x0, x1, x2, x16 = x[0], x[1], x[2], x[16]
    x10, x11, x12, x13 = x[10], x[11], x[12], x[13]
    x18, x19, x20 = x[18], x[19], x[20]
    most0 = most1 = most2 = _LEAST
    for c in range(count):
        b = ids[c]
        x0[c], x1[c], x2[c] = moves[b, 0], moves[b, 1], moves[b, 2]
        x10[c] = near[b] * norm[b] if b < len(norm) else np.float32(0.0)
        x12[c] = linear[b]
        most0, most1, most2 = max(most0, x0[c]), max(most1, x1[c]), max(most2, x2[c])
    per0, per1, per2 = np.float32(1.0) / most0, np.float32(1.0) / most1, np.float32(1.0) / most2
    for c in range(count):
        x11[c] = x10[c] / most_near
        x13[c] = x12[c]
        x12[c] = min(max(np.float32(4.0) * x12[c], np.float32(-8.0)), np.float32(8.0))
        x18[c], x19[c], x20[c] = x0[c] * per0, x1[c] * per1, x2[c] * per2
    for row in (x0, x1, x2):
        log_row(count, _PER_MOVE, row)
    log_row(count, _PER_NEAR, x10)
    log_row(count, np.float32(1e2), x13)
    for c in range(count):
        x16[c] = x0[c] * x2[c] * np.float32(0.1)


@kernel
def fill_popular(count: int, ids: Int32, counts: Float64, per_total: Float64, x: Float32) -> None:
    """Features of popularity of all candidates."""
    for f in range(counts.shape[1]):
        row, per = x[3 + f], per_total[f]
        for c in range(count):
            b = ids[c]
            row[c] = np.float32(counts[b, f] * per) if b < len(counts) else np.float32(0.0)
        log_row(count, _PER_SHARE, row)


@kernel
def fill_embedded(
    i: int, count: int, with_embedding: bool, ids: Int32, embedded: Embedded, x: Float32, logit: Float32
) -> None:
    """Features of the encoder of all candidates of user row `i`; unknown items count as uniform."""
    matrix, support = embedded.matrix, embedded.support
    x8, x9, x21, zero = x[8], x[9], x[21], np.float32(0.0)
    if not with_embedding:
        for c in range(count):
            logit[c] = x8[c] = x9[c] = x21[c] = zero
        return
    vector, shift = embedded.vectors[i], np.float32(embedded.log_n - embedded.log_z[i])
    most = np.float32(-np.inf)
    for c in range(count):
        if c + AHEAD < count and ids[c + AHEAD] < len(matrix):
            coming = matrix[ids[c + AHEAD]]
            for k in range(0, len(coming), PER_LINE):
                prefetch(coming, k)
        b = ids[c]
        known = b < len(matrix)
        logit[c] = dot(vector, matrix[b]) if known else zero
        x8[c] = logit[c] + shift if known else zero
        x9[c] = np.float32(support[b]) if known else zero
        x21[c] = np.float32(1.0) if known else zero
        most = max(most, logit[c]) if known else most
    log_row(count, np.float32(1.0), x9)
    for c in range(count):
        x9[c] *= x8[c] * np.float32(0.25)
        x21[c] *= exp32(min(logit[c] - most, zero))


@kernel
def fill_history(count: int, past: Int32, n: int, base: int, slot: Int32, x: Float32) -> None:
    """Features of what the user did before."""
    h, zero, one = len(past), np.float32(0.0), np.float32(1.0)
    x14, x15, x17, x26, x27 = x[14], x[15], x[17], x[26], x[27]
    for c in range(count):
        x14[c] = x15[c] = x17[c] = x26[c] = x27[c] = zero
    for p in range(h - n, h):  # oldest first: the newest visit decides
        c = slot[past[p]] - base if past[p] < len(slot) else -1
        if 0 <= c < BLOCKED:
            x14[c] = one
            x15[c] = one / np.float32(h - p)
            x17[c] += one
            x26[c] = one if p == h - 1 else zero
            x27[c] = one if p == h - 2 else zero
    log_row(count, one, x17)


@kernel
def fill_newest(
    count: int, past: Int32, n: int, rows: Rows, near_rows: NeighbourRows, base: int, slot: Int32, x: Float32
) -> None:
    """Features of the newest item alone: what it says is not blurred by what came before it."""
    zero, one = np.float32(0.0), np.float32(1.0)
    x22, x23, x24, x25 = x[22], x[23], x[24], x[25]
    for c in range(count):
        x22[c] = x23[c] = x24[c] = x25[c] = zero
    if n == 0:
        return
    a = past[len(past) - 1]
    nbr, w, rowsum = rows.nbr, rows.w, rows.rowsum
    if a < len(nbr):
        scale, kappa = np.float32(rows.scale), np.float32(rows.kappa)
        f1 = _PER_MOVE * scale / (rowsum[a, 1] * scale + kappa)
        f2 = _PER_MOVE * scale / (rowsum[a, 2] * scale + kappa)
        for k in range(nbr.shape[1]):
            b = nbr[a, k]
            if b < 0:
                break
            c = slot[b] - base
            if 0 <= c < BLOCKED:
                x22[c] = log32(one + f1 * max(w[a, k, 1], zero))
                x23[c] = log32(one + f2 * max(w[a, k, 2], zero))
    near_nbr, near_w, norm = near_rows.nbr, near_rows.w, near_rows.norm
    if a < len(near_nbr):
        most = np.float32(1e-6)
        for k in range(near_nbr.shape[1]):
            b = near_nbr[a, k]
            if b < 0:
                break
            c = slot[b] - base
            if 0 <= c < BLOCKED:
                v = norm[a] * near_w[a, k] * norm[b]
                x24[c] = log32(one + v * _PER_NEAR)
                x25[c] = v
                most = max(most, v)
        for c in range(count):
            x25[c] /= most


@kernel
def fill_products(count: int, x: Float32) -> None:
    """What two sources agree on; the others must have been filled."""
    x0, x1, x8, x10 = x[0], x[1], x[8], x[10]
    x28, x29, x30, x31 = x[28], x[29], x[30], x[31]
    for c in range(count):
        x28[c] = x0[c] * x8[c] * np.float32(0.1)
        x29[c] = x8[c] * x10[c] * np.float32(0.1)
        x30[c] = x1[c] * x10[c] * np.float32(0.1)
        x31[c] = x8[c] * x8[c] * np.float32(0.05)
