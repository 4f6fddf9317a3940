"""The ways in which lists are made, as the settings have them, and lists made in several of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from learners.blend_kernels import Bools
from schemas.errors import ConfigurationError
from schemas.learner import Contexts
from schemas.runs import Int8, Int32
from schemas.settings import LearnerSettings, OrderSettings, RankerSettings, VariantSettings
from serving.ordering import is_mixed
from serving.ranking import Ranked

_T = TypeVar("_T")


class Way(Struct, frozen=True, kw_only=True):
    """What may differ between lists."""

    name: str  # of the variant; empty where there are none
    order: OrderSettings
    live_exploration: float
    content_exploration: float
    taste_weight: float | None  # None for the usual


class Makes(Protocol):
    """What lists are made with."""

    def ranked(
        self, contexts: Contexts, seen: Int32, withdrawn: Bools, taste_weight: float | None = None
    ) -> Ranked:
        """Lists of B users, not ordered yet."""

    def ordered(
        self, ranked: Ranked, contexts: Contexts, k: int, weights: OrderSettings | None = None
    ) -> Ranked:
        """The first `k` places of lists, in the order that is wanted."""


def ways_of(learner: LearnerSettings, ranker: RankerSettings) -> list[Way]:
    """One way, or those of `ranker.variants` in the order in which they are named.

    Raises
    ------
    ConfigurationError
        A single variant, floors that leave no room, or a setting for what is not learned.
    """
    _check("ranker.order_weights", ranker.order_weights, learner)
    variants = ranker.variants or {"": VariantSettings()}
    if len(ranker.variants) == 1:
        raise ConfigurationError("ranker.variants", "name two or more, or none: of one there is no choice")
    if len(ranker.variants) * ranker.variant_floor > 1:
        raise ConfigurationError(
            "ranker.variant_floor", f"{len(ranker.variants)} variants cannot have {ranker.variant_floor} each"
        )
    ways = []
    for name, given in variants.items():
        place = f"ranker.variants.{name}"
        if given.order_weights is not None:
            _check(f"{place}.order_weights", given.order_weights, learner)
        if given.content_exploration is not None and not learner.content:
            raise ConfigurationError(f"{place}.content_exploration", "needs learner.content")
        if given.taste_weight is not None and not learner.tastes:
            raise ConfigurationError(f"{place}.taste_weight", "needs learner.tastes")
        ways.append(
            Way(
                name=name,
                order=_or(given.order_weights, ranker.order_weights),
                live_exploration=_or(given.live_exploration, ranker.live_exploration),
                content_exploration=_or(given.content_exploration, ranker.content_exploration),
                taste_weight=given.taste_weight,
            )
        )
    return ways


def _or(given: _T | None, usual: _T) -> _T:
    return usual if given is None else given


def _check(place: str, weights: OrderSettings, learner: LearnerSettings) -> None:
    if is_mixed(weights) and not learner.probabilities:
        raise ConfigurationError(place, "all but next_item need learner.probabilities")


def make_lists(
    model: Makes,
    ways: Sequence[Way],
    chosen: Int8 | None,
    contexts: Contexts,
    seen: Int32,
    withdrawn: Bools,
    k: int,
) -> Ranked:
    """Lists of `k` places of B users, each in the way number `chosen` (B,); None for the first.

    Users whose ways have the same weight of the taste are ranked together, those of one order put into
    order together. A call of the ranker costs most of a millisecond however few users it is for; ordering
    has no such cost.
    """
    rank_of, order_of = [way.taste_weight for way in ways], [way.order for way in ways]
    is_one = all(weight == rank_of[0] for weight in rank_of) and all(w == order_of[0] for w in order_of)
    if chosen is None or is_one:
        ranked = model.ranked(contexts, seen, withdrawn, ways[0].taste_weight)
        return model.ordered(ranked, contexts, k, ways[0].order)
    out: Ranked | None = None
    for ranks in _groups(rank_of, chosen):
        ranked = model.ranked(
            _of(contexts, ranks), seen[ranks], withdrawn, ways[int(chosen[ranks[0]])].taste_weight
        )
        for orders in _groups(order_of, chosen[ranks]):
            rows = ranks[orders]
            weights = ways[int(chosen[rows[0]])].order
            part = model.ordered(ranked.at(orders), _of(contexts, rows), k, weights)
            if len(rows) == len(chosen):
                return part
            out = _put(out, part, rows, len(chosen))
    if out is None:
        raise ValueError("lists of nobody")
    return out


def _groups(settings: Sequence[object], chosen: Int8) -> list[NDArray[np.intp]]:
    """Rows by what their ways have in common, in order of the ways."""
    codes = np.array([settings.index(setting) for setting in settings])[chosen]
    return [np.flatnonzero(codes == code) for code in np.unique(codes)]


def _of(contexts: Contexts, rows: NDArray[np.intp]) -> Contexts:
    return Contexts(users=contexts.users[rows], history=contexts.history[rows], now_ms=contexts.now_ms)


def _put(out: Ranked | None, part: Ranked, rows: NDArray[np.intp], n: int) -> Ranked:
    """`part` at `rows` of n lists, which all have as many places; nothing was explored yet."""
    held = part.arrays()
    if out is None:
        out = Ranked(**{name: np.empty((n, *array.shape[1:]), array.dtype) for name, array in held.items()})
    for name, array in held.items():
        getattr(out, name)[rows] = array
    return out
