"""What the gateway's endpoints answer, as msgspec structs; OpenAPI is generated from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from schemas.records import (
    MAX_LIST,
    EventType,
    Fallback,
    Id,
    Knows,
    ModelRef,
    RecommendedItem,
    Snapshot,
    Surface,
)

Probability = Annotated[float, Meta(ge=0, le=1)]
Freshness = Literal["fresh", "stale", "none"]


class ErrorBody(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Every answer that is not 2xx; `field` names the parameter or event field at fault."""

    error: str
    field: str | None = None
    reason: str | None = None
    results: list[EventResult] | None = None


class EventResult(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What became of one event of a request; `index` is its place in the list."""

    index: int
    status: Literal["stored", "refused", "not_sent", "failed"]
    event_id: str | None = None
    partition: int | None = None
    offset: int | None = None
    error: str | None = None
    field: str | None = None
    reason: str | None = None


class EventsAccepted(Struct, frozen=True, kw_only=True):
    """All events are stored; `partition` and `offset` are where the broker put each."""

    results: list[EventResult]


class Recommendations(Struct, frozen=True, kw_only=True):
    """A user's list: the snapshot, or what stands in for it.

    Without a snapshot `freshness` is "none", `fallback` is "cold_user", what only a snapshot can
    know is null, and the score of an item is its share of what is popular.
    """

    schema_version: Literal[1] = 1
    snapshot_id: str | None
    user_id: str
    generated_at_ms: int | None
    ttl_ms: int | None
    knows: Knows | None
    model: ModelRef | None
    fallback: Fallback
    items: list[RecommendedItem]
    freshness: Freshness
    age_ms: Annotated[int, Meta(ge=0)] | None


class ScoredItem(Struct, frozen=True, kw_only=True):
    """An item and its score in the list it is in."""

    item_id: str
    score: float


class SimilarItems(Struct, frozen=True, kw_only=True):
    """Items close to `item_id`, best first."""

    item_id: str
    items: list[ScoredItem]


class FoundItems(Struct, frozen=True, kw_only=True):
    """Items whose titles mean what was asked, best first; a score is the cosine of the two texts."""

    query: str
    items: list[ScoredItem]


class PopularItems(Struct, frozen=True, kw_only=True):
    """What is popular now, best first."""

    items: list[ScoredItem]


class ScoreRequest(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Items that a user may be shown, and where; without a surface each is asked on its own."""

    items: Annotated[list[Id], Meta(min_length=1, max_length=MAX_LIST)]
    surface: Surface | None = None


class ItemProbabilities(Struct, frozen=True, kw_only=True):
    """What is expected if the item is shown now.

    `ranking` has no unit and orders what this user may be shown: greater is better.
    """

    item_id: str
    p_click: Probability
    p_completion: Annotated[
        Probability, Meta(description="watched to the end or nearly, or for as long as counts as the whole")
    ]
    p_like: Probability
    ranking: float
    known: Annotated[bool, Meta(description="whether an event or the catalogue has named the item")]


class Probabilities(Struct, frozen=True, kw_only=True):
    """Of each item asked about, in the order asked; a user who is not known is one like all others."""

    user_id: str
    known: Annotated[bool, Meta(description="whether an event of the user was learned")]
    items: list[ItemProbabilities]


class RecentEvent(Struct, frozen=True, kw_only=True):
    """One of a user's newest events, with what the catalogue says about its item."""

    item_id: str
    type: EventType
    ts_ms: int
    title: str | None = None
    tags: list[str] = []


class UserEvents(Struct, frozen=True, kw_only=True):
    """A user's newest events, newest first."""

    user_id: str
    recent: list[RecentEvent]
    session: int | None = None


class ItemFacts(Struct, frozen=True, kw_only=True):
    """What the catalogue says about an item."""

    title: str | None = None
    tags: list[str] = []
    category: str | None = None
    duration_ms: int | None = None


class Items(Struct, frozen=True, kw_only=True):
    """Facts by item id; unknown items are left out."""

    items: dict[str, ItemFacts]


class VariantFigures(Struct, frozen=True, kw_only=True):
    """A way to make lists: its share of them, what viewers make of its items, and lists made so far."""

    share: Probability
    reward: Probability | None
    lists: int


class Stats(Struct, frozen=True, kw_only=True):
    """The worker's figures; quality is in fractions, by contender and metric, each row of
    `quality_series` is (events scored, reelflow, popularity, markov). `acceptance` is what viewers
    make of listed items by surface, 0 to 1; `adapting` says that it fell, last on `drifted`, and that
    the model learns faster for a while. `heavy_users` and `heavy_items` are those with most events
    lately, and their shares; `variants` are those of `ranker.variants`.
    """

    events_per_s: float
    events_learned: int
    dead_letters: dict[str, int]
    users_with_snapshot: int
    snapshots: int
    event_to_snapshot_p50_s: float | None
    event_to_snapshot_p99_s: float | None
    hit_rate_10: dict[str, float | None]
    ready: bool
    active_users: list[str]
    n_items: int
    n_users: int
    device: str
    duplicates: int | None = None
    n_scored: int | None = None
    scored_share: float | None = None
    quality: dict[str, dict[str, float | None]] = {}
    quality_series: dict[str, list[list[float | None]]] = {}
    adapting: bool = False
    drifted: str = ""
    acceptance: dict[str, float] = {}
    heavy_users: dict[str, float] = {}
    heavy_items: dict[str, float] = {}
    variants: dict[str, VariantFigures] = {}
    catalogue_coverage: float | None = None
    lag_records: int | None = None
    recovered: float | None = None


class Live(Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: Literal["live"] = "live"


class Ready(Struct, frozen=True, kw_only=True):
    """Whether requests should be sent here; the worker alone does not decide it."""

    status: Literal["ready", "not_ready"]
    reasons: list[str]
    users: int
    lag_records: int


class Version(Struct, frozen=True, kw_only=True):
    """What runs here."""

    name: str
    version: str
    schema_version: int


def served(snapshot: Snapshot, now_ms: int, limit: int | None = None) -> Recommendations:
    """The snapshot with its age; "stale" once it is older than its own ttl_ms."""
    age_ms = max(0, now_ms - snapshot.generated_at_ms)
    return Recommendations(
        snapshot_id=snapshot.snapshot_id,
        user_id=snapshot.user_id,
        generated_at_ms=snapshot.generated_at_ms,
        ttl_ms=snapshot.ttl_ms,
        knows=snapshot.knows,
        model=snapshot.model,
        fallback=snapshot.fallback,
        items=snapshot.items if limit is None else snapshot.items[:limit],
        freshness="stale" if age_ms > snapshot.ttl_ms else "fresh",
        age_ms=age_ms,
    )


ALL_MODELS: tuple[Any, ...] = (
    ErrorBody,
    EventsAccepted,
    Recommendations,
    SimilarItems,
    FoundItems,
    UserEvents,
    ScoreRequest,
    Probabilities,
    Items,
    Stats,
    Live,
    Ready,
    Version,
)
