"""What scoring in the stream costs, with everything scored: microseconds an event.

Run as ``python -m benchmarks.scoring_cost``; 50 000 items, Zipf, users who go on to the item after the
last with one in three. The last line printed is one JSON object: learning with -> events of a batch -> cost.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import torch

from schemas.learner import Interactions
from schemas.records import EVENT_TYPES
from schemas.settings import LearnerSettings, RankerSettings
from streams.model import Model

ITEMS = 50_000
USERS = 20_000
HISTORY = 50
LEARNED = 10_000
SCORED = 4_000
WATCH = EVENT_TYPES.index("watch")


def batches(rng: np.random.Generator, n: int, size: int, histories: np.ndarray) -> Iterator[Interactions]:
    """`n` events in batches of `size`; `histories` (USERS, HISTORY) goes on from batch to batch."""
    for first in range(0, n, size):
        users = rng.choice(USERS, size, replace=False).astype(np.int32)
        history = histories[users]
        items = (rng.zipf(1.2, size) % ITEMS).astype(np.int32)
        follows = (rng.random(size) < 1 / 3) & (history[:, -1] >= 0)
        items[follows] = (history[follows, -1] + 1) % ITEMS
        yield Interactions(
            users=users,
            items=items,
            types=np.full(size, WATCH, dtype=np.int8),
            ts_ms=1_700_000_000_000 + 10 * np.arange(first, first + size, dtype=np.int64),
            weight=np.ones(size, dtype=np.float32),
            history=history,
            fresh=~(history == items[:, None]).any(axis=1),
            gap_ms=np.full(size, 1_000, dtype=np.int64),
        )
        histories[users, :-1] = history[:, 1:]
        histories[users, -1] = items


def cost(*, embeddings: bool, size: int) -> float:
    """Microseconds of scoring an event scored, in batches of `size` events."""
    rng = np.random.default_rng(0)
    model = Model(
        LearnerSettings(embeddings=embeddings, device="cpu"),
        RankerSettings(evaluate_budget_us=1e6),
    )
    withdrawn = np.zeros(ITEMS, dtype=np.bool_)
    histories = np.full((USERS, HISTORY), -1, dtype=np.int32)
    for batch in batches(rng, LEARNED, 1_000, histories):
        model.learn(batch, withdrawn)
    before_s, before = model.scoring.spent_s, model.board.n
    for batch in batches(rng, SCORED * size // 128, size, histories):
        model.learn(batch, withdrawn)
    return 1e6 * (model.scoring.spent_s - before_s) / (model.board.n - before)


def main() -> None:
    torch.set_num_threads(1)
    report: dict[str, dict[str, float]] = {}
    for name, embeddings in (("embeddings", True), ("transitions", False)):
        report[name] = {}
        for size in (128, 16):
            found = cost(embeddings=embeddings, size=size)
            report[name][str(size)] = round(found, 2)
            print(f"{name:12} {size:4} events a batch: {found:.1f} us an event scored", flush=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
