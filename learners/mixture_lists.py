"""Compiled scores of the mixture: its learning step, places of targets, lists with their reasons.

All of it works on what `mixture_candidates.gather_users` found; plain arrays only.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.compiled import inlined, kernel
from schemas.runs import Float32, Int8, Int32

from .blend_kernels import (
    EMBEDDING,
    POPULARITY,
    TRANSITIONS,
    Lists,
    Rows,
    exp32,
    length_of,
    softmax_mass,
)
from .blend_lists import clipped
from .blend_select import low_bound, padded, push
from .content_kernels import FIRST_NEAR, IS_NEW, IS_UNSEEN, N_NEARNESS
from .mixture_candidates import N_HALF_LIVES, N_SOURCES, Gathered, Room
from .mixture_features import TASTE
from .neighbour_rows import NeighbourRows
from .prefetch import prefetch_row

NEIGHBOURS: Final = 3
CONTENT: Final = 5
"""Source codes of co-occurrence and EASE, and of what a new item is, after those of `blend_kernels`."""

_TOGETHER: Final = 8
"""Features summed at a time; `TASTE` is a multiple of it, and so is how many features content has."""


@kernel
def score_row(count: int, x: Float32, weights: Float32, score: Float32) -> None:
    """Scores weights . x of the first `count` candidates."""
    for c in range(count):
        score[c] = np.float32(0.0)
    for f in range(len(weights)):
        w, row = weights[f], x[f]
        if w != np.float32(0.0):
            for c in range(count):
                score[c] += w * row[c]


@kernel
def place_of(targets: Int32, gathered: Gathered, weights: Float32, score: Float32, ranks: Int32) -> None:
    """Place of each row's target among its candidates, ties against it; -1 where it is none."""
    for i in range(len(targets)):
        ids, count = gathered.ids[i], gathered.filled[i]
        ranks[i] = -1
        target = -1
        for c in range(count):
            if ids[c] == targets[i]:
                target = c
        if target < 0:
            continue
        score_row(count, gathered.x[i], weights[gathered.bucket[i]], score)
        above = 0
        for c in range(count):
            above += 1 if score[c] >= score[target] else 0
        ranks[i] = above - 1


@inlined
def sum_features(f: int, count: int, mass: Float32, x: Float32, out: Float32) -> None:
    """Sums mass . x of features f to f + 7; a sum waits for its last addition, eight do so together."""
    x0, x1, x2, x3, x4, x5, x6, x7 = (
        x[f], x[f + 1], x[f + 2], x[f + 3], x[f + 4], x[f + 5], x[f + 6], x[f + 7]
    )  # fmt: skip
    s0 = s1 = s2 = s3 = s4 = s5 = s6 = s7 = np.float32(0.0)
    for c in range(count):
        m = mass[c]
        s0 += m * x0[c]
        s1 += m * x1[c]
        s2 += m * x2[c]
        s3 += m * x3[c]
        s4 += m * x4[c]
        s5 += m * x5[c]
        s6 += m * x6[c]
        s7 += m * x7[c]
    out[f], out[f + 1], out[f + 2], out[f + 3] = s0, s1, s2, s3
    out[f + 4], out[f + 5], out[f + 6], out[f + 7] = s4, s5, s6, s7


@kernel
def learn_targets(
    rows: Int32,
    targets: Int32,
    gathered: Gathered,
    shared: Float32,
    own: Float32,
    shared_squares: Float32,
    own_squares: Float32,
    rate: np.float32,
    room: Room,
) -> int:
    """One Adagrad step of listwise cross entropy for each of `rows` of `gathered`; how many learned.

    g = sum_c softmax(score)_c x_c - x_target; theta -= rate g / sqrt(G), G += g^2, for the shared
    weights and for those of the row's bucket; the taste has no part in it. A row whose target is no
    candidate is skipped.
    """
    score, mass, weights = room.score, room.mass, room.weights
    learned = 0
    for r in rows:
        ids, x, count, bucket = gathered.ids[r], gathered.x[r], gathered.filled[r], gathered.bucket[r]
        target = -1
        for c in range(count):
            if ids[c] == targets[r]:
                target = c
        if target < 0:
            continue
        for f in range(len(shared)):
            weights[f] = shared[f] + own[bucket, f]
        score_row(count, x, weights, score)
        peak = score[0]
        for c in range(count):
            peak = max(peak, score[c])
        total = softmax_mass(count, peak, score, mass)
        for f in range(0, TASTE, _TOGETHER):
            sum_features(f, count, mass, x, weights)
        for f in range(TASTE + 1, len(shared), _TOGETHER):
            sum_features(f, count, mass, x, weights)
        for f in range(len(shared)):
            if f == TASTE:
                continue
            g = weights[f] / total - x[f, target]
            shared_squares[f] += g * g
            own_squares[bucket, f] += g * g
            shared[f] -= rate * g / np.sqrt(shared_squares[f])
            own[bucket, f] -= rate * g / np.sqrt(own_squares[bucket, f])
        learned += 1
    return learned


@kernel
def select_row(r: int, k: int, gathered: Gathered, weights: Float32, room: Room) -> int:
    """The best `k` candidates of gathered row `r`, by number, into room.top_items; how many there are."""
    count, score = gathered.filled[r], room.score
    score_row(count, gathered.x[r], weights[gathered.bucket[r]], score)
    for c in range(count, padded(count)):
        score[c] = np.float32(-np.inf)
    bound = np.float32(-np.inf)
    if count > padded(k):
        bound = low_bound(count, k, score, room.best)
    n = 0
    for c in range(count):
        if score[c] >= bound:
            n = push(c, score[c], n, k, room.top_items, room.top_scores)
    return n


@kernel
def best_places(gathered: Gathered, weights: Float32, room: Room, out: Int32) -> None:
    """The best of each gathered row into `out` (B, k), in order."""
    for r in range(len(out)):
        for p in range(select_row(r, out.shape[1], gathered, weights, room)):
            out[r, p] = gathered.ids[r, room.top_items[p]]


@kernel
def source_of_new(c: int, w: Float32, x: Float32, source: int, most: np.float32) -> int:
    """`CONTENT` where candidate `c` is new and being near adds most to its score, else `source`.

    Of an item that nobody has watched, being popular is no explanation.
    """
    if len(w) == N_SOURCES or x[IS_NEW, c] <= np.float32(0.0):
        return source
    total = np.float32(0.0)
    for f in range(FIRST_NEAR, FIRST_NEAR + N_NEARNESS):
        total += w[f] * x[f, c]
    unseen = x[IS_UNSEEN, c] > np.float32(0.0) and source == POPULARITY
    return CONTENT if total > np.float32(0.0) and (total >= most or unseen) else source


@kernel
def write_lists(
    users: Int32,
    gathered: Gathered,
    weights: Float32,
    uniform: np.float32,
    by_logit: bool,
    history: Int32,
    rows: Rows,
    near_rows: NeighbourRows,
    linear_rows: NeighbourRows,
    room: Room,
    out: Lists,
) -> None:
    """The best k of each gathered row, into the rows `users` of `out`.

    The source is the largest contribution to the score, each against knowing nothing (`uniform` is
    log(1 + share / 1e-5) of a uniform share). Relevance is sigmoid(f_U . f_C) where `by_logit` and
    there is a history, else the softmax probability.
    """
    score, mass = room.score, room.mass
    top_items, top_scores = room.top_items, room.top_scores
    items, scores, relevance, sources = out.items, out.scores, out.relevance, out.sources
    k = items.shape[1]
    for place in range(len(users)):
        i = users[place]
        ids, x, count = gathered.ids[place], gathered.x[place], gathered.filled[place]
        w = weights[gathered.bucket[place]]
        n = select_row(place, k, gathered, weights, room)
        total, peak = np.float32(0.0), np.float32(0.0)
        if n:
            peak = top_scores[0]
            total = softmax_mass(count, peak, score, mass)
        has_logit = by_logit and gathered.bucket[place] > 0
        floor = np.float32(0.0)
        for f in range(3, 3 + N_HALF_LIVES):
            floor += w[f] * uniform
        for p in range(n):
            c = top_items[p]
            popular = -floor
            for f in range(3, 3 + N_HALF_LIVES):
                popular += w[f] * x[f, c]
            moved = w[0] * x[0, c] + w[1] * x[1, c] + w[2] * x[2, c] + w[16] * x[16, c]
            moved += w[18] * x[18, c] + w[19] * x[19, c] + w[20] * x[20, c]
            moved += w[22] * x[22, c] + w[23] * x[23, c] + w[28] * x[28, c] + w[30] * x[30, c]
            near = w[10] * x[10, c] + w[11] * x[11, c] + w[12] * x[12, c] + w[13] * x[13, c]
            near += w[24] * x[24, c] + w[25] * x[25, c] + w[29] * x[29, c]
            learned = w[8] * x[8, c] + w[9] * x[9, c] + w[21] * x[21, c] + w[31] * x[31, c]
            source, most = POPULARITY, popular
            if learned > 0.0 and learned >= most:
                source, most = EMBEDDING, learned
            if near > 0.0 and near >= most:
                source, most = NEIGHBOURS, near
            if moved > 0.0 and moved >= most:
                source, most = TRANSITIONS, moved
            if w[TASTE] * x[TASTE, c] > 0.0 and w[TASTE] * x[TASTE, c] >= most:
                source, most = EMBEDDING, w[TASTE] * x[TASTE, c]
            source = source_of_new(c, w, x, source, most)
            items[i, p] = ids[c]
            scores[i, p] = top_scores[p]
            sources[i, p] = source
            if has_logit:
                z = np.float64(gathered.logit[place, c])
                relevance[i, p] = clipped(np.float32(1.0 / (1.0 + np.exp(-z))))
            else:
                relevance[i, p] = clipped(exp32(top_scores[p] - peak) / total)
        for p in range(n, k):
            items[i, p] = -1
            scores[i, p] = np.float32(0.0)
            relevance[i, p] = np.float32(0.0)
            sources[i, p] = POPULARITY
        name_reasons(i, n, history[i], rows, near_rows, linear_rows, room, out)


@kernel
def name_reasons(
    i: int,
    n: int,
    history: Int32,
    rows: Rows,
    near_rows: NeighbourRows,
    linear_rows: NeighbourRows,
    room: Room,
    out: Lists,
) -> None:
    """Name the history item that adds most to each item that user `i` has from rows, by its source.

    What turns out to be in no row with a positive weight is listed for its popularity.
    """
    items, sources, reasons = out.items[i], out.sources[i], out.reasons[i]
    listed, most = room.listed, room.most
    h, n_history = len(history), length_of(history)
    wanted = False
    for p in range(len(items)):
        reasons[p] = -1
    for p in range(n):
        most[p] = np.float32(0.0)
        if sources[p] == TRANSITIONS or sources[p] == NEIGHBOURS:
            listed[items[p]] = p + 1
            wanted = True
    if not wanted:
        return
    nbr, w, rowsum, gammas = rows.nbr, rows.w, rows.rowsum, rows.gammas
    scale, kappa = np.float32(rows.scale), np.float32(rows.kappa)
    g0 = g1 = g2 = np.float32(1.0)
    for j in range(min(n_history, rows.n_last)):
        a = history[h - 1 - j]
        if a < len(nbr):
            for q in range(nbr.shape[1]):
                b = nbr[a, q]
                if b < 0:
                    break
                p = listed[b] - 1
                if p >= 0 and sources[p] == TRANSITIONS:
                    added = (
                        g0 * max(w[a, q, 0], np.float32(0.0)) / (rowsum[a, 0] * scale + kappa)
                        + g1 * max(w[a, q, 1], np.float32(0.0)) / (rowsum[a, 1] * scale + kappa)
                        + g2 * max(w[a, q, 2], np.float32(0.0)) / (rowsum[a, 2] * scale + kappa)
                    )
                    if added > most[p]:
                        most[p], reasons[p] = added, a
        g0 *= gammas[0]
        g1 *= gammas[1]
        g2 *= gammas[2]
    name_neighbours(history, n_history, near_rows, room, sources, reasons)
    name_neighbours(history, n_history, linear_rows, room, sources, reasons)
    for p in range(n):
        listed[items[p]] = 0
        if (sources[p] == TRANSITIONS or sources[p] == NEIGHBOURS) and reasons[p] < 0:
            sources[p] = POPULARITY


@kernel
def name_neighbours(
    history: Int32, n_history: int, rows: NeighbourRows, room: Room, sources: Int8, reasons: Int32
) -> None:
    """As `name_reasons`, from one kind of rows."""
    nbr, w, norm = rows.nbr, rows.w, rows.norm
    listed, most = room.listed, room.most
    h, gain = len(history), np.float32(1.0)
    for j in range(n_history):
        a = history[h - 1 - j]
        if j + 1 < n_history:
            prefetch_row(history[h - 2 - j], nbr, w)
        if a < len(nbr):
            ids, weights = nbr[a], w[a]
            for q in range(len(ids)):
                b = ids[q]
                if b < 0:
                    break
                p = listed[b] - 1
                if p >= 0 and sources[p] == NEIGHBOURS:
                    added = gain * norm[a] * weights[q]
                    if added > most[p]:
                        most[p], reasons[p] = added, a
        gain *= np.float32(rows.discount)
