"""Sums of weights over ordered pairs of items, exact and unbounded, and the scores they give."""

from __future__ import annotations

from typing import Final, Protocol

import numpy as np
from numba import njit

from schemas.runs import Float32, Int32, Int64

_DENSE_TO: Final = 16_384
_SPREAD: Final = np.uint64(0x9E3779B97F4A7C15)


class PairCounts(Protocol):
    """``C[a, b] += weight``, and rows of it."""

    def add(self, a: Int32, b: Int32, weight: Float32) -> None:
        """Add `weight` (N,) to the pairs (`a`, `b`)."""

    def mixed(self, rows: Int32, weight: Float32, n_items: int) -> Float32:
        """``sum_h weight[i, h] C[rows[i, h], j]`` for j < n_items; rows are -1 padded; (B, n_items)."""


def pair_counts(n_items: int) -> PairCounts:
    """A matrix where its square is affordable (only pages that were written take memory), else a table."""
    return _Matrix(n_items) if n_items <= _DENSE_TO else _Table(n_items)


class _Matrix:
    def __init__(self, n_items: int) -> None:
        self._counts: Float32 = np.zeros((n_items, n_items), dtype=np.float32)

    def add(self, a: Int32, b: Int32, weight: Float32) -> None:
        _matrix_add(self._counts, a, b, weight)

    def mixed(self, rows: Int32, weight: Float32, n_items: int) -> Float32:
        out = np.zeros((len(rows), n_items), dtype=np.float32)
        _matrix_mixed(self._counts, rows, weight, out)
        return out


class _Table:
    """Open addressing over pairs; the pairs of a row are chained, the newest first."""

    def __init__(self, n_items: int) -> None:
        self._n = 0
        self._first: Int32 = np.full(n_items, -1, dtype=np.int32)
        self._next: Int32 = np.zeros(1 << 16, dtype=np.int32)
        self._pair: Int64 = np.zeros(1 << 16, dtype=np.int64)
        self._sum: Float32 = np.zeros(1 << 16, dtype=np.float32)
        self._index: Int32 = np.full(1 << 17, -1, dtype=np.int32)

    def add(self, a: Int32, b: Int32, weight: Float32) -> None:
        while self._n + len(a) > len(self._pair):
            self._next, self._pair, self._sum = (
                np.concatenate([column, np.zeros_like(column)])
                for column in (self._next, self._pair, self._sum)
            )
            self._index = np.full(2 * len(self._index), -1, dtype=np.int32)
            _table_index(self._index, self._pair, self._n)
        self._n = _table_add(
            self._index, self._pair, self._sum, self._next, self._first, self._n, a, b, weight
        )

    def mixed(self, rows: Int32, weight: Float32, n_items: int) -> Float32:
        out = np.zeros((len(rows), n_items), dtype=np.float32)
        _table_mixed(self._first, self._next, self._pair, self._sum, rows, weight, out)
        return out


@njit(nogil=True, cache=True)
def _matrix_add(counts: Float32, a: Int32, b: Int32, weight: Float32) -> None:
    for i in range(len(a)):
        counts[a[i], b[i]] += weight[i]


@njit(nogil=True, cache=True)
def _matrix_mixed(counts: Float32, rows: Int32, weight: Float32, out: Float32) -> None:
    n_items = out.shape[1]
    for i in range(rows.shape[0]):
        into = out[i]
        for h in range(rows.shape[1]):
            if rows[i, h] >= 0:
                row, w = counts[rows[i, h]], weight[i, h]
                for j in range(n_items):
                    into[j] += w * row[j]


@njit(nogil=True, cache=True)
def _home(pair: np.int64, mask: int) -> int:
    return int((np.uint64(pair) * _SPREAD) >> np.uint64(32)) & mask


@njit(nogil=True, cache=True)
def _table_index(index: Int32, pair: Int64, n: int) -> None:
    mask = len(index) - 1
    for k in range(n):
        place = _home(pair[k], mask)
        while index[place] >= 0:
            place = (place + 1) & mask
        index[place] = k


@njit(nogil=True, cache=True)
def _table_add(
    index: Int32, pair: Int64, total: Float32, following: Int32, first: Int32, n: int,
    a: Int32, b: Int32, weight: Float32,
) -> int:  # fmt: skip
    mask = len(index) - 1
    for i in range(len(a)):
        key = (np.int64(a[i]) << 32) | np.int64(b[i])
        place = _home(key, mask)
        while index[place] >= 0 and pair[index[place]] != key:
            place = (place + 1) & mask
        if index[place] < 0:
            index[place] = n
            pair[n], total[n], following[n] = key, np.float32(0.0), first[a[i]]
            first[a[i]] = n
            n += 1
        total[index[place]] += weight[i]
    return n


@njit(nogil=True, cache=True)
def _table_mixed(
    first: Int32, following: Int32, pair: Int64, total: Float32, rows: Int32, weight: Float32, out: Float32
) -> None:
    n_items = out.shape[1]
    for i in range(rows.shape[0]):
        for h in range(rows.shape[1]):
            if rows[i, h] < 0:
                continue
            k = first[rows[i, h]]
            while k >= 0:
                b = pair[k] & 0xFFFFFFFF
                if b < n_items:
                    out[i, b] += weight[i, h] * total[k]
                k = following[k]
