"""Steps as a GPU takes them: padding changes nothing, the same bits each time, and what a CPU learns."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from learners.device import resolve_device
from learners.embedding_graphs import StepBuffers, StepShape, found_of
from learners.embedding_options import EmbeddingOptions, Loss
from learners.embedding_step import Dense, StepArrays, StepInput
from learners.embeddings import Embeddings
from learners.row_sums import add_rows
from schemas.learner import Contexts, Interactions
from tests.unit.test_embeddings import N_ITEMS, N_USERS, H, _stream, _with

D, R, U = 8, 40, 5
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")


def step_of(rng: np.random.Generator, p: int, q: int, c: int) -> StepArrays:
    b = p + q
    history = rng.integers(-1, R, (b, H)).astype(np.int32)
    history[: b // 3] = -1
    return StepArrays(
        history=history,
        user=rng.integers(0, U, b).astype(np.int32),
        weight=rng.uniform(0.1, 2.0, b).astype(np.float32),
        target=rng.integers(0, R, p).astype(np.int32),
        target_correction=rng.normal(size=p).astype(np.float32),
        correction=rng.normal(size=c).astype(np.float32),
        share=np.full(c, 1 / max(c, 1), np.float32),
        negative=rng.integers(0, R, q).astype(np.int32),
    )


def dense_of(heads: int) -> Dense:
    torch.manual_seed(0)
    shapes = ((D, 2 * D), (H,), (D,), (heads * D, D), (heads, H), (D, heads * D))
    return Dense(*(torch.randn(*shape) for shape in shapes))


@pytest.mark.parametrize("loss", ["softmax", "bce", "bpr"])
@pytest.mark.parametrize("heads", [0, 2])
@pytest.mark.parametrize(("p", "q", "c"), [(6, 5, 9), (16, 0, 20), (0, 7, 3), (1, 1, 1), (5, 3, 0)])
def test_padding_changes_nothing(p: int, q: int, c: int, heads: int, loss: Loss) -> None:
    rng = np.random.default_rng(p)
    options = EmbeddingOptions(step_targets=16, negatives=20, loss=loss, heads=heads)
    step, dense = step_of(rng, p, q, c), dense_of(heads)
    items, users = (torch.from_numpy(rng.normal(size=(n, D)).astype(np.float32)) for n in (R, U))
    shape = StepShape.of(step, R, options)
    assert shape.targets >= p
    assert shape.negatives >= q
    assert shape.drawn > c
    assert shape.items >= R
    buffers = StepBuffers(shape, torch.device("cpu"))
    slots, held = np.arange(R, dtype=np.int32), np.arange(U, dtype=np.int32)
    buffers.fill(step_of(rng, 16, 32, 20), slots, held)  # something else stood there before
    buffers.fill(step, slots, held)
    found = found_of(buffers.input, _padded(items, shape.items), _padded(users, shape.rows), dense, options)
    wanted = found_of(StepInput.of(step), items, users, dense, options)
    assert bool(found.finite)
    assert not found.gradients.items[R:].any()
    assert not found.gradients.users[U:].any()
    torch.testing.assert_close(found.gradients.loss, wanted.gradients.loss)
    torch.testing.assert_close(found.gradients.items[:R], wanted.gradients.items)
    torch.testing.assert_close(found.gradients.users[:U], wanted.gradients.users)
    for ours, theirs in zip(found.gradients.dense, wanted.gradients.dense, strict=True):
        if heads or len(ours):
            torch.testing.assert_close(ours, theirs)


def test_what_is_not_finite_shows_in_a_padded_step_too() -> None:
    rng = np.random.default_rng(0)
    options = EmbeddingOptions(step_targets=16, negatives=20)
    step = step_of(rng, 6, 5, 9)
    step.weight[2] = np.inf
    buffers = StepBuffers(StepShape.of(step, R, options), torch.device("cpu"))
    buffers.fill(step, np.arange(R, dtype=np.int32), np.arange(U, dtype=np.int32))
    items, users = torch.ones(buffers.shape.items, D), torch.zeros(buffers.shape.rows, D)
    assert not bool(found_of(buffers.input, items, users, dense_of(0), options).finite)


def test_there_are_few_shapes() -> None:
    options, rng = EmbeddingOptions(), np.random.default_rng(0)
    shapes = {
        StepShape.of(step_of(rng, p, q, 9), n, options)
        for p in (0, 1, 40, 64)
        for q in (0, 3, 32, 33, 200, 448)
        for n in (1, 900, 1_500, 4_000, 4_097)
    }
    assert len(shapes) == 3 * 3


def test_equal_rows_add_up() -> None:
    target = torch.zeros(4, 2)
    rows = torch.tensor([1, -1, 1, 3, -1], dtype=torch.int32)
    values = torch.tensor([[1.0, 2], [0, 0], [3, 4], [5, 6], [0, 0]])
    add_rows(target, rows, values)
    assert target.tolist() == [[0, 0], [4, 6], [0, 0], [5, 6]]


def _padded(rows: Tensor, n: int) -> Tensor:
    return torch.cat([rows, rows[:1].expand(n - len(rows), -1)])  # as gathered: a real row


# -- on a GPU -----------------------------------------------------------------------------------

VARIANTS = {
    "default": EmbeddingOptions(),
    "heads": EmbeddingOptions(heads=2),
    "shifted, in batch": EmbeddingOptions(shifts=2, in_batch=True),
    "bpr": EmbeddingOptions(loss="bpr"),
    "bce": EmbeddingOptions(loss="bce"),
    "adam": EmbeddingOptions(optimizer="adam"),
    "sgd": EmbeddingOptions(optimizer="sgd"),
    "admission": EmbeddingOptions(item_admission=3, user_admission=2),
    "idle users": EmbeddingOptions(user_idle_ms=40),
}


def mixed(n: int, seed: int = 0) -> Interactions:
    """Targets, real negatives, and events that teach nothing."""
    stream, rng = _stream(n, seed), np.random.default_rng(seed)
    return _with(
        stream,
        weight=rng.choice(np.array([1.0, 0.4, 0.0, -0.7], np.float32), n),
        fresh=rng.random(n) < 0.9,
    )


def model_on(name: str, options: EmbeddingOptions) -> Embeddings:
    return Embeddings(dim=16, history=H, seed=1, device=resolve_device(name), options=options)


@on_gpu
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gpu_learns_what_a_cpu_learns(variant: str) -> None:
    models = [model_on(name, VARIANTS[variant]) for name in ("cpu", "cuda")]
    stream = mixed(1_200)
    for model in models:
        model.learn_many(stream)
    contexts = Contexts(users=stream.users, history=stream.history, now_ms=0)
    on_cpu, there = (model.user_vectors(contexts) for model in models)
    np.testing.assert_allclose(there, on_cpu, rtol=0.02, atol=0.02)
    np.testing.assert_allclose(models[1].item_matrix(), models[0].item_matrix(), rtol=0.02, atol=0.02)
    np.testing.assert_array_equal(models[1].support, models[0].support)


@on_gpu
@pytest.mark.parametrize("variant", VARIANTS)
def test_a_gpu_gives_the_same_bits_each_time_and_after_a_restore(variant: str) -> None:
    first, second, third = (model_on("cuda", VARIANTS[variant]) for _ in range(3))
    parts = [mixed(700, seed) for seed in range(4)]
    for part in parts:
        first.learn_many(part)
        second.learn_many(part)
    assert first.digest() == second.digest()
    for part in parts[:2]:
        third.learn_many(part)
    fourth = model_on("cuda", VARIANTS[variant])
    fourth.learn_many(mixed(300, 9))  # graphs are there already
    fourth.restore(third.snapshot())
    for part in parts[2:]:
        fourth.learn_many(part)
    assert fourth.digest() == first.digest()


@on_gpu
def test_a_gpu_takes_no_step_that_is_not_finite() -> None:
    model = model_on("cuda", EmbeddingOptions())
    model.learn_many(mixed(500))
    before = model.item_matrix().copy()
    bad = mixed(40, 3)
    model.learn_many(_with(bad, weight=np.full(40, np.inf, np.float32), fresh=np.ones(40, np.bool_)))
    assert model.discarded_steps == 1
    np.testing.assert_array_equal(model.item_matrix(), before)
    model.learn_many(mixed(40, 4))
    assert model.discarded_in_a_row == 0
    assert not np.array_equal(model.item_matrix(), before)


@on_gpu
def test_the_copy_on_the_host_follows_the_table_of_a_gpu() -> None:
    model = model_on("cuda", EmbeddingOptions())
    for seed in range(3):
        model.learn_many(mixed(200, seed))
        model.ensure(N_ITEMS + 50 * seed, N_USERS)
        np.testing.assert_array_equal(
            model.item_matrix(), model.item_vectors(torch.arange(model.n_items).cuda()).cpu().numpy()
        )
    model.learn_many(_with(_stream(3), weight=np.ones(3, np.float32)))  # a few rows only
    np.testing.assert_array_equal(
        model.item_matrix(), model.item_vectors(torch.arange(model.n_items).cuda()).cpu().numpy()
    )
