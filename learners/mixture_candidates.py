"""Compiled candidates of the mixture (`learners.mixture`); plain arrays only.

What each source knows of the items near a user's history is summed, about the best of each source
become candidates, and `mixture_features` describes them.

Scores of a source are summed over all items in `Sums.total`, whose entries are zero but for those
in `Sums.found`; they are cleared before the next user.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit

from schemas.compiled import inlined, kernel
from schemas.runs import Float32, Float64, Int32, Int64

from .blend_kernels import BLOCKED, Bools, Rows, bucket_of, length_of
from .blend_select import low_bound, padded
from .mixture_features import (
    N_HALF_LIVES,
    N_SOURCES,
    TASTE,
    Embedded,
    Sums,
    fill_embedded,
    fill_history,
    fill_newest,
    fill_popular,
    fill_products,
    fill_sums,
)
from .neighbour_rows import NeighbourRows
from .prefetch import prefetch_row
from .taste_kernels import Tables
from .taste_lists import fill_tastes, liked_items

__all__ = ["N_HALF_LIVES", "N_SOURCES", "Counted", "Embedded", "Gathered", "Room", "gather_users"]

_BASE_BITS: Final = 16
_LAST_STAMP: Final = 32_767


class Counted(NamedTuple):
    """Popularity of all items now."""

    counts: Float64  # (N, H)
    per_total: Float64  # (H,) 1 / total
    tops: Int32  # (T, P) popular items, best first by some half-life, -1 padded
    n_tops: int  # how many to take of each row but the last, which only fills up


class Room(NamedTuple):
    """Scratch memory; one set a thread."""

    slot: Int32  # (N,) see `learners.blend_kernels.Work.slot`
    stamp: Int64  # (1,)
    moves: Float32  # (N, 3)
    moved: Int32  # (n_last K,)
    near: Float32  # (N,) co-occurrence
    nearby: Int32  # (H K,)
    linear: Float32  # (N,) EASE
    linked: Int32  # (H K,)
    keys: Float32  # as the longest of the above, and padding
    best: Float32
    score: Float32  # (C,) and padding
    mass: Float32  # (C,)
    listed: Int32  # (N,) place in the list at hand + 1
    weights: Float32  # (F,)
    top_items: Int32  # (k,)
    top_scores: Float32  # (k,)
    most: Float32  # (k,)
    by_key: Float32  # (K, 2) as `taste_lists.prior_by_key`
    liked: Int32  # (L,) and as many keys


class Gathered(NamedTuple):
    """Candidates of B users."""

    ids: Int32  # (B, C)
    x: Float32  # (B, F, C), F = N_SOURCES and the features of content, if any
    logit: Float32  # (B, C) f_U . f_C
    filled: Int32  # (B,) how many candidates
    bucket: Int32  # (B,)


@kernel
def block_seen(history: Int32, n_blocked: int, seen: Int32, slot: Int32, stamp: Int64) -> int:
    """A base for the next user, for whom the newest `n_blocked` and what was `seen` may not be shown."""
    stamp[0] += 1
    if stamp[0] > _LAST_STAMP:
        slot[:] = 0
        stamp[0] = 1
    base = stamp[0] << _BASE_BITS
    value = base + BLOCKED
    h = len(history)
    for p in range(max(h - n_blocked, 0), h):
        if 0 <= history[p] < len(slot):
            slot[history[p]] = value
    for p in range(len(seen)):
        if 0 <= seen[p] < len(slot):
            slot[seen[p]] = value
    return int(base)


@kernel
def sum_moves(history: Int32, n: int, rows: Rows, moves: Float32, moved: Int32) -> int:
    """Transitions' s_c of every neighbour of the newest items; returns how many items were met.

    As in `sum_rows`, each is in `moved` once.
    """
    nbr, w, rowsum, gammas = rows.nbr, rows.w, rows.rowsum, rows.gammas
    scale, kappa, h = np.float32(rows.scale), np.float32(rows.kappa), len(history)
    g0 = g1 = g2 = np.float32(1.0)
    count = 0
    for j in range(min(n, rows.n_last)):
        a = history[h - 1 - j]
        if a < len(nbr):
            f0 = g0 * scale / (rowsum[a, 0] * scale + kappa)
            f1 = g1 * scale / (rowsum[a, 1] * scale + kappa)
            f2 = g2 * scale / (rowsum[a, 2] * scale + kappa)
            for k in range(nbr.shape[1]):
                b = nbr[a, k]
                if b < 0:
                    break
                m0, m1, m2 = moves[b, 0], moves[b, 1], moves[b, 2]
                moves[b, 0] = m0 + f0 * max(w[a, k, 0], np.float32(0.0))
                moves[b, 1] = m1 + f1 * max(w[a, k, 1], np.float32(0.0))
                moves[b, 2] = m2 + f2 * max(w[a, k, 2], np.float32(0.0))
                moved[count] = b
                count += 1 if m0 + m1 + m2 == np.float32(0.0) else 0
        g0 *= gammas[0]
        g1 *= gammas[1]
        g2 *= gammas[2]
    return count


@kernel
def sum_rows(history: Int32, n: int, rows: NeighbourRows, by_mass: bool, total: Float32, found: Int32) -> int:
    """S of every neighbour of the history, without its own norm, into `total`.

    Returns how many items are in `found`: each once, unless its sum became zero again in between.
    """
    nbr, w, norm = rows.nbr, rows.w, rows.norm
    discount, h = np.float32(rows.discount), len(history)
    gain = mass = np.float32(1.0)
    if by_mass:
        mass = np.float32((1.0 - rows.discount**n) / (1.0 - rows.discount))
    count = 0
    for j in range(n):
        a = history[h - 1 - j]
        if j + 1 < n:
            prefetch_row(history[h - 2 - j], nbr, w)
        if a < len(nbr):
            f = gain * norm[a] / mass
            ids, weights = nbr[a], w[a]
            for k in range(len(ids)):
                b = ids[k]
                if b < 0:
                    break
                before = total[b]
                total[b] = before + f * weights[k]
                found[count] = b
                count += 1 if before == np.float32(0.0) else 0
        gain *= discount
    return count


@inlined
def open_item(b: int, count: int, withdrawn: Bools, base: int, slot: Int32, ids: Int32) -> int:
    """Make item `b` a candidate unless it is one, blocked or withdrawn; returns the new count."""
    if (
        0 <= b < len(slot)
        and slot[b] < base
        and count < len(ids)
        and not (b < len(withdrawn) and withdrawn[b])
    ):
        slot[b] = base + count
        ids[count] = b
        return count + 1
    return count


@kernel
def open_best(
    n: int, k: int, found: Int32, count: int, withdrawn: Bools, base: int, room: Room, ids: Int32
) -> int:
    """Make candidates of about the best `k` of `found` by `room.keys`; what is blocked has key -1."""
    slot, keys = room.slot, room.keys
    if n == 0:
        return count
    for p in range(n, padded(n)):
        keys[p] = np.float32(-np.inf)
    bound = np.float32(0.0)
    if n > padded(k):
        bound = max(low_bound(n, k, keys, room.best), bound)
    for p in range(n):
        if keys[p] >= bound:
            count = open_item(found[p], count, withdrawn, base, slot, ids)
    return count


@kernel
def open_first(items: Int32, k: int, count: int, withdrawn: Bools, base: int, slot: Int32, ids: Int32) -> int:
    """Make candidates of the first `k` of `items`, -1 padded, that are not blocked."""
    taken = 0
    for p in range(len(items)):
        b = items[p]
        if b < 0 or taken >= k:
            break
        if b < len(slot) and slot[b] < base + BLOCKED:
            taken += 1
            count = open_item(b, count, withdrawn, base, slot, ids)
    return count


@kernel
def key_moves(n: int, base: int, room: Room) -> None:
    """Keys of what the transitions met: the sum of its channels; -1 for what is blocked."""
    slot, keys, moves, moved = room.slot, room.keys, room.moves, room.moved
    for p in range(n):
        b = moved[p]
        is_open = slot[b] < base + BLOCKED
        keys[p] = moves[b, 0] + moves[b, 1] + moves[b, 2] if is_open else np.float32(-1.0)


@kernel
def forget_blocked(past: Int32, n_blocked: int, seen: Int32, total: Float32) -> None:
    """Take the sums of what may not be shown: nobody asks for them, and their keys become zero."""
    h, zero = len(past), np.float32(0.0)
    for p in range(max(h - n_blocked, 0), h):
        if 0 <= past[p] < len(total):
            total[past[p]] = zero
    for p in range(len(seen)):
        if 0 <= seen[p] < len(total):
            total[seen[p]] = zero


@kernel
def key_sums(n: int, found: Int32, total: Float32, norm: Float32, keys: Float32) -> None:
    """Keys of what rows met: its sum and norm."""
    for p in range(n):
        b = found[p]
        keys[p] = total[b] * norm[b]


@njit(nogil=True, cache=True, fastmath={"nnan", "nsz", "reassoc"}, _nrt=False)
def highest(n: int, keys: Float32) -> np.float32:
    """The highest of the first `n` keys, and at least 1e-6."""
    most = np.float32(1e-6)
    for p in range(n):
        most = max(most, keys[p])
    return most


@kernel
def clear_sums(n_moved: int, n_near: int, n_linked: int, room: Room) -> None:
    """Forget the sums of this user."""
    moves, near, linear = room.moves, room.near, room.linear
    moved, nearby, linked = room.moved, room.nearby, room.linked
    zero = np.float32(0.0)
    for p in range(n_moved):
        b = moved[p]
        moves[b, 0] = moves[b, 1] = moves[b, 2] = zero
    for p in range(n_near):
        near[nearby[p]] = zero
    for p in range(n_linked):
        linear[linked[p]] = zero


@kernel
def gather_users(
    history: Int32,
    seen: Int32,
    withdrawn: Bools,
    n_blocked: int,
    n_each: int,
    n_rows: int,
    least: int,
    rows: Rows,
    near_rows: NeighbourRows,
    linear_rows: NeighbourRows,
    counted: Counted,
    embedded: Embedded,
    users: Int32,
    tastes: Tables,
    proposed: Int32,
    room: Room,
    out: Gathered,
) -> None:
    """Candidates and features of `users` (B,) with their `history` (B, H) and `seen` (B, S).

    `proposed` (B, E), -1 padded, are further candidates: new items, by what they are.

    `n_blocked` newest history items are never candidates. Candidates are the best `n_each` of each source
    that may be shown (about `n_rows` of each kind of rows), and the history where it may be shown
    again; fewer than `least` are filled up with what is popular.
    """
    slot, keys = room.slot, room.keys
    tops, near_norm, ones = counted.tops, near_rows.norm, linear_rows.norm
    for i in range(len(history)):
        past = history[i]
        n = length_of(past)
        base = block_seen(past, n_blocked, seen[i], slot, room.stamp)
        ids, x = out.ids[i], out.x[i]
        count = 0
        for t in range(len(tops) - 1):
            count = open_first(tops[t], counted.n_tops, count, withdrawn, base, slot, ids)
        n_moved = sum_moves(past, n, rows, room.moves, room.moved)
        key_moves(n_moved, base, room)
        count = open_best(n_moved, n_rows, room.moved, count, withdrawn, base, room, ids)
        n_near = sum_rows(past, n, near_rows, True, room.near, room.nearby)
        forget_blocked(past, n_blocked, seen[i], room.near)
        key_sums(n_near, room.nearby, room.near, near_norm, keys)
        most_near = highest(n_near, keys)
        count = open_best(n_near, n_rows, room.nearby, count, withdrawn, base, room, ids)
        n_linked = sum_rows(past, n, linear_rows, False, room.linear, room.linked)
        forget_blocked(past, n_blocked, seen[i], room.linear)
        key_sums(n_linked, room.linked, room.linear, ones, keys)
        count = open_best(n_linked, n_rows, room.linked, count, withdrawn, base, room, ids)
        with_embedding = len(embedded.matrix) > 0 and n > 0
        if with_embedding:
            count = open_first(embedded.top[i], n_each, count, withdrawn, base, slot, ids)
        n_liked = liked_items(users[i], tastes, room.by_key, room.liked, keys)
        for p in range(n_liked):
            b = room.liked[p]
            if b >= len(slot) or slot[b] >= base:  # not to be shown, or a candidate
                keys[p] = np.float32(-1.0)
        count = open_best(n_liked, n_each, room.liked, count, withdrawn, base, room, ids)
        count = open_first(proposed[i], proposed.shape[1], count, withdrawn, base, slot, ids)
        for p in range(len(past) - n, len(past)):
            count = open_item(past[p], count, withdrawn, base, slot, ids)
        for p in range(tops.shape[1]):
            if count >= least:
                break
            count = open_item(tops[len(tops) - 1, p], count, withdrawn, base, slot, ids)
        fill_sums(count, ids, most_near, near_norm, Sums(room.moves, room.near, room.linear), x)
        fill_popular(count, ids, counted.counts, counted.per_total, x)
        fill_embedded(i, count, with_embedding, ids, embedded, x, out.logit[i])
        fill_history(count, past, n, base, slot, x)
        fill_newest(count, past, n, rows, near_rows, base, slot, x)
        fill_products(count, x)
        fill_tastes(users[i], count, ids, tastes, room.by_key, x[TASTE])
        clear_sums(n_moved, n_near, n_linked, room)
        out.filled[i] = count
        out.bucket[i] = bucket_of(n)
