"""One run: an hour of viewers who are shown what the worker listed, in event time, without a broker."""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from benchmarks.closed_loop.served import CHUNK, ReelflowLists
from schemas.codec import decode_event
from schemas.records import Event
from schemas.runs import Float64
from streams.sources import sim_config
from streams.sources.sim_config import HOUR_MS, SimulatorConfig
from streams.sources.sim_items import NOTHING, Ints, ItemWorld, Mask
from streams.sources.sim_lists import Lists
from streams.sources.simulator import Platform
from streams.sources.source import Record, item_record

MINUTE_MS: Final = 60_000
STEP_MS: Final = 5_000
MINUTES: Final = 60
FLIP_MIN: Final = 30
BEFORE_MIN: Final = 10
"""The former level is the mean of so many minutes before the change."""

MIX_MIN: Final = 2
"""Minutes of the platform's own mix at the very beginning, so that there is something to list."""

RECOVERED: Final = 0.9
SMOOTH_MIN: Final = 2
"""Minutes that the level after the change is a mean of."""


class Alarm(Struct, frozen=True):
    """A fall that the worker found, minutes of event time since the opening."""

    surface: str
    minute: float


class Soaked(Struct, kw_only=True):
    """What a run gave; minutes of event time since lists were first served."""

    seed: int
    flipped: bool
    n_events: int
    alarms: list[Alarm]
    hit_rate: Float64
    """(60,) by minute: share of the views of listed items that the viewer took up."""

    former: float
    """Mean hit rate of the minutes before the change."""

    lowest: float
    noticed_after_min: float | None
    recovered_after_min: float | None


class Viewing(ReelflowLists):
    """Lists of the worker, served from the moment they are asked for.

    Before, viewers are shown the platform's own mix, and the worker learns from what they do.
    """

    serving = False

    def choose(self, users: Ints, recent: Ints, alive: Mask) -> tuple[Ints, Ints]:
        """As `Lists.choose`, so that items come again after a while; nothing while nobody is served."""
        if self.serving:
            return Lists.choose(self, users, recent, alive)
        nothing = np.full(len(users), NOTHING, dtype=np.int64)
        return nothing, nothing

    def learn(self, records: list[Record], now_ms: int) -> None:
        """Take in what arrived, without a list for anybody."""
        self._now_ms = now_ms
        for kind, topic in (("item", self.core.names.catalogue), ("event", self.core.names.behaviour)):
            of_kind = [record for record in records if record.kind == kind]
            for first in range(0, len(of_kind), CHUNK):
                self.core.apply([self._run(topic, of_kind[first : first + CHUNK])])


class HitCount:
    """Views of listed items by minute, and how many of them were taken up.

    A view is a hit when its item is watched or joined before the viewer's next impression: not when it
    is passed over or swiped away.
    """

    def __init__(self, start_ms: int) -> None:
        self._start_ms = start_ms
        self.views: Float64 = np.zeros(MINUTES)
        self.hits: Float64 = np.zeros(MINUTES)
        self._at: dict[str, tuple[str, int]] = {}

    def add(self, events: list[Event]) -> None:
        """Take in events in the order in which they arrived."""
        for event in events:
            if event.type == "impression":
                self._at.pop(event.user_id, None)
                if event.snapshot_id is not None:
                    minute = min((event.ts_ms - self._start_ms) // MINUTE_MS, MINUTES - 1)
                    self.views[minute] += 1
                    self._at[event.user_id] = event.item_id, minute
            elif event.type in {"watch", "join"}:
                item_id, minute = self._at.pop(event.user_id, ("", 0))
                self.hits[minute] += item_id == event.item_id


class Shape(Struct, frozen=True, kw_only=True):
    """The size of a run."""

    users: int = 1_200
    items: int = 1_000
    surface: str | None = "short_video"
    warm_min: int = 40
    """Minutes for which lists are served before the hour, so that it begins at a steady level."""

    embeddings: bool = True
    adapts: bool = True
    """Whether the model does anything about what was noticed."""


def soak(seed: int, shape: Shape, *, flips: bool) -> Soaked:
    """Let viewers be served for an hour; with `flips` every taste is drawn anew in its middle."""
    opening_ms = sim_config.START_MS + 12 * HOUR_MS
    served_ms = opening_ms + MIX_MIN * MINUTE_MS
    start_ms = served_ms + shape.warm_min * MINUTE_MS
    config = SimulatorConfig(
        users=shape.users,
        items=shape.items,
        seed=seed,
        surface=shape.surface,  # type: ignore[arg-type]  # checked
        sessions_per_day=100.0,
        drift=0.02,
        start_ms=opening_ms,
        duplicates=0.0,
        late=0.0,
        step_ms=STEP_MS,
        flip_after_s=60.0 * (MIX_MIN + shape.warm_min + FLIP_MIN) if flips else None,
    ).checked()
    holder: list[Platform] = []

    def world() -> ItemWorld:
        return holder[0].items

    lists = Viewing(
        config.users,
        world,
        seed=seed,
        exclude_seen=False,
        embeddings=shape.embeddings,
        adapts=shape.adapts,
    )
    platform = Platform(config, lists)
    holder.append(platform)
    lists.learn([item_record(platform.items.item(n)) for n in range(len(platform.items))], opening_ms)
    while platform.now_ms < served_ms:
        lists.learn(list(platform.step(MINUTE_MS)), platform.now_ms)
    lists.observe([], [], platform.now_ms)
    lists.serving = True
    while platform.now_ms < start_ms:
        lists.observe(list(platform.step(STEP_MS)), [], platform.now_ms)
    counted = HitCount(start_ms)
    alarms: list[Alarm] = []
    n_known, n_events = len(new_falls(lists, 0)), 0
    for _ in range(MINUTES * MINUTE_MS // STEP_MS):
        records = list(platform.step(STEP_MS))
        events = [decode_event(r.value) for r in records if r.kind == "event" and r.value is not None]
        counted.add(events)
        n_events += len(events)
        lists.observe(records, events, platform.now_ms)
        minute = (platform.now_ms - start_ms) / MINUTE_MS
        alarms += [Alarm(name, minute) for name in new_falls(lists, n_known + len(alarms))]
    rate = counted.hits / np.maximum(counted.views, 1.0)
    return judged(seed, flips, n_events, alarms, rate, counted.views)


def new_falls(lists: ReelflowLists, n_known: int) -> list[str]:
    """Surfaces of the falls that the worker counted beyond the first `n_known`."""
    samples = [
        (sample.labels["surface"], round(sample.value))
        for metric in lists.core.metrics.drifts.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    ]
    names = [name for name, n in samples for _ in range(n)]
    return names[n_known:] if len(names) > n_known else []


def judged(
    seed: int,
    flipped: bool,
    n_events: int,
    alarms: list[Alarm],
    rate: Float64,
    views: NDArray[np.float64],
) -> Soaked:
    """Former level, when the change was noticed, and when the level was back."""
    before, after = slice(FLIP_MIN - BEFORE_MIN, FLIP_MIN), slice(FLIP_MIN, None)
    former = float(np.average(rate[before], weights=views[before]))
    noticed = [a.minute - FLIP_MIN for a in alarms if a.minute > FLIP_MIN]
    smooth = np.convolve(rate[after], np.full(SMOOTH_MIN, 1.0 / SMOOTH_MIN), mode="valid")
    lowest = int(smooth[:10].argmin())
    back = np.flatnonzero(smooth[lowest:] >= RECOVERED * former)
    return Soaked(
        seed=seed,
        flipped=flipped,
        n_events=n_events,
        alarms=alarms,
        hit_rate=rate,
        former=former,
        lowest=float(smooth[lowest]),
        noticed_after_min=noticed[0] if flipped and noticed else None,
        recovered_after_min=float(lowest + back[0] + SMOOTH_MIN) if flipped and len(back) else None,
    )
