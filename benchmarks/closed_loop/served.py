"""The lists that simulated viewers are shown: reelflow's, at once or hourly, the popular, or any.

Every policy sees what happened up to the end of a step, and decides what each user is shown in the
next. Whichever it is, a viewer is not shown what he was shown before while there is something else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import numpy as np
from prometheus_client import CollectorRegistry

from schemas.records import Event, Snapshot
from schemas.runs import RecordRun
from schemas.settings import KafkaSettings, LearnerSettings, RankerSettings, Settings, WorkerSettings
from serving.metrics import WorkerMetrics
from streams.core import WorkerCore
from streams.sinks import Delivered, Headers
from streams.sources.sim_config import HOUR_MS
from streams.sources.sim_items import NOTHING, Ints, ItemWorld, Mask
from streams.sources.sim_lists import WIDTH, Lists
from streams.sources.source import Record

POPULARITY_HALF_LIFE_MS: Final = 6 * HOUR_MS
_DECODER: Final = msgspec.json.Decoder(Snapshot)
"""Without the checks of `decode_snapshot`: who wrote it is this process."""

HOURLY_WIDTH: Final = 300
"""Places of a list that has to last an hour: one of `WIDTH` runs out in a third of the views."""

CHUNK: Final = 4_096
"""Events applied together at most, so that the worker learns from all of them (`streams.overload`)."""


class ServedLists(Lists):
    """Lists of a policy; leaves out what the user was shown before.

    Parameters
    ----------
    n_users : int
    items : Callable[[], ItemWorld]
        The catalogue with its truth; a policy uses which items are alive.
    width : int
        Places of a list.
    """

    def __init__(self, n_users: int, items: Callable[[], ItemWorld], width: int = WIDTH) -> None:
        super().__init__(n_users, width)
        self._world = items
        self._shown: Mask = np.zeros((n_users, 0), dtype=np.bool_)
        self.n_asked = self.n_left = 0
        """Views, and those for which a list had nothing."""

    def choose(self, users: Ints, recent: Ints, alive: Mask) -> tuple[Ints, Ints]:
        """As `Lists.choose`, among what each user was never shown, where there is such an item."""
        self._grow(len(alive))
        items = self.items[users]
        places = np.where((items >= 0) & (items < len(alive)), items, 0)
        fresh = (items >= 0) & alive[places] & ~self._shown[users[:, None], places]
        position = fresh.argmax(axis=1)
        rows = np.arange(len(users))
        found = fresh[rows, position]
        again, again_at = super().choose(users, recent, alive)
        chosen = np.where(found, items[rows, position], again)
        self._shown[users, np.maximum(chosen, 0)] |= chosen >= 0
        self.n_asked += len(users)
        self.n_left += int(np.count_nonzero(chosen < 0))
        return chosen, np.where(found, position, again_at)

    def _grow(self, n_items: int) -> None:
        width = self._shown.shape[1]
        if width < n_items:
            more = np.zeros((len(self._shown), 2 * n_items - width), dtype=np.bool_)
            self._shown = np.concatenate([self._shown, more], axis=1)

    def alive(self) -> Ints:
        """Numbers of the items that can be shown."""
        return np.flatnonzero(self._world().alive)

    def observe(self, records: Sequence[Record], events: Sequence[Event], now_ms: int) -> None:
        """Take in what arrived by `now_ms`; events are those of the records, decoded."""


class RandomLists(ServedLists):
    """Any items that are alive."""

    def __init__(self, n_users: int, items: Callable[[], ItemWorld], seed: int) -> None:
        super().__init__(n_users, items)
        self._rng = np.random.default_rng(seed)

    def observe(self, records: Sequence[Record], events: Sequence[Event], now_ms: int) -> None:
        """Draw anew."""
        alive = self.alive()
        self.items = alive[self._rng.integers(0, len(alive), self.items.shape)]


class PopularLists(ServedLists):
    """What was watched most, a watch of age a weighing ``2^(-a / 6 h)``; the same for everybody."""

    def __init__(self, n_users: int, items: Callable[[], ItemWorld]) -> None:
        super().__init__(n_users, items)
        self._counts = np.zeros(0)
        self._then_ms: int | None = None

    def observe(self, records: Sequence[Record], events: Sequence[Event], now_ms: int) -> None:
        """Count watches and joins."""
        n = len(self._world())
        self._grow(n)
        self._counts = np.concatenate([self._counts, np.zeros(n - len(self._counts))])
        if self._then_ms is not None:
            self._counts *= 0.5 ** ((now_ms - self._then_ms) / POPULARITY_HALF_LIFE_MS)
        self._then_ms = now_ms
        watched = np.array([int(e.item_id[2:]) for e in events if e.type in {"watch", "join"}], np.int64)
        np.add.at(self._counts, watched, 1.0)
        alive = self.alive()
        best = alive[np.argsort(-self._counts[alive], kind="stable")]
        self.items[:] = NOTHING
        for user, shown in enumerate(self._shown[:, best]):  # who has been through the best goes on below
            mine = best[~shown][:WIDTH]
            self.items[user, : len(mine)] = mine


class ReelflowLists(ServedLists):
    """Lists of a `WorkerCore` in this process, at its defaults: learner and ranker of `reelflow worker`.

    Parameters
    ----------
    refit_ms : int
        0 learns and publishes at the end of every step. Otherwise what arrives waits, and is learned
        so often; the lists stay between, and are as long as that takes.
    seed : int
    exclude_seen, embeddings, adapts : bool
        Of ranker and learner.
    """

    def __init__(
        self,
        n_users: int,
        items: Callable[[], ItemWorld],
        *,
        refit_ms: int = 0,
        seed: int = 0,
        exclude_seen: bool = True,
        embeddings: bool = True,
        adapts: bool = False,
    ) -> None:
        super().__init__(n_users, items, HOURLY_WIDTH if refit_ms else WIDTH)
        width = self.items.shape[1]
        self._now_ms = 0
        self._refit_ms, self._refitted_ms = refit_ms, 0
        self._waiting: list[Record] = []
        self._offsets: dict[str, int] = {}
        settings = Settings(
            kafka=KafkaSettings(partitions=1),
            worker=WorkerSettings(refresh_interval_ms=0),
            learner=LearnerSettings(
                seed=seed, device="cpu", embeddings=embeddings, adapt_to_drift=adapts, tastes=embeddings
            ),
            ranker=RankerSettings(list_size=width, evaluate_ratio=0.0, exclude_seen=exclude_seen),
        )
        self.core = WorkerCore(
            settings,
            _ListSink(self),
            WorkerMetrics(CollectorRegistry()),
            clock=lambda: self._now_ms / 1000,
            published_before=False,
        )
        for topic in (self.core.names.behaviour, self.core.names.catalogue):
            self.core.assign(topic, 0, start=0, committed=None, end=0)
            self._offsets[topic] = 0

    def observe(self, records: Sequence[Record], events: Sequence[Event], now_ms: int) -> None:
        """Learn and publish, now or when the hour is over."""
        self._now_ms = now_ms
        self._waiting += records
        if self._refitted_ms and now_ms < self._refitted_ms + self._refit_ms:
            return
        self._refitted_ms = now_ms
        waiting, self._waiting = self._waiting, []
        for kind, topic in (("item", self.core.names.catalogue), ("event", self.core.names.behaviour)):
            of_kind = [record for record in waiting if record.kind == kind]
            for first in range(0, len(of_kind), CHUNK):
                self.core.apply([self._run(topic, of_kind[first : first + CHUNK])])
        while self.core.publisher.publish_chunk(self.core.sequence, interval_ms=0):
            pass
        unknown = np.flatnonzero(self.snapshot < 0)
        if len(unknown):  # as the gateway does for who has no list
            slots, _ = self.core.model.popular(self.items.shape[1], self.core.unavailable())
            numbers = [int(name[2:]) for name in self.core.model.items.texts_at(slots).to_list()]
            self.items[unknown, : len(numbers)] = numbers

    def _run(self, topic: str, records: Sequence[Record]) -> RecordRun:
        first = self._offsets[topic]
        self._offsets[topic] = following = first + len(records)
        return RecordRun(
            topic=topic,
            partition=0,
            keys=[record.key for record in records],
            values=[record.value for record in records],
            offsets=np.arange(first, following, dtype=np.int64),
            timestamps_ms=np.full(len(records), self._now_ms, dtype=np.int64),
            next_offset=following,
            first=first,
        )


class _ListSink:
    """Puts snapshots in the lists; there is no broker."""

    def __init__(self, lists: Lists) -> None:
        self._lists = lists

    def send(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        delivered: Delivered,
        *,
        partition: int | None = None,
        headers: Sequence[Headers] | None = None,
    ) -> None:
        """Take snapshots; a dead letter would be a mistake of the simulation."""
        if headers is not None:
            raise AssertionError(f"the worker buried an event: {headers[0]}")
        for key, value in zip(keys, values, strict=True):
            if key is not None:
                self._lists.put(key, None if value is None else _DECODER.decode(value))
        delivered(len(keys), 0)

    def poll(self) -> None:
        """Nothing waits."""

    def flush(self, timeout_s: float) -> int:
        """Nothing waits."""
        return 0
