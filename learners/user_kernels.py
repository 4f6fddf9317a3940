"""The sequential part of folding a batch into user state, compiled; plain arrays only."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from schemas.runs import Float32, Int8, Int32, Int64, UInt64

from .dedup import DedupSets, contains, remember, rotate

APPLIED: Final = 0
DUPLICATE: Final = 1
LATE: Final = 2
FUTURE: Final = 3
WRONG_PARTITION: Final = 4
ALREADY_APPLIED: Final = 5

FRESH_WINDOW: Final = 5
NEXT_OFFSET, WATERMARK, N_CLOCK = 0, 1, 2

Bools = NDArray[np.bool_]


class UserColumns(NamedTuple):
    """State of U users. Lists are right-aligned, oldest first, -1 padded; numbers are -1 at first."""

    history: Int32  # (U, H) fresh positives
    seen: Int32  # (U, S) consumed items, the newest consumption last
    last_offset: Int64  # (U,) of the last applied event, as the next two
    last_ts_ms: Int64  # (U,)
    last_broker_ts_ms: Int64  # (U,)
    newest_ts_ms: Int64  # (U,) newest event time
    positive_ts_ms: Int64  # (U,) event time of the last positive
    session: Int32  # (U,) sessions so far, minus one
    n_events: Int64  # (U,) applied events
    recent_items: Int32  # (U, R) event n of the user is at n mod R, as the next two
    recent_types: Int8  # (U, R)
    recent_ts_ms: Int64  # (U, R)


class EventColumns(NamedTuple):
    """A batch as the kernel reads it; (N,) each."""

    offsets: Int64
    broker_ts_ms: Int64
    hashes: UInt64
    users: Int32
    items: Int32
    types: Int8
    ts_ms: Int64
    weights: Float32


class FoldLimits(NamedTuple):
    """Settings of the fold, milliseconds; `impression` is the type that consumes nothing."""

    lateness_ms: int
    future_skew_ms: int
    session_gap_ms: int
    impression: int


class FoldColumns(NamedTuple):
    """What the kernel writes: `status` by event, the others by applied event."""

    status: Int8  # (N,)
    rows: Int32  # (N,)
    history: Int32  # (N, H)
    fresh: Bools  # (N,)
    gap_ms: Int64  # (N,)
    session: Int32  # (N,)
    new_session: Bools  # (N,)


@njit(nogil=True, cache=True)
def _append(row: Int32, item: int, start: int) -> None:
    """Drop ``row[start]``, move what is behind it left, put `item` at the end."""
    for i in range(start, len(row) - 1):
        row[i] = row[i + 1]
    row[len(row) - 1] = item


@njit(nogil=True, cache=True)
def _consume(row: Int32, item: int) -> None:
    """Make `item` the newest of `row`, once."""
    for i in range(len(row) - 1, -1, -1):
        if row[i] == item:
            _append(row, item, i)
            return
        if row[i] < 0:
            break
    _append(row, item, 0)


@njit(nogil=True, cache=True)
def _is_fresh(history: Int32, item: int) -> bool:
    fresh = True
    for i in range(max(0, len(history) - FRESH_WINDOW), len(history)):
        fresh = fresh and history[i] != item
    return fresh


@njit(nogil=True, cache=True)
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


@njit(nogil=True, cache=True)
def fold_events(
    events: EventColumns,
    foreign: Bools,
    users: UserColumns,
    sets: DedupSets,
    clock: Int64,
    limits: FoldLimits,
    out: FoldColumns,
) -> int:
    """Fold events in order; returns how many were applied. See `learners.user_state`."""
    m = 0
    n_recent = users.recent_items.shape[1]
    for i in range(len(events.offsets)):
        status = _verdict(i, events, foreign, sets, clock, limits)
        out.status[i] = status
        if status != APPLIED:
            continue
        remember(sets, events.hashes[i])
        u, item, ts_ms, weight = events.users[i], events.items[i], events.ts_ms[i], events.weights[i]
        clock[WATERMARK] = max(clock[WATERMARK], ts_ms)

        history = users.history[u]
        out.rows[m] = i
        out.history[m, :] = history
        newest = users.newest_ts_ms[u]
        new_session = newest < 0 or ts_ms - newest > limits.session_gap_ms
        if new_session:
            users.session[u] += 1
        out.new_session[m] = new_session
        out.session[m] = users.session[u]
        positive_ts = users.positive_ts_ms[u]
        out.gap_ms[m] = max(ts_ms - positive_ts, 0) if positive_ts >= 0 else -1
        fresh = weight > 0 and _is_fresh(history, item)
        out.fresh[m] = fresh
        m += 1

        if fresh:
            _append(history, item, 0)
        if weight > 0:
            users.positive_ts_ms[u] = ts_ms
        if events.types[i] != limits.impression:
            _consume(users.seen[u], item)
        place = users.n_events[u] % n_recent
        users.recent_items[u, place] = item
        users.recent_types[u, place] = events.types[i]
        users.recent_ts_ms[u, place] = ts_ms
        users.n_events[u] += 1
        users.newest_ts_ms[u] = max(newest, ts_ms)
        users.last_ts_ms[u] = ts_ms
        users.last_offset[u] = events.offsets[i]
        users.last_broker_ts_ms[u] = events.broker_ts_ms[i]
    return m
