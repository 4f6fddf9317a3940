"""Fetched runs and the columns decoded from them: what travels from Kafka to the learners."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from .deadletters import Rejected
from .texts import Texts

Int8 = NDArray[np.int8]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
UInt64 = NDArray[np.uint64]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]

UNKNOWN: Final = -1


class RecordRun(Struct, kw_only=True):
    """Consecutive records of one partition as one fetch returned them (offsets may have gaps).

    `next_offset` is the position *next to read* after the run: it is past the last record when
    transaction markers or compaction left a gap behind it. `first` is the position that the run
    follows on: it holds every record in between. 0 where its reader does not say.
    """

    topic: str
    partition: int
    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    offsets: Int64  # (N,)
    timestamps_ms: Int64  # (N,) broker time under LogAppendTime
    next_offset: int
    first: int = 0

    def __len__(self) -> int:
        return len(self.values)


class EventBatch(Struct, kw_only=True):
    """Valid behaviour events of one run as columns, in offset order.

    `rows` gives each event's place in the run. Unknown optional numbers are -1.
    """

    partition: int
    next_offset: int
    rows: Int32  # (N,)
    offsets: Int64  # (N,)
    broker_ts_ms: Int64  # (N,)
    event_ids: Texts  # (N,)
    event_hashes: UInt64  # (N,) keyed 64-bit hash of event_id
    users: Int32  # (N,) slots of the partition's user interner
    items: Int32  # (N,) slots of the item interner
    types: Int8  # (N,) index into EVENT_TYPES
    ts_ms: Int64  # (N,)
    watch_ms: Int64  # (N,) -1 unknown
    duration_ms: Int64  # (N,) -1 unknown
    surfaces: Int8  # (N,) index into SURFACES, -1 unknown
    autoplay: Int8  # (N,) 0, 1, -1 unknown
    gift_values: Int64  # (N,) whole part, -1 unknown
    rejected: list[Rejected]

    def __len__(self) -> int:
        return len(self.event_ids)
