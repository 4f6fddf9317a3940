"""Several tastes on one screen: a TV's history by time of day.

A television has one user_id and several viewers, at hours of their own. So the history before an
event on the surface tv, and for a list after one, is arranged: items watched on tv about the same time
of day, whatever day it was, stand last, the others before them, each in their order::

    history = [others ... , watched on tv within `near` quarters of this time of day ...]

With `ENOUGH` items of this time of day only the `OTHERS` newest others stay. All that looks at a
history looks at its end first: transitions follow the newest items, the encoder's learned positions
weigh them most, co-occurrence and EASE discount by place. So there is one vector a time of day, and
what is learned at breakfast is learned from breakfasts.

Time of day is that of the event in UTC, in quarters of an hour; times are near each other around
the clock, so no zone is needed. What is not of a television has no time of day (-1).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import inlined, kernel
from schemas.records import SURFACES
from schemas.runs import Int8, Int32, Int64

TV: Final = SURFACES.index("tv")
QUARTER_MS: Final = 900_000
QUARTERS: Final = 96
NO_TIME: Final = -1
ENOUGH: Final = 3
"""Items of this time of day that stand for themselves; with fewer the whole history is asked."""

OTHERS: Final = 2
"""Newest other items that stay beside them."""


def quarters_of(ts_ms: Int64, surfaces: Int8) -> Int8:
    """Quarter of the day of each event on tv, -1 for all others; (N,).

    >>> quarters_of(np.array([0, 86_400_000 + 900_000, 5]), np.array([4, 4, 0], dtype=np.int8)).tolist()
    [0, 1, -1]
    """
    quarters: NDArray[np.int64] = ts_ms // QUARTER_MS % QUARTERS
    return np.where(surfaces == TV, quarters, NO_TIME).astype(np.int8)


@inlined
def _is_near(time: int, quarter: int, near: int) -> bool:
    apart = abs(np.int64(time) - quarter)
    return bool(time >= 0 and min(apart, QUARTERS - apart) <= near)


@inlined
def arrange(history: Int32, times: Int8, u: int, quarter: int, near: int, out: Int32, m: int) -> None:
    """Row `u` of `history` into row `m` of `out`, arranged for `quarter`; `times` (U, H) of its items.

    Items within `near` quarters of `quarter` go last, see the module; with a `quarter` of -1 nothing moves.
    """
    width = history.shape[1]
    if quarter < 0:
        for j in range(width):
            out[m, j] = history[u, j]
        return
    last = width - 1
    for j in range(width - 1, -1, -1):
        if _is_near(times[u, j], quarter, near):
            out[m, last] = history[u, j]
            last -= 1
    left = OTHERS if width - 1 - last >= ENOUGH else width
    for j in range(width - 1, -1, -1):
        if left > 0 and history[u, j] >= 0 and not _is_near(times[u, j], quarter, near):
            out[m, last] = history[u, j]
            last -= 1
            left -= 1
    for j in range(last + 1):
        out[m, j] = -1


@kernel
def arrange_rows(history: Int32, times: Int8, users: Int32, quarters: Int8, near: int, out: Int32) -> None:
    """Rows `users` (B,) of `history`, each arranged for its own ``quarters[u]``, into `out` (B, H)."""
    for m in range(len(users)):
        arrange(history, times, users[m], int(quarters[users[m]]), near, out, m)
