"""What learners give to the model topics: absolute values that make another instance equal, bit by bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from learners.blend import Gate
from learners.cooccurrence import Cooccurrence
from learners.ease import Ease
from learners.embeddings import Embeddings
from learners.popularity import Popularity
from learners.transitions import Transitions
from schemas.errors import StateError
from tests.learner_data import contexts_of, interactions, rows_of, split

MINUTE_MS = 60_000
N_ITEMS = 40
MAKE: dict[str, Callable[[], Any]] = {
    # 64 half-lives pass several times in a batch: references move.
    "transitions": lambda: Transitions(8, half_life_ms=10.0 * MINUTE_MS),
    "popularity": lambda: Popularity((5.0 * MINUTE_MS, 20.0 * MINUTE_MS)),
    "cooccurrence": lambda: Cooccurrence(8, window=10),
    "ease": lambda: Ease(24, width=8),
    "embeddings": lambda: Embeddings(dim=16, history=10, seed=5),
}
FOR_READING = {
    "transitions": ("nbr", "w", "rowsum", "filled", "clock"),
    "popularity": ("counts", "totals", "references", "newest", "n_learned", "orders", "n_ordered"),
    "cooccurrence": ("nbr", "w", "counts", "filled"),
    "ease": ("nbr", "w"),
    "embeddings": ("item_values", "item_counts", "user_values", "mixing", "positions"),
}


def read_arrays(learner: Any) -> dict[str, Any]:
    snapshot = learner.snapshot()
    return {name: snapshot[name] for name in FOR_READING[learner.name]}


def send_users(learner: Any, twin: Any, users: Any) -> None:
    if learner.name == "embeddings":
        twin.import_users(users, learner.export_users(users))


@settings(max_examples=30, deadline=None)
@given(
    st.sampled_from(sorted(MAKE)),
    st.integers(0, 100),
    st.lists(
        st.tuples(st.integers(1, 400), st.booleans(), st.integers(0, 2**32 - 1)), min_size=1, max_size=6
    ),
)
def test_what_was_touched_makes_a_twin(name: str, seed: int, plan: list[tuple[int, bool, int]]) -> None:
    """Whatever is held back for how long, and whether dense values come before rows or after."""
    batch = interactions(seed=seed, n=1_200, n_items=N_ITEMS)
    learner, twin = MAKE[name](), MAKE[name]()
    waiting: set[int] = set()
    late: list[tuple[Any, Any]] = []
    start = 0
    for size, dense_first, luck in plan:
        learner.learn_many(rows_of(batch, start, start + size))
        start += size
        keys = learner.touched()
        send_users(learner, twin, keys.users)
        waiting |= set(keys.items.tolist())
        chosen = [item for item in sorted(waiting) if (luck >> (item % 32)) & 1]
        waiting -= set(chosen)
        items = np.array(chosen, dtype=np.int32)
        late.append((items, learner.export_rows(items)))
        if dense_first:
            twin.import_dense(learner.export_dense())
        if luck % 3:  # otherwise these rows arrive with the next ones, after newer dense values
            for some, rows in late:
                twin.import_rows(some, rows)
            late = []
    for some, rows in late:
        twin.import_rows(some, rows)
    items = np.array(sorted(waiting | set(range(3))), dtype=np.int32)
    twin.import_rows(items, learner.export_rows(items))
    twin.import_dense(learner.export_dense())
    mine, theirs = read_arrays(learner), read_arrays(twin)
    for what, array in mine.items():
        np.testing.assert_array_equal(theirs[what], array, err_msg=what)
    contexts = contexts_of(batch)
    candidates = np.arange(N_ITEMS, dtype=np.int32)
    np.testing.assert_array_equal(twin.predict(contexts, candidates), learner.predict(contexts, candidates))


@pytest.mark.parametrize("name", MAKE)
def test_exports_are_pure_copies(name: str) -> None:
    learner = MAKE[name]()
    learner.learn_many(interactions(seed=3, n=800, n_items=N_ITEMS))
    before = learner.digest()
    items = np.array([0, 5, N_ITEMS + 1_000, -1], dtype=np.int32)
    for arrays in (learner.export_rows(items), learner.export_dense()):
        for array in arrays.values():
            array[...] = np.zeros((), dtype=array.dtype)
    assert learner.digest() == before


@pytest.mark.parametrize("name", MAKE)
def test_damaged_rows_are_refused_by_name(name: str) -> None:
    learner, twin = MAKE[name](), MAKE[name]()
    learner.learn_many(interactions(seed=3, n=200, n_items=N_ITEMS))
    before = twin.digest()
    items = np.arange(4, dtype=np.int32)
    for call, exported in (
        (lambda arrays: twin.import_rows(items, arrays), learner.export_rows(items)),
        (twin.import_dense, learner.export_dense()),
    ):
        for missing in exported:
            with pytest.raises(StateError, match=missing):
                call({key: array for key, array in exported.items() if key != missing})
    assert twin.digest() == before


def test_the_gate_is_one_dense_value() -> None:
    gate, twin = Gate(), Gate()
    arrays = gate.export_dense()
    arrays["shared"] = arrays["shared"] * 2
    twin.import_dense(arrays)
    assert twin.digest() != gate.digest()
    assert twin.touched().dense == ()
    twin.import_dense(gate.export_dense())
    assert twin.digest() == gate.digest()


def test_rows_of_other_widths_and_half_lives_are_refused() -> None:
    items = np.arange(2, dtype=np.int32)
    with pytest.raises(StateError, match="nbr"):
        Transitions(8).import_rows(items, Transitions(4).export_rows(items))
    with pytest.raises(StateError, match="counts"):
        Popularity((1.0,)).import_rows(items, Popularity((1.0, 2.0)).export_rows(items))
    with pytest.raises(StateError, match="row"):
        Embeddings(dim=8).import_users(items, Embeddings(dim=16).export_users(items))


def test_items_beyond_the_capacity_are_left_out() -> None:
    batch = interactions(seed=3, n=400, n_items=N_ITEMS)
    learner, twin = Transitions(8), Transitions(8, max_items=10)
    for part in split(batch, 100):
        learner.learn_many(part)
    items = np.arange(N_ITEMS, dtype=np.int32)
    twin.import_rows(items, learner.export_rows(items))
    twin.import_dense(learner.export_dense())
    assert twin.n_items == 10
    rows = twin.export_rows(items)
    assert not rows["filled"][10:].any()
    np.testing.assert_array_equal(rows["w"][:10], learner.export_rows(items)["w"][:10])
