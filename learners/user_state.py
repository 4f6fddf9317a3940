"""User state of one behaviour partition: what each user did, as the fold of the partition's log.

For each event in offset order, the first rule that holds decides::

    offset < next_offset                      ALREADY_APPLIED  (a straddling batch is cut here)
    murmur2(user_id) mod P != partition       WRONG_PARTITION
    hash(event_id) is remembered              DUPLICATE
    ts_ms > broker_ts_ms + future_skew_ms     FUTURE
    ts_ms < watermark_ms - lateness_ms        LATE
    otherwise                                 APPLIED

with watermark_ms the greatest ts_ms applied so far. Only applied events are remembered and change
a user. The state depends on the order of the partition alone, never on where batches end: history
is immediate inside a batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.hashing import partition_texts
from schemas.interning import MAX_SLOTS, Interner
from schemas.learner import Arrays, Interactions
from schemas.runs import EventBatch, Int8, Int32, Int64
from schemas.texts import Texts

from .dedup import Dedup
from .growth import grown
from .household import NO_TIME, arrange_rows, quarters_of
from .last_event_ids import LastEventIds
from .row_copies import RowCopies, slice_of
from .signals import DEFAULT_SIGNALS, IMPRESSION, SignalTable, weighed
from .state import digest_arrays, digest_of, digest_texts, id_hashes, taken
from .user_kernels import (
    ALREADY_APPLIED,
    APPLIED,
    DUPLICATE,
    EVENT_ID,
    FUTURE,
    LAST_BROKER_TS,
    LAST_OFFSET,
    LAST_TS,
    LATE,
    N_EVENTS,
    NEXT_OFFSET,
    SESSION,
    TYPE_BITS,
    WATERMARK,
    WRONG_PARTITION,
    Bools,
    EventColumns,
    FoldColumns,
    FoldLimits,
    UserColumns,
    fold_events,
)

__all__ = [
    "ALREADY_APPLIED",
    "APPLIED",
    "DUPLICATE",
    "FUTURE",
    "LATE",
    "WRONG_PARTITION",
    "Folded",
    "PartitionState",
]

RECENT: Final = 20
_FIRST_USERS: Final = 256
_DIGEST_CHUNK: Final = 16_384


class Folded(Struct, kw_only=True):
    """What `PartitionState.fold` made of a batch of N events, M of them applied."""

    status: Int8  # (N,)
    rows: Int32  # (M,) places of the applied events in the batch
    interactions: Interactions  # M rows, users are local slots
    session: Int32  # (M,) index of the user's session, from 0
    is_new_session: Bools  # (M,)


class PartitionState:
    """Folds event batches of one partition into user state.

    Parameters
    ----------
    partition, n_partitions : int
        Which partition of how many of the behaviour topic.
    history, seen : int
        Newest fresh positives, and newest consumed items, kept a user.
    max_users : int
        Capacity of the interner.
    next_offset : int
        Where the log begins.
    household_hours : float
        Times of day on tv that are this near are the same viewer's; below 0 never. See `household`.
    signals : SignalTable
        What each event says of its item.
    dedup_window : int
        Offsets for which an event id is remembered at least.
    lateness_ms, future_skew_ms, session_gap_ms : int
        Milliseconds; a user silent for longer than session_gap_ms begins a new session.

    Attributes
    ----------
    users : Interner
        The partition's own user slots; the decoder adds to it.
    copies : RowCopies
        Memory of `snapshot` with `reuse`.
    last_offset, last_ts_ms, last_broker_ts_ms, session_index : arrays (capacity >= len(users),)
        Of each user's last applied event, -1 before the first; int64.

    Notes
    -----
    Cost: 0.3 microseconds an event at 50 000 users; 4 (history + seen) + 350 bytes a user, and
    the ids of the user and of the last event.
    """

    def __init__(
        self,
        partition: int,
        *,
        n_partitions: int,
        history: int = 50,
        seen: int = 128,
        dedup_window: int,
        lateness_ms: int,
        future_skew_ms: int,
        session_gap_ms: int,
        max_users: int = MAX_SLOTS,
        next_offset: int = 0,
        household_hours: float = 2.5,
        signals: SignalTable = DEFAULT_SIGNALS,
    ) -> None:
        if not 0 <= partition < n_partitions:
            raise ValueError(f"partition {partition} is none of {n_partitions}")
        self.partition = partition
        self.n_partitions = n_partitions
        self.users = Interner(capacity=max_users)
        self._signals = signals
        near = -1 if household_hours < 0 else round(household_hours * 4)
        self._limits = FoldLimits(lateness_ms, future_skew_ms, session_gap_ms, IMPRESSION, near)
        self._clock = np.array([next_offset, -1], dtype=np.int64)
        self._dedup = Dedup(dedup_window)
        self._foreign: Bools = np.zeros(_FIRST_USERS, dtype=np.bool_)
        self._n_placed = 0
        self._event_ids = LastEventIds()
        self.copies = RowCopies()
        self._stale: Bools = np.ones(_FIRST_USERS, dtype=np.bool_)  # rows that differ from their copy
        self._columns = UserColumns(
            history=np.full((_FIRST_USERS, history), -1, dtype=np.int32),
            seen=np.full((_FIRST_USERS, seen), -1, dtype=np.int32),
            numbers=_unknown_numbers(_FIRST_USERS),
            times=np.full((_FIRST_USERS, history), NO_TIME, dtype=np.int8),
            time=np.full(_FIRST_USERS, NO_TIME, dtype=np.int8),
            recent_items=np.full((_FIRST_USERS, RECENT), -1, dtype=np.int32),
            recent_times=np.full((_FIRST_USERS, RECENT), -1, dtype=np.int64),
        )

    @property
    def next_offset(self) -> int:
        """Position next to read."""
        return int(self._clock[NEXT_OFFSET])

    @property
    def watermark_ms(self) -> int:
        """Greatest event time applied so far, -1 before the first."""
        return int(self._clock[WATERMARK])

    @property
    def last_offset(self) -> Int64:
        """Offset of each user's last applied event; not to be changed, as the next ones."""
        return self._columns.numbers[:, LAST_OFFSET]

    @property
    def last_ts_ms(self) -> Int64:
        """Event time of each user's last applied event."""
        return self._columns.numbers[:, LAST_TS]

    @property
    def last_broker_ts_ms(self) -> Int64:
        """Broker time of each user's last applied event."""
        return self._columns.numbers[:, LAST_BROKER_TS]

    @property
    def session_index(self) -> Int64:
        """Index of each user's current session, from 0."""
        return self._columns.numbers[:, SESSION]

    def last_event_id(self, user: int) -> str:
        """Id of the last applied event of local `user`, empty before the first."""
        known = user < len(self._columns.numbers)
        return self.last_event_texts(np.array([user]))[0] if known else ""

    def user_texts(self, users: NDArray[np.integer]) -> Texts:
        """Ids of local `users`; a view of the interner's bytes, (B,)."""
        return self.users.texts_at(users)

    def last_event_texts(self, users: NDArray[np.integer]) -> Texts:
        """As `last_event_id` of local `users` that were folded; a view until the next fold, (B,)."""
        return self._event_ids.texts(self._columns.numbers[users, EVENT_ID])

    def contexts(self, users: Int32) -> Int32:
        """Newest fresh positives of local `users` (B,), as in `Contexts.history`; (B, H) copy.

        Of who was last seen on tv, arranged for that time of day: see `learners.household`.
        """
        columns = self._columns
        rows: Int32 = np.empty((len(users), columns.history.shape[1]), dtype=np.int32)
        arrange_rows(columns.history, columns.times, users, columns.time, self._limits.near, rows)
        return rows

    def seen_rows(self, users: Int32) -> Int32:
        """Newest consumed items of local `users` (B,), -1 padded; (B, S) copy."""
        return self._columns.seen[users]

    def recent(self, user: int) -> list[tuple[int, int, int]]:
        """Last applied events (item slot, type, ts_ms) of local `user`, newest applied first."""
        columns = self._columns
        if user >= len(columns.numbers):
            return []
        n = int(columns.numbers[user, N_EVENTS])
        places = np.arange(n - 1, max(n - RECENT, 0) - 1, -1) % RECENT
        items, times = columns.recent_items[user, places], columns.recent_times[user, places]
        types, ts_ms = times & ((1 << TYPE_BITS) - 1), times >> TYPE_BITS
        return list(zip(items.tolist(), types.tolist(), ts_ms.tolist(), strict=True))

    def fold(self, batch: EventBatch) -> Folded:
        """Apply a batch; `next_offset` moves to that of the batch, even of an empty one.

        Raises
        ------
        ValueError
            The batch is of another partition.
        """
        if batch.partition != self.partition:
            raise ValueError(f"batch of partition {batch.partition} folded into {self.partition}")
        n = len(batch)
        ids = batch.event_ids
        self._grow()
        self._dedup.reserve(n)
        self._stale[batch.users] = True
        if self._event_ids.reserve(int((ids.ends - ids.starts).sum()), self._columns.numbers[:, EVENT_ID]):
            self._stale[:] = True
        weights, finished = weighed(
            self._signals,
            batch.types,
            batch.watch_ms,
            batch.duration_ms,
            batch.surfaces,
            batch.autoplay,
            batch.gift_values,
        )
        events = EventColumns(
            offsets=batch.offsets,
            broker_ts_ms=batch.broker_ts_ms,
            hashes=batch.event_hashes,
            users=batch.users,
            items=batch.items,
            types=batch.types,
            ts_ms=batch.ts_ms,
            weights=weights,
            quarters=quarters_of(batch.ts_ms, batch.surfaces),
            ids=ids.data,
            id_starts=ids.starts,
            id_ends=ids.ends,
        )
        out = FoldColumns(
            status=np.empty(n, dtype=np.int8),
            rows=np.empty(n, dtype=np.int32),
            history=np.empty((n, self._columns.history.shape[1]), dtype=np.int32),
            fresh=np.empty(n, dtype=np.bool_),
            gap_ms=np.empty(n, dtype=np.int64),
            session=np.empty(n, dtype=np.int32),
            new_session=np.empty(n, dtype=np.bool_),
            scratch=np.empty(1, dtype=np.int64),
        )
        m = fold_events(
            events,
            self._foreign,
            self._columns,
            self._dedup.sets,
            self._event_ids.arena,
            self._clock,
            self._limits,
            out,
        )
        self._clock[NEXT_OFFSET] = max(self._clock[NEXT_OFFSET], batch.next_offset)
        rows = out.rows[:m]
        users = batch.users[rows]
        return Folded(
            status=out.status,
            rows=rows,
            interactions=Interactions(
                users=users,
                items=batch.items[rows],
                types=batch.types[rows],
                ts_ms=batch.ts_ms[rows],
                weight=weights[rows],
                history=out.history[:m],
                fresh=out.fresh[:m],
                gap_ms=out.gap_ms[:m],
                surfaces=batch.surfaces[rows],
                finished=finished[rows],
            ),
            session=out.session[:m],
            is_new_session=out.new_session[:m],
        )

    def _grow(self) -> None:
        """Room for all interned users, and the partition of the new ones."""
        n = len(self.users)
        before = len(self._foreign)
        if n > before:
            self._foreign = grown(self._foreign, n)
            self._stale = grown(self._stale, n, True)
            self._columns = UserColumns(
                **{name: grown(column, n, -1) for name, column in self._columns._asdict().items()}
            )
            self._columns.numbers[before:] = _unknown_numbers(len(self._foreign) - before)
        if n > self._n_placed:
            placed = partition_texts(self.users.texts(self._n_placed), self.n_partitions)
            self._foreign[self._n_placed : n] = placed != self.partition
            self._n_placed = n

    def snapshot(self, *, reuse: bool = False) -> Arrays:
        """Copy of the state as named arrays; item slots are those of the model's Interner.

        Parameters
        ----------
        reuse : bool
            Write over the last such snapshot, which nobody reads any more: of each user who has
            sent nothing since it or `copy_ahead`, the copy is as it must be.

        Notes
        -----
        Cost: plain copies, 0.5 to 1 ms for 10 MB; nothing is sorted.
        """
        self._grow()
        written = {"event_ids": self._event_ids.written()}
        if reuse:
            arrays = self.copies.renew(self._rows(), self._stale) | self.copies.whole(written)
        else:
            arrays = {name: rows.copy() for name, rows in {**self._rows(), **written}.items()}
        arrays["clock"] = self._clock.copy()
        arrays["partition"] = np.array([self.partition, self.n_partitions], dtype=np.int64)
        users = {f"user_{name}": array for name, array in self.users.snapshot().items()}
        return arrays | users | self._dedup.contents()

    def make_room(self) -> None:
        """Make the memory of `snapshot` with `reuse` as large as the next one will want it."""
        self._grow()
        self.copies.make_room(self._rows() | {"event_ids": self._event_ids.written()}, self._stale)

    def copy_ahead(self, place: int, of: int) -> None:
        """Renew a slice of the last snapshot with `reuse`, so that the next one has less to copy."""
        self._grow()
        self.copies.renew(self._rows(), self._stale, *slice_of(len(self.users), place, of))

    def _rows(self) -> dict[str, NDArray[np.generic]]:
        """Rows of all interned users."""
        return {name: column[: len(self.users)] for name, column in self._columns._asdict().items()}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become the state that `snapshot` described; `users` becomes a new Interner.

        Raises
        ------
        StateError
            Another partition, partition count, list length, or damaged arrays.
        """
        place = taken(arrays, "partition", self._clock, rows=2).tolist()
        if place != [self.partition, self.n_partitions]:
            raise StateError(
                f"the state is of partition {place[0]} of {place[1]},"
                f" not {self.partition} of {self.n_partitions}"
            )
        clock = taken(arrays, "clock", self._clock, rows=2)
        users = Interner.restored(arrays, capacity=self.users.capacity, prefix="user_")
        if "times" not in arrays:  # a release before this one wrote it
            none = {name: getattr(self._columns, name)[:0] for name in ("times", "time")}
            arrays = dict(arrays) | {name: grown(array, len(users), NO_TIME) for name, array in none.items()}
        columns = UserColumns(
            **{
                name: taken(arrays, name, column, rows=len(users))
                for name, column in self._columns._asdict().items()
            }
        )
        event_ids = LastEventIds.restored(arrays, columns.numbers[:, EVENT_ID])
        self._dedup = self._dedup.restored(arrays)
        self._columns = columns
        self._clock = clock
        self.users = users
        self._event_ids = event_ids
        self._foreign = np.zeros(len(users), dtype=np.bool_)
        self._stale = np.ones(len(users), dtype=np.bool_)
        self._n_placed = 0
        self._grow()

    def digest(self, item_ids: Sequence[str]) -> str:
        """Hash over ids, never slots: equal for equal logs, whatever the batches or slots were.

        Parameters
        ----------
        item_ids : sequence of str
            Ids by item slot (the model's item Interner).

        Notes
        -----
        Cost: about 2 microseconds a user, most of it hashing, and a sort of the dedup window.
        """
        columns = self._columns
        known = np.flatnonzero(columns.numbers[: self._n_placed, LAST_OFFSET] >= 0)
        names = id_hashes(self.users.ids)[1:][known]
        order = np.argsort(names, kind="stable")
        known = known[order]
        items = id_hashes(item_ids)
        dedup = {name: np.sort(array) for name, array in self._dedup.contents().items()}
        parts = [
            digest_of(self.users.texts_at(known)),
            digest_of(self.last_event_texts(known)),
            digest_arrays(dedup | {"clock": self._clock}),
        ]
        for start in range(0, len(known), _DIGEST_CHUNK):
            users = known[start : start + _DIGEST_CHUNK]
            chunk: dict[str, NDArray[np.generic]] = {
                name: column[users] for name, column in columns._asdict().items()
            }
            chunk["numbers"] = columns.numbers[users, :EVENT_ID]
            for name in ("history", "seen", "recent_items"):
                chunk[name] = items[np.asarray(chunk[name], dtype=np.int64) + 1]
            parts.append(digest_arrays(chunk))
        return digest_texts(parts)


def _unknown_numbers(n: int) -> Int64:
    """Rows of `UserColumns.numbers` of users without an event."""
    numbers = np.full((n, 8), -1, dtype=np.int64)
    numbers[:, [N_EVENTS, EVENT_ID]] = 0
    return numbers
