"""The reader's local view: order, tombstones, bounds and subscriptions, without a broker."""

from __future__ import annotations

import threading

import msgspec
import pytest

from schemas.records import Knows, ModelRef, RecommendedItem, Snapshot
from serving.reader_scan import partition_of
from serving.reader_view import SnapshotView, Subscription


def snapshot(user_id: str, offset: int, *, sequence: int = 0, partition: int = 0) -> Snapshot:
    return Snapshot(
        snapshot_id=f"{user_id}.{partition}.{sequence}",
        user_id=user_id,
        generated_at_ms=1_650_900_000_480,
        ttl_ms=3_600_000,
        knows=Knows(partition=partition, offset=offset, event_id=f"e-{offset}", ts_ms=1_650_900_000_123),
        model=ModelRef(name="main", epoch=0, sequence=sequence),
        fallback="none",
        items=[RecommendedItem(item_id="v1", score=0.5, source="transitions")],
    )


def put(view: SnapshotView, value: Snapshot) -> None:
    view.apply(value.user_id.encode(), msgspec.json.encode(value))


def known_offset(view: SnapshotView, user_id: str) -> int | None:
    found = view.get(user_id)
    return None if found is None else found.knows.offset


def test_an_older_snapshot_is_dropped_and_an_equal_one_wins() -> None:
    view = SnapshotView(10)
    put(view, snapshot("u1", 7, sequence=1))
    put(view, snapshot("u1", 5, sequence=2))
    assert known_offset(view, "u1") == 7
    assert view.dropped_older == 1
    put(view, snapshot("u1", 7, sequence=3))
    found = view.get("u1")
    assert found is not None
    assert found.snapshot_id == "u1.0.3"


def test_a_repartitioned_behaviour_topic_does_not_freeze_a_user() -> None:
    view = SnapshotView(10)
    put(view, snapshot("u1", 900, partition=9))
    put(view, snapshot("u1", 3, partition=2))
    assert known_offset(view, "u1") == 3


def test_a_tombstone_forgets_the_user_and_a_later_snapshot_is_taken() -> None:
    view = SnapshotView(10)
    put(view, snapshot("u1", 7))
    view.apply(b"u1", None)
    view.apply(b"never seen", None)
    assert view.get("u1") is None
    put(view, snapshot("u1", 2))
    assert known_offset(view, "u1") == 2


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (None, msgspec.json.encode(snapshot("u1", 1))),
        (b"u2", msgspec.json.encode(snapshot("u1", 1))),
        (b"\xff\xfe", msgspec.json.encode(snapshot("u1", 1))),
        (b"u1", b""),
        (b"u1", b"{}"),
        (b"u1", b"\xff"),
        (b"u1", msgspec.json.encode(snapshot("u1", 1)).replace(b'"schema_version":1', b'"schema_version":2')),
    ],
)
def test_what_is_no_snapshot_is_counted_and_ignored(key: bytes | None, value: bytes) -> None:
    view = SnapshotView(10)
    view.apply(key, value)
    assert (view.read, view.invalid, len(view)) == (1, 1, 0)


def test_the_view_is_bounded_and_forgets_who_arrived_longest_ago() -> None:
    view = SnapshotView(3)
    for user in ("a", "b", "c"):
        put(view, snapshot(user, 1))
    put(view, snapshot("a", 2))
    put(view, snapshot("d", 1))
    assert view.get("b") is None
    assert [known_offset(view, user) for user in ("a", "c", "d")] == [2, 1, 1]
    assert (len(view), view.evicted) == (3, 1)


def test_a_subscription_sees_its_user_only_and_says_what_it_lost() -> None:
    view = SnapshotView(10)
    with Subscription(view, "u1", 2) as one, Subscription(view, None, 10) as every:
        for offset in range(4):
            put(view, snapshot("u1", offset))
            put(view, snapshot("u2", offset))
        first = one.get(0)
        assert first is not None
        assert first.knows.offset == 2
        assert one.lost == 2
        assert sum(1 for _ in range(8) if every.get(0) is not None) == 8
        assert one.get(0) is not None
        assert one.get(0) is None
    put(view, snapshot("u1", 9))
    assert one.get(0) is None
    assert view._by_user == {}
    assert view._for_all == []


def test_closing_the_view_ends_every_wait() -> None:
    view = SnapshotView(10)
    seen: list[Snapshot] = []
    subscription = Subscription(view, "u1", 10)
    thread = threading.Thread(target=lambda: seen.extend(subscription))
    thread.start()
    put(view, snapshot("u1", 1))
    view.close()
    thread.join(5)
    assert not thread.is_alive()
    assert [found.knows.offset for found in seen] == [1]


def test_partitioning_agrees_with_the_java_client() -> None:
    # Vectors of org.apache.kafka.common.utils.UtilsTest#testMurmur2.
    vectors = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    for key, hashed in vectors.items():
        assert partition_of(key, 1_000_003) == (hashed & 0x7FFFFFFF) % 1_000_003
