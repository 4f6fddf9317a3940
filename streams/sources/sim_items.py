"""The simulated catalogue: births, deaths, series, popularity that follows age and trends."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.records import SURFACES, Item

from .sim_config import DAY_MS, HABITS, HOUR_MS, LIVE, SERIAL, TAGS, SimulatorConfig

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MAX_TAGS: Final = 3
NOTHING: Final = -1
_SERIES_RATIO: Final = 0.6
_ITEMS_PER_CREATOR: Final = 8
_LANGUAGES: Final = ("en", "zh", "es", "hi", "pt")
_ADJECTIVES: Final = (
    "Quiet",
    "Golden",
    "Late",
    "First",
    "Hidden",
    "Electric",
    "Sunday",
    "Northern",
    "Tiny",
    "Lost",
)
_OLD_FLOOR: Final = 0.15
_TREND_SIGMA: Final = 0.08
_TREND_DECAY: Final = 0.98

_HABITS: Final = [HABITS[name] for name in SURFACES]
_CATALOGUE_SHARE: Final = np.cumsum([habits.catalogue_share for habits in _HABITS])
_DURATION_MS: Final = np.array([habits.duration_s * 1000 for habits in _HABITS])
_DURATION_SIGMA: Final = np.array([habits.duration_sigma for habits in _HABITS])
_LIFE_MS: Final = np.array([habits.life_days * DAY_MS for habits in _HABITS])
_FRESH_MS: Final = np.array([habits.fresh_h * HOUR_MS for habits in _HABITS])

_FIELDS: Final = {
    "surface": np.int64,
    "creator": np.int64,
    "duration_ms": np.int64,
    "born_ms": np.int64,
    "dies_ms": np.int64,
    "next_episode": np.int64,
    "quality": np.float64,
    "base": np.float64,
    "alive": np.bool_,
}


class ItemWorld:
    """All items ever born, by number; numbers are not used twice.

    Attributes
    ----------
    tags : (n, 3) int64
        Numbers of tags, the main one first; -1 pads.
    tag_weight : (n, 3) float64
        Rows sum to 1.
    surface, creator, duration_ms, born_ms, dies_ms, next_episode : (n,) int64
    quality, base : (n,) float64
        Latent quality, N(0, 1); Zipf weight.
    alive : (n,) bool
    """

    surface: Ints
    creator: Ints
    duration_ms: Ints
    born_ms: Ints
    dies_ms: Ints
    next_episode: Ints
    quality: Floats
    base: Floats
    alive: Mask

    def __init__(self, config: SimulatorConfig, rng: np.random.Generator) -> None:
        self._config = config
        self._rng = rng
        self._n = 0
        self.tags: Ints = np.zeros((0, MAX_TAGS), dtype=np.int64)
        self.tag_weight: Floats = np.zeros((0, MAX_TAGS))
        for name, kind in _FIELDS.items():
            setattr(self, name, np.zeros(0, dtype=kind))
        self.tag_popularity = rng.permutation(np.arange(1, len(TAGS) + 1) ** -0.7)
        self._log_trend = np.zeros(len(TAGS))
        # What belongs together: tags near each other in a latent space follow one another.
        places = rng.normal(size=(len(TAGS), 6))
        places /= np.linalg.norm(places, axis=1, keepdims=True)
        near = np.exp(4.0 * places @ places.T)
        np.fill_diagonal(near, 0.0)
        self.tag_transitions: Floats = near / near.sum(axis=1, keepdims=True)
        self._create(config.items, config.start_ms, at_opening=True)

    def __len__(self) -> int:
        return self._n

    def advance(self, now_ms: int, elapsed_ms: int) -> tuple[Ints, Ints]:
        """Let items die and be born and trends move; returns the numbers of the dead and the new."""
        n_tags = len(TAGS)
        hours = elapsed_ms / HOUR_MS
        self._log_trend *= _TREND_DECAY**hours
        self._log_trend += _TREND_SIGMA * np.sqrt(hours) * self._rng.normal(size=n_tags)
        dead = np.flatnonzero(self.alive & (self.dies_ms <= now_ms))
        self.alive[dead] = False
        return dead, self._create(len(dead), now_ms, at_opening=False)

    def popularity(self, now_ms: int) -> Floats:
        """Weight of each item in the platform's own mix; 0 for the dead.

        ``base_i * (0.15 + exp(-age_i / fresh_surface)) * trend_tag``
        """
        age = np.maximum(0, now_ms - self.born_ms) / _FRESH_MS[self.surface]
        trend = np.exp(self._log_trend)[self.tags[:, 0]]
        return np.where(self.alive, self.base * (_OLD_FLOOR + np.exp(-age)) * trend, 0.0)

    def item(self, number: int) -> Item:
        """Catalogue message of an item."""
        tags = [TAGS[tag] for tag in self.tags[number].tolist() if tag >= 0]
        creator = int(self.creator[number])
        return Item(
            item_id=item_id(number),
            surface=SURFACES[self.surface[number]],
            title=f"{_ADJECTIVES[number % len(_ADJECTIVES)]} {tags[0]} {number}",
            tags=tags,
            category=tags[0],
            creator_id=f"sc{creator}",
            language=_LANGUAGES[creator % len(_LANGUAGES)],
            duration_ms=None if self.surface[number] == LIVE else int(self.duration_ms[number]),
            published_ts_ms=int(self.born_ms[number]),
        )

    def _create(self, n: int, now_ms: int, *, at_opening: bool) -> Ints:
        rng, config = self._rng, self._config
        surface = np.searchsorted(_CATALOGUE_SHARE, rng.random(n) * _CATALOGUE_SHARE[-1], side="right")
        if config.surface is not None:
            surface = np.full(n, SURFACES.index(config.surface))
        duration = _DURATION_MS[surface] * np.exp(_DURATION_SIGMA[surface] * rng.normal(size=n))
        life = np.where(surface == LIVE, duration, _LIFE_MS[surface] * rng.exponential(size=n) + HOUR_MS)
        # At the opening items are of all ages; the lives that are under way then end as the rest.
        age = np.where(at_opening, rng.random(n) * np.minimum(life, 30 * DAY_MS), 0.0)
        n_creators = max(1, config.items // _ITEMS_PER_CREATOR)
        columns = {
            "surface": surface,
            "creator": (n_creators * rng.random(n) ** 2).astype(np.int64),
            "duration_ms": np.maximum(3_000, duration).astype(np.int64),
            "born_ms": (now_ms - age).astype(np.int64),
            "dies_ms": (now_ms - age + life).astype(np.int64) + 1,
            "next_episode": np.full(n, NOTHING, dtype=np.int64),
            "quality": rng.normal(size=n),
            "base": rng.integers(1, config.items + 1, n) ** -config.zipf,
            "alive": np.ones(n, dtype=np.bool_),
        }
        for name in _FIELDS:
            setattr(self, name, np.concatenate([getattr(self, name), columns[name]]))
        tags, weights = self._draw_tags(n)
        self.tags = np.concatenate([self.tags, tags])
        self.tag_weight = np.concatenate([self.tag_weight, weights])
        new = np.arange(self._n, self._n + n)
        self._n += n
        self._continue_series(new)
        return new

    def _draw_tags(self, n: int) -> tuple[Ints, Floats]:
        """A main tag by popularity, and up to two that go with it."""
        rng = self._rng
        shares = np.cumsum(self.tag_popularity * np.exp(self._log_trend))
        main = np.searchsorted(shares, rng.random(n) * shares[-1], side="right")
        tags = np.full((n, MAX_TAGS), NOTHING, dtype=np.int64)
        tags[:, 0] = main
        n_more = rng.integers(0, MAX_TAGS, n)
        for place in range(1, MAX_TAGS):
            tag = draw_rows(self.tag_transitions, main, rng.random(n))
            fresh = (n_more >= place) & (tag[:, None] != tags[:, :place]).all(axis=1)
            tags[:, place] = np.where(fresh, tag, NOTHING)
        weights = np.where(tags >= 0, np.array([1.0, 0.5, 0.35]), 0.0)
        return tags, weights / weights.sum(axis=1, keepdims=True)

    def _continue_series(self, new: Ints) -> None:
        """Make some of the new items the next episode of an item that has none yet."""
        for surface in SERIAL:
            open_ended = np.flatnonzero(
                self.alive & (self.surface == surface) & (self.next_episode == NOTHING)
            ).tolist()
            episodes = new[(self.surface[new] == surface) & (self._rng.random(len(new)) < _SERIES_RATIO)]
            previous = open_ended[0] if open_ended else NOTHING
            for number in episodes.tolist():
                if previous != NOTHING and previous < number:
                    self.next_episode[previous] = number
                    for array in (self.tags, self.tag_weight, self.creator):
                        array[number] = array[previous]
                previous = number if self._rng.random() < 0.9 else NOTHING


def draw_rows(rows: Floats, which: Ints, uniform: Floats) -> Ints:
    """One column of each row `which`, drawn with the probabilities that stand in the row."""
    cumulated = np.cumsum(rows, axis=1)[which]
    drawn: Ints = (uniform[:, None] * cumulated[:, -1:] >= cumulated).sum(axis=1)
    return drawn.clip(max=rows.shape[1] - 1)


def item_id(number: int) -> str:
    """Public id of an item."""
    return f"si{number}"
