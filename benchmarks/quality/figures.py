"""Figures of ranked rows with their intervals, users being the unit that varies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from schemas.runs import Float64, Int32

METRICS: Final = ("recall_20", "recall_10", "ndcg_10", "mrr_20")
_Z: Final = 1.96


class Figure(Struct, frozen=True):
    """A mean and its 95 % interval, as fractions."""

    mean: float
    low: float
    high: float


def gains_of(ranks: Int32) -> dict[str, Float64]:
    """Recall@20, recall@10, nDCG@10 and MRR@20 of each row (R,), by its 0-based rank (-1: none)."""
    place = np.where(ranks >= 0, ranks, 1 << 30).astype(np.float64)
    return {
        "recall_20": (place < 20).astype(np.float64),
        "recall_10": (place < 10).astype(np.float64),
        "ndcg_10": np.where(place < 10, 1.0 / np.log2(place + 2.0), 0.0),
        "mrr_20": np.where(place < 20, 1.0 / (place + 1.0), 0.0),
    }


def averaged(seeds: Sequence[Mapping[str, Float64]]) -> dict[str, Float64]:
    """Row by row mean over runs that differ in their seed only."""
    return {metric: np.mean([gains[metric] for gains in seeds], axis=0) for metric in METRICS}


def figure_of(values: Float64, users: Int32) -> Figure:
    """Mean m of `values` (R,) and its 95 % interval, by the standard error by user.

    ``se = sqrt(sum_u (sum_{r of u} (x_r - m))^2) / R``, the interval ``m +- 1.96 se``.

    Rows of one user are not independent, users are taken to be.

    >>> figure_of(np.array([1.0, 1.0, 0.0, 0.0]), np.array([0, 0, 1, 1], np.int32)).mean
    0.5
    """
    if not len(values):
        return Figure(float("nan"), float("nan"), float("nan"))
    mean = float(values.mean())
    error = float(np.sqrt(np.square(np.bincount(users, weights=values - mean)).sum())) / len(values)
    return Figure(mean, mean - _Z * error, mean + _Z * error)
