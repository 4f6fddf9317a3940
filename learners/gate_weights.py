"""Weights of a softmax gate: shared ones plus those of each history length, learned by Adagrad."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.learner import Arrays, TouchedKeys
from schemas.runs import Float32, Int32

from .blend_kernels import N_BUCKETS
from .state import check_finite, digest_arrays, taken

INITIAL_SQUARES: Final = 0.01


class GateWeights:
    """theta_h = shared + own_h for F features, by bucket h of the history's length, and its state.

    The learner's name is ``gate`` whichever features it has: a model has one. Who derives from it teaches
    the weights by a kernel of its own and passes the number of targets that taught to `_learned`.

    Parameters
    ----------
    initial : Sequence[float]
        (F,) shared weights to begin with; those of the buckets begin at zero.
    """

    def __init__(self, initial: Sequence[float]) -> None:
        self._shared: Float32 = np.array(initial, dtype=np.float32)
        n = len(self._shared)
        self._own: Float32 = np.zeros((N_BUCKETS, n), dtype=np.float32)
        self._shared_squares = np.full(n, INITIAL_SQUARES, dtype=np.float32)
        self._own_squares = np.full((N_BUCKETS, n), INITIAL_SQUARES, dtype=np.float32)
        self._counts = np.zeros(2, dtype=np.int64)
        self._dirty = False

    @property
    def name(self) -> str:
        """Stable name."""
        return "gate"

    @property
    def weights(self) -> Float32:
        """By bucket, shared + own: (N_BUCKETS, F), a copy."""
        weights: Float32 = self._shared + self._own
        return weights

    @property
    def n_learned(self) -> int:
        """Targets learned from."""
        return int(self._counts[1])

    @property
    def is_finite(self) -> bool:
        """Whether the weights are numbers."""
        return bool(np.isfinite(self._shared).all() and np.isfinite(self._own).all())

    def take_turns(self, rows: Int32, every: int) -> Int32:
        """Of the rows with a target, every `every`-th one, counted across calls."""
        turns = (int(self._counts[0]) + np.arange(len(rows))) % every == 0
        self._counts[0] += len(rows)
        chosen: Int32 = rows[turns]
        return chosen

    def hurry(self, kept: float) -> None:
        """Keep a share of what Adagrad summed: the next steps are larger."""
        for squares in (self._shared_squares, self._own_squares):
            squares[...] = INITIAL_SQUARES + np.float32(kept) * (squares - np.float32(INITIAL_SQUARES))

    def _learned(self, n: int) -> int:
        self._counts[1] += n
        self._dirty = self._dirty or n > 0
        return n

    def touched(self) -> TouchedKeys:
        """Drain: the one dense parameter, when it changed."""
        none: Int32 = np.zeros(0, dtype=np.int32)
        dense = ("gate",) if self._dirty else ()
        self._dirty = False
        return TouchedKeys(items=none, users=none, dense=dense)

    def snapshot(self) -> Arrays:
        """Copy of the state."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            An array is missing of another shape (a build with other features), or not finite.
        """
        mine = self._arrays()
        fresh = {name: taken(arrays, name, like, rows=len(like)) for name, like in mine.items()}
        check_finite(fresh, "the gate")
        for name, array in fresh.items():
            mine[name][...] = array
        self._dirty = True

    def export_dense(self) -> Arrays:
        """The state as absolute values, for `import_dense` of another instance."""
        return self.snapshot()

    def import_dense(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """As `restore`, but nothing is touched by it."""
        self.restore(arrays)
        self._dirty = False

    def digest(self) -> str:
        """Hash of the state."""
        return digest_arrays(self._arrays())

    def _arrays(self) -> dict[str, NDArray[np.generic]]:
        return {
            "shared": self._shared,
            "own": self._own,
            "shared_squares": self._shared_squares,
            "own_squares": self._own_squares,
            "counts": self._counts,
        }
