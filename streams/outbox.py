"""Which users of a partition owe a snapshot, and when they may have it."""

from __future__ import annotations

from collections import deque

import numpy as np
from msgspec import Struct

from schemas.runs import Int32, Int64

from .outbox_kernels import (
    N_COUNTERS,
    N_PENDING,
    READY_HEAD,
    READY_TAIL,
    SINCE,
    Queues,
    take_ready,
    touch_users,
    wake,
)

FIRST_USERS = 1_024
MARK_EVERY_MS = 20
"""Resolution of `Outbox.longest_wait_ms`."""


class Told(Struct, frozen=True, kw_only=True):
    """What a published chunk newly tells its B users, longest waiting first.

    `since_ms` (B,) is the broker time of the oldest event each snapshot newly knows; `due_ms`
    (B,) when the snapshot could have been made, which is later where the refresh interval held
    the user back; `n_first` counts users that never had a snapshot.
    """

    users: Int32
    since_ms: Int64
    due_ms: Int64
    n_first: int


class Outbox:
    """Touched users of one partition, coalesced: at most one snapshot a user per interval.

    Who may have a snapshot waits in a queue, in the order in which that became so; nobody else is
    looked at. Cost: 10 to 20 ns a touch and as much a snapshot; memory is 24 bytes a user.
    """

    def __init__(self) -> None:
        self._queues = _empty(FIRST_USERS)
        self._told: dict[int, Told] = {}  # not acknowledged, by number
        self._n_taken = 0
        self._marks: deque[tuple[int, int]] = deque()  # (tail of the ready queue, time it was seen)

    @property
    def n_pending(self) -> int:
        """Users that owe a snapshot."""
        return int(self._queues.counters[N_PENDING])

    def longest_wait_ms(self, now_ms: int) -> int:
        """How long the first of the queue could have had a snapshot, as `take` saw it; 0 without any."""
        head = int(self._queues.counters[READY_HEAD])
        while self._marks and self._marks[0][0] <= head:
            self._marks.popleft()
        return max(0, now_ms - self._marks[0][1]) if self._marks else 0

    def touch(self, users: Int32, since_ms: Int64) -> None:
        """Note that events of `users` (local slots, in offset order) were applied.

        Parameters
        ----------
        users : Int32
            (N,)
        since_ms : Int64
            (N,) broker time of the event; of a user's events the first untold one counts.
        """
        if not len(users):
            return
        self._grow(int(users.max()) + 1)
        touch_users(users, since_ms, self._queues)

    def n_due(self, now_ms: int, interval_ms: int) -> int:
        """Users whose interval has passed: what `take` could take."""
        wake(now_ms, interval_ms, self._queues)
        counters = self._queues.counters
        return int(counters[READY_TAIL] - counters[READY_HEAD])

    def take(self, now_ms: int, interval_ms: int, limit: int) -> tuple[int, Told] | None:
        """At most `limit` users whose interval has passed, longest waiting first, as published now.

        Returns
        -------
        (int, Told) or None
            The number to `acknowledge` once the broker has the snapshots, and what they tell.
        """
        wake(now_ms, interval_ms, self._queues)
        counters = self._queues.counters
        tail = int(counters[READY_TAIL])
        if tail == counters[READY_HEAD]:
            return None
        if not self._marks or (self._marks[-1][0] < tail and self._marks[-1][1] + MARK_EVERY_MS <= now_ms):
            self._marks.append((tail, now_ms))
        n = min(limit, tail - int(counters[READY_HEAD]))
        users: Int32 = np.empty(n, dtype=np.int32)
        since_ms, due_ms = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
        n_first = take_ready(now_ms, interval_ms, self._queues, users, since_ms, due_ms)
        told = Told(users=users, since_ms=since_ms, due_ms=due_ms, n_first=int(n_first))
        self._n_taken += 1
        self._told[self._n_taken] = told
        return self._n_taken, told

    def acknowledge(self, number: int) -> None:
        """The broker has every snapshot of the `take` with this number."""
        del self._told[number]

    def owed(self) -> tuple[Int32, Int64]:
        """Users whose newest events no acknowledged snapshot tells, and since when: copies, by user.

        Touched ones, and those whose snapshot is on its way. `touch` with both makes an empty outbox
        owe the same. Cost: 1 ns a known user and 0.1 microseconds a snapshot on its way.
        """
        untold_ms = self._queues.users[:, SINCE]
        pending = np.flatnonzero(untold_ms).astype(np.int32)
        told = list(self._told.values())
        users = np.concatenate([pending, *(part.users for part in told)])
        since_ms = np.concatenate([untold_ms[pending], *(part.since_ms for part in told)])
        order = np.lexsort((since_ms, users))
        users, since_ms = users[order], since_ms[order]
        first = np.ones(len(users), dtype=np.bool_)
        first[1:] = users[1:] != users[:-1]
        return users[first], since_ms[first]

    def _grow(self, n: int) -> None:
        old = self._queues
        capacity = len(old.users)
        if n <= capacity:
            return
        queues = _empty(1 << (n - 1).bit_length())
        queues.users[:capacity], queues.counters[:] = old.users, old.counters
        head, tail, resting_head, resting_tail = old.counters[:4].tolist()
        for ring, was, places in (
            (queues.ready, old.ready, np.arange(head, tail)),
            (queues.resting, old.resting, np.arange(resting_head, resting_tail)),
        ):
            ring[places & (len(ring) - 1)] = was[places & (capacity - 1)]
        self._queues = queues


def _empty(capacity: int) -> Queues:
    return Queues(
        users=np.zeros((capacity, 2), dtype=np.int64),
        ready=np.zeros(capacity, dtype=np.int32),
        resting=np.zeros(capacity, dtype=np.int32),
        counters=np.zeros(N_COUNTERS, dtype=np.int64),
    )
