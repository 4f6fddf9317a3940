"""Prequential evaluation: lists are scored before the event that ends them is learned.

A rank is the 0-based place of the target in the list that was served, -1 where it is not in it.
Up to rank k - 1 it counts as a hit::

    hit rate = mean 1[hit]     MRR = mean 1[hit] / (rank + 1)     nDCG = mean 1[hit] / log2(rank + 2)

Paired learners are compared by McNemar's test on their hits at the same events. Events of one user
are not independent, so its p-value is smaller than it should be: a guide, not a proof.

References
----------
Gama, Sebastião and Rodrigues, On evaluating stream learning algorithms, Machine Learning 2013.
Vinagre, Jorge and Gama, Evaluation of recommender systems in streaming environments, 2015.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import comb, erfc, sqrt
from typing import Final, NamedTuple

import numpy as np
from numba import njit

from schemas.runs import Int32, Int64

_EXACT_BELOW: Final = 25


def rank_of(targets: Int32, lists: Int32) -> Int32:
    """Rank of `targets` (n,) in `lists` (n, k): (n,) int32, -1 where absent or the target is -1.

    >>> rank_of(np.array([7, 9], np.int32), np.array([[5, 7], [5, 7]], np.int32))
    array([ 1, -1], dtype=int32)
    """
    ranks = np.full(len(targets), -1, dtype=np.int32)
    _rank_of(targets, lists, ranks)
    return ranks


class HitMeter:
    """Hit rate, MRR and nDCG at k of a stream of ranks: overall, fading, and by window.

    The fading hit rate weighs a hit by ``fading ** age``, age in events. Windows are consecutive;
    once there are `max_windows` of them, neighbours are merged and the window doubles, so memory
    is bounded.

    Parameters
    ----------
    k : int
        Places that count.
    fading : float
        In (0, 1]; 0.9999 looks back over about 10 000 events.
    window : int
        Events of a window to begin with.
    max_windows : int
        Even.

    >>> meter = HitMeter(k=2, window=2)
    >>> meter.update(np.array([0, 1, -1, 5], np.int32))
    >>> meter.hit_rate, meter.mrr, meter.windows
    (0.5, 0.375, [(2, 1.0), (4, 0.0)])
    """

    def __init__(
        self, k: int = 10, fading: float = 0.9999, window: int = 5_000, *, max_windows: int = 256
    ) -> None:
        if k < 1 or window < 1 or max_windows < 2 or max_windows % 2 or not 0 < fading <= 1:
            raise ValueError("k, window, max_windows or fading out of range")
        self.k = k
        self.n = 0
        """Events seen."""
        self._fading = fading
        self._hits = 0
        self._reciprocal = 0.0
        self._gain = 0.0
        self._faded_hits = 0.0
        self._faded_n = 0.0
        self._window = window
        self._max_windows = max_windows
        self._windows: list[int] = []  # hits of each full window
        self._open_hits = 0

    def update(self, ranks: Int32) -> None:
        """Take in `ranks` (n,) in event order. Cost: about 0.02 microseconds an event."""
        hit = (ranks >= 0) & (ranks < self.k)
        places = ranks[hit].astype(np.float64)
        self._reciprocal += float((1.0 / (places + 1.0)).sum())
        self._gain += float((1.0 / np.log2(places + 2.0)).sum())
        self._hits += len(places)
        weights = self._fading ** np.arange(len(ranks) - 1, -1, -1, dtype=np.float64)
        decay = self._fading ** len(ranks)
        self._faded_hits = self._faded_hits * decay + float(weights[hit].sum())
        self._faded_n = self._faded_n * decay + float(weights.sum())
        done = 0
        while done < len(ranks):
            room = self._window - self.n % self._window
            part = hit[done : done + room]
            self._open_hits += int(np.count_nonzero(part))
            self.n += len(part)
            done += len(part)
            if len(part) == room:
                self._close_window()

    def _close_window(self) -> None:
        self._windows.append(self._open_hits)
        self._open_hits = 0
        if len(self._windows) == self._max_windows:
            self._windows = [a + b for a, b in zip(self._windows[::2], self._windows[1::2], strict=True)]
            self._window *= 2

    @property
    def hit_rate(self) -> float:
        """Fraction of events whose target was among the first k."""
        return self._hits / self.n if self.n else 0.0

    @property
    def mrr(self) -> float:
        """Mean reciprocal rank at k."""
        return self._reciprocal / self.n if self.n else 0.0

    @property
    def ndcg(self) -> float:
        """Normalised discounted cumulative gain at k (one relevant item an event)."""
        return self._gain / self.n if self.n else 0.0

    @property
    def fading_hit_rate(self) -> float:
        """Hit rate with older events fading."""
        return self._faded_hits / self._faded_n if self._faded_n else 0.0

    @property
    def windows(self) -> list[tuple[int, float]]:
        """Full windows: (number of events at the window's end, hit rate within it)."""
        return [((i + 1) * self._window, hits / self._window) for i, hits in enumerate(self._windows)]

    def as_dict(self) -> dict[str, float | int]:
        """Plain numbers for reports."""
        return {
            "n": self.n,
            "k": self.k,
            "hit_rate": self.hit_rate,
            "mrr": self.mrr,
            "ndcg": self.ndcg,
            "fading_hit_rate": self.fading_hit_rate,
        }


class McNemar(NamedTuple):
    """Test of two paired learners."""

    b: int  # events that only the first hit
    c: int  # events that only the second hit
    p: float  # two-sided


def mcnemar(b: int, c: int) -> McNemar:
    """McNemar's test: exact binomial below 25 discordant events, else chi^2 with continuity correction.

    ``chi^2 = (|b - c| - 1)^2 / (b + c)``, ``p = erfc(sqrt(chi^2 / 2))``.

    >>> round(mcnemar(10, 2).p, 4)
    0.0386
    """
    n = b + c
    if n < _EXACT_BELOW:
        tail = sum(comb(n, i) for i in range(min(b, c) + 1)) / 2**n
        return McNemar(b, c, min(1.0, 2.0 * tail))
    distance = max(abs(b - c) - 1, 0)
    return McNemar(b, c, erfc(sqrt(distance * distance / n / 2.0)))


class PrequentialBoard:
    """One `HitMeter` a learner, fed with the same events, and the pairs' discordant counts."""

    def __init__(
        self, names: Sequence[str], *, k: int = 10, fading: float = 0.9999, window: int = 5_000
    ) -> None:
        self.meters = {name: HitMeter(k, fading, window) for name in names}
        self._order = {name: i for i, name in enumerate(self.meters)}
        self._only: Int64 = np.zeros((len(self._order), len(self._order)), dtype=np.int64)

    def update(self, ranks: Mapping[str, Int32]) -> None:
        """Take in the ranks of the same events from every learner.

        Raises
        ------
        ValueError
            A name is missing or unknown, or the lengths differ; nothing was taken in.
        """
        if set(ranks) != set(self.meters) or len({len(part) for part in ranks.values()}) > 1:
            raise ValueError(f"ranks of the same events are needed from each of {list(self.meters)}")
        for name, meter in self.meters.items():
            meter.update(ranks[name])
        hits = np.stack(
            [(ranks[name] >= 0) & (ranks[name] < meter.k) for name, meter in self.meters.items()]
        ).astype(np.int64)  # (learners, n)
        self._only += hits @ (1 - hits).T

    def compare(self, first: str, second: str) -> McNemar:
        """McNemar's test between two learners."""
        i, j = self._order[first], self._order[second]
        return mcnemar(int(self._only[i, j]), int(self._only[j, i]))

    def as_dict(self) -> dict[str, dict[str, float | int]]:
        """Numbers of every learner by name."""
        return {name: meter.as_dict() for name, meter in self.meters.items()}

    def series(self) -> dict[str, list[tuple[int, float]]]:
        """Windows of every learner, at the same events, for a chart; at most 256 points each."""
        return {name: meter.windows for name, meter in self.meters.items()}


@njit(nogil=True, cache=True)
def _rank_of(targets: Int32, lists: Int32, ranks: Int32) -> None:
    for i in range(len(targets)):
        if targets[i] >= 0:
            for j in range(lists.shape[1]):
                if lists[i, j] == targets[i]:
                    ranks[i] = j
                    break
