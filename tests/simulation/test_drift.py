"""Viewers who turn away from their lists: found live, noted in the journal, and made again from it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from learners.adaptation import SPAN_MS
from schemas.codec import encode_event, encode_item
from schemas.records import Event, EventType, Item
from schemas.settings import KafkaSettings, LearnerSettings, RankerSettings, Settings, WorkerSettings
from schemas.topics import topic_names
from serving.metrics import WorkerMetrics
from streams.audit import audit, digests_of
from streams.checkpoint.epochs import Tenure, claim
from streams.checkpoint.history import History
from streams.checkpoint.owners import Owner
from streams.core import WorkerCore
from streams.cut import restore
from streams.keeper import Keeper
from streams.log_reader import Place
from streams.recovery import refold, starts_of
from streams.sinks import Delivered, Headers
from tests.simulation.world import START_MS, Inline, Log, MemoryLog, run_of_records
from tests.stores import FaultyStore

USERS = [f"u{i}" for i in range(16)]
N_ITEMS = 60
PLEASED_ROUNDS, ANNOYED_ROUNDS = 40, 25
BASE = Settings(
    kafka=KafkaSettings(partitions=1),
    worker=WorkerSettings(refresh_interval_ms=0, future_skew_ms=3_600_000),
    learner=LearnerSettings(
        embeddings=False,
        dim=8,
        history=8,
        seen=8,
        device="cpu",
        transition_width=8,
        drift_delta=0.01,
        adapt_to_drift=True,
    ),
    ranker=RankerSettings(list_size=10),
)
NAMES = topic_names(BASE.kafka.prefix)
BEHAVIOUR, CATALOGUE = (NAMES.behaviour, 0), (NAMES.catalogue, 0)


class Show:
    """Log, store, time and viewers: what outlives a worker. It is the worker's sink too."""

    def __init__(self) -> None:
        self.log: Log = {BEHAVIOUR: [], CATALOGUE: []}
        self.store = FaultyStore()
        self.now_s = START_MS / 1000
        self.listed: dict[str, list[str]] = {}
        for i in range(N_ITEMS):
            item = Item(item_id=f"v{i}", tags=[f"t{i % 3}"])
            self.log[CATALOGUE].append((i, item.item_id.encode(), encode_item(item)))

    def clock(self) -> float:
        return self.now_s

    def act(self, user: str, item: str, kind: EventType) -> None:
        offset = len(self.log[BEHAVIOUR])
        event = Event(
            event_id=f"e{offset}",
            user_id=user,
            item_id=item,
            type=kind,
            surface="short_video",
            ts_ms=round(self.now_s * 1000),
        )
        self.log[BEHAVIOUR].append((offset, user.encode(), encode_event(event)))

    def view(self, n: int, *, pleased: bool) -> None:
        """Everybody sees the n-th item of the list there is, and watches it or not; at first, any item."""
        self.now_s += 2.0
        for i, user in enumerate(USERS):
            items = self.listed.get(user, [])
            item = items[n % len(items)] if len(items) > 5 else f"v{(3 * i + n) % N_ITEMS}"
            self.act(user, item, "impression")
            if pleased:
                self.act(user, item, "watch")

    # -- sink -----------------------------------------------------------------------------------

    def send(
        self, topic: str, keys: Sequence[bytes | None], values: Sequence[bytes | None], delivered: Delivered,
        *, partition: int | None = None, headers: Sequence[Headers] | None = None,
    ) -> None:  # fmt: skip
        assert topic == NAMES.recommendations
        for key, value in zip(keys, values, strict=True):
            assert key is not None
            assert value is not None
            self.listed[key.decode()] = [place["item_id"] for place in json.loads(value)["items"]]
        delivered(len(keys), 0)

    def poll(self) -> None:
        pass

    def flush(self, timeout_s: float) -> int:
        return 0


class Life:
    """One life of a worker: recovered, then live."""

    def __init__(self, show: Show, settings: Settings, number: int) -> None:
        self.show = show
        owner = Owner(host=f"host-{number}", pid=number, started="", role="worker")
        self.tenure: Tenure = claim(show.store, owner=owner, take_over=True, now_s=show.clock)
        self.core = WorkerCore(settings, show, WorkerMetrics(CollectorRegistry()), clock=show.clock)
        if self.tenure.base is not None:
            restore(self.core, self.tenure.base.sequence, self.tenure.base.meta, self.tenure.base.units)
        entries = list(self.tenure.tail())
        self.kinds = [entry.kind for entry in entries]
        reader = MemoryLog(show.log)
        reader.start(starts_of(entries))
        refold(self.core, entries, reader)
        self.keeper = Keeper(
            self.tenure, interval_s=20.0, kept=2, metrics=self.core.metrics,
            on_failure=lambda error: pytest.fail(repr(error)), monotonic=show.clock, writer=Inline(),
        )  # fmt: skip
        self.core.keep(self.keeper, self.tenure.epoch)
        for place in (CATALOGUE, BEHAVIOUR):
            position = self.core.position(*place) or 0
            self.core.assign(*place, start=position, committed=None, end=position)

    def read(self, place: Place) -> None:
        position, end = self.core.position(*place) or 0, len(self.show.log[place])
        if end > position:
            self.core.apply([run_of_records(place, self.show.log[place][position:end], end)])

    def round(self, n: int, *, pleased: bool, keep: bool) -> None:
        self.show.view(n, pleased=pleased)
        self.read(BEHAVIOUR)
        if keep:
            self.core.tick()
        else:
            while self.core.publisher.publish_chunk(self.core.sequence, interval_ms=0):
                pass

    def n_drifts(self) -> float:
        counter = self.core.metrics.drifts
        return sum(s.value for m in counter.collect() for s in m.samples if s.name.endswith("_total"))


def settings_of(*, embeddings: bool, delta: float = BASE.learner.drift_delta) -> Settings:
    learner = msgspec.structs.replace(BASE.learner, embeddings=embeddings, drift_delta=delta)
    return msgspec.structs.replace(BASE, learner=learner)


@pytest.mark.parametrize("embeddings", [False, True])
def test_a_drift_in_the_journal_is_adapted_to_again_in_the_same_place(embeddings: bool) -> None:
    settings = settings_of(embeddings=embeddings)
    show = Show()
    life = Life(show, settings, 1)
    life.read(CATALOGUE)
    for n in range(PLEASED_ROUNDS):
        life.round(n, pleased=True, keep=True)
    assert life.n_drifts() == 0
    assert not life.core.model.adaptation.is_on
    for n in range(ANNOYED_ROUNDS):  # no checkpoint from here on: the drift is in the tail
        life.round(n, pleased=False, keep=False)
    assert life.n_drifts() == 1
    assert life.core.model.adaptation.is_on
    assert life.core.drifted == "short_video"
    life.tenure.journal.wait_durable(life.core.sequence)
    wanted = digests_of(life.core)

    heir = Life(show, settings, 2)
    assert heir.tenure.base is not None
    assert heir.kinds.count("drift") == 1
    assert digests_of(heir.core) == wanted
    assert heir.core.drifted == "short_video"

    for n in range(4):  # now a checkpoint holds the adaptation, and ends the tail
        heir.round(n, pleased=True, keep=True)
        show.now_s += 20.0
    third = Life(show, settings, 3)
    assert "drift" not in third.kinds
    assert third.core.model.adaptation.is_on
    assert digests_of(third.core) == digests_of(heir.core)

    report = audit(History(show.store), settings, MemoryLog(show.log))
    assert report.problems == []


def test_without_its_entry_the_state_would_be_another() -> None:
    """The entry is what makes the digests above agree, not an adaptation that changes nothing."""
    with_it, without = (Life(Show(), settings_of(embeddings=False, delta=d), 1) for d in (0.01, 0.0))
    for life in (with_it, without):
        life.read(CATALOGUE)
        for n in range(PLEASED_ROUNDS):
            life.round(n, pleased=True, keep=False)
    assert with_it.core.model.digest() == without.core.model.digest()
    for life in (with_it, without):
        for n in range(ANNOYED_ROUNDS):
            life.round(n, pleased=False, keep=False)
    assert with_it.core.model.digest() != without.core.model.digest()
    assert without.core.watch is None


def test_adapting_ends_with_event_time() -> None:
    life = Life(Show(), settings_of(embeddings=False), 1)
    life.read(CATALOGUE)
    for n in range(PLEASED_ROUNDS + ANNOYED_ROUNDS):
        life.round(n, pleased=n < PLEASED_ROUNDS, keep=False)
    until_ms = life.core.model.adaptation.until_ms
    assert 0 < until_ms - life.show.now_s * 1000 <= SPAN_MS
    life.show.now_s = until_ms / 1000 - 2.5
    life.round(0, pleased=True, keep=False)
    assert life.core.model.adaptation.is_on
    life.round(1, pleased=True, keep=False)
    assert not life.core.model.adaptation.is_on
