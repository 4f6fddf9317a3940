"""What the content worker publishes of an item: vectors by modality, and tags.

Vectors are float32, little-endian, as base64: a third of their size as JSON numbers, and exact. Vectors of
other models or other versions of a model are never to be compared, so each says its own.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

import numpy as np
from msgspec import Meta, Struct

from .checks import Contract
from .codec import json_bytes
from .errors import ContractError
from .media import MediaReason, Modality
from .records import Id, Tag, TimestampMs, Version
from .runs import Float32

MAX_DIMS: Final = 8_192
HEADER_SOURCE: Final = "reelflow_source"
"""Of a record that withdraws an item: partition and offset of the catalogue's, by a slash."""

MissingReason = Literal[
    "absent",  # the catalogue names none
    "no_encoder",  # this modality is turned off
    "bad_value",  # a ready vector that is not finite, or of other dimensions
    "other_model",  # a ready vector of another model than the one that is used
    MediaReason,
]
MISSING_REASONS: Final[tuple[str, ...]] = get_args(MissingReason)

TagSource = Literal["learned", "unseen", "keyword"]

Hash = Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
Offset = Annotated[int, Meta(ge=0)]
ModalityName = Modality


class EncodedVector(Struct, frozen=True, kw_only=True):
    """What a model made of one modality."""

    modality: ModalityName
    model: Id
    version: Annotated[
        Annotated[str, Meta(max_length=128)],
        Meta(description="of weights and preprocessing; empty for a vector that the catalogue brought"),
    ]
    values: Annotated[bytes, Meta(min_length=4, description="float32, little-endian")]

    @property
    def vector(self) -> Float32:
        """The numbers, (dims,); a copy."""
        return np.frombuffer(self.values, dtype="<f4").astype(np.float32)


class Missing(Struct, frozen=True, kw_only=True):
    """A modality without a vector, and why."""

    modality: ModalityName
    reason: MissingReason
    message: Annotated[str, Meta(max_length=512)] = ""


class CatalogueSource(Struct, frozen=True, kw_only=True, order=True):
    """The catalogue record that a value was made of; of one item its offset only grows."""

    partition: Annotated[int, Meta(ge=0)]
    offset: Offset


class ItemContent(Struct, frozen=True, kw_only=True):
    """An item's vectors, keyed by item_id."""

    schema_version: Version = 1
    item_id: Id
    content_hash: Annotated[
        Hash,
        Meta(description="over title, tags, category, media and ready vectors of the catalogue's record"),
    ]
    encoders: Annotated[
        Hash,
        Meta(
            description="over name, version and dimensions of every encoder: equal pairs give equal vectors"
        ),
    ]
    source: CatalogueSource
    encoded_at_ms: TimestampMs
    language: Annotated[
        Annotated[str, Meta(min_length=1, max_length=35)],
        Meta(description="what the catalogue says, or what the title looks like; und where nothing tells"),
    ]
    labels: Annotated[list[Tag], Meta(max_length=64, description="tags that the catalogue brought")]
    vectors: Annotated[list[EncodedVector], Meta(max_length=8)]
    missing: Annotated[list[Missing], Meta(max_length=8)]


class FoundTag(Struct, frozen=True, kw_only=True):
    """A tag found in an item's content."""

    tag: Tag
    probability: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None, Meta(description="calibrated; null for a keyword")
    ]
    given: Annotated[bool, Meta(description="whether it reaches the tag's own threshold; true for a keyword")]
    source: Annotated[
        TagSource,
        Meta(
            description="learned from items with the tag, unseen (known by name only), or a word of the title"
        ),
    ]
    spoke: Annotated[
        dict[str, float],
        Meta(description="by modality (and tag_text): its share of the logit, below 0 against"),
    ]


class ItemTags(Struct, frozen=True, kw_only=True):
    """Tags found in an item's content, most probable first, keyed by item_id."""

    schema_version: Version = 1
    item_id: Id
    content_hash: Hash
    encoders: Hash
    source: CatalogueSource
    n_examples: Annotated[int, Meta(ge=0, description="items with tags that the tagger had learned from")]
    tags: Annotated[list[FoundTag], Meta(max_length=64)]


CONTENTS: Final = Contract(ItemContent, "item_id")
TAGS: Final = Contract(ItemTags, "item_id")


def decode_content(value: bytes | None, key: bytes | None) -> ItemContent:
    """Value of an item-content record that is not null.

    Raises
    ------
    ContractError
        As `Contract.decode_keyed`, and bad_value for a vector that is not whole float32 numbers.
    """
    content = CONTENTS.decode_keyed(value, key)
    if any(len(each.values) % 4 for each in content.vectors):
        raise ContractError("$.vectors: not whole float32 numbers", reason="bad_value", field="vectors")
    return content


def encode_content(content: ItemContent) -> bytes:
    """Value of an item-content record."""
    return json_bytes(content)


def encode_tags(tags: ItemTags) -> bytes:
    """Value of an item-tags record."""
    return json_bytes(tags)


def packed_vector(vector: Float32) -> bytes:
    """`EncodedVector.values` of (dims,)."""
    return vector.astype("<f4").tobytes()
