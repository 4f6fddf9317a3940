"""The mixture: a softmax gate over everything that is known of a candidate, learned online.

::

    p(c) = exp(theta_h . x_c) / sum_c' exp(theta_h . x_c'),    theta_h = shared + own_h

over the union of a user's candidates; h is the bucket of the history's length, x the features listed
in `mixture_candidates`: transitions, popularity at five half-lives, the sequence encoder,
co-occurrence, EASE, and what the user did before. One Adagrad step (rate .05, G0 .01) of cross
entropy per target; a target that is not among the candidates teaches nothing (appending it would
teach that missing evidence is a good sign).

That is the score of the next item, z = theta_h . x. What is watched next is what was shown and then taken
up, and where lists are what is shown, z learns to foresee the lists. So lists are ordered by::

    z + 10 taste       taste: the logit that it is taken up if shown, `learners.tastes`

The 10 is no matter of calibration: what was shown is what was thought to be liked, so its outcomes tell
little of how much a taste weighs, and learning the weight from them makes lists worse (docs/drift.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.runs import Float32, Int32

from .content_kernels import N_CONTENT
from .gate_weights import GateWeights
from .mixture_candidates import N_HALF_LIVES, Gathered, Room
from .mixture_features import N_SOURCES, TASTE
from .mixture_lists import learn_targets

__all__ = ["HALF_LIVES_H", "N_HALF_LIVES", "Mixture"]

HALF_LIVES_H: Final = (2.4, 2_400.0, float("inf"))
"""Half-lives of popularity beside the two that propose candidates, hours."""

RATE: Final = np.float32(0.05)

TASTE_WEIGHT: Final = np.float32(10.0)
"""Of the taste in what orders lists, against 1 of the next item's score."""

INITIAL_WEIGHTS: Final = (
    0.20, 0.20, 0.10,
    0.30, 0.30, 0.10, 0.00, 0.10,
    0.20, 0.10,
    0.10, 0.30, 0.30, 0.10,
    0.00, 0.00, 0.00, 0.00,
    0.00, 0.00, 0.00, 0.00,
    0.00, 0.00, 0.00, 0.00, 0.00, 0.00,
    0.00, 0.00, 0.00, 0.00,
    0.00,
)  # fmt: skip
"""In the order of the features; what is popular leads until something else has been learned."""


INITIAL_CONTENT: Final = (
    0.0, 0.0, 0.0, 0.0, 0.0,
    0.3, 0.2, 0.0, 0.0, 0.2,
    -2.0, -1.0, 0.0, 0.0,
    *(0.0,) * (N_CONTENT - 14),
)  # fmt: skip
"""Of the features of content, where they are known: a new item stands behind until it is near."""


class Mixture(GateWeights):
    """Learner of the mixture's weights, name ``gate``; it learns from features, not from events.

    Deterministic: the same calls give the same weights, bit by bit. Cost: 4 microseconds a target
    and hundred candidates.

    Parameters
    ----------
    content : sequence of float
        Initial weights of the features of content, after the others; none where content is not known.
    """

    def __init__(self, content: Sequence[float] = ()) -> None:
        super().__init__((*INITIAL_WEIGHTS, *content))
        self._fresh = self.snapshot()

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """See `GateWeights.restore`. Weights of content that are too many are dropped, those that lack begin.

        So `learner.content` may be turned on and off, and rankers that know no content can do with the rest.
        """
        fitted = dict(arrays)
        for name, fresh in self._fresh.items():
            given = arrays.get(name)
            if given is None or given.dtype != fresh.dtype or given.ndim != fresh.ndim:
                continue
            n, mine = given.shape[-1], fresh.shape[-1]
            if {n, mine} == {N_SOURCES, N_SOURCES + N_CONTENT}:
                common = min(n, mine)
                fitted[name] = np.concatenate([given[..., :common], fresh[..., common:]], axis=-1)
        super().restore(fitted)

    @property
    def list_weights(self) -> Float32:
        """By bucket, weights of what orders lists: those of the next item, and of the taste; a copy."""
        return self.weights_for(float(TASTE_WEIGHT))

    def weights_for(self, taste: float) -> Float32:
        """The same with another weight of the taste."""
        weights = self.weights
        weights[:, TASTE] = np.float32(taste)
        return weights

    def learn(self, rows: Int32, targets: Int32, gathered: Gathered, room: Room) -> int:
        """Learn from `rows` of what was gathered, in order; returns how many targets were candidates.

        `targets` (B,) belongs to the rows of `gathered`.
        """
        n = int(
            learn_targets(
                rows, targets, gathered, self._shared, self._own, self._shared_squares, self._own_squares,
                RATE, room,
            )
        )  # fmt: skip
        return self._learned(n)
