"""Lists made in several ways at once, chosen between by what becomes of them; through a worker's core."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from learners.negatives import mix64
from schemas.codec import encode_event, encode_item
from schemas.errors import ConfigurationError
from schemas.learner import Contexts
from schemas.records import Event, Item
from schemas.runs import RecordRun
from schemas.settings import LearnerSettings, RankerSettings, Settings, load_settings
from serving.metrics import WorkerMetrics
from streams.answers import Answers
from streams.core import WorkerCore
from streams.cut import settings_of_fold
from streams.model import Model
from streams.ranker import run_ranker
from streams.ways import make_lists, ways_of
from tests.simulation.world import START_MS
from tests.unit.test_model import batch_of
from tests.unit.test_model_probabilities import ON, core_of, feed
from tests.unit.test_publisher import Recorder

USERS = [f"u{i}" for i in range(24)]
N_ITEMS = 40


def ranker(text: str) -> RankerSettings:
    """Settings of the ranker from what stands in the file."""
    return load_settings({"REELFLOW_RANKER_VARIANTS": text}).ranker


TWO = ranker('{"plain": {}, "rooms": {"live_exploration": 5}}')


def settings_of(ranker: RankerSettings, **learner: Any) -> Settings:
    kept = msgspec.structs.replace(ranker, list_size=10, variant_memory=1_000)
    known = {"embeddings": False, "history": 8, "seen": 8, "transition_width": 8} | learner
    base = load_settings({"REELFLOW_KAFKA_PARTITIONS": "1", "REELFLOW_WORKER_REFRESH_INTERVAL_MS": "0"})
    return msgspec.structs.replace(base, ranker=kept, learner=LearnerSettings(**known))


class Show:
    """A worker's core and its viewers, who look at one item of their newest list after the other."""

    def __init__(self, settings: Settings) -> None:
        self.now_s = START_MS / 1000
        self.sink = Recorder()
        self.core = WorkerCore(
            settings, self.sink, WorkerMetrics(CollectorRegistry()), clock=lambda: self.now_s
        )
        self.answers = Answers(self.core)
        for topic in (self.core.names.behaviour, self.core.names.catalogue):
            self.core.assign(topic, 0, start=0, committed=None, end=0)
        self.runs: list[RecordRun] = []
        self.lists: dict[str, dict[str, Any]] = {}
        items = [(f"v{i}", encode_item(Item(item_id=f"v{i}", tags=["t"]))) for i in range(N_ITEMS)]
        self._apply(self.core.names.catalogue, items)

    def _apply(self, topic: str, records: list[tuple[str, bytes]]) -> None:
        first = self.core.position(topic, 0) or 0
        self.runs.append(
            RecordRun(
                topic=topic,
                partition=0,
                keys=[key.encode() for key, _ in records],
                values=[value for _, value in records],
                offsets=np.arange(first, first + len(records)),
                timestamps_ms=np.full(len(records), int(self.now_s * 1000)),
                next_offset=first + len(records),
            )
        )
        self.core.apply([self.runs[-1]])

    def round(self, n: int, likes: Callable[[str], float]) -> None:
        """Everybody sees an item and gets new lists; `likes` is by variant how often it is watched."""
        self.now_s += 2.0
        events: list[tuple[str, bytes]] = []
        first = self.core.position(self.core.names.behaviour, 0) or 0
        for i, user in enumerate(USERS):
            found = self.lists.get(user)
            item, p = f"v{(7 * i + n) % N_ITEMS}", 0.5
            if found is not None and len(found["items"]) > 3:
                item, p = found["items"][n % 4]["item_id"], likes(found["model"]["variant"])
            pleased = int(mix64(np.uint64(1_000 * n + i))) / 2**64 < p
            for kind in ("impression", "watch" if pleased else "skip"):
                event = Event(
                    event_id=f"e{first + len(events)}", user_id=user, item_id=item, type=kind,
                    surface="short_video", ts_ms=int(self.now_s * 1000),
                )  # fmt: skip
                events.append((user, encode_event(event)))
        if n % 2:  # impressions and what follows in one batch, or with new lists in between
            self._apply(self.core.names.behaviour, events)
        else:
            self._apply(self.core.names.behaviour, events[::2])
            self._publish()
            self._apply(self.core.names.behaviour, events[1::2])
        self._publish()

    def _publish(self) -> None:
        self.sink.snapshots.clear()
        self.core.tick()
        self.sink.poll()
        self.lists |= {found["user_id"]: found for found in self.sink.snapshots}

    def share(self, name: str) -> float:
        return float(self.answers.stats()["variants"][name]["share"])


def test_the_variant_whose_lists_are_liked_gets_the_users_until_it_is_not() -> None:
    show = Show(settings_of(TWO, seen=8))
    for n in range(120):
        show.round(n, lambda variant: 0.8 if variant == "rooms" else 0.4)
    assert show.share("rooms") > 0.8
    figures = show.answers.stats()["variants"]
    assert figures["rooms"]["reward"] == pytest.approx(0.8, abs=0.06)  # of its lists, not of the next ones
    assert figures["plain"]["reward"] == pytest.approx(0.4, abs=0.15)
    made = [found["model"]["variant"] for found in show.lists.values()]
    assert made.count("rooms") > made.count("plain")
    for n in range(120, 300):
        show.round(n, lambda variant: 0.4 if variant == "rooms" else 0.8)
    assert show.share("plain") > 0.8
    assert show.share("rooms") >= 0.05 - 1e-9
    show.answers.refresh_gauges()
    value = show.answers.registry.get_sample_value
    assert value("reelflow_variant_share_ratio", {"variant": "plain"}) == pytest.approx(
        show.share("plain"), abs=1e-3
    )
    assert value("reelflow_variant_reward_ratio", {"variant": "plain"}) == pytest.approx(0.8, abs=0.1)
    n_lists = [value("reelflow_variant_lists_total", {"variant": name}) for name in ("plain", "rooms")]
    assert sum(n or 0.0 for n in n_lists) == show.core.publisher.n_snapshots


def test_variants_are_no_part_of_what_is_learned_and_are_the_same_for_the_same_events() -> None:
    show = Show(settings_of(TWO))
    for n in range(30):
        show.round(n, lambda variant: 0.8 if variant == "rooms" else 0.4)
    plain, again = Show(settings_of(RankerSettings())), Show(settings_of(TWO))
    for other in (plain, again):
        other.now_s = show.now_s
        for run in show.runs[1:]:
            other.core.apply([run])
        other._publish()
    assert plain.core.model.digest() == again.core.model.digest() == show.core.model.digest()
    assert plain.core.variants is None
    assert plain.answers.stats()["variants"] == {}
    assert all("variant" not in found["model"] for found in plain.lists.values())
    assert {found["model"]["variant"] for found in again.lists.values()} == {"plain", "rooms"}
    third = Show(settings_of(TWO))
    third.now_s = show.now_s
    for run in show.runs[1:]:
        third.core.apply([run])
    third._publish()
    assert {user: found["model"] for user, found in third.lists.items()} == {
        user: found["model"] for user, found in again.lists.items()
    }


def test_lists_of_several_ways_are_those_of_each_way_alone() -> None:
    variants = (
        '{"next": {}, "click": {"order_weights": {"next_item": 0, "click": 1}},'
        ' "same": {"live_exploration": 2}, "like": {"order_weights": {"like": 2}}}'
    )
    settings = msgspec.structs.replace(ON, ranker=msgspec.structs.replace(ranker(variants), list_size=5))
    core = core_of(settings)
    feed(core, 5)
    n = 12
    history = np.full((n, 8), -1, dtype=np.int32)
    history[:, -1] = np.arange(n) % 7
    asked = Contexts(users=np.arange(n, dtype=np.int32) % 5, history=history, now_ms=1_900_000_000_000)
    seen, none = np.full((n, 8), -1, dtype=np.int32), np.zeros(0, dtype=np.bool_)
    ways = ways_of(settings.learner, settings.ranker)
    chosen = np.array([3, 0, 1, 2, 1, 0, 3, 3, 2, 1, 0, 2], dtype=np.int8)
    found = make_lists(core.model, ways, chosen, asked, seen, none, 5)
    orders = set()
    for number in range(4):
        alone = make_lists(core.model, ways, np.full(n, number, np.int8), asked, seen, none, 5)
        rows = chosen == number
        for name in ("items", "scores", "relevance", "sources", "reasons"):
            np.testing.assert_array_equal(getattr(found, name)[rows], getattr(alone, name)[rows])
        orders.add(alone.items.tobytes())
    assert len(orders) >= 2  # or there would be nothing to choose between
    usual = make_lists(core.model, ways, None, asked, seen, none, 5)
    np.testing.assert_array_equal(found.items[chosen == 0], usual.items[chosen == 0])


def test_the_weight_of_the_taste_is_that_of_the_way() -> None:
    learner = LearnerSettings(device="cpu", dim=8, history=8, seen=8, max_items=1_000, tastes=True)
    variants = ranker('{"next": {"taste_weight": 0}, "usual": {}, "ten": {"taste_weight": 10}}')
    ways = ways_of(learner, variants)
    assert [way.taste_weight for way in ways] == [0.0, None, 10.0]
    model, none = Model(learner, variants), np.zeros(0, np.bool_)
    for i in range(50):
        model.put_item(Item(item_id=f"v{i}", tags=[f"t{i % 3}"]))
    for seed in range(3):
        model.learn(batch_of(512, seed=seed), none)
    asked = batch_of(6, seed=9)
    contexts = Contexts(users=asked.users, history=asked.history, now_ms=START_MS)
    chosen = np.array([0, 1, 2, 2, 1, 0], dtype=np.int8)
    found = make_lists(model, ways, chosen, contexts, asked.history, none, 10)
    without, usual = (model.ranked(contexts, asked.history, none, weight).first(10) for weight in (0.0, None))
    assert (without.items != usual.items).any(axis=1).all()
    for row, way in enumerate(chosen):
        same = without if way == 0 else usual  # 10 is what is usual
        np.testing.assert_array_equal(found.items[row], same.items[row])
        np.testing.assert_allclose(found.scores[row], same.scores[row], rtol=1e-5)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('{"one": {}}', "ranker.variants"),
        ('{"a": {}, "b": {"order_weights": {"like": 1}}}', "ranker.variants.b.order_weights"),
        ('{"a": {}, "b": {"content_exploration": 0.1}}', "ranker.variants.b.content_exploration"),
        ('{"a": {"taste_weight": 2}, "b": {}}', "ranker.variants.a.taste_weight"),
    ],
)
def test_variants_for_what_is_not_learned_are_refused_at_the_start(text: str, named: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Model(LearnerSettings(embeddings=False), ranker(text))
    assert caught.value.setting == named


def test_a_mixed_variant_is_a_setting_of_the_fold_and_others_are_not() -> None:
    """The gate learns from longer lists where some are ordered by a mix."""
    mixed = ranker('{"a": {}, "b": {"order_weights": {"like": 1}}}')
    folds = [
        settings_of_fold(msgspec.structs.replace(ON, ranker=found))
        for found in (RankerSettings(), TWO, mixed)
    ]
    assert folds[0] == folds[1]
    assert folds[0]["ranker.order_weights"] is False
    assert folds[2] == folds[0] | {"ranker.order_weights": True}


def test_floors_must_have_room_and_a_separate_ranker_has_no_variants() -> None:
    with pytest.raises(ConfigurationError, match=r"ranker\.variant_floor"):
        Model(LearnerSettings(embeddings=False), msgspec.structs.replace(TWO, variant_floor=0.6))
    with pytest.raises(ConfigurationError, match=r"ranker\.variants: a separate ranker"):
        run_ranker(Settings(ranker=TWO))


@pytest.mark.parametrize(
    "text",
    [
        '{"a": {}, "b": {"exclude_seen": false}}',
        '{"a": {}, "b": {"content_exploration": 1.5}}',
        '{"a": {}, "b": {"order_weights": {"swipe": 1}}}',
        '{"a": {}, "B": {}}',
        '{"a": {}, "b": 3}',
        "[1]",
    ],
)
def test_settings_that_are_none_are_refused_by_name(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ranker(text)
    assert caught.value.setting.startswith("ranker.variants")


def test_without_variants_scipy_stays_on_the_disk() -> None:
    """river's bandits import it: seconds of every start."""
    code = "import sys, streams.core, streams.publisher; assert 'scipy.stats' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=300)
