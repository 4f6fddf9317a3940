"""What an item is about and who made it, for `learners.tastes`: tags, category and creator as numbers."""

from __future__ import annotations

from typing import Final

from learners.tastes import Tastes
from schemas.hashing import hash_one

from .catalogue import ItemFacts

TAGS_USED: Final = 3
_KEY: Final = 0x7265656C666C6F77


def subjects_of(facts: ItemFacts) -> list[int]:
    """The first tags and the category, by a hash that is the same everywhere; one that is both counts once.

    >>> chess = ItemFacts(
    ...     title=None, tags=("chess", "books"), category="chess", creator_id=None, duration_ms=None
    ... )
    >>> len(subjects_of(chess))
    2
    """
    names = dict.fromkeys(facts.tags[:TAGS_USED])
    if facts.category is not None:
        names[facts.category] = None
    return [hash_one(name, _KEY) for name in names]


def authors_of(facts: ItemFacts) -> list[int]:
    """The creator, if there is one."""
    return [] if facts.creator_id is None else [hash_one(facts.creator_id, _KEY)]


def describe(tastes: Tastes, slot: int, facts: ItemFacts) -> None:
    """Tell a learner what the catalogue says of an item."""
    tastes.set_item(slot, subjects_of(facts), authors_of(facts))
