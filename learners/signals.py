"""Interest weight omega of an event: how much it says for (or against) its item, by surface.

The entries stand in `schemas.signals`, a row a surface; every act but these is its entry::

    c        = max(watch_ms / duration_ms, watch_ms / enough_ms)
    watch, leave with a time    swipe                               if c < swipe_below
                                min(watch_most, watch_base + c)
                                  + min(replay_most, replay max(watch_ms / duration_ms - 1, 0))
    gift                        min(gift_most, gift + gift_decade log10(1 + gift_value))
    started by itself           0 for a join, and for a watch or leave of unknown time or with
    (autoplay)                  c < swipe_below; any other watch or leave times `autoplay`

c is the completion ratio, or the time watched against what is enough on the surface, whichever says
more (an hour of a three hours' stream is interest). A swipe is short by both measures. An unknown or
zero duration leaves the time alone.

An act of weight 0 that is no impression says nothing, and moves nothing: no learner sees it, and
the item is not consumed (`is_evidence`).
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log10
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import kernel
from schemas.records import EVENT_TYPES
from schemas.runs import Float32, Int8, Int64
from schemas.signals import SignalSettings, entries

IMPRESSION: Final = EVENT_TYPES.index("impression")
WATCH: Final = EVENT_TYPES.index("watch")
GIFT: Final = EVENT_TYPES.index("gift")
JOIN: Final = EVENT_TYPES.index("join")
LEAVE: Final = EVENT_TYPES.index("leave")
SKIP: Final = EVENT_TYPES.index("skip")
DISLIKE: Final = EVENT_TYPES.index("dislike")

FINISHED_SHARE: Final = 0.95
"""Of an item's duration that was watched when it was watched to its end: credits are not looked at."""

_SHAPE: Final = (
    "enough_ms", "watch_base", "watch_most", "swipe_below", "swipe", "replay", "replay_most", "autoplay",
    "gift_decade", "gift_most",
)  # fmt: skip
_ENOUGH, _BASE, _MOST, _BELOW, _SWIPE, _REPLAY, _REPLAY_MOST, _AUTOPLAY, _DECADE, _GIFT_MOST = range(
    len(_SHAPE)
)

Bools = NDArray[np.bool_]


class SignalTable(NamedTuple):
    """The table as arrays; the last row is for events without a surface (-1)."""

    acts: Float32  # (S + 1, T) by type
    shape: NDArray[np.float64]  # (S + 1, len(_SHAPE))


def signal_table(settings: SignalSettings) -> SignalTable:
    """The table that the settings say."""
    by_entry: Mapping[str, list[float]] = entries(settings)
    return SignalTable(
        acts=np.array([by_entry[name] for name in EVENT_TYPES], dtype=np.float32).T.copy(),
        shape=np.array([by_entry[name] for name in _SHAPE], dtype=np.float64).T.copy(),
    )


DEFAULT_SIGNALS: Final = signal_table(SignalSettings())


def interest_weights(
    table: SignalTable,
    types: Int8,
    watch_ms: Int64,
    duration_ms: Int64,
    surfaces: Int8,
    autoplay: Int8,
    gift_values: Int64,
) -> Float32:
    """Interest weight omega of each event. Cost: 0.01 microseconds an event.

    Parameters
    ----------
    table : SignalTable
    types, surfaces : (N,) int8
        Indices into EVENT_TYPES and SURFACES; a surface of -1 is unknown.
    watch_ms, duration_ms : (N,) int64
        Milliseconds, -1 unknown.
    autoplay : (N,) int8
        1 where it started by itself; 0 or -1.
    gift_values : (N,) int64
        Whole units, -1 unknown.

    Returns
    -------
    (N,) float32

    >>> times = np.array([-1, 1_000, 5_000, 15_000, 40_000])
    >>> unknown = np.full(5, -1)
    >>> short = np.zeros(5, dtype=np.int8)
    >>> kinds, length = np.full(5, WATCH, dtype=np.int8), np.full(5, 20_000)
    >>> interest_weights(DEFAULT_SIGNALS, kinds, times, length, short, short, unknown).round(2).tolist()
    [1.0, -0.5, 0.44999998807907104, 0.949999988079071, 1.25]
    """
    return weighed(table, types, watch_ms, duration_ms, surfaces, autoplay, gift_values)[0]


def weighed(
    table: SignalTable,
    types: Int8,
    watch_ms: Int64,
    duration_ms: Int64,
    surfaces: Int8,
    autoplay: Int8,
    gift_values: Int64,
) -> tuple[Float32, Int8]:
    """Weights as `interest_weights`, and whether each event tells that its item was watched to its end; (N,).

    1 it was: 95 % of the duration, or `enough_ms` where that is unknown (a live room); 0 it was not;
    -1 the event does not say. A skip without a time says that it was not.

    >>> kinds = np.array([WATCH, WATCH, WATCH, LEAVE, IMPRESSION, SKIP], dtype=np.int8)
    >>> times = np.array([19_500, 5_000, -1, 61_000, -1, -1])
    >>> lengths = np.array([20_000, 20_000, 9, -1, -1, -1])
    >>> surfaces, none = np.array([0, 0, 0, 3, 0, 0], dtype=np.int8), np.full(6, -1)
    >>> weighed(DEFAULT_SIGNALS, kinds, times, lengths, surfaces, none.astype(np.int8), none)[1].tolist()
    [1, 0, -1, 1, -1, 0]
    """
    weights, finished = np.empty(len(types), dtype=np.float32), np.empty(len(types), dtype=np.int8)
    _weigh(table, types, watch_ms, duration_ms, surfaces, autoplay, gift_values, weights, finished)
    return weights, finished


@kernel
def _weigh(
    table: SignalTable,
    types: Int8,
    watch_ms: Int64,
    duration_ms: Int64,
    surfaces: Int8,
    autoplay: Int8,
    gift_values: Int64,
    weights: Float32,
    finished: Int8,
) -> None:
    acts, shape = table.acts, table.shape
    for i in range(len(types)):
        kind = types[i]
        row = surfaces[i] if surfaces[i] >= 0 else len(acts) - 1
        weight = float(acts[row, kind])
        by_itself = autoplay[i] == 1
        finished[i] = 0 if kind == SKIP else -1
        if kind in (WATCH, LEAVE, SKIP) and watch_ms[i] >= 0:
            length = FINISHED_SHARE * duration_ms[i] if duration_ms[i] > 0 else shape[row, _ENOUGH]
            finished[i] = watch_ms[i] >= length
        if kind in (WATCH, LEAVE):
            if watch_ms[i] >= 0:
                loops = watch_ms[i] / duration_ms[i] if duration_ms[i] > 0 else 0.0
                c = max(loops, watch_ms[i] / shape[row, _ENOUGH])
                if c < shape[row, _BELOW]:
                    weight = 0.0 if by_itself else shape[row, _SWIPE]
                else:
                    weight = min(shape[row, _MOST], shape[row, _BASE] + c)
                    weight += min(shape[row, _REPLAY_MOST], shape[row, _REPLAY] * max(loops - 1.0, 0.0))
                    if by_itself:
                        weight *= shape[row, _AUTOPLAY]
            elif by_itself:
                weight = 0.0
        elif kind == JOIN:
            if by_itself:
                weight = 0.0
        elif kind == GIFT and gift_values[i] >= 0:
            added = shape[row, _DECADE] * log10(1.0 + gift_values[i])
            weight = min(shape[row, _GIFT_MOST], weight + added)
        weights[i] = weight


def is_evidence(types: Int8, weights: Float32) -> Bools:
    """Which events say anything: all but acts of weight 0; an impression says that it was ignored; (N,)."""
    evidence: Bools = (weights != 0) | (types == IMPRESSION)
    return evidence
