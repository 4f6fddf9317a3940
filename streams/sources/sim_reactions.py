"""How a simulated user reacts to an item: opens it or not, watches so long, likes, leaves."""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import Struct

from schemas.records import EVENT_TYPES, SURFACES

from .sim_config import HABITS, LIVE
from .sim_items import Floats, Ints, ItemWorld, Mask
from .sim_users import UserWorld

_FIT: Final = 3.2
_QUALITY: Final = 0.5
_BASE: Final = -1.4
_MOOD_SIGMA: Final = 0.5
_SWIPE_MS: Final = 3_000
_SWIPE_RATIO: Final = 0.25
_OPEN_LOGIT: Final = np.array([HABITS[name].open_logit for name in SURFACES])
_SESSION_VIEWS: Final = np.array([HABITS[name].session_views for name in SURFACES])
_LOOPS: Final = np.array([name in {"short_video", "audio"} for name in SURFACES])

SIGNALS: Final = (
    ("like", 0.12),
    ("favourite", 0.02),
    ("comment", 0.025),
    ("share", 0.015),
    ("follow", 0.02),
)
"""Signals of an opened item; probability at interest 1, falling with its square."""
DISLIKE_RATIO: Final = 0.08
GIFT_RATIO: Final = 0.6


class Reactions(Struct, frozen=True, kw_only=True):
    """What B users do with B items; masks (B,), times in ms.

    Attributes
    ----------
    interest : (B,) float64
        True probability that the item pleases, without the mood of the moment.
    opened, skipped, completed : (B,) bool
        Opened at all; opened and swiped away; seen to its end.
    watch_ms : (B,) int64
        0 where it was not opened.
    leaves : (B,) bool
        The session ends after it.
    """

    interest: Floats
    opened: Mask
    skipped: Mask
    completed: Mask
    watch_ms: Ints
    leaves: Mask


def logits_of(users: UserWorld, items: ItemWorld, who: Ints, what: Ints) -> Floats:
    """Log-odds that item `what[i]` pleases user `who[i]`.

    ``-1.4 + 3.2 * sum_k w_ik taste_u[tag_ik] / max taste_u + 0.5 * quality_i + bias_u``
    """
    taste = users.taste[who]
    tags = items.tags[what]
    per_tag = np.take_along_axis(taste, np.maximum(tags, 0), axis=1)  # (B, 3); a pad weighs 0
    fit = (items.tag_weight[what] * per_tag).sum(axis=1) / taste.max(axis=1)
    result: Floats = _BASE + _FIT * fit + _QUALITY * items.quality[what] + users.bias[who]
    return result


def interest_of(users: UserWorld, items: ItemWorld, who: Ints, what: Ints) -> Floats:
    """Probability that item `what[i]` pleases user `who[i]` now; (B,) in (0, 1)."""
    return _sigmoid(logits_of(users, items, who, what))


def react(users: UserWorld, items: ItemWorld, who: Ints, what: Ints, rng: np.random.Generator) -> Reactions:
    """Reactions of users `who` to items `what`, both (B,)."""
    n = len(who)
    now_ms = users.next_ms[who]
    surface = items.surface[what]
    logits = logits_of(users, items, who, what)
    interest = _sigmoid(logits)
    mood = logits + _MOOD_SIGMA * rng.normal(size=n)
    pleased = _sigmoid(mood)
    opened = rng.random(n) < _sigmoid(mood + _OPEN_LOGIT[surface])
    completes = rng.random(n) < _sigmoid(1.3 * mood - 0.2)
    # Those who leave early do so the earlier the less they are pleased.
    part = rng.random(n) ** (1.0 / (0.3 + 1.4 * pleased))
    loops = np.where(_LOOPS[surface] & (rng.random(n) < 0.25 * pleased), 1.0 + rng.exponential(size=n), 1.0)
    ratio = np.where(completes, np.minimum(loops, 20.0), part)
    watch_ms = np.where(opened, ratio * items.duration_ms[what], 0.0).astype(np.int64)
    live = surface == LIVE
    # A room is left at some point of the evening, at the latest when it is over.
    stay_ms = (600_000 * pleased * rng.exponential(size=n)).astype(np.int64) + 2_000
    stay_ms = np.minimum(stay_ms, np.maximum(0, items.dies_ms[what] - now_ms))
    watch_ms = np.where(opened & live, stay_ms, watch_ms)
    skipped = opened & ~live & (watch_ms < _SWIPE_MS) & (ratio < _SWIPE_RATIO)
    leaves = rng.random(n) < (1.6 - 1.2 * pleased) / _SESSION_VIEWS[users.surface[who]]
    return Reactions(
        interest=interest,
        opened=opened,
        skipped=skipped,
        completed=opened & completes & ~live,
        watch_ms=watch_ms,
        leaves=leaves,
    )


def signals_of(reactions: Reactions, surface: Ints, rng: np.random.Generator) -> list[tuple[int, Ints]]:
    """Further signals: number of the event type, and which of the B give it."""
    n = len(surface)
    stayed = reactions.opened & ~reactions.skipped
    eager = np.where(stayed, reactions.interest**2, 0.0)
    found = [
        (EVENT_TYPES.index(name), np.flatnonzero(rng.random(n) < ratio * eager)) for name, ratio in SIGNALS
    ]
    annoyed = np.where(reactions.opened, (1 - reactions.interest) ** 4, 0.0)
    found.append((EVENT_TYPES.index("dislike"), np.flatnonzero(rng.random(n) < DISLIKE_RATIO * annoyed)))
    giving = rng.random(n) < np.where(surface == LIVE, GIFT_RATIO * eager, 0.0)
    found.append((EVENT_TYPES.index("gift"), np.flatnonzero(giving)))
    return found


def _sigmoid(x: Floats) -> Floats:
    result: Floats = 1.0 / (1.0 + np.exp(-x))
    return result
