"""What probabilities cost a worker: microseconds an event, an exposure learned, an item asked about."""

from __future__ import annotations

import time

import numpy as np

from learners.attribution import attribute, no_exposures, room_for
from learners.probability_items import ItemProbability
from schemas.learner import Interactions
from schemas.records import EVENT_TYPES
from schemas.settings import LearnerSettings
from streams.probabilities import build_probability

N_USERS, N_ITEMS = 5_000, 10_000
N_EVENTS = 40_000
N_ASKED = 4_000


def events(seed: int) -> Interactions:
    """Impressions every 2 ms of event time, half of them followed by a watch and some by a like."""
    random = np.random.default_rng(seed)
    n = N_EVENTS
    kinds = random.choice(["impression", "watch", "like"], n, p=[0.6, 0.36, 0.04])
    weights = {"impression": 0.0, "watch": 1.0, "like": 1.5}
    return Interactions(
        users=random.integers(0, N_USERS, n).astype(np.int32),
        items=(random.zipf(1.3, n) % N_ITEMS).astype(np.int32),
        types=np.array([EVENT_TYPES.index(kind) for kind in kinds], dtype=np.int8),
        ts_ms=1_700_000_000_000 + np.arange(n, dtype=np.int64) * 2 + seed * N_EVENTS * 2,
        weight=np.array([weights[kind] for kind in kinds], dtype=np.float32),
        history=np.full((n, 1), -1, dtype=np.int32),
        fresh=np.zeros(n, dtype=np.bool_),
        gap_ms=np.full(n, -1, dtype=np.int64),
    )


def new(rate: float) -> ItemProbability:
    """A learner with the default settings but for the rate, that knows the items."""
    learner = build_probability(LearnerSettings(probabilities_per_s=rate))
    for item in range(N_ITEMS):
        learner.set_item(item, creator=item % 500, tag=item % 40, duration_ms=20_000, surface=0)
    return learner


def main() -> None:
    """Print a line for each."""
    learner, batch = new(0.0), events(1)
    learner.learn_many(events(0))  # compiled, and warm
    began = time.thread_time()
    n = learner.learn_some(batch)
    print(f"{(time.thread_time() - began) / n * 1e6:6.1f} us an exposure learned, {n} of {N_EVENTS} events")
    learner.scores(batch.users[:8], batch.items[:8], learner.clock_ms)
    began = time.thread_time()
    learner.scores(batch.users[:N_ASKED], batch.items[:N_ASKED], learner.clock_ms)
    print(f"{(time.thread_time() - began) / N_ASKED * 1e6:6.1f} us an item asked about")
    exposures = no_exposures(1 << 16)
    told = room_for(exposures, N_EVENTS)
    columns = (batch.users, batch.items, batch.types, batch.ts_ms, batch.weight, batch.surfaces)
    attribute(*columns, 1_800_000, 0.0, 1.0, exposures, told)
    exposures = no_exposures(1 << 16)
    began = time.thread_time()
    attribute(*columns, 1_800_000, 500.0, 1.0, exposures, told)
    print(f"{(time.thread_time() - began) / N_EVENTS * 1e6:6.2f} us an event attributed")
    size = sum(array.nbytes for array in new(0.0).snapshot().values())
    print(f"{size / 1e6:6.1f} MB before the first user")


if __name__ == "__main__":
    main()
