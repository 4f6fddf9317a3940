"""Simulated users: latent tastes that drift, habits, and when they come back."""

from __future__ import annotations

from typing import Final

import numpy as np

from schemas.records import SURFACES

from .sim_config import DAY_MS, HABITS, HOUR_MS, TAGS, SimulatorConfig
from .sim_items import NOTHING, Floats, Ints, ItemWorld, draw_rows

RECENT: Final = 24
_MAX_INTERESTS: Final = 6
_BLOCK: Final = 65_536
_NEW_INTEREST_SHARE: Final = 0.35
_FORGET_BELOW: Final = 0.03

# Local hours 0 .. 23: a small peak at noon, a large one in the evening.
_HOURLY: Final = np.array(
    [0.5, 0.25, 0.15, 0.1, 0.1, 0.15, 0.4, 0.8, 1.0, 0.9, 0.9, 1.1,
     1.5, 1.3, 1.0, 1.0, 1.1, 1.3, 1.6, 1.9, 2.2, 2.3, 1.8, 1.0]
)  # fmt: skip
_CUMULATED_H: Final = np.concatenate([[0.0], np.cumsum(_HOURLY) * (24 / _HOURLY.sum())])
_HOURS: Final = np.arange(25.0)
_DEVICE_SHARE: Final = {"tv": (0.1, 0.1, 0.1, 0.7), "long_video": (0.4, 0.2, 0.3, 0.1)}
_DEVICES_BY_SURFACE: Final = np.array([_DEVICE_SHARE.get(name, (0.85, 0.05, 0.1, 0.0)) for name in SURFACES])


class UserWorld:
    """All users, by number.

    Attributes
    ----------
    taste : (N, n_tags) float32
        Share of a user's interest in each tag; rows sum to 1. The truth that a recommender looks
        for; it drifts.
    bias : (N,) float64
        How easily a user is pleased.
    next_ms : (N,) int64
        When a user acts next.
    in_session : (N,) bool
    pleasure : (N,) float64
    n_views : (N,) int64
        Sum of the true interest of the session's views, and their number.
    session, surface, device, topic, last_item : (N,) int64
        Of the session under way (or the last one); -1 for no item.
    recent : (N, 24) int64
        Items shown last, for not showing them again at once; -1 pads.
    """

    def __init__(self, config: SimulatorConfig, items: ItemWorld, rng: np.random.Generator) -> None:
        n = config.users
        self._config = config
        self._items = items
        self._rng = rng
        self.taste = np.zeros((n, len(TAGS)), dtype=np.float32)
        for start in range(0, n, _BLOCK):
            self.taste[start : start + _BLOCK] = self._draw_tastes(min(_BLOCK, n - start))
        self.bias = 0.4 * rng.normal(size=n)
        shares = rng.gamma(np.array([HABITS[name].user_share for name in SURFACES]), size=(n, len(SURFACES)))
        self._surface_share: Floats = shares / shares.sum(axis=1, keepdims=True)
        self._zone_ms = rng.choice(np.array([-5, 0, 1, 8]), n, p=[0.2, 0.2, 0.2, 0.4]) * HOUR_MS
        activity = np.exp(0.7 * rng.normal(size=n))
        self._gap_ms = DAY_MS / (config.sessions_per_day * activity / np.exp(0.5 * 0.7**2))
        self.next_ms: Ints = self._after_gap(np.arange(n), np.full(n, config.start_ms))
        self.in_session = np.zeros(n, dtype=np.bool_)
        self.session = np.zeros(n, dtype=np.int64)
        self.surface = np.zeros(n, dtype=np.int64)
        self.device = np.zeros(n, dtype=np.int64)
        self.topic = np.zeros(n, dtype=np.int64)
        self.last_item = np.full(n, NOTHING, dtype=np.int64)
        self.wants_next = np.zeros(n, dtype=np.bool_)
        self.pleasure = np.zeros(n)
        self.n_views = np.zeros(n, dtype=np.int64)
        self.recent = np.full((n, RECENT), NOTHING, dtype=np.int64)
        self._n_shown = np.zeros(n, dtype=np.int64)

    def begin_sessions(self, users: Ints) -> None:
        """Choose what the coming session is about; before some, the taste has drifted."""
        rng = self._rng
        drifting = users[rng.random(len(users)) < self._config.drift]
        if len(drifting):
            self._drift(drifting)
        self.in_session[users] = True
        self.session[users] += 1
        self.surface[users] = draw_each(self._surface_share[users], rng.random(len(users)))
        if self._config.surface is not None:
            self.surface[users] = SURFACES.index(self._config.surface)
        self.pleasure[users] = self.n_views[users] = 0
        self.device[users] = draw_rows(_DEVICES_BY_SURFACE, self.surface[users], rng.random(len(users)))
        self.topic[users] = self.draw_interest(users)
        self.last_item[users] = NOTHING
        self.wants_next[users] = False

    def end_sessions(self, users: Ints, now_ms: Ints) -> None:
        """Go away until the next session; the sooner back, the more this one pleased."""
        self.in_session[users] = False
        pleased = self.pleasure[users] / np.maximum(self.n_views[users], 1)
        self.next_ms[users] = self._after_gap(
            users, now_ms, np.exp(2.0 * self._config.loyalty * (0.5 - pleased))
        )

    def flip(self) -> None:
        """Draw every taste anew."""
        for start in range(0, len(self.taste), _BLOCK):
            self.taste[start : start + _BLOCK] = self._draw_tastes(len(self.taste[start : start + _BLOCK]))
        self.topic[:] = self.draw_interest(np.arange(len(self.topic)))

    def draw_interest(self, users: Ints) -> Ints:
        """A tag of each user's taste."""
        return draw_each(self.taste[users].astype(np.float64), self._rng.random(len(users)))

    def remember(self, users: Ints, items: Ints) -> None:
        """Note what was shown; each user once."""
        self.recent[users, self._n_shown[users] % RECENT] = items
        self._n_shown[users] += 1
        self.last_item[users] = items

    def _draw_tastes(self, n: int) -> Floats:
        """Three to six interests, more often popular ones, in unequal shares."""
        rng = self._rng
        keys = np.log(self._items.tag_popularity) + rng.gumbel(size=(n, len(TAGS)))
        chosen = np.argsort(-keys, axis=1, kind="stable")[:, :_MAX_INTERESTS]
        shares = rng.gamma(1.0, size=(n, _MAX_INTERESTS)) + 0.1
        n_interests = rng.integers(3, _MAX_INTERESTS + 1, n)
        shares[np.arange(_MAX_INTERESTS) >= n_interests[:, None]] = 0.0
        taste = np.zeros((n, len(TAGS)))
        np.put_along_axis(taste, chosen, shares / shares.sum(axis=1, keepdims=True), axis=1)
        return taste

    def _drift(self, users: Ints) -> None:
        """Take up a tag near a present interest; interests that have become small are lost."""
        rng = self._rng
        new = draw_rows(self._items.tag_transitions, self.draw_interest(users), rng.random(len(users)))
        taste = self.taste[users] * (1 - _NEW_INTEREST_SHARE)
        taste[np.arange(len(users)), new] += _NEW_INTEREST_SHARE
        taste[taste < _FORGET_BELOW] = 0.0
        self.taste[users] = taste / taste.sum(axis=1, keepdims=True)

    def _after_gap(self, users: Ints, now_ms: Ints, factor: Floats | float = 1.0) -> Ints:
        """Exponential gaps in the users' own time of day: ``t' = L^-1(L(t) + gap)``, L cumulated activity."""
        local_h = (now_ms + self._zone_ms[users]) / HOUR_MS
        day = np.floor(local_h / 24)
        active_h = day * 24 + np.interp(local_h - day * 24, _HOURS, _CUMULATED_H)
        active_h += factor * self._rng.exponential(size=len(users)) * self._gap_ms[users] / HOUR_MS
        day = np.floor(active_h / 24)
        local_h = day * 24 + np.interp(active_h - day * 24, _CUMULATED_H, _HOURS)
        after: Ints = (local_h * HOUR_MS).astype(np.int64) - self._zone_ms[users]
        return after.clip(min=now_ms + 60_000)


def draw_each(rows: Floats, uniform: Floats) -> Ints:
    """One column of every row, drawn with the probabilities that stand in it."""
    cumulated = np.cumsum(rows, axis=1)
    drawn: Ints = (uniform[:, None] * cumulated[:, -1:] >= cumulated).sum(axis=1)
    return drawn.clip(max=rows.shape[1] - 1)


def user_id(number: int) -> str:
    """Public id of a user."""
    return f"su{number}"
