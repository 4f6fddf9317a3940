"""Users and items that make up most of what arrives."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from learners.heavy_hitters import EPSILON, HeavyKeys
from schemas.codec import encode_event
from schemas.records import Event
from schemas.runs import RecordRun
from schemas.settings import Settings
from serving.metrics import WorkerMetrics
from streams.answers import Answers
from streams.core import WorkerCore
from streams.heavy import LEAST, SAMPLE
from tests.simulation.world import SETTINGS, START_MS
from tests.unit.test_publisher import Recorder

WINDOW = 4_096


def with_heavy(rng: np.random.Generator, n: int, shares: dict[int, float]) -> np.ndarray:
    """Keys, all but the heavy ones new each time."""
    keys = np.arange(1_000, 1_000 + n) + int(rng.integers(1 << 40))
    u = rng.random(n)
    for key, share in shares.items():
        keys[(u >= 0) & (u < share)] = key
        u -= share
    return keys


def test_shares_are_those_of_the_stream_and_memory_is_bounded() -> None:
    rng = np.random.default_rng(0)
    counted, exact = HeavyKeys(WINDOW), {1: 0, 2: 0}
    for _ in range(12):  # ends where two windows are full
        keys = with_heavy(rng, WINDOW, {1: 0.1, 2: 0.02})
        exact = {key: int((keys == key).sum()) + exact[key] for key in exact}
        counted.update(keys)
        assert len(counted.top(10**9)) < 2 / EPSILON
    assert [key for key, _ in counted.top(2)] == [1, 2]
    for key, n in exact.items():
        share = n / (12 * WINDOW)
        assert share - EPSILON - 0.02 < counted.share(key) < share + 0.02
    assert counted.share(99) == 0.0


def test_a_count_is_too_low_by_at_most_epsilon_and_never_too_high() -> None:
    rng = np.random.default_rng(1)
    keys = np.minimum(rng.zipf(1.3, size=WINDOW), 10**6)
    counted = HeavyKeys(2 * WINDOW)
    counted.update(keys)
    for key in range(1, 50):
        exact = float((keys == key).mean())
        assert exact - EPSILON <= counted.share(key) <= exact


def test_what_has_stopped_is_forgotten_and_what_goes_on_is_not() -> None:
    rng = np.random.default_rng(2)
    counted = HeavyKeys(WINDOW)
    for i in range(300):  # far beyond where river's own forgetting would drop key 1
        counted.update(with_heavy(rng, 512, {1: 0.5, 2: 0.3 if i < 40 else 0.0}))
        assert counted.share(1) > 0.4
        assert (counted.share(2) > 0.2) == (i < 40) or 40 <= i < 56
    assert counted.share(2) == 0.0


def core_of(settings: Settings = SETTINGS) -> WorkerCore:
    core = WorkerCore(settings, Recorder(), WorkerMetrics(CollectorRegistry()), clock=lambda: START_MS / 1000)
    for partition in range(settings.kafka.partitions):
        core.assign(core.names.behaviour, partition, start=0, committed=None, end=0)
        core.assign(core.names.catalogue, partition, start=0, committed=None, end=0)
    return core


def feed(core: WorkerCore, users: list[str], *, repeats: bool = False) -> None:
    """One batch: an event of each user on an item of their own; `repeats` sends one and the same event."""
    partition = 0
    first = core.position(core.names.behaviour, partition) or 0
    n = len(users)
    core.apply(
        [
            RecordRun(
                topic=core.names.behaviour,
                partition=partition,
                keys=[user.encode() for user in users],
                values=[
                    encode_event(
                        Event(
                            event_id=f"{user}-{0 if repeats else first + i}",
                            user_id=user,
                            item_id="hit" if user == "bot" else f"v{(first + i) % 500}",
                            type="watch",
                            ts_ms=START_MS,
                        )
                    )
                    for i, user in enumerate(users)
                ],
                offsets=np.arange(first, first + n),
                timestamps_ms=np.full(n, START_MS),
                next_offset=first + n,
            )
        ]
    )


ONE_PARTITION = msgspec.structs.replace(SETTINGS, kafka=msgspec.structs.replace(SETTINGS.kafka, partitions=1))


@pytest.mark.parametrize("size", [SAMPLE // 2, 5 * SAMPLE])
def test_a_bot_is_told_once_and_named_in_the_statistics(size: int) -> None:
    core = core_of(ONE_PARTITION)
    answers = Answers(core)
    with capture_logs() as logs:
        for i in range(3 * LEAST // min(size, SAMPLE)):
            feed(core, ["bot" if j % 2 else f"u{i}.{j}" for j in range(size)])
    told = [line for line in logs if line["event"] == "heavy_user"]
    assert [(line["user"], line["log_level"]) for line in told] == [("bot", "warning")]
    assert told[0]["share"] == pytest.approx(0.5, abs=0.05)
    stats = answers.stats()
    assert next(iter(stats["heavy_users"])) == "bot"
    assert next(iter(stats["heavy_items"])) == "hit"
    assert stats["heavy_users"]["bot"] == pytest.approx(0.5, abs=0.05)
    answers.refresh_gauges()
    shown = answers.registry.get_sample_value("reelflow_heaviest_user_ratio")
    assert shown == pytest.approx(0.5, abs=0.05)


def test_a_bot_that_comes_back_is_told_again() -> None:
    core = core_of(ONE_PARTITION)
    told = []
    for n_batches, of_bot in ((40, 8), (600, 0), (600, 16)):  # of 20 000 it then has sent few
        with capture_logs() as logs:
            for i in range(n_batches):
                feed(core, ["bot"] * of_bot + [f"u{i % 97}.{j}" for j in range(SAMPLE - of_bot)])
        told.append(sum(line["event"] == "heavy_user" for line in logs))
    assert told == [1, 0, 1]


def test_a_client_that_repeats_itself_is_counted_though_it_teaches_nothing() -> None:
    core = core_of(ONE_PARTITION)
    for i in range(10):
        feed(core, [f"u{i}.{j}" for j in range(10)])
        feed(core, ["bot"] * 10, repeats=True)
    assert core.held.counts().duplicates > 80
    assert dict(core.heavy.users())["bot"] == pytest.approx(0.5, abs=0.02)


def test_nobody_is_told_when_it_is_off_and_nothing_learned_depends_on_it() -> None:
    digests = []
    for share in (0.0, 0.2):
        worker = msgspec.structs.replace(ONE_PARTITION.worker, heavy_user_share=share)
        core = core_of(msgspec.structs.replace(ONE_PARTITION, worker=worker))
        with capture_logs() as logs:
            for i in range(2 * LEAST // SAMPLE):
                feed(core, ["bot" if j % 2 else f"u{i}.{j}" for j in range(SAMPLE)])
        assert any(line["event"] == "heavy_user" for line in logs) == (share > 0)
        digests.append(core.model.digest())
    assert digests[0] == digests[1]
