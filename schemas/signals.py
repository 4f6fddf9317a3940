"""The table of interest signals: what an event of each type says on each surface.

One struct a surface, one field an entry; `learners.signals` has the equations. In the file
``[signals.live]`` and ``gift = 1.5``; in the environment ``REELFLOW_SIGNALS_LIVE='{"gift": 1.5}'``.
What is not named keeps the default of its surface.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct, structs

from .records import SURFACES

Positive = Annotated[float, Meta(ge=0, le=10)]
Negative = Annotated[float, Meta(ge=-10, le=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Milliseconds = Annotated[int, Meta(ge=1, le=7 * 86_400_000)]


class SurfaceSignals(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Events that name no surface, and what the surfaces have in common."""

    impression: Annotated[Negative, Meta(description="shown, no more")] = 0.0
    watch: Annotated[Positive, Meta(description="watched, nobody knows how long")] = 1.0
    enough_ms: Annotated[Milliseconds, Meta(description="time watched that counts as the whole, ms")] = 30_000
    watch_base: Annotated[Positive, Meta(description="of a timed watch: base + c")] = 0.2
    watch_most: Annotated[Positive, Meta(description="of a timed watch, at most, without replays")] = 1.0
    swipe_below: Annotated[Share, Meta(description="c below which a timed watch is a swipe")] = 0.1
    swipe: Annotated[Negative, Meta(description="a swipe")] = -0.5
    replay: Annotated[Positive, Meta(description="added for each time it was watched again")] = 0.25
    replay_most: Annotated[Positive, Meta(description="added for replays, at most")] = 0.5
    autoplay: Annotated[Share, Meta(description="factor of what started by itself and was watched")] = 0.5
    like: Positive = 1.5
    favourite: Positive = 1.5
    comment: Positive = 2.0
    share: Positive = 2.0
    follow: Positive = 2.0
    gift: Annotated[Positive, Meta(description="a gift of unknown value, and the base of all")] = 1.5
    gift_decade: Annotated[Positive, Meta(description="added for each tenfold of 1 + gift_value")] = 0.5
    gift_most: Annotated[Positive, Meta(description="of a gift, at most")] = 3.0
    join: Annotated[Positive, Meta(description="went into a room")] = 0.5
    leave: Annotated[Negative, Meta(description="left a room, nobody knows after how long")] = 0.0
    skip: Negative = -1.0
    dislike: Negative = -1.5


class ShortVideoSignals(SurfaceSignals, frozen=True, kw_only=True):
    """A feed: everything starts by itself, so that says nothing."""

    autoplay: Share = 1.0


class LongVideoSignals(SurfaceSignals, frozen=True, kw_only=True):
    """Minutes, not seconds."""

    enough_ms: Milliseconds = 180_000


class AudioSignals(SurfaceSignals, frozen=True, kw_only=True):
    """What is heard again is loved; what is passed over may be for another hour."""

    enough_ms: Milliseconds = 120_000
    replay: Positive = 0.5
    replay_most: Positive = 1.0
    skip: Negative = -0.75


class LiveSignals(SurfaceSignals, frozen=True, kw_only=True):
    """Rooms are looked into and left; staying and giving are what counts."""

    enough_ms: Milliseconds = 60_000
    swipe: Negative = -0.25
    replay: Positive = 0.0


class TvSignals(SurfaceSignals, frozen=True, kw_only=True):
    """The next episode starts in an empty room; zapping is no verdict."""

    enough_ms: Milliseconds = 300_000
    swipe: Negative = -0.25
    skip: Negative = -0.5


class SignalSettings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an event says for or against its item, by type and surface: [signals.md](signals.md)."""

    other: SurfaceSignals = SurfaceSignals()
    short_video: ShortVideoSignals = ShortVideoSignals()
    long_video: LongVideoSignals = LongVideoSignals()
    audio: AudioSignals = AudioSignals()
    live: LiveSignals = LiveSignals()
    tv: TvSignals = TvSignals()


OTHER: Final = "other"
ROWS: Final = (*SURFACES, OTHER)
"""Rows of the table by code of the surface; -1, no surface, is the last."""


def entries(settings: SignalSettings) -> dict[str, list[float]]:
    """Every entry of the table: its values by code of the surface, those without one last.

    >>> entries(SignalSettings())["skip"]
    [-1.0, -1.0, -0.75, -1.0, -0.5, -1.0]
    """
    rows = [getattr(settings, name) for name in ROWS]
    return {
        field.name: [getattr(row, field.name) for row in rows] for field in structs.fields(SurfaceSignals)
    }


def signal_table() -> list[str]:
    """The defaults as a Markdown table, an entry a line."""
    table = entries(SignalSettings())
    meanings = {field.name: _meaning(field.type) for field in structs.fields(SurfaceSignals)}
    lines = [f"| key | {' | '.join(ROWS)} | meaning |", "|---" * (len(ROWS) + 2) + "|"]
    for name, values in table.items():
        shown = " | ".join(f"{value:.9g}" for value in values)
        lines.append(f"| {name} | {shown} | {meanings[name]} |")
    return lines


def _meaning(kind: object) -> str:
    metas = [meta for meta in getattr(kind, "__metadata__", ()) if isinstance(meta, Meta)]
    return " ".join(meta.description for meta in metas if meta.description) or "the act itself"
