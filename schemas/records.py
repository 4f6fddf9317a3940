"""The public values as msgspec structs: behaviour event, catalogue item, snapshot, erasure.

Limits are part of the contract and stand in the JSON Schemas that are generated from here.
Unknown fields are tolerated; unknown event types, surfaces and versions are not.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, get_args

from msgspec import Meta, Struct

SCHEMA_VERSION: Final = 1
MAX_ID_CHARS: Final = 128
MAX_TS_MS: Final = 4_102_444_800_000  # 2100-01-01
MAX_SPAN_MS: Final = 7 * 86_400_000
MAX_LIST: Final = 500

Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_CHARS)]
TimestampMs = Annotated[int, Meta(ge=0, le=MAX_TS_MS, description="milliseconds since 1970-01-01 UTC")]
SpanMs = Annotated[int, Meta(ge=0, le=MAX_SPAN_MS, description="milliseconds")]
Tag = Annotated[str, Meta(min_length=1, max_length=64)]
Url = Annotated[str, Meta(min_length=1, max_length=2048)]
Version = Literal[1]
EventType = Literal[
    "impression",
    "watch",
    "like",
    "dislike",
    "skip",
    "comment",
    "share",
    "favourite",
    "follow",
    "gift",
    "join",
    "leave",
]
Surface = Literal["short_video", "long_video", "audio", "live", "tv"]
Modality = Literal["text", "image", "audio", "video", "fused"]

EVENT_TYPES: Final[tuple[EventType, ...]] = get_args(EventType)
"""By code: the position of a type is what columns hold. New types go to the end."""

SURFACES: Final[tuple[Surface, ...]] = get_args(Surface)
"""By code, as event types."""


class Event(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """One immutable record of behaviour, keyed by user_id."""

    schema_version: Version = 1
    event_id: Annotated[Id, Meta(description="unique to this event; a second one is a duplicate")]
    user_id: Annotated[Id, Meta(description="also the record key")]
    item_id: Id
    type: EventType
    ts_ms: Annotated[TimestampMs, Meta(description="event time, milliseconds since 1970-01-01 UTC")]
    watch_ms: Annotated[SpanMs | None, Meta(description="how long it was watched, milliseconds")] = None
    duration_ms: Annotated[SpanMs | None, Meta(description="length of the item, milliseconds")] = None
    surface: Surface | None = None
    device: Annotated[str, Meta(min_length=1, max_length=32)] | None = None
    session_id: Id | None = None
    snapshot_id: Annotated[
        Annotated[str, Meta(min_length=1, max_length=192)] | None,
        Meta(description="the snapshot that the user saw the item in"),
    ] = None
    position: Annotated[
        Annotated[int, Meta(ge=0, le=100_000)] | None, Meta(description="place in that list, from 0")
    ] = None
    autoplay: Annotated[bool | None, Meta(description="started by itself, not chosen")] = None
    gift_value: Annotated[float, Meta(ge=0, le=1e9)] | None = None


class MediaRefs(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where an item's media can be read."""

    cover: Url | None = None
    video: Url | None = None
    audio: Url | None = None


class ContentVector(Struct, frozen=True, kw_only=True):
    """A ready content vector of one modality."""

    modality: Modality
    model: Id
    values: Annotated[list[float], Meta(min_length=1, max_length=4096)]


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Catalogue metadata and content of an item, keyed by item_id."""

    schema_version: Version = 1
    item_id: Id
    surface: Surface | None = None
    title: Annotated[str, Meta(max_length=1024)] | None = None
    tags: Annotated[list[Tag], Meta(max_length=64)] = []
    category: Tag | None = None
    creator_id: Id | None = None
    language: Annotated[str, Meta(min_length=1, max_length=35)] | None = None
    duration_ms: SpanMs | None = None
    published_ts_ms: TimestampMs | None = None
    expires_ts_ms: TimestampMs | None = None
    media: MediaRefs | None = None
    vectors: Annotated[list[ContentVector], Meta(max_length=8)] = []


ReasonKind = Literal["because_you_watched", "similar_to", "popular", "matches_your_taste", "new", "explore"]
Source = Literal["transitions", "embedding", "popularity", "neighbours", "content", "exploration"]
Fallback = Literal["none", "cold_user", "stale_model"]


class Reason(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an item is in the list."""

    kind: ReasonKind
    item_id: Id | None = None
    viewers: Annotated[int, Meta(ge=0)] | None = None


class RecommendedItem(Struct, frozen=True, kw_only=True):
    """One place of a list; `score` is sigmoid(f_user . f_content), in (0, 1)."""

    item_id: Id
    score: Annotated[float, Meta(ge=0, le=1, description="published relevance; not the order of the list")]
    source: Source
    propensity: Annotated[float, Meta(gt=0, le=1, description="probability of being shown here")] = 1.0
    reasons: Annotated[list[Reason], Meta(max_length=8)] = []


class Knows(Struct, frozen=True, kw_only=True):
    """The freshness receipt: the last event the list already knows about."""

    partition: Annotated[int, Meta(ge=0, description="of the behaviour topic")]
    offset: Annotated[int, Meta(ge=0, description="of that event, last applied; never falls")]
    event_id: Id
    ts_ms: TimestampMs


class ModelRef(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which model made the list, and in which of its variants, where it has such."""

    name: Id
    epoch: Annotated[int, Meta(ge=0)]
    sequence: Annotated[int, Meta(ge=0)]
    variant: Id | None = None


class Snapshot(Struct, frozen=True, kw_only=True):
    """A user's recommendation list, keyed by user_id; `knows.offset` never falls."""

    schema_version: Version = 1
    snapshot_id: Annotated[str, Meta(min_length=1, max_length=192)]
    user_id: Id
    generated_at_ms: TimestampMs
    ttl_ms: Annotated[int, Meta(ge=0, description="milliseconds after which the list is stale")]
    knows: Knows
    model: ModelRef
    fallback: Fallback
    items: Annotated[list[RecommendedItem], Meta(max_length=MAX_LIST)]


class Erasure(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A request to forget a user, or the receipt that it was done; keyed by user_id."""

    schema_version: Version = 1
    kind: Literal["request", "receipt"]
    request_id: Id
    user_id: Id
    ts_ms: TimestampMs
    note: Annotated[str, Meta(max_length=1024)] | None = None
