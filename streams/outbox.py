"""Which users of a partition owe a snapshot, and when they may have it."""

from __future__ import annotations

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.runs import Int32, Int64


class Told(Struct, frozen=True, kw_only=True):
    """What a published chunk newly tells its B users.

    `since_ms` (B,) is the broker time of the oldest event each snapshot newly knows; `due_ms`
    (B,) when the snapshot could have been made, which is later where the refresh interval held
    the user back; `n_first` counts users that never had a snapshot; `sequence` is the oldest
    apply sequence told.
    """

    since_ms: Int64
    due_ms: Int64
    n_first: int
    sequence: int

    @property
    def held(self) -> NDArray[np.bool_]:
        """(B,) whom the refresh interval held back."""
        return self.due_ms > self.since_ms


class Outbox:
    """Touched users of one partition, coalesced: at most one snapshot a user per interval.

    All methods are vectorised; memory is 24 bytes a user.
    """

    def __init__(self) -> None:
        self._since_ms = np.zeros(1024, dtype=np.int64)  # broker time of the oldest untold event; 0: none
        self._sequence = np.zeros(1024, dtype=np.int64)  # apply sequence of that event
        self._published_ms = np.zeros(1024, dtype=np.int64)
        self._pending: Int32 = np.zeros(0, dtype=np.int32)

    @property
    def n_pending(self) -> int:
        """Users that owe a snapshot."""
        return len(self._pending)

    def oldest_sequence(self) -> int | None:
        """Smallest apply sequence that some pending user has not told yet."""
        return int(self._sequence[self._pending].min()) if len(self._pending) else None

    def touch(self, users: Int32, broker_ts_ms: Int64, sequence: int) -> None:
        """Note that events of `users` (local slots, in offset order) were applied."""
        if not len(users):
            return
        self._grow(int(users.max()) + 1)
        new = self._since_ms[users] == 0
        users, broker_ts_ms = users[new], broker_ts_ms[new]
        # The last write wins, so reversed order leaves each user's first event.
        self._since_ms[users[::-1]] = np.maximum(broker_ts_ms[::-1], 1)
        self._sequence[users] = sequence
        self._pending = np.concatenate([self._pending, np.unique(users)])

    def due(self, now_ms: int, interval_ms: int, limit: int) -> Int32:
        """At most `limit` pending users whose interval has passed, longest waiting first."""
        pending = self._pending
        if not len(pending):
            return pending
        return pending[self._published_ms[pending] + interval_ms <= now_ms][:limit]

    def told(self, users: Int32, now_ms: int, interval_ms: int) -> Told:
        """Mark pending `users` as published now."""
        since_ms = self._since_ms[users]
        told = Told(
            since_ms=since_ms,
            due_ms=np.maximum(since_ms, self._published_ms[users] + interval_ms),
            n_first=int(np.count_nonzero(self._published_ms[users] == 0)),
            sequence=int(self._sequence[users].min()),
        )
        self._since_ms[users] = 0
        self._published_ms[users] = now_ms
        self._pending = self._pending[self._since_ms[self._pending] != 0]
        return told

    def _grow(self, n: int) -> None:
        capacity = len(self._since_ms)
        if n <= capacity:
            return
        extra = np.zeros(max(n, 2 * capacity) - capacity, dtype=np.int64)
        self._since_ms = np.concatenate([self._since_ms, extra])
        self._sequence = np.concatenate([self._sequence, extra])
        self._published_ms = np.concatenate([self._published_ms, extra])
