"""Drift of the hit rate, by ADWIN.

References
----------
Bifet and Gavaldà, Learning from time-changing data with adaptive windowing, SDM 2007; river.

`river.drift.ADWIN` is a shell around the compiled class used here, but importing it takes two
seconds of every start: its package imports scipy. A test holds both to the same findings.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray
from river._river_rust.drift import AdaptiveWindowing

_BUCKET: Final = 32
"""Hits averaged before ADWIN sees them: it costs some microseconds a value."""

_CHECK_EVERY: Final = 8
"""Values between two looks for a cut: 256 events."""

_MAX_BUCKETS: Final = 5
_MIN_WINDOW: Final = 5
_GRACE: Final = 10
"""These three are river's defaults."""


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
        self._delta = delta
        self._window = self._fresh()
        self._cut = False
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
            if self._cut:  # as river does: what follows a drift starts from nothing
                self._window = self._fresh()
            self._cut = self._window.update(mean)
            found += self._cut
        self.n_drifts += found
        return found

    @property
    def hit_rate(self) -> float:
        """Hit rate since the last drift, as far as ADWIN remembers."""
        width = self._window.get_width()
        return self._window.get_total() / width if width else 0.0

    @property
    def width(self) -> int:
        """Events that `hit_rate` looks back over."""
        return int(self._window.get_width()) * _BUCKET

    def _fresh(self) -> AdaptiveWindowing:
        return AdaptiveWindowing(
            delta=self._delta,
            clock=_CHECK_EVERY,
            max_buckets=_MAX_BUCKETS,
            min_window_length=_MIN_WINDOW,
            grace_period=_GRACE,
        )
