"""Compiled loops over users: lists from transitions and popularity, learning.

`rank_sparse` is the stream's fast path. It looks only at items the transition rows name; among
all others the order is known beforehand (`Popular.items`), so the popular list is walked only as
far as it can still enter. Where both run out (a user who has seen all that is popular) the reserve
fills the list.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from schemas.compiled import inlined, kernel
from schemas.runs import Float32, Int32, Int64

from .blend_kernels import (
    BLOCKED,
    N_FEATURES,
    POPULARITY,
    TRANSITIONS,
    Bools,
    Lists,
    Popular,
    Rows,
    Work,
    add_items,
    begin_user,
    bucket_of,
    exp32,
    follow_rows,
    length_of,
    score_candidates,
    softmax_mass,
    take_logs,
)
from .blend_select import push, select_best
from .transition_kernels import prefetch_row
from .turns import claim

_RELEVANCE_FLOOR = np.float32(1e-4)
_RATE = np.float32(0.05)
_CLAIMED = 16
"""Users that a thread takes at once: 0.1 ms, which is what it may wait for the other at the end."""


@kernel
def clipped(p: np.float32) -> np.float32:
    """Into the open interval that four decimals can tell from 0 and 1."""
    return min(max(p, _RELEVANCE_FLOOR), np.float32(1.0) - _RELEVANCE_FLOOR)


@kernel
def write_list(
    i: int,
    n: int,
    weights: Float32,
    uniform: float,
    base: int,
    work: Work,
    out: Lists,
) -> int:
    """Write the best `n` items of user `i` with their sources, without reasons; relevance is not touched.

    The source is the larger of two contributions to the score, each against knowing nothing: an absent
    transition, a uniform popularity share. Returns for how many items that is the transitions.
    """
    x, slot, top_items, top_scores = work.x, work.slot, work.top_items, work.top_scores
    items, scores, sources, reasons = out.items, out.scores, out.sources, out.reasons
    floor = (weights[3] + weights[4]) * np.float32(uniform)
    n_by_rows = 0
    for p in range(n):
        b = top_items[p]
        c = slot[b] - base
        source = POPULARITY
        if c >= 0:
            by_rows = weights[0] * x[0, c] + weights[1] * x[1, c] + weights[2] * x[2, c]
            by_popularity = weights[3] * x[3, c] + weights[4] * x[4, c] - floor
            if by_rows > 0.0 and by_rows >= by_popularity:
                source = TRANSITIONS
                n_by_rows += 1
        items[i, p] = b
        scores[i, p] = top_scores[p]
        sources[i, p] = source
        reasons[i, p] = -1
    for p in range(n, items.shape[1]):
        items[i, p] = -1
        scores[i, p] = np.float32(0.0)
        out.relevance[i, p] = np.float32(0.0)
        sources[i, p] = POPULARITY
        reasons[i, p] = -1
    return n_by_rows


@kernel
def find_reasons(
    i: int, n: int, count: int, history: Int32, n_history: int, rows: Rows, base: int, work: Work, out: Lists
) -> None:
    """Name whose row adds most to sum_c s_c of each item that user `i` has from transitions.

    An item that no row names after all is there for its popularity.
    """
    nbr, w, rowsum, gammas = rows.nbr, rows.w, rows.rowsum, rows.gammas
    slot, places, listed, hits, most = work.slot, work.places, work.listed, work.hits, work.most
    items, sources, reasons = out.items[i], out.sources[i], out.reasons[i]
    h, width = len(history), nbr.shape[1]
    n_rows = min(n_history, rows.n_last)
    scale, kappa = np.float32(rows.scale), np.float32(rows.kappa)
    listed[:count] = -1
    for p in range(n):
        if sources[p] == TRANSITIONS:
            most[p] = np.float32(0.0)
            listed[slot[items[p]] - base] = p
    n_hits = 0
    for q in range(n_rows * width):  # branch-free: which places hold a listed item cannot be guessed
        hits[n_hits] = q
        n_hits += 1 if listed[places[q]] >= 0 else 0
    g0 = g1 = g2 = np.float32(1.0)
    at = 0
    for j in range(n_rows):
        a = history[h - 1 - j]
        end = (j + 1) * width
        if at < n_hits and hits[at] < end:
            f0 = g0 / (rowsum[a, 0] * scale + kappa)
            f1 = g1 / (rowsum[a, 1] * scale + kappa)
            f2 = g2 / (rowsum[a, 2] * scale + kappa)
            weights = w[a]
            while at < n_hits and hits[at] < end:
                q = hits[at]
                k, p = q - j * width, listed[places[q]]
                added = (
                    f0 * max(weights[k, 0], np.float32(0.0))
                    + f1 * max(weights[k, 1], np.float32(0.0))
                    + f2 * max(weights[k, 2], np.float32(0.0))
                )
                if added > most[p]:
                    most[p], reasons[p] = added, a
                at += 1
        g0 *= gammas[0]
        g1 *= gammas[1]
        g2 *= gammas[2]
    for p in range(n):
        if sources[p] == TRANSITIONS and reasons[p] < 0:
            sources[p] = POPULARITY


@kernel
def add_popular(
    n: int, k: int, bucket: int, weights: Float32, popular: Popular, withdrawn: Bools, base: int, work: Work
) -> int:
    """Merge what no row names into the best `k`, `n` of them so far; returns how many there are then."""
    slot, features, reserve = work.slot, popular.features, popular.reserve
    top_items, top_scores = work.top_items, work.top_scores
    items, scores = popular.items[bucket], popular.scores[bucket]
    for p in range(len(items)):
        if n == k and scores[p] <= top_scores[k - 1]:
            break
        b = items[p]
        if slot[b] < base and not (b < len(withdrawn) and withdrawn[b]):
            n = push(b, scores[p], n, k, top_items, top_scores)
    for b in reserve:
        if n == k:
            break
        if b < len(features) and slot[b] < base and not (b < len(withdrawn) and withdrawn[b]):
            by_popularity = weights[3] * features[b, 0] + weights[4] * features[b, 1]
            n = push(b, by_popularity, n, k, top_items, top_scores)
    return n


@kernel
def rank_sparse(
    users: Int32,
    turn: Int64,
    history: Int32,
    seen: Int32,
    withdrawn: Bools,
    exclude_seen: bool,
    rows: Rows,
    popular: Popular,
    weights: Float32,
    work: Work,
    out: Lists,
) -> None:
    """Lists of the given batch rows `users` from transitions and popularity.

    Threads that are given the same `turn` (1,), 0 at first, share the users; each has a `work` of its own.
    """
    flat_nbr, flat_w, flat_rowsum = rows.nbr.reshape(-1), rows.w.reshape(-1), rows.rowsum.reshape(-1)
    width, n_last, h = rows.nbr.shape[1], rows.n_last, history.shape[1]
    start = claim(turn, _CLAIMED)
    while start < len(users):
        end = min(start + _CLAIMED, len(users))
        for place in range(start, end):
            if place + 1 < end:
                for d in range(1, min(n_last, h) + 1):
                    prefetch_row(history[users[place + 1], h - d], flat_nbr, flat_w, flat_rowsum, width)
            _rank_user(
                users[place], history, seen, withdrawn, exclude_seen, rows, popular, weights, work, out
            )
        start = claim(turn, _CLAIMED)


@inlined
def _rank_user(
    i: int,
    history: Int32,
    seen: Int32,
    withdrawn: Bools,
    exclude_seen: bool,
    rows: Rows,
    popular: Popular,
    weights: Float32,
    work: Work,
    out: Lists,
) -> None:
    """The list of row `i`.

    Relevance is exp(score) over the sum of exp(score) of the candidates and of the popular items
    as popularity alone sees them.
    """
    slot, score, mass, features = work.slot, work.score, work.mass, popular.features
    top_scores = work.top_scores
    k = out.items.shape[1]
    n_history = length_of(history[i])
    bucket = bucket_of(n_history)
    w = weights[bucket]
    tail = seen[i] if exclude_seen else seen[i, :0]
    base = begin_user(history[i], n_history, tail, exclude_seen, slot, work.stamp)
    count = follow_rows(history[i], n_history, rows, features, withdrawn, base, work)
    if not exclude_seen:
        count = add_items(history[i], count, features, withdrawn, 1.0, base, work)
    take_logs(count, work.x)
    score_candidates(count, w, work)
    n = select_best(count, k, work)
    n = add_popular(n, k, bucket, w, popular, withdrawn, base, work)
    if n:
        peak = top_scores[0]
        total = softmax_mass(count, peak, score, mass)
        if popular.items.shape[1]:
            best_popular = popular.scores[bucket, 0]
            total += popular.mass[bucket] * exp32(min(best_popular - peak, np.float32(60.0)))
        for p in range(n):
            out.relevance[i, p] = clipped(exp32(top_scores[p] - peak) / total)
    if write_list(i, n, w, popular.uniform, base, work, out):
        find_reasons(i, n, count, history[i], n_history, rows, base, work, out)


@kernel
def gather(
    history: Int32,
    n_history: int,
    withdrawn: Bools,
    exclude_seen: bool,
    rows: Rows,
    popular: Popular,
    base: int,
    work: Work,
) -> int:
    """All candidates of a user with their features, after `begin_user`."""
    features = popular.features
    count = follow_rows(history, n_history, rows, features, withdrawn, base, work)
    if not exclude_seen:
        count = add_items(history, count, features, withdrawn, 1.0, base, work)
    count = add_items(popular.items[0], count, features, withdrawn, 0.0, base, work)
    take_logs(count, work.x)
    return count


@njit(nogil=True, cache=True)
def learn_gate(
    users: Int32,
    targets: Int32,
    history: Int32,
    seen: Int32,
    withdrawn: Bools,
    exclude_seen: bool,
    rows: Rows,
    popular: Popular,
    shared: Float32,
    by_bucket: Float32,
    shared_squares: Float32,
    bucket_squares: Float32,
    work: Work,
) -> int:
    """One Adagrad step of listwise cross entropy per batch row in `users`; returns how many learned.

    g = sum_c softmax(score)_c x_c - x_target; theta -= rate g / sqrt(G), G += g^2, for the shared
    weights and for those of the row's bucket. A row whose target is not among its candidates is
    skipped: appending it would teach the gate that missing evidence is a good sign.
    """
    x = work.x
    n_learned = 0
    for i in users:
        n_history = length_of(history[i])
        bucket = bucket_of(n_history)
        base = begin_user(history[i], n_history, seen[i], exclude_seen, work.slot, work.stamp)
        count = gather(history[i], n_history, withdrawn, exclude_seen, rows, popular, base, work)
        target = work.slot[targets[i]] - base if 0 <= targets[i] < len(work.slot) else -1
        if 0 <= target < BLOCKED:
            score_candidates(count, shared + by_bucket[bucket], work)
            peak = work.score[0]
            for c in range(count):
                peak = max(peak, work.score[c])
            total = softmax_mass(count, peak, work.score, work.mass)
            for f in range(N_FEATURES):
                expected = np.float32(0.0)
                row = x[f]
                for c in range(count):
                    expected += work.mass[c] * row[c]
                g = expected / total - row[target]
                shared_squares[f] += g * g
                bucket_squares[bucket, f] += g * g
                shared[f] -= _RATE * g / np.sqrt(shared_squares[f])
                by_bucket[bucket, f] -= _RATE * g / np.sqrt(bucket_squares[bucket, f])
            n_learned += 1
    return n_learned


@kernel
def fill_unseen(tops: Int32, seen: Int32, out: Int32) -> None:
    """The first items of `tops` that are not in each row of `seen` (B, S), into `out` (B, k)."""
    for i in range(len(out)):
        n = 0
        row = seen[i]
        for b in tops:
            if n == out.shape[1]:
                break
            is_new = True
            for p in range(len(row)):
                is_new = is_new and row[p] != b
            if is_new:
                out[i, n] = b
                n += 1
