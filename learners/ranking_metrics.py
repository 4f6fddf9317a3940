"""What ranks and lists say: metrics with intervals, by window, fading, and in pairs.

With the 0-based place r of the one relevant item, -1 where it is beyond what was looked at::

    recall@k = hit@k = 1[0 <= r < k]       MRR@k = hit@k / (r + 1)       nDCG@k = hit@k / log2(r + 2)

Events of one user are not independent. Standard errors are those of a mean over users drawn with
replacement, first order: with user sums s_u of ``x_i - mean``, ``se^2 = U / (U - 1) sum_u s_u^2 / n^2``.

References
----------
Cameron and Miller, A practitioner's guide to cluster-robust inference, 2015.
Zhou et al., Solving the apparent diversity-accuracy dilemma of recommender systems, 2010 (novelty).
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Final

import numpy as np
from msgspec import Struct

from schemas.runs import Float32, Float64, Int32, Int64

Z95: Final = 1.959964


class Mean(Struct, frozen=True):
    """A mean over n events and its standard error by user."""

    value: float
    se: float
    n: int

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval, normal approximation."""
        return self.value - Z95 * self.se, self.value + Z95 * self.se


def hit(ranks: Int32, k: int) -> Float64:
    """Recall at k of each event, which is its hit; (R,)."""
    return ((ranks >= 0) & (ranks < k)).astype(np.float64)


def reciprocal(ranks: Int32, k: int) -> Float64:
    """Reciprocal rank at k of each event; (R,)."""
    return hit(ranks, k) / (np.maximum(ranks, 0) + 1.0)


def gain(ranks: Int32, k: int) -> Float64:
    """Discounted gain (nDCG) at k of each event; (R,).

    >>> gain(np.array([0, 2, -1], np.int32), 10).tolist()
    [1.0, 0.5, 0.0]
    """
    discounted: Float64 = hit(ranks, k) / np.log2(np.maximum(ranks, 0) + 2.0)
    return discounted


METRICS: Final[dict[str, tuple[Callable[[Int32, int], Float64], int]]] = {
    "recall_20": (hit, 20),
    "recall_10": (hit, 10),
    "ndcg_10": (gain, 10),
    "mrr_20": (reciprocal, 20),
    "ndcg_20": (gain, 20),
    "hit_rate_1": (hit, 1),
    "recall_100": (hit, 100),
}
"""By name: the metric of an event, and k. With one relevant item the hit rate is the recall."""


def mean_by_user(values: Float64, users: Int32) -> Mean:
    """Mean of `values` (n,) and its standard error by user; a user with one event is a sample of one.

    >>> found = mean_by_user(np.array([1.0, 0.0, 1.0, 0.0]), np.array([0, 0, 1, 1], np.int32))
    >>> found.value, found.se
    (0.5, 0.0)
    """
    n = len(values)
    if not n:
        return Mean(float("nan"), float("nan"), 0)
    mean = float(values.mean())
    _, of_user = np.unique(users, return_inverse=True)
    sums = np.bincount(of_user, weights=values - mean)
    n_users = len(sums)
    if n_users < 2:
        return Mean(mean, float("nan"), n)
    return Mean(mean, sqrt(n_users / (n_users - 1) * float((sums * sums).sum())) / n, n)


def bootstrap_by_user(values: Float64, users: Int32, *, n_draws: int, seed: int) -> tuple[float, float]:
    """95 % interval of the mean from `n_draws` resamplings of users; U x n_draws operations."""
    _, of_user = np.unique(users, return_inverse=True)
    sums = np.bincount(of_user, weights=values)
    counts = np.bincount(of_user).astype(np.float64)
    random = np.random.default_rng(seed)
    means = np.empty(n_draws)
    for i in range(n_draws):
        drawn = random.integers(len(sums), size=len(sums))
        means[i] = sums[drawn].sum() / counts[drawn].sum()
    low, high = np.percentile(means, (2.5, 97.5))
    return float(low), float(high)


class Window(Struct, frozen=True):
    """Consecutive events ``first .. last`` (places among the asked ones) and a mean over them."""

    first: int
    last: int
    mean: Mean


def windows_of(values: Float64, users: Int32, size: int) -> list[Window]:
    """Means of consecutive windows of `size` events; a last one of less than half joins the one before."""
    bounds = list(range(0, len(values), size))
    if len(bounds) > 1 and len(values) - bounds[-1] < size / 2:
        bounds.pop()
    found = []
    for i, first in enumerate(bounds):
        last = bounds[i + 1] if i + 1 < len(bounds) else len(values)
        found.append(Window(first, last, mean_by_user(values[first:last], users[first:last])))
    return found


def worst_window(ours: Float64, theirs: Float64, users: Int32, size: int) -> tuple[Window, float] | None:
    """The window in which we are furthest behind, in standard errors of the paired difference.

    Looked at are windows of `size` events that begin at every tenth of that many, so that hardly any
    run of events stays unseen; all events where there are fewer. Costs 0.1 ms a window of 2 000.

    Returns
    -------
    Window of ``ours - theirs``, and that difference over its standard error (negative: behind);
    None without a window. Where no event differs it is 0.
    """
    ahead = ours - theirs
    scored = []
    for first in range(0, max(len(ahead) - size, 0) + 1, max(size // 10, 1)):
        mean = mean_by_user(ahead[first : first + size], users[first : first + size])
        if mean.n:
            found = Window(first, first + mean.n, mean)
            scored.append((found, mean.value / mean.se if mean.se > 0 else 0.0))
    return min(scored, key=lambda found: found[1], default=None)


def fading_mean(values: Float64, factor: float, n_points: int = 200) -> tuple[Int64, Float64]:
    """Mean in which an event of age a weighs ``factor^a``, at about `n_points` places along the stream.

    ``m_t = S_t / N_t`` with ``S_t = factor S_(t-1) + x_t`` and ``N_t = factor N_(t-1) + 1``.

    >>> places, means = fading_mean(np.array([1.0, 0.0]), 0.5)
    >>> places.tolist(), means.round(3).tolist()
    ([1, 2], [1.0, 0.333])
    """
    n = len(values)
    step = max(n // n_points, 1)
    places, means = [], []
    total = weight = 0.0
    powers = factor ** np.arange(step - 1, -1, -1, dtype=np.float64)
    for first in range(0, n, step):
        part = values[first : first + step]
        decay = factor ** len(part)
        total = total * decay + float((powers[-len(part) :] * part).sum())
        weight = weight * decay + float(powers[-len(part) :].sum())
        places.append(first + len(part))
        means.append(total / weight)
    return np.array(places, dtype=np.int64), np.array(means)


class ListMeasures(Struct, frozen=True):
    """What lists are like, whether or not they hit."""

    coverage: float  # part of the catalogue that stood in any list
    novelty: float  # mean of -log2(share of events on the item), bits
    diversity: float  # mean of 1 - cosine of the items' visitors, over pairs in a list
    satisfaction: float  # mean part of the item watched, of listed items that were watched next; nan unknown


def list_measures(
    lists: Int32, shares: Float64, ranks: Int32, watch_share: Float32, similarity: Callable[[Int32], Float64]
) -> ListMeasures:
    """Coverage, novelty, diversity and satisfaction of `lists` (R, k).

    Parameters
    ----------
    lists : (R, k) int32
        Best first, -1 padded.
    shares : (N,) float64
        Share of all events, by item; an item without any counts as half an event's share.
    ranks : (R,) int32
    watch_share : (R,) float32
        Part of the target that was watched, nan unknown.
    similarity : callable
        Mean pairwise similarity in [0, 1] of each row of lists; (L,).
    """
    n, k = lists.shape
    listed = lists[lists >= 0]
    rarest = shares[shares > 0].min(initial=1.0) / 2
    bits = -np.log2(np.maximum(shares, rarest))
    chosen = np.arange(0, n, max(n // 2_000, 1))  # diversity costs k^2 a list
    watched = watch_share[hit(ranks, k) > 0]
    watched = watched[np.isfinite(watched)]
    return ListMeasures(
        coverage=len(np.unique(listed)) / max(len(shares), 1),
        novelty=float(bits[listed].mean()) if len(listed) else float("nan"),
        diversity=float(1.0 - similarity(lists[chosen]).mean()) if n else float("nan"),
        satisfaction=float(watched.mean()) if len(watched) else float("nan"),
    )
