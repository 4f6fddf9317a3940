"""The compiled writer against msgspec: what it writes decodes into the structs that msgspec would write."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.interning import Interner
from schemas.records import Knows, ModelRef, Reason, RecommendedItem, Snapshot
from schemas.texts import texts_of
from serving.ranking import EMBEDDING, POPULARITY, SOURCES, TRANSITIONS, Ranked
from serving.snapshots import FALLBACK_COLD_USER, FALLBACK_STALE_MODEL, IdTable, SnapshotEncoder

decode = msgspec.json.Decoder(Snapshot).decode

FALLBACKS = ("none", "cold_user", "stale_model")
# Anything a behaviour event can name: quotes, backslashes, control characters, all of Unicode.
IDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=128)
NASTY = [
    '"',
    "\\",
    '\\"',
    "\x00",
    "\x1f\x7f",
    "\n\t",
    "…",
    "視頻",
    "🎬" * 128,
    "</script>",
    "a" * 128,
    '"]}',
    "\u2028",
]


def a_reason(source: int, why: str | None) -> Reason:
    if source == TRANSITIONS:
        return Reason(kind="because_you_watched", item_id=why)
    return Reason(kind="matches_your_taste" if source == EMBEDDING else "popular")


def plain(
    names: list[str], items: list[str], ranked: Ranked, first_sequence: int, columns: dict[str, object]
) -> list[Snapshot]:
    """The same snapshots, built from structs."""
    event_ids = [text for part in columns["event_ids"] for text in part.to_list()]  # type: ignore[attr-defined]
    snapshots = []
    for i, name in enumerate(names):
        listed = [
            RecommendedItem(
                item_id=items[item],
                score=min(max(int(np.float64(relevance) * 10_000 + 0.5), 1), 9_999) / 10_000,
                source=SOURCES[source],
                reasons=[a_reason(source, items[why] if why >= 0 else None)],
            )
            for item, relevance, source, why in zip(
                ranked.items[i].tolist(),
                ranked.relevance[i],
                ranked.sources[i].tolist(),
                ranked.reasons[i].tolist(),
                strict=True,
            )
            if item >= 0
        ]
        snapshots.append(
            Snapshot(
                snapshot_id=f"{name}.7.{first_sequence + i}",
                user_id=name,
                generated_at_ms=1_650_900_000_480,
                ttl_ms=3_600_000,
                knows=Knows(
                    partition=7,
                    offset=int(columns["offsets"][i]),  # type: ignore[index]
                    event_id=event_ids[i],
                    ts_ms=int(columns["ts_ms"][i]),  # type: ignore[index]
                ),
                model=ModelRef(name='ma"in', epoch=3, sequence=9_120),
                fallback=FALLBACKS[int(columns["fallbacks"][i])],  # type: ignore[index, arg-type]
                items=listed,
            )
        )
    return snapshots


def some_lists(rng: np.random.Generator, n_users: int, k: int, n_items: int) -> Ranked:
    items = rng.integers(0, n_items, (n_users, k)).astype(np.int32)
    for row in items:  # lists that ran out of candidates
        row[int(rng.integers(0, k + 1)) :] = -1
    sources = rng.choice([TRANSITIONS, EMBEDDING, POPULARITY], (n_users, k)).astype(np.int8)
    reasons = np.where(sources == TRANSITIONS, rng.integers(0, n_items, (n_users, k)), -1).astype(np.int32)
    relevance = rng.random((n_users, k)).astype(np.float32)
    relevance.flat[:3] = (0.0, 1.0, 0.99999)[: relevance.size]
    return Ranked(
        items=items, scores=np.zeros_like(relevance), relevance=relevance, sources=sources, reasons=reasons
    )


def columns_of(rng: np.random.Generator, event_ids: list[str]) -> dict[str, object]:
    n = len(event_ids)
    return {
        "offsets": rng.integers(0, 2**62, n),
        "event_ids": [texts_of(event_ids[:1]), texts_of(event_ids[1:])],
        "ts_ms": rng.integers(0, 4_102_444_800_000, n),
        "fallbacks": rng.integers(0, 3, n).astype(np.int8),
    }


def encoded(
    encoder: SnapshotEncoder, names: list[str], ranked: Ranked, columns: dict[str, object]
) -> list[bytes]:
    parts = [texts_of(names[:2]), texts_of(names[2:])]
    keys, values = encoder.encode(
        parts,
        ranked,
        partition=7,
        generated_at_ms=1_650_900_000_480,
        epoch=3,
        sequence=9_120,
        **columns,  # type: ignore[arg-type]
    )
    assert keys == [name.encode() for name in names]
    return values


@settings(deadline=None)  # the first call compiles
@given(
    names=st.lists(IDS, min_size=1, max_size=5),
    items=st.lists(IDS, min_size=1, max_size=8, unique=True),
    event_ids=st.lists(IDS, min_size=5, max_size=5),
    k=st.integers(1, 6),
    seed=st.integers(0, 2**32 - 1),
)
def test_bytes_decode_to_what_msgspec_would_write(
    names: list[str], items: list[str], event_ids: list[str], k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    ranked = some_lists(rng, len(names), k, len(items))
    columns = columns_of(rng, event_ids[: len(names)])
    encoder = SnapshotEncoder(Interner(items), model_name='ma"in', ttl_ms=3_600_000, first_sequence=seed)
    written = encoded(encoder, names, ranked, columns)
    assert [decode(value) for value in written] == plain(names, items, ranked, seed, columns)


def test_nasty_ids_and_every_fallback() -> None:
    rng = np.random.default_rng(1)
    ranked = some_lists(rng, len(NASTY), 20, len(NASTY))
    columns = columns_of(rng, NASTY)
    encoder = SnapshotEncoder(Interner(NASTY), model_name='ma"in', ttl_ms=3_600_000)
    written = encoded(encoder, NASTY, ranked, columns)
    assert [decode(value) for value in written] == plain(NASTY, NASTY, ranked, 0, columns)


def test_field_order_and_form_are_those_of_the_contract() -> None:
    ranked = Ranked(
        items=np.array([[1, 0, 2, -1]], dtype=np.int32),
        scores=np.zeros((1, 4), dtype=np.float32),
        relevance=np.array([[0.83, 0.0, 1.0, 0.5]], dtype=np.float32),
        sources=np.array([[TRANSITIONS, EMBEDDING, POPULARITY, POPULARITY]], dtype=np.int8),
        reasons=np.array([[2, -1, -1, -1]], dtype=np.int32),
    )
    encoder = SnapshotEncoder(
        Interner(["v1", "v88", "v1001"]), model_name="main", ttl_ms=60, first_sequence=18_734
    )
    (value,) = encoder.encode(
        [texts_of(["u42"])],
        ranked,
        partition=0,
        offsets=np.array([5], dtype=np.int64),
        event_ids=[texts_of(["e-7f"])],
        ts_ms=np.array([9], dtype=np.int64),
        generated_at_ms=10,
        epoch=3,
        sequence=7,
        fallbacks=np.array([FALLBACK_COLD_USER], dtype=np.int8),
    ).values
    assert value == (
        b'{"schema_version":1,"snapshot_id":"u42.0.18734","user_id":"u42","generated_at_ms":10,"ttl_ms":60,'
        b'"knows":{"partition":0,"offset":5,"event_id":"e-7f","ts_ms":9},'
        b'"model":{"name":"main","epoch":3,"sequence":7},"fallback":"cold_user","items":['
        b'{"item_id":"v88","score":0.8300,"source":"transitions","propensity":1.0,'
        b'"reasons":[{"kind":"because_you_watched","item_id":"v1001"}]},'
        b'{"item_id":"v1","score":0.0001,"source":"embedding","propensity":1.0,'
        b'"reasons":[{"kind":"matches_your_taste"}]},'
        b'{"item_id":"v1001","score":0.9999,"source":"popularity","propensity":1.0,'
        b'"reasons":[{"kind":"popular"}]}]}'
    )


def test_publish_sequence_goes_on_over_calls_and_new_items_are_taken_in() -> None:
    items = Interner(["a"])
    encoder = SnapshotEncoder(items, model_name='ma"in', ttl_ms=1, first_sequence=100)
    rng = np.random.default_rng(2)
    first = encoded(encoder, ["u"] * 3, some_lists(rng, 3, 2, 1), columns_of(rng, ["e"] * 3))
    for n in range(5_000):  # grows the table several times
        items.get(f"item {n}")
    encoder.sync()
    ranked = some_lists(rng, 2, 9, len(items))
    second = encoded(encoder, ["u", "w"], ranked, columns_of(rng, ["e", "e"]))
    assert [decode(value).snapshot_id for value in first] == ["u.7.100", "u.7.101", "u.7.102"]
    snapshots = [decode(value) for value in second]
    assert [snapshot.snapshot_id for snapshot in snapshots] == ["u.7.103", "w.7.104"]
    listed = [[item.item_id for item in snapshot.items] for snapshot in snapshots]
    assert listed == [[items.id_of(slot) for slot in row if slot >= 0] for row in ranked.items.tolist()]


def test_earlier_bytes_are_not_written_over() -> None:
    rng = np.random.default_rng(3)
    encoder = SnapshotEncoder(Interner(["a", "b"]), model_name="m", ttl_ms=1)
    first = encoded(encoder, ["u"], some_lists(rng, 1, 2, 2), columns_of(rng, ["e"]))
    kept = bytes(bytearray(first[0]))
    encoded(encoder, ["someone else"], some_lists(rng, 1, 2, 2), columns_of(rng, ["e2"]))
    assert first[0] == kept


def test_partitions_may_differ_by_user() -> None:
    rng = np.random.default_rng(7)
    encoder = SnapshotEncoder(Interner(["a"]), model_name="m", ttl_ms=1)
    values = encoder.encode(
        [texts_of(["u", "w"])],
        some_lists(rng, 2, 2, 1),
        partition=np.array([3, 12], dtype=np.int32),
        generated_at_ms=1,
        epoch=0,
        sequence=0,
        **columns_of(rng, ["e", "f"]),  # type: ignore[arg-type]
    ).values
    snapshots = [decode(value) for value in values]
    assert [snapshot.knows.partition for snapshot in snapshots] == [3, 12]
    assert [snapshot.snapshot_id for snapshot in snapshots] == ["u.3.0", "w.12.1"]


def test_a_list_says_which_variant_made_it_where_there_are_such() -> None:
    rng = np.random.default_rng(8)
    encoder = SnapshotEncoder(Interner(["a"]), model_name="m", ttl_ms=1, variants=["plain", "more-likes"])
    columns = columns_of(rng, ["e"] * 3) | {"variants": np.array([1, -1, 0], dtype=np.int8)}
    columns["fallbacks"] = np.array([0, 1, 2], dtype=np.int8)
    values = encoded(encoder, ["u", "v", "w"], some_lists(rng, 3, 2, 1), columns)
    snapshots = [decode(value) for value in values]
    assert [snapshot.model.variant for snapshot in snapshots] == ["more-likes", None, "plain"]
    assert [snapshot.fallback for snapshot in snapshots] == ["none", "cold_user", "stale_model"]
    assert b'"sequence":9120,"variant":"more-likes"},"fallback"' in values[0]
    assert b'"sequence":9120},"fallback"' in values[1]
    with pytest.raises(ValueError, match="unknown variant"):
        encoded(
            encoder, ["u"], some_lists(rng, 1, 2, 1), columns_of(rng, ["e"]) | {"variants": np.array([2])}
        )


def test_no_users_no_snapshots() -> None:
    encoder = SnapshotEncoder(Interner(["a"]), model_name="m", ttl_ms=1)
    rng = np.random.default_rng(4)
    assert encoded(encoder, [], some_lists(rng, 0, 2, 1), columns_of(rng, [])) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"offsets": np.array([-1], dtype=np.int64)}, "without an applied event"),
        ({"ts_ms": np.array([-1], dtype=np.int64)}, "without an applied event"),
        ({"event_ids": [texts_of(["e", "f"])]}, "rows for 1 users"),
        ({"fallbacks": np.array([FALLBACK_STALE_MODEL + 1], dtype=np.int8)}, "unknown fallback"),
    ],
)
def test_columns_out_of_range_are_refused(change: dict[str, object], message: str) -> None:
    rng = np.random.default_rng(5)
    encoder = SnapshotEncoder(Interner(["a"]), model_name="m", ttl_ms=1)
    with pytest.raises(ValueError, match=message):
        encoded(encoder, ["u"], some_lists(rng, 1, 2, 1), columns_of(rng, ["e"]) | change)


def test_items_that_were_never_interned_are_refused() -> None:
    rng = np.random.default_rng(6)
    encoder = SnapshotEncoder(Interner(["a"]), model_name="m", ttl_ms=1)
    ranked = some_lists(rng, 1, 2, 1)
    ranked.items[0, 0] = 1
    with pytest.raises(ValueError, match="none of the 1 interned"):
        encoded(encoder, ["u"], ranked, columns_of(rng, ["e"]))


def test_id_table_holds_ids_as_json_has_them() -> None:
    table = IdTable(Interner(NASTY))
    fragments = table.sync()
    for slot, identifier in enumerate(NASTY):
        fragment = fragments.data[fragments.ends[slot] : fragments.ends[slot + 1]].tobytes()
        assert b'"' + fragment + b'"' == msgspec.json.encode(identifier)
    assert table.longest == max(len(msgspec.json.encode(identifier)) - 2 for identifier in NASTY)
