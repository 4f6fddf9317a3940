from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.checks import (
    EVENTS,
    all_clean,
    decode_erasure,
    decode_item,
    screened,
    withdrawn_item_id,
)
from schemas.codec import decode_event, decode_snapshot, encode_erasure, encode_event, encode_item
from schemas.errors import ContractError
from schemas.jsonschema import EXAMPLES
from schemas.records import ContentVector, Erasure, Event, Item, MediaRefs


def fails(call: Any, *args: Any) -> tuple[str, str | None]:
    with pytest.raises(ContractError) as caught:
        call(*args)
    return caught.value.reason, caught.value.field


def item(**fields: Any) -> bytes:
    return msgspec.json.encode(EXAMPLES["item"][0] | fields)


def test_item() -> None:
    decoded = decode_item(item(duration_ms=3.0), b"v1001")
    assert decoded.duration_ms == 3
    assert decoded.media == MediaRefs(**EXAMPLES["item"][0]["media"])
    assert decoded.vectors == [ContentVector(modality="image", model="image-encoder-1", values=[0.1])]
    assert decode_item(encode_item(decoded), b"v1001") == decoded
    assert decode_item(b'{"item_id":"i"}', b"i") == Item(item_id="i")


@pytest.mark.parametrize(
    ("changes", "reason", "field", "path"),
    [
        (
            {"vectors": [{"modality": "image", "values": [1]}]},
            "missing_field",
            "vectors",
            "$.vectors[0].model",
        ),
        (
            {"vectors": [{"modality": "smell", "model": "m", "values": [1]}]},
            "bad_value",
            "vectors",
            "$.vectors",
        ),
        (
            {"vectors": [{"modality": "image", "model": "m", "values": []}]},
            "bad_value",
            "vectors",
            "$.vectors",
        ),
        ({"tags": ["a", 5]}, "bad_value", "tags", "$.tags"),
        ({"tags": ["a"] * 65}, "bad_value", "tags", "$.tags"),
        ({"media": {"cover": ""}}, "bad_value", "media", "$.media.cover"),
        ({"item_id": ""}, "bad_value", "item_id", "$.item_id"),
        ({"schema_version": 0}, "unsupported_version", "schema_version", "$.schema_version"),
        ({"item_id": "other"}, "key_mismatch", "item_id", "$.item_id"),
    ],
)
def test_bad_items(changes: dict[str, Any], reason: str, field: str, path: str) -> None:
    with pytest.raises(ContractError) as caught:
        decode_item(item(**changes), b"v1001")
    assert (caught.value.reason, caught.value.field) == (reason, field)
    assert str(caught.value).startswith(path)


def test_items_that_are_null_or_keyless() -> None:
    assert fails(decode_item, None, b"v1001") == ("null_value", None)
    assert fails(decode_item, item(), None) == ("key_mismatch", "item_id")


def test_withdrawn() -> None:
    assert withdrawn_item_id("é".encode()) == "é"
    for key in (None, b"", b"\xff", b"x" * 129):
        assert fails(withdrawn_item_id, key) == ("key_mismatch", "item_id")


def test_erasure() -> None:
    request = Erasure(kind="request", request_id="r", user_id="u", ts_ms=1)
    assert decode_erasure(encode_erasure(request), b"u") == request
    assert fails(decode_erasure, encode_erasure(request), b"v") == ("key_mismatch", "user_id")
    assert fails(decode_erasure, None, b"u") == ("null_value", None)
    bad = b'{"kind":"forget","request_id":"r","user_id":"u","ts_ms":1}'
    assert fails(decode_erasure, bad, b"u") == ("bad_value", "kind")


def test_events_and_snapshots_for_clients() -> None:
    event = Event(event_id="e", user_id="u", item_id="i", type="like", ts_ms=5)
    assert decode_event(encode_event(event)) == event
    assert fails(decode_event, b"{}") == ("missing_field", "event_id")
    assert fails(decode_snapshot, b"[]") == ("not_an_object", None)
    snapshot = EXAMPLES["snapshot"][0] | {"items": [{"item_id": "v", "score": 2, "source": "popularity"}]}
    assert fails(decode_snapshot, msgspec.json.encode(snapshot)) == ("bad_value", "items")


awkward = st.sampled_from(
    [
        None,
        b"",
        b"\xff",
        b"\xc3",
        b"\xa9",
        "é".encode(),
        b"a" * 300,
        b"[" * 300,
        b'"' + b"[" * 300 + b'"',
        b"[]" * 200,
    ]
)


@given(st.lists(awkward | st.binary(max_size=6), max_size=6))
def test_clean_runs_have_no_message_that_would_be_screened_out(values: list[bytes | None]) -> None:
    def passes(value: bytes | None) -> bool:
        try:
            screened(value)
        except ContractError:
            return False
        return True

    if all_clean(values):
        assert all(map(passes, values))
    else:
        suspicious = [v for v in values if not passes(v) or (v is not None and v.count(b"[") > 128)]
        assert suspicious


def test_quick_and_careful_agree() -> None:
    value = msgspec.json.encode(EXAMPLES["event"][0])
    assert EVENTS.quick(value) == EVENTS.decode(value)
