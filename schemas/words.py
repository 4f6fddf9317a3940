"""Bytes of a buffer as compiled code reads them: one, or eight as a little-endian word.

Indices are unsigned inside, so no wrap-around of negative ones is compiled in, and the eight
bytes become one load. Nothing is checked: whoever reads knows that the buffer reaches that far.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .compiled import inlined

UInt8 = NDArray[np.uint8]


@inlined
def byte_at(buffer: UInt8, at: int) -> int:
    """Byte `at`."""
    return int(np.int64(buffer[np.uint64(at)]))


@inlined
def word_at(buffer: UInt8, at: int) -> np.uint64:
    """The bytes `at` to ``at + 7``, the first one lowest."""
    i = np.uint64(at)
    return (
        np.uint64(buffer[i])
        | np.uint64(buffer[i + np.uint64(1)]) << np.uint64(8)
        | np.uint64(buffer[i + np.uint64(2)]) << np.uint64(16)
        | np.uint64(buffer[i + np.uint64(3)]) << np.uint64(24)
        | np.uint64(buffer[i + np.uint64(4)]) << np.uint64(32)
        | np.uint64(buffer[i + np.uint64(5)]) << np.uint64(40)
        | np.uint64(buffer[i + np.uint64(6)]) << np.uint64(48)
        | np.uint64(buffer[i + np.uint64(7)]) << np.uint64(56)
    )


@inlined
def is_same(a: UInt8, start: int, end: int, b: UInt8, at: int) -> bool:
    """Whether ``a[start:end]`` stands in `b` from `at` on."""
    while start + 8 <= end:
        if word_at(a, start) != word_at(b, at):
            return False
        start += 8
        at += 8
    while start < end:
        if byte_at(a, start) != byte_at(b, at):
            return False
        start += 1
        at += 1
    return True
