"""The sequential part of folding a batch into user state, compiled; plain arrays only."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import inlined, kernel
from schemas.runs import Float32, Int8, Int32, Int64, UInt64
from schemas.words import UInt8

from .dedup import DedupSets, contains, remember, rotate, touch
from .household import arrange
from .last_event_ids import LENGTH_BITS, IdArena, written

APPLIED: Final = 0
DUPLICATE: Final = 1
LATE: Final = 2
FUTURE: Final = 3
WRONG_PARTITION: Final = 4
ALREADY_APPLIED: Final = 5

FRESH_WINDOW: Final = 5
NEXT_OFFSET, WATERMARK, N_CLOCK = 0, 1, 2
LAST_OFFSET, LAST_TS, LAST_BROKER_TS, NEWEST_TS, POSITIVE_TS, SESSION, N_EVENTS, EVENT_ID = range(8)
TYPE_BITS: Final = 6
_AHEAD: Final = 32
_LINE: Final = 16  # int32 numbers in a line of cache

Bools = NDArray[np.bool_]


class UserColumns(NamedTuple):
    """State of U users. Lists are right-aligned, oldest first, -1 padded.

    A row of `numbers` is one line of cache: of the last applied event its offset, event time and
    broker time; the newest event time; the event time of the last positive; sessions so far, minus
    one; applied events; and the span of the id of the last applied event (`last_event_ids`). All
    are -1 at first but the last two, which are 0.
    """

    history: Int32  # (U, H) fresh positives
    seen: Int32  # (U, S) consumed items (acts that say anything), the newest consumption last
    numbers: Int64  # (U, 8)
    times: Int8  # (U, H) of each item of `history` its quarter of the day on tv, else -1
    time: Int8  # (U,) quarter of the day of the last applied event, -1 where it was not on tv
    recent_items: Int32  # (U, R) event n of the user is at n mod R, as the next one
    recent_times: Int64  # (U, R) ts_ms << TYPE_BITS | type


class EventColumns(NamedTuple):
    """A batch as the kernel reads it; (N,) each but the bytes of the event ids."""

    offsets: Int64
    broker_ts_ms: Int64
    hashes: UInt64
    users: Int32
    items: Int32
    types: Int8
    ts_ms: Int64
    weights: Float32
    quarters: Int8
    ids: UInt8
    id_starts: Int64
    id_ends: Int64


class FoldLimits(NamedTuple):
    """Settings of the fold, milliseconds; `impression` is the type that consumes nothing.

    `near` is how many quarters of an hour apart times of day on tv are the same, -1 for never.
    """

    lateness_ms: int
    future_skew_ms: int
    session_gap_ms: int
    impression: int
    near: int


class FoldColumns(NamedTuple):
    """What the kernel writes: `status` by event, the others by applied event."""

    status: Int8  # (N,)
    rows: Int32  # (N,)
    history: Int32  # (N, H)
    fresh: Bools  # (N,)
    gap_ms: Int64  # (N,)
    session: Int32  # (N,)
    new_session: Bools  # (N,)
    scratch: Int64  # (1,)


@inlined
def _append(rows: Int32, u: int, item: int, start: int) -> None:
    """Drop ``rows[u, start]``, move what is behind it left, put `item` at the end."""
    last = rows.shape[1] - 1
    for i in range(start, last):
        rows[u, np.uint64(i)] = rows[u, np.uint64(i + 1)]
    rows[u, last] = item


@inlined
def _consume(rows: Int32, u: int, item: int) -> None:
    """Make `item` the newest of row `u`, once; what is left of padding is padding."""
    start = rows.shape[1]
    found = False
    while start >= _LINE and not found:  # a line at once, without a branch for each item
        start -= _LINE
        for i in range(_LINE):
            other = rows[u, np.uint64(start + i)]
            found |= (other == item) | (other < 0)
    start = start + _LINE - 1 if found else max(start - 1, 0)
    while start > 0 and rows[u, start] != item and rows[u, start] >= 0:
        start -= 1
    _append(rows, u, item, start)


@inlined
def _extend(rows: Int32, u: int, item: int) -> None:
    """Put `item` at the end of row `u`, which loses its oldest if it is full."""
    start = 0 if rows[u, 0] >= 0 else rows.shape[1] - 1
    while start > 0 and rows[u, start] >= 0:
        start -= 1
    _append(rows, u, item, start)


@inlined
def _append_time(times: Int8, u: int, quarter: int) -> None:
    """Move row `u` left and put `quarter` at its end."""
    last = times.shape[1] - 1
    for i in range(last):
        times[u, np.uint64(i)] = times[u, np.uint64(i + 1)]
    times[u, last] = quarter


@inlined
def _is_fresh(history: Int32, u: int, item: int) -> bool:
    width = history.shape[1]
    fresh = True
    for i in range(max(0, width - FRESH_WINDOW), width):
        fresh = fresh and history[u, i] != item
    return fresh


@inlined
def _verdict(
    i: int, events: EventColumns, foreign: Bools, sets: DedupSets, clock: Int64, limits: FoldLimits
) -> int:
    """Status of event `i`; what is refused is not remembered, so its twin gets the same verdict."""
    if events.offsets[i] < clock[NEXT_OFFSET]:
        return ALREADY_APPLIED
    clock[NEXT_OFFSET] = events.offsets[i] + 1
    rotate(sets, events.offsets[i])
    if foreign[events.users[i]]:
        return WRONG_PARTITION
    if contains(sets, events.hashes[i]):
        return DUPLICATE
    ts_ms = events.ts_ms[i]
    # A record without a broker timestamp (-1) cannot be compared; the topic's contract is LogAppendTime.
    if events.broker_ts_ms[i] >= 0 and ts_ms > events.broker_ts_ms[i] + limits.future_skew_ms:
        return FUTURE
    if ts_ms < clock[WATERMARK] - limits.lateness_ms:
        return LATE
    return APPLIED


@inlined
def _fetch(
    events: EventColumns, users: UserColumns, sets: DedupSets, arena: IdArena, first: int, scratch: Int64
) -> None:
    """Read what the next events need, all at once: one by one each would wait for memory alone."""
    total = 0
    for i in range(first, min(first + _AHEAD, len(events.offsets))):
        u = events.users[i]
        for j in range(0, users.history.shape[1], _LINE):
            total += users.history[u, j]
        total += users.history[u, users.history.shape[1] - 1] + users.seen[u, users.seen.shape[1] - 1]
        total += users.times[u, 0] + users.times[u, users.times.shape[1] - 1]
        place = users.numbers[u, N_EVENTS] % users.recent_items.shape[1]
        total += users.recent_items[u, place] + users.recent_times[u, place]
        start = users.numbers[u, EVENT_ID] >> LENGTH_BITS
        total += np.int64(touch(sets, events.hashes[i])) + arena.data[start]
    scratch[0] = total  # what is read and never used would not be compiled


@kernel
def fold_events(
    events: EventColumns,
    foreign: Bools,
    users: UserColumns,
    sets: DedupSets,
    arena: IdArena,
    clock: Int64,
    limits: FoldLimits,
    out: FoldColumns,
) -> int:
    """Fold events in order; returns how many were applied. See `learners.user_state`."""
    m = 0
    history, numbers = users.history, users.numbers
    n_recent = users.recent_items.shape[1]
    for i in range(len(events.offsets)):
        if i % _AHEAD == 0:
            _fetch(events, users, sets, arena, i, out.scratch)
        status = _verdict(i, events, foreign, sets, clock, limits)
        out.status[i] = status
        if status != APPLIED:
            continue
        remember(sets, events.hashes[i])
        u, item, ts_ms, weight = events.users[i], events.items[i], events.ts_ms[i], events.weights[i]
        clock[WATERMARK] = max(clock[WATERMARK], ts_ms)

        out.rows[m] = i
        quarter = int(events.quarters[i])
        arrange(history, users.times, u, quarter, limits.near, out.history, m)
        newest = numbers[u, NEWEST_TS]
        new_session = newest < 0 or ts_ms - newest > limits.session_gap_ms
        if new_session:
            numbers[u, SESSION] += 1
        out.new_session[m] = new_session
        out.session[m] = numbers[u, SESSION]
        positive_ts = numbers[u, POSITIVE_TS]
        out.gap_ms[m] = max(ts_ms - positive_ts, 0) if positive_ts >= 0 else -1
        fresh = weight > 0 and _is_fresh(history, u, item)
        out.fresh[m] = fresh
        m += 1

        if fresh:
            _extend(history, u, item)
            _append_time(users.times, u, quarter)
        users.time[u] = quarter
        if weight > 0:
            numbers[u, POSITIVE_TS] = ts_ms
        if events.types[i] != limits.impression and weight != 0:
            _consume(users.seen, u, item)
        place = numbers[u, N_EVENTS] % n_recent
        users.recent_items[u, place] = item
        users.recent_times[u, place] = ts_ms << TYPE_BITS | events.types[i]
        numbers[u, EVENT_ID] = written(
            arena, numbers[u, EVENT_ID], events.ids, events.id_starts[i], events.id_ends[i]
        )
        numbers[u, N_EVENTS] += 1
        numbers[u, NEWEST_TS] = max(newest, ts_ms)
        numbers[u, LAST_TS] = ts_ms
        numbers[u, LAST_OFFSET] = events.offsets[i]
        numbers[u, LAST_BROKER_TS] = events.broker_ts_ms[i]
    return m
