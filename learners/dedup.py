"""Which events were seen before: two rotating open-addressed sets of 64-bit hashes.

Generation g holds the hashes of offsets ``[g W, (g + 1) W)`` of the partition, W the window; the
current and the previous one are kept. So an event is remembered for at least W and less than 2 W
offsets, whatever the batch boundaries. 0 marks an empty place.

Hashes come from a keyed function, so any of their bits are as good as random. A hash belongs at
``floor(hash / 2^64 * places)``, so the places are nearly in the order of the hashes: a set grows
to any size, and copies go, from front to back. Each set has the size that its own hashes need.

Cost: 0.05 to 0.1 microseconds an event; 12 to 18 bytes a remembered event. A set of a million
hashes grows in about 10 ms.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import inlined, kernel
from schemas.errors import StateError
from schemas.runs import Int64, UInt64

from .state import taken

_FIRST_PLACES: Final = 1_024
_CURRENT, _GENERATION, _COUNT = 0, 1, 2  # places in `meta`; the counts of both sets end it


class DedupSets(NamedTuple):
    """The two sets as the kernels take them; `meta` is [current set, generation, count 0, count 1]."""

    first: UInt64  # (places,) set 0
    second: UInt64  # (places,) set 1
    meta: Int64  # (4,)
    window: int


@inlined
def _home(n_places: int, key: np.uint64) -> int:
    """Where `key` belongs; less than 2^32 places."""
    return int(np.int64(((key >> np.uint64(32)) * np.uint64(n_places)) >> np.uint64(32)))


@inlined
def _place(row: UInt64, key: np.uint64) -> int:
    """Place of `key` in `row`, or of the empty place that ends its probe."""
    at = _home(len(row), key)
    while row[at] != np.uint64(0) and row[at] != key:
        at = at + 1 if at + 1 < len(row) else 0
    return at


@kernel
def _clear(sets: DedupSets, which: int) -> None:
    row = sets.first if which == 0 else sets.second
    for i in range(len(row)):
        row[i] = np.uint64(0)
    sets.meta[2 + which] = 0


@kernel
def rotate(sets: DedupSets, offset: int) -> None:
    """Forget what is too old once events at `offset` are looked at."""
    generation = offset // sets.window
    meta = sets.meta
    if generation <= meta[1]:
        return
    if meta[1] >= 0:
        meta[0] = 1 - meta[0]
        _clear(sets, meta[0])
        if generation > meta[1] + 1:
            _clear(sets, 1 - meta[0])
    meta[1] = generation


@inlined
def contains(sets: DedupSets, key: np.uint64) -> bool:
    """Whether `key` is remembered."""
    key = max(np.uint64(key), np.uint64(1))
    first, second = sets.first, sets.second
    return bool(first[_place(first, key)] == key or second[_place(second, key)] == key)


@inlined
def remember(sets: DedupSets, key: np.uint64) -> None:
    """Add a `key` that is not contained; there must be room (`Dedup.reserve`)."""
    key = max(np.uint64(key), np.uint64(1))
    current = sets.meta[0]
    row = sets.first if current == 0 else sets.second
    row[_place(row, key)] = key
    sets.meta[2 + current] += 1


@inlined
def touch(sets: DedupSets, key: np.uint64) -> np.uint64:
    """Read where `key` belongs, so that it is near when it is looked for."""
    first, second = sets.first, sets.second
    return np.uint64(first[_home(len(first), key)] ^ second[_home(len(second), key)])


@kernel
def _add_all(keys: UInt64, row: UInt64) -> None:
    """Put distinct keys into `row`, but for zeros; quick where they come in order."""
    for i in range(len(keys)):
        if keys[i] != np.uint64(0):
            row[_place(row, keys[i])] = keys[i]


@kernel
def _filled(row: UInt64, out: UInt64) -> int:
    """Copy what is not empty into the front of `out`, which has a place to spare; how many there are."""
    n = 0
    for i in range(len(row)):
        out[n] = row[i]  # an empty one is written over by the next
        n += row[i] != np.uint64(0)
    return n


class Dedup:
    """Owner of the sets: growth outside the kernels, snapshot, restore.

    Parameters
    ----------
    window : int
        Offsets for which an event is remembered at least.
    """

    def __init__(self, window: int) -> None:
        if window < 1:
            raise ValueError(f"the window holds at least one event, not {window}")
        self.sets = DedupSets(
            first=np.zeros(_FIRST_PLACES, dtype=np.uint64),
            second=np.zeros(_FIRST_PLACES, dtype=np.uint64),
            meta=np.array([0, -1, 0, 0], dtype=np.int64),
            window=window,
        )

    @property
    def nbytes(self) -> int:
        """Memory of both sets."""
        return self.sets.first.nbytes + self.sets.second.nbytes

    def reserve(self, n: int) -> None:
        """Make room for `n` more events, at a load of two thirds at most; give back what is idle."""
        counts = self.sets.meta[_COUNT:]
        self.sets = self.sets._replace(
            first=_fitted(self.sets.first, int(counts[0]) + n),
            second=_fitted(self.sets.second, int(counts[1]) + n),
        )

    def contents(self) -> dict[str, NDArray[np.generic]]:
        """Copies of both generations, in an order that says nothing: 8 bytes a remembered event."""
        current = int(self.sets.meta[_CURRENT])
        return {
            "dedup_current": self._hashes(current),
            "dedup_previous": self._hashes(1 - current),
            "dedup_generation": self.sets.meta[_GENERATION : _GENERATION + 1].copy(),
            "dedup_window": np.array([self.sets.window], dtype=np.int64),
        }

    def _hashes(self, which: int) -> UInt64:
        row = self.sets.second if which else self.sets.first
        hashes = np.empty(int(self.sets.meta[_COUNT + which]) + 1, dtype=np.uint64)
        return hashes[: _filled(row, hashes)]

    def restored(self, arrays: Mapping[str, NDArray[np.generic]]) -> Dedup:
        """A new one with what `contents` gave; the window is that of the constructor.

        Raises
        ------
        StateError
            Arrays that `contents` does not give.
        """
        none = np.zeros(0, dtype=np.uint64)
        current, previous = (taken(arrays, name, none) for name in ("dedup_current", "dedup_previous"))
        generation = taken(arrays, "dedup_generation", self.sets.meta, rows=1)
        window = taken(arrays, "dedup_window", self.sets.meta, rows=1)
        fresh = Dedup(self.sets.window)
        fresh.sets.meta[_COUNT:] = len(current), len(previous)
        fresh.reserve(0)
        _add_all(current, fresh.sets.first)
        _add_all(previous, fresh.sets.second)
        found = [np.count_nonzero(row) for row in (fresh.sets.first, fresh.sets.second)]
        if found != [len(current), len(previous)]:
            raise StateError("the remembered events hold an empty hash, or one twice")
        # Under another window generations are counted anew; nothing is forgotten before the next.
        fresh.sets.meta[_GENERATION] = generation[0] if window[0] == self.sets.window else -1
        return fresh


def _fitted(row: UInt64, needed: int) -> UInt64:
    """`row`, or a copy that suits `needed` hashes: half as large again, or small after a rotation."""
    if 3 * needed > 2 * len(row):
        n_places = max(3 * needed // 2 + 1, 3 * len(row) // 2)
    elif 8 * needed < len(row) and len(row) > _FIRST_PLACES:
        n_places = max(3 * needed, _FIRST_PLACES)
    else:
        return row
    new = np.zeros(n_places, dtype=np.uint64)
    _add_all(row, new)
    return new
