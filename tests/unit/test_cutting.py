"""When cuts are taken: slices first where there is much, at once where there is little."""

from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from serving.metrics import WorkerMetrics
from streams import cutting
from streams.checkpoint.journal import JournalEntry
from streams.commits import Positions
from streams.core import WorkerCore
from streams.cut import Captured, capture
from tests.simulation.test_core import SETTINGS, Incarnation, World


class EagerKeeper:
    """Wants a cut whenever there is something new, and keeps them all."""

    def __init__(self) -> None:
        self.taken: list[Captured] = []
        self._noted = 0

    def append(self, entry: JournalEntry) -> None:
        self._noted = entry.sequence

    def wait_durable(self, _sequence: int, _timeout_s: float | None = None) -> bool:
        return True

    def wants_cut(self) -> bool:
        return not self.taken or self.taken[-1].sequence < self._noted

    def take(self, captured: Captured) -> None:
        self.taken.append(captured)

    def close(self, captured: Captured) -> None:
        raise AssertionError("nobody closes")

    def positions(self) -> Positions:
        return {}


def units(captured: Captured) -> dict[str, dict[str, bytes]]:
    return {
        unit: {name: array.tobytes() for name, array in arrays.items()}
        for unit, arrays in captured.cut().units.items()
    }


@pytest.mark.parametrize(("slice_bytes", "n_least", "n_most"), [(1 << 30, 1, 1), (2_048, 3, 64), (1, 64, 64)])
def test_much_is_copied_in_slices_before_the_cut(
    slice_bytes: int, n_least: int, n_most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cutting, "SLICE_BYTES", slice_bytes)
    world = World(3, 400)
    life = Incarnation(world)
    keeper = EagerKeeper()
    life.core.keep(keeper, 1)
    places = list(world.log)
    for round_ in range(3):
        for place in places:
            life.read(place, 40)
        before = len(keeper.taken)
        n_ticks = 0
        while len(keeper.taken) == before:
            n_ticks += 1
            assert n_ticks <= n_most + 1, "a cut never came"
            if n_ticks == 2:  # what happens between slices is in the cut
                life.read(places[0], 3)
            life.core.tick()
            if len(keeper.taken) == before:
                life.core.publisher.publish_chunk(life.core.sequence, interval_ms=0)
        if round_:  # before the first there is no memory that could be filled ahead
            assert n_least <= n_ticks <= n_most + 1
        assert units(keeper.taken[-1]) == units(capture(life.core))


def test_the_settings_that_a_cut_notes_are_made_once() -> None:
    metrics = WorkerMetrics(CollectorRegistry())
    sink: Any = None
    core = WorkerCore(SETTINGS, sink, metrics)
    assert capture(core).meta["settings"] is capture(core).meta["settings"]
