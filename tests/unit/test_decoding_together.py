"""Runs that are decoded together give what each gives alone, or nothing at all."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.codec import encode_event
from schemas.decoding import decode_events
from schemas.decoding_together import decode_together
from schemas.interning import Interner
from schemas.payloads import Payloads
from schemas.records import Event
from schemas.runs import EventBatch, RecordRun

HASH_KEY = 7
N_PARTITIONS = 3
COLUMNS = [
    name for name in EventBatch.__struct_fields__ if name not in {"event_ids", "rejected", "partition"}
]

plain = st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters='"\\')
"""What JSON has without an escape: the scanner is sure of it."""

events = st.builds(
    Event,
    event_id=st.text(
        st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"], exclude_characters='"\\'),
        min_size=1,
        max_size=9,
    ),
    user_id=st.sampled_from(["u1", "u2", "ü3", "u" * 40]),
    item_id=st.sampled_from(["v1", "v2", "视频"]),
    type=st.sampled_from(["watch", "like"]),
    ts_ms=st.integers(0, 2**41),
    watch_ms=st.none() | st.integers(0, 9_000),
    surface=st.none() | st.sampled_from(["tv", "live"]),
)
runs_of_events = st.lists(
    st.tuples(st.integers(0, N_PARTITIONS - 1), st.lists(events, max_size=5)), min_size=1, max_size=6
)


def run_of(partition: int, records: list[tuple[bytes | None, bytes | None]], first: int = 0) -> RecordRun:
    n = len(records)
    return RecordRun(
        topic="t",
        partition=partition,
        keys=[key for key, _ in records],
        values=[value for _, value in records],
        offsets=np.arange(first, first + n, dtype=np.int64),
        timestamps_ms=np.arange(n, dtype=np.int64) + 5,
        next_offset=first + n,
    )


def records_of(several: list[Event]) -> list[tuple[bytes | None, bytes | None]]:
    return [(event.user_id.encode(), encode_event(event)) for event in several]


def one_by_one(runs: list[RecordRun], tables: list[Interner], items: Interner) -> list[EventBatch]:
    return [decode_events(run, users=tables[run.partition], items=items, hash_key=HASH_KEY) for run in runs]


def together(runs: list[RecordRun], tables: list[Interner], items: Interner) -> list[EventBatch] | None:
    return decode_together(
        runs, users=[tables[run.partition] for run in runs], items=items, hash_key=HASH_KEY
    )


def assert_same(found: list[EventBatch], expected: list[EventBatch]) -> None:
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        for name in COLUMNS:
            a, b = np.asarray(getattr(one, name)), np.asarray(getattr(other, name))
            assert a.dtype == b.dtype, name
            np.testing.assert_array_equal(a, b, err_msg=name)
        assert one.partition == other.partition
        assert one.event_ids.to_list() == other.event_ids.to_list()
        assert [(r.index, r.reason) for r in one.rejected] == [(r.index, r.reason) for r in other.rejected]


@settings(deadline=None)
@given(runs_of_events, st.booleans())
def test_as_one_by_one(drawn: list[tuple[int, list[Event]]], shared: bool) -> None:
    runs = [run_of(partition, records_of(several), 10 * i) for i, (partition, several) in enumerate(drawn)]
    if shared:  # as the transport has them: keys and values in one buffer, and a part of it cut off
        runs = [_in_one_buffer(run) for run in runs]
    tables, items = [Interner() for _ in range(N_PARTITIONS)], Interner()
    tables_too, items_too = [Interner() for _ in range(N_PARTITIONS)], Interner()
    found = together(runs, tables, items)
    assert found is not None
    assert_same(found, one_by_one(runs, tables_too, items_too))
    assert [table.ids for table in tables] == [table.ids for table in tables_too]
    assert items.ids == items_too.ids


def _in_one_buffer(run: RecordRun) -> RecordRun:
    n = len(run)
    both = Payloads.of(
        [b"cut off", *(part for pair in zip(run.keys, run.values, strict=True) for part in pair)]
    )
    run.keys = Payloads(both.data, both.starts[1::2], both.ends[1::2])
    run.values = Payloads(both.data, both.starts[2::2], both.ends[2::2])
    assert len(run.keys) == len(run.values) == n
    return run


def test_doubt_about_one_message_sends_all_to_the_other_way() -> None:
    good = Event(event_id="e", user_id="u1", item_id="v1", type="watch", ts_ms=1)
    for key, value in ((b"u1", b"not json"), (b"other", encode_event(good)), (b"u1", None), (None, b"{}")):
        runs = [run_of(0, records_of([good])), run_of(1, [(key, value)])]
        tables, items = [Interner(), Interner()], Interner()
        assert together(runs, tables, items) is None
        assert len(tables[0]) == len(tables[1]) == len(items) == 0


def test_a_full_table_leaves_what_one_by_one_would_have_made() -> None:
    several = [
        Event(event_id=f"e{i}", user_id=user, item_id=item, type="watch", ts_ms=1)
        for i, (user, item) in enumerate([("a", "x"), ("b", "y"), ("a", "z"), ("a", "y"), ("c", "x")])
    ]
    runs = [
        run_of(0, records_of(several[:2])),
        run_of(1, records_of(several[2:])),
        run_of(0, records_of(several)),
    ]
    for n_users, n_items in ((2, 9), (9, 2), (2, 2), (1, 1)):
        tables, items = [Interner(capacity=n_users) for _ in range(2)], Interner(capacity=n_items)
        tables_too, items_too = [Interner(capacity=n_users) for _ in range(2)], Interner(capacity=n_items)
        assert together(runs, tables, items) is None
        assert_same(one_by_one(runs, tables, items), one_by_one(runs, tables_too, items_too))
        assert [table.ids for table in tables] == [table.ids for table in tables_too]
        assert items.ids == items_too.ids
