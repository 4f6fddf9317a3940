"""Compiled parts of `learners.tastes`: views, the posterior's update, scores; plain arrays only."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import inlined, kernel
from schemas.records import EVENT_TYPES
from schemas.runs import Float32, Int8, Int32

from .signals import IMPRESSION, LEAVE, WATCH

SKIP: Final = EVENT_TYPES.index("skip")
DISLIKE: Final = EVENT_TYPES.index("dislike")

N_KEYS: Final = 5
"""Keys an item at most: four tags and a creator, say."""

N_HELD: Final = 32
"""Keys that are held for a user."""

POOL: Final = 256
"""Items that are held of a key: what a user is offered for liking it."""

N_LIKED: Final = 8
"""A user's best keys, whose pools are looked through for candidates."""

MEAN, VARIANCE = 0, 1
SCATTER, SPREAD = 0, 1

VARIANCE_LEVEL: Final = np.float32(0.25)
VARIANCE_ITEM: Final = np.float32(0.25)
VARIANCE_KEY: Final = np.float32(0.25)
VARIANCE_OWN: Final = np.float32(1.0)
VARIANCE_AUTHOR: Final = np.float32(0.25)
"""Prior variances: of a surface's and a user's level, an item, a key for everybody; of a subject and of an
author for one user."""

KEYS: Final = 1 << 13
"""Different keys; names beyond share one by their hash."""

FIRST_AUTHOR: Final = KEYS // 4
"""Keys from here on are authors, those below subjects."""

KEPT: Final = np.float32(0.99)
KEPT_OWN: Final = np.float32(0.98)
"""A variance is divided by this before each view (never beyond the prior): older views count for less."""

FIRST_SPREAD: Final = np.float32(0.25)
NOISE_MEMORY: Final = np.float32(1.0 / 2_000.0)
LEAST_NOISE: Final = np.float32(0.25)
"""How much rewards scatter about the odds, of what taken up or not would: a moving mean over 2 000 views,
one at the beginning and never below a quarter. What is watched for a part says more than a coin."""


class Tables(NamedTuple):
    """What was learned: pairs (mean, variance) of every effect."""

    item_keys: Int32  # (N, N_KEYS) -1 padded
    items: Float32  # (N, 2)
    keys: Float32  # (K, 2)
    levels: Float32  # (S + 1, 2) by surface, the last for none
    noise: Float32  # (S + 1, 2) by surface: scatter of rewards, and what a yes or no would scatter
    user_levels: Float32  # (U, 2)
    own_keys: Int32  # (U, N_HELD) -1 where free
    own: Float32  # (U, N_HELD, 2)
    pools: Int32  # (K, POOL) items by key, -1 where free


class Views(NamedTuple):
    """The view under way of each of U users."""

    items: Int32  # (U,) -1 without one
    surfaces: Int8
    rewards: Float32


@inlined
def n_keys_of(keys: Int32) -> int:
    """How many keys an item has."""
    n = 0
    while n < len(keys) and keys[n] >= 0:
        n += 1
    return n


@inlined
def own_prior(key: int) -> np.float32:
    """Prior variance of a key for one user: more people care what something is about than who made it."""
    return VARIANCE_AUTHOR if key >= FIRST_AUTHOR else VARIANCE_OWN


@inlined
def place_of_key(held: Int32, values: Float32, key: int) -> int:
    """Place of a user's key; a new one takes a free place, or that of the mean nearest to zero."""
    least = 0
    for p in range(len(held)):
        if held[p] == key:
            return p
        if held[p] < 0:
            least = p
            break
        if abs(values[p, MEAN]) < abs(values[least, MEAN]):
            least = p
    held[least] = key
    values[least, MEAN] = np.float32(0.0)
    values[least, VARIANCE] = own_prior(key)
    return least


@inlined
def loosen(pair: Float32, kept: np.float32, prior: np.float32) -> None:
    """Let an effect have moved since it was last looked at."""
    pair[VARIANCE] = min(pair[VARIANCE] / kept, prior)


@inlined
def correct(pair: Float32, weight: np.float32, slope: np.float32, den: np.float32) -> None:
    """The posterior of one effect: mean += w v slope, variance -= (w v)^2 den."""
    gain = weight * pair[VARIANCE]
    pair[MEAN] += gain * slope
    pair[VARIANCE] -= gain * gain * den


@inlined
def learn_view(u: int, item: int, surface: int, reward: np.float32, t: Tables, places: Int32) -> None:
    """One view that is over; see `learners.tastes`."""
    keys = t.item_keys[item]
    n = n_keys_of(keys)
    w = np.float32(1.0 / np.sqrt(max(n, 1)))
    one = np.float32(1.0)
    level, of_item, of_user = t.levels[surface], t.items[item], t.user_levels[u]
    loosen(level, KEPT, VARIANCE_LEVEL)
    loosen(of_item, KEPT, VARIANCE_ITEM)
    loosen(of_user, KEPT_OWN, VARIANCE_LEVEL)
    m = level[MEAN] + of_item[MEAN] + of_user[MEAN]
    v = level[VARIANCE] + of_item[VARIANCE] + of_user[VARIANCE]
    held, own = t.own_keys[u], t.own[u]
    for k in range(n):
        places[k] = place_of_key(held, own, keys[k])
        shared, mine = t.keys[keys[k]], own[places[k]]
        loosen(shared, KEPT, VARIANCE_KEY)
        loosen(mine, KEPT_OWN, own_prior(keys[k]))
        m += w * (shared[MEAN] + mine[MEAN])
        v += w * w * (shared[VARIANCE] + mine[VARIANCE])
    p = one / (one + np.exp(-m))
    h = max(p * (one - p), np.float32(1e-4))
    noise = t.noise[surface]
    den = one / (v + max(noise[SCATTER] / noise[SPREAD], LEAST_NOISE) / h)
    miss = reward - p
    noise[SCATTER] += NOISE_MEMORY * (miss * miss - h * h * v - noise[SCATTER])
    noise[SPREAD] += NOISE_MEMORY * (h - noise[SPREAD])
    slope = den * (reward - p) / h
    correct(level, one, slope, den)
    correct(of_item, one, slope, den)
    correct(of_user, one, slope, den)
    for k in range(n):
        correct(t.keys[keys[k]], w, slope, den)
        correct(own[places[k]], w, slope, den)


@kernel
def learn_events(
    users: Int32,
    items: Int32,
    types: Int8,
    surfaces: Int8,
    weights: Float32,
    views: Views,
    t: Tables,
    places: Int32,
    dirty_items: NDArray[np.bool_],
    dirty_users: NDArray[np.bool_],
) -> int:
    """Events (N,) in order; how many views were over. Users and items have rows."""
    n_learned, last = 0, len(t.levels) - 1
    for i in range(len(users)):
        u, item, kind = users[i], items[i], types[i]
        if u < 0 or item < 0 or item >= len(t.items):
            continue
        reward = min(max(weights[i], np.float32(0.0)), np.float32(1.0))
        ends = kind in (WATCH, LEAVE, SKIP, DISLIKE)
        open_item = views.items[u]
        if open_item == item:
            views.rewards[u] = max(views.rewards[u], reward)
        elif kind == IMPRESSION:
            if open_item >= 0:  # what was shown before was passed over, or left open
                surface = views.surfaces[u] if views.surfaces[u] >= 0 else last
                learn_view(u, open_item, surface, views.rewards[u], t, places)
                dirty_items[open_item] = dirty_users[u] = True
                n_learned += 1
            views.items[u], views.surfaces[u], views.rewards[u] = item, surfaces[i], reward
        elif ends:
            learn_view(u, item, surfaces[i] if surfaces[i] >= 0 else last, reward, t, places)
            dirty_items[item] = dirty_users[u] = True
            n_learned += 1
        if ends and views.items[u] == item:
            surface = views.surfaces[u] if views.surfaces[u] >= 0 else last
            learn_view(u, item, surface, views.rewards[u], t, places)
            dirty_items[item] = dirty_users[u] = True
            n_learned += 1
            views.items[u] = -1
    return n_learned


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
