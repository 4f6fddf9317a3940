"""Compiled parts of `learners.tastes`: views and the posterior's update; plain arrays only."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import inlined, kernel
from schemas.runs import Float32, Int8, Int32

from .signals import DISLIKE, IMPRESSION, JOIN, LEAVE, SKIP, WATCH

N_KEYS: Final = 5
"""Keys an item at most: four tags and a creator, say."""

CURIOSITY: Final = np.float32(0.3)
"""Standard deviations that lists add to the mean while tastes have just changed (`Tastes.curious`)."""

N_HELD: Final = 32
"""Keys that are held for a user."""

POOL: Final = 256
"""Items that are held of a key: what a user is offered for liking it."""

MEAN, VARIANCE = 0, 1
TAKEN, FINISHED, LIKED = 0, 1, 2
N_PARTS: Final = 3
"""What is asked of a view, one after the other."""

VARIANCE_LEVEL: Final = np.float32(0.25)
VARIANCE_ITEM: Final = np.float32(0.25)
VARIANCE_KEY: Final = np.float32(0.25)
VARIANCE_OWN: Final = np.float32(3.0)
VARIANCE_AUTHOR: Final = np.float32(0.25)
"""Prior variances: of a surface's and a user's level, an item, a key for everybody; of a subject and of an
author for one user."""

FEW_LIKE: Final = np.float32(-3.0)
"""Level of likes before any view: one in twenty. As of a half, no like would count as a dislike at first."""

VARIANCE_SLOPE: Final = np.float32(0.1)
"""Prior variance of the slope of what is asked beside whether an item was taken up."""

KEYS: Final = 1 << 13
"""Different keys; names beyond share one by their hash."""

FIRST_AUTHOR: Final = KEYS // 4
"""Keys from here on are authors, those below subjects."""

KEPT: Final = np.float32(0.997)
KEPT_OWN: Final = np.float32(0.98)
KEPT_SLOPE: Final = np.float32(0.999)
"""A variance is divided by this before each view (never beyond the prior): older views count for less."""


class Tables(NamedTuple):
    """What was learned: pairs (mean, variance) of every effect."""

    item_keys: Int32  # (N, N_KEYS) -1 padded
    items: Float32  # (N, 2)
    keys: Float32  # (K, 2)
    levels: Float32  # (S + 1, N_PARTS, 2) by surface, the last for none
    slopes: Float32  # (S + 1, N_PARTS, 2)
    user_levels: Float32  # (U, 2)
    own_keys: Int32  # (U, N_HELD) -1 where free
    own: Float32  # (U, N_HELD, 2)
    pools: Int32  # (K, POOL) items by key, -1 where free
    curiosity: Float32  # (1,) standard deviations that lists add to the mean; nothing that was learned


class Views(NamedTuple):
    """The view under way of each of U users."""

    items: Int32  # (U,) -1 without one
    surfaces: Int8
    said: Int8  # (U, N_PARTS) 1 it was, 0 it was not, -1 nothing was said


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
def known_of(pair: Float32, prior: np.float32) -> np.float32:
    """What would be lost with an effect: ``m^2 + v_0 - v``, a divergence from the prior to first order."""
    found: np.float32 = pair[MEAN] * pair[MEAN] + prior - pair[VARIANCE]
    return found


@inlined
def place_of_key(held: Int32, values: Float32, key: int) -> int:
    """Place of a user's key; a new one takes a free place, or that of which least is known."""
    least, lowest = 0, np.float32(np.inf)
    for p in range(len(held)):
        if held[p] == key:
            return p
        if held[p] < 0:
            least = p
            break
        known = known_of(values[p], own_prior(held[p]))
        if known < lowest:
            least, lowest = p, known
    held[least] = key
    values[least, MEAN] = np.float32(0.0)
    values[least, VARIANCE] = own_prior(key)
    return least


@inlined
def loosen(pair: Float32, kept: np.float32, prior: np.float32) -> None:
    """Let an effect have moved since it was last looked at."""
    pair[VARIANCE] = min(pair[VARIANCE] / kept, prior)


@inlined
def correct(pair: Float32, weight: np.float32, miss: np.float32, den: np.float32) -> None:
    """The posterior of one effect: mean += w v miss, variance -= (w v)^2 den."""
    gain = weight * pair[VARIANCE]
    pair[MEAN] += gain * miss
    pair[VARIANCE] -= gain * gain * den


@inlined
def observe(
    u: int, item: int, level: Float32, slope: Float32, happened: bool, t: Tables, places: Int32, n: int
) -> None:
    """A yes or no about a view, of which the item's `n` keys have their `places`; see `learners.tastes`."""
    keys, own = t.item_keys[item], t.own[u]
    of_item, of_user = t.items[item], t.user_levels[u]
    one = np.float32(1.0)
    c, w = slope[MEAN], np.float32(1.0 / np.sqrt(max(n, 1)))
    m, v = of_item[MEAN] + of_user[MEAN], of_item[VARIANCE] + of_user[VARIANCE]
    for k in range(n):
        shared, mine = t.keys[keys[k]], own[places[k]]
        m += w * (shared[MEAN] + mine[MEAN])
        v += w * w * (shared[VARIANCE] + mine[VARIANCE])
    p = one / (one + np.exp(-(level[MEAN] + c * m)))
    h = max(p * (one - p), np.float32(1e-4))
    den = one / (level[VARIANCE] + c * c * v + m * m * slope[VARIANCE] + one / h)
    miss = den * ((one if happened else np.float32(0.0)) - p) / h
    correct(level, one, miss, den)
    correct(slope, m, miss, den)
    correct(of_item, c, miss, den)
    correct(of_user, c, miss, den)
    for k in range(n):
        correct(t.keys[keys[k]], c * w, miss, den)
        correct(own[places[k]], c * w, miss, den)


@inlined
def learn_view(u: int, item: int, surface: int, said: Int8, t: Tables, places: Int32) -> None:
    """One view that is over; see `learners.tastes`."""
    keys, own = t.item_keys[item], t.own[u]
    n = n_keys_of(keys)
    loosen(t.items[item], KEPT, VARIANCE_ITEM)
    loosen(t.user_levels[u], KEPT_OWN, VARIANCE_LEVEL)
    for k in range(n):
        places[k] = place_of_key(t.own_keys[u], own, keys[k])
        loosen(t.keys[keys[k]], KEPT, VARIANCE_KEY)
        loosen(own[places[k]], KEPT_OWN, own_prior(keys[k]))
    for part in range(N_PARTS):
        if said[part] >= 0 and (part == TAKEN or said[TAKEN] != 0):
            level, slope = t.levels[surface, part], t.slopes[surface, part]
            loosen(level, KEPT, VARIANCE_LEVEL)
            if part != TAKEN:
                loosen(slope, KEPT_SLOPE, VARIANCE_SLOPE)
            observe(u, item, level, slope, said[part] == 1, t, places, n)


@kernel
def learn_events(
    users: Int32,
    items: Int32,
    types: Int8,
    surfaces: Int8,
    weights: Float32,
    finished: Int8,
    views: Views,
    t: Tables,
    places: Int32,
    said: Int8,
    dirty_items: NDArray[np.bool_],
    dirty_users: NDArray[np.bool_],
) -> int:
    """Events (N,) in order; how many views were over. Users and items have rows; `said` is scratch."""
    n_learned, last = 0, len(t.levels) - 1
    for i in range(len(users)):
        u, item, kind = users[i], items[i], types[i]
        if u < 0 or item < 0 or item >= len(t.items):
            continue
        ends = kind in (WATCH, LEAVE, SKIP, DISLIKE)
        given = weights[i] > 0 and not ends and kind not in (IMPRESSION, JOIN)
        surface = surfaces[i] if surfaces[i] >= 0 else last
        under_way, view = views.items[u], views.said[u]
        if kind == IMPRESSION and under_way != item:
            if under_way >= 0:  # what was shown before was passed over, or left open
                before = views.surfaces[u]
                learn_view(u, under_way, before if before >= 0 else last, view, t, places)
                dirty_items[under_way] = dirty_users[u] = True
                n_learned += 1
            views.items[u], views.surfaces[u] = item, surfaces[i]
            view[TAKEN], view[FINISHED], view[LIKED] = 0, -1, 0
        elif under_way == item:
            # What is seen again in one view goes on; its best act counts.
            view[TAKEN] = max(view[TAKEN], np.int8(weights[i] > 0))
            view[FINISHED] = max(view[FINISHED], finished[i])
            view[LIKED] = max(view[LIKED], np.int8(given))
            if ends:
                before = views.surfaces[u]
                learn_view(u, item, before if before >= 0 else last, view, t, places)
                views.items[u] = -1
        elif ends or given:
            # An act on what was not shown: a platform without impressions, or a like that comes after.
            said[TAKEN] = np.int8(weights[i] > 0) if ends else np.int8(-1)
            said[FINISHED] = finished[i]
            said[LIKED] = np.int8(1) if given else np.int8(-1)
            learn_view(u, item, surface, said, t, places)
        else:
            continue
        if ends or (given and under_way != item):
            dirty_items[item] = dirty_users[u] = True
            n_learned += 1
    return n_learned
