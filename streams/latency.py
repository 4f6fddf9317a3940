"""Recent figures for people: rates and quantiles over a sliding window of exact values.

Prometheus computes its own quantiles from the histograms; these feed the live page and the
report of `reelflow demo`.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray


class Reservoir:
    """The newest `capacity` values; quantiles are exact over them."""

    def __init__(self, capacity: int = 20_000) -> None:
        self._values = np.zeros(capacity, dtype=np.float64)
        self._n = 0

    def __len__(self) -> int:
        return min(self._n, len(self._values))

    def extend(self, values: NDArray[np.float64]) -> None:
        """Append values, overwriting the oldest."""
        capacity = len(self._values)
        values = values[-capacity:]
        where = (self._n + np.arange(len(values))) % capacity
        self._values[where] = values
        self._n += len(values)

    def quantile(self, q: float) -> float | None:
        """Quantile `q` in [0, 1], or None without values."""
        if not len(self):
            return None
        return float(np.quantile(self._values[: len(self)], q))


class Rate:
    """Events a second over the last `window_s` seconds of the times passed in."""

    def __init__(self, window_s: float = 5.0) -> None:
        self._window_s = window_s
        self._marks: deque[tuple[float, int]] = deque()

    def add(self, now_s: float, n: int) -> None:
        """Count `n` events at `now_s`."""
        self._marks.append((now_s, n))
        self._trim(now_s)

    def per_second(self, now_s: float) -> float:
        """Mean rate over the window that ends at `now_s`."""
        self._trim(now_s)
        return sum(n for _, n in self._marks) / self._window_s

    def _trim(self, now_s: float) -> None:
        while self._marks and self._marks[0][0] < now_s - self._window_s:
            self._marks.popleft()
