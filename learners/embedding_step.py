"""One gradient step of the sequence encoder, by hand: pooling, sampled loss, real negatives.

Forward, for row b with history h_b1..h_bH (padding masked), target t_b and user row p::

    w_bj  = exp(a_j) / sum_{j' valid} exp(a_j')
    x_b   = [e_last ; sum_j w_bj e_{h_bj}]                 (2d)
    f_b   = A x_b + V c_b + g + p_{u_b}                    (d)
    s_bc  = f_b . e_c + log m_c - log n_c                  c among the distinct negatives but t_b
    s_bt  = f_b . e_t - log n_t
    loss  = sum_b l(s_bt, s_b., omega_b) + sum_i v_i softplus(f_i . e_i)

c_b are the pools of the attention heads (`embedding_attention`), if there are any, l stands in
`embedding_losses`; the corrections belong to the softmax and are 0 for the other losses.

m_c says how often c was drawn and n_c how often that was to be expected (logQ correction, the same
as keeping duplicates). A negative that is the row's target is an accidental hit and left out. The
second sum runs over ignored impressions, skips and dislikes. Targets of other rows are no
negatives by default: with them, R@20 on movietweetings fell from .315 to .297 (they stand for
what is popular right now, which is worth learning).

Every array here is as large as the step, never as the table: rows are gathered before and
scattered after. The pooling has a compiled form for the CPU and a tensor form for the GPU, where
sums over equal rows are taken in a fixed order too (`row_sums`).
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from schemas.runs import Float32, Int32

from .embedding_attention import attend, unattend
from .embedding_losses import slopes
from .embedding_options import Loss
from .row_sums import add_rows

MAX_ROWS: Final = 512
"""Rows of one step, at most; shifted contexts come on top."""

_REDUCE: Final = {"reassoc", "contract", "nsz"}


class StepArrays(NamedTuple):
    """One step as it leaves the host; items and users are numbered within it.

    The first C of the R item rows are the negatives drawn; the first P of the B rows have targets.
    """

    history: Int32  # (B, H) item rows, -1 padded, oldest first
    user: Int32  # (B,) user rows, none of them padding
    weight: Float32  # (B,): omega for targets, v for real negatives
    target: Int32  # (P,) item rows
    target_correction: Float32  # (P,) -log n_t
    correction: Float32  # (C,) log m_c - log n_c
    share: Float32  # (C,) m_c over all draws
    negative: Int32  # (B - P,) item rows of the real negatives


class StepInput(NamedTuple):
    """`StepArrays` as tensors, with the accidental hits."""

    history: Tensor  # (B, H) integer item rows, -1 padded, oldest first
    user: Tensor  # (B,) integer user rows, none of them padding
    weight: Tensor  # (B,) float32: omega for targets, v for real negatives
    target: Tensor  # (P,) integer item rows
    target_correction: Tensor  # (P,) float32 -log n_t
    correction: Tensor  # (C,) float32 log m_c - log n_c
    share: Tensor  # (C,) float32 m_c over all draws
    hit_rows: Tensor  # (K,) int64 rows and
    hit_columns: Tensor  # (K,) int64 columns of accidental hits
    negative: Tensor  # (B - P,) integer item rows of the real negatives

    @classmethod
    def of(cls, step: StepArrays) -> StepInput:
        """The same on the CPU, sharing memory."""
        hits = np.flatnonzero(step.target < len(step.correction))
        return cls(
            history=torch.from_numpy(step.history),
            user=torch.from_numpy(step.user),
            weight=torch.from_numpy(step.weight),
            target=torch.from_numpy(step.target),
            target_correction=torch.from_numpy(step.target_correction),
            correction=torch.from_numpy(step.correction),
            share=torch.from_numpy(step.share),
            hit_rows=torch.from_numpy(hits),
            hit_columns=torch.from_numpy(step.target[hits].astype(np.int64)),
            negative=torch.from_numpy(step.negative),
        )


class Dense(NamedTuple):
    """The dense parameters, or their gradients; n heads."""

    mixing: Tensor  # (d, 2d) A
    positions: Tensor  # (H,) a
    origin: Tensor  # (d,) g
    queries: Tensor  # (n d, d) W
    heads: Tensor  # (n, H) positional logits of the heads
    values: Tensor  # (d, n d) V


class StepGradients(NamedTuple):
    """Gradients of one step, and its loss summed over rows."""

    items: Tensor  # (R, d)
    users: Tensor  # (U, d)
    dense: Dense
    loss: Tensor  # ()


class Encoded(NamedTuple):
    """User vectors, and what the way back needs."""

    vectors: Tensor  # (B, d) f
    inputs: Tensor  # (B, 2d) x
    weights: Tensor  # (B, H) w
    queries: Tensor  # (B, n d)
    pools: Tensor  # (B, n d) c
    attention: Tensor  # (B, n, H)


def encode(items: Tensor, history: Tensor, dense: Dense, users: Tensor, user: Tensor) -> Encoded:
    """Encode B histories.

    Parameters
    ----------
    items : (R, d) float32
        Rows that `history` (B, H) int32 points at; -1 is padding.
    dense : Dense
    users : (U, d) float32
        Rows that `user` (B,) int32 points at; -1 adds nothing.
    """
    exps = torch.exp(dense.positions - dense.positions.max())
    on_cpu = items.device.type == "cpu"
    if on_cpu:
        b, h = history.shape
        weights, inputs = torch.empty(b, h), torch.empty(b, 2 * items.shape[1])
        _pool(items.numpy(), history.numpy(), exps.numpy(), weights.numpy(), inputs.numpy())
    else:
        inputs, weights = pool_tensors(items, history, exps)
    vectors = torch.addmm(dense.origin, inputs, dense.mixing.T)
    queries = pools = inputs[:, :0]
    attention = weights[:, None, :0]
    if len(dense.heads):
        queries = torch.mm(inputs[:, : items.shape[1]], dense.queries.T)
        pools, attention = attend(items, history, queries, dense.heads)
        vectors.addmm_(pools, dense.values.T)
    if on_cpu:
        _add_rows(users.numpy(), user.numpy(), vectors.numpy())
    elif len(users):
        known = (user >= 0).to(vectors.dtype)[:, None]
        vectors += users.index_select(0, user.clamp(min=0)) * known
    return Encoded(vectors, inputs, weights, queries, pools, attention)


def gradients(
    step: StepInput,
    items: Tensor,
    users: Tensor,
    dense: Dense,
    loss: Loss = "softmax",
    *,
    half: bool = False,
) -> StepGradients:
    """Loss and gradients of one step at `items` (R, d) and `users` (U, d), its gathered rows."""
    n_targets = len(step.target)
    seen = encode(items, step.history, dense, users, step.user)
    f, x, w = seen.vectors, seen.inputs, seen.weights
    d_items, d_f = torch.zeros_like(items), torch.zeros_like(f)
    total = torch.zeros((), device=f.device)
    if n_targets and len(step.correction):
        total += _sampled_part(step, items, f[:n_targets], d_items, d_f[:n_targets], loss, half=half)
    if len(step.negative):
        total += _logistic_part(step, items, f[n_targets:], d_items, d_f[n_targets:])
    d_users = torch.zeros_like(users)
    _scatter(d_users, step.user, d_f)
    d_x = torch.mm(d_f, dense.mixing)  # (B, 2d)
    d_queries, d_heads, d_values = dense.queries, dense.heads, dense.values
    if len(dense.heads):
        last = x[:, : items.shape[1]]
        d_values = torch.mm(d_f.T, seen.pools)
        d_pools = torch.mm(d_f, dense.values)
        d_asked, d_heads = unattend(items, step.history, seen.queries, seen.attention, d_pools, d_items)
        d_queries = torch.mm(d_asked.T, last)
        d_x[:, : items.shape[1]].addmm_(d_asked, dense.queries)
    d_w = torch.empty_like(w)  # (B, H)
    if items.device.type == "cpu":
        _unpool(items.numpy(), step.history.numpy(), w.numpy(), d_x.numpy(), d_w.numpy(), d_items.numpy())
    else:
        d_w = unpool_tensors(items, step.history, w, d_x, d_items)
    wd_w = w * d_w
    d_positions = (wd_w - w * wd_w.sum(1, keepdim=True)).sum(0)
    d_dense = Dense(torch.mm(d_f.T, x), d_positions, d_f.sum(0), d_queries, d_heads, d_values)
    return StepGradients(d_items, d_users, d_dense, total)


def _sampled_part(
    step: StepInput, items: Tensor, f: Tensor, d_items: Tensor, d_f: Tensor, loss: Loss, *, half: bool
) -> Tensor:
    negatives = items[: len(step.correction)]  # (C, d)
    e = items.index_select(0, step.target)  # (P, d)
    own = (f * e).sum(1) + step.target_correction  # (P,)
    if half:
        scores = torch.mm(f.bfloat16(), negatives.bfloat16().T).float() + step.correction
    else:
        scores = torch.addmm(step.correction, f, negatives.T)  # (P, C)
    scores.index_put_((step.hit_rows, step.hit_columns), scores.new_full((), -torch.inf))
    found = slopes(loss, own, scores, step.share, step.weight[: len(f)])
    d_own = found.targets[:, None]
    if half:
        slope = found.negatives.bfloat16()
        d_items[: len(negatives)] = torch.mm(slope.T, f.bfloat16()).float()
        d_f[:] = d_own * e + torch.mm(slope, negatives.bfloat16()).float()
    else:
        torch.mm(found.negatives.T, f, out=d_items[: len(negatives)])
        torch.addmm(d_own * e, found.negatives, negatives, out=d_f)
    _scatter(d_items, step.target, d_own * f)
    return found.loss


def _logistic_part(step: StepInput, items: Tensor, f: Tensor, d_items: Tensor, d_f: Tensor) -> Tensor:
    v = step.weight[-len(f) :]  # (Q,)
    e = items.index_select(0, step.negative)  # (Q, d)
    z = (f * e).sum(1)
    d_z = (v * torch.sigmoid(z))[:, None]
    torch.mul(d_z, e, out=d_f)
    _scatter(d_items, step.negative, d_z * f)
    return torch.dot(v, torch.nn.functional.softplus(z))


def pool_tensors(items: Tensor, history: Tensor, exps: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs x (B, 2d) and weights w (B, H) as tensor operations."""
    weights = torch.where(history >= 0, exps, 0.0)
    weights = weights / weights.sum(1, keepdim=True).clamp(min=1e-30)
    rows = items[history.clamp(min=0)]  # (B, H, d)
    mean = torch.einsum("bh,bhd->bd", weights, rows)
    last = rows[:, -1] * (history[:, -1:] >= 0)
    return torch.cat([last, mean], dim=1), weights


def unpool_tensors(items: Tensor, history: Tensor, weights: Tensor, d_x: Tensor, d_items: Tensor) -> Tensor:
    """Add the pooling's gradient to `d_items` (R, d); returns d loss / d w (B, H)."""
    d = items.shape[1]
    d_last, d_mean = d_x[:, :d], d_x[:, d:]
    d_w = torch.einsum("bd,bhd->bh", d_mean, items[history.clamp(min=0)])
    spread = weights[:, :, None] * d_mean[:, None, :]  # (B, H, d); 0 where padded
    spread[:, -1] += d_last * (history[:, -1:] >= 0)
    add_rows(d_items, history.reshape(-1), spread.reshape(-1, d))
    return d_w


def _scatter(target: Tensor, rows: Tensor, values: Tensor) -> None:
    if target.device.type == "cpu":
        _add_to_rows(target.numpy(), rows.numpy(), values.numpy())
    else:
        add_rows(target, rows, values)


@njit(nogil=True, cache=True)
def _pool(items: Float32, history: Int32, exps: Float32, weights: Float32, inputs: Float32) -> None:
    n_rows, n_positions = history.shape
    d = items.shape[1]
    for b in range(n_rows):
        total = np.float32(0.0)
        for j in range(n_positions):
            weights[b, j] = exps[j] if history[b, j] >= 0 else np.float32(0.0)
            total += weights[b, j]
        for k in range(2 * d):
            inputs[b, k] = np.float32(0.0)
        last = history[b, n_positions - 1] if n_positions > 0 else -1
        if last >= 0:
            for k in range(d):
                inputs[b, k] = items[last, k]
        for j in range(n_positions):
            row = history[b, j]
            if row >= 0:
                weight = weights[b, j] / total
                weights[b, j] = weight
                for k in range(d):
                    inputs[b, d + k] += weight * items[row, k]


@njit(nogil=True, cache=True, fastmath=_REDUCE)
def _unpool(
    items: Float32, history: Int32, weights: Float32, d_x: Float32, d_weights: Float32, d_items: Float32
) -> None:
    n_rows, n_positions = history.shape
    d = items.shape[1]
    for b in range(n_rows):
        for j in range(n_positions):
            row = history[b, j]
            slope = np.float32(0.0)
            if row >= 0:
                weight = weights[b, j]
                for k in range(d):
                    slope += d_x[b, d + k] * items[row, k]
                    d_items[row, k] += weight * d_x[b, d + k]
            d_weights[b, j] = slope
        last = history[b, n_positions - 1] if n_positions > 0 else -1
        if last >= 0:
            for k in range(d):
                d_items[last, k] += d_x[b, k]


@njit(nogil=True, cache=True)
def _add_rows(rows: Float32, index: Int32, out: Float32) -> None:
    for b in range(len(index)):
        if index[b] >= 0:
            for k in range(out.shape[1]):
                out[b, k] += rows[index[b], k]


@njit(nogil=True, cache=True)
def _add_to_rows(target: Float32, rows: Int32, values: Float32) -> None:
    for i in range(len(rows)):
        for k in range(target.shape[1]):
            target[rows[i], k] += values[i, k]
