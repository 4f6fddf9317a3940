"""Compiled queues of an outbox; plain arrays only. See `streams.outbox`."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import kernel
from schemas.runs import Int32, Int64

READY_HEAD: Final = 0
READY_TAIL: Final = 1
RESTING_HEAD: Final = 2
RESTING_TAIL: Final = 3
N_PENDING: Final = 4
N_COUNTERS: Final = 5


class Queues(NamedTuple):
    """Users of one partition by local slot, and two rings that hold each user at most once.

    `ready` holds who may have a snapshot now, `resting` who had one less than an interval ago. Heads
    and tails only grow; a place in a ring is the counter modulo its capacity, a power of two.
    """

    since_ms: Int64  # (capacity,) broker time of the oldest untold event; 0: none
    published_ms: Int64  # (capacity,) of the last snapshot; 0: none
    is_resting: NDArray[np.bool_]  # (capacity,)
    ready: Int32  # (capacity,)
    resting: Int32  # (capacity,)
    counters: Int64  # (N_COUNTERS,)


@kernel
def touch_users(users: Int32, since_ms: Int64, queues: Queues) -> None:
    """Note untold events of `users`, in order; who owes a snapshot already keeps the older one."""
    known, is_resting = queues.since_ms, queues.is_resting
    ready, counters = queues.ready, queues.counters
    mask = len(ready) - 1
    tail = counters[READY_TAIL]
    n_new = 0
    for i in range(len(users)):
        user = users[i]
        if known[user] != 0:
            continue
        known[user] = max(since_ms[i], 1)
        n_new += 1
        if not is_resting[user]:
            ready[tail & mask] = user
            tail += 1
    counters[READY_TAIL] = tail
    counters[N_PENDING] += n_new


@kernel
def wake(now_ms: int, interval_ms: int, queues: Queues) -> None:
    """End the rest of those whose interval has passed; the touched ones among them are ready."""
    since_ms, published_ms, is_resting = queues.since_ms, queues.published_ms, queues.is_resting
    ready, resting, counters = queues.ready, queues.resting, queues.counters
    mask = len(ready) - 1
    head, tail = counters[RESTING_HEAD], counters[READY_TAIL]
    while head < counters[RESTING_TAIL]:
        user = resting[head & mask]
        if published_ms[user] + interval_ms > now_ms:
            break
        head += 1
        is_resting[user] = False
        if since_ms[user] != 0:
            ready[tail & mask] = user
            tail += 1
    counters[RESTING_HEAD], counters[READY_TAIL] = head, tail


@kernel
def take_ready(
    now_ms: int,
    interval_ms: int,
    queues: Queues,
    users: Int32,
    since_ms: Int64,
    due_ms: Int64,
) -> int:
    """Move the first ready users to the rest, as published now, as many as fit into `users`.

    Returns how many of them had no earlier snapshot.
    """
    known, published_ms, is_resting = queues.since_ms, queues.published_ms, queues.is_resting
    ready, resting, counters = queues.ready, queues.resting, queues.counters
    mask = len(ready) - 1
    head, tail = counters[READY_HEAD], counters[RESTING_TAIL]
    n = min(len(users), int(counters[READY_TAIL] - head))
    n_first = 0
    for i in range(n):
        user = ready[(head + i) & mask]
        before = published_ms[user]
        users[i] = user
        since_ms[i] = known[user]
        due_ms[i] = max(known[user], before + interval_ms)
        n_first += before == 0
        known[user] = 0
        published_ms[user] = now_ms
        is_resting[user] = True
        resting[(tail + i) & mask] = user
    counters[READY_HEAD] = head + n
    counters[RESTING_TAIL] = tail + n
    counters[N_PENDING] -= n
    return n_first
