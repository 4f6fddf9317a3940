"""Drift of a rate, by ADWIN: a change of any kind, and the falls among the changes.

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

BUCKET: Final = 32
"""Values averaged before ADWIN sees them: it costs some microseconds a value."""

CHECK_EVERY: Final = 8
"""Means between two looks for a cut."""

_MAX_BUCKETS: Final = 5
_MIN_WINDOW: Final = 5
_GRACE: Final = 10
"""These three are river's defaults."""


class DriftMonitor:
    """Watches a stream of hits or rewards for a change of their mean.

    ADWIN sees means of `bucket` values and keeps the longest window whose halves do not differ. A change is a
    *fall* when what is left of the window has a lower mean than what was dropped: only that is a reason
    to act, for a system that learns gets better by itself. Cost: 0.05 microseconds a value in means of
    32, 0.8 one by one.

    Parameters
    ----------
    delta : float
        In (0, 1): the smaller, the fewer false alarms.
    bucket, every : int
        Values a mean, and means between two looks for a cut. Smaller ones cost more and find a change
        sooner: ADWIN's bound has a term in the number of means alone, whatever stands behind each.
    """

    def __init__(self, delta: float = 0.002, *, bucket: int = BUCKET, every: int = CHECK_EVERY) -> None:
        if not 0 < delta < 1:
            raise ValueError("delta must lie in (0, 1)")
        self._delta, self._bucket, self._every = delta, bucket, every
        self._window = self._fresh()
        self._cut = False
        self._rest: NDArray[np.float64] = np.zeros(0, dtype=np.float64)
        self.n_changes = 0
        """Changes found so far, up or down."""

        self.n_falls = 0
        """Changes for the worse found so far."""

        self.before = 0.0
        """Mean before the newest change: of what ADWIN dropped then."""

    def update(self, values: NDArray[np.generic]) -> int:
        """Take in `values` (n,), each in [0, 1], in event order; the number of falls found."""
        waiting = np.concatenate([self._rest, values.astype(np.float64)])
        n_full = len(waiting) // self._bucket
        self._rest = waiting[n_full * self._bucket :].copy()
        falls = 0
        for mean in waiting[: n_full * self._bucket].reshape(n_full, self._bucket).mean(axis=1).tolist():
            if self._cut:  # as river does: what follows a drift starts from nothing
                self._window = self._fresh()
            total, width = self._window.get_total() + mean, self._window.get_width() + 1
            self._cut = self._window.update(mean)
            dropped = width - self._window.get_width()
            if self._cut and dropped > 0:
                self.n_changes += 1
                self.before = (total - self._window.get_total()) / dropped
                falls += self.hit_rate < self.before
        self.n_falls += falls
        return falls

    @property
    def hit_rate(self) -> float:
        """Mean since the last change, as far as ADWIN remembers."""
        width = self._window.get_width()
        return self._window.get_total() / width if width else 0.0

    @property
    def width(self) -> int:
        """Values that `hit_rate` looks back over."""
        return int(self._window.get_width()) * self._bucket

    def _fresh(self) -> AdaptiveWindowing:
        return AdaptiveWindowing(
            delta=self._delta,
            clock=self._every,
            max_buckets=_MAX_BUCKETS,
            min_window_length=_MIN_WINDOW,
            grace_period=_GRACE,
        )
