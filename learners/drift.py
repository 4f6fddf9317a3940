"""Drift of the hit rate, by ADWIN.

References
----------
Bifet and Gavaldà, Learning from time-changing data with adaptive windowing, SDM 2007; river.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

_BUCKET: Final = 32
"""Hits averaged before ADWIN sees them: it costs some microseconds a value."""

_CHECK_EVERY: Final = 8
"""Values between two looks for a cut: 256 events."""


class DriftMonitor:
    """Watches a stream of hits for a change of their rate, up or down.

    ADWIN sees means of 32 hits and keeps the longest window whose halves do not differ.
    Cost: about 0.1 microseconds an event.

    Parameters
    ----------
    delta : float
        In (0, 1): the smaller, the fewer false alarms.
    """

    def __init__(self, delta: float = 0.002) -> None:
        if not 0 < delta < 1:
            raise ValueError("delta must lie in (0, 1)")
        self._adwin = ADWIN(delta=delta, clock=_CHECK_EVERY)
        self._rest: NDArray[np.float64] = np.zeros(0, dtype=np.float64)
        self.n_drifts = 0
        """Drifts found so far."""

    def update(self, hits: NDArray[np.bool_]) -> int:
        """Take in `hits` (n,) in event order; the number of drifts found."""
        values = np.concatenate([self._rest, hits])
        n_full = len(values) // _BUCKET
        self._rest = values[n_full * _BUCKET :].copy()
        found = 0
        for mean in values[: n_full * _BUCKET].reshape(n_full, _BUCKET).mean(axis=1).tolist():
            self._adwin.update(mean)
            found += bool(self._adwin.drift_detected)
        self.n_drifts += found
        return found

    @property
    def hit_rate(self) -> float:
        """Hit rate since the last drift, as far as ADWIN remembers."""
        return float(self._adwin.estimation)

    @property
    def width(self) -> int:
        """Events that `hit_rate` looks back over."""
        return int(self._adwin.width) * _BUCKET
