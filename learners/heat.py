"""How warm a live room is: who comes and who leaves, decayed within minutes.

For every item b with t_b the event time of its newest join or leave, and a half-life T::

    J_b = sum over joins of b   2^((t - t_b) / T)        L_b the same over leaves
    heat_b(t) = J_b^2 / (J_b + L_b) 2^(-(t - t_b) / T)

So a room that people leave as fast as they come has half the heat of one where they stay, and one
where nobody comes has half of it after T. A join of weight 0 (nobody chose it) is none.

References
----------
Cormode et al., Forward decay, ICDE 2009.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import kernel
from schemas.errors import StateError
from schemas.learner import Arrays, Contexts, Interactions, TouchedKeys
from schemas.runs import Float32, Float64, Int8, Int32, Int64

from .growth import grown
from .signals import JOIN, LEAVE
from .state import digest_arrays, taken

_FIRST_ITEMS: Final = 1_024
_NO_USERS: Final = np.zeros(0, dtype=np.int32)
_JOINS, _LEAVES = 0, 1

Bools = NDArray[np.bool_]


@kernel
def _learn(
    items: Int32,
    types: Int8,
    weight: Float32,
    ts_ms: Int64,
    per_ms: float,
    join: int,
    leave: int,
    counts: Float64,
    times: Int64,
    dirty: Bools,
) -> None:
    for i in range(len(items)):
        x = items[i]
        channel = _JOINS if types[i] == join and weight[i] > 0 else -1
        channel = _LEAVES if types[i] == leave else channel
        if channel < 0 or x < 0 or x >= len(times):
            continue
        if ts_ms[i] > times[x]:
            factor = 2.0 ** (np.float64(times[x] - ts_ms[i]) * per_ms) if times[x] >= 0 else 0.0
            counts[x, 0] *= factor
            counts[x, 1] *= factor
            times[x] = ts_ms[i]
        counts[x, channel] += 2.0 ** (np.float64(ts_ms[i] - times[x]) * per_ms)
        dirty[x] = True


class RoomHeat:
    """The learner; see the module's docstring.

    Parameters
    ----------
    half_life_ms : float
        T, milliseconds.
    max_items : int
        Items at most; higher slots are not counted.

    Notes
    -----
    learn_many equals folding learn_one, bit by bit. Cost: 5 nanoseconds an event, of which few are a join or
    leave; 25 bytes an item slot.
    """

    def __init__(self, half_life_ms: float, *, max_items: int = 2_000_000) -> None:
        if half_life_ms <= 0 or max_items < 1:
            raise ValueError("half_life_ms and max_items are positive")
        self._per_ms = 1.0 / half_life_ms
        self._max_items = max_items
        self._n_items = 0
        n = min(_FIRST_ITEMS, max_items)
        self._counts: Float64 = np.zeros((n, 2), dtype=np.float64)
        self._times: Int64 = np.full(n, -1, dtype=np.int64)
        self._dirty: Bools = np.zeros(n, dtype=np.bool_)

    @property
    def name(self) -> str:
        """Stable name."""
        return "heat"

    @property
    def n_items(self) -> int:
        """Item slots met so far."""
        return self._n_items

    def at(self, items: Int32, now_ms: int) -> Float64:
        """Heat of `items` (C,) at `now_ms`, as of its newest event for a room that is ahead of it; (C,)."""
        known = (items >= 0) & (items < self._n_items)
        places = np.where(known, items, 0)
        joins, leaves = self._counts[places].T
        age_ms = np.maximum(now_ms - self._times[places], 0)
        heat: Float64 = joins * joins / np.maximum(joins + leaves, 1e-300)
        return heat * np.exp2(-age_ms * self._per_ms) * known

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """Heat at the contexts' time, the same for all of them; (B, C)."""
        return np.tile(self.at(items, contexts.now_ms).astype(np.float32), (len(contexts.history), 1))

    def learn_many(self, batch: Interactions) -> None:
        """Count the batch's joins and leaves, in order."""
        if not len(batch):
            return
        self._reserve(int(batch.items.max()) + 1)
        _learn(
            batch.items, batch.types, batch.weight, batch.ts_ms, self._per_ms, JOIN, LEAVE,
            self._counts, self._times, self._dirty,
        )  # fmt: skip

    def touched(self) -> TouchedKeys:
        """Rooms that were counted since the last call."""
        items = np.flatnonzero(self._dirty[: self._n_items]).astype(np.int32)
        self._dirty[items] = False
        return TouchedKeys(items=items, users=_NO_USERS)

    def export_rows(self, items: Int32) -> Arrays:
        """Absolute counts of `items` (B,): ``counts`` (B, 2) joins and leaves, ``times`` (B,); copies."""
        known = (items >= 0) & (items < self._n_items)
        places = np.where(known, items, 0)
        return {
            "counts": self._counts[places] * known[:, None],
            "times": np.where(known, self._times[places], -1),
        }

    def import_rows(self, items: Int32, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over counts of distinct `items` (B,) as `export_rows` gave them.

        Raises
        ------
        StateError
            Arrays are missing or damaged.
        """
        counts = taken(arrays, "counts", self._counts, rows=len(items))
        times = taken(arrays, "times", self._times, rows=len(items))
        if len(items):
            self._grow(int(items.max()) + 1)
            fits = items < len(self._times)
            self._counts[items[fits]], self._times[items[fits]] = counts[fits], times[fits]

    def export_dense(self) -> Arrays:
        """Number of items."""
        return {"n_items": np.array([self._n_items], dtype=np.int64)}

    def import_dense(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over what `export_dense` gave.

        Raises
        ------
        StateError
            The number is missing.
        """
        self._reserve(int(taken(arrays, "n_items", self._times, rows=1)[0]))

    def _reserve(self, n: int) -> None:
        self._n_items = max(self._n_items, min(n, self._max_items))
        self._grow(self._n_items)

    def _grow(self, n: int) -> None:
        n = min(n, self._max_items)
        self._counts, self._dirty = grown(self._counts, n), grown(self._dirty, n)
        self._times = grown(self._times, n, -1)

    def snapshot(self) -> Arrays:
        """Copy of the counts by item slot; what is touched but not drained stays so."""
        n = self._n_items
        return {
            "counts": self._counts[:n].copy(),
            "times": self._times[:n].copy(),
            "dirty": self._dirty[:n].copy(),
            "per_ms": np.array([self._per_ms]),
        }

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            Arrays are missing, or counted with another half-life.
        """
        counts = taken(arrays, "counts", self._counts)
        times = taken(arrays, "times", self._times, rows=len(counts))
        dirty = taken(arrays, "dirty", self._dirty, rows=len(counts))
        per_ms = taken(arrays, "per_ms", np.zeros(0), rows=1)
        if per_ms[0] != self._per_ms:
            raise StateError("'per_ms': the heat of rooms was counted with another half-life; refold the log")
        self._counts, self._times, self._dirty, self._n_items = counts, times, dirty, len(counts)

    def digest(self) -> str:
        """Hash of the counts by item slot."""
        return digest_arrays({name: array for name, array in self.snapshot().items() if name != "dirty"})
