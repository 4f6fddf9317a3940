"""Rows for the combinations of categories that an event belongs to, in a table of fixed size.

A key is a combination such as (user, tag). Its value in an event is hashed to 64 bits, which name
one of the table's rows by open addressing over `PROBES` neighbouring places. Where all of them are
taken, the newcomer gets the place that was used the longest ago. So memory is bounded whatever
comes, and no two values ever share a row. Looking up changes nothing.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.compiled import inlined, kernel
from schemas.runs import Float32, Int32, Int64, UInt64

PROBES: Final = 4


@inlined
def mixed(h: np.uint64, value: int) -> np.uint64:
    """The hash `h` extended by a value (the finaliser of splitmix64)."""
    h = (h ^ np.uint64(value)) * np.uint64(0x9E3779B97F4A7C15)
    h ^= h >> np.uint64(29)
    h *= np.uint64(0xBF58476D1CE4E5B9)
    return h ^ (h >> np.uint64(32))


@kernel
def hash_keys(categories: Int32, keys: Int32, hashes: UInt64) -> None:
    """Hash the values of every key of an event.

    Parameters
    ----------
    categories : (F,)
        Of the event, -1 unknown.
    keys : (K, W)
        Columns of `categories` that make up each key, -1 padded.
    hashes : (K,)
        Written; 0 where a part of the key is unknown.
    """
    n_keys, width = keys.shape
    for k in range(n_keys):
        h = mixed(np.uint64(0x7265656C), k + 1)
        for j in range(width):
            if keys[k, j] < 0:
                break
            value = categories[keys[k, j]]
            if value < 0:
                h = np.uint64(0)
                break
            h = mixed(h, value + 1)
        hashes[k] = h


@kernel
def find(owners: UInt64, hashes: UInt64, rows: Int64) -> None:
    """Write the row of each hash to `rows` (K,), -1 for one that has none. The table is 2^n rows."""
    mask = np.uint64(len(owners) - 1)
    for k in range(len(hashes)):
        rows[k] = -1
        h = hashes[k]
        if h == np.uint64(0):
            continue
        for probe in range(PROBES):
            at = np.int64((h + np.uint64(probe)) & mask)
            if owners[at] == h:
                rows[k] = at
                break


@kernel
def claim(owners: UInt64, values: Float32, hashes: UInt64, rows: Int64) -> None:
    """As `find`, giving rows to those that have none; `values` (R, ...) has the last use in column 0."""
    mask = np.uint64(len(owners) - 1)
    for k in range(len(hashes)):
        rows[k] = -1
        h = hashes[k]
        if h == np.uint64(0):
            continue
        best = np.int64(-1)
        for probe in range(PROBES):
            at = np.int64((h + np.uint64(probe)) & mask)
            if owners[at] == h or owners[at] == np.uint64(0):
                best = at
                break
            if best < 0 or values[at, 0] < values[best, 0]:
                best = at
        if owners[best] != h:
            owners[best] = h
            for j in range(values.shape[1]):
                values[best, j] = 0.0
        rows[k] = best
