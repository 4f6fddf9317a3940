from __future__ import annotations

import json
import math
import sys
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from schemas.checks import EVENTS, MAX_NESTING
from schemas.codec import encode_event
from schemas.deadletters import REASONS
from schemas.decoding import decode_events
from schemas.errors import ContractError
from schemas.hashing import hash_one
from schemas.interning import Interner
from schemas.jsonschema import json_schema
from schemas.media import REASONS as MEDIA_REASONS
from schemas.records import EVENT_TYPES, SURFACES, Event
from schemas.runs import EventBatch, RecordRun
from schemas.topics import MAX_MESSAGE_BYTES
from tests.broken_events import BROKEN, Broken, Record, valid_fields

VALIDATOR = Draft202012Validator(json_schema("event"))
HASH_KEY = 7


def run_of(records: list[Record]) -> RecordRun:
    n = len(records)
    return RecordRun(
        topic="reelflow.behaviour.v1",
        partition=3,
        keys=[key for key, _ in records],
        values=[value for _, value in records],
        offsets=np.arange(100, 100 + 2 * n, 2, dtype=np.int64),
        timestamps_ms=np.arange(n, dtype=np.int64) + 5_000,
        next_offset=100 + 2 * n,
    )


def decode(records: list[Record]) -> tuple[EventBatch, Interner, Interner]:
    users, items = Interner(), Interner()
    return decode_events(run_of(records), users=users, items=items, hash_key=HASH_KEY), users, items


def record(**fields: Any) -> Record:
    event = valid_fields(1) | fields
    return str(event["user_id"]).encode(), msgspec.json.encode(event)


def raw(field: str, text: str) -> Record:
    """A valid event with `text` as the JSON of one more (or the last) `field`."""
    key, value = record()
    return key, (value or b"")[:-1] + f',"{field}":{text}}}'.encode()


def rejection(one: Record) -> tuple[str, str | None, str]:
    batch, users, items = decode([one])
    assert len(batch) == len(users) == len(items) == 0
    (rejected,) = batch.rejected
    return rejected.reason, rejected.field, rejected.message


def test_columns() -> None:
    full = record(autoplay=True, surface="tv", device="d", position=2, gift_value=0.5, type="gift")
    bare = b"u2", b'{"event_id":"e2","user_id":"u2","item_id":"v9","type":"impression","ts_ms":0}'
    batch, users, items = decode([full, bare, full])
    assert users.ids == ["u1", "u2"]
    assert items.ids == ["v1", "v9"]
    assert batch.partition == 3
    assert batch.next_offset == 106
    assert batch.rejected == []
    assert batch.event_ids.to_list() == ["broken-1", "e2", "broken-1"]
    columns = {
        "rows": (np.int32, [0, 1, 2]),
        "offsets": (np.int64, [100, 102, 104]),
        "broker_ts_ms": (np.int64, [5000, 5001, 5002]),
        "event_hashes": (np.uint64, [hash_one(one, HASH_KEY) for one in batch.event_ids.to_list()]),
        "users": (np.int32, [0, 1, 0]),
        "items": (np.int32, [0, 1, 0]),
        "types": (np.int8, [EVENT_TYPES.index(one) for one in ("gift", "impression", "gift")]),
        "ts_ms": (np.int64, [1650900000001, 0, 1650900000001]),
        "watch_ms": (np.int64, [1000, -1, 1000]),
        "duration_ms": (np.int64, [15000, -1, 15000]),
        "surfaces": (np.int8, [SURFACES.index("tv"), -1, SURFACES.index("tv")]),
        "autoplay": (np.int8, [1, -1, 1]),
        "gift_values": (np.int64, [0, -1, 0]),
    }
    for name, (dtype, values) in columns.items():
        column = getattr(batch, name)
        assert column.dtype == dtype, name
        assert column.tolist() == values, name


def test_an_empty_run() -> None:
    batch, _, _ = decode([])
    assert len(batch) == 0
    assert batch.users.dtype == np.int32
    assert batch.rejected == []


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken[0])
def test_broken(broken: Broken) -> None:
    _, make, reason, field = broken
    batch, users, items = decode([record(event_id="a"), make(8), record(event_id="b")])
    assert batch.event_ids.to_list() == ["a", "b"]
    assert batch.rows.tolist() == [0, 2]
    assert batch.offsets.tolist() == [100, 104]
    assert users.ids == ["u1"]
    assert items.ids == ["v1"]
    (rejected,) = batch.rejected
    assert (rejected.index, rejected.reason, rejected.field) == (1, reason, field)
    assert reason in REASONS
    if field is not None:
        assert rejected.message.startswith(f"$.{field}: ")
    assert 0 < len(rejected.message) < 300
    assert len(rejected.exception) < 500


def test_all_kinds_mixed_with_valid_ones() -> None:
    records: list[Record] = []
    expected = []
    for number in range(len(BROKEN) * 3):
        _, make, reason, field = BROKEN[number % len(BROKEN)]
        expected.append((len(records), reason, field))
        records += [make(number), record(user_id=f"ok{number}")]
    batch, users, _ = decode(records)
    assert [(one.index, one.reason, one.field) for one in batch.rejected] == expected
    assert batch.rows.tolist() == list(range(1, len(records), 2))
    assert users.ids == [f"ok{number}" for number in range(len(BROKEN) * 3)]


def test_twenty_kinds_over_the_reasons_of_the_decoder() -> None:
    elsewhere = {"wrong_partition", "late", "future", "capacity"}
    assert {reason for _, _, reason, _ in BROKEN[:20]} == set(REASONS) - elsewhere - set(MEDIA_REASONS)
    assert len({name for name, *_ in BROKEN}) == len(BROKEN)


def test_unknown_fields_are_tolerated() -> None:
    _, value = record(extra={"a": [1, None, 1e300]}, watch_s=3)
    batch, _, _ = decode([(b"u1", value)])
    assert len(batch) == 1


@pytest.mark.parametrize("text", ["3.0", "3e0", "30e-1", "0.3E1", "3"])
def test_whole_floats_are_integers_as_in_json_schema(text: str) -> None:
    batch, _, _ = decode([raw("watch_ms", text), raw("schema_version", "1.0"), record()])
    assert batch.watch_ms.tolist() == [3, 1000, 1000]


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("watch_ms", "3.5"),
        ("watch_ms", "-3.0"),
        ("watch_ms", "1e300"),
        ("watch_ms", "1e400"),
        ("watch_ms", "604800001.0"),
        ("ts_ms", "null"),
        ("ts_ms", "true"),
        ("ts_ms", '"1"'),
        ("position", "1e5000"),
        ("gift_value", '"1"'),
        ("gift_value", "-0.1"),
        ("device", '""'),
        ("session_id", "5"),
    ],
)
def test_bad_values(field: str, text: str) -> None:
    reason, named, message = rejection(raw(field, text))
    assert (reason, named) == ("bad_value", field)
    assert message.startswith(f"$.{field}: ")


def test_a_whole_float_does_not_hide_another_fault() -> None:
    _, value = record(watch_ms=3.0, surface="billboard")
    assert rejection((b"u1", value))[:2] == ("bad_value", "surface")


def test_duplicate_fields() -> None:
    batch, _, _ = decode([raw("watch_ms", "5")])
    assert batch.watch_ms.tolist() == [5]
    key, value = record(watch_ms=-1)
    assert rejection((key, (value or b"")[:-1] + b',"watch_ms":1}'))[:2] == ("bad_value", "watch_ms")


def test_limits_of_size() -> None:
    key, value = record()
    assert value is not None
    padded = value + b" " * (MAX_MESSAGE_BYTES - len(value))
    assert len(decode([(key, padded)])[0]) == 1
    assert rejection((key, padded + b" "))[0] == "message_too_large"


def test_limits_of_nesting() -> None:
    deepest = MAX_NESTING - 1  # inside the event itself
    for opening, closing in ("[", "]"), ('{"a":', "}"):
        inner = "1" if opening != "[" else ""
        assert len(decode([raw("x", opening * deepest + inner + closing * deepest)])[0]) == 1
        too_deep = raw("x", opening * (deepest + 1) + inner + closing * (deepest + 1))
        assert rejection(too_deep)[0] == "bad_value"
    # Brackets that do not nest, or stand in strings, count for nothing.
    assert len(decode([raw("x", "[" + "[]," * 5000 + "[]]")])[0]) == 1
    assert len(decode([raw("x", json.dumps('[["\\' * 5000))])[0]) == 1


def test_nesting_is_a_rejection_on_a_full_stack() -> None:
    one = raw("x", "[" * 120 + "]" * 120)
    frames = 0
    frame = sys._getframe()
    while frame is not None:
        frames += 1
        frame = frame.f_back  # type: ignore[assignment]
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(frames + 60)
    try:
        with pytest.raises(ContractError, match="nested too deep") as caught:
            EVENTS.decode(one[1])
    finally:
        sys.setrecursionlimit(limit)
    assert caught.value.reason == "bad_value"


def test_a_long_bad_value_makes_no_long_header() -> None:
    reason, field, message = rejection(record(type="x" * 100_000))
    assert (reason, field) == ("unknown_type", "type")
    assert len(message) < 300


def test_a_value_that_looks_like_a_path_fools_nobody() -> None:
    assert rejection(record(surface="x' - at `$.user_id`"))[:2] == ("bad_value", "surface")


def test_cause_is_told() -> None:
    batch, _, _ = decode([raw("watch_ms", "-1")])
    assert batch.rejected[0].exception == "ValidationError: Expected `int` >= 0 - at `$.watch_ms`"


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.integers(-2, 3)
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.sampled_from(
        [0.0, -0.0, 1.0, 2.0, 1e3, 604_800_000, 604_800_001, 4_102_444_800_000, 4_102_444_800_001]
    )
    | st.text(max_size=5)
    | st.text(min_size=127, max_size=129)
    | st.sampled_from(EVENT_TYPES + SURFACES)
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner)
)
almost_events = st.builds(
    lambda changes, dropped: {k: v for k, v in (valid_fields(1) | changes).items() if k not in dropped},
    st.dictionaries(st.sampled_from(Event.__struct_fields__) | st.text(max_size=3), anything, max_size=4),
    st.sets(st.sampled_from(Event.__struct_fields__), max_size=1),
)


def _finite(value: Any) -> bool:
    if isinstance(value, dict):
        return all(map(_finite, value.values()))
    if isinstance(value, list):
        return all(map(_finite, value))
    return not isinstance(value, float) or math.isfinite(value)


@given(almost_events)
@example({**valid_fields(1), "schema_version": True})
@example({**valid_fields(1), "schema_version": 1.0})
def test_decoder_and_schema_say_the_same(fields: dict[str, Any]) -> None:
    value = json.dumps(fields).encode()
    error, event = None, None
    try:
        event = EVENTS.decode(value)
    except ContractError as caught:
        error = caught
    if event is not None:
        VALIDATOR.validate(fields)
        assert all(fields[name] == getattr(event, name) for name in fields if name in Event.__struct_fields__)
    elif _finite(fields):
        assert not VALIDATOR.is_valid(fields), error
    else:  # NaN is no JSON
        assert error is not None
        assert error.reason in REASONS


@given(
    st.lists(st.tuples(st.none() | st.binary(max_size=30), st.none() | st.binary(max_size=60)), max_size=8)
)
def test_any_bytes_are_an_event_or_a_rejection(records: list[Record]) -> None:
    batch, users, items = decode(records)
    assert len(batch) + len(batch.rejected) == len(records)
    assert len(users) == len(items) == len(batch) == 0


ids = st.text(min_size=1, max_size=20)
events = st.builds(
    Event,
    event_id=ids,
    user_id=ids,
    item_id=ids,
    type=st.sampled_from(EVENT_TYPES),
    ts_ms=st.integers(0, 4_102_444_800_000),
    watch_ms=st.none() | st.integers(0, 604_800_000),
    duration_ms=st.none() | st.integers(0, 604_800_000),
    surface=st.none() | st.sampled_from(SURFACES),
    autoplay=st.none() | st.booleans(),
    gift_value=st.none() | st.floats(0, 1e9),
)


@given(st.lists(events, max_size=20))
def test_what_is_encoded_comes_back_in_columns(some: list[Event]) -> None:
    batch, users, items = decode([(event.user_id.encode(), encode_event(event)) for event in some])
    assert batch.rejected == []
    for place, event in enumerate(some):
        assert EVENTS.decode(encode_event(event)) == event
        assert batch.event_ids[place] == event.event_id
        assert users.id_of(int(batch.users[place])) == event.user_id
        assert items.id_of(int(batch.items[place])) == event.item_id
        assert EVENT_TYPES[batch.types[place]] == event.type
        assert batch.ts_ms[place] == event.ts_ms
        assert batch.watch_ms[place] == (-1 if event.watch_ms is None else event.watch_ms)
        assert batch.surfaces[place] == (-1 if event.surface is None else SURFACES.index(event.surface))


def test_new_ids_beyond_capacity_are_rejected_and_known_ones_go_on() -> None:
    events = [
        Event(event_id=f"e{i}", user_id=user, item_id=item, type="watch", ts_ms=1)
        for i, (user, item) in enumerate([("a", "x"), ("b", "y"), ("a", "z"), ("a", "y"), ("c", "x")])
    ]
    run = RecordRun(
        topic="t",
        partition=0,
        keys=[event.user_id.encode() for event in events],
        values=[encode_event(event) for event in events],
        offsets=np.arange(5),
        timestamps_ms=np.arange(5),
        next_offset=5,
    )
    batch = decode_events(run, users=Interner(capacity=2), items=Interner(capacity=2), hash_key=1)
    assert batch.event_ids.to_list() == ["e0", "e1", "e3"]
    assert batch.offsets.tolist() == [0, 1, 3]
    assert [(r.index, r.reason, r.field) for r in batch.rejected] == [
        (2, "capacity", "item_id"),
        (4, "capacity", "user_id"),
    ]
    assert "learner.max_items" in batch.rejected[0].message
