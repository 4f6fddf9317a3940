"""The hand-written step against autograd, finite sums, and its tensor form for the GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from learners.embedding_step import StepInput, encode, gradients, pool_tensors, unpool_tensors

B, P, H, D, R, C, U = 9, 6, 5, 8, 30, 14, 4


def _step() -> tuple[StepInput, Tensor, Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(4)
    history = rng.integers(0, R, (B, H)).astype(np.int32)
    history[0] = -1
    history[1, :3] = -1
    target = rng.integers(0, R, P).astype(np.int32)
    target[0], target[1] = 3, 3
    hits = np.flatnonzero(target < C)

    def normal(*shape: int) -> Tensor:
        return torch.from_numpy(rng.normal(0, 0.5, shape).astype(np.float32))

    step = StepInput(
        history=torch.from_numpy(history),
        user=torch.from_numpy(rng.integers(0, U, B).astype(np.int32)),
        weight=torch.from_numpy(rng.uniform(0.1, 2, B).astype(np.float32)),
        target=torch.from_numpy(target),
        target_correction=normal(P),
        correction=normal(C),
        hit_rows=torch.from_numpy(hits),
        hit_columns=torch.from_numpy(target[hits].astype(np.int64)),
        negative=torch.from_numpy(rng.integers(0, R, B - P).astype(np.int32)),
    )
    return step, normal(R, D), normal(U, D), normal(D, 2 * D), normal(H)


def _loss(step: StepInput, items: Tensor, users: Tensor, mixing: Tensor, positions: Tensor) -> Tensor:
    """The docstring's equations, row by row."""
    loss = torch.zeros((), dtype=items.dtype)
    for b in range(B):
        valid = [j for j in range(H) if step.history[b, j] >= 0]
        x = torch.zeros(2 * D, dtype=items.dtype)
        if valid:
            w = torch.softmax(positions[valid], 0)
            rows = items[step.history[b, valid].long()]
            x = torch.cat([rows[-1], (w[:, None] * rows).sum(0)])
        f = mixing @ x + users[step.user[b].long()]
        if b < P:
            t = int(step.target[b])
            own = f @ items[t] + step.target_correction[b]
            others = [f @ items[c] + step.correction[c] for c in range(C) if c != t]
            loss = loss + step.weight[b] * (torch.logsumexp(torch.stack([own, *others]), 0) - own)
        else:
            z = f @ items[int(step.negative[b - P])]
            loss = loss + step.weight[b] * torch.nn.functional.softplus(z)
    return loss


def test_gradients_equal_autograd_of_the_written_loss() -> None:
    step, *parameters = _step()
    found = gradients(step, *parameters)
    leaves = [parameter.double().requires_grad_() for parameter in parameters]
    loss = _loss(step, *leaves)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(found.loss) == pytest.approx(float(loss.detach()), rel=1e-5)
    for ours, leaf in zip((found.items, found.users, found.mixing, found.positions), leaves, strict=True):
        assert leaf.grad is not None
        torch.testing.assert_close(ours.double(), leaf.grad, rtol=1e-4, atol=1e-5)


def test_tensor_form_of_the_pooling_equals_the_compiled_one() -> None:
    step, items, users, mixing, positions = _step()
    _, x, w = encode(items, step.history, positions, mixing, users, step.user)
    inputs, weights = pool_tensors(items, step.history, torch.exp(positions - positions.max()))
    torch.testing.assert_close(inputs, x)
    torch.testing.assert_close(weights, w)
    d_x = torch.ones_like(x)
    d_items = torch.zeros_like(items)
    unpool_tensors(items, step.history, weights, d_x, d_items)
    leaf = items.clone().requires_grad_()
    pool_tensors(leaf, step.history, torch.exp(positions - positions.max()))[0].sum().backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(d_items, leaf.grad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_gpu_gives_the_same_gradients() -> None:
    step, *parameters = _step()
    on_gpu = gradients(
        StepInput(*(tensor.cuda() for tensor in step)), *(parameter.cuda() for parameter in parameters)
    )
    for ours, theirs in zip(gradients(step, *parameters), on_gpu, strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-4, atol=1e-5)
