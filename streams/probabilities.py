"""The probability learner of a worker: as the settings say, with the catalogue's items, asked by id.

Of a batch larger than it has time for only a fair sample of the exposures is learned (`MOST_LEARNED`),
as `streams.overload` has it for gradients; `learner.probabilities_per_s` bounds it in the long run.
"""

from __future__ import annotations

from typing import Final

from learners.probability import ProbabilityOptions
from learners.probability_items import ItemProbability
from schemas.hashing import hash_one
from schemas.records import SURFACES
from schemas.settings import LearnerSettings

from .catalogue import Catalogue, ItemFacts

MOST_LEARNED: Final = 256
"""Exposures learned of one batch, about."""

MAX_USERS: Final = 1 << 20
"""Users whose newest outcomes are remembered."""

OLD_MS: Final = 86_400_000
"""A stream that is further behind the clock is a replay: its time is then the time of questions."""

_KEY: Final = 0x7265656C666C6F77


def build_probability(learner: LearnerSettings) -> ItemProbability:
    """A learner that knows nothing yet; 40 MB with 18 bits, and 430 bytes a user."""
    bits = learner.probability_bits
    options = ProbabilityOptions(
        table_bits=bits, factor_bits=bits - 2, max_users=min(learner.max_users, MAX_USERS), hidden=False
    )
    return ItemProbability(
        options,
        max_items=learner.max_items,
        window_ms=int(learner.attribution_s * 1_000),
        capacity=1 << (bits - 2),
        rate=learner.probabilities_per_s,
    )


def describe_item(probability: ItemProbability, slot: int, facts: ItemFacts) -> None:
    """Tell the learner what the catalogue says of an item: texts by a hash that is the same everywhere."""
    tag = facts.tags[0] if facts.tags else facts.category
    probability.set_item(
        slot,
        creator=-1 if facts.creator_id is None else _number(facts.creator_id),
        tag=-1 if tag is None else _number(tag),
        duration_ms=-1 if facts.duration_ms is None else facts.duration_ms,
        surface=-1 if facts.surface is None else SURFACES.index(facts.surface),
    )


def describe_all(probability: ItemProbability, catalogue: Catalogue, n_items: int) -> None:
    """Tell a learner that begins beside a catalogue of what is in it."""
    for slot in range(n_items):
        facts = catalogue.facts(slot)
        if facts is not None:
            describe_item(probability, slot, facts)


def asked_at_ms(probability: ItemProbability, now_ms: int) -> int:
    """Event time of a question asked at `now_ms` of the clock."""
    clock_ms = probability.clock_ms
    return clock_ms if 0 <= clock_ms < now_ms - OLD_MS else now_ms


def _number(text: str) -> int:
    return hash_one(text, _KEY) & 0x7FFF_FFFF
