"""The mixture: a softmax gate over everything that is known of a candidate, learned online.

::

    p(c) = exp(theta_h . x_c) / sum_c' exp(theta_h . x_c'),    theta_h = shared + own_h

over the union of a user's candidates; h is the bucket of the history's length, x the features listed
in `mixture_candidates`: transitions, popularity at five half-lives, the sequence encoder,
co-occurrence, EASE, and what the user did before. One Adagrad step (rate .05, G0 .01) of cross
entropy per target; a target that is not among the candidates teaches nothing (appending it would
teach that missing evidence is a good sign).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.learner import Arrays, TouchedKeys
from schemas.runs import Float32, Int32

from .blend import INITIAL_SQUARES
from .blend_kernels import N_BUCKETS
from .mixture_candidates import N_HALF_LIVES, N_SOURCES, Gathered, Room
from .mixture_lists import learn_targets
from .state import digest_arrays, taken

__all__ = ["HALF_LIVES_H", "N_HALF_LIVES", "Mixture"]

HALF_LIVES_H: Final = (2.4, 2_400.0, float("inf"))
"""Half-lives of popularity beside the two that propose candidates, hours."""

RATE: Final = np.float32(0.05)
INITIAL_WEIGHTS: Final = (
    0.20, 0.20, 0.10,
    0.30, 0.30, 0.10, 0.00, 0.10,
    0.20, 0.10,
    0.10, 0.30, 0.30, 0.10,
    0.00, 0.00, 0.00, 0.00,
)  # fmt: skip
"""In the order of the features; what is popular leads until something else has been learned."""


class Mixture:
    """Learner of the mixture's weights, name ``gate``; it learns from features, not from events.

    Deterministic: the same calls give the same weights, bit by bit. Cost: 4 microseconds a target
    and hundred candidates.
    """

    def __init__(self) -> None:
        self._shared: Float32 = np.array(INITIAL_WEIGHTS, dtype=np.float32)
        self._own: Float32 = np.zeros((N_BUCKETS, N_SOURCES), dtype=np.float32)
        self._shared_squares = np.full(N_SOURCES, INITIAL_SQUARES, dtype=np.float32)
        self._own_squares = np.full((N_BUCKETS, N_SOURCES), INITIAL_SQUARES, dtype=np.float32)
        self._counts = np.zeros(2, dtype=np.int64)
        self._dirty = False

    @property
    def name(self) -> str:
        """Stable name."""
        return "gate"

    @property
    def weights(self) -> Float32:
        """By bucket, shared + own: (N_BUCKETS, N_SOURCES), a copy."""
        weights: Float32 = self._shared + self._own
        return weights

    @property
    def n_learned(self) -> int:
        """Targets learned from."""
        return int(self._counts[1])

    def take_turns(self, rows: Int32, every: int) -> Int32:
        """Of the rows with a target, every `every`-th one, counted across calls."""
        turns = (int(self._counts[0]) + np.arange(len(rows))) % every == 0
        self._counts[0] += len(rows)
        chosen: Int32 = rows[turns]
        return chosen

    def learn(self, rows: Int32, targets: Int32, gathered: Gathered, room: Room) -> int:
        """Learn from `rows` of what was gathered, in order; returns how many targets were candidates.

        `targets` (B,) belongs to the rows of `gathered`.
        """
        n = int(
            learn_targets(
                rows, targets, gathered, self._shared, self._own, self._shared_squares, self._own_squares,
                RATE, room,
            )
        )  # fmt: skip
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
            An array is missing, of another shape (a build with other features), or not finite.
        """
        mine = self._arrays()
        fresh = {name: taken(arrays, name, like, rows=len(like)) for name, like in mine.items()}
        for name, array in fresh.items():
            if not np.isfinite(array).all():
                raise StateError(f"the gate's {name!r} holds numbers that are not finite")
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
