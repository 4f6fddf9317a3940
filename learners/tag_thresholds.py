"""Thresholds of tags, each from a window that is over when the threshold is used.

The last `WINDOW` labelled items' probabilities and labels are kept; when a window is full, the threshold
of every tag with at least `MIN_POSITIVES` examples in it becomes the one with the largest F1 there, and
the next window starts. Until its first, a tag has .5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.learner import Arrays
from schemas.runs import Float32, Float64, Int8

from .probability_metrics import best_threshold
from .state import taken

WINDOW: Final = 256
MIN_POSITIVES: Final = 3
FIRST: Final = 0.5


class TagThresholds:
    """See the module's docstring; 5 bytes a tag for each item of the window."""

    def __init__(self) -> None:
        self.values: Float32 = np.zeros(0, dtype=np.float32)
        """By tag, (T,)."""
        self._p: Float32 = np.zeros((WINDOW, 0), dtype=np.float32)
        self._y: Int8 = np.zeros((WINDOW, 0), dtype=np.int8)
        self._n = np.zeros(1, dtype=np.int64)

    def widen(self, n_tags: int) -> None:
        """Have at least so many tags."""
        missing = n_tags - len(self.values)
        if missing > 0:
            self.values = np.pad(self.values, (0, missing), constant_values=FIRST)
            self._p = np.pad(self._p, ((0, 0), (0, missing)))
            self._y = np.pad(self._y, ((0, 0), (0, missing)))

    def clear(self, tag: int) -> None:
        """A column becomes another tag."""
        self.values[tag] = FIRST
        self._p[:, tag], self._y[:, tag] = 0.0, 0

    def add(self, probabilities: Float32, labels: Float32) -> None:
        """What was predicted of the next items (N, T) before they were learned, and what they had."""
        for p, y in zip(probabilities, labels, strict=True):
            at = int(self._n[0])
            self._p[at, : len(p)], self._y[at, : len(y)] = p, y
            self._n[0] = at + 1
            if at + 1 == WINDOW:
                self._choose()
                self._n[0] = 0

    def _choose(self) -> None:
        for tag in np.flatnonzero(self._y.sum(axis=0, dtype=np.int64) >= MIN_POSITIVES).tolist():
            p: Float64 = self._p[:, tag].astype(np.float64)
            self.values[tag] = best_threshold(self._y[:, tag], p)

    def arrays(self) -> Arrays:
        """``values``, ``p``, ``y``, ``n``."""
        return {"values": self.values, "p": self._p, "y": self._y, "n": self._n}

    def restored(self, arrays: Mapping[str, NDArray[Any]], prefix: str, n_tags: int) -> TagThresholds:
        """Thresholds from copies of the arrays of that prefix.

        Raises
        ------
        StateError
            One is missing or malformed.
        """
        twin = TagThresholds()
        twin.values = taken(arrays, f"{prefix}.values", self.values, rows=n_tags)
        twin._p = taken(arrays, f"{prefix}.p", np.zeros((0, n_tags), np.float32), rows=WINDOW)
        twin._y = taken(arrays, f"{prefix}.y", np.zeros((0, n_tags), np.int8), rows=WINDOW)
        twin._n = taken(arrays, f"{prefix}.n", self._n, rows=1)
        if not 0 <= int(twin._n[0]) < WINDOW:
            raise StateError(f"'{prefix}.n' is not within a window")
        return twin
