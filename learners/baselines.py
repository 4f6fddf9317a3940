"""Places of targets among the whole catalogue by the baselines that reelflow runs beside.

Everything is ranked that is available and not in the user's history. Ties count against the target:
its place is the number of others that score as much or more::

    popularity    score(b) = decayed visits of b
    Markov        by count of moves from the newest item to b, then by decayed visits of b

An item without a single visit has no place: it ties with all others of its kind.

What is popular is cut to so many that no place below `k` can be missed: the history and `k` others
cannot fill it. So a target costs 1 to 3 microseconds, whatever the size of the catalogue.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.compiled import inlined, kernel
from schemas.learner import Contexts
from schemas.runs import Float32, Float64, Int32

from .markov import FirstOrderMarkov
from .popularity import Popularity

Bools = NDArray[np.bool_]


class Visits(NamedTuple):
    """Popularity at one half-life, as it is now."""

    counts: Float64  # (N,) decayed visits
    tops: Int32  # (P,) most visited available items, best first, -1 padded


def visits_of(popularity: Popularity, which: int, n_tops: int, withdrawn: Bools) -> Visits:
    """Popularity at half-life number `which`, exact at this moment; O(N), 0.1 ms at 100 000 items."""
    counts = np.ascontiguousarray(popularity.view()[0][:, which])
    return Visits(counts, popularity.best(n_tops, which, withdrawn=withdrawn))


class BaselinePlaces:
    """Places by decayed popularity and by a first-order Markov chain.

    Parameters
    ----------
    popularity : Popularity
    markov : FirstOrderMarkov
    k : int
        Places that matter: from `k` on a place is -1.
    which : int
        Number of the half-life.
    """

    def __init__(self, popularity: Popularity, markov: FirstOrderMarkov, *, k: int, which: int = 0) -> None:
        if k < 1:
            raise ValueError("k is positive")
        self._popularity = popularity
        self._markov = markov
        self._k = k
        self._which = which

    def places(self, contexts: Contexts, targets: Int32, withdrawn: Bools) -> tuple[Int32, Int32]:
        """0-based places of `targets` (B,), each in no history: by popularity, by Markov; (B,) each.

        Items that `withdrawn` (n,) marks are in nobody's way; later slots are available.
        """
        history = np.ascontiguousarray(contexts.history)
        n_tops = 2 * self._k + history.shape[1] + 1
        visits = visits_of(self._popularity, self._which, n_tops, withdrawn)
        by_popularity, by_markov = (np.full(len(targets), -1, dtype=np.int32) for _ in range(2))
        nbr, counts, filled = self._markov.view()
        place_all(
            np.ascontiguousarray(targets), history, withdrawn, visits.counts, visits.tops, nbr, counts,
            filled, self._k, by_popularity, by_markov,
        )  # fmt: skip
        return by_popularity, by_markov


@inlined
def is_in(item: int, items: Int32, n: int) -> bool:
    """Whether `item` is among the first `n`."""
    found = False
    for p in range(n):
        found = found or items[p] == item
    return found


@inlined
def visits(item: int, counts: Float64) -> float:
    """Decayed visits of an item, 0 beyond the table."""
    return counts[item] if 0 <= item < len(counts) else 0.0


@kernel
def popular_above(
    target: int, history: Int32, row: Int32, n_row: int, counts: Float64, tops: Int32, k: int
) -> int:
    """How many of `tops` have as many visits as the target: at most `k`, none of the history or the row."""
    least = visits(target, counts)
    if least <= 0.0:
        return k
    above = 0
    for p in range(len(tops)):
        b = tops[p]
        if b < 0 or counts[b] < least or above >= k:
            break
        if b != target and not is_in(b, history, len(history)) and not is_in(b, row, n_row):
            above += 1
    return above


@kernel
def place_all(
    targets: Int32,
    history: Int32,
    withdrawn: Bools,
    counts: Float64,
    tops: Int32,
    nbr: Int32,
    moves: Float32,
    filled: Int32,
    k: int,
    by_popularity: Int32,
    by_markov: Int32,
) -> None:
    """Places below `k` of `targets` (B,); what is beyond stays as it is."""
    for i in range(len(targets)):
        t, past = targets[i], history[i]
        if t < 0:
            continue
        last = past[len(past) - 1] if len(past) else -1
        row, n_row = nbr[0], 0
        if 0 <= last < len(filled):
            row, n_row = nbr[last], filled[last]
        above = popular_above(t, past, row, 0, counts, tops, k)
        if above < k:
            by_popularity[i] = above
        of_target, own = np.float32(0.0), visits(t, counts)
        for p in range(n_row):
            if row[p] == t:
                of_target = moves[last, p]
        above = 0
        for p in range(n_row):
            b = row[p]
            if b == t or (b < len(withdrawn) and withdrawn[b]) or is_in(b, past, len(past)):
                continue
            if moves[last, p] > of_target or (moves[last, p] == of_target and visits(b, counts) >= own):
                above += 1
        if of_target == 0.0 and above < k:
            above += popular_above(t, past, row, n_row, counts, tops, k)
        if above < k:
            by_markov[i] = above
