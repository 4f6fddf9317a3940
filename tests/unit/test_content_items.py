"""Items that nobody has watched are found by what they are."""

from __future__ import annotations

import numpy as np
import pytest

from learners.content_fusion import ContentFusion
from learners.content_items import ContentItems
from learners.embeddings import Embeddings
from schemas.learner import Contexts, Interactions
from schemas.runs import Float32, Int32

KINDS = 4
N_OLD, N_NEW = 60, 20
DIMS = {"text": 16, "image": 12}
H = 8


def _kind(items: Int32) -> Int32:
    return (items % KINDS).astype(np.int32)


def _events(n: int, seed: int) -> Interactions:
    """Users who stay with items of one kind, nine times of ten."""
    random = np.random.default_rng(seed)
    kind = random.integers(KINDS, size=n)
    stray = random.random((n, H + 1)) < 0.1
    items = KINDS * random.integers(N_OLD // KINDS, size=(n, H + 1)) + kind[:, None]
    items = np.where(stray, random.integers(N_OLD, size=items.shape), items).astype(np.int32)
    return Interactions(
        users=np.zeros(n, dtype=np.int32),
        items=items[:, H].copy(),
        types=np.zeros(n, dtype=np.int8),
        ts_ms=np.arange(n, dtype=np.int64),
        weight=np.ones(n, dtype=np.float32),
        history=items[:, :H].copy(),
        fresh=np.ones(n, dtype=np.bool_),
        gap_ms=np.full(n, -1, dtype=np.int64),
    )


def _vectors(item: int) -> dict[str, Float32]:
    random = np.random.default_rng([3, item])
    means = np.random.default_rng(4).normal(size=(KINDS, 28))[item % KINDS]
    x = (means + 0.5 * random.normal(size=28)).astype(np.float32)
    return {"text": x[:16], "image": x[16:]} if item % 5 else {"text": x[:16]}


@pytest.fixture(scope="module")
def learner() -> ContentItems:
    embeddings = Embeddings(dim=16, history=H, seed=1)
    learner = ContentItems(ContentFusion(DIMS, 16, seed=2), embeddings)
    for item in range(N_OLD + N_NEW):
        learner.set_item(item, _vectors(item))
    for seed in range(6):
        batch = _events(1_000, seed)
        embeddings.learn_many(batch)
        learner.learn_many(batch)
    return learner


def test_new_items_go_to_those_who_like_their_kind(learner: ContentItems) -> None:
    batch = _events(400, seed=99)
    contexts = Contexts(users=batch.users, history=batch.history, now_ms=0)
    new = np.arange(N_OLD, N_OLD + N_NEW, dtype=np.int32)
    scores = learner.predict(contexts, new)
    liked = _kind(new)[None, :] == _kind(batch.items)[:, None]
    best = liked[np.arange(400), scores.argmax(axis=1)].mean()
    assert best > 0.85  # .25 by chance, .93 is what their strays leave


def test_items_with_many_events_stay_near_their_rows(learner: ContentItems) -> None:
    old = np.arange(N_OLD, dtype=np.int32)
    blended = learner.item_vectors(old)
    rows, support = learner._rows(old)
    assert support.min() > 50
    similar = (blended * rows).sum(1) / np.linalg.norm(blended, axis=1) / np.linalg.norm(rows, axis=1)
    assert similar.min() > 0.95


def test_an_item_without_anything_scores_zero_and_an_item_may_change(learner: ContentItems) -> None:
    unknown = np.array([-1, 5_000], dtype=np.int32)
    assert not learner.known(unknown).any()
    assert (learner.item_vectors(unknown) == 0).all()
    twin = ContentItems(ContentFusion(DIMS, 16, seed=2), Embeddings(dim=16, history=H, seed=1), max_items=4)
    twin.set_item(2, _vectors(2))
    before = twin.item_vectors(np.array([2], np.int32))
    twin.set_item(2, {"text": np.full(16, np.nan, np.float32)})
    assert not twin.known(np.array([2], np.int32))[0]
    twin.set_item(2, _vectors(2))
    np.testing.assert_array_equal(twin.item_vectors(np.array([2], np.int32)), before)
    twin.set_item(4, _vectors(4))  # beyond what there may be
    assert not twin.known(np.array([4], np.int32))[0]
    with pytest.raises(ValueError, match="text"):
        twin.set_item(1, {"text": np.zeros(3, np.float32)})
