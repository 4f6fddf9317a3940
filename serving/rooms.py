"""A live room for those who watch live: drawn by heat, with exploration, at one place of their list.

Every open room b has the chance::

    p_b = (heat_b + s) / sum over rooms of (heat + s)        s = ranker.live_exploration

so a room that nobody has joined yet is shown too, and a hot one more often. Who has a room in the
recent history gets one draw a list (up to `DRAWS` if what was drawn is listed or was seen), at
place `PLACE`; the last item goes. The source is `exploration`, the propensity p_b. Draws are a function
of the user's last event, so the same state gives the same list.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from learners.negatives import mix64
from schemas.compiled import inlined, kernel
from schemas.runs import Float32, Float64, Int8, Int32, Int64, UInt64

from .ranking import EXPLORATION, Ranked

PLACE: Final = 4
DRAWS: Final = 4

Bools = NDArray[np.bool_]


class Rooms(NamedTuple):
    """R rooms that are open."""

    slots: Int32  # (R,) of user state
    items: Int32  # (R,) of the lists
    heat: Float64  # (R,)


def place_rooms(
    ranked: Ranked, rooms: Rooms, wanted: Bools, seen: Int32, keys: Int64, exploration: float
) -> None:
    """Put a room into the lists of B users, in place.

    Parameters
    ----------
    ranked : Ranked
    rooms : Rooms
    wanted : (B,) bool
        Who gets one.
    seen : (B, S) int32
        Consumed items, slots of user state; a room among them is not drawn.
    keys : (B,) int64
        What the draw of each depends on.
    exploration : float
        s.

    Notes
    -----
    Cost: 0.6 microseconds a list that gets one, with 128 seen items, and 10 nanoseconds a room and call.
    """
    weight = rooms.heat + exploration
    total = float(weight.sum())
    if total <= 0 or not len(weight) or not wanted.any() or not ranked.items.shape[1]:
        return
    if ranked.propensities is None:
        ranked.propensities = np.ones(ranked.items.shape, dtype=np.float32)
    _place(
        ranked.items, ranked.scores, ranked.relevance, ranked.sources, ranked.reasons, ranked.propensities,
        rooms.slots, rooms.items, np.cumsum(weight), wanted, seen, keys.astype(np.uint64),
        min(PLACE, ranked.items.shape[1] - 1),
    )  # fmt: skip


@inlined
def _drawn(x: float, cumulated: Float64) -> int:
    """First room whose cumulated weight is above `x`."""
    low, high = 0, len(cumulated) - 1
    while low < high:
        middle = (low + high) // 2
        if cumulated[middle] > x:
            high = middle
        else:
            low = middle + 1
    return low


@kernel
def _place(
    items: Int32,
    scores: Float32,
    relevance: Float32,
    sources: Int8,
    reasons: Int32,
    propensities: Float32,
    slots: Int32,
    rooms: Int32,
    cumulated: Float64,
    wanted: Bools,
    seen: Int32,
    keys: UInt64,
    at: int,
) -> None:
    total = cumulated[-1]
    for i in range(len(items)):
        if not wanted[i]:
            continue
        for draw in range(DRAWS):
            bits = mix64(keys[i] * np.uint64(DRAWS) + np.uint64(draw)) >> np.uint64(11)
            r = _drawn(np.float64(bits) * 2.0**-53 * total, cumulated)
            known = False
            for j in range(items.shape[1]):
                known |= items[i, j] == rooms[r]
            for j in range(seen.shape[1]):
                known |= seen[i, j] == slots[r]
            if known:
                continue
            for j in range(items.shape[1] - 1, at, -1):
                items[i, j], scores[i, j] = items[i, j - 1], scores[i, j - 1]
                relevance[i, j], propensities[i, j] = relevance[i, j - 1], propensities[i, j - 1]
                sources[i, j], reasons[i, j] = sources[i, j - 1], reasons[i, j - 1]
            before = cumulated[r - 1] if r > 0 else 0.0
            p = np.float32((cumulated[r] - before) / total)
            items[i, at], scores[i, at], sources[i, at], reasons[i, at] = rooms[r], 0.0, EXPLORATION, -1
            relevance[i, at] = propensities[i, at] = p
            break
