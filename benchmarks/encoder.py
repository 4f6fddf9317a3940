"""The sequence encoder alone: its variants side by side, one prequential pass each.

    python -m benchmarks.encoder --data FOLDER [--only SET ...] [--variant NAME ...] [--seed 0] [--dim 64]

FOLDER holds the data sets as `reelflow evaluate` knows them. The last fifth of each stream is
ranked in full, by the protocol of docs/evaluation.md. One row a variant and data set: R@20 and
nDCG@10 in percent, and microseconds of CPU an event of learning. Run it with OMP_NUM_THREADS=1.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Final

import msgspec
import numpy as np
import torch

from learners.embedding_options import DAY_MS, EmbeddingOptions
from learners.embeddings import Embeddings
from learners.prequential import Asked, play, tail_of
from learners.ranking_metrics import gain, hit
from schemas.learner import Interactions
from schemas.runs import Int32
from streams.evaluation.data_sets import DATA_SETS, load_data_set

VARIANTS: Final = {
    "default": EmbeddingOptions(),
    "one head": EmbeddingOptions(heads=1),
    "two heads": EmbeddingOptions(heads=2),
    "one shift": EmbeddingOptions(shifts=1),
    "steps of 128": EmbeddingOptions(step_targets=128),
    "steps of 32": EmbeddingOptions(step_targets=32),
    "2048 negatives": EmbeddingOptions(negatives=2048),
    "in-batch": EmbeddingOptions(in_batch=True),
    "bce": EmbeddingOptions(loss="bce"),
    "bpr": EmbeddingOptions(loss="bpr"),
    "adam": EmbeddingOptions(optimizer="adam"),
    "sgd": EmbeddingOptions(optimizer="sgd"),
    "item rows at 2 events": EmbeddingOptions(item_admission=2),
    "item rows at 3 events": EmbeddingOptions(item_admission=3),
    "user rows at 2 positives": EmbeddingOptions(user_admission=2),
    "user rows at 3 positives": EmbeddingOptions(user_admission=3),
    "user rows idle 180 days": EmbeddingOptions(user_idle_ms=180 * DAY_MS),
}


class EncoderContender:
    """Embeddings as a contender that ranks all items in full."""

    def __init__(self, name: str, model: Embeddings) -> None:
        self.name = name
        self._model = model

    def ranks(self, asked: Asked) -> Int32:
        """Place of each target among all items but the seen; ties against us; (B,)."""
        rows = np.arange(len(asked.targets))
        vectors = self._model.user_vectors(asked.contexts)
        matrix = self._model.item_matrix()[: asked.n_items]
        scores = np.full((len(rows), asked.n_items), -np.inf, dtype=np.float32)  # (B, N)
        np.matmul(vectors, matrix.T, out=scores[:, : len(matrix)])
        own = scores[rows, asked.targets].copy()
        at, column = np.nonzero((asked.seen >= 0) & (asked.seen < asked.n_items))
        scores[at, asked.seen[at, column]] = -np.inf
        scores[rows, asked.targets] = -np.inf
        places: Int32 = (scores >= own[:, None]).sum(axis=1).astype(np.int32)
        return places

    def learn(self, batch: Interactions) -> None:
        """Learn a micro-batch."""
        self._model.learn_many(batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", nargs="+", choices=DATA_SETS, default=list(DATA_SETS))
    parser.add_argument("--variant", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dim", type=int, default=64)
    given = parser.parse_args()
    torch.set_num_threads(1)
    print("| variant | data set | R@20 % | nDCG@10 % | us an event |\n|---|---|---|---|---|")
    for data_set in given.only:
        stream, rules = load_data_set(data_set, given.data)
        rules = msgspec.structs.replace(rules, score_from=0.8)
        for name in given.variant:
            model = Embeddings(dim=given.dim, seed=given.seed, options=VARIANTS[name])
            played = play(stream, [EncoderContender(name, model)], rules, time.process_time)
            ranks = played.ranks[name][tail_of(stream, played.rows)]
            recall, ndcg = 100 * hit(ranks, 20).mean(), 100 * gain(ranks, 10).mean()
            cost = 1e6 * played.learn_s[name] / len(stream)
            print(f"| {name} | {data_set} | {recall:.2f} | {ndcg:.2f} | {cost:.0f} |", flush=True)


if __name__ == "__main__":
    main()
