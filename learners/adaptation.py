"""When the model learns faster: for a while of event time after viewers turned away from their lists.

At the beginning, once: see `Model.adapt`. While it is on, what was liked before counts for less.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.learner import Arrays
from schemas.runs import Int64

from .state import digest_arrays, taken

SPAN_MS: Final = 600_000
"""How long it lasts."""


class Adaptation:
    """Event time so far, and until when the model adapts; a part of the model's state."""

    def __init__(self) -> None:
        self._times: Int64 = np.array([-1, -1], dtype=np.int64)  # newest event, end

    @property
    def name(self) -> str:
        """Stable name."""
        return "adaptation"

    @property
    def until_ms(self) -> int:
        """Event time at which the last adaptation ends or ended, -1 before the first."""
        return int(self._times[1])

    @property
    def is_on(self) -> bool:
        """Whether it has begun and not ended at the newest event time."""
        return bool(self._times[0] < self._times[1])

    def observe(self, ts_ms: Int64) -> None:
        """Note event times (N,), milliseconds."""
        self._times[0] = max(int(self._times[0]), int(ts_ms.max(initial=-1)))

    def begin(self) -> None:
        """Adapt from the newest event time on."""
        self._times[1] = self._times[0] + SPAN_MS

    def snapshot(self) -> Arrays:
        """``times``: newest event time and end, (2,) int64."""
        return {"times": self._times.copy()}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            The array is missing or malformed.
        """
        self._times = taken(arrays, "times", self._times, rows=2)

    def digest(self) -> str:
        """Hash of the state."""
        return digest_arrays(self.snapshot())
