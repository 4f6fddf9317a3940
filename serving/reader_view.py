"""The reader's local view: the newest snapshot of each user, and who wants to hear of it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import NamedTuple, Self

import msgspec

from schemas.records import Snapshot

Listener = Callable[[Snapshot], None]

_decoder = msgspec.json.Decoder(Snapshot)


class _Kept(NamedTuple):
    partition: int
    offset: int
    value: bytes


class SnapshotView:
    """Newest snapshot per user, bounded, with listeners.

    `apply` is called by one thread; everything else by any.
    """

    def __init__(self, max_users: int) -> None:
        if max_users < 1:
            raise ValueError("max_users must be positive")
        self._max_users = max_users
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()
        self._by_user: dict[str, list[Listener]] = {}
        self._for_all: list[Listener] = []
        self._closers: list[Callable[[], None]] = []
        self.read = 0
        self.dropped_older = 0
        self.invalid = 0
        self.evicted = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, user_id: str) -> Snapshot | None:
        """Decode the newest snapshot of a user; None when there is none."""
        kept = self._kept.get(user_id)
        return None if kept is None else _decoder.decode(kept.value)

    def apply(self, key: bytes | None, value: bytes | None) -> None:
        """Take one record of the topic: a snapshot, or a tombstone when `value` is None.

        A snapshot with the same ``knows.partition`` and a smaller ``knows.offset`` than the kept
        one is dropped; at equal offsets the later record wins. Another partition number means
        that the behaviour topic was replaced by one with more partitions: the later record wins.
        """
        self.read += 1
        if key is None:
            self.invalid += 1
            return
        user_id = key.decode("utf-8", "replace")
        if value is None:
            with self._lock:
                self._kept.pop(user_id, None)
            return
        try:
            snapshot = _decoder.decode(value)
        except msgspec.MsgspecError:
            self.invalid += 1
            return
        if snapshot.user_id != user_id:
            self.invalid += 1
            return
        self._keep(user_id, snapshot, value)

    def _keep(self, user_id: str, snapshot: Snapshot, value: bytes) -> None:
        knows = snapshot.knows
        with self._lock:
            kept = self._kept.get(user_id)
            if kept is not None:
                if kept.partition == knows.partition and knows.offset < kept.offset:
                    self.dropped_older += 1
                    return
                # Deleted first: the dict's order is then the order of arrival, which eviction uses.
                del self._kept[user_id]
            self._kept[user_id] = _Kept(knows.partition, knows.offset, value)
            if len(self._kept) > self._max_users:
                del self._kept[next(iter(self._kept))]
                self.evicted += 1
            listeners = (*self._by_user.get(user_id, ()), *self._for_all)
        for listener in listeners:
            listener(snapshot)

    def listen(
        self, user_id: str | None, listener: Listener, on_close: Callable[[], None] | None = None
    ) -> Callable[[], None]:
        """Register `listener`; returns what unregisters it (safe to call twice)."""
        with self._lock:
            group = self._for_all if user_id is None else self._by_user.setdefault(user_id, [])
            group.append(listener)
            if on_close is not None:
                self._closers.append(on_close)

        def undo() -> None:
            with self._lock:
                if listener in group:
                    group.remove(listener)
                if on_close in self._closers:
                    self._closers.remove(on_close)
                if user_id is not None and not group and self._by_user.get(user_id) is group:
                    del self._by_user[user_id]

        return undo

    def close(self) -> None:
        """Wake every subscription for the last time."""
        with self._lock:
            closers = list(self._closers)
        for closer in closers:
            closer()


class Subscription:
    """A bounded queue of arriving snapshots; the oldest is lost when it overflows.

    Attributes
    ----------
    lost : int
        How many snapshots this subscriber was too slow for.
    """

    def __init__(self, view: SnapshotView, user_id: str | None, maxsize: int) -> None:
        if maxsize < 1:
            raise ValueError("maxsize must be positive")
        self.lost = 0
        self._queue: deque[Snapshot] = deque()
        self._maxsize = maxsize
        self._changed = threading.Condition()
        self._closed = False
        self._undo = view.listen(user_id, self._offer, self._wake)

    def _offer(self, snapshot: Snapshot) -> None:
        with self._changed:
            if len(self._queue) >= self._maxsize:
                self._queue.popleft()
                self.lost += 1
            self._queue.append(snapshot)
            self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def get(self, timeout: float | None) -> Snapshot | None:
        """The next snapshot; None after `timeout` seconds (None: wait) or once closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: bool(self._queue) or self._closed, timeout)
            return self._queue.popleft() if self._queue else None

    def __iter__(self) -> Iterator[Snapshot]:
        while (snapshot := self.get(None)) is not None:
            yield snapshot

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Unsubscribe; `get` returns what is queued, then None."""
        self._undo()
        self._wake()
