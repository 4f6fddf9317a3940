"""What the catalogue says of an item as words, for `learners.content_facts`."""

from __future__ import annotations

from schemas.records import Item

from .catalogue import ItemFacts


def words_of(item: Item | ItemFacts) -> list[str]:
    """Tags, category and creator, and about how long it is (by doubling); none where it says nothing.

    >>> words_of(Item(item_id="1", tags=["chess"], creator_id="7", duration_ms=70_000))
    ['tag chess', 'creator 7', 'duration 6']
    """
    words = [f"tag {tag}" for tag in item.tags]
    if item.category is not None and item.category not in item.tags:
        words.append(f"tag {item.category}")
    if item.creator_id is not None:
        words.append(f"creator {item.creator_id}")
    if item.duration_ms:
        words.append(f"duration {(item.duration_ms // 1_000).bit_length() - 1}")
    return words
