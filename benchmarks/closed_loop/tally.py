"""What viewers did, by viewer; and means with intervals of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from msgspec import Struct

from schemas.records import Event
from schemas.runs import Float64, Int64
from streams.sources.sim_config import HOUR_MS

RETURN_MS: Final = HOUR_MS
N_RESAMPLES: Final = 2_000
Z_95: Final = (0.025, 0.975)


class Tally:
    """Sums by viewer, of what began at or after `from_ms`.

    Attributes
    ----------
    watched_ms, views, likes, skips, sessions, ended, returned : (N,) int64
        `ended` counts sessions whose end is long enough ago to say whether the viewer came back
        within an hour, `returned` those after which he did.
    """

    def __init__(self, n_users: int, from_ms: int, until_ms: int) -> None:
        self._from_ms, self._until_ms = from_ms, until_ms
        names = ("watched_ms", "views", "likes", "skips", "sessions", "ended", "returned")
        for name in names:
            setattr(self, name, np.zeros(n_users, dtype=np.int64))
        self._session = [""] * n_users
        self._last_ms: Int64 = np.zeros(n_users, dtype=np.int64)
        self._shown: set[str] = set()
        self.left_ratio = 0.0
        """Share of the views that no list was asked for; set by who served."""

    watched_ms: Int64
    views: Int64
    likes: Int64
    skips: Int64
    sessions: Int64
    ended: Int64
    returned: Int64

    def add(self, events: Sequence[Event]) -> None:
        """Take in events of one step; duplicates must have been left out."""
        for event in sorted(events, key=lambda e: e.ts_ms):
            user = int(event.user_id[2:])
            counts = event.ts_ms >= self._from_ms
            if event.type == "impression":
                self._begin(user, event, counts=counts)
                if counts:
                    self.views[user] += 1
                    self._shown.add(event.item_id)
            elif counts and event.type in {"watch", "skip", "leave"}:
                self.watched_ms[user] += event.watch_ms or 0
                self.skips[user] += event.type == "skip"
            elif counts and event.type == "like":
                self.likes[user] += 1
            self._last_ms[user] = max(self._last_ms[user], event.ts_ms)

    def _begin(self, user: int, event: Event, *, counts: bool) -> None:
        session = event.session_id or ""
        if session == self._session[user]:
            return
        before, ended_ms = self._session[user], int(self._last_ms[user])
        if before and ended_ms >= self._from_ms and ended_ms + RETURN_MS <= self._until_ms:
            self.ended[user] += 1
            self.returned[user] += event.ts_ms - ended_ms <= RETURN_MS
        self._session[user] = session
        self.sessions[user] += counts

    def close(self) -> None:
        """Count the sessions after which nobody came back."""
        idle = (self._last_ms >= self._from_ms) & (self._last_ms + RETURN_MS <= self._until_ms)
        self.ended += idle

    @property
    def n_shown(self) -> int:
        """Different items shown."""
        return len(self._shown)


MEASURES: Final = {
    "watch_s_per_session": ("watched_ms", "sessions", 1e-3),
    "watch_s_per_user": ("watched_ms", "", 1e-3),
    "like_rate": ("likes", "views", 1.0),
    "skip_rate": ("skips", "views", 1.0),
    "return_rate": ("returned", "ended", 1.0),
    "views_per_session": ("views", "sessions", 1.0),
}
"""Name -> (numerator, denominator or nothing for viewers, factor)."""


class Estimate(Struct, frozen=True):
    """A figure and its 95 % interval over viewers."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} [{self.low:.4g}, {self.high:.4g}]"


def resamples(n_users: int, seed: int = 0) -> Float64:
    """How often each of `n_users` is in each of `N_RESAMPLES` bootstrap samples: (R, N)."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_users, np.full(n_users, 1.0 / n_users), size=N_RESAMPLES).astype(np.float64)


def ratio_of(tallies: Sequence[Tally], measure: str, weights: Float64 | None = None) -> Float64:
    """Ratio of sums over the viewers of all tallies; with `weights` (R, N) that of every resample."""
    above, below, factor = MEASURES[measure]
    top = np.concatenate([getattr(tally, above) for tally in tallies]).astype(np.float64)
    bottom = (
        np.concatenate([getattr(tally, below) for tally in tallies]).astype(np.float64)
        if below
        else np.ones(len(top))
    )
    w = np.ones((1, len(top))) if weights is None else weights
    found: Float64 = factor * (w @ top) / np.maximum(w @ bottom, 1e-12)
    return found


def estimate(tallies: Sequence[Tally], measure: str, weights: Float64) -> Estimate:
    """A measure with its interval."""
    low, high = np.quantile(ratio_of(tallies, measure, weights), Z_95)
    return Estimate(float(ratio_of(tallies, measure)[0]), float(low), float(high))


def relative(ours: Sequence[Tally], theirs: Sequence[Tally], measure: str, weights: Float64) -> Estimate:
    """``ours / theirs - 1``, the same viewers resampled in both: they are the same persons at the start."""
    whole = ratio_of(ours, measure)[0] / max(float(ratio_of(theirs, measure)[0]), 1e-12) - 1.0
    sampled = ratio_of(ours, measure, weights) / np.maximum(ratio_of(theirs, measure, weights), 1e-12) - 1.0
    low, high = np.quantile(sampled, Z_95)
    return Estimate(float(whole), float(low), float(high))
