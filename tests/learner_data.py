"""Seeded behaviour for learner tests: a small platform whose users follow items in sessions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from learners.user_state import PartitionState
from schemas.hashing import hash_many
from schemas.learner import Contexts, Interactions
from schemas.records import EVENT_TYPES
from schemas.runs import EventBatch
from schemas.texts import texts_of

T0_MS = 1_650_000_000_000
TYPE = {name: index for index, name in enumerate(EVENT_TYPES)}


def event_batch(
    rows: Sequence[dict[str, Any]], *, partition: int = 0, next_offset: int | None = None
) -> EventBatch:
    """Columns of events given as dicts; what is left out has a harmless default."""
    n = len(rows)
    offsets = np.array([row.get("offset", index) for index, row in enumerate(rows)], dtype=np.int64)
    ids = [str(row.get("event_id", f"e{offset}")) for row, offset in zip(rows, offsets, strict=True)]

    def column(name: str, default: int, dtype: type[np.generic]) -> Any:
        return np.array([row.get(name, default) for row in rows], dtype=dtype)

    ts_ms = column("ts_ms", T0_MS, np.int64)
    return EventBatch(
        partition=partition,
        next_offset=next_offset if next_offset is not None else (int(offsets[-1]) + 1 if n else 0),
        rows=np.arange(n, dtype=np.int32),
        offsets=offsets,
        broker_ts_ms=np.array(
            [row.get("broker_ts_ms", t) for row, t in zip(rows, ts_ms.tolist(), strict=True)], dtype=np.int64
        ),
        event_ids=texts_of(ids),
        event_hashes=hash_many(ids, 7),
        users=column("user", 0, np.int32),
        items=column("item", 0, np.int32),
        types=np.array([TYPE[row.get("type", "watch")] for row in rows], dtype=np.int8),
        ts_ms=ts_ms,
        watch_ms=column("watch_ms", -1, np.int64),
        duration_ms=column("duration_ms", -1, np.int64),
        surfaces=column("surface", -1, np.int8),
        autoplay=column("autoplay", -1, np.int8),
        gift_values=column("gift_value", -1, np.int64),
        rejected=[],
    )


def partition_state(n_users: int = 0, **settings: Any) -> PartitionState:
    """State of the only partition, with users u0 .. already interned."""
    defaults: dict[str, Any] = {
        "n_partitions": 1,
        "dedup_window": 4_096,
        "lateness_ms": 3_600_000,
        "future_skew_ms": 60_000,
        "session_gap_ms": 1_800_000,
    }
    state = PartitionState(0, **(defaults | settings))
    state.users.get_many([f"u{user}" for user in range(n_users)])
    return state


def random_rows(seed: int, n: int, *, n_users: int = 12, n_items: int = 40) -> list[dict[str, Any]]:
    """Events with duplicates, late and future ones, skips, and offsets with gaps."""
    rng = np.random.default_rng(seed)
    rows: list[dict[str, Any]] = []
    offset, now = 0, T0_MS
    for _ in range(n):
        offset += int(rng.integers(1, 3))
        now += int(rng.integers(0, 400_000))
        row: dict[str, Any] = {
            "offset": offset,
            "user": int(rng.integers(n_users)),
            "item": int(rng.zipf(1.4) % n_items),
            "type": EVENT_TYPES[int(rng.choice(len(EVENT_TYPES), p=_TYPE_SHARES))],
            "ts_ms": now - int(rng.integers(0, 60_000)),
            "broker_ts_ms": now,
            "watch_ms": int(rng.integers(-1, 30_000)),
            "duration_ms": int(rng.integers(5_000, 60_000)),
        }
        luck = rng.random()
        if luck < 0.05 and rows:
            row["event_id"] = rows[int(rng.integers(max(0, len(rows) - 50), len(rows)))]["event_id"]
        elif luck < 0.08:
            row["ts_ms"] = max(0, now - 7_200_000)
        elif luck < 0.11:
            row["ts_ms"] = now + 120_000
        row.setdefault("event_id", f"e{offset}")
        rows.append(row)
    return rows


def interactions(seed: int, n: int, *, n_users: int = 12, n_items: int = 40) -> Interactions:
    """What the fold makes of random rows, as the model's learners get it."""
    state = partition_state(n_users, history=10, seen=16)
    return state.fold(event_batch(random_rows(seed, n, n_users=n_users, n_items=n_items))).interactions


def rows_of(batch: Interactions, start: int, stop: int) -> Interactions:
    """A slice of a batch."""
    return Interactions(**{name: getattr(batch, name)[start:stop] for name in Interactions.__struct_fields__})


def split(batch: Interactions, size: int) -> Iterator[Interactions]:
    """The batch in pieces of `size` rows."""
    for start in range(0, len(batch), size):
        yield rows_of(batch, start, start + size)


def contexts_of(batch: Interactions, n: int = 8) -> Contexts:
    """The first `n` rows as contexts, and one that nothing is known of."""
    history = np.concatenate([batch.history[-n:], np.full((1, batch.history.shape[1]), -1, dtype=np.int32)])
    users = np.concatenate([batch.users[-n:], np.array([-1], dtype=np.int32)])
    return Contexts(users=users, history=history, now_ms=int(batch.ts_ms[-1]))


_SHARES = {"impression": 3.0, "watch": 8.0, "like": 1.0, "skip": 2.0, "dislike": 0.5}
_WEIGHTS = np.array([_SHARES.get(name, 0.3) for name in EVENT_TYPES])
_TYPE_SHARES = _WEIGHTS / _WEIGHTS.sum()
