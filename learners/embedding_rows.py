"""Compiled bookkeeping of embedding rows: their initial values, and the numbering within a step."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from schemas.runs import Float32, Int32

from .negatives import mix64


class Numbered(NamedTuple):
    """The R distinct items of a step, numbered: the negatives drawn come first."""

    slots: Int32  # (R,) table slot of each number
    n_negatives: int  # C
    times: Int32  # (C,) how often each was drawn
    target: Int32  # (P,) numbers
    negative: Int32  # (Q,) numbers
    history: Int32  # (B, H) numbers, -1 padded


def number_items(drawn: Int32, targets: Int32, real: Int32, history: Int32, place: Int32) -> Numbered:
    """Number the items of a step in order of appearance.

    Parameters
    ----------
    drawn : (S,) int32
        Slots drawn as negatives.
    targets, real : (P,) and (Q,) int32
        Slots of targets and of real negatives.
    history : (B, H) int32
        Slots, -1 padded.
    place : (N,) int32
        Scratch, all -1 before and after.
    """
    return Numbered(*_number(drawn, targets, real, history, place))


@njit(nogil=True, cache=True)
def _number(
    drawn: Int32, targets: Int32, real: Int32, history: Int32, place: Int32
) -> tuple[Int32, int, Int32, Int32, Int32, Int32]:
    slots = np.empty(len(drawn) + len(targets) + len(real) + history.size, dtype=np.int32)
    times = np.zeros(len(drawn), dtype=np.int32)
    n = 0
    for item in drawn:
        n = _give(item, n, place, slots)
        times[place[item]] += 1
    n_negatives = n
    target = np.empty(len(targets), dtype=np.int32)
    for i in range(len(targets)):
        n = _give(targets[i], n, place, slots)
        target[i] = place[targets[i]]
    negative = np.empty(len(real), dtype=np.int32)
    for i in range(len(real)):
        n = _give(real[i], n, place, slots)
        negative[i] = place[real[i]]
    local = np.empty(history.shape, dtype=np.int32)
    for b in range(history.shape[0]):
        for j in range(history.shape[1]):
            item = history[b, j]
            local[b, j] = -1
            if item >= 0:
                n = _give(item, n, place, slots)
                local[b, j] = place[item]
    for i in range(n):
        place[slots[i]] = -1
    return slots[:n].copy(), n_negatives, times[:n_negatives].copy(), target, negative, local


@njit(nogil=True, cache=True, inline="always")
def _give(item: int, n: int, place: Int32, slots: Int32) -> int:
    if place[item] < 0:
        place[item] = n
        slots[n] = item
        n += 1
    return n


@njit(nogil=True, cache=True)
def gaussian_rows(first: int, last: int, dim: int, norm: float, seed: int) -> Float32:
    """Rows first .. last - 1 of N(0, norm^2 / dim), each a function of seed and row alone (Box-Muller)."""
    return gaussian_rows_at(np.arange(first, last).astype(np.int32), dim, norm, seed)


@njit(nogil=True, cache=True)
def gaussian_rows_at(numbers: Int32, dim: int, norm: float, seed: int) -> Float32:
    """The rows `numbers` (R,) of `gaussian_rows`: (R, d)."""
    rows = np.empty((len(numbers), dim), dtype=np.float32)
    key = mix64(np.uint64(seed) ^ np.uint64(0x656D62656464))
    scale = norm / np.sqrt(dim)
    for i in range(len(numbers)):
        for k in range(dim):
            state = mix64(key ^ mix64(np.uint64(numbers[i]) * np.uint64(dim) + np.uint64(k)))
            u = (np.float64(state >> np.uint64(40)) + 1.0) / 16777217.0
            v = np.float64(state & np.uint64(0xFFFFFF)) / 16777216.0
            rows[i, k] = scale * np.sqrt(-2.0 * np.log(u)) * np.cos(2.0 * np.pi * v)
    return rows
