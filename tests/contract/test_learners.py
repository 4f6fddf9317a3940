"""One suite over every learner. To add one, add a line to `LEARNERS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from learners.cooccurrence import Cooccurrence
from learners.ease import Ease
from learners.heat import RoomHeat
from learners.markov import FirstOrderMarkov
from learners.popularity import Popularity
from learners.state import digest_arrays
from learners.tags import TagChain
from learners.tastes import Tastes
from learners.transitions import Transitions
from schemas.errors import StateError
from schemas.learner import Contexts, Interactions, Learner
from streams.item_contents import ItemContents
from tests.learner_data import contexts_of, interactions, split
from tests.learner_makers import (
    ENCODERS,
    TaggedItems,
    content_items,
    encoder,
    item_contents,
    item_probability,
    ranked_gate,
    ranked_mixture,
)

HOUR_MS = 3_600_000
N_ITEMS = 40


def _tag_chain() -> TagChain:
    chain = TagChain(6 * HOUR_MS)
    for item in range(N_ITEMS - 5):
        chain.set_item_tags(item, [f"t{item % 7}", f"t{item % 3}"][: 1 + item % 2])
    return chain


def _tastes() -> Tastes:
    tastes = Tastes()
    for item in range(N_ITEMS - 5):
        tastes.set_item(item, [item % 7, 7 + item % 3][: 1 + item % 2], [item % 5])
    return tastes


LEARNERS: dict[str, Callable[[], Learner]] = {
    "transitions": lambda: Transitions(8, half_life_ms=HOUR_MS),
    "transitions without decay": lambda: Transitions(64),
    "markov": lambda: FirstOrderMarkov(4),
    "popularity": lambda: Popularity((HOUR_MS, 24.0 * HOUR_MS)),
    "heat": lambda: RoomHeat(HOUR_MS),
    "cooccurrence": lambda: Cooccurrence(8, window=10),
    "ease": lambda: Ease(24, width=8),
    "tags": _tag_chain,
    "gate": ranked_gate,
    "mixture": ranked_mixture,
    "tastes": _tastes,
    "probability": item_probability,
    "probability with attention": lambda: item_probability(attention=True),
    "content": content_items,
    "content side by side": lambda: content_items("concat"),
    "content of records": item_contents,
    "tagger": lambda: TaggedItems("gate"),
    "tagger side by side": lambda: TaggedItems("concat"),
    **{name: encoder(name) for name in ENCODERS},
}
FOLDS_EXACTLY = frozenset(
    name
    for name in LEARNERS
    if not name.startswith(("content", "embeddings", "ease", "gate", "mixture", "tagger"))
)
"""Learners whose learn_many equals folding one event at a time, bit by bit."""


@pytest.fixture(params=LEARNERS)
def make(request: pytest.FixtureRequest) -> Callable[[], Learner]:
    return LEARNERS[request.param]


@pytest.fixture
def batch() -> Interactions:
    return interactions(seed=3, n=1_500, n_items=N_ITEMS)


def _candidates() -> Any:
    return np.array([0, 3, 3, N_ITEMS - 1, N_ITEMS + 1_000, 7], dtype=np.int32)


def _columns(batch: Interactions) -> dict[str, Any]:
    return {name: getattr(batch, name).copy() for name in Interactions.__struct_fields__}


def test_follows_the_protocol(make: Callable[[], Learner]) -> None:
    learner = make()
    assert isinstance(learner, Learner)
    assert learner.name
    assert learner.name == make().name


def test_works_cold(make: Callable[[], Learner], batch: Interactions) -> None:
    learner = make()
    nobody = Contexts(
        users=np.full(3, -1, dtype=np.int32), history=np.full((3, 10), -1, dtype=np.int32), now_ms=0
    )
    for contexts in (contexts_of(batch), nobody):
        scores = learner.predict(contexts, _candidates())
        assert scores.shape == (len(contexts.users), 6)
        assert scores.dtype == np.float32
        assert np.isfinite(scores).all()
    assert learner.predict(nobody, np.zeros(0, dtype=np.int32)).shape == (3, 0)


def test_an_empty_batch_changes_nothing(make: Callable[[], Learner], batch: Interactions) -> None:
    learner = make()
    learner.learn_many(batch)
    before = learner.digest()
    learner.learn_many(next(split(batch, 1)).__class__(**{n: c[:0] for n, c in _columns(batch).items()}))
    assert learner.digest() == before


def test_learning_changes_the_digest(make: Callable[[], Learner], batch: Interactions) -> None:
    learner = make()
    before = learner.digest()
    learner.learn_many(batch)
    assert learner.digest() != before


def test_predict_is_pure(make: Callable[[], Learner], batch: Interactions) -> None:
    learner = make()
    learner.learn_many(batch)
    before = learner.digest()
    state = digest_arrays(learner.snapshot())
    contexts = contexts_of(batch)
    first = learner.predict(contexts, _candidates())
    again = learner.predict(contexts, _candidates())
    np.testing.assert_array_equal(first, again)
    assert np.isfinite(first).all()
    np.testing.assert_array_equal(first[:, 1], first[:, 2])  # a candidate given twice scores the same
    assert learner.digest() == before
    assert digest_arrays(learner.snapshot()) == state


def test_learning_leaves_its_batch_alone(make: Callable[[], Learner], batch: Interactions) -> None:
    before = _columns(batch)
    make().learn_many(batch)
    for name, column in _columns(batch).items():
        np.testing.assert_array_equal(column, before[name])


def test_same_events_same_digest(make: Callable[[], Learner], batch: Interactions) -> None:
    one, other = make(), make()
    for part in split(batch, 128):
        one.learn_many(part)
        other.learn_many(part)
    assert one.digest() == other.digest()


@pytest.mark.parametrize("name", sorted(FOLDS_EXACTLY))
@pytest.mark.parametrize("size", [1, 7])
def test_learn_many_is_the_fold(name: str, size: int, batch: Interactions) -> None:
    whole, folded = LEARNERS[name](), LEARNERS[name]()
    whole.learn_many(batch)
    for part in split(batch, size):
        folded.learn_many(part)
    assert whole.digest() == folded.digest()


def test_restore_of_a_snapshot_is_identity(make: Callable[[], Learner], batch: Interactions) -> None:
    first, *rest = split(batch, 1_000)
    learner, twin = make(), make()
    learner.learn_many(first)
    snapshot = learner.snapshot()
    twin.restore(snapshot)
    assert twin.digest() == learner.digest()
    assert digest_arrays(twin.snapshot()) == digest_arrays(snapshot)
    contexts = contexts_of(batch)
    np.testing.assert_array_equal(
        twin.predict(contexts, _candidates()), learner.predict(contexts, _candidates())
    )
    for part in rest:
        learner.learn_many(part)
        twin.learn_many(part)
    assert twin.digest() == learner.digest()


def test_restore_replaces_what_was_there(make: Callable[[], Learner], batch: Interactions) -> None:
    empty, learned = make(), make()
    snapshot = empty.snapshot()
    learned.learn_many(batch)
    learned.restore(snapshot)
    assert learned.digest() == empty.digest()
    learned.learn_many(batch)
    empty.learn_many(batch)
    assert learned.digest() == empty.digest()


def test_nothing_is_aliased(make: Callable[[], Learner], batch: Interactions) -> None:
    learner, twin = make(), make()
    learner.learn_many(batch)
    before = learner.digest()
    snapshot = learner.snapshot()
    frozen = {name: array.copy() for name, array in snapshot.items()}
    twin.restore(snapshot)
    twin.learn_many(batch)
    learner.touched()
    assert digest_arrays(snapshot) == digest_arrays(frozen)
    for array in snapshot.values():
        array[...] = np.zeros((), dtype=array.dtype)
    assert learner.digest() == before


def test_a_damaged_snapshot_is_refused_and_harmless(make: Callable[[], Learner], batch: Interactions) -> None:
    learner = make()
    learner.learn_many(batch)
    before, snapshot = learner.digest(), learner.snapshot()
    for name in snapshot:
        with pytest.raises(StateError, match=name):
            learner.restore({key: array for key, array in snapshot.items() if key != name})
        assert learner.digest() == before


def test_touched_keys_are_drained(make: Callable[[], Learner], batch: Interactions) -> None:
    learner = make()
    learner.learn_many(batch)
    before = learner.digest()
    keys = learner.touched()
    published = not isinstance(learner, ItemContents)  # rankers of other processes know no content
    assert (len(keys.items) + len(keys.users) + len(keys.dense) > 0) == published
    assert len(np.unique(keys.items)) == len(keys.items)
    assert set(keys.items.tolist()) <= set(batch.items.tolist()) | set(batch.history.ravel().tolist())
    assert learner.digest() == before
    again = learner.touched()
    assert len(again.items) + len(again.users) + len(again.dense) == 0


def test_state_is_bounded(make: Callable[[], Learner], batch: Interactions) -> None:
    learner = make()
    sizes = []
    for _ in range(4):
        learner.learn_many(batch)
        sizes.append(sum(array.nbytes for array in learner.snapshot().values()))
    assert sizes[-1] == sizes[0]


BOUNDED: dict[str, Callable[[], Learner]] = {
    "transitions": lambda: Transitions(8, half_life_ms=HOUR_MS, max_items=32),
    "markov": lambda: FirstOrderMarkov(4, max_items=32),
    "popularity": lambda: Popularity((HOUR_MS, 24.0 * HOUR_MS), max_items=32),
    "heat": lambda: RoomHeat(HOUR_MS, max_items=32),
    "cooccurrence": lambda: Cooccurrence(8, window=10, max_items=32),
    "ease": lambda: Ease(16, width=8, max_items=32),
}


@pytest.mark.parametrize("name", BOUNDED)
def test_rows_are_bounded_whatever_comes(name: str, batch: Interactions) -> None:
    learner = BOUNDED[name]()
    for _ in range(2):
        learner.learn_many(batch)
    size = sum(array.nbytes for array in learner.snapshot().values())
    for step in range(1, 5):
        columns = _columns(batch)
        columns["items"] = columns["items"] * 7**step
        columns["history"] = np.where(columns["history"] >= 0, columns["history"] * 5**step, -1)
        columns["history"] = columns["history"].astype(np.int32)
        columns["users"] += 1_000 * step
        columns["ts_ms"] += 10_000_000_000 * step
        learner.learn_many(Interactions(**columns))
    state = learner.snapshot()
    assert sum(array.nbytes for array in state.values()) == size
    assert learner.touched().items.max(initial=0) < 32
    scores = learner.predict(contexts_of(batch), _candidates())
    assert np.isfinite(scores).all()
    for row in state.get("nbr", np.zeros((0, 0), dtype=np.int32)):
        held = row[row >= 0]
        assert len(np.unique(held)) == len(held)
        assert (row[len(held) :] == -1).all()


def test_negatives_teach_no_visits(make: Callable[[], Learner], batch: Interactions) -> None:
    learner = make()
    learner.learn_many(batch)
    contexts, before = contexts_of(batch), learner.digest()
    scores = learner.predict(contexts, _candidates())
    columns = _columns(batch)
    columns["weight"] = -np.abs(columns["weight"])
    columns["fresh"][:] = False
    columns["ts_ms"][:] = batch.ts_ms.max()
    learner.learn_many(Interactions(**columns))
    if learner.name == "heat":  # who leaves a room cools it, whatever it says of a taste
        assert (learner.predict(contexts, _candidates()) <= scores).all()
    elif learner.name not in {"embeddings", "probability", "tastes"}:  # what was refused teaches these
        assert learner.digest() == before
        np.testing.assert_array_equal(scores, learner.predict(contexts, _candidates()))
