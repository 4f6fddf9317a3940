"""Items whose vector has to be earned: what the encoder makes of them before and after."""

from __future__ import annotations

import numpy as np
import pytest

from learners.embedding_options import EmbeddingOptions
from learners.embeddings import Embeddings
from learners.item_admission import MOST, ItemAdmission
from schemas.learner import Contexts, Interactions
from schemas.records import EVENT_TYPES
from schemas.runs import Float32, Int32
from schemas.settings import LearnerSettings
from tests.learner_data import interactions, rows_of, split

DIM = 16
N_ITEMS = 60


def _encoder(admission: int) -> Embeddings:
    return Embeddings(dim=DIM, history=10, seed=5, options=EmbeddingOptions(item_admission=admission))


def _events(batch: Interactions, n_items: int) -> Int32:
    """Targets and real negatives of each item, as the encoder's steps have them."""
    told = (batch.fresh & (batch.weight > 0)) | (batch.weight <= 0)  # an ignored impression counts against
    counts: Int32 = np.bincount(batch.items[told], minlength=n_items).astype(np.int32)
    return counts


def test_an_item_is_admitted_by_the_event_that_makes_it_enough() -> None:
    admission = ItemAdmission(3)
    admission.ensure(10)
    assert admission.count(np.array([4, 4, 7], dtype=np.int32)).tolist() == []
    assert admission.count(np.array([7, 4], dtype=np.int32)).tolist() == [4]
    assert admission.count(np.array([7, 4], dtype=np.int32)).tolist() == [7]
    asked = np.array([[4, 7, 0, -1, 9_999]], dtype=np.int32)
    assert admission.admits(asked).tolist() == [[True, True, False, False, False]]
    assert admission.masked(asked).tolist() == [[4, 7, -1, -1, -1]]
    admission.count(np.full(1_000, 2, dtype=np.int32))
    assert admission.hits(np.array([2], dtype=np.int32)).tolist() == [MOST]


@pytest.mark.parametrize("admission", [2, 4])
def test_rows_before_admission_stay_at_zero(admission: int) -> None:
    """No gradient, no support, no place among the nearest, however often others are learned."""
    batch = interactions(seed=7, n=1_500, n_items=N_ITEMS)
    model = _encoder(admission)
    learned = 0
    for part in split(batch, 100):
        model.learn_many(part)
        learned += len(part)
        events = _events(rows_of(batch, 0, learned), N_ITEMS)
        n = model.n_items
        few = np.flatnonzero(events[:n] < admission)
        snapshot = model.snapshot()
        assert not snapshot["item_values"][few].any()
        assert not snapshot["item_squares"][few].any()
        assert not snapshot["item_counts"][few].any()
        assert not model.export_rows(few.astype(np.int32))["held"].any()
        contexts = Contexts(users=part.users, history=part.history, now_ms=0)
        near, _ = model.top_items(model.user_vectors(contexts), n, n)
        assert not np.isin(near, few).any()
        held = np.flatnonzero(events[:n] >= admission)
        assert snapshot["item_values"][held].any(axis=1).all()
    assert (events < admission).any()
    assert len(held) > 10


def test_an_item_without_a_row_says_nothing_in_a_history() -> None:
    batch = interactions(seed=7, n=800, n_items=N_ITEMS)
    model = _encoder(4)
    model.learn_many(batch)
    unknown = int(np.flatnonzero(_events(batch, N_ITEMS)[: model.n_items] < 4)[0])
    known = int(np.argmax(model.support))
    nobody = np.array([-1], dtype=np.int32)

    def vector(*history: int) -> Float32:
        row = np.full((1, 10), -1, dtype=np.int32)
        row[0, 10 - len(history) :] = history
        return model.user_vectors(Contexts(users=nobody, history=row, now_ms=0))

    np.testing.assert_array_equal(vector(unknown, known), vector(-1, known))
    np.testing.assert_array_equal(vector(known, unknown), vector(known, -1))
    assert not model.similar(unknown, 5)[0].size
    assert model.similar(known, 5)[0].size


def test_by_default_the_first_event_admits_and_nothing_is_counted() -> None:
    """The state is that of an encoder that knows of no admission."""
    assert EmbeddingOptions.of(LearnerSettings()).item_admission == 1
    batch = interactions(seed=7, n=600, n_items=N_ITEMS)
    model = _encoder(1)
    model.learn_many(batch)
    snapshot = model.snapshot()
    assert not snapshot["item_hits"].size
    assert snapshot["item_values"].any(axis=1).all()


def test_a_step_that_is_not_finite_admits_nobody() -> None:
    batch = interactions(seed=7, n=200, n_items=N_ITEMS)
    model = _encoder(2)
    model.learn_many(rows_of(batch, 0, 100))
    before, known = model.digest(), model.n_items
    broken = rows_of(batch, 100, 104)
    held = model.export_rows(np.arange(known, dtype=np.int32))["held"]
    items = np.flatnonzero(np.logical_not(held))[:1]
    broken.items[:] = items[0]
    broken.types[:] = EVENT_TYPES.index("watch")
    broken.fresh[:], broken.weight[:] = True, np.float32(np.inf)
    model.learn_many(broken)
    assert model.discarded_steps == 1
    assert model.digest() != before  # the users' clock went on
    assert not model.export_rows(items.astype(np.int32))["held"].any()
    assert not model.snapshot()["item_values"][items].any()


@pytest.mark.parametrize(("then", "now"), [(1, 3), (3, 1), (3, 2)])
def test_another_admission_takes_effect_at_a_restart(then: int, now: int) -> None:
    batch = interactions(seed=7, n=900, n_items=N_ITEMS)
    model, restarted = _encoder(then), _encoder(now)
    model.learn_many(rows_of(batch, 0, 500))
    restarted.restore(model.snapshot())
    supported = np.flatnonzero(model.support).astype(np.int32)
    assert restarted.export_rows(supported)["held"].all()
    restarted.learn_many(rows_of(batch, 500, 900))
    assert np.isfinite(restarted.snapshot()["item_values"]).all()
