"""Probabilities as part of a worker: on by a setting, in its state, asked over its answers."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest

from schemas.errors import StateError
from schemas.records import EVENT_TYPES, SURFACES
from schemas.settings import LearnerSettings, Settings
from serving.gateway_models import Probabilities, ScoreRequest
from streams.answers import Answers
from streams.core import WorkerCore
from streams.cut import capture, check_settings, restore
from streams.warm_up import NullSink
from tests.simulation.world import METRICS, NAMES, PARTITIONS, SETTINGS, log_of, run_of_records

ON = msgspec.structs.replace(
    SETTINGS, learner=msgspec.structs.replace(SETTINGS.learner, probabilities=True, probability_bits=10)
)


def core_of(settings: Settings = ON) -> WorkerCore:
    core = WorkerCore(settings, NullSink(), METRICS, clock=lambda: 1_900_000_000.0)
    for topic in (NAMES.catalogue, NAMES.behaviour):
        for partition in range(PARTITIONS):
            core.assign(topic, partition, start=0, committed=None, end=0)
    return core


def feed(core: WorkerCore, number: int, first: int = 0, last: int | None = None) -> None:
    """Records `first` .. `last` - 1 of every partition of a log, five of each at a time."""
    log, _ = log_of(number)
    for place, records in log.items():
        for start in range(first, len(records) if last is None else min(last, len(records)), 5):
            part = records[start : min(start + 5, last or len(records))]
            core.apply([run_of_records(place, part, part[-1][0] + 1)])


def test_they_are_off_unless_asked_for_and_then_cost_nothing() -> None:
    core = core_of(SETTINGS)
    feed(core, 1)
    assert LearnerSettings().probabilities is False
    assert core.model.probability is None
    assert Answers(core).score("u1", ScoreRequest(items=["v1"])) is None
    assert not any(name.startswith("probability.") for name in core.model.capture()())


def test_a_restored_state_is_the_same_and_goes_on_the_same() -> None:
    one, other = core_of(), core_of()
    feed(one, 2, 0, 20)
    captured = capture(one)
    cut = captured.cut()
    restored = WorkerCore(ON, NullSink(), METRICS, clock=lambda: 1_900_000_000.0)
    restore(restored, cut.sequence, cut.meta, cut.units)
    feed(other, 2, 0, 20)
    other.settle()
    for core in (one, other, restored):
        feed(core, 2, 20)
    assert one.model.digest() == other.model.digest() == restored.model.digest()
    assert one.model.probability is not None
    assert one.model.probability.clock_ms > 0


def test_what_is_answered_is_what_the_learner_says() -> None:
    core = core_of()
    feed(core, 3)
    model = core.model
    assert model.probability is not None
    before = model.digest()
    asked = ScoreRequest(items=["v1", "v2", "never seen"], surface="tv")
    told = Answers(core).score("u3", asked)
    found = msgspec.convert(told, Probabilities)
    users = [part.model_user("u3") for part in core.partitions.values()]
    user = max(users)
    assert found.known
    assert user == model.users.find("u3")
    items = np.array([model.items.find("v1"), model.items.find("v2"), -1], dtype=np.int32)
    mine = model.probability.scores(
        np.full(3, user, dtype=np.int32),
        items,
        model.probability.clock_ms,  # the log is old: its own time counts
        np.full(3, SURFACES.index("tv"), dtype=np.int8),
    )
    np.testing.assert_allclose([item.p_click for item in found.items], mine.click, atol=1e-6)
    np.testing.assert_allclose([item.p_completion for item in found.items], mine.long, atol=1e-6)
    np.testing.assert_allclose([item.p_like for item in found.items], mine.like, atol=1e-6)
    np.testing.assert_allclose([item.ranking for item in found.items], mine.ranking, atol=1e-6)
    assert [item.item_id for item in found.items] == asked.items
    assert [item.known for item in found.items] == [True, True, False]
    stranger = msgspec.convert(Answers(core).score("nobody", asked), Probabilities)
    assert not stranger.known
    assert all(0 < item.p_click < 1 for item in stranger.items)
    assert model.digest() == before


def test_a_state_without_them_is_gone_on_from() -> None:
    """Turned on, they begin with nothing but the catalogue; turned off, they are forgotten."""
    off = core_of(SETTINGS)
    feed(off, 4, 0, 20)
    cut = capture(off).cut()
    on = WorkerCore(ON, NullSink(), METRICS)
    restore(on, cut.sequence, cut.meta, cut.units)
    assert on.model.probability is not None
    attributes = on.model.probability.snapshot()["items.attributes"].astype(np.int32)
    assert (attributes[:, 1] >= 0).any()  # tags of what the catalogue named
    feed(on, 4, 20)
    assert on.model.probability.clock_ms > 0
    cut = capture(on).cut()
    back = WorkerCore(SETTINGS, NullSink(), METRICS)
    restore(back, cut.sequence, cut.meta, cut.units)
    assert back.model.probability is None
    larger = msgspec.structs.replace(ON, learner=msgspec.structs.replace(ON.learner, probability_bits=11))
    with pytest.raises(StateError, match="probability_bits"):
        check_settings(cut.meta, larger)


def test_the_kinds_of_acts_are_those_that_attribution_knows() -> None:
    """A new event type must be given a meaning there."""
    assert EVENT_TYPES == (
        "impression", "watch", "like", "dislike", "skip", "comment", "share", "favourite", "follow", "gift",
        "join", "leave",
    )  # fmt: skip
