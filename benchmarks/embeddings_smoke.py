"""Does the sequence encoder learn? One prequential pass over a ratings file.

    python -m benchmarks.embeddings_smoke DATA_FOLDER [--dim 64] [--limit N] [--threads 1]

DATA_FOLDER is movietweetings-142k or ml-100k as their publishers lay them out, gzipped. Every
rating is an event, in time order. Micro-batches of 128: predict, score, then learn; a user's
history is immediate, the parameters lag by one batch. Over the last fifth of the events, those
whose user and item were seen before are ranked against every item seen so far, the user's own
items excluded, ties against us. Prints R@10, R@20, MRR@20, nDCG@10 and microseconds an event.
"""

from __future__ import annotations

import argparse
import gzip
import json
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from learners.embeddings import Embeddings
from schemas.learner import Contexts, Interactions
from schemas.runs import Int32, Int64

HISTORY = 50
BATCH = 128


def load(folder: Path) -> tuple[Int32, Int32, Int64]:
    """Users and items numbered by first appearance, and times in ms; sorted by time."""
    path, separator = folder / "u.data.gz", "\t"
    if not path.exists():
        path, separator = folder / "ratings.dat.gz", "::"
    if not path.exists():
        raise SystemExit(f"error: {folder} has neither u.data.gz nor ratings.dat.gz")
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [line.rstrip("\n").split(separator) for line in lines]
    ts = np.array([int(row[3]) for row in rows], dtype=np.int64) * 1000
    order = np.argsort(ts, kind="stable")
    return _numbered([rows[i][0] for i in order]), _numbered([rows[i][1] for i in order]), ts[order]


def _numbered(names: list[str]) -> Int32:
    slots: dict[str, int] = {}
    return np.array([slots.setdefault(name, len(slots)) for name in names], dtype=np.int32)


def histories(users: Int32, items: Int32) -> Int32:
    """The last HISTORY items of each event's user before it: (N, HISTORY), right-aligned."""
    out = np.full((len(users), HISTORY), -1, dtype=np.int32)
    recent: dict[int, list[int]] = {}
    for i, (user, item) in enumerate(zip(users.tolist(), items.tolist(), strict=True)):
        own = recent.setdefault(user, [])
        if own:
            out[i, -len(own) :] = own
        own.append(item)
        del own[:-HISTORY]
    return out


def run(folder: Path, model: Embeddings, limit: int) -> dict[str, float]:
    """One pass; the report."""
    users, items, ts = load(folder)
    users, items, ts = users[:limit], items[:limit], ts[:limit]
    past = histories(users, items)
    n, scored_from = len(users), int(0.8 * len(users))
    seen: NDArray[np.bool_] = np.zeros((int(users.max()) + 1, int(items.max()) + 1), dtype=bool)
    n_users = n_items = 0
    ranks: list[NDArray[np.int64]] = []
    spent = 0.0
    for first in range(0, n, BATCH):
        part = slice(first, min(first + BATCH, n))
        u, i = users[part], items[part]
        if part.stop > scored_from:
            vectors = model.user_vectors(Contexts(users=u, history=past[part], now_ms=0))
            scores = vectors @ model.item_matrix()[:n_items].T
            for row in range(len(u)):
                known = u[row] < n_users and i[row] < n_items and first + row >= scored_from
                if known:
                    others = scores[row][~seen[u[row], :n_items]]
                    ranks.append(np.array([np.count_nonzero(others >= scores[row, i[row]]) - 1]))
                seen[u[row], i[row]] = True
        else:
            seen[u, i] = True
        n_users, n_items = max(n_users, int(u.max()) + 1), max(n_items, int(i.max()) + 1)
        batch = Interactions(
            users=u, items=i, types=np.zeros(len(u), np.int8), ts_ms=ts[part],
            weight=np.ones(len(u), np.float32), history=past[part],
            fresh=np.ones(len(u), bool), gap_ms=np.zeros(len(u), np.int64),
        )  # fmt: skip
        begun = time.perf_counter()
        model.learn_many(batch)
        spent += time.perf_counter() - begun
    rank = np.concatenate(ranks)
    return {
        "events": n,
        "scored": len(rank),
        "recall_10": float((rank < 10).mean()),
        "recall_20": float((rank < 20).mean()),
        "mrr_20": float(np.where(rank < 20, 1.0 / (rank + 1), 0.0).mean()),
        "ndcg_10": float(np.where(rank < 10, 1.0 / np.log2(rank + 2.0), 0.0).mean()),
        "learn_us_an_event": 1e6 * spent / n,
        "discarded_steps": model.discarded_steps,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--limit", type=int, default=1 << 31)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = Embeddings(dim=given.dim, history=HISTORY, seed=given.seed)
    print(json.dumps(run(given.folder, model, given.limit)))


if __name__ == "__main__":
    main()
