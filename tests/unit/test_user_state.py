"""Folding a partition: each rule of the verdict, and what an applied event leaves behind."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.dedup import Dedup, contains, remember, rotate
from learners.user_state import (
    ALREADY_APPLIED,
    APPLIED,
    DUPLICATE,
    FUTURE,
    LATE,
    RECENT,
    WRONG_PARTITION,
    PartitionState,
)
from schemas.errors import StateError
from schemas.hashing import partition_of
from tests.learner_data import T0_MS, TYPE, event_batch, partition_state, random_rows

ITEM_IDS = [f"i{item}" for item in range(64)]


def _fold(state: PartitionState, *rows: dict[str, Any]) -> list[int]:
    start = state.next_offset
    numbered = [{"offset": start + index} | row for index, row in enumerate(rows)]
    statuses: list[int] = state.fold(event_batch(numbered)).status.tolist()
    return statuses


def test_a_second_event_id_is_a_duplicate_within_and_across_batches() -> None:
    state = partition_state(2)
    assert _fold(state, {"event_id": "a"}, {"event_id": "a"}, {"event_id": "b"}) == [
        APPLIED,
        DUPLICATE,
        APPLIED,
    ]
    assert _fold(state, {"event_id": "b", "user": 1}) == [DUPLICATE]
    assert state.last_offset[0] == 2
    assert state.last_event_id(0) == "b"


def test_lateness_is_measured_against_the_watermark() -> None:
    state = partition_state(2, lateness_ms=1_000)
    edge, beyond = {"ts_ms": T0_MS - 1_000}, {"ts_ms": T0_MS - 1_001}
    assert _fold(state, {"ts_ms": T0_MS}, edge, beyond) == [APPLIED, APPLIED, LATE]
    assert state.watermark_ms == T0_MS


def test_refused_events_are_not_remembered_and_move_no_watermark() -> None:
    state = partition_state(1, lateness_ms=1_000, future_skew_ms=5_000)
    assert _fold(state, {"ts_ms": T0_MS}) == [APPLIED]
    future = {"event_id": "f", "ts_ms": T0_MS + 5_001, "broker_ts_ms": T0_MS}
    late = {"event_id": "l", "ts_ms": T0_MS - 1_001}
    assert _fold(state, future, future, late, late) == [FUTURE, FUTURE, LATE, LATE]
    assert state.watermark_ms == T0_MS
    on_the_edge = {"event_id": "f", "ts_ms": T0_MS + 5_000, "broker_ts_ms": T0_MS}
    assert _fold(state, on_the_edge) == [APPLIED]


def test_a_duplicate_that_is_also_late_is_a_duplicate() -> None:
    state = partition_state(1, lateness_ms=1_000)
    early = {"event_id": "a", "ts_ms": T0_MS}
    assert _fold(state, early, {"ts_ms": T0_MS + 50_000}, early) == [APPLIED, APPLIED, DUPLICATE]


def test_without_a_broker_timestamp_there_is_no_future() -> None:
    state = partition_state(1)
    assert _fold(state, {"ts_ms": T0_MS, "broker_ts_ms": -1}) == [APPLIED]


def test_a_user_of_another_partition_is_refused() -> None:
    state = PartitionState(
        1,
        n_partitions=4,
        dedup_window=100,
        lateness_ms=1_000,
        future_skew_ms=1_000,
        session_gap_ms=1_000,
    )
    ids = [f"u{user}" for user in range(40)]
    state.users.get_many(ids[:20])
    state.fold(event_batch([], partition=1, next_offset=0))
    state.users.get_many(ids)  # more users become known between two batches
    rows = [{"user": user, "offset": user} for user in range(40)]
    statuses = state.fold(event_batch(rows, partition=1)).status.tolist()
    expected = [
        APPLIED if partition_of(identifier.encode(), 4) == 1 else WRONG_PARTITION for identifier in ids
    ]
    assert statuses == expected
    assert {APPLIED, WRONG_PARTITION} == set(expected)


def test_offsets_that_were_applied_are_dropped_and_a_straddling_batch_is_cut() -> None:
    state = partition_state(1)
    rows = [{"offset": offset, "item": offset} for offset in range(6)]
    state.fold(event_batch(rows[:4]))
    before = state.digest(ITEM_IDS)
    assert state.fold(event_batch(rows[1:4])).status.tolist() == [ALREADY_APPLIED] * 3
    assert state.digest(ITEM_IDS) == before
    folded = state.fold(event_batch(rows[2:]))
    assert folded.status.tolist() == [ALREADY_APPLIED, ALREADY_APPLIED, APPLIED, APPLIED]
    assert folded.rows.tolist() == [2, 3]
    assert folded.interactions.items.tolist() == [4, 5]
    assert state.next_offset == 6


def test_an_empty_batch_moves_the_position() -> None:
    state = partition_state(1)
    folded = state.fold(event_batch([], next_offset=42))
    assert (len(folded.status), len(folded.interactions), state.next_offset) == (0, 0, 42)
    state.fold(event_batch([], next_offset=7))
    assert state.next_offset == 42


def test_a_batch_of_another_partition_is_refused() -> None:
    with pytest.raises(ValueError, match="partition 3"):
        partition_state(1).fold(event_batch([], partition=3))


def test_history_is_immediate_and_holds_fresh_positives_only() -> None:
    state = partition_state(2, history=4)
    rows: list[dict[str, Any]] = [
        {"item": 1},
        {"item": 1, "type": "like"},  # not fresh: just watched
        {"item": 2, "type": "skip"},
        {"item": 3, "type": "impression"},
        {"item": 4, "watch_ms": 500, "duration_ms": 20_000},  # swiped away
        {"item": 5},
        {"item": 9, "user": 1},
        {"item": 6},
    ]
    folded = state.fold(event_batch(rows))
    interactions = folded.interactions
    assert interactions.fresh.tolist() == [True, False, False, False, False, True, True, True]
    np.testing.assert_allclose(interactions.weight, [1, 1.5, -1, 0, -0.5, 1, 1, 1])
    assert interactions.history[0].tolist() == [-1, -1, -1, -1]
    assert interactions.history[5].tolist() == [-1, -1, -1, 1]
    assert interactions.history[7].tolist() == [-1, -1, 1, 5]
    assert state.contexts(np.array([0, 1], dtype=np.int32)).tolist() == [[-1, 1, 5, 6], [-1, -1, -1, 9]]


def test_an_item_is_fresh_again_after_five_others() -> None:
    state = partition_state(1, history=8)
    items = [0, 1, 2, 3, 4, 0, 5, 0]
    folded = state.fold(event_batch([{"item": item} for item in items]))
    assert folded.interactions.fresh.tolist() == [True, True, True, True, True, False, True, True]
    assert state.contexts(np.array([0], dtype=np.int32))[0].tolist() == [-1, 0, 1, 2, 3, 4, 5, 0]


def test_gap_is_the_time_since_the_last_positive() -> None:
    state = partition_state(1)
    rows: list[dict[str, Any]] = [
        {"ts_ms": T0_MS, "item": 1},
        {"ts_ms": T0_MS + 10, "item": 2, "type": "skip"},
        {"ts_ms": T0_MS + 30, "item": 3},
        {"ts_ms": T0_MS + 20, "item": 4},
    ]
    assert state.fold(event_batch(rows)).interactions.gap_ms.tolist() == [-1, 10, 30, 0]


def test_a_session_ends_after_a_long_silence_and_not_by_a_late_event() -> None:
    state = partition_state(2, session_gap_ms=100, lateness_ms=10_000)
    rows = [
        {"ts_ms": T0_MS},
        {"ts_ms": T0_MS + 100},
        {"ts_ms": T0_MS + 201},
        {"ts_ms": T0_MS + 50},
        {"ts_ms": T0_MS + 301},
        {"ts_ms": T0_MS + 301, "user": 1},
    ]
    folded = state.fold(event_batch(rows))
    assert folded.session.tolist() == [0, 0, 1, 1, 1, 0]
    assert folded.is_new_session.tolist() == [True, False, True, False, False, True]
    assert state.session_index[:2].tolist() == [1, 0]


def test_seen_keeps_the_newest_consumed_items_once() -> None:
    state = partition_state(1, seen=3)
    kinds = ["watch", "skip", "impression", "dislike", "watch", "like"]
    items = [1, 2, 3, 4, 1, 5]
    state.fold(event_batch([{"item": i, "type": kind} for i, kind in zip(items, kinds, strict=True)]))
    assert state.seen_rows(np.array([0], dtype=np.int32))[0].tolist() == [4, 1, 5]


@pytest.mark.parametrize("width", [1, 15, 16, 17, 40, 128])
def test_seen_of_any_width_is_the_newest_distinct_items(width: int) -> None:
    state, rng = partition_state(1, seen=width), np.random.default_rng(width)
    expected: list[int] = []
    for _ in range(40):
        items = rng.integers(0, 3 * width, 10).tolist()
        for item in items:
            expected = [other for other in expected if other != item][-width + 1 :] if width > 1 else []
            expected.append(item)
        rows = [{"item": item, "offset": state.next_offset + i} for i, item in enumerate(items)]
        state.fold(event_batch(rows))
        padded = [-1] * (width - len(expected)) + expected
        assert state.seen_rows(np.array([0], dtype=np.int32))[0].tolist() == padded


def test_recent_lists_events_of_any_type_newest_first() -> None:
    state = partition_state(2)
    rows = [{"item": n, "type": "impression" if n % 2 else "watch", "ts_ms": T0_MS + n} for n in range(25)]
    state.fold(event_batch(rows))
    recent = state.recent(0)
    assert len(recent) == RECENT
    assert recent[0] == (24, TYPE["watch"], T0_MS + 24)
    assert recent[-1] == (5, TYPE["impression"], T0_MS + 5)
    assert state.recent(1) == []
    assert state.recent(99_999) == []


def test_the_receipt_names_the_last_applied_event() -> None:
    state = partition_state(2)
    state.fold(
        event_batch([{"event_id": "a", "broker_ts_ms": T0_MS + 3}, {"event_id": "b", "ts_ms": T0_MS - 9**9}])
    )
    assert (state.last_offset[0], state.last_event_id(0), state.last_ts_ms[0]) == (0, "a", T0_MS)
    assert state.last_broker_ts_ms[0] == T0_MS + 3
    assert (state.last_offset[1], state.last_event_id(1)) == (-1, "")
    assert state.last_event_id(99) == ""


def test_many_users_are_taken_in_at_any_time() -> None:
    state = partition_state(3)
    state.fold(event_batch([{"user": 2, "item": 7}]))
    state.users.get_many([f"v{n}" for n in range(2_000)])
    state.fold(event_batch([{"user": 2_002, "item": 8, "offset": 1}]))
    assert state.contexts(np.array([2, 2_002, 1], dtype=np.int32))[:, -1].tolist() == [7, 8, -1]
    assert state.session_index[1_000] == -1


def test_an_event_is_remembered_for_the_window_and_forgotten_after_two() -> None:
    def second_at(offset: int) -> int:
        state = partition_state(1, dedup_window=100)
        batch = event_batch([{"event_id": "a", "offset": 50}, {"event_id": "a", "offset": offset}])
        return int(state.fold(batch).status[1])

    assert second_at(150) == DUPLICATE
    assert second_at(199) == DUPLICATE
    assert second_at(200) == APPLIED
    assert second_at(10**9) == APPLIED


def test_dedup_sets_grow_and_treat_a_hash_of_zero_like_any_other() -> None:
    dedup = Dedup(1_000_000)
    keys = np.arange(5_000, dtype=np.uint64) * np.uint64(1 << 20)
    for start in range(0, 5_000, 500):
        dedup.reserve(500)
        for key in keys[start : start + 500]:
            rotate(dedup.sets, 0)
            assert not contains(dedup.sets, key)
            remember(dedup.sets, key)
    assert all(contains(dedup.sets, key) for key in keys)
    assert len(dedup.contents()["dedup_current"]) == 5_000


def test_each_dedup_set_has_the_size_of_what_it_holds() -> None:
    dedup = Dedup(1_000_000)
    rng = np.random.default_rng(3)
    sizes = []
    for offset, n in ((0, 60_000), (1_000_000, 5_000), (2_000_000, 5_000), (9_000_000, 0)):
        rotate(dedup.sets, offset)
        keys = rng.integers(2, 2**64 - 1, n, dtype=np.uint64)
        for start in range(0, n, 1_000):
            dedup.reserve(1_000)
            for key in keys[start : start + 1_000]:
                remember(dedup.sets, key)
        dedup.reserve(0)
        sizes.append(dedup.nbytes)
        assert all(contains(dedup.sets, key) for key in keys)
    assert sizes[0] < 60_000 * 8 * 2.5
    assert sizes[1] < sizes[0] + 5_000 * 8 * 4
    assert sizes[2] < 10_000 * 8 * 8
    assert sizes[3] <= 2 * 1_024 * 8 * 4


@pytest.mark.parametrize("hashes", [[5, 5], [0, 9]])
def test_remembered_events_that_cannot_be_are_refused(hashes: list[int]) -> None:
    snapshot = _folded(1).snapshot() | {"dedup_previous": np.array(hashes, dtype=np.uint64)}
    with pytest.raises(StateError, match="twice"):
        partition_state(0, history=6, seen=9, dedup_window=200).restore(snapshot)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 200), st.sampled_from("aé日")), max_size=40),
        max_size=12,
    ),
    st.booleans(),
)
def test_last_event_ids_are_kept_through_overwriting_growth_and_compaction(
    batches: list[list[tuple[int, int, str]]], restored: bool
) -> None:
    state, expected, number = partition_state(6), dict[int, str](), 0
    for batch in batches:
        rows = []
        for user, length, letter in batch:
            event_id = f"{number}".ljust(length, letter)
            rows.append({"event_id": event_id, "user": user, "offset": number})
            expected[user] = event_id
            number += 1
        if rows:
            state.fold(event_batch(rows))
        if restored:
            twin = partition_state(0)
            twin.restore(state.snapshot())
            state = twin
    users = np.array(sorted(expected), dtype=np.int32)
    assert state.last_event_texts(users).to_list() == [expected[user] for user in users.tolist()]
    assert state.user_texts(users).to_list() == [f"u{user}" for user in users.tolist()]
    assert [state.last_event_id(user) for user in range(6)] == [expected.get(user, "") for user in range(6)]


def test_bytes_of_last_event_ids_are_bounded_by_those_in_use() -> None:
    state = partition_state(4)
    for number in range(2_000):
        length = 10 + number % 90
        row = {"event_id": f"{number}".ljust(length, "x"), "user": number % 4, "offset": number}
        state.fold(event_batch([row]))
    assert len(state.snapshot()["event_ids"]) < 5_000


def test_room_made_ahead_is_what_the_snapshot_writes_to() -> None:
    """Or the first cut would find all its memory on the thread that learns."""
    state = _folded(1)
    state.make_room()
    made = dict(state.copies.arrays)
    arrays = state.snapshot(reuse=True)
    assert {name: id(array) for name, array in state.copies.arrays.items()} == {
        name: id(array) for name, array in made.items()
    }
    assert made.keys() <= arrays.keys()
    assert all(np.shares_memory(arrays[name], made[name]) for name in made if arrays[name].size)


def test_memory_of_an_earlier_snapshot_is_used_again() -> None:
    state = _folded(1)
    first = state.snapshot(reuse=True)
    kept = {name: array.copy() for name, array in first.items()}
    more = [row | {"offset": row["offset"] + state.next_offset} for row in random_rows(2, 100)]
    state.fold(event_batch(more))
    for name, array in first.items():
        np.testing.assert_array_equal(array, kept[name], err_msg=name)  # the fold wrote elsewhere
    again = state.snapshot(reuse=True)
    assert np.shares_memory(again["seen"], first["seen"])
    for name, array in state.snapshot().items():
        np.testing.assert_array_equal(again[name], array, err_msg=name)
    state.users.get_many([f"v{n}" for n in range(3_000)])
    twin = partition_state(0, history=6, seen=9, dedup_window=200)
    twin.restore(state.snapshot(reuse=True))
    assert twin.digest(ITEM_IDS) == state.digest(ITEM_IDS)


def test_ids_of_last_events_that_lie_outside_are_refused() -> None:
    snapshot = _folded(1).snapshot()
    with pytest.raises(StateError, match="last events"):
        partition_state(0, history=6, seen=9, dedup_window=200).restore(
            snapshot | {"event_ids": snapshot["event_ids"][:-1]}
        )


def _folded(seed: int, **more: Any) -> PartitionState:
    state = partition_state(12, history=6, seen=9, dedup_window=200, **more)
    state.fold(event_batch(random_rows(seed, 800)))
    return state


def test_a_restored_state_goes_on_as_the_original() -> None:
    original = _folded(1)
    snapshot = original.snapshot()
    twin = partition_state(0, history=6, seen=9, dedup_window=200)
    twin.restore(snapshot)
    assert twin.digest(ITEM_IDS) == original.digest(ITEM_IDS)
    more = [row | {"offset": row["offset"] + original.next_offset} for row in random_rows(2, 300)]
    a, b = original.fold(event_batch(more)), twin.fold(event_batch(more))
    np.testing.assert_array_equal(a.status, b.status)
    assert twin.digest(ITEM_IDS) == original.digest(ITEM_IDS)
    assert twin.users.ids == original.users.ids
    assert twin.recent(3) == original.recent(3)


def test_a_snapshot_shares_nothing() -> None:
    state = _folded(1)
    before, snapshot = state.digest(ITEM_IDS), state.snapshot()
    for array in snapshot.values():
        array[...] = np.zeros((), dtype=array.dtype)
    assert state.digest(ITEM_IDS) == before


def test_the_digest_is_over_ids_not_slots() -> None:
    rows = random_rows(5, 600)
    plain = partition_state(12)
    plain.fold(event_batch(rows))
    users = [f"u{(user * 5) % 12}" for user in range(12)]
    shuffled = partition_state(0)
    shuffled.users.get_many(["unheard-of", *users])
    item_order = [(item * 7) % 40 for item in range(40)]
    renamed = [
        row | {"user": users.index(f"u{row['user']}") + 1, "item": item_order.index(row["item"])}
        for row in rows
    ]
    shuffled.fold(event_batch(renamed))
    assert shuffled.digest([ITEM_IDS[item] for item in item_order]) == plain.digest(ITEM_IDS)
    assert shuffled.digest(ITEM_IDS) != plain.digest(ITEM_IDS)


def test_everything_a_user_did_is_in_the_digest() -> None:
    rows = random_rows(5, 60)
    digests = set()
    for n in range(30, 60):
        state = partition_state(12)
        state.fold(event_batch(rows[:n], next_offset=1_000))
        digests.add((state.digest(ITEM_IDS), tuple(state.last_offset[:12].tolist())))
    assert len({digest for digest, _ in digests}) == len({offsets for _, offsets in digests})


@pytest.mark.parametrize(
    ("shape", "message"),
    [({"n_partitions": 2}, "partition 0 of 1"), ({"history": 7}, "history"), ({"seen": 4}, "seen")],
)
def test_a_state_of_another_shape_is_refused(shape: dict[str, Any], message: str) -> None:
    snapshot = _folded(1).snapshot()
    other = partition_state(0, **({"history": 6, "seen": 9} | shape))
    before = other.digest(ITEM_IDS)
    with pytest.raises(StateError, match=message):
        other.restore(snapshot)
    assert other.digest(ITEM_IDS) == before


def test_another_dedup_window_keeps_what_is_remembered() -> None:
    state = partition_state(1, dedup_window=100)
    _fold(state, {"event_id": "a"})
    wider = partition_state(0, dedup_window=5_000)
    wider.restore(state.snapshot())
    assert _fold(wider, {"event_id": "a"}) == [DUPLICATE]


@pytest.mark.parametrize("partition", [-1, 4])
def test_a_partition_that_does_not_exist_is_refused(partition: int) -> None:
    with pytest.raises(ValueError, match="none of 4"):
        PartitionState(
            partition, n_partitions=4, dedup_window=1, lateness_ms=0, future_skew_ms=0, session_gap_ms=1
        )
