"""What a list costs: ranking by transitions and popularity, ranking with embeddings, encoding.

Run ``python -m benchmarks.ranking_cost``. Prints one JSON object; microseconds a user, the least of
some repetitions, one thread: CPU time of the thread, so that other processes disturb it less. Items
follow a power law, rows are full: the worst case for caches.

With ``--loss`` it learns a synthetic stream instead (`benchmarks.synthetic`) and compares lists made
with the head of the catalogue, and in haste, to lists made with the scores of all items, on the same
events. `benchmarks.ranking_loss` does so on recorded streams.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from learners.blend import Gate
from learners.blend_kernels import Bools
from learners.cooccurrence import Cooccurrence
from learners.ease import Ease
from learners.embeddings import Embeddings
from learners.evaluation import rank_of
from learners.mixture import Mixture
from learners.nearest import Ranked as Nearest
from learners.nearest import best_items
from learners.popularity import Popularity
from learners.transitions import Transitions
from schemas.interning import Interner
from schemas.learner import Contexts, Interactions
from schemas.runs import Float32, Int32
from schemas.texts import texts_of
from serving.ranking import Ranker
from serving.recommender import Recommender, half_lives_h
from serving.snapshots import SnapshotEncoder

from .synthetic import Platform

USERS = 512
HISTORY = 50
SEEN = 128
LIST_SIZE = 20
DAY_MS = 86_400_000
N_USERS = 20_000
GATE_EVERY = 24
LOSS_EVENTS = 6_144


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
        started = time.thread_time()
        call()
        best = min(best, time.thread_time() - started)
    return round(best / n * 1e6, 2)


def measure(n_items: int, n_events: int, repeats: int) -> dict[str, float]:
    rng = np.random.default_rng(0)
    transitions, popularity = Transitions(64), Popularity((DAY_MS / 4, DAY_MS * 7))
    embeddings = Embeddings(dim=64)
    learned = interactions(rng, n_items, n_events)
    transitions.learn_many(learned)
    popularity.learn_many(learned)
    embeddings.learn_many(interactions(rng, n_items, 100_000))
    everything = recommender(rng, n_items, learned, embeddings)
    gate = Gate()
    history = power_law(rng, n_items, (USERS, HISTORY))
    seen = np.concatenate([power_law(rng, n_items, (USERS, SEEN - HISTORY)), history], axis=1)
    contexts = Contexts(users=np.arange(USERS, dtype=np.int32), history=history, now_ms=DAY_MS)
    targets = power_law(rng, n_items, (USERS,))
    withdrawn = np.zeros(n_items, dtype=np.bool_)
    sparse = Ranker(transitions, popularity, gate, list_size=LIST_SIZE, exclude_seen=True)
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

    def cost_of(ranker: Recommender, *, hasty: bool) -> float:
        ranker.hasty = hasty
        return least_us(lambda: ranker.rank(contexts, seen, withdrawn), USERS, max(repeats // 10, 2))

    return {
        "items": n_items,
        "row_fill": round(float((transitions.view().nbr[:n_items] >= 0).mean()), 3),
        "rank_sparse_us": least_us(lambda: sparse.rank(contexts, seen, withdrawn), USERS, repeats),
        "learn_gate_sparse_us": least_us(lambda: sparse.learn_gate(contexts, targets), USERS, repeats),
        "recommend_us": cost_of(everything, hasty=False),
        "recommend_hasty_us": cost_of(everything, hasty=True),
        "encode_us": least_us(encode, USERS, repeats),
        "snapshot_bytes": float(np.mean([len(value) for value in encode()])),
    }


def popularity_of() -> Popularity:
    return Popularity(tuple(hours * DAY_MS / 24 for hours in half_lives_h((6.0, 168.0))))


def recommender(
    rng: np.random.Generator, n_items: int, learned: Interactions, embeddings: Embeddings
) -> Recommender:
    """All learners, with rows as full as the events make them."""
    transitions, popularity = Transitions(64), popularity_of()
    cooccurrence, ease = Cooccurrence(), Ease()
    for learner in (transitions, popularity, cooccurrence):
        learner.learn_many(learned)
    for _ in range(40):  # one panel of EASE's refit each
        ease.learn_many(interactions(rng, n_items, 1_024))
    parts = (transitions, popularity, embeddings, cooccurrence, ease, Mixture())
    return Recommender(*parts, list_size=LIST_SIZE, exclude_seen=True)


class Exact(Embeddings):
    """Scores every item, however many there are."""

    def ranked(
        self,
        vectors: Float32,
        k: int,
        n_items: int,
        withdrawn: Bools | None = None,
        *,
        hasty: bool = False,
    ) -> Nearest:
        """As in `Embeddings`, exactly."""
        n = min(n_items, self.n_items)
        closed = self._closed_now(withdrawn)[:n]
        return best_items(self._tensor(vectors), self._items.values[:n], closed, k, normalise=True)


def loss(n_items: int, n_events: int) -> dict[str, float]:
    """R@20 with the head, in haste and with all items, and standard errors of the differences."""
    platform = Platform(n_items, N_USERS)
    embeddings, exact, mixture = Embeddings(dim=64), Exact(dim=64), Mixture()
    transitions, popularity, cooccurrence, ease = Transitions(64), popularity_of(), Cooccurrence(), Ease()
    with_head, in_haste, with_all = (
        Recommender(
            transitions, popularity, some, cooccurrence, ease, mixture,
            list_size=LIST_SIZE, exclude_seen=False,
        )
        for some in (embeddings, embeddings, exact)
    )  # fmt: skip
    in_haste.hasty = True
    none = np.zeros(0, dtype=np.bool_)

    def contexts_of(batch: Interactions) -> Contexts:
        return Contexts(users=batch.users, history=batch.history, now_ms=int(batch.ts_ms[-1]))

    for i, batch in enumerate(platform.stream(n_events)):
        if i % GATE_EVERY == GATE_EVERY - 1:
            with_head.learn_gate(contexts_of(batch), batch.items)
        with_head.learn(batch)
    exact.restore(embeddings.snapshot())
    hits: list[list[NDArray[np.bool_]]] = [[], [], []]
    for batch in platform.stream(LOSS_EVENTS, USERS):
        for ranker, found in zip((with_head, in_haste, with_all), hits, strict=True):
            lists = ranker.rank(contexts_of(batch), np.zeros((len(batch), 0), dtype=np.int32), none)
            found.append(rank_of(batch.items, lists.items) >= 0)
    head, haste, everything = (np.concatenate(found).astype(np.float64) for found in hits)
    figures = {"items": float(n_items), "r_20_all": round(float(everything.mean()), 5)}
    for name, gains in (("head", head), ("haste", haste)):
        lost = everything - gains
        figures[f"r_20_{name}"] = round(float(gains.mean()), 5)
        figures[f"loss_{name}"] = round(float(lost.mean()), 5)
        figures[f"loss_{name}_se"] = round(float(lost.std() / len(lost) ** 0.5), 5)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--events", type=int, default=500_000)
    parser.add_argument("--repeats", type=int, default=50)
    parser.add_argument("--loss", action="store_true", help="what heads of the catalogue lose")
    args = parser.parse_args()
    torch.set_num_threads(1)
    found = loss(args.items, args.events) if args.loss else measure(args.items, args.events, args.repeats)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
