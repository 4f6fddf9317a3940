"""What an encoder step costs over a large catalogue, on the CPU or on a GPU.

    OMP_NUM_THREADS=1 python -m benchmarks.encoder_step [--items 1000000] [--dim 128] [--device cuda] [--half]

Events are made up (items by a power law, users uniform, full histories of 50, every event a target). After
a warm-up it learns `--batches` batches of 2 048 events in steps of 64, 128 and 512 targets, and prints a
row each: events/s by the wall clock, the device waited for, and CPU microseconds an event. The last line
is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Final

import numpy as np
import torch

from learners.device import resolve_device
from learners.embedding_options import EmbeddingOptions
from learners.embeddings import Embeddings
from schemas.learner import Interactions

BATCH: Final = 2_048
HISTORY: Final = 50
N_USERS: Final = 100_000
STEPS: Final = (64, 128, 512)
WARM_UP: Final = 4


def batch_of(rng: np.random.Generator, n_items: int) -> Interactions:
    """`BATCH` targets with full histories."""
    return Interactions(
        users=rng.integers(0, N_USERS, BATCH).astype(np.int32),
        items=(n_items * rng.random(BATCH) ** 3).astype(np.int32),
        types=np.ones(BATCH, dtype=np.int8),
        ts_ms=np.zeros(BATCH, dtype=np.int64),
        weight=np.ones(BATCH, dtype=np.float32),
        history=(n_items * rng.random((BATCH, HISTORY)) ** 3).astype(np.int32),
        fresh=np.ones(BATCH, dtype=np.bool_),
        gap_ms=np.zeros(BATCH, dtype=np.int64),
    )


def measure(given: argparse.Namespace, step_targets: int) -> tuple[float, float]:
    """Events a second, and CPU microseconds an event."""
    device, rng = resolve_device(given.device), np.random.default_rng(0)
    options = EmbeddingOptions(step_targets=step_targets, half=given.half)
    model = Embeddings(dim=given.dim, history=HISTORY, seed=0, device=device, options=options)
    model.ensure(given.items, N_USERS)
    batches = [batch_of(rng, given.items) for _ in range(WARM_UP + given.batches)]
    for batch in batches[:WARM_UP]:
        model.learn_many(batch)
    _wait_for(device)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    for batch in batches[WARM_UP:]:
        model.learn_many(batch)
    _wait_for(device)
    n = given.batches * BATCH
    return n / (time.perf_counter() - wall_s), 1e6 * (time.process_time() - cpu_s) / n


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encoder_step", description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--half", action="store_true", help="bfloat16 products with negatives")
    parser.add_argument("--batches", type=int, default=16)
    given = parser.parse_args()
    print("| targets a step | events/s | CPU us an event |\n|---|---|---|")
    report = {}
    for step_targets in STEPS:
        per_s, cpu_us = measure(given, step_targets)
        report[step_targets] = {"events_per_s": round(per_s), "cpu_us": round(cpu_us, 1)}
        print(f"| {step_targets} | {per_s:.0f} | {cpu_us:.1f} |", flush=True)
    print(json.dumps({"device": given.device, "items": given.items, "dim": given.dim, "steps": report}))


if __name__ == "__main__":
    main()
