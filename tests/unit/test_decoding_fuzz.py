"""Seeded fuzz of the decoder: 100 000 messages, or FUZZ_MESSAGES of them (`make fuzz`: a million)."""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from schemas.decoding import decode_events
from schemas.interning import Interner
from schemas.jsonschema import json_schema
from schemas.records import EVENT_TYPES, SURFACES, Event
from schemas.runs import EventBatch, RecordRun
from tests.broken_events import BROKEN, Record
from tests.decoding_reference import assert_as_msgspec_says
from tests.schema_checker import compile_schema

SEED = 20240607
N = int(os.environ.get("FUZZ_MESSAGES", "100000"))
RUN = 500

FIELDS = Event.__struct_fields__
NUMBERS = [
    "0", "-0", "1", "-1", "1.0", "-1.0", "0.5", "1e3", "1E+2", "10e-1", "5e-1", "604800000",
    "604800001", "604800000.0", "4102444800000", "4102444800001", "4102444800000.0",
    "9007199254740993", "9223372036854775807", "9223372036854775808", "18446744073709551616",
    "1e15", "1e308", "1e309", "-1e309", "1e-400", "100000", "100001", "1e9", "1000000001",
    "2147483648", "NaN", "Infinity", "-Infinity", "01", "1.", ".5", "+1", "0x10", "1_000", "-",
    "123456789012345678901234567890", "0.1e10", "1e", "--1",
]  # fmt: skip
TEXTS = [
    '""', '"\\u0000"', '"\\ud83d\\ude00"', '"\\ud800"', '"\\udc00\\ud800"', '"\\u00e9"', '"é"',
    '"日本語"', '"😀"', '"\u2028"', '"\\/"', '"\\x"', '"1"', '"1.0"', '"null"', '"watch"', '"WATCH"',
    '"tv"', '"\U0010ffff"', '"\x7f"', '"\t"', f'"{"a" * 128}"', f'"{"a" * 129}"', f'"{"😀" * 128}"',
    f'"{"😀" * 129}"', f'"{"é" * 32}"', f'"{"a" * 33}"', f'"{"b" * 192}"', f'"{"b" * 193}"',
    f'"{chr(92)}u0041{"a" * 127}"', '"e\\u0301"', "'a'", '"unclosed',
]  # fmt: skip
OTHERS = [
    "null",
    "true",
    "false",
    "[]",
    "{}",
    "[1]",
    '{"a":1}',
    "[null,[[]]]",
    "nul",
    "True",
    "",
    "[1,]",
    "//",
]
JSON_VALUES = NUMBERS + TEXTS + OTHERS

Mutation = Callable[[random.Random, bytes], bytes]


def _event(rng: random.Random) -> dict[str, Any]:
    event: dict[str, Any] = {
        "event_id": f"e{rng.getrandbits(32):x}",
        "user_id": rng.choice(["u", "ü", "用户", "\U0001f600", "u\x00"]) + str(rng.randrange(1000)),
        "item_id": f"v{rng.randrange(1000)}",
        "type": rng.choice(EVENT_TYPES),
        "ts_ms": rng.randrange(4_102_444_800_001),
    }
    optional: dict[str, Any] = {
        "schema_version": 1,
        "watch_ms": rng.choice([None, 0, 5000, 604_800_000]),
        "duration_ms": rng.choice([None, 15_800, 15_800.0]),
        "surface": rng.choice([None, *SURFACES]),
        "device": rng.choice([None, "phone"]),
        "session_id": "s-1",
        "snapshot_id": "u.0.1",
        "position": rng.choice([0, 100_000]),
        "autoplay": rng.choice([None, True, False]),
        "gift_value": rng.choice([None, 0, 1e9, 0.1]),
        "unknown": rng.choice([None, [1, {"a": []}], "x"]),
    }
    event |= {name: value for name, value in optional.items() if rng.random() < 0.4}
    names = list(event)
    rng.shuffle(names)
    return {name: event[name] for name in names}


def _encoded(rng: random.Random, event: dict[str, Any]) -> bytes:
    if rng.random() < 0.5:
        return msgspec.json.encode(event)
    return json.dumps(event, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, 1])).encode()


def _flip_bits(rng: random.Random, value: bytes) -> bytes:
    changed = bytearray(value)
    for _ in range(rng.randint(1, 3)):
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _truncate(rng: random.Random, value: bytes) -> bytes:
    return value[: rng.randrange(len(value))]


def _insert(rng: random.Random, value: bytes) -> bytes:
    at = rng.randrange(len(value) + 1)
    return value[:at] + rng.randbytes(rng.randint(1, 4)) + value[at:]


def _delete(rng: random.Random, value: bytes) -> bytes:
    at = rng.randrange(len(value))
    return value[:at] + value[at + rng.randint(1, 8) :]


def _add_field(rng: random.Random, value: bytes) -> bytes:
    name = rng.choice([*FIELDS, "x", "Event_id", "ts_ms "])
    return value.rstrip()[:-1] + f',"{name}":{rng.choice(JSON_VALUES)}}}'.encode()


def _replace_field(rng: random.Random, value: bytes) -> bytes:
    fields: dict[str, msgspec.Raw] = msgspec.json.decode(value, type=dict[str, msgspec.Raw])
    chosen = rng.choice(list(fields))
    texts = {name: bytes(part) for name, part in fields.items()}
    if rng.random() < 0.15:
        del texts[chosen]
    elif rng.random() < 0.2:
        texts[chosen] = texts[rng.choice(list(fields))]  # types swapped
    else:
        texts[chosen] = rng.choice(JSON_VALUES).encode()
    return b"{" + b",".join(f'"{name}":'.encode() + part for name, part in texts.items()) + b"}"


def _nest(rng: random.Random, value: bytes) -> bytes:
    depth = rng.choice([1, 50, 126, 127, 128, 129, 500, 1000, 3000])
    opening, inner, closing = rng.choice([(b"[", b"", b"]"), (b'{"a":', b"1", b"}"), (b'["[",', b"[]", b"]")])
    name = rng.choice(["x", *FIELDS]).encode()
    return value.rstrip()[:-1] + b',"' + name + b'":' + opening * depth + inner + closing * depth + b"}"


def _wrap(rng: random.Random, value: bytes) -> bytes:
    before, after = rng.choice(
        [(b"[", b"]"), (b"", value), (b"\xef\xbb\xbf", b""), (b" \n", b"\r\n\t"), (b"\0", b"")]
    )
    return before + value + after


def _repeat(rng: random.Random, value: bytes) -> bytes:
    """A piece twice, or put elsewhere: brackets, quotes and digits where none belong."""
    start = rng.randrange(len(value))
    piece = value[start : start + rng.randint(1, 12)]
    at = rng.randrange(len(value) + 1)
    return value[:at] + piece + value[at:]


def _spread(rng: random.Random, value: bytes) -> bytes:
    """White space of any kind, and what only looks like it, behind punctuation."""
    blank = rng.choice([b" ", b"\t", b"\r\n", b"\n", b"\x0b", b"\x0c", b"\xc2\xa0", b"\x00"])
    mark = rng.choice([b",", b":", b"{", b"}", b'"'])
    return value.replace(mark, mark + blank, rng.randint(1, 3))


def _noise(rng: random.Random, _: bytes) -> bytes:
    if rng.random() < 0.5:
        return rng.randbytes(rng.randrange(200))
    return "".join(rng.choices('{}[]",:0123456789eE+-.truefalsn\\u "', k=rng.randrange(100))).encode()


def _json_only(rng: random.Random, _: bytes) -> bytes:
    return rng.choice(JSON_VALUES).encode()


MUTATIONS: list[tuple[Mutation, int]] = [
    (lambda _, value: value, 3),
    (_flip_bits, 4),
    (_truncate, 2),
    (_insert, 2),
    (_delete, 2),
    (_add_field, 5),
    (_replace_field, 8),
    (_nest, 1),
    (_repeat, 3),
    (_spread, 2),
    (_wrap, 1),
    (_noise, 2),
    (_json_only, 1),
]


def _messages(rng: random.Random, n: int) -> list[Record]:
    # The too large kind costs a megabyte each; its unit test is enough.
    kinds = [make for _, make, reason, _ in BROKEN if reason != "message_too_large"]
    chosen = rng.choices([one for one, _ in MUTATIONS], [weight for _, weight in MUTATIONS], k=n)
    records: list[Record] = []
    for number, mutation in enumerate(chosen):
        if rng.random() < 0.02:
            records.append(rng.choice(kinds)(number))
            continue
        event = _event(rng)
        value = mutation(rng, _encoded(rng, event))
        key: bytes | None = event["user_id"].encode()
        if rng.random() < 0.01:  # one message in two records: the second must not complete the first
            cut = rng.randrange(len(value) + 1)
            records += [(key, value[:cut]), (key, value[cut:])]
            continue
        if rng.random() < 0.01:
            key = rng.choice([None, b"", b"other", rng.randbytes(4)])
        records.append((key, value))
    return records[:n]


class _DuplicateError(Exception):
    pass


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _DuplicateError
    return fields


CHECK = compile_schema(json_schema("event"))
VALIDATOR = Draft202012Validator(json_schema("event"))
# Reasons that say the value is JSON, but not what the schema allows.
OF_THE_SCHEMA = {"not_an_object", "missing_field", "unsupported_version", "unknown_type", "bad_value"}


def _check_accepted(
    batch: EventBatch, run: RecordRun, users: Interner, items: Interner, sample: set[int]
) -> None:
    for place, row in enumerate(batch.rows.tolist()):
        value = run.values[row]
        assert value is not None
        parsed = json.loads(value.decode())
        assert CHECK(parsed), value
        if row in sample:
            VALIDATOR.validate(parsed)
        assert run.keys[row] == parsed["user_id"].encode()
        assert batch.event_ids[place] == parsed["event_id"]
        assert users.id_of(int(batch.users[place])) == parsed["user_id"]
        assert items.id_of(int(batch.items[place])) == parsed["item_id"]
        assert EVENT_TYPES[batch.types[place]] == parsed["type"]
        assert batch.ts_ms[place] == parsed["ts_ms"]
        watch_ms = parsed.get("watch_ms")
        assert batch.watch_ms[place] == (-1 if watch_ms is None else watch_ms)


def _check_rejected(batch: EventBatch, run: RecordRun, sample: set[int]) -> None:
    """A rejection by the schema's reasons is one by the schema, but for what it cannot say."""
    for rejected in batch.rejected:
        str(rejected).encode()
        value = run.values[rejected.index]
        if rejected.reason not in OF_THE_SCHEMA or "nested" in rejected.message:
            continue
        assert value is not None
        try:
            parsed = json.loads(value.decode(), object_pairs_hook=_no_duplicates)
        except (_DuplicateError, ValueError):
            continue  # a fault in front of another one
        assert not CHECK(parsed), (rejected, value)
        if rejected.index in sample:
            assert not VALIDATOR.is_valid(parsed)
        if rejected.field is not None:
            assert rejected.field in FIELDS
            assert rejected.message.startswith(f"$.{rejected.field}")


@pytest.mark.fuzz
def test_nothing_crashes_and_nothing_is_accepted_that_the_schema_rejects() -> None:
    rng = random.Random(SEED)
    counts: Counter[str] = Counter()
    for start in range(0, N, RUN):
        records = _messages(rng, min(RUN, N - start))
        n = len(records)
        run = RecordRun(
            topic="t",
            partition=0,
            keys=[key for key, _ in records],
            values=[value for _, value in records],
            offsets=np.arange(n, dtype=np.int64),
            timestamps_ms=np.zeros(n, dtype=np.int64),
            next_offset=n,
        )
        users, items = Interner(), Interner()
        batch = decode_events(run, users=users, items=items, hash_key=start)
        assert_as_msgspec_says(batch, run, users, items, start)
        accounted = sorted([*batch.rows.tolist(), *(one.index for one in batch.rejected)])
        assert accounted == list(range(n))
        assert set(batch.users.tolist()) == set(range(len(users)))  # nothing of a rejected one is interned
        assert set(batch.items.tolist()) == set(range(len(items)))
        sample = set(rng.sample(range(n), min(n, 10)))
        _check_accepted(batch, run, users, items, sample)
        _check_rejected(batch, run, sample)
        counts["accepted"] += len(batch)
        counts.update(one.reason for one in batch.rejected)
    assert sum(counts.values()) == N
    assert N / 5 < counts["accepted"] < N * 4 / 5, counts
    reached = {"null_value", "not_utf8", "not_json", "key_mismatch"} | OF_THE_SCHEMA
    assert reached <= set(counts), counts
