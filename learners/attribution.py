"""Which act belongs to which showing: events in, exposures and what came of them out.

An *exposure* is one showing of an item to a user. Producers say so with an impression, or leave it to an
act that implies it. An act belongs to the newest exposure of its user and item that is *open*::

    impression        opens one, unless one that nothing came of yet is open (or it is older than that one)
    join, and every   clicked; implies an exposure where none is open
    act above 0
    watch, leave      settles it: click = weight > 0 or clicked before, long = weight >= LONG_WEIGHT,
                      complete = weight >= COMPLETE_WEIGHT; implies one where none is open and unsettled
    act below 0       settles it: no click unless clicked before; implies one where none is open
    like              liked, besides

An exposure closes when the clock is `window_ms` further than at its opening, or when `capacity` newer
ones are open. If it is unsettled then, it is settled: click as it was said, long unknown after a click.
Whether it was liked is told when it closes, so that likes and their absence are known after the same
time, whatever the traffic does; that it was liked is told besides, at once, for statistics.

The clock is the greatest event time so far, except that one event moves it by `STEP_MS` at most: a client
with a wrong clock closes nothing much, and times that partitions reach one after the other close
nothing before its acts were read. Everything is a function of the events and their order.

Of more than `rate` exposures a second of that clock only some are *chosen*, evenly spread when they open,
whatever comes of them: those are told, the others swallow their acts. So what is told is a fair sample.

References
----------
Chapelle, Modeling delayed feedback in display advertising, KDD 2014. Ktena et al., Addressing delayed
feedback for continuous training with neural networks in CTR prediction, RecSys 2019 (what happens to
probabilities when positives are told at once and negatives are guessed).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from schemas.compiled import kernel
from schemas.records import EVENT_TYPES
from schemas.runs import Float32, Float64, Int8, Int32, Int64

from .hashed_rows import mixed

LONG_WEIGHT: Final = 1.0
"""A watch to the end or nearly, or for as long as counts as the whole; and one of unknown length."""

COMPLETE_WEIGHT: Final = 1.1
"""A watch beyond the end: watched again."""

STEP_MS: Final = 60_000

OPENED, SETTLE, LIKED_NOW, CLOSE = range(4)
"""What is told: shown; click, long and complete; a like, when it comes; at last, whether there was one."""

IMPRESSION: Final = EVENT_TYPES.index("impression")
WATCH: Final = EVENT_TYPES.index("watch")
LEAVE: Final = EVENT_TYPES.index("leave")
LIKE: Final = EVENT_TYPES.index("like")

_CLICKED, _SETTLED, _LIKED, _CHOSEN = 1, 2, 4, 8
_N, _FIRST, CLOCK, _LAST_OPENED = range(4)
_GAP, _OWED = range(2)
_FOLLOW: Final = 1.0 / 256.0


class Exposures(NamedTuple):
    """The newest exposures, number s at place s mod C; C is a power of two."""

    users: Int32  # (C,)
    items: Int32
    ts_ms: Int64  # event time of the showing
    opened_ms: Int64  # clock at the opening
    surfaces: Int8
    flags: Int8
    links: Int64  # number of the next older one of its chain, -1 for none
    heads: Int64  # (2 C,) newest number of each chain, -1 for none
    numbers: Int64  # (4,) exposures so far, first open one, clock, clock at the last opening
    pace: Float64  # (2,) milliseconds between openings, choices owed


class Told(NamedTuple):
    """What came of chosen exposures, in order; room for (M,)."""

    what: Int8
    places: Int32  # of the exposure
    users: Int32
    items: Int32
    ts_ms: Int64
    surfaces: Int8
    outcomes: Int8  # (M, 4) in the order of OUTCOMES, -1 unknown


def no_exposures(capacity: int) -> Exposures:
    """Nothing was shown yet; `capacity` is a power of two."""
    return Exposures(
        users=np.full(capacity, -1, dtype=np.int32),
        items=np.full(capacity, -1, dtype=np.int32),
        ts_ms=np.zeros(capacity, dtype=np.int64),
        opened_ms=np.zeros(capacity, dtype=np.int64),
        surfaces=np.full(capacity, -1, dtype=np.int8),
        flags=np.zeros(capacity, dtype=np.int8),
        links=np.full(capacity, -1, dtype=np.int64),
        heads=np.full(2 * capacity, -1, dtype=np.int64),
        numbers=np.array([0, 0, -1, -1], dtype=np.int64),
        pace=np.array([1_000.0, 0.0]),
    )


def room_for(exposures: Exposures, n_events: int) -> Told:
    """Room for all that `attribute` may tell of `n_events`: four entries an exposure, open or to come."""
    n_open = int(exposures.numbers[_N] - exposures.numbers[_FIRST])
    m = 4 * (n_open + n_events) + 1
    return Told(
        what=np.empty(m, dtype=np.int8),
        places=np.empty(m, dtype=np.int32),
        users=np.empty(m, dtype=np.int32),
        items=np.empty(m, dtype=np.int32),
        ts_ms=np.empty(m, dtype=np.int64),
        surfaces=np.empty(m, dtype=np.int8),
        outcomes=np.empty((m, 4), dtype=np.int8),
    )


@kernel
def _chain(user: int, item: int, n_chains: int) -> int:
    h = mixed(mixed(np.uint64(11), user + 1), item + 1)
    return int(h & np.uint64(n_chains - 1))


@kernel
def _open_one(of: Exposures, user: int, item: int) -> int:
    """Number of the newest open exposure, -1 where there is none."""
    s = int(of.heads[_chain(user, item, len(of.heads))])
    while s >= of.numbers[_FIRST]:
        at = s % len(of.users)
        if of.users[at] == user and of.items[at] == item:
            return s
        s = int(of.links[at])
    return -1


@kernel
def _tell(
    of: Exposures, s: int, what: int, click: int, long: int, complete: int, like: int, told: Told, m: int
) -> int:
    at = s % len(of.users)
    if not of.flags[at] & _CHOSEN:
        return m
    told.what[m] = what
    told.places[m] = at
    told.users[m] = of.users[at]
    told.items[m] = of.items[at]
    told.ts_ms[m] = of.ts_ms[at]
    told.surfaces[m] = of.surfaces[at]
    told.outcomes[m, 0] = click
    told.outcomes[m, 1] = long
    told.outcomes[m, 2] = complete
    told.outcomes[m, 3] = like
    return m + 1


@kernel
def _settle(of: Exposures, s: int, click: int, long: int, complete: int, told: Told, m: int) -> int:
    at = s % len(of.users)
    of.flags[at] |= _SETTLED
    m = _tell(of, s, SETTLE, click, long, complete, -1, told, m)
    if of.flags[at] & _LIKED:
        m = _tell(of, s, LIKED_NOW, -1, -1, -1, 1, told, m)
    return m


@kernel
def _close_first(of: Exposures, told: Told, m: int) -> int:
    s = int(of.numbers[_FIRST])
    at = s % len(of.users)
    if not of.flags[at] & _SETTLED:
        clicked = 1 if of.flags[at] & _CLICKED else 0
        unknown = -1 if clicked else 0
        m = _settle(of, s, clicked, unknown, unknown, told, m)
    m = _tell(of, s, CLOSE, -1, -1, -1, 1 if of.flags[at] & _LIKED else 0, told, m)
    of.numbers[_FIRST] += 1
    return m


@kernel
def _open(
    of: Exposures, user: int, item: int, ts_ms: int, surface: int, rate: float, most_ratio: float
) -> int:
    """Open an exposure; there must be a place."""
    numbers, pace = of.numbers, of.pace
    s = int(numbers[_N])
    numbers[_N] += 1
    at = s % len(of.users)
    clock = numbers[CLOCK]
    if numbers[_LAST_OPENED] >= 0:
        pace[_GAP] += (clock - numbers[_LAST_OPENED] - pace[_GAP]) * _FOLLOW
    numbers[_LAST_OPENED] = clock
    ratio = min(1.0, most_ratio)
    if rate > 0.0:
        ratio = min(ratio, rate * pace[_GAP] / 1_000.0)
    pace[_OWED] += ratio
    chosen = pace[_OWED] >= 1.0
    if chosen:
        pace[_OWED] -= 1.0
    chain = _chain(user, item, len(of.heads))
    of.users[at] = user
    of.items[at] = item
    of.ts_ms[at] = ts_ms
    of.opened_ms[at] = clock
    of.surfaces[at] = surface
    of.flags[at] = _CHOSEN if chosen else 0
    of.links[at] = of.heads[chain]
    of.heads[chain] = s
    return s


@kernel
def attribute(
    users: Int32,
    items: Int32,
    types: Int8,
    ts_ms: Int64,
    weights: Float32,
    surfaces: Int8,
    window_ms: int,
    rate: float,
    most_ratio: float,
    of: Exposures,
    told: Told,
) -> int:
    """Take in N events in order; how many entries of `told` were written. About 0.2 microseconds each.

    Acts of weight 0 but impressions say nothing and are left out. Of the exposures at most `rate` a second
    (0: no limit) and the share `most_ratio` are chosen.
    """
    m = 0
    capacity = len(of.users)
    numbers = of.numbers
    for i in range(len(users)):
        kind, weight, user, item = types[i], weights[i], users[i], items[i]
        if numbers[CLOCK] < 0:
            numbers[CLOCK] = ts_ms[i]
        numbers[CLOCK] = max(numbers[CLOCK], min(ts_ms[i], numbers[CLOCK] + STEP_MS))
        while (
            numbers[_FIRST] < numbers[_N]
            and numbers[CLOCK] - of.opened_ms[numbers[_FIRST] % capacity] > window_ms
        ):
            m = _close_first(of, told, m)
        if kind != IMPRESSION and weight == 0.0:
            continue
        s = _open_one(of, user, item)
        settled = s >= 0 and (of.flags[s % capacity] & _SETTLED) != 0
        is_watch = kind in (WATCH, LEAVE)
        if kind == IMPRESSION and s >= 0 and (not settled or ts_ms[i] <= of.ts_ms[s % capacity]):
            continue
        # A watch is one of its own where the last was told already; all else belongs to what is open.
        is_new = s < 0 or (settled and (is_watch or kind == IMPRESSION))
        if is_new:
            if numbers[_N] - numbers[_FIRST] >= capacity:
                m = _close_first(of, told, m)
            s = _open(of, user, item, ts_ms[i], surfaces[i], rate, most_ratio)
            m = _tell(of, s, OPENED, -1, -1, -1, -1, told, m)
            settled = False
        if kind == IMPRESSION:
            continue
        at = s % capacity
        clicked = weight > 0.0 or (of.flags[at] & _CLICKED) != 0
        if is_watch:
            long, complete = weight >= LONG_WEIGHT, weight >= COMPLETE_WEIGHT
            m = _settle(of, s, int(clicked), int(long), int(complete), told, m)
            continue
        if weight < 0.0:
            if not settled:
                m = _settle(of, s, int(clicked), 0, 0, told, m)
            continue
        of.flags[at] |= _CLICKED
        if kind == LIKE and not of.flags[at] & _LIKED:
            of.flags[at] |= _LIKED
            if settled:
                m = _tell(of, s, LIKED_NOW, -1, -1, -1, 1, told, m)
    return m
