"""What the embeddings do beyond the learner contract."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from learners.device import resolve_device
from learners.embedding_rows import gaussian_rows
from learners.embeddings import Embeddings
from learners.nearest import best_items
from learners.negatives import NegativeSampler
from schemas.errors import ConfigurationError, StateError
from schemas.learner import Contexts, Interactions
from schemas.runs import Int32

N_USERS, N_ITEMS, H = 40, 60, 6


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Steps this small lose by threads, and much where cores are shared."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _stream(n: int, seed: int = 0) -> Interactions:
    """Users who walk along a ring of items, mostly one step at a time."""
    rng = np.random.default_rng(seed)
    users = rng.integers(0, N_USERS, n).astype(np.int32)
    at = rng.integers(0, N_ITEMS, N_USERS)
    past: list[list[int]] = [[] for _ in range(N_USERS)]
    items = np.empty(n, dtype=np.int32)
    history = np.full((n, H), -1, dtype=np.int32)
    for i, user in enumerate(users.tolist()):
        at[user] = (at[user] + 1) % N_ITEMS if rng.random() < 0.9 else rng.integers(N_ITEMS)
        items[i] = at[user]
        if past[user]:
            history[i, -len(past[user]) :] = past[user]
        past[user] = [*past[user], int(at[user])][-H:]
    return Interactions(
        users=users, items=items, types=np.zeros(n, np.int8), ts_ms=np.arange(n, dtype=np.int64),
        weight=np.ones(n, np.float32), history=history, fresh=np.ones(n, np.bool_),
        gap_ms=np.full(n, -1, np.int64),
    )  # fmt: skip


def _with(batch: Interactions, **columns: NDArray[np.generic]) -> Interactions:
    return Interactions(**({name: getattr(batch, name) for name in Interactions.__struct_fields__} | columns))


def _part(batch: Interactions, start: int, stop: int) -> Interactions:
    return Interactions(**{name: getattr(batch, name)[start:stop] for name in Interactions.__struct_fields__})


def _contexts(batch: Interactions) -> Contexts:
    return Contexts(users=batch.users, history=batch.history, now_ms=0)


@pytest.fixture
def learned() -> Embeddings:
    model = Embeddings(dim=16, history=H, seed=1)
    model.learn_many(_stream(6_000))
    return model


def test_learns_to_predict_the_next_item(learned: Embeddings) -> None:
    held_out = _stream(500, seed=9)
    vectors = learned.user_vectors(_contexts(held_out))
    top, _ = learned.top_items(vectors, 3, N_ITEMS)
    known = held_out.history[:, -1] >= 0
    hits = (top == held_out.items[:, None]).any(axis=1)[known]
    assert hits.mean() > 0.7  # 0.9 is possible, 0.05 is chance


def test_lists_equal_a_full_sort(learned: Embeddings) -> None:
    contexts = _contexts(_stream(50, seed=2))
    vectors = learned.user_vectors(contexts)
    scores = vectors @ learned.item_matrix().T
    order = np.argsort(-scores, axis=1)[:, :10]
    ranked = learned.ranked(vectors, 10, N_ITEMS)
    np.testing.assert_array_equal(ranked.items, order)
    np.testing.assert_allclose(ranked.logits, np.take_along_axis(scores, order, axis=1), rtol=1e-5)
    np.testing.assert_allclose(ranked.log_z, np.log(np.exp(scores).sum(axis=1)), rtol=1e-5)
    np.testing.assert_array_equal(learned.normaliser(vectors, N_ITEMS), ranked.log_z)
    first_half, _ = learned.top_items(vectors, N_ITEMS, 30)
    assert first_half.max() < 30
    assert (first_half[:, 30:] == -1).all()
    np.testing.assert_allclose(
        learned.predict(contexts, ranked.items[0]), scores[:, ranked.items[0]], rtol=1e-4, atol=1e-5
    )


def test_only_items_with_support_are_found(learned: Embeddings) -> None:
    learned.ensure(500, 10)
    vectors = learned.user_vectors(_contexts(_stream(5)))
    ranked = learned.ranked(vectors, 200, 500)
    assert ranked.items.max() < N_ITEMS
    assert (ranked.items[:, N_ITEMS:] == -1).all()
    assert np.isneginf(ranked.logits[:, N_ITEMS:]).all()
    assert learned.support[N_ITEMS:].sum() == 0
    cold = Embeddings(dim=16, history=H)
    cold.ensure(10, 1)
    nothing = cold.ranked(np.zeros((2, 16), np.float32), 3, 10)
    assert (nothing.items == -1).all()
    np.testing.assert_allclose(nothing.log_z, np.log(10))


def test_relevance_is_the_sigmoid_of_the_logit(learned: Embeddings) -> None:
    vectors = learned.user_vectors(_contexts(_stream(4)))
    top, logits = learned.top_items(vectors, 5, N_ITEMS)
    np.testing.assert_allclose(learned.relevance(vectors, top), 1 / (1 + np.exp(-logits)), rtol=1e-4)
    huge = learned.relevance(vectors * 1e4, np.full((4, 1), -1, np.int32))
    np.testing.assert_array_equal(huge, 0)


def test_neighbours_on_the_ring_are_similar(learned: Embeddings) -> None:
    found, cosines = learned.similar(10, 5)
    assert len(found) == 5
    assert 10 not in found
    assert (np.diff(cosines) <= 0).all()
    assert np.abs(cosines).max() <= 1.0 + 1e-5
    assert len(learned.similar(10_000, 5)[0]) == 0


def test_growth_order_does_not_matter() -> None:
    at_once, in_steps = Embeddings(dim=16, seed=3), Embeddings(dim=16, seed=3)
    at_once.ensure(1_000, 1)
    for n in (1, 70, 129, 1_000):
        in_steps.ensure(n, 1)
    np.testing.assert_array_equal(at_once.item_matrix(), in_steps.item_matrix())
    rows = gaussian_rows(0, 4_000, 16, 1.0, 3)
    assert rows.mean() == pytest.approx(0, abs=0.005)
    assert rows.std() == pytest.approx(0.25, rel=0.02)


def test_same_seed_and_batches_same_digest_and_another_seed_another() -> None:
    stream = _stream(1_500)
    models = [Embeddings(dim=16, history=H, seed=seed) for seed in (1, 1, 2)]
    for model in models:
        for start in range(0, 1_500, 200):
            model.learn_many(_part(stream, start, start + 200))
    digests = [model.digest() for model in models]
    assert digests[0] == digests[1] != digests[2]


def test_real_negatives_push_their_item_down(learned: Embeddings) -> None:
    stream = _stream(300, seed=5)
    contexts = _contexts(stream)
    item = np.array([stream.items[0]], dtype=np.int32)
    drops = []
    for weight in (0.0, -1.0):
        model = Embeddings(dim=16, history=H, seed=1)
        model.restore(learned.snapshot())
        before = model.predict(contexts, item).mean()
        model.learn_many(_with(stream, items=np.repeat(item, 300), weight=np.full(300, weight, np.float32)))
        drops.append(before - model.predict(contexts, item).mean())
        assert model.support[item[0]] == learned.support[item[0]]
    assert drops[0] > 0
    assert drops[1] > 0


def test_user_rows_only_for_users_with_a_positive() -> None:
    stream = _stream(200)
    model = Embeddings(dim=16, history=H)
    model.learn_many(_with(stream, weight=np.full(200, -1, np.float32), users=stream.users + np.int32(100)))
    assert len(model.snapshot()["users"]) == 0
    model.learn_many(stream)
    assert sorted(model.snapshot()["users"].tolist()) == np.unique(stream.users).tolist()


def test_a_positive_that_is_not_fresh_teaches_nothing(learned: Embeddings) -> None:
    before = learned.digest()
    learned.learn_many(_with(_stream(100), fresh=np.zeros(100, np.bool_)))
    assert learned.digest() == before


@pytest.mark.parametrize("weight", [np.inf, 1e38])
def test_a_step_that_is_not_finite_is_discarded_whole(learned: Embeddings, weight: float) -> None:
    stream = _stream(60, seed=8)  # one step
    before = learned.digest()
    learned.touched()
    bad = stream.weight.copy()
    bad[50] = weight
    learned.learn_many(_with(stream, weight=bad))
    assert learned.discarded_steps == 1
    assert learned.digest() == before
    assert len(learned.touched().items) == 0
    learned.learn_many(stream)
    assert learned.discarded_steps == 1
    assert learned.digest() != before


def test_unknown_slots_are_padding_and_longer_histories_are_cut(learned: Embeddings) -> None:
    before = learned.digest()
    history = np.array([[-1, -1, -1, -1, 4, 5]], dtype=np.int32)
    longer = np.concatenate([np.array([[9_999, 1]], dtype=np.int32), history], axis=1)
    users = np.array([123_456], dtype=np.int32)
    a = learned.user_vectors(Contexts(users=users, history=history, now_ms=0))
    b = learned.user_vectors(Contexts(users=users, history=longer, now_ms=0))
    c = learned.user_vectors(Contexts(users=users, history=np.array([[9_999, 4, 5]], np.int32), now_ms=0))
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(a, c, rtol=1e-5)
    assert learned.digest() == before


def test_state_of_other_settings_is_refused(learned: Embeddings) -> None:
    with pytest.raises(StateError, match="dim 16"):
        Embeddings(dim=8, history=H, seed=1).restore(learned.snapshot())


def test_negatives_follow_the_square_root_of_the_count() -> None:
    sampler = NegativeSampler(seed=7)
    sampler.ensure(5)
    assert len(sampler.draw(3)) == 0
    items: Int32 = np.repeat(np.arange(4, dtype=np.int32), [1, 4, 0, 16])
    sampler.add(items[::-1].copy())
    shares = np.bincount(sampler.draw(70_000), minlength=4) / 70_000
    np.testing.assert_allclose(shares, np.array([1, 2, 0, 4]) / 7, atol=0.006)
    np.testing.assert_allclose(sampler.shares(np.array([0, 1, 3], np.int32)), np.array([1, 2, 4]) / 7)
    again = NegativeSampler(seed=7)
    again.load(sampler.counts[:4], sampler.drawn)
    np.testing.assert_array_equal(again.draw(100), sampler.draw(100))


@pytest.mark.parametrize(("n", "k"), [(1, 3), (7, 3), (100, 40), (5_000, 20), (700_000, 2)])
def test_best_items_of_any_size(n: int, k: int) -> None:
    generator = torch.Generator().manual_seed(n)
    matrix, vectors = torch.randn(n, 4, generator=generator), torch.randn(3, 4, generator=generator)
    found = best_items(vectors, matrix, torch.zeros(n), k, normalise=True)
    scores = vectors @ matrix.T
    best = torch.topk(scores, min(k, n), dim=1)
    np.testing.assert_allclose(found.logits[:, : min(k, n)], best.values.numpy(), rtol=1e-5)
    np.testing.assert_allclose(found.log_z, torch.logsumexp(scores, 1).numpy(), rtol=1e-5, atol=1e-5)
    assert (found.items[:, min(k, n) :] == -1).all()


@pytest.mark.parametrize("n", [40, 3_000])
def test_of_equal_scores_the_first_item_comes_first_and_closed_ones_are_not_found(n: int) -> None:
    vectors, matrix, closed = torch.ones(2, 4), torch.zeros(n, 4), torch.zeros(n)
    matrix[n - 2] = 1.0
    closed[:5] = -torch.inf
    found = best_items(vectors, matrix, closed, 4, normalise=True)
    assert found.items.tolist() == 2 * [[n - 2, 5, 6, 7]]
    np.testing.assert_allclose(found.log_z, np.log(np.exp(4.0) + n - 6), rtol=1e-5)
    nothing = best_items(vectors, matrix, torch.full((n,), -torch.inf), 4, normalise=True)
    assert (nothing.items == -1).all()
    np.testing.assert_allclose(nothing.log_z, np.log(n), rtol=1e-5)


def test_devices() -> None:
    assert resolve_device("auto").type in {"cpu", "cuda"}
    with pytest.raises(ConfigurationError, match="not one of"):
        resolve_device("tpu-please")
    with pytest.raises(ConfigurationError, match="not one of"):
        resolve_device("meta")
    with pytest.raises(ConfigurationError, match="asked for"):
        resolve_device("cuda:63")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_learns_the_same() -> None:
    stream = _stream(1_000)
    models = [Embeddings(dim=16, history=H, seed=1, device=resolve_device(name)) for name in ("cpu", "cuda")]
    for model in models:
        model.learn_many(stream)
    on_cpu, on_gpu = (model.user_vectors(_contexts(stream)) for model in models)
    np.testing.assert_allclose(on_gpu, on_cpu, rtol=0.01, atol=0.01)
    np.testing.assert_array_equal(models[0].support, models[1].support)
    ranked = [model.ranked(on_cpu, 5, N_ITEMS) for model in models]
    np.testing.assert_allclose(ranked[1].log_z, ranked[0].log_z, atol=0.01)
