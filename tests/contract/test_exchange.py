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
from learners.heat import RoomHeat
from learners.mixture import Mixture
from learners.popularity import Popularity
from learners.transitions import Transitions
from schemas.errors import StateError
from schemas.learner import Contexts
from serving.recommender import Recommender
from tests.learner_data import contexts_of, interactions, rows_of, split
from tests.learner_makers import ENCODERS, NOTHING, encoder, new_evidence

MINUTE_MS = 60_000
N_ITEMS = 40
MAKE: dict[str, Callable[[], Any]] = {
    # 64 half-lives pass several times in a batch: references move.
    "transitions": lambda: Transitions(8, half_life_ms=10.0 * MINUTE_MS),
    "popularity": lambda: Popularity((5.0 * MINUTE_MS, 20.0 * MINUTE_MS)),
    "heat": lambda: RoomHeat(5.0 * MINUTE_MS),
    "cooccurrence": lambda: Cooccurrence(8, window=10),
    "ease": lambda: Ease(24, width=8),
    **{name: encoder(name) for name in ENCODERS},
}
FOR_READING = {
    "transitions": ("nbr", "w", "rowsum", "filled", "clock"),
    "popularity": ("counts", "totals", "references", "newest", "n_learned", "orders", "n_ordered"),
    "heat": ("counts", "times"),
    "cooccurrence": ("nbr", "w", "counts", "filled"),
    "ease": ("nbr", "w"),
    "embeddings": ("item_values", "item_counts"),
}


def read_arrays(learner: Any) -> dict[str, Any]:
    snapshot = learner.snapshot()
    found: dict[str, Any] = {name: snapshot[name] for name in FOR_READING[learner.name]}
    found |= learner.export_dense()
    if learner.name == "embeddings":
        found["users"] = learner.export_users(np.arange(-1, 12, dtype=np.int32))
    return found


def send_users(learner: Any, twin: Any, users: Any) -> None:
    if learner.name == "embeddings":
        twin.import_users(users, learner.export_users(users))


@pytest.mark.parametrize("name", MAKE)
@settings(max_examples=6, deadline=None)
@given(
    st.integers(0, 100),
    st.lists(
        st.tuples(st.integers(1, 1_000), st.booleans(), st.integers(0, 2**32 - 1)), min_size=1, max_size=6
    ),
)
def test_what_was_touched_makes_a_twin(name: str, seed: int, plan: list[tuple[int, bool, int]]) -> None:
    """Whatever is held back for how long, and whether dense values come before rows or after."""
    batch = interactions(seed=seed, n=4_000, n_items=N_ITEMS)
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


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 100), st.lists(st.integers(300, 550), min_size=4, max_size=6))
def test_a_recommender_that_is_fed_what_was_touched_ranks_the_same(seed: int, sizes: list[int]) -> None:
    batch = interactions(seed=seed, n=4_000, n_items=N_ITEMS)
    learners, copies = new_evidence(), new_evidence()
    mixture, twin_mixture = Mixture(), Mixture()
    original = Recommender(*learners, mixture, list_size=10, exclude_seen=True)
    twin = Recommender(*copies, twin_mixture, list_size=10, exclude_seen=True)
    start = 0
    for size in sizes:
        part = rows_of(batch, start, start + size)
        start += size
        contexts = Contexts(users=part.users, history=part.history, now_ms=int(part.ts_ms[-1]))
        targets = np.where(part.fresh & (part.weight > 0), part.items, np.int32(-1)).astype(np.int32)
        original.learn_gate(contexts, targets, part.history)
        original.learn(part)
        pairs: list[tuple[Any, Any]] = list(zip(learners, copies, strict=True))
        for learner, copy in pairs:
            keys = learner.touched()
            send_users(learner, copy, keys.users)
            copy.import_rows(keys.items, learner.export_rows(keys.items))
            copy.import_dense(learner.export_dense())
        if mixture.touched().dense:
            twin_mixture.import_dense(mixture.export_dense())
        asked = contexts_of(batch)
        unseen = np.zeros((len(asked.users), 0), dtype=np.int32)
        mine, theirs = original.rank(asked, unseen, NOTHING), twin.rank(asked, unseen, NOTHING)
        for name in mine.__struct_fields__:
            np.testing.assert_array_equal(getattr(theirs, name), getattr(mine, name), err_msg=name)


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


@pytest.mark.parametrize("make", [Gate, Mixture])
def test_the_gate_is_one_dense_value(make: Callable[[], Gate | Mixture]) -> None:
    gate, twin = make(), make()
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
