"""New items for the users they are near to: one place of a list, before anyone has watched them.

Of the items that have content and hardly an event, the `NEAREST` with the highest f_U . f_C to a user are
drawn from by their softmax::

    p_b = exp(f_U . f_b) / sum over the nearest of exp(f_U . f_.)

A list of k places gets one with chance min(1, share k), at place `PLACE`; the last item goes. The source is
`content`, the propensity the chance times p_b. Draws are a function of the user's last event, so the same
state gives the same list. What is learned does not depend on it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.runs import Float32, Float64, Int32, Int64

from .ranking import CONTENT, Ranked

PLACE: Final = 3
NEAREST: Final = 8

Bools = NDArray[np.bool_]


class Newcomers(NamedTuple):
    """F new items, as B users see them."""

    items: Int32  # (F,) slots
    logits: Float32  # (B, F) f_U . f_C


def place_new(ranked: Ranked, new: Newcomers, wanted: Bools, known: Int32, keys: Int64, share: float) -> int:
    """Put a new item into the lists of B users, in place; how many got one.

    Parameters
    ----------
    ranked : Ranked
    new : Newcomers
    wanted : (B,) bool
        Who may get one.
    known : (B, S) int32
        Items of no use to each, -1 padded: what was seen.
    keys : (B,) int64
        What the draw of each depends on.
    share : float
        Of a list's places.

    Notes
    -----
    Cost: 30 microseconds a list that gets one, with 512 new items.
    """
    k = ranked.items.shape[1]
    chance = min(1.0, share * k)
    rows = np.flatnonzero(wanted & (_uniform(keys, 1) < chance))
    if not k or not len(rows) or not len(new.items):
        return 0
    logits = new.logits[rows].astype(np.float64)
    column = np.full(int(max(new.items.max(), known.max(initial=0), ranked.items.max())) + 2, -1)
    column[new.items] = np.arange(len(new.items))
    for taken in (known[rows], ranked.items[rows]):  # -1 pads, and is the last of `column`
        where = column[taken]
        at = np.nonzero(where >= 0)
        logits[at[0], where[at]] = -np.inf
    n = min(NEAREST, len(new.items))
    nearest = np.argpartition(-logits, n - 1, axis=1)[:, :n]  # (T, n)
    nearest = np.take_along_axis(nearest, np.argsort(nearest, axis=1), axis=1)
    best = np.take_along_axis(logits, nearest, axis=1)
    open_ = np.isfinite(best).any(axis=1)
    rows, nearest, best = rows[open_], nearest[open_], best[open_]
    if not len(rows):
        return 0
    p = np.exp(best - best.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    drawn = (np.cumsum(p, axis=1) <= _uniform(keys[rows], 2)[:, None] * (1 - 1e-12)).sum(axis=1)
    everyone = np.arange(len(rows))
    _insert(
        ranked, rows, new.items[nearest[everyone, drawn]], best[everyone, drawn], chance * p[everyone, drawn]
    )
    return len(rows)


def _insert(
    ranked: Ranked, rows: NDArray[np.intp], items: Int32, logits: Float64, propensities: Float64
) -> None:
    if ranked.propensities is None:
        ranked.propensities = np.ones(ranked.items.shape, dtype=np.float32)
    at = min(PLACE, ranked.items.shape[1] - 1)
    relevance = np.clip(1.0 / (1.0 + np.exp(-logits)), 1e-4, 1.0 - 1e-4)
    for table, values in (
        (ranked.items, items),
        (ranked.scores, 0.0),
        (ranked.relevance, relevance),
        (ranked.sources, CONTENT),
        (ranked.propensities, propensities),
        (ranked.reasons, -1),
    ):
        table[rows, at + 1 :] = table[rows, at:-1]
        table[rows, at] = values


def _uniform(keys: Int64, draw: int) -> Float64:
    """Numbers in [0, 1) from keys: the finaliser of splitmix64."""
    z = keys.astype(np.uint64) + np.uint64(draw * 0x9E3779B97F4A7C15 % 2**64)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z ^= z >> np.uint64(31)
    u: Float64 = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return u
