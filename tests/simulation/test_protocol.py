"""The commit protocol under thousands of seeded schedules: crashes before, in and after every step.

A failing seed is printed; ``python -m tests.simulation.test_protocol SEED`` runs it alone.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from tests.simulation.schedules import failures_of

N_SEEDS = int(os.environ.get("SIMULATION_SEEDS", "10000"))
CHUNK = 250


def first_failure(first: int, last: int) -> tuple[int, list[str]] | None:
    """The first seed of a range that fails, and why."""
    for seed in range(first, last):
        if problems := failures_of(seed):
            return seed, problems
    return None


@pytest.mark.timeout(1_800)
def test_any_schedule_leaves_what_an_undisturbed_run_leaves() -> None:
    bounds = [(first, min(first + CHUNK, N_SEEDS)) for first in range(0, N_SEEDS, CHUNK)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        failed = [found for found in pool.map(first_failure, *zip(*bounds, strict=True)) if found]
    assert not failed, f"seed {failed[0][0]}: {failed[0][1]}"


if __name__ == "__main__":
    print(failures_of(int(sys.argv[1])))
