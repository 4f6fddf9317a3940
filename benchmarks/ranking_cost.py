"""What a list costs: ranking by transitions and popularity, ranking with embeddings, encoding.

Run ``python -m benchmarks.ranking_cost``. Prints one JSON object; microseconds a user, the least of
some repetitions, one thread. Items follow a power law, rows are full: the worst case for caches.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch

from learners.blend import Gate
from learners.embeddings import Embeddings
from learners.popularity import Popularity
from learners.transitions import Transitions
from schemas.interning import Interner
from schemas.learner import Contexts, Interactions
from schemas.runs import Int32
from schemas.texts import texts_of
from serving.ranking import Ranker
from serving.snapshots import SnapshotEncoder

USERS = 512
HISTORY = 50
SEEN = 128
LIST_SIZE = 20
DAY_MS = 86_400_000


def power_law(rng: np.random.Generator, n: int, shape: tuple[int, ...]) -> Int32:
    items: Int32 = (n * rng.random(shape) ** 3).astype(np.int32)
    return items


def interactions(rng: np.random.Generator, n_items: int, n: int) -> Interactions:
    return Interactions(
        users=rng.integers(0, 10_000, n).astype(np.int32),
        items=power_law(rng, n_items, (n,)),
        types=np.ones(n, dtype=np.int8),
        ts_ms=np.sort(rng.integers(0, DAY_MS, n)),
        weight=np.ones(n, dtype=np.float32),
        history=power_law(rng, n_items, (n, HISTORY)),
        fresh=np.ones(n, dtype=np.bool_),
        gap_ms=np.zeros(n, dtype=np.int64),
    )


def least_us(call: Callable[[], object], n: int, repeats: int) -> float:
    call()
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        best = min(best, time.perf_counter() - started)
    return round(best / n * 1e6, 2)


def measure(n_items: int, n_events: int, repeats: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    transitions, popularity = Transitions(64), Popularity((DAY_MS / 4, DAY_MS * 7))
    embeddings = Embeddings(dim=64)
    learned = interactions(rng, n_items, n_events)
    transitions.learn_many(learned)
    popularity.learn_many(learned)
    embeddings.learn_many(interactions(rng, n_items, 2_000))
    gate = Gate()
    history = power_law(rng, n_items, (USERS, HISTORY))
    seen = np.concatenate([power_law(rng, n_items, (USERS, SEEN - HISTORY)), history], axis=1)
    contexts = Contexts(users=np.arange(USERS, dtype=np.int32), history=history, now_ms=DAY_MS)
    targets = power_law(rng, n_items, (USERS,))
    withdrawn = np.zeros(n_items, dtype=np.bool_)
    sparse = Ranker(transitions, popularity, None, gate, list_size=LIST_SIZE, exclude_seen=True)
    full = Ranker(transitions, popularity, embeddings, gate, list_size=LIST_SIZE, exclude_seen=True)
    for _ in range(64):  # past the calls that always prepare popularity anew
        sparse.rank(contexts, seen, withdrawn)
    ranked = sparse.rank(contexts, seen, withdrawn)
    encoder = SnapshotEncoder(
        Interner(f"video-{item}" for item in range(n_items)), model_name="main", ttl_ms=DAY_MS
    )
    names = [texts_of(f"user-{user}" for user in range(USERS))]
    event_ids = [texts_of(f"event-{user:012x}" for user in range(USERS))]
    ones = np.ones(USERS, dtype=np.int64)

    def encode() -> list[bytes]:
        return encoder.encode(
            names, ranked, partition=0, offsets=ones, event_ids=event_ids, ts_ms=ones, generated_at_ms=DAY_MS,
            epoch=0, sequence=1, fallbacks=np.zeros(USERS, dtype=np.int8),
        ).values  # fmt: skip

    return {
        "items": n_items,
        "row_fill": round(float((transitions.view().nbr[:n_items] >= 0).mean()), 3),
        "rank_sparse_us": least_us(lambda: sparse.rank(contexts, seen, withdrawn), USERS, repeats),
        "learn_gate_sparse_us": least_us(lambda: sparse.learn_gate(contexts, targets), USERS, repeats),
        "rank_full_us": least_us(lambda: full.rank(contexts, seen, withdrawn), USERS, max(repeats // 10, 2)),
        "encode_us": least_us(encode, USERS, repeats),
        "snapshot_bytes": float(np.mean([len(value) for value in encode()])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=50)
    args = parser.parse_args()
    torch.set_num_threads(1)
    print(json.dumps(measure(args.items, args.events, args.repeats)))


if __name__ == "__main__":
    main()
