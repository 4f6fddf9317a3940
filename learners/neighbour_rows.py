"""Rows of neighbours by item slot: what the ranking kernels read, and what learners of such rows share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.learner import Arrays, TouchedKeys
from schemas.runs import Float32, Int32

from .state import digest_arrays, taken
from .transition_kernels import Bools

_NO_USERS: Final = np.zeros(0, dtype=np.int32)


class NeighbourRows(NamedTuple):
    """Rows as the ranking kernels read them: shared arrays, valid until the next learn_many."""

    nbr: Int32  # (capacity, K) -1 empty, filled from the left
    w: Float32  # (capacity, K)
    norm: Float32  # (capacity,) what a row, and what a neighbour, is multiplied by
    discount: float


class NeighbourTable(ABC):
    """How many item slots a learner of rows has met, and which of its rows changed.

    Parameters
    ----------
    max_items : int
        Rows at most; items of higher slots are not learned.
    """

    _dirty: Bools  # (capacity,)

    def __init__(self, max_items: int) -> None:
        self._max_items = max_items
        self._n_items = 0

    @property
    def n_items(self) -> int:
        """Item slots met so far."""
        return self._n_items

    def _reserve(self, n: int) -> None:
        n = min(n, self._max_items)
        self._n_items = max(self._n_items, n)
        self._grow(n)

    @abstractmethod
    def _grow(self, n: int) -> None:
        """Make room for item slots below `n`, or below `max_items` if that is less."""

    @abstractmethod
    def snapshot(self) -> Arrays:
        """Copy of the state by item slot; ``dirty`` is no part of the digest."""

    def touched(self) -> TouchedKeys:
        """Items whose row changed since the last call."""
        items = np.flatnonzero(self._dirty[: self._n_items]).astype(np.int32)
        self._dirty[items] = False
        return TouchedKeys(items=items, users=_NO_USERS)

    def export_dense(self) -> Arrays:
        """``counters``: number of item slots; (1,) int64."""
        return {"counters": np.array([self._n_items], dtype=np.int64)}

    def import_dense(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over what `export_dense` gave.

        Raises
        ------
        StateError
            The array is missing or malformed.
        """
        (n_items,) = taken(arrays, "counters", np.zeros(0, dtype=np.int64), rows=1).tolist()
        self._reserve(n_items)

    def digest(self) -> str:
        """Hash of the state by item slot."""
        arrays = self.snapshot()
        del arrays["dirty"]
        return digest_arrays(arrays)
