"""Compiled parts of `learners.tastes`: what a user likes, for lists; plain arrays only."""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.compiled import inlined, kernel
from schemas.runs import Float32, Int32

from .taste_kernels import (
    MEAN,
    VARIANCE,
    Tables,
    n_keys_of,
)

N_LIKED: Final = 8
"""A user's best keys, whose pools are looked through for candidates."""


@inlined
def hold_own(u: int, t: Tables, by_key: Float32) -> None:
    """Put a user's own means into `by_key` (K,), which is zero elsewhere."""
    if 0 <= u < len(t.own_keys):
        for p in range(t.own_keys.shape[1]):
            if t.own_keys[u, p] < 0:
                break
            by_key[t.own_keys[u, p]] = t.own[u, p, MEAN]


@inlined
def forget_own(u: int, t: Tables, by_key: Float32) -> None:
    """Take them out again."""
    if 0 <= u < len(t.own_keys):
        for p in range(t.own_keys.shape[1]):
            if t.own_keys[u, p] < 0:
                break
            by_key[t.own_keys[u, p]] = np.float32(0.0)


@inlined
def taste_of(item: int, t: Tables, by_key: Float32) -> np.float32:
    """Logit of an item without its levels, which are the same for all items; 0 for an unknown one."""
    if item < 0 or item >= len(t.items):
        return np.float32(0.0)
    keys, total, n = t.item_keys[item], np.float32(0.0), 0
    while n < len(keys) and keys[n] >= 0:
        total += t.keys[keys[n], MEAN] + by_key[keys[n]]
        n += 1
    own: np.float32 = t.items[item, MEAN] + total / np.float32(np.sqrt(max(n, 1)))
    return own


@kernel
def put_in_pools(item: int, t: Tables) -> None:
    """Put an item into the pools of its keys; a full one drops the lowest mean + standard deviation."""
    keys = t.item_keys[item]
    for k in range(n_keys_of(keys)):
        pool = t.pools[keys[k]]
        place, least = -1, np.float32(np.inf)
        for p in range(len(pool)):
            if pool[p] < 0 or pool[p] == item:
                place = p
                break
            value = t.items[pool[p], MEAN] + np.sqrt(t.items[pool[p], VARIANCE])
            if value < least:
                place, least = p, value
        pool[place] = item


@kernel
def take_from_pools(item: int, t: Tables) -> None:
    """Take an item out of the pools of its keys; the last one of a pool moves into its place."""
    keys = t.item_keys[item]
    for k in range(n_keys_of(keys)):
        pool, at, n = t.pools[keys[k]], -1, 0
        while n < len(pool) and pool[n] >= 0:
            at = n if pool[n] == item else at
            n += 1
        if at >= 0:
            pool[at] = pool[n - 1]
            pool[n - 1] = -1


@kernel
def liked_items(u: int, t: Tables, by_key: Float32, out: Int32, logits: Float32) -> int:
    """Items in the pools of the keys that user `u` likes best, with their logits; how many.

    Both are written from place 0 on, as far as `out` reaches; an item of two keys is there twice.
    """
    n_out = 0
    if u < 0 or u >= len(t.own_keys):
        return n_out
    held, own = t.own_keys[u], t.own[u]
    hold_own(u, t, by_key)
    bound = np.float32(np.inf)
    for _ in range(N_LIKED):
        best, most = -1, np.float32(0.0)
        for p in range(len(held)):
            if held[p] < 0:
                break
            value = own[p, MEAN] + t.keys[held[p], MEAN]
            if most < value < bound:
                best, most = held[p], value
        if best < 0:
            break
        bound = most
        pool = t.pools[best]
        for p in range(len(pool)):
            if pool[p] < 0 or n_out >= len(out):
                break
            out[n_out] = pool[p]
            logits[n_out] = taste_of(pool[p], t, by_key)
            n_out += 1
    forget_own(u, t, by_key)
    return n_out


@kernel
def fill_tastes(u: int, count: int, ids: Int32, t: Tables, by_key: Float32, row: Float32) -> None:
    """Logits of the first `count` of `ids` for user `u` into `row`."""
    hold_own(u, t, by_key)
    for c in range(count):
        row[c] = taste_of(ids[c], t, by_key)
    forget_own(u, t, by_key)


@kernel
def fill_all(users: Int32, items: Int32, t: Tables, by_key: Float32, out: Float32) -> None:
    """Logits (B, C) of `items` (C,) for `users` (B,)."""
    for b in range(len(users)):
        hold_own(users[b], t, by_key)
        for c in range(len(items)):
            out[b, c] = taste_of(items[c], t, by_key)
        forget_own(users[b], t, by_key)
