"""The probability learner on a worker's batches: what is asked, likes, sampling, memory."""

from __future__ import annotations

import numpy as np
import pytest

from learners.probability import ProbabilityOptions
from learners.probability_items import ItemProbability
from schemas.errors import StateError
from schemas.learner import Interactions
from schemas.records import EVENT_TYPES
from schemas.runs import Int8, Int32

N_USERS, N_ITEMS = 30, 60
MINUTE_MS = 60_000
START_MS = 1_700_000_000_000


def small(**options: float) -> ItemProbability:
    learner = ItemProbability(
        ProbabilityOptions(table_bits=14, factor_bits=10, max_users=64, hidden=False),
        window_ms=5 * MINUTE_MS,
        capacity=256,
        **options,  # type: ignore[arg-type]
    )
    for item in range(N_ITEMS):
        learner.set_item(item, creator=item % 3, tag=item % 3, duration_ms=20_000, surface=0)
    return learner


def stream(n: int, seed: int = 0) -> Interactions:
    """Showings: users watch items of tag 1 and like some of them, skip those of tag 2, like nothing else."""
    random = np.random.default_rng(seed)
    rows: list[tuple[int, int, str, int, float]] = []
    for i in range(n):
        user, item, ts_ms = int(random.integers(N_USERS)), int(random.integers(N_ITEMS)), START_MS + 5_000 * i
        watches = random.random() < (0.2, 0.9, 0.1)[item % 3]
        rows.append((user, item, "impression", ts_ms, 0.0))
        if watches:
            rows.append((user, item, "watch", ts_ms + 1_000, 1.0 if random.random() < 0.7 else 0.4))
            if item % 3 == 1 and random.random() < 0.5:
                rows.append((user, item, "like", ts_ms + 2_000, 1.5))
    return batch_of(rows)


def batch_of(rows: list[tuple[int, int, str, int, float]]) -> Interactions:
    users, items, kinds, ts_ms, weights = zip(*rows, strict=True)
    n = len(rows)
    return Interactions(
        users=np.array(users, dtype=np.int32),
        items=np.array(items, dtype=np.int32),
        types=np.array([EVENT_TYPES.index(kind) for kind in kinds], dtype=np.int8),
        ts_ms=np.array(ts_ms, dtype=np.int64),
        weight=np.array(weights, dtype=np.float32),
        history=np.full((n, 8), -1, dtype=np.int32),
        fresh=np.zeros(n, dtype=np.bool_),
        gap_ms=np.full(n, -1, dtype=np.int64),
    )


def everyone(items: Int32) -> tuple[Int32, Int32]:
    return np.repeat(np.arange(N_USERS, dtype=np.int32), len(items)), np.tile(items, N_USERS)


@pytest.fixture(scope="module")
def taught() -> ItemProbability:
    learner = small()
    learner.learn_many(stream(3_000))
    return learner


def test_probabilities_are_those_of_the_stream(taught: ItemProbability) -> None:
    now_ms = taught.clock_ms
    rates = []
    for tag, click, like in ((0, 0.2, 0.0), (1, 0.9, 0.45), (2, 0.1, 0.0)):
        users, items = everyone(np.arange(tag, N_ITEMS, 3, dtype=np.int32))
        found = taught.scores(users, items, now_ms)
        assert found.click.mean() == pytest.approx(click, abs=0.07)
        assert found.long.mean() == pytest.approx(0.7 * click, abs=0.07)
        assert found.like.mean() == pytest.approx(like, abs=0.07)
        rates.append(found.ranking.mean())
    assert rates[1] > rates[0] > rates[2]


def test_asking_changes_nothing_and_order_does_not_matter(taught: ItemProbability) -> None:
    before = taught.digest()
    users, items = everyone(np.arange(6, dtype=np.int32))
    whole = taught.scores(users, items, taught.clock_ms)
    back = taught.scores(users[::-1].copy(), items[::-1].copy(), taught.clock_ms)
    np.testing.assert_array_equal(whole.like, back.like[::-1])
    np.testing.assert_array_equal(whole.click, back.click[::-1])
    assert taught.digest() == before


def test_who_and_what_was_never_met_is_as_all_are(taught: ItemProbability) -> None:
    nobody, nothing = np.array([-1, 63], np.int32), np.array([-1, 50_000], np.int32)
    found = taught.scores(nobody, nothing, taught.clock_ms)
    for p in (found.click, found.long, found.like):
        assert ((p > 0) & (p < 1)).all()
        assert p[0] == pytest.approx(p[1], abs=0.02)  # rows of the factorisation begin at random
    assert 0.1 < found.click[0] < 0.8


def test_a_like_counts_before_its_exposure_closes() -> None:
    learner = small()
    learner.learn_many(stream(300))
    user, item = np.array([3], np.int32), np.array([31], np.int32)
    now_ms = learner.clock_ms
    learner.learn_many(batch_of([(3, 31, "watch", now_ms, 1.0)]))
    before = learner.scores(user, item, now_ms).like[0]
    learner.learn_many(batch_of([(3, 31, "like", now_ms + 1, 1.5)]))
    assert learner.scores(user, item, now_ms).like[0] > before


def test_the_surface_asked_for_is_used_else_the_items_own(taught: ItemProbability) -> None:
    users, items = np.array([1, 1, 1], np.int32), np.array([4, 4, 4], np.int32)
    surfaces: Int8 = np.array([-1, 0, 3], dtype=np.int8)
    found = taught.scores(users, items, taught.clock_ms, surfaces).click
    assert found[0] == found[1]
    assert found[2] != found[0]


def test_the_surface_of_an_event_is_learned() -> None:
    on_live, plain = small(), small()
    rows = stream(200)
    plain.learn_many(rows)
    rows.surfaces = np.full(len(rows), 3, dtype=np.int8)
    on_live.learn_many(rows)
    assert on_live.digest() != plain.digest()


def test_of_a_large_batch_a_sample_is_learned() -> None:
    learner = small()
    batch = stream(1_000)
    n = learner.learn_some(batch, most=100)
    assert 30 <= n <= 100
    assert small().learn_some(batch, most=len(batch)) > 900


def test_a_rate_bounds_what_is_learned() -> None:
    """A showing every five seconds, and one a minute may be learned."""
    learner = small(rate=1.0 / 60.0)
    n = sum(learner.learn_some(part) for part in (stream(1_000, seed) for seed in range(2)))
    assert n < 600


def test_memory_grows_with_users_and_no_further() -> None:
    learner = small()
    learner.learn_many(batch_of([(5, 1, "watch", START_MS, 1.0)]))
    assert 6 <= len(learner.snapshot()["memory.counts"]) <= 64
    learner.learn_many(batch_of([(1_000, 1, "watch", START_MS + 1, 1.0)]))
    assert len(learner.snapshot()["memory.counts"]) == 64
    assert np.isfinite(
        learner.scores(np.array([1_000], np.int32), np.array([1], np.int32), START_MS).click
    ).all()


def test_open_exposures_survive_a_restore() -> None:
    """A like after the restore belongs to what was shown before it."""
    learner, other = small(), small()
    batch = stream(400)
    learner.learn_many(batch)
    other.restore(learner.snapshot())
    assert other.digest() == learner.digest()
    now_ms = learner.clock_ms
    for each in (learner, other):
        each.learn_many(batch_of([(2, 1, "watch", now_ms, 1.0)]))
        each.learn_many(stream(100, seed=9))
    assert other.digest() == learner.digest()


def test_a_state_of_another_plan_is_refused() -> None:
    state = small().snapshot()
    other = ItemProbability(
        ProbabilityOptions(table_bits=14, factor_bits=10, max_users=64, hidden=False), capacity=512
    )
    with pytest.raises(StateError, match="exposures"):
        other.restore(state)
    state["memory.counts"] = np.zeros(3, dtype=np.int64)
    with pytest.raises(StateError, match="memory"):
        small().restore(state)


def test_a_capacity_that_is_no_power_of_two_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        ItemProbability(capacity=100)
