"""The scanner itself: sure of what is plain, in any order of fields, and of nothing that is not."""

from __future__ import annotations

import json
import random
from typing import Any, Literal

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from schemas.decoding import scan_run
from schemas.records import EVENT_TYPES, SURFACES
from schemas.runs import RecordRun
from schemas.scanner_fields import scan_fields
from tests.broken_events import valid_fields

FULL: dict[str, Any] = valid_fields(1) | {
    "schema_version": 1,
    "device": "phone",
    "session_id": "s-9",
    "snapshot_id": "u1.0.18720",
    "position": 3,
    "autoplay": True,
    "gift_value": 0.25,
    "unknown": {"a": [1, -2.5, "x", None, {}, [], {"b": [[True]]}], "c": False},
}
# Plain, so not doubted: no control characters, quotes and backslashes, which are written as escapes.
PLAIN = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\'), min_size=1, max_size=30
)


def run_of(values: list[bytes], keys: list[bytes] | None = None) -> RecordRun:
    n = len(values)
    return RecordRun(
        topic="t",
        partition=0,
        keys=[b"u1"] * n if keys is None else keys,
        values=values,
        offsets=np.arange(n, dtype=np.int64),
        timestamps_ms=np.zeros(n, dtype=np.int64),
        next_offset=n,
    )


def sure(*values: bytes) -> list[bool]:
    answers: list[bool] = scan_run(run_of(list(values))).columns.sure.tolist()
    return answers


def with_field(name: str, text: str) -> bytes:
    rest = {key: value for key, value in valid_fields(1).items() if key != name}
    return msgspec.json.encode(rest)[:-1] + f',"{name}":{text}}}'.encode()


@settings(deadline=None)
@given(
    st.permutations(list(FULL)),
    st.sets(st.sampled_from(sorted(set(FULL) - {"event_id", "user_id", "item_id", "type", "ts_ms"}))),
    st.sampled_from([None, 0, 1]),
    PLAIN,
)
def test_plain_messages_are_beyond_doubt_in_any_order(
    names: list[str], without: set[str], indent: int | None, text: str
) -> None:
    plain = FULL | {"event_id": text, "session_id": text}
    event = {name: plain[name] for name in names if name not in without}
    values = [msgspec.json.encode(event), json.dumps(event, indent=indent, ensure_ascii=False).encode()]
    assert sure(*values, msgspec.json.encode(FULL), *values) == [True] * 5


@pytest.mark.parametrize("name", ["watch_ms", "duration_ms", "surface", "device", "autoplay", "gift_value"])
def test_null_is_plain_where_it_is_allowed(name: str) -> None:
    assert sure(with_field(name, "null")) == [True]
    assert sure(with_field(name, "nul"), with_field(name, "nill")) == [False, False]


def test_escapes_are_plain_where_the_text_is_not_kept() -> None:
    escapes = '"' + r"\u624b\uD83D\uDE00\"\\\/\b\f\n\r\t" + "d" * 22 + '"'
    assert sure(with_field("device", escapes), with_field("unknown", f"[{escapes}]")) == [True, True]
    assert sure(with_field("device", escapes[:-1] + 'd"')) == [False]


@pytest.mark.parametrize("name", EVENT_TYPES)
def test_every_type_is_known(name: str) -> None:
    assert sure(with_field("type", f'"{name}"'), with_field("type", f'"{name}s"')) == [True, False]


@pytest.mark.parametrize("name", SURFACES)
def test_every_surface_is_known(name: str) -> None:
    assert sure(with_field("surface", f'"{name}"'), with_field("surface", f'"{name[:-1]}"')) == [True, False]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ts_ms", "null"),
        ("ts_ms", "4102444800001"),
        ("ts_ms", "1e3"),
        ("ts_ms", "-1"),
        ("ts_ms", "-0"),
        ("ts_ms", "01"),
        ("ts_ms", "1.5"),
        ("ts_ms", "1."),
        ("ts_ms", '"1"'),
        ("ts_ms", ""),
        ("ts_ms", "1234567890123456"),
        ("watch_ms", "604800001"),
        ("schema_version", "2"),
        ("schema_version", "null"),
        ("item_id", '""'),
        ("item_id", '"' + "é" * 129 + '"'),
        ("item_id", '"\\u0041"'),
        ("item_id", '"a\tb"'),
        ("device", '"\\ud83d"'),
        ("device", '"\\ude00\\ud83d"'),
        ("device", '"\\ud83d\\u0041"'),
        ("device", '"\\u00g0"'),
        ("device", '"\\x"'),
        ("device", '"' + "\\u00e9" * 33 + '"'),
        ("unkno\\u0077n", "1"),
        ("item_id", '"unclosed'),
        ("device", '"' + "d" * 33 + '"'),
        ("autoplay", "1"),
        ("autoplay", "tru"),
        ("gift_value", "-1"),
        ("gift_value", "1000000000.1"),
        ("gift_value", "1e3"),
        ("unknown", "[1,]"),
        ("unknown", "[1}"),
        ("unknown", '{"a"}'),
        ("unknown", '{"a":1,}'),
        ("unknown", '{a:1}'),
        ("unknown", "[" * 33 + "]" * 33),
        ("unknown", "1e999"),
        ("unknown", "NaN"),
        ("unknown", "2 3"),
    ],
)  # fmt: skip
def test_what_is_wrong_or_seldom_is_doubted(name: str, text: str) -> None:
    plain = with_field("unknown", "[]")
    assert sure(plain, with_field(name, text), plain) == [True, False, True]


@pytest.mark.parametrize(
    "text",
    [b"\xff", b"\xc0\x80", b"\xe0\x80\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xe2\x82", b"\x80"],
)
def test_what_is_not_utf8_is_doubted_in_names_and_values(text: bytes) -> None:
    one = with_field("unknown", '"?"')
    assert sure(one, one.replace(b"?", text), one.replace(b"unknown", text)) == [True, False, False]


def test_a_field_that_stands_twice_is_doubted_and_a_missing_one_too() -> None:
    one = msgspec.json.encode(valid_fields(1))
    assert not any(sure(one[:-1] + b',"ts_ms":1}', one.replace(b'"ts_ms"', b'"ts_mz"'), b"{}"))


def test_a_message_does_not_go_on_in_the_next() -> None:
    one = msgspec.json.encode(FULL)
    for cut in range(len(one) + 1):
        first, second = sure(one[:cut], one[cut:])
        assert (first, second) == (cut == len(one), cut == 0)
    assert sure(one[:-1], b"} ", one) == [False, False, True]
    assert sure(one + b" \n", b" \t" + one, b"  ", b"") == [True, True, False, False]


def test_the_key_must_be_the_user() -> None:
    one = msgspec.json.encode(valid_fields(1))
    columns = scan_run(run_of([one] * 4, [b"u1", b"u2", b"u", b""])).columns
    assert columns.sure.tolist() == [True, False, False, False]


def test_random_bytes_never_lead_out_of_the_buffer() -> None:
    rng = random.Random(1)
    for _ in range(300):
        texts = [rng.choice([b'{"', b'"', b"\\", b"[", b"{", b"1", b"\xf0", b"tru", b" "]) for _ in range(9)]
        assert not any(sure(b"".join(texts), b"".join(texts[:4])))


class _Odd(Struct):
    a: list[int]


class _Open(Struct):
    a: int


class _Enum(Struct):
    a: Literal["x", "y"]


class _Closed(Struct, forbid_unknown_fields=True):
    a: bool


class _Long(Struct):
    a_name_of_many_letters: bool


class _Text(Struct):
    a: str | None = None


@pytest.mark.parametrize(
    ("struct", "tables"),
    [
        (_Odd, {}),
        (_Open, {}),
        (_Enum, {"codes": {"a": ["x", "z"]}}),
        (_Enum, {}),
        (_Closed, {}),
        (_Long, {}),
        (_Text, {"texts": ["a"]}),
        (_Text, {"numbers": ["b"]}),
    ],
)
def test_structs_that_it_cannot_read_are_refused(struct: type[Struct], tables: dict[str, Any]) -> None:
    with pytest.raises(TypeError):
        scan_fields(struct, **({"texts": [], "numbers": [], "codes": {}} | tables))
