"""What a recorded stream knew before each of its events, compiled; see `learners.prequential`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import kernel
from schemas.runs import Float32, Int8, Int32, Int64

Bools = NDArray[np.bool_]


class Past(NamedTuple):
    """How far each user's lists reached before each of N events, and the lists themselves.

    Positives (and consumed items) of user u stand in order at ``starts[u] ..`` of `positives`
    (`consumed`); an event's own share of them are the first n_positives (n_consumed).
    """

    fresh: Bools  # (N,)
    gap_ms: Int64  # (N,) -1 where there was no positive
    tie: Int32  # (N,) events of the same user and time before this one
    n_positives: Int32  # (N,) fresh positives of the user
    n_consumed: Int32  # (N,) distinct items
    n_events: Int32  # (N,) events of the user
    n_visits: Int32  # (N,) events on the item
    n_known: Int32  # (N,) items met by anyone, this event's included
    repeated: Bools  # (N,) whether the user had consumed the item
    starts: Int64  # (U + 1,) where each user's lists begin
    positives: Int32  # (N,)
    consumed: Int32  # (N,)


@kernel
def fold_stream(
    users: Int32,
    items: Int32,
    ts_ms: Int64,
    types: Int8,
    weight: Float32,
    impression: int,
    fresh_window: int,
    last: Int64,
    visits: Int32,
    numbers: Int32,
    past: Past,
) -> None:
    """Fill `past` in one pass over the events.

    `last` (U, 2) holds the times of the newest positive and the newest event, -1 at first; `visits`
    (I,) and `numbers` (U, 4) zeros: positives, consumed, events and ties so far.
    """
    n_known = 0
    for i in range(len(users)):
        u, x, start = users[i], items[i], past.starts[users[i]]
        numbers[u, 3] = numbers[u, 3] + 1 if last[u, 1] == ts_ms[i] and numbers[u, 2] > 0 else 0
        past.tie[i] = numbers[u, 3]
        past.n_positives[i], past.n_consumed[i], past.n_events[i] = (
            numbers[u, 0],
            numbers[u, 1],
            numbers[u, 2],
        )
        past.n_visits[i] = visits[x]
        n_known = max(n_known, x + 1)
        past.n_known[i] = n_known
        past.gap_ms[i] = max(ts_ms[i] - last[u, 0], 0) if last[u, 0] >= 0 else -1
        fresh = weight[i] > 0
        for j in range(max(0, numbers[u, 0] - fresh_window), numbers[u, 0]):
            fresh = fresh and past.positives[start + j] != x
        past.fresh[i] = fresh
        repeated = False
        for j in range(numbers[u, 1]):
            repeated = repeated or past.consumed[start + j] == x
        past.repeated[i] = repeated
        if fresh:
            past.positives[start + numbers[u, 0]] = x
            numbers[u, 0] += 1
        if weight[i] > 0:
            last[u, 0] = ts_ms[i]
        if types[i] != impression and weight[i] != 0 and not repeated:
            past.consumed[start + numbers[u, 1]] = x
            numbers[u, 1] += 1
        last[u, 1] = ts_ms[i]
        numbers[u, 2] += 1
        visits[x] += 1


@kernel
def fill_last(listed: Int32, starts: Int64, lengths: Int32, out: Int32) -> None:
    """Right-aligned last places of each list: ``out[b, -1]`` is ``listed[starts[b] + lengths[b] - 1]``."""
    width = out.shape[1]
    for b in range(len(starts)):
        n = min(lengths[b], width)
        for j in range(n):
            out[b, width - n + j] = listed[starts[b] + lengths[b] - n + j]


@kernel
def ranks_of(scores: Float32, targets: Int32, seen: Int32, places: Int32) -> None:
    """0-based place of each target among the columns of `scores` (B, N) that are not in `seen`.

    ``#{c not seen, c != target : not (score_c < score_target)}``: ties, and what is not a number,
    count against the target. A row of `seen` (B, S) names an item at most once.
    """
    n = scores.shape[1]
    for b in range(len(targets)):
        score = scores[b, targets[b]]
        place = -1
        for c in range(n):
            if not scores[b, c] < score:
                place += 1
        for s in range(seen.shape[1]):
            x = seen[b, s]
            if x < 0 or x >= n or x == targets[b] or scores[b, x] < score:
                continue
            place -= 1
        places[b] = place


@kernel
def close_seen(scores: Float32, seen: Int32) -> None:
    """Set the scores of seen items to minus infinity."""
    for b in range(seen.shape[0]):
        for s in range(seen.shape[1]):
            if 0 <= seen[b, s] < scores.shape[1]:
                scores[b, seen[b, s]] = -np.inf
