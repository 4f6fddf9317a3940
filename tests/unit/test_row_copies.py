"""Copies renewed by changed rows against whole copies, bit by bit, whatever happens between two cuts."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from learners.growth import grown
from learners.row_copies import RowCopies, slice_of
from learners.transitions import Transitions
from learners.user_state import PartitionState
from streams.listed import ListedItems
from tests.learner_data import event_batch, interactions, partition_state, random_rows, split

Arrays = Mapping[str, NDArray[np.generic]]


def assert_same(got: Arrays, wanted: Arrays) -> None:
    assert got.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(got[name], array, err_msg=name)
        assert got[name].dtype == array.dtype


@settings(deadline=None)
@given(st.data())
def test_only_stale_rows_are_copied_and_all_of_them(data: st.DataObject) -> None:
    tables: dict[str, NDArray[np.generic]] = {
        "wide": np.zeros((3, 2, 5), dtype=np.float32),
        "narrow": np.zeros(3, dtype=np.int8),
        "empty": np.zeros((3, 0), dtype=np.int64),
    }
    stale = np.ones(3, dtype=np.bool_)
    copies, value = RowCopies(), 0
    for _ in range(data.draw(st.integers(1, 8))):
        n = len(stale) + data.draw(st.integers(0, 3))
        tables = {name: grown(table, n)[:n] for name, table in tables.items()}
        stale = grown(stale, n, True)[:n]
        for row in data.draw(st.lists(st.integers(0, n - 1), max_size=4)):
            value = value % 100 + 1
            tables["wide"][row] = tables["narrow"][row] = value
            stale[row] = True
        of = data.draw(st.integers(1, 4))
        for place in data.draw(st.lists(st.integers(0, of - 1), max_size=2)):
            copies.renew(tables, stale, *slice_of(n, place, of))
        unmarked = data.draw(st.integers(0, n - 1))
        was_stale = bool(stale[unmarked])
        before = (
            copies.arrays["narrow"][unmarked].copy() if "narrow" in copies.arrays and not was_stale else 0
        )
        kept = tables["narrow"][unmarked].copy()
        if not was_stale:  # nobody marks it: it is not copied
            tables["narrow"][unmarked] = 111
        got = copies.renew(tables, stale)
        if not was_stale:
            assert got["narrow"][unmarked] == before == kept
            tables["narrow"][unmarked] = kept
        assert_same(got, tables)
        assert not stale[:n].any()


def test_a_table_of_another_kind_is_copied_anew() -> None:
    copies, stale = RowCopies(), np.ones(4, dtype=np.bool_)
    copies.renew({"rows": np.ones((4, 2), dtype=np.int32)}, stale)
    for table in (np.full((4, 3), 2, dtype=np.int32), np.full((4, 3), 3, dtype=np.int64)):
        assert not stale.any()
        np.testing.assert_array_equal(copies.renew({"rows": table}, stale)["rows"], table)


def test_room_made_ahead_is_what_copies_are_written_to() -> None:
    copies, stale = RowCopies(), np.ones(6, dtype=np.bool_)
    array = np.arange(12, dtype=np.int32).reshape(6, 2)
    copies.make_room({"rows": array}, stale)
    place = copies.arrays["rows"]
    assert copies.nbytes == place.nbytes >= array.nbytes
    assert stale.all()
    assert np.shares_memory(copies.renew({"rows": array}, stale)["rows"], place)


def test_slices_are_all_rows_once() -> None:
    for n in (0, 1, 7, 64):
        rows = [row for place in range(5) for row in range(*slice_of(n, place, 5))]
        assert rows == list(range(n))


@pytest.mark.parametrize("seed", range(6))
def test_user_state(seed: int) -> None:
    """New users, ids of last events that are moved together, copies ahead, and a restored state."""
    rng = np.random.default_rng(seed)
    state = partition_state(3, history=6, seen=9, dedup_window=200)
    for step in range(40):
        rows = random_rows(seed * 100 + step, int(rng.integers(1, 30)), n_users=3)
        state.users.get_many([f"v{n}" for n in range(int(rng.integers(0, 40 * step + 1)))])
        n = len(state.users)
        for row in rows:
            row["offset"] += state.next_offset
            row["user"] = int(rng.integers(0, 3)) if rng.random() < 0.5 else int(rng.integers(0, n))
            row["event_id"] = f"{seed}-{step}-{row['offset']}".ljust(int(rng.integers(5, 90)), "x")
        state.fold(event_batch(rows))
        for place in range(int(rng.integers(0, 4))):
            state.copy_ahead(place, 3)
        if rng.random() < 0.2:
            state.make_room()
        if rng.random() < 0.4:
            assert_same(state.snapshot(reuse=True), state.snapshot())
        if rng.random() < 0.1:
            state.restore(state.snapshot())
    assert_same(state.snapshot(reuse=True), state.snapshot())


@pytest.mark.parametrize("seed", range(4))
def test_transitions(seed: int) -> None:
    """Also after what changes all rows: a new reference, forgetting, rows of another instance."""
    learner, other = Transitions(4, half_life_ms=3_600_000.0), Transitions(4, half_life_ms=3_600_000.0)
    rng = np.random.default_rng(seed)
    first = interactions(seed, 400, n_items=60)
    other.learn_many(interactions(seed + 50, 300, n_items=90))

    def exchange() -> None:
        items = rng.integers(0, 90, 5).astype(np.int32)
        newer = interactions(int(rng.integers(1 << 30)), 20, n_items=90)
        newer.ts_ms += int(rng.integers(0, 900)) * 3_600_000  # its reference may be the later one
        other.learn_many(newer)
        learner.import_rows(np.unique(items), other.export_rows(np.unique(items)))
        learner.import_dense(other.export_dense())

    changes: list[Callable[[], object]] = [
        lambda: learner.fade(0.5),
        exchange,
        learner.touched,
        learner.make_room,
        lambda: learner.restore(learner.snapshot()),
    ]
    for number, batch in enumerate(split(first, 20)):
        batch.ts_ms += number * 40 * 3_600_000  # some are beyond where the reference moves
        learner.learn_many(batch)
        for place in range(int(rng.integers(0, 4))):
            learner.copy_ahead(place, 3)
        if rng.random() < 0.5:
            changes[int(rng.integers(len(changes)))]()
        if rng.random() < 0.6:
            assert_same(learner.snapshot(reuse=True), learner.snapshot())


def test_rows_shared_by_two_threads_are_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    import learners.transitions as module
    from schemas.fork_join import ForkJoin

    monkeypatch.setattr(module, "LEAST_SHARED", 1)
    learner = Transitions(4, fork_join=ForkJoin(2))
    for batch in split(interactions(3, 600, n_items=300), 60):
        learner.learn_many(batch)
        assert_same(learner.snapshot(reuse=True), learner.snapshot())


@pytest.mark.parametrize("seed", range(3))
def test_listed_items(seed: int) -> None:
    rng, listed, n = np.random.default_rng(seed), ListedItems(), 1
    for _ in range(40):
        n += int(rng.integers(0, 30))
        users = rng.permutation(n)[: int(rng.integers(0, 6))].astype(np.int32)
        width = int(rng.integers(1, 5))
        listed.put(users, rng.integers(0, 50, (len(users), width)).astype(np.int32))
        for place in range(int(rng.integers(0, 4))):
            listed.copy_ahead(place, 3)
        if rng.random() < 0.2:
            listed.restore(listed.snapshot(n), n)
        if rng.random() < 0.5:
            assert_same(listed.snapshot(n, reuse=True), listed.snapshot(n))


def test_a_fold_marks_no_more_than_its_users() -> None:
    """Or every cut would copy everything again."""
    state: PartitionState = partition_state(12, history=6, seen=9, dedup_window=200)
    state.fold(event_batch(random_rows(1, 200)))
    state.snapshot(reuse=True)
    rows = [row | {"user": 5, "offset": row["offset"] + state.next_offset} for row in random_rows(2, 10)]
    state.fold(event_batch(rows))
    assert np.flatnonzero(state._stale[: len(state.users)]).tolist() == [5]
