"""The hand-written step against autograd, finite sums, and its tensor form for the GPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from learners.embedding_attention import attend, attend_tensors, unattend, unattend_tensors
from learners.embedding_losses import BCE_NEGATIVES
from learners.embedding_options import Loss
from learners.embedding_step import Dense, StepInput, encode, gradients, pool_tensors, unpool_tensors

B, P, H, D, R, C, U, N = 9, 6, 5, 8, 30, 14, 4, 2


def _step(heads: int = N) -> tuple[StepInput, Tensor, Tensor, Dense]:
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
        share=torch.softmax(normal(C), 0),
        hit_rows=torch.from_numpy(hits),
        hit_columns=torch.from_numpy(target[hits].astype(np.int64)),
        negative=torch.from_numpy(rng.integers(0, R, B - P).astype(np.int32)),
    )
    dense = Dense(
        normal(D, 2 * D), normal(H), normal(D), normal(heads * D, D), normal(heads, H), normal(D, heads * D)
    )
    return step, normal(R, D), normal(U, D), dense


def _loss(step: StepInput, items: Tensor, users: Tensor, dense: Dense, kind: Loss) -> Tensor:
    """The docstrings' equations, row by row."""
    loss = torch.zeros((), dtype=items.dtype)
    softplus = torch.nn.functional.softplus
    for b in range(B):
        valid = [j for j in range(H) if step.history[b, j] >= 0]
        f = dense.origin + users[step.user[b].long()]
        if valid:
            w = torch.softmax(dense.positions[valid], 0)
            rows = items[step.history[b, valid].long()]
            f = f + dense.mixing @ torch.cat([rows[-1], (w[:, None] * rows).sum(0)])
            for n in range(len(dense.heads)):
                part = slice(n * D, (n + 1) * D)
                w = torch.softmax(rows @ (dense.queries[part] @ rows[-1]) / D**0.5 + dense.heads[n, valid], 0)
                f = f + dense.values[:, part] @ (w @ rows)
        if b < P:
            t = int(step.target[b])
            own = f @ items[t] + step.target_correction[b]
            open_ = [c for c in range(C) if c != t]
            others = torch.stack([f @ items[c] + step.correction[c] for c in open_])
            share = step.share[open_]
            row = {
                "softmax": torch.logsumexp(torch.cat([own[None], others]), 0) - own,
                "bce": softplus(-own) + BCE_NEGATIVES * (share * softplus(others)).sum(),
                "bpr": (share * softplus(others - own)).sum(),
            }
            loss = loss + step.weight[b] * row[kind]
        else:
            z = f @ items[int(step.negative[b - P])]
            loss = loss + step.weight[b] * softplus(z)
    return loss


@pytest.mark.parametrize("heads", [0, N])
@pytest.mark.parametrize("kind", ["softmax", "bce", "bpr"])
def test_gradients_equal_autograd_of_the_written_loss(kind: Loss, heads: int) -> None:
    step, items, users, dense = _step(heads)
    found = gradients(step, items, users, dense, kind)
    leaves = [each.double().requires_grad_() for each in (items, users, *dense)]
    loss = _loss(step, leaves[0], leaves[1], Dense(*leaves[2:]), kind)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(found.loss) == pytest.approx(float(loss.detach()), rel=1e-5)
    for ours, leaf in zip((found.items, found.users, *found.dense), leaves, strict=True):
        if leaf.numel():
            assert leaf.grad is not None
            torch.testing.assert_close(ours.double(), leaf.grad, rtol=1e-4, atol=1e-5)


def test_half_precision_changes_little() -> None:
    step, items, users, dense = _step()
    whole, half = (gradients(step, items, users, dense, half=half) for half in (False, True))
    for a, b in zip((whole.items, *whole.dense), (half.items, *half.dense), strict=True):
        torch.testing.assert_close(b, a, rtol=0.1, atol=0.02 * float(a.abs().max()))
    assert not torch.equal(whole.items, half.items)


def test_tensor_form_of_the_attention_equals_the_compiled_one() -> None:
    step, items, _, dense = _step()
    queries = torch.randn(B, N * D, generator=torch.Generator().manual_seed(1))
    found = [form(items, step.history, queries, dense.heads) for form in (attend, attend_tensors)]
    torch.testing.assert_close(found[0], found[1])
    d_pools, sums = torch.ones(B, N * D), [torch.zeros_like(items), torch.zeros_like(items)]
    back = [
        form(items, step.history, queries, found[0][1], d_pools, total)
        for form, total in zip((unattend, unattend_tensors), sums, strict=True)
    ]
    torch.testing.assert_close(back[0], back[1])
    torch.testing.assert_close(sums[0], sums[1])


def test_tensor_form_of_the_pooling_equals_the_compiled_one() -> None:
    step, items, users, dense = _step()
    positions = dense.positions
    seen = encode(items, step.history, dense, users, step.user)
    x, w = seen.inputs, seen.weights
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
    step, items, users, dense = _step()
    there = StepInput(*(tensor.cuda() for tensor in step)), Dense(*(tensor.cuda() for tensor in dense))
    ours, theirs = (
        gradients(step, items, users, dense),
        gradients(there[0], items.cuda(), users.cuda(), there[1]),
    )
    for a, b in zip(
        (ours.items, ours.users, *ours.dense), (theirs.items, theirs.users, *theirs.dense), strict=True
    ):
        torch.testing.assert_close(b.cpu(), a, rtol=1e-4, atol=1e-5)
