"""What `decode_events` must say of a run: the full decoder, message by message."""

from __future__ import annotations

from schemas.checks import EVENTS
from schemas.deadletters import Rejected
from schemas.decoding import rejected_at
from schemas.errors import ContractError
from schemas.hashing import hash_many
from schemas.interning import Interner
from schemas.records import EVENT_TYPES, SURFACES, Event
from schemas.runs import UNKNOWN, EventBatch, RecordRun


def assert_as_msgspec_says(
    batch: EventBatch, run: RecordRun, users: Interner, items: Interner, hash_key: int
) -> None:
    """Verdicts, reasons and values equal to those of msgspec alone; tables that held nothing before."""
    events: list[Event] = []
    rows: list[int] = []
    rejected: list[Rejected] = []
    for row, (key, value) in enumerate(zip(run.keys, run.values, strict=True)):
        try:
            events.append(EVENTS.decode_keyed(value, key))
            rows.append(row)
        except ContractError as error:
            rejected.append(rejected_at(row, error))
    assert batch.rejected == rejected
    assert batch.rows.tolist() == rows
    assert batch.offsets.tolist() == run.offsets[rows].tolist()
    assert batch.broker_ts_ms.tolist() == run.timestamps_ms[rows].tolist()
    assert users.ids == list(dict.fromkeys(event.user_id for event in events))
    assert items.ids == list(dict.fromkeys(event.item_id for event in events))
    expected = [
        (
            event.event_id,
            users.find(event.user_id),
            items.find(event.item_id),
            EVENT_TYPES.index(event.type),
            event.ts_ms,
            UNKNOWN if event.watch_ms is None else event.watch_ms,
            UNKNOWN if event.duration_ms is None else event.duration_ms,
            UNKNOWN if event.surface is None else SURFACES.index(event.surface),
            UNKNOWN if event.autoplay is None else int(event.autoplay),
            UNKNOWN if event.gift_value is None else int(event.gift_value),
        )
        for event in events
    ]
    columns = (
        batch.event_ids.to_list(),
        batch.users.tolist(),
        batch.items.tolist(),
        batch.types.tolist(),
        batch.ts_ms.tolist(),
        batch.watch_ms.tolist(),
        batch.duration_ms.tolist(),
        batch.surfaces.tolist(),
        batch.autoplay.tolist(),
        batch.gift_values.tolist(),
    )
    assert list(zip(*columns, strict=True)) == expected
    hashes = hash_many([event.event_id for event in events], hash_key)
    assert batch.event_hashes.tolist() == hashes.tolist()
