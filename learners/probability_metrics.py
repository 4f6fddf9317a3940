"""How good predicted probabilities are: order, sharpness, calibration, and decisions by a threshold.

==========  ==================================================================================
auc         probability that a positive is above a negative, ties one half
user_auc    mean over users with both, weighted by their impressions, of the AUC within the user
logloss     -mean [y log p + (1 - y) log(1 - p)], p cut at 1e-6
ece         sum over 15 equal bins b of p: (n_b / n) |mean y - mean p|
==========  ==================================================================================

A decision is positive where p reaches a threshold that maximised F1 in the window before the one it
is used in, so no decision knows its own outcome.

References
----------
Guo et al., On calibration of modern neural networks, ICML 2017. Zhou et al., Deep interest network,
KDD 2018 (user-weighted AUC).
"""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from schemas.runs import Float64, Int8, Int32, Int64

N_BINS: Final = 15
WINDOW: Final = 5_000
"""Impressions after which the threshold is chosen anew."""

_CUT: Final = 1e-6

Bools = NDArray[np.bool_]


class Bin(Struct, frozen=True):
    """A bin of the reliability plot."""

    n: int
    predicted: float
    observed: float


class Decisions(Struct, frozen=True):
    """Shares of right decisions."""

    accuracy: float
    precision: float
    recall: float
    f1: float


def ranks_with_ties(values: Float64) -> Float64:
    """Ranks from 1, equals sharing their mean rank; (N,).

    >>> ranks_with_ties(np.array([3.0, 1.0, 3.0]))
    array([2.5, 1. , 2.5])
    """
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    means: Float64 = (np.cumsum(counts) - (counts - 1) / 2.0)[places]
    return means


def auc(y: Int8, scores: Float64) -> float:
    """Area under the ROC curve; NaN without both kinds.

    >>> auc(np.array([0, 1, 1], np.int8), np.array([0.1, 0.1, 0.9]))
    0.75
    """
    n_positive = int(y.sum())
    n_negative = len(y) - n_positive
    if not n_positive or not n_negative:
        return float("nan")
    total = float(ranks_with_ties(scores)[y == 1].sum())
    return (total - n_positive * (n_positive + 1) / 2) / (n_positive * n_negative)


def user_auc(y: Int8, scores: Float64, users: Int32) -> float:
    """Mean AUC within a user, weighted by impressions; users without both kinds are left out.

    >>> y, users = np.array([0, 1, 1, 0], np.int8), np.array([1, 1, 2, 2], np.int32)
    >>> user_auc(y, np.array([0.1, 0.2, 0.3, 0.9]), users)
    0.5
    """
    n = len(y)
    if not n:
        return float("nan")
    order = np.lexsort((scores, users))
    user, positive, score = users[order], y[order].astype(np.float64), scores[order]
    # Ranks over (user, score) less the rows of earlier users are ranks within the user.
    new_user = np.r_[True, user[1:] != user[:-1]]
    new_score = new_user | np.r_[True, score[1:] != score[:-1]]
    starts = np.flatnonzero(new_score)
    ends = np.append(starts[1:], n)
    rank = np.repeat((starts + 1 + ends) / 2.0, ends - starts)
    first = np.flatnonzero(new_user)
    size = np.diff(np.append(first, n)).astype(np.float64)
    n_positive = np.add.reduceat(positive, first)
    total = np.add.reduceat(rank * positive, first) - first * n_positive
    both = (n_positive > 0) & (n_positive < size)
    if not both.any():
        return float("nan")
    size, n_positive, total = size[both], n_positive[both], total[both]
    found = (total - n_positive * (n_positive + 1) / 2) / (n_positive * (size - n_positive))
    return float(np.average(found, weights=size))


def log_loss(y: Int8, p: Float64) -> float:
    """Mean of -log of the probability given to what happened; NaN of nothing."""
    if not len(y):
        return float("nan")
    p = np.clip(p, _CUT, 1.0 - _CUT)
    return float(-np.mean(np.where(y == 1, np.log(p), np.log1p(-p))))


def reliability(y: Int8, p: Float64) -> list[Bin]:
    """The `N_BINS` bins of equal width that hold something."""
    places = np.minimum((p * N_BINS).astype(np.int64), N_BINS - 1)
    bins = []
    for b in range(N_BINS):
        chosen = places == b
        if chosen.any():
            bins.append(Bin(int(chosen.sum()), float(p[chosen].mean()), float(y[chosen].mean())))
    return bins


def calibration_error(bins: list[Bin]) -> float:
    """Expected calibration error."""
    n = sum(one.n for one in bins)
    return sum(one.n * abs(one.predicted - one.observed) for one in bins) / n if n else float("nan")


def best_threshold(y: Int8, p: Float64) -> float:
    """The threshold with the largest F1, .5 where there are no positives."""
    if not int(y.sum()):
        return 0.5
    order = np.argsort(-p, kind="stable")
    hits = np.cumsum(y[order], dtype=np.int64)
    f1 = 2.0 * hits / (np.arange(1, len(y) + 1) + int(y.sum()))
    return float(p[order[int(np.argmax(f1))]])


def decided(y: Int8, p: Float64) -> tuple[Bools, Bools]:
    """Decisions with thresholds of the window before, and which rows have one (not the first window's)."""
    decisions = np.zeros(len(y), dtype=np.bool_)
    has_one = np.arange(len(y)) >= WINDOW
    for start in range(WINDOW, len(y), WINDOW):
        window = slice(start, start + WINDOW)
        threshold = best_threshold(y[start - WINDOW : start], p[start - WINDOW : start])
        decisions[window] = p[window] >= threshold
    return decisions, has_one


def score_decisions(y: Int8, decisions: Bools) -> Decisions:
    """Accuracy, precision, recall and F1."""
    positive = y == 1
    hits = int((positive & decisions).sum())
    accuracy = float((positive == decisions).mean()) if len(y) else float("nan")
    precision = hits / max(int(decisions.sum()), 1)
    recall = hits / max(int(positive.sum()), 1)
    total = precision + recall
    return Decisions(accuracy, precision, recall, 2.0 * precision * recall / total if total else 0.0)


def repeats_of(users: Int32, items: Int32) -> Bools:
    """Which impressions show a user's previous item again; (N,)."""
    order: Int64 = np.argsort(users, kind="stable")
    same = np.r_[False, (users[order][1:] == users[order][:-1]) & (items[order][1:] == items[order][:-1])]
    found = np.zeros(len(users), dtype=np.bool_)
    found[order] = same[: len(users)]
    return found
