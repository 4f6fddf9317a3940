"""What folding events into user state costs: time an event, of a cut, of growth, and memory of dedup.

Run as ``python -m benchmarks.user_state_cost``; the last line printed is one JSON object.
"""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from itertools import islice

import numpy as np

from learners.dedup import Dedup
from learners.user_state import PartitionState
from schemas.hashing import hash_texts
from schemas.records import EVENT_TYPES
from schemas.runs import EventBatch
from schemas.texts import texts_of

N = 4_096
USERS = 50_000
ITEMS = 20_000
RUNS = 150
COPIES = 5
WATCH = EVENT_TYPES.index("watch")


def batches(rng: np.random.Generator) -> Iterator[EventBatch]:
    """Runs of one partition whose users follow Zipf's law."""
    rank = rng.permutation(USERS)
    for number in range(RUNS + COPIES):
        offsets = np.arange(number * N, (number + 1) * N)
        ids = texts_of([f"event-{offset:010x}" for offset in offsets.tolist()])
        ts_ms = 1_650_000_000_000 + offsets * 10
        yield EventBatch(
            partition=0,
            next_offset=(number + 1) * N,
            rows=np.arange(N, dtype=np.int32),
            offsets=offsets,
            broker_ts_ms=ts_ms,
            event_ids=ids,
            event_hashes=hash_texts(ids, 7),
            users=rank[(rng.zipf(1.2, N) * 7919 + rng.integers(0, USERS // 2, N)) % USERS].astype(np.int32),
            items=(rng.zipf(1.3, N) % ITEMS).astype(np.int32),
            types=np.full(N, WATCH, dtype=np.int8),
            ts_ms=ts_ms,
            watch_ms=np.full(N, 12_000),
            duration_ms=np.full(N, 15_000),
            surfaces=np.full(N, -1, dtype=np.int8),
            autoplay=np.full(N, -1, dtype=np.int8),
            gift_values=np.full(N, -1),
            rejected=[],
        )


def dedup_figures(rng: np.random.Generator) -> dict[str, float]:
    """Memory of 5M events over 16 partitions, and the longest pause of one set on its way to a million."""
    from learners.dedup import _add_all  # as the fold adds them, but without a fold

    dedup, pause_s, n = Dedup(10_000_000), 0.0, 0
    for target in range(N, 1_000_000, N):
        started = time.perf_counter()
        dedup.reserve(N)
        pause_s = max(pause_s, time.perf_counter() - started)
        _add_all(rng.integers(1, 2**64 - 1, N, dtype=np.uint64), dedup.sets.first)
        dedup.sets.meta[2] = target
        n = max(n, dedup.nbytes // target)
    share = Dedup(1_000_000)
    share.sets.meta[2] = 5_000_000 // 16
    share.reserve(N)
    return {"dedup_16_partitions_mb": 16 * share.nbytes / 1e6, "dedup_pause_ms": pause_s * 1e3}


def main() -> None:
    rng = np.random.default_rng(0)
    state = PartitionState(
        0, n_partitions=1, dedup_window=1_000_000, lateness_ms=10**9, future_skew_ms=10**9,
        session_gap_ms=1_800_000,
    )  # fmt: skip
    state.users.get_many([f"user-{user}" for user in range(USERS)])
    took = []
    gc.freeze()
    stream = batches(rng)
    for batch in islice(stream, RUNS):
        started = time.perf_counter()
        state.fold(batch)
        took.append(time.perf_counter() - started)
    last = sorted(took[RUNS // 2 :])
    figures = {"fold_us": last[0] / N * 1e6, "fold_median_us": last[len(last) // 2] / N * 1e6}
    items = [f"video-{item}" for item in range(ITEMS)]
    digest_s = []
    for _ in range(3):
        started = time.perf_counter()
        state.digest(items)
        digest_s.append(time.perf_counter() - started)
    figures["digest_ms"] = min(digest_s) * 1e3
    first_s, again_s = [], []
    state.snapshot(reuse=True)
    for batch in stream:
        started = time.perf_counter()
        arrays = state.snapshot()
        first_s.append(time.perf_counter() - started)
        state.fold(batch)
        started = time.perf_counter()
        state.snapshot(reuse=True)
        again_s.append(time.perf_counter() - started)
    figures["snapshot_mb"] = sum(array.nbytes for array in arrays.values()) / 1e6
    figures["snapshot_ms"] = min(first_s) * 1e3
    figures["snapshot_after_a_batch_ms"] = min(again_s) * 1e3
    figures |= dedup_figures(rng)
    for name, figure in figures.items():
        print(f"{name:<24}{figure:.3f}")
    print(json.dumps({name: round(figure, 3) for name, figure in figures.items()}))


if __name__ == "__main__":
    main()
