"""Attention of the last item over the history, one pool a head.

For row b, head h and history item j (padding masked)::

    q_bh  = W_h e_last
    w_bhj = softmax_j (q_bh . e_j / sqrt(d) + a_hj)
    c_bh  = sum_j w_bhj e_j

Only the last item asks and keys are the item vectors themselves, so a head costs about what the
positional pooling costs: no product of the whole history with a matrix. A compiled form for the
CPU and a tensor form for the GPU.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from numba import njit
from torch import Tensor

from schemas.runs import Float32, Int32

from .row_sums import add_rows

_REDUCE: Final = {"reassoc", "contract", "nsz"}


def attend(items: Tensor, history: Tensor, queries: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Pools c (B, h d) and weights w (B, h, H).

    Parameters
    ----------
    items : (R, d) float32
    history : (B, H) int32
        Rows of `items`, -1 padded.
    queries : (B, h d) float32
    positions : (h, H) float32
        a.
    """
    n_heads, h = positions.shape
    b, d = len(history), items.shape[1]
    if items.device.type == "cpu":
        pools, weights = torch.empty(b, n_heads * d), torch.empty(b, n_heads, h)
        _attend(
            items.numpy(), history.numpy(), queries.numpy(), positions.numpy(), pools.numpy(), weights.numpy()
        )
        return pools, weights
    return attend_tensors(items, history, queries, positions)


def unattend(
    items: Tensor, history: Tensor, queries: Tensor, weights: Tensor, d_pools: Tensor, d_items: Tensor
) -> tuple[Tensor, Tensor]:
    """Add the gradient to `d_items` (R, d); returns that of the queries (B, h d) and positions (h, H)."""
    if items.device.type == "cpu":
        d_queries = torch.zeros_like(queries)
        d_positions = torch.zeros(weights.shape[1:])
        _unattend(
            items.numpy(), history.numpy(), queries.numpy(), weights.numpy(), d_pools.numpy(),
            d_queries.numpy(), d_positions.numpy(), d_items.numpy(), np.empty(weights.shape[2], np.float32),
        )  # fmt: skip
        return d_queries, d_positions
    return unattend_tensors(items, history, queries, weights, d_pools, d_items)


def attend_tensors(
    items: Tensor, history: Tensor, queries: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """`attend` as tensor operations."""
    b, n_heads, d = len(history), len(positions), items.shape[1]
    rows = items[history.clamp(min=0)]  # (B, H, d)
    logits = torch.einsum("bnd,bhd->bnh", queries.view(b, n_heads, d), rows) / d**0.5 + positions
    logits = logits.masked_fill((history < 0)[:, None, :], -1e30)
    weights = torch.softmax(logits, dim=2) * (history >= 0)[:, None, :]  # (B, h, H)
    return torch.einsum("bnh,bhd->bnd", weights, rows).reshape(b, n_heads * d), weights


def unattend_tensors(
    items: Tensor, history: Tensor, queries: Tensor, weights: Tensor, d_pools: Tensor, d_items: Tensor
) -> tuple[Tensor, Tensor]:
    """`unattend` as tensor operations."""
    b, n_heads, h = weights.shape
    d = items.shape[1]
    rows = items[history.clamp(min=0)]  # (B, H, d)
    d_pool, query = d_pools.view(b, n_heads, d), queries.view(b, n_heads, d)
    slope = torch.einsum("bnd,bhd->bnh", d_pool, rows)
    slope = weights * (slope - (weights * slope).sum(2, keepdim=True))  # (B, h, H)
    d_rows = torch.einsum("bnh,bnd->bhd", weights, d_pool)
    d_rows = d_rows + torch.einsum("bnh,bnd->bhd", slope, query) / d**0.5
    add_rows(d_items, history.reshape(-1), d_rows.reshape(b * h, d))
    d_queries = torch.einsum("bnh,bhd->bnd", slope, rows) / d**0.5
    return d_queries.reshape(b, n_heads * d), slope.sum(0)


@njit(nogil=True, cache=True, fastmath=_REDUCE)
def _attend(
    items: Float32, history: Int32, queries: Float32, positions: Float32, pools: Float32, weights: Float32
) -> None:
    n_heads, n_positions = positions.shape
    d = items.shape[1]
    scale = np.float32(1.0 / np.sqrt(d))
    for b in range(len(history)):
        for n in range(n_heads):
            at = n * d
            top = np.float32(-np.inf)
            for j in range(n_positions):
                row = history[b, j]
                if row >= 0:
                    z = np.float32(0.0)
                    for k in range(d):
                        z += queries[b, at + k] * items[row, k]
                    z = z * scale + positions[n, j]
                    weights[b, n, j] = z
                    top = max(top, z)
            total = np.float32(0.0)
            for j in range(n_positions):
                if history[b, j] >= 0:
                    weights[b, n, j] = np.exp(weights[b, n, j] - top)
                    total += weights[b, n, j]
                else:
                    weights[b, n, j] = np.float32(0.0)
            for k in range(d):
                pools[b, at + k] = np.float32(0.0)
            for j in range(n_positions):
                row = history[b, j]
                if row >= 0:
                    weight = weights[b, n, j] / total
                    weights[b, n, j] = weight
                    for k in range(d):
                        pools[b, at + k] += weight * items[row, k]


@njit(nogil=True, cache=True, fastmath=_REDUCE)
def _unattend(
    items: Float32,
    history: Int32,
    queries: Float32,
    weights: Float32,
    d_pools: Float32,
    d_queries: Float32,
    d_positions: Float32,
    d_items: Float32,
    slopes: Float32,
) -> None:
    n_heads, n_positions = d_positions.shape
    d = items.shape[1]
    scale = np.float32(1.0 / np.sqrt(d))
    for b in range(len(history)):
        for n in range(n_heads):
            at = n * d
            mean = np.float32(0.0)
            for j in range(n_positions):
                row = history[b, j]
                if row >= 0:
                    slope = np.float32(0.0)
                    for k in range(d):
                        slope += d_pools[b, at + k] * items[row, k]
                    slopes[j] = slope
                    mean += weights[b, n, j] * slope
            for j in range(n_positions):
                row = history[b, j]
                if row >= 0:
                    weight = weights[b, n, j]
                    slope = weight * (slopes[j] - mean)
                    d_positions[n, j] += slope
                    slope *= scale
                    for k in range(d):
                        d_queries[b, at + k] += slope * items[row, k]
                        d_items[row, k] += weight * d_pools[b, at + k] + slope * queries[b, at + k]
