"""Broken behaviour messages of many kinds, each with the reason and field it must be rejected for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from schemas.topics import MAX_MESSAGE_BYTES

Record = tuple[bytes | None, bytes | None]
Broken = tuple[str, Callable[[int], Record], str, str | None]


def valid_fields(number: int) -> dict[str, Any]:
    """Fields of a valid event that is unlike that of any other number."""
    return {
        "event_id": f"broken-{number}",
        "user_id": f"u{number}",
        "item_id": f"v{number % 50}",
        "type": "watch",
        "ts_ms": 1_650_900_000_000 + number,
        "watch_ms": 1_000,
        "duration_ms": 15_000,
        "surface": "short_video",
    }


def _key(number: int) -> bytes:
    return f"u{number}".encode()


def _with(**changes: Any) -> Callable[[int], Record]:
    return lambda number: (_key(number), msgspec.json.encode(valid_fields(number) | changes))


def _without(field: str) -> Callable[[int], Record]:
    return lambda number: (
        _key(number),
        msgspec.json.encode({name: value for name, value in valid_fields(number).items() if name != field}),
    )


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[int], Record]:
    return lambda number: (_key(number), change(msgspec.json.encode(valid_fields(number))))


def _replaced(old: bytes, new: bytes) -> Callable[[int], Record]:
    def change(value: bytes) -> bytes:
        assert value.count(old) == 1
        return value.replace(old, new)

    return _bytes(change)


def _key_is(key: Callable[[int], bytes | None]) -> Callable[[int], Record]:
    return lambda number: (key(number), msgspec.json.encode(valid_fields(number)))


# The first 20 span all reasons of the decoder. The too large one compresses well: brokers limit
# the compressed batch, so it passes one, from a producer whose own limit is raised.
BROKEN: list[Broken] = [
    ("null value", lambda number: (_key(number), None), "null_value", None),
    ("too large", _bytes(lambda value: value + b" " * MAX_MESSAGE_BYTES), "message_too_large", None),
    ("latin-1 text", _replaced(b'"broken-', b'"caf\xe9-'), "not_utf8", None),
    ("truncated", _bytes(lambda value: value[: len(value) // 2]), "not_json", None),
    ("an array", _bytes(lambda value: b"[" + value + b"]"), "not_an_object", None),
    ("no user_id", _without("user_id"), "missing_field", "user_id"),
    ("no ts_ms", _without("ts_ms"), "missing_field", "ts_ms"),
    ("schema_version 2", _with(schema_version=2), "unsupported_version", "schema_version"),
    ("unknown type", _with(type="teleport"), "unknown_type", "type"),
    ("negative watch_ms", _with(watch_ms=-1), "bad_value", "watch_ms"),
    ("watch_ms of a month", _with(watch_ms=30 * 86_400_000), "bad_value", "watch_ms"),
    ("ts_ms as text", _with(ts_ms="1650900000000"), "bad_value", "ts_ms"),
    ("ts_ms with a fraction", _with(ts_ms=1650900000000.5), "bad_value", "ts_ms"),
    ("empty item_id", _with(item_id=""), "bad_value", "item_id"),
    ("event_id too long", _with(event_id="e" * 129), "bad_value", "event_id"),
    ("unknown surface", _with(surface="billboard"), "bad_value", "surface"),
    ("NaN", _replaced(b'"watch_ms":1000', b'"watch_ms":NaN'), "not_json", None),
    (
        "nested too deep",
        _bytes(lambda v: v[:-1] + b',"x":' + b"[" * 5000 + b"]" * 5000 + b"}"),
        "bad_value",
        None,
    ),
    ("another user's key", _key_is(lambda number: b"x" + _key(number)), "key_mismatch", "user_id"),
    ("null key", _key_is(lambda number: None), "key_mismatch", "user_id"),
    ("empty value", lambda number: (_key(number), b""), "not_json", None),
    ("not JSON at all", lambda number: (_key(number), b"hello"), "not_json", None),
    ("byte order mark", _bytes(lambda value: b"\xef\xbb\xbf" + value), "not_json", None),
    ("two values", _bytes(lambda value: value + value), "not_json", None),
    ("trailing comma", _bytes(lambda value: value[:-1] + b",}"), "not_json", None),
    ("JSON null", lambda number: (_key(number), b"null"), "not_an_object", None),
    ("lone surrogate", _replaced(b'"broken-', b'"\\ud800-'), "not_json", None),
    ("surrogate as UTF-8", _replaced(b'"broken-', b'"\xed\xa0\x80-'), "not_utf8", None),
    ("bad UTF-8 where unknown", _bytes(lambda v: v[:-1] + b',"x":"\xff"}'), "not_utf8", None),
    ("version before the rest", _with(schema_version=7, type=None), "unsupported_version", "schema_version"),
    ("version as text", _with(schema_version="1"), "bad_value", "schema_version"),
    ("type as number", _with(type=3), "bad_value", "type"),
    ("autoplay as number", _with(autoplay=1), "bad_value", "autoplay"),
    ("infinite gift", _bytes(lambda value: value[:-1] + b',"gift_value":1e999}'), "bad_value", "gift_value"),
    ("ts_ms after 2100", _with(ts_ms=4_102_444_800_001), "bad_value", "ts_ms"),
    (
        "ts_ms too long a number",
        _replaced(b'"watch_ms":1000', b'"watch_ms":' + b"9" * 400),
        "bad_value",
        "watch_ms",
    ),
    ("empty user_id", _with(user_id=""), "bad_value", "user_id"),
]
