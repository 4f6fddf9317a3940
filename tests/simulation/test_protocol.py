"""The commit protocol under thousands of seeded schedules: crashes before, in and after every step,
and a store that is damaged between two lives.

A failing seed is printed; ``python -m tests.simulation.test_protocol SEED`` runs it alone.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import msgspec
import pytest

from schemas.errors import FencedError
from streams import keeper as keeper_module
from tests.simulation import world as world_module
from tests.simulation.schedules import Outcome, outcome_of
from tests.simulation.world import Life, World
from tests.stores import FaultyStore

N_SEEDS = int(os.environ.get("SIMULATION_SEEDS", "10000"))
CHUNK = 250


def outcomes(first: int, last: int) -> tuple[Counter[Outcome], tuple[int, list[str]] | None]:
    """How many schedules of a range ended how, up to the first seed that fails, and why that one does."""
    counts: Counter[Outcome] = Counter()
    for seed in range(first, last):
        outcome, problems = outcome_of(seed)
        if problems:
            return counts, (seed, problems)
        counts[outcome] += 1
    return counts, None


@pytest.mark.timeout(3_600)
def test_any_schedule_leaves_what_an_undisturbed_run_leaves() -> None:
    bounds = [(first, min(first + CHUNK, N_SEEDS)) for first in range(0, N_SEEDS, CHUNK)]
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        found = list(pool.map(outcomes, *zip(*bounds, strict=True)))
    failed = [failure for _, failure in found if failure]
    assert not failed, f"seed {failed[0][0]}: {failed[0][1]}"
    counts = sum((counted for counted, _ in found), Counter[Outcome]())
    print(f"\n{dict(counts)}")
    if N_SEEDS >= CHUNK:
        assert counts["right in spite of damage"] > counts["refused"] > 0


def test_probabilities_are_learned_once_each_under_any_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    """Open exposures and all that was learned come back with every recovery, bit by bit."""
    learner = msgspec.structs.replace(world_module.SETTINGS.learner, probabilities=True, probability_bits=10)
    settings = msgspec.structs.replace(world_module.SETTINGS, learner=learner)
    monkeypatch.setattr(world_module, "SETTINGS", settings)
    world_module.reference.cache_clear()
    try:
        counts, failed = outcomes(0, 12)
    finally:
        world_module.reference.cache_clear()
    assert failed is None
    assert len(counts) > 1


def test_who_has_found_a_later_epoch_drains_without_telling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper_module, "BEAT_EVERY_S", 0.0)
    world = World(0, FaultyStore())
    life = Life(world, 1)
    life.core.apply([run for place in world.log if (run := life.run(place, 1_000_000)) is not None])
    life.tenure.journal.wait_durable(life.core.sequence)
    Life(world, 2)
    life.keeper.start()
    life.keeper._guard.join(10.0)
    assert [type(error) for error in life.failed] == [FencedError]
    with pytest.raises(FencedError):
        life.core.close()
    assert not world.broker.problems


if __name__ == "__main__":
    print(outcome_of(int(sys.argv[1])))
