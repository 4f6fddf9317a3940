"""How good tags are, prequentially: each item is counted as it was predicted before it was learned.

Over all labelled items so far, and (for what needs the scores side by side) the last `WINDOW` of them:

==============  ======================================================================================
accuracy        share of right decisions among all items x tags
top_accuracy    share of items whose most probable tag is one of theirs
precision       tags given that were right / tags given
recall          tags given that were right / tags there were
f1              2 precision recall / (precision + recall); `macro_f1` is its mean over tags with examples
mean_precision  mAP: mean over tags with an example in the window of the mean, over the items that have the
                tag, of the precision among the items that are at least as probable; ties against us
ece             |probability - frequency| over 15 bins of equal width, weighted, in the window
==============  ======================================================================================

References
----------
Gama, Sebastiao and Rodrigues, On evaluating stream learning algorithms, Machine Learning 2013. Zhang and
Zhou, A review on multi-label learning algorithms, TKDE 2014.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import Struct

from schemas.runs import Float32, Float64, Int8, Int64

from .probability_metrics import calibration_error, reliability
from .tagger import TagScores

WINDOW: Final = 1_024


class TagFigures(Struct, frozen=True):
    """See the module's docstring; NaN of nothing."""

    n_items: int
    accuracy: float
    top_accuracy: float
    precision: float
    recall: float
    f1: float
    macro_f1: float
    mean_precision: float
    ece: float


class TagMetrics:
    """Counts of decisions by tag, and a window of probabilities: 5 `WINDOW` bytes a tag."""

    def __init__(self) -> None:
        self._n_items = 0
        self._n_top = 0
        self._counts: Int64 = np.zeros((4, 0), dtype=np.int64)  # hits, given, there, items by tag
        self._p: Float32 = np.zeros((WINDOW, 0), dtype=np.float32)
        self._y: Int8 = np.zeros((WINDOW, 0), dtype=np.int8)

    def add(self, scores: TagScores, labels: Float32) -> None:
        """Count N labelled items: what was thought of them (N, T), and what they had (N, T)."""
        n, n_tags = labels.shape
        missing = n_tags - self._counts.shape[1]
        if missing > 0:
            room = ((0, 0), (0, missing))
            self._counts, self._p, self._y = (
                np.pad(self._counts, room), np.pad(self._p, room), np.pad(self._y, room),
            )  # fmt: skip
        if not n or not n_tags:
            return
        there = labels > 0
        given = scores.given.astype(np.bool_)
        rows = [(given & there).sum(axis=0), given.sum(axis=0), there.sum(axis=0), np.full(n_tags, n)]
        self._counts[:, :n_tags] += np.stack(rows)
        best = scores.probabilities.argmax(axis=1)
        self._n_top += int(there[np.arange(n), best].sum())
        places = (self._n_items + np.arange(n)) % WINDOW
        self._p[places], self._y[places] = 0.0, 0
        self._p[places, :n_tags], self._y[places, :n_tags] = scores.probabilities, there
        self._n_items += n

    def figures(self) -> TagFigures:
        """The table of the module's docstring, as of now."""
        hits, given, there, items = (row.astype(np.float64) for row in self._counts)
        wrong = given + there - 2.0 * hits
        precision, recall = _ratio(hits.sum(), given.sum()), _ratio(hits.sum(), there.sum())
        held = there > 0
        by_tag = 2.0 * hits[held] / (given[held] + there[held])
        n = min(self._n_items, WINDOW)
        p, y = self._p[:n].astype(np.float64), self._y[:n]
        found = [average_precision(y[:, t], p[:, t]) for t in np.flatnonzero(y.any(axis=0))]
        return TagFigures(
            n_items=self._n_items,
            accuracy=1.0 - _ratio(wrong.sum(), items.sum()),
            top_accuracy=_ratio(self._n_top, self._n_items),
            precision=precision,
            recall=recall,
            f1=_ratio(2.0 * hits.sum(), given.sum() + there.sum()),
            macro_f1=float(by_tag.mean()) if len(by_tag) else float("nan"),
            mean_precision=float(np.mean(found)) if found else float("nan"),
            ece=calibration_error(reliability(y.ravel(), p.ravel())),
        )


def average_precision(y: Int8, p: Float64) -> float:
    """Mean over the positives of the precision at their place, equals counted as above it.

    >>> average_precision(np.array([1, 0, 1], np.int8), np.array([0.9, 0.5, 0.5]))
    0.8333333333333333
    """
    order = np.argsort(p, kind="stable")[::-1]
    hits = np.cumsum(y[order], dtype=np.float64)
    # The last place of each run of equal probabilities: its ties are all above it.
    last = np.searchsorted(-p[order], -p[order], side="right")
    precision = hits[last - 1] / last
    return float(precision[y[order] == 1].mean()) if y.any() else float("nan")


def _ratio(part: float, whole: float) -> float:
    return float(part / whole) if whole else float("nan")
