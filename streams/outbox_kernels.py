"""Compiled queues of an outbox; plain arrays only. See `streams.outbox`."""

from __future__ import annotations

from typing import Final, NamedTuple

from learners.prefetch import prefetch
from schemas.compiled import kernel
from schemas.runs import Int32, Int64

READY_HEAD: Final = 0
READY_TAIL: Final = 1
RESTING_HEAD: Final = 2
RESTING_TAIL: Final = 3
N_PENDING: Final = 4
N_COUNTERS: Final = 5

SINCE: Final = 0
PUBLISHED: Final = 1
"""Columns of `Queues.users`."""

_RESTS: Final = 1
_AHEAD: Final = 8
"""So many users ahead their rows are asked for: they come from memory, in an order that nobody guesses."""


class Queues(NamedTuple):
    """Users of one partition by local slot, and two rings that hold each user at most once.

    `ready` holds who may have a snapshot now, `resting` who had one less than an interval ago. Heads
    and tails only grow; a place in a ring is the counter modulo its capacity, a power of two.

    A user's row is ``[broker time of the oldest untold event or 0, 2 t + r]`` with t the time of the last
    snapshot, 0 for none, and r 1 while the user rests: all that is asked of a user lies in one cache line.
    """

    users: Int64  # (capacity, 2)
    ready: Int32  # (capacity,)
    resting: Int32  # (capacity,)
    counters: Int64  # (N_COUNTERS,)


@kernel
def touch_users(users: Int32, since_ms: Int64, queues: Queues) -> None:
    """Note untold events of `users`, in order; who owes a snapshot already keeps the older one."""
    rows, ready, counters = queues.users, queues.ready, queues.counters
    flat = rows.reshape(-1)
    mask = len(ready) - 1
    tail = counters[READY_TAIL]
    n_new = 0
    for i in range(len(users)):
        if i + _AHEAD < len(users):
            prefetch(flat, 2 * users[i + _AHEAD])
        user = users[i]
        if rows[user, SINCE] != 0:
            continue
        rows[user, SINCE] = max(since_ms[i], 1)
        n_new += 1
        if not rows[user, PUBLISHED] & _RESTS:
            ready[tail & mask] = user
            tail += 1
    counters[READY_TAIL] = tail
    counters[N_PENDING] += n_new


@kernel
def wake(now_ms: int, interval_ms: int, queues: Queues) -> None:
    """End the rest of those whose interval has passed; the touched ones among them are ready."""
    rows, ready, resting, counters = queues.users, queues.ready, queues.resting, queues.counters
    flat = rows.reshape(-1)
    mask = len(ready) - 1
    head, tail = counters[RESTING_HEAD], counters[READY_TAIL]
    while head < counters[RESTING_TAIL]:
        prefetch(flat, 2 * resting[(head + _AHEAD) & mask])
        user = resting[head & mask]
        if (rows[user, PUBLISHED] >> 1) + interval_ms > now_ms:
            break
        head += 1
        rows[user, PUBLISHED] &= ~_RESTS
        if rows[user, SINCE] != 0:
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
    rows, ready, resting, counters = queues.users, queues.ready, queues.resting, queues.counters
    flat = rows.reshape(-1)
    mask = len(ready) - 1
    head, tail = counters[READY_HEAD], counters[RESTING_TAIL]
    n = min(len(users), int(counters[READY_TAIL] - head))
    n_first = 0
    for i in range(n):
        prefetch(flat, 2 * ready[(head + i + _AHEAD) & mask])
        user = ready[(head + i) & mask]
        since, before = rows[user, SINCE], rows[user, PUBLISHED] >> 1
        users[i] = user
        since_ms[i] = since
        due_ms[i] = max(since, before + interval_ms)
        n_first += before == 0
        rows[user, SINCE] = 0
        rows[user, PUBLISHED] = (now_ms << 1) | _RESTS
        resting[(tail + i) & mask] = user
    counters[READY_HEAD] = head + n
    counters[RESTING_TAIL] = tail + n
    counters[N_PENDING] -= n
    return n_first
