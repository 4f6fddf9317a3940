"""One gradient step of the sequence encoder, by hand: pooling, sampled softmax, real negatives.

Forward, for row b with history h_b1..h_bH (padding masked), target t_b and user row p::

    w_bj  = exp(a_j) / sum_{j' valid} exp(a_j')
    x_b   = [e_last ; sum_j w_bj e_{h_bj}]                 (2d)
    f_b   = A x_b + p_{u_b}                                (d)
    s_bc  = f_b . e_c + log m_c - log n_c                  c among the distinct negatives but t_b
    s_bt  = f_b . e_t - log n_t
    loss  = sum_b omega_b (log(exp(s_bt) + sum_c exp(s_bc)) - s_bt)
          + sum_i v_i softplus(f_i . e_i)

m_c says how often c was drawn and n_c how often that was to be expected (logQ correction, the same
as keeping duplicates). A negative that is the row's target is an accidental hit and left out. The
second sum runs over ignored impressions, skips and dislikes. Targets of other rows are no
negatives here: with them, R@20 on movietweetings fell from .315 to .297 (they stand for what is
popular right now, which is worth learning).

Every array here is as large as the step, never as the table: rows are gathered before and
scattered after. The pooling has a compiled form for the CPU and a tensor form for the GPU.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import torch
from numba import njit
from torch import Tensor

from schemas.runs import Float32, Int32

_REDUCE: Final = {"reassoc", "contract", "nsz"}


class StepInput(NamedTuple):
    """Index arrays of one step; items and users are numbered within it.

    The first C of the R item rows are the negatives drawn; the first P of the B rows have targets.
    """

    history: Tensor  # (B, H) int32 item rows, -1 padded, oldest first
    user: Tensor  # (B,) int32 user rows, none of them padding
    weight: Tensor  # (B,) float32: omega for targets, v for real negatives
    target: Tensor  # (P,) int32 item rows
    target_correction: Tensor  # (P,) float32 -log n_t
    correction: Tensor  # (C,) float32 log m_c - log n_c
    hit_rows: Tensor  # (K,) int64 rows and
    hit_columns: Tensor  # (K,) int64 columns of accidental hits
    negative: Tensor  # (B - P,) int32 item rows of the real negatives


class StepGradients(NamedTuple):
    """Gradients of one step, and its loss summed over rows."""

    items: Tensor  # (R, d)
    users: Tensor  # (U, d)
    mixing: Tensor  # (d, 2d)
    positions: Tensor  # (H,)
    loss: Tensor  # ()


def encode(
    items: Tensor, history: Tensor, positions: Tensor, mixing: Tensor, users: Tensor, user: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """User vectors f (B, d), their inputs x (B, 2d) and the pooling weights w (B, H).

    Parameters
    ----------
    items : (R, d) float32
        Rows that `history` (B, H) int32 points at; -1 is padding.
    positions : (H,) float32
        Logits a.
    mixing : (d, 2d) float32
        A.
    users : (U, d) float32
        Rows that `user` (B,) int32 points at; -1 adds nothing.
    """
    exps = torch.exp(positions - positions.max())
    if items.device.type == "cpu":
        b, h = history.shape
        weights, inputs = torch.empty(b, h), torch.empty(b, 2 * items.shape[1])
        _pool(items.numpy(), history.numpy(), exps.numpy(), weights.numpy(), inputs.numpy())
        vectors = torch.mm(inputs, mixing.T)
        _add_rows(users.numpy(), user.numpy(), vectors.numpy())
        return vectors, inputs, weights
    inputs, weights = pool_tensors(items, history, exps)
    vectors = torch.mm(inputs, mixing.T)
    if len(users):
        known = (user >= 0).to(vectors.dtype)[:, None]
        vectors += users.index_select(0, user.clamp(min=0)) * known
    return vectors, inputs, weights


def gradients(
    step: StepInput, items: Tensor, users: Tensor, mixing: Tensor, positions: Tensor
) -> StepGradients:
    """Loss and gradients of one step at `items` (R, d) and `users` (U, d), its gathered rows."""
    n_targets = len(step.target)
    f, x, w = encode(items, step.history, positions, mixing, users, step.user)  # (B, d), (B, 2d), (B, H)
    d_items, d_f = torch.zeros_like(items), torch.zeros_like(f)
    loss = torch.zeros((), device=f.device)
    if n_targets and len(step.correction):
        loss += _softmax_part(step, items, f[:n_targets], d_items, d_f[:n_targets])
    if len(step.negative):
        loss += _logistic_part(step, items, f[n_targets:], d_items, d_f[n_targets:])
    d_users = torch.zeros_like(users)
    _scatter(d_users, step.user, d_f)
    d_mixing = torch.mm(d_f.T, x)
    d_x = torch.mm(d_f, mixing)  # (B, 2d)
    d_w = torch.empty_like(w)  # (B, H)
    if items.device.type == "cpu":
        _unpool(items.numpy(), step.history.numpy(), w.numpy(), d_x.numpy(), d_w.numpy(), d_items.numpy())
    else:
        d_w = unpool_tensors(items, step.history, w, d_x, d_items)
    wd_w = w * d_w
    d_positions = (wd_w - w * wd_w.sum(1, keepdim=True)).sum(0)
    return StepGradients(d_items, d_users, d_mixing, d_positions, loss)


def _softmax_part(step: StepInput, items: Tensor, f: Tensor, d_items: Tensor, d_f: Tensor) -> Tensor:
    negatives = items[: len(step.correction)]  # (C, d)
    e = items.index_select(0, step.target)  # (P, d)
    omega = step.weight[: len(f)]  # (P,)
    own = (f * e).sum(1) + step.target_correction  # (P,)
    scores = torch.addmm(step.correction, f, negatives.T)  # (P, C)
    scores[step.hit_rows, step.hit_columns] = -torch.inf
    top = torch.maximum(scores.amax(1), own)
    own -= top
    scores.sub_(top[:, None]).exp_()
    total = scores.sum(1) + own.exp()
    slope = scores.mul_((omega / total)[:, None])  # d loss / d scores
    d_own = omega * (own.exp() / total - 1.0)  # (P,)
    torch.mm(slope.T, f, out=d_items[: len(negatives)])
    torch.addmm(d_own[:, None] * e, slope, negatives, out=d_f)
    _scatter(d_items, step.target, d_own[:, None] * f)
    return torch.dot(omega, total.log() - own)


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
    safe = history.clamp(min=0)
    d_w = torch.einsum("bd,bhd->bh", d_mean, items[safe])
    spread = weights[:, :, None] * d_mean[:, None, :]  # (B, H, d); 0 where padded
    d_items.index_add_(0, safe.reshape(-1), spread.reshape(-1, d))
    d_items.index_add_(0, safe[:, -1], d_last * (history[:, -1:] >= 0))
    return d_w


def _scatter(target: Tensor, rows: Tensor, values: Tensor) -> None:
    if target.device.type == "cpu":
        _add_to_rows(target.numpy(), rows.numpy(), values.numpy())
    else:
        target.index_add_(0, rows, values)


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
