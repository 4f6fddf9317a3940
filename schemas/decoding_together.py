"""Decoding several small runs in one go: what each alone would give, for half the cost.

A call of a compiled function costs microseconds beside its work, and gives the interpreter's lock
away: with other threads busy, a few dozen calls a batch wait longer for it than they compute.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from .decoding import EVENT_ID, ITEM_ID, USER_ID, scan_run
from .hashing import hash_texts
from .interning import Interner, table_hashes
from .payloads import Payloads
from .runs import EventBatch, RecordRun
from .texts import Texts


def decode_together(
    runs: Sequence[RecordRun], *, users: Sequence[Interner], items: Interner, hash_key: int
) -> list[EventBatch] | None:
    """Decode runs of the behaviour topic, each as `decode_events` would, one after the other.

    Parameters
    ----------
    runs : sequence of R RecordRun
        Of any partitions, each as often as it comes.
    users : sequence of R Interner
        The table of each run's partition.
    items, hash_key
        As in `decode_events`.

    Returns
    -------
    list of R EventBatch, or None
        None where a message is not beyond doubt, or a table is full: decode each run alone then,
        which gives the same slots to what was named until then. The batches are parts of common arrays.

    Notes
    -----
    Cost: 0.25 microseconds an event, 15 a run and 40 a call; a copy of the runs' bytes.
    """
    joined = _joined(runs)
    if joined is None:
        return None
    scanned = scan_run(joined)
    columns = scanned.columns
    if not columns.sure.all():
        return None
    data = np.frombuffer(scanned.data, dtype=np.uint8)
    starts, ends = columns.starts, columns.ends
    bounds = np.cumsum([0, *map(len, runs)]).tolist()
    parts = [slice(first, last) for first, last in pairwise(bounds)]
    of_users = table_hashes(data, starts[USER_ID], ends[USER_ID])
    user_slots = [
        table.intern_spans(data, starts[USER_ID, part], ends[USER_ID, part], of_users[part])
        for table, part in zip(users, parts, strict=True)
    ]
    # Ids of a message that is refused get no slot, so items wait until no user was refused.
    if any((slots < 0).any() for slots in user_slots):
        return None
    item_slots = items.intern_spans(data, starts[ITEM_ID], ends[ITEM_ID])
    if (item_slots < 0).any():
        return None
    event_ids = Texts(data, starts[EVENT_ID], ends[EVENT_ID])
    hashes = hash_texts(event_ids, hash_key)
    types, ts_ms, watch_ms, duration_ms, surfaces, autoplay, gift_values = columns.numbers
    narrow = [column.astype(np.int8) for column in (types, surfaces, autoplay)]
    return [
        EventBatch(
            partition=run.partition,
            next_offset=run.next_offset,
            rows=np.arange(len(run), dtype=np.int32),
            offsets=run.offsets.copy(),
            broker_ts_ms=run.timestamps_ms.copy(),
            event_ids=event_ids.take(part),
            event_hashes=hashes[part],
            users=slots,
            items=item_slots[part],
            types=narrow[0][part],
            ts_ms=ts_ms[part],
            watch_ms=watch_ms[part],
            duration_ms=duration_ms[part],
            surfaces=narrow[1][part],
            autoplay=narrow[2][part],
            gift_values=gift_values[part],
            rejected=[],
        )
        for run, part, slots in zip(runs, parts, user_slots, strict=True)
    ]


def _joined(runs: Sequence[RecordRun]) -> RecordRun | None:
    """All runs as one, for the scanner alone; None where there is a null."""
    values = _payloads([run.values for run in runs])
    keys = _payloads([run.keys for run in runs])
    shifts = np.cumsum([0, *(len(part.data) for part in values[:-1])])
    shared = all(key.data is value.data for key, value in zip(keys, values, strict=True))
    key_shifts = shifts if shared else np.cumsum([0, *(len(part.data) for part in keys[:-1])])
    if any((part.starts < 0).any() for part in (*values, *keys)):
        return None
    data = b"".join([part.data for part in values])
    key_data = data if shared else b"".join([part.data for part in keys])
    return RecordRun(
        topic="",
        partition=-1,
        keys=_shifted(keys, key_data, key_shifts.tolist()),
        values=_shifted(values, data, shifts.tolist()),
        offsets=np.zeros(0, dtype=np.int64),
        timestamps_ms=np.zeros(0, dtype=np.int64),
        next_offset=0,
    )


def _payloads(parts: Sequence[Sequence[bytes | None]]) -> list[Payloads]:
    return [part if isinstance(part, Payloads) else Payloads.of(part) for part in parts]


def _shifted(parts: Sequence[Payloads], data: bytes, shifts: Sequence[int]) -> Payloads:
    return Payloads(
        data,
        np.concatenate([part.starts + shift for part, shift in zip(parts, shifts, strict=True)]),
        np.concatenate([part.ends + shift for part, shift in zip(parts, shifts, strict=True)]),
    )
