"""Whether viewers turn away from their lists: drift of the reward of listed items, by surface.

Rewards are those of `learners.acceptance`. They depend on which list a user had at the time, and so on
when lists were made: refolding a log cannot find the same drifts. What is found is therefore a decision
of the live worker, noted in the journal (`streams.core`); nothing here belongs to a checkpoint.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import structlog

from learners.acceptance import Rewards
from learners.drift import DriftMonitor
from schemas.signals import ROWS

log = structlog.get_logger(__name__)

EVERY: Final = 32
"""Rewards between two looks for a fall. They go in one by one: there are far fewer of them than events."""

LEAST_FALL: Final = 0.05
"""Of the mean reward before, that a fall must be at least to be a reason to act."""


class DriftWatch:
    """A monitor a surface; those of events that name none are together.

    Parameters
    ----------
    delta : float
        Of ADWIN, see `learners.drift`.
    """

    def __init__(self, delta: float) -> None:
        self.monitors = {name: DriftMonitor(delta, bucket=1, every=EVERY) for name in ROWS}
        self._found: list[str] = []

    def take(self, ended: Rewards) -> None:
        """Take in views that are over, in order."""
        for code in np.unique(ended.surfaces).tolist():
            name = ROWS[code]  # -1, no surface, is the last
            monitor = self.monitors[name]
            if not monitor.update(ended.values[ended.surfaces == code]):
                continue
            now = monitor.hit_rate
            log.warning("drift_found", surface=name, before=round(monitor.before, 4), now=round(now, 4))
            if now < (1.0 - LEAST_FALL) * monitor.before:
                self._found.append(name)

    def found(self) -> list[str]:
        """Surfaces whose reward has fallen since the last call, in the order found."""
        names, self._found = self._found, []
        return names
