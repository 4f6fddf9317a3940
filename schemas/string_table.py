"""An open-addressed table of texts, compiled: text to number, numbers in order of appearance.

A place holds ``hash32 << 32 | number + 1``, 0 when empty; probing is linear from ``hash32 mod
places``. Behind an equal hash32 the bytes decide. The hash is keyed (SipHash-2-4), so nobody
outside can craft texts that share a place. Text n stands at ``arena[ends[n]:ends[n + 1]]``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .compiled import inlined, kernel
from .hashing import siphash
from .runs import Int32, Int64, UInt64
from .words import UInt8, is_same


class TableArrays(NamedTuple):
    """The table as the kernels take it."""

    places: UInt64  # (power of two,)
    arena: UInt8  # (bytes of all texts, and room)
    ends: Int64  # (texts + 1, and room); ends[0] is 0


@inlined
def _place(table: TableArrays, hash32: np.uint64, buffer: UInt8, start: int, end: int) -> int:
    """Place of the text ``buffer[start:end]``, or of the empty place that ends its probe."""
    mask = np.uint64(len(table.places) - 1)
    at = hash32 & mask
    while True:
        entry = table.places[at]
        if entry == np.uint64(0):
            return int(np.int64(at))
        if entry >> np.uint64(32) == hash32:
            number = int(np.int64(entry & np.uint64(0xFFFFFFFF))) - 1
            first, last = table.ends[number], table.ends[number + 1]
            if last - first == end - start and is_same(buffer, start, end, table.arena, first):
                return int(np.int64(at))
        at = (at + np.uint64(1)) & mask


@kernel
def find_texts(
    buffer: UInt8, starts: Int64, ends: Int64, hashes: UInt64, table: TableArrays, out: Int32
) -> None:
    """Number of each text into `out`, -1 where it is not in the table."""
    for i in range(len(starts)):
        place = _place(table, hashes[i] >> np.uint64(32), buffer, starts[i], ends[i])
        out[i] = int(np.int64(table.places[place] & np.uint64(0xFFFFFFFF))) - 1


@kernel
def find_text(text: UInt8, k0: np.uint64, k1: np.uint64, table: TableArrays) -> int:
    """Number of one text, -1 where it is not in the table; (k0, k1) is the key of its hash."""
    hash32 = siphash(text, 0, len(text), k0, k1) >> np.uint64(32)
    entry = table.places[_place(table, hash32, text, 0, len(text))]
    return int(np.int64(entry & np.uint64(0xFFFFFFFF))) - 1


@kernel
def add_texts(
    buffer: UInt8,
    starts: Int64,
    ends: Int64,
    hashes: UInt64,
    table: TableArrays,
    n: int,
    capacity: int,
    out: Int32,
) -> int:
    """As `find_texts`, but unknown texts are added in order while fewer than `capacity` are known.

    There must be room for all of them in the three arrays. `n` texts are known before; returns
    how many are after.
    """
    for i in range(len(starts)):
        hash32 = hashes[i] >> np.uint64(32)
        place = _place(table, hash32, buffer, starts[i], ends[i])
        number = int(np.int64(table.places[place] & np.uint64(0xFFFFFFFF))) - 1
        if number < 0 and n < capacity:
            number = n
            n += 1
            first = table.ends[number]
            for j in range(ends[i] - starts[i]):
                table.arena[first + j] = buffer[starts[i] + j]
            table.ends[n] = first + ends[i] - starts[i]
            table.places[place] = hash32 << np.uint64(32) | np.uint64(n)
        out[i] = number
    return n


@kernel
def replaced(old: UInt64, new: UInt64) -> None:
    """Put all entries of `old` into the larger, empty `new`; they are known to differ."""
    mask = np.uint64(len(new) - 1)
    for i in range(len(old)):
        entry = old[i]
        if entry != np.uint64(0):
            at = (entry >> np.uint64(32)) & mask
            while new[at] != np.uint64(0):
                at = (at + np.uint64(1)) & mask
            new[at] = entry
