"""What a simulated platform is like: its size, its habits, its surfaces."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, Struct

from schemas.errors import ConfigurationError
from schemas.records import SURFACES

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
START_MS: Final = 1_767_225_600_000
"""2026-01-01T00:00Z: a fixed start, so that the same seed gives the same bytes."""

TAGS: Final = (
    "comedy", "music", "dance", "cooking", "football", "basketball", "fitness", "travel", "nature", "animals",
    "pets", "science", "space", "history", "news", "politics", "economy", "technology", "gadgets", "gaming",
    "anime", "film", "drama", "crime", "romance", "horror", "fashion", "beauty", "art", "crafts",
    "gardening", "cars", "motorbikes", "aviation", "trains", "chess", "language", "books", "podcast",
    "education", "children", "health", "religion", "architecture", "photography", "magic", "fishing",
    "military",
)  # fmt: skip
DEVICES: Final = ("phone", "tablet", "web", "tv")
LIVE: Final = SURFACES.index("live")
SHORT: Final = SURFACES.index("short_video")
SERIAL: Final = (SURFACES.index("long_video"), SURFACES.index("tv"))

_SHORT_STEP_MS: Final = 120_000
_USERS_A_SHORT_STEP: Final = 10_000  # fewer act in arrays too small to be worth while

PositiveInt = Annotated[int, Meta(ge=1, le=10_000_000)]
Share = Annotated[float, Meta(ge=0, le=0.5)]


class SurfaceHabits(Struct, frozen=True):
    """How one surface is used; all numbers are invented, of the order that platforms report."""

    catalogue_share: float
    user_share: float
    duration_s: float
    duration_sigma: float
    life_days: float
    fresh_h: float
    session_views: float
    open_logit: float


#                    catalogue user duration sigma life  fresh views open
HABITS: Final = {
    "short_video": SurfaceHabits(0.55, 5.0, 22.0, 0.6, 6.0, 24.0, 22.0, 0.6),
    "long_video": SurfaceHabits(0.15, 1.2, 900.0, 0.6, 60.0, 96.0, 4.0, -0.3),
    "audio": SurfaceHabits(0.15, 1.5, 210.0, 0.35, 120.0, 240.0, 9.0, 0.2),
    "live": SurfaceHabits(0.05, 0.8, 5400.0, 0.5, 0.1, 1.0, 4.0, 0.0),
    "tv": SurfaceHabits(0.10, 0.8, 1800.0, 0.5, 90.0, 48.0, 3.0, 0.0),
}


class SimulatorConfig(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A simulated platform; the same one gives the same bytes (with the same release of numpy).

    Attributes
    ----------
    users, items : int
        Size; dead items are replaced, so the number alive stays the same.
    seed : int
        Of everything.
    start_ms : int
        Event time at which the platform opens.
    duplicates, late : float
        Share of events that are delivered twice (same bytes, seconds later), and that are delivered
        late, by `late_by_s` seconds in the mean.
    sessions_per_day : float
        Of a mean user.
    drift : float
        Share of sessions before which the user's taste takes up a new interest.
    zipf : float
        Exponent of popularity.
    surface : str or None
        The only surface there is; None for all of them.
    loyalty : float
        A session that pleased by q in (0, 1) in the mean is followed by a pause of
        ``exp(2 loyalty (0.5 - q))`` times the usual one; 0 brings everyone back alike.
    flip_after_s : float or None
        Event time after the opening at which every taste is drawn anew, at once.
    step_ms : int or None
        Event time between two looks at the catalogue and its popularity (and at the lists, when
        they are followed); None chooses two minutes, more for few users, at most an hour.
    """

    users: PositiveInt = 10_000
    items: PositiveInt = 5_000
    seed: Annotated[int, Meta(ge=0)] = 0
    start_ms: Annotated[int, Meta(ge=0, le=4_000_000_000_000)] = START_MS
    duplicates: Share = 0.01
    late: Share = 0.01
    late_by_s: Annotated[float, Meta(gt=0)] = 600.0
    sessions_per_day: Annotated[float, Meta(gt=0, le=100)] = 6.0
    drift: Annotated[float, Meta(ge=0, le=1)] = 0.1
    zipf: Annotated[float, Meta(ge=0, le=3)] = 0.9
    surface: Literal["short_video", "long_video", "audio", "live", "tv"] | None = None
    loyalty: Annotated[float, Meta(ge=0, le=5)] = 0.0
    flip_after_s: Annotated[float, Meta(gt=0)] | None = None
    step_ms: Annotated[int, Meta(ge=100, le=DAY_MS)] | None = None

    def step(self) -> int:
        """`step_ms`, or the choice for it.

        >>> [SimulatorConfig(users=n).step() for n in (10, 2_000, 1_000_000)]
        [3600000, 600000, 120000]
        """
        if self.step_ms is not None:
            return self.step_ms
        return max(_SHORT_STEP_MS, min(HOUR_MS, _USERS_A_SHORT_STEP * _SHORT_STEP_MS // self.users))

    def checked(self) -> SimulatorConfig:
        """Itself, if every value is in its range.

        Raises
        ------
        ConfigurationError
            Names the value.
        """
        try:
            return msgspec.convert(msgspec.to_builtins(self), SimulatorConfig)
        except msgspec.ValidationError as error:
            message, _, place = str(error).partition(" - at `$.")
            raise ConfigurationError(f"simulate.{place.rstrip('`')}", message) from error
