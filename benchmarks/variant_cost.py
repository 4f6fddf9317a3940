"""What variants of lists and heavy hitters cost a worker: microseconds a list, a reward, a batch."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from prometheus_client import CollectorRegistry

from learners.acceptance import Rewards
from schemas.learner import Contexts, Interactions
from schemas.records import EVENT_TYPES
from schemas.settings import LearnerSettings, OrderSettings, RankerSettings, Settings, VariantSettings
from serving.metrics import WorkerMetrics
from streams.heavy import SAMPLE, HeavyWatch
from streams.model import Model
from streams.partition import Holdings
from streams.variants import VariantChoice
from streams.ways import make_lists, ways_of
from tests.learner_data import event_batch, random_rows

CHUNK = 512
N_ITEMS = 5_000
N_BATCHES = 200
REPEATS = 12
WATCH = EVENT_TYPES.index("watch")


def settings_of(*clicks: float) -> Settings:
    """A way for each weight of the click in the order; without one, the next item alone."""
    weights = [OrderSettings(click=click) for click in clicks] or [OrderSettings()]
    ways = {f"w{i}": VariantSettings(order_weights=order) for i, order in enumerate(weights)}
    return Settings(
        learner=LearnerSettings(embeddings=False, probabilities=bool(clicks), probability_bits=14),
        ranker=RankerSettings(order_weights=weights[0], variants=ways if len(ways) > 1 else {}),
    )


def model_of(settings: Settings) -> Model:
    """That has learned some thousand watches."""
    model, random = Model(settings.learner, settings.ranker), np.random.default_rng(0)
    n = 8_192
    for i in range(N_ITEMS):
        model.items.get(f"v{i}")
    items = (random.zipf(1.3, n) % N_ITEMS).astype(np.int32)
    history = (random.zipf(1.3, (n, 8)) % N_ITEMS).astype(np.int32)
    batch = Interactions(
        users=random.integers(0, 2_000, n).astype(np.int32),
        items=items,
        types=np.full(n, WATCH, dtype=np.int8),
        ts_ms=1_700_000_000_000 + np.arange(n, dtype=np.int64),
        weight=np.ones(n, dtype=np.float32),
        history=history,
        fresh=np.ones(n, dtype=np.bool_),
        gap_ms=np.full(n, 1_000, dtype=np.int64),
    )
    model.learn(batch, np.zeros(0, dtype=np.bool_), reports=False)
    return model


def least_us(call: Callable[[], object], n: int) -> float:
    """Processor microseconds of the quickest of some calls, a piece of `n`."""
    call()
    spent = []
    for _ in range(REPEATS):
        began = time.thread_time()
        call()
        spent.append(time.thread_time() - began)
    return min(spent) / n * 1e6


def lists_us(*clicks: float) -> float:
    """A list of a full chunk, its ways in equal shares."""
    settings = settings_of(*clicks)
    model, ways = model_of(settings), ways_of(settings.learner, settings.ranker)
    random = np.random.default_rng(1)
    contexts = Contexts(
        users=random.integers(0, 2_000, CHUNK).astype(np.int32),
        history=(random.zipf(1.3, (CHUNK, 50)) % N_ITEMS).astype(np.int32),
        now_ms=1_700_000_100_000,
    )
    seen, none = np.full((CHUNK, 128), -1, dtype=np.int32), np.zeros(0, dtype=np.bool_)
    chosen = random.integers(0, len(ways), CHUNK).astype(np.int8) if len(ways) > 1 else None
    return least_us(lambda: make_lists(model, ways, chosen, contexts, seen, none, 20), CHUNK)


def main() -> None:
    """Print a line for each."""
    print(f"{lists_us():7.1f} us a list, the next item alone")
    print(f"{lists_us(1.0):7.1f} us a list, all in a mixed order")
    print(f"{lists_us(0.0, 1.0):7.1f} us a list, half of them in a mixed order")
    settings = settings_of(0.0, 1.0, 2.0, 3.0)
    choice = VariantChoice(
        settings, ways_of(settings.learner, settings.ranker), WorkerMetrics(CollectorRegistry())
    )
    partitions, offsets = np.zeros(CHUNK, dtype=np.int32), np.arange(CHUNK, dtype=np.int64)
    print(
        f"{least_us(lambda: choice.choose(partitions, offsets), CHUNK):7.3f} us a list to choose, 4 variants"
    )
    random = np.random.default_rng(2)
    ended = Rewards(
        np.zeros(64, dtype=np.int8),
        random.random(64).astype(np.float32),
        random.integers(0, 4, 64).astype(np.int8),
    )

    def rewarded() -> None:
        for _ in range(N_BATCHES):
            choice.take(ended)

    spent_us = least_us(rewarded, N_BATCHES * len(ended.values))
    print(f"{spent_us:7.2f} us a reward in batches of 64, 4 variants")
    held = Holdings(settings)
    part = held.begin(0, 0)
    for i in range(20_000):
        part.state.users.get(f"u{i}")
    batches = [event_batch(random_rows(seed, 256, n_users=20_000, n_items=N_ITEMS)) for seed in range(20)]
    heavy = HeavyWatch(0.0, held.partitions, model_of(settings).items)

    def counted() -> None:
        for batch in batches:
            heavy.take([batch])

    spent_us = least_us(counted, len(batches))
    print(f"{spent_us:7.1f} us a batch to count {SAMPLE} users and items")


if __name__ == "__main__":
    main()
