"""The blend without embeddings: a softmax gate over transitions and popularity, learned in one pass.

::

    p(c) = exp(theta_h . x_c) / sum_c' exp(theta_h . x_c'),    theta_h = shared + own_h

over the union of a user's candidates; h is the bucket of the history's length (0, 1, 2-4, 5-14,
15-49, 50+), x the features listed in `blend_kernels`. One Adagrad step (rate .05, G0 .01) of cross
entropy per target. A target that is not among the candidates teaches nothing.

The initial weights lean on popularity, so that a system that knows nothing yet is no worse than a
list of what is popular: one transition seen once does not pass a popular item.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.runs import Float32, Int32

from .blend_kernels import BLOCKED, N_BUCKETS, N_FEATURES, Bools, Popular, Rows, Work
from .blend_lists import learn_gate
from .blend_select import LANES, padded
from .gate_weights import GateWeights

INITIAL_WEIGHTS: Final = (0.10, 0.15, 0.05, 0.40, 0.40, 0.0)
"""next, forward, backward, popularity (short, long), in history."""

POPULAR_CANDIDATES: Final = 100
"""Of each half-life, for lists of up to half as many; longer ones take twice their length."""


class Gate(GateWeights):
    """Learner of the blend's weights, name ``gate``; it learns from features, not from events.

    Deterministic: the same calls give the same weights, bit by bit. Cost: 2 microseconds a
    hundred candidates and target.
    """

    def __init__(self) -> None:
        super().__init__(INITIAL_WEIGHTS)

    def learn(
        self,
        rows: Int32,
        targets: Int32,
        history: Int32,
        seen: Int32,
        withdrawn: Bools,
        exclude_seen: bool,
        transitions: Rows,
        popular: Popular,
        work: Work,
    ) -> int:
        """Learn from the batch rows `rows`, in order; returns how many targets were candidates.

        `targets` (B,), `history` (B, H) and `seen` (B, S) belong to the same B rows.
        """
        n = int(
            learn_gate(
                rows, targets, history, seen, withdrawn, exclude_seen, transitions, popular,
                self._shared, self._own, self._shared_squares, self._own_squares, work,
            )
        )  # fmt: skip
        return self._learned(n)


def prepare_popular(shares: Float32, tops: Int32, weights: Float32, reserve: Int32 | None = None) -> Popular:
    """Popularity as the kernels want it; 1 ms at 50 000 items, so not for every list.

    Parameters
    ----------
    shares : Float32
        (2, N) decayed shares at the two half-lives, each summing to about 1.
    tops : Int32
        Popular items to consider, in any order; -1 and repetitions are ignored.
    weights : Float32
        (N_BUCKETS, N_FEATURES), `Gate.weights`.
    reserve : Int32
        Further items, most popular first, for lists that would stay short.
    """
    n = shares.shape[1]
    features = np.log1p(np.maximum(shares, 0.0).T * np.float32(1e5)).astype(np.float32)
    none: Int32 = np.zeros(0, dtype=np.int32)
    empty = Popular(
        features=np.ascontiguousarray(features),
        items=np.zeros((N_BUCKETS, 0), dtype=np.int32),
        scores=np.zeros((N_BUCKETS, 0), dtype=np.float32),
        mass=np.zeros(N_BUCKETS, dtype=np.float32),
        uniform=float(np.log1p(1e5 / max(n, 1))),
        reserve=none,
    )
    return with_items(empty, tops, weights, none if reserve is None else reserve)


def with_items(popular: Popular, tops: Int32, weights: Float32, reserve: Int32) -> Popular:
    """Other popular items with the features there are; 80 microseconds, see `prepare_popular`."""
    n = len(popular.features)
    items = np.unique(tops[(tops >= 0) & (tops < n)]).astype(np.int32)
    further = reserve[(reserve >= 0) & (reserve < n) & ~np.isin(reserve, items)]
    return rescored(
        popular._replace(
            items=np.tile(items, (N_BUCKETS, 1)),
            scores=np.zeros((N_BUCKETS, len(items)), dtype=np.float32),
            mass=np.zeros(N_BUCKETS, dtype=np.float32),
            reserve=np.ascontiguousarray(further, dtype=np.int32),
        ),
        weights,
    )


def rescored(popular: Popular, weights: Float32) -> Popular:
    """The same popular items in the order of other `weights`; 50 microseconds."""
    items = np.sort(popular.items[0])
    if not len(items):
        return popular
    scores = (popular.features[items] @ weights[:, 3:5].T).T  # (N_BUCKETS, P)
    order = np.argsort(-scores, axis=1, kind="stable")
    ranked = np.ascontiguousarray(np.take_along_axis(scores, order, axis=1), dtype=np.float32)
    return popular._replace(
        items=np.ascontiguousarray(items[order], dtype=np.int32),
        scores=ranked,
        mass=np.exp(ranked - ranked[:, :1]).sum(axis=1).astype(np.float32),
    )


def make_work(n_items: int, n_candidates: int, list_size: int, n_places: int) -> Work:
    """Scratch memory for lists from at most `n_candidates` candidates among slots below `n_items`.

    `n_places` is how many neighbours the rows that are followed have together. One set a thread.

    Raises
    ------
    ValueError
        More candidates than can be numbered.
    """
    n = padded(max(n_candidates, list_size, 1)) + LANES
    if n >= BLOCKED:
        raise ValueError(f"{n_candidates} candidates are too many; rows or lists have to be shorter")
    return Work(
        slot=np.zeros(n_items, dtype=np.int32),
        stamp=np.zeros(1, dtype=np.int64),
        places=np.zeros(n_places, dtype=np.int32),
        hits=np.zeros(n_places + 1, dtype=np.int32),
        ids=np.zeros(n, dtype=np.int32),
        x=np.zeros((N_FEATURES, n), dtype=np.float32),
        score=np.zeros(n, dtype=np.float32),
        mass=np.zeros(n, dtype=np.float32),
        short=np.zeros(n, dtype=np.int32),
        short_scores=np.zeros(n, dtype=np.float32),
        above=np.zeros(n, dtype=np.int32),
        taken=np.zeros(n, dtype=np.int32),
        listed=np.full(n + 1, -1, dtype=np.int32),
        top_items=np.zeros(n, dtype=np.int32),
        top_scores=np.zeros(n, dtype=np.float32),
        most=np.zeros(n, dtype=np.float32),
    )
