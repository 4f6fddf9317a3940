"""The platform's own mix: what a user is shown where no recommendation list is followed."""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.records import SURFACES

from .sim_config import TAGS
from .sim_items import NOTHING, Floats, Ints, ItemWorld, Mask
from .sim_users import UserWorld

_TOPIC_SHARE: Final = 0.55
_EXPLORE_SHARE: Final = 0.08
_NEXT_EPISODE_SHARE: Final = 0.6
_CANDIDATES: Final = 4


class Feed:
    """Draws by popularity, within the session's surface and, often, its topic; next episodes first.

    Alive items stand sorted by (surface, main tag), so that every choice is a draw from a segment
    of one cumulated weight. Cost: a sort of the catalogue a step, then O(log M) a draw.
    """

    def __init__(self, items: ItemWorld, users: UserWorld, rng: np.random.Generator) -> None:
        self._items = items
        self._users = users
        self._rng = rng

    def refresh(self, now_ms: int) -> None:
        """Take in births, deaths and trends."""
        items = self._items
        alive = np.flatnonzero(items.alive)
        segment = items.surface[alive] * len(TAGS) + items.tags[alive, 0]
        by_segment = np.argsort(segment, kind="stable")
        self._order: Ints = alive[by_segment]
        weights = items.popularity(now_ms)[self._order]
        self._cumulated: Floats = np.concatenate([[0.0], np.cumsum(weights)])
        bounds = np.arange(len(SURFACES) * len(TAGS) + 1)
        self._starts: Ints = np.searchsorted(segment[by_segment], bounds)

    def choose(self, users: Ints) -> Ints:
        """An item for each user, preferably none of those shown last; (B,) numbers."""
        rng, state = self._rng, self._users
        candidates = self._draw(users)  # (B, 4)
        seen = (candidates[:, :, None] == state.recent[users][:, None, :]).any(axis=2)
        chosen = candidates[np.arange(len(users)), seen.argmin(axis=1)]
        last = state.last_item[users]
        following = np.where(last >= 0, self._items.next_episode[last], NOTHING)
        goes_on: Mask = state.wants_next[users] & (following >= 0) & self._items.alive[following]
        goes_on &= rng.random(len(users)) < _NEXT_EPISODE_SHARE
        return np.where(goes_on, following, chosen)

    def _draw(self, users: Ints) -> Ints:
        """Candidates for each user, (B, 4)."""
        shape = (len(users), _CANDIDATES)
        u, v = self._rng.random(shape), self._rng.random(shape)
        surface = self._users.surface[users]
        topic_at = surface * len(TAGS) + self._users.topic[users]
        topic_low, topic_high = self._starts[topic_at][:, None], self._starts[topic_at + 1][:, None]
        low = self._starts[surface * len(TAGS)]
        high = self._starts[(surface + 1) * len(TAGS)]
        nothing = high <= low  # a surface without items: anything then
        low = np.where(nothing, 0, low)[:, None]
        high = np.where(nothing, len(self._order), high)[:, None]
        on_topic = (u < _TOPIC_SHARE) & (topic_high > topic_low)
        low, high = np.where(on_topic, topic_low, low), np.where(on_topic, topic_high, high)
        cumulated = self._cumulated
        weight = cumulated[low] + v * (cumulated[high] - cumulated[low])
        popular = np.searchsorted(cumulated, weight, side="right") - 1
        exploring = u > 1 - _EXPLORE_SHARE
        place = np.where(exploring, low + (v * (high - low)).astype(np.int64), popular)
        drawn: Ints = self._order[np.clip(place, low, high - 1)]
        return drawn
