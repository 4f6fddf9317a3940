"""Which variant a list is made with, and what becomes of the lists of each.

A list's variant is drawn by the shares of `learners.bandit` from a hash of partition and offset of the
user's last event: the same event gives the same list while the shares are the same, and a list that is
made again without a new event is of the same variant. Rewards are those of `learners.acceptance`, of
views that began with a list of this process. None of it is learned state: which lists a user had depends
on when they were made. After a start shares are equal, and soon again what they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np

from learners.acceptance import Rewards
from learners.bandit import Bandit
from schemas.runs import Int8, Int32, Int64
from schemas.settings import Settings
from serving.metrics import WorkerMetrics

from .ways import Way

_OFFSET_BITS: Final = 48


class VariantChoice:
    """See the module's docstring.

    Parameters
    ----------
    settings : Settings
    ways : sequence of Way
        Two or more.
    metrics : WorkerMetrics
    """

    def __init__(self, settings: Settings, ways: Sequence[Way], metrics: WorkerMetrics) -> None:
        ranker = settings.ranker
        self._names = [way.name for way in ways]
        self._bandit = Bandit(
            len(ways), memory=ranker.variant_memory, floor=ranker.variant_floor, seed=settings.learner.seed
        )
        self._metrics = metrics
        self._lists = np.zeros(len(ways), dtype=np.int64)
        self.refresh_gauges()

    def choose(self, partitions: Int32, offsets: Int64) -> Int8:
        """Variants of lists (B,) by the last events that they know."""
        return self._bandit.choose(offsets ^ (partitions.astype(np.int64) << _OFFSET_BITS))

    def made(self, chosen: Int8) -> None:
        """Count lists (B,)."""
        counts = np.bincount(chosen, minlength=len(self._names))
        self._lists += counts
        for name, n in zip(self._names, counts.tolist(), strict=True):
            self._metrics.variant_lists.labels(name).inc(n)

    def take(self, ended: Rewards) -> None:
        """Take in views that are over, in order."""
        self._bandit.take(ended.groups, ended.values)

    def refresh_gauges(self) -> None:
        """Set the gauges of shares and rewards."""
        for name, share, mean in zip(self._names, self._bandit.shares, self._bandit.means(), strict=True):
            self._metrics.variant_share.labels(name).set(share)
            if mean is not None:
                self._metrics.variant_reward.labels(name).set(mean)

    def stats(self) -> dict[str, dict[str, Any]]:
        """Share, mean reward (None before there is one) and lists of each variant."""
        return {
            name: {
                "share": round(float(share), 4),
                "reward": None if mean is None else round(mean, 4),
                "lists": int(n),
            }
            for name, share, mean, n in zip(
                self._names, self._bandit.shares, self._bandit.means(), self._lists, strict=True
            )
        }
