"""Compiled parts of `learners.tastes`: what a user likes, for lists; plain arrays only."""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.compiled import inlined, kernel
from schemas.runs import Float32, Int32

from .taste_kernels import (
    FIRST_AUTHOR,
    KEYS,
    MEAN,
    VARIANCE,
    VARIANCE_AUTHOR,
    VARIANCE_OWN,
    Tables,
    n_keys_of,
    own_prior,
)

N_LIKED: Final = 8
"""A user's best keys, whose pools are looked through for candidates."""


@inlined
def hold_own(u: int, t: Tables, by_key: Float32) -> None:
    """Put a user's own effects into `by_key` (K, 2), which holds `prior_by_key` elsewhere."""
    if 0 <= u < len(t.own_keys):
        for p in range(t.own_keys.shape[1]):
            if t.own_keys[u, p] < 0:
                break
            key = t.own_keys[u, p]
            by_key[key, MEAN], by_key[key, VARIANCE] = t.own[u, p, MEAN], t.own[u, p, VARIANCE]


@inlined
def forget_own(u: int, t: Tables, by_key: Float32) -> None:
    """Take them out again."""
    if 0 <= u < len(t.own_keys):
        for p in range(t.own_keys.shape[1]):
            if t.own_keys[u, p] < 0:
                break
            key = t.own_keys[u, p]
            by_key[key, MEAN], by_key[key, VARIANCE] = np.float32(0.0), own_prior(key)


@inlined
def taste_of(item: int, t: Tables, by_key: Float32) -> np.float32:
    """Logit of an item without its levels, which are the same for all items; 0 for an unknown one.

    ``m + curiosity sqrt(v)`` of the effects of the item and of its keys.
    """
    zero, curiosity = np.float32(0.0), t.curiosity[0]
    if item < 0 or item >= len(t.items):
        return zero
    keys, m, v, n = t.item_keys[item], zero, zero, 0
    while n < len(keys) and keys[n] >= 0:
        shared, mine = t.keys[keys[n]], by_key[keys[n]]
        m += shared[MEAN] + mine[MEAN]
        v += shared[VARIANCE] + mine[VARIANCE]
        n += 1
    w = np.float32(1.0 / np.sqrt(max(n, 1)))
    found: np.float32 = t.items[item, MEAN] + w * m
    if curiosity > zero:
        found += curiosity * np.sqrt(t.items[item, VARIANCE] + w * w * v)
    return found


def prior_by_key() -> Float32:
    """What is known of a user's own effects before anything is, (K, 2)."""
    found = np.zeros((KEYS, 2), dtype=np.float32)
    found[:FIRST_AUTHOR, VARIANCE], found[FIRST_AUTHOR:, VARIANCE] = VARIANCE_OWN, VARIANCE_AUTHOR
    return found


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
            value = own[p, MEAN] + t.keys[held[p], MEAN] + t.curiosity[0] * np.sqrt(own[p, VARIANCE])
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
