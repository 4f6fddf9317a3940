"""The order of a list as a weighted mix: the next item, and what is expected if it is shown.

Lists are made of what a user is likely to take up next. With weights (`ranker.order_weights`) the best
`DEPTH` times as many candidates as a list has places are put into another order, by::

    s = w_next z + w_click log p_click + w_completion log p_completion + w_like log p_like

z is the score of the next item: a logit of its probability among the user's candidates, so s is the
log of a product of powers of probabilities, up to a constant of the user. Nothing that is learned
depends on it.

References
----------
Covington et al., Deep neural networks for YouTube recommendations, RecSys 2016 (candidates by one
objective, their order by another); Zhao et al., Recommending what video to watch next: a multitask
ranking system, RecSys 2019 (weighted combination of engagement and satisfaction objectives).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from learners.probability_items import ItemProbability
from schemas.learner import Contexts
from schemas.runs import Float32, Int32
from schemas.settings import OrderSettings, RankerSettings

from .ranking import Ranked

DEPTH: Final = 3
_TINY: Final = 1e-6


def is_mixed(weights: OrderSettings) -> bool:
    """Whether anything but the next item counts."""
    return weights.click > 0 or weights.completion > 0 or weights.like > 0


def mixes(ranker: RankerSettings) -> bool:
    """Whether lists, or those of a variant, are ordered by more than the next item."""
    variants = (variant.order_weights for variant in ranker.variants.values())
    return is_mixed(ranker.order_weights) or any(w is not None and is_mixed(w) for w in variants)


class Ordering:
    """Puts lists into the order of a mix.

    Parameters
    ----------
    probability : ItemProbability
    """

    def __init__(self, probability: ItemProbability) -> None:
        self._probability = probability

    def ordered(
        self, ranked: Ranked, contexts: Contexts, now_ms: int, k: int, weights: OrderSettings
    ) -> Ranked:
        """The best `k` of each list of `ranked` (B, K), whose scores become s; ties keep their order.

        `now_ms` is the event time of the question. About 8 microseconds an item.
        """
        scores = np.full(ranked.items.shape, -np.inf, dtype=np.float32)
        rows, places = np.nonzero(ranked.items >= 0)
        if len(rows):
            items = ranked.items[rows, places]
            scores[rows, places] = self._mixed(
                ranked.scores[rows, places], contexts.users[rows], items, now_ms, weights
            )
        best = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        held = {name: getattr(ranked, name) for name in Ranked.__struct_fields__}
        held["scores"] = scores
        return Ranked(
            **{
                name: np.ascontiguousarray(np.take_along_axis(array, best, axis=1))
                for name, array in held.items()
                if array is not None
            }
        )

    def _mixed(
        self, next_item: Float32, users: Int32, items: Int32, now_ms: int, weights: OrderSettings
    ) -> Float32:
        found = self._probability.scores(users, items, now_ms)
        mixed = weights.next_item * next_item.astype(np.float64)
        for weight, p in (
            (weights.click, found.click),
            (weights.completion, found.long),
            (weights.like, found.like),
        ):
            if weight > 0:
                mixed += weight * np.log(np.maximum(p, _TINY))
        return mixed.astype(np.float32)
