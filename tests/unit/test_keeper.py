"""The keeper beside a writer that takes its time: whose copies are whose, the next cut, the end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest

from streams import cutting
from streams import keeper as keeper_module
from streams.checkpoint.local import LocalStore
from streams.checkpoint.store import Store
from streams.cut import Captured
from tests.simulation.world import Life, World
from tests.stores import FaultyStore


class HeldWriter(Executor):
    """A thread that has not come to it yet."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []
        self.taken: list[Captured] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()

        def run() -> None:
            fn(*args, **kwargs)
            future.set_result(None)

        self.jobs.append(run)
        self.taken.append(args[0])
        return future


class WaitedOn(threading.Event):
    """Tells that somebody waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.is_waited_on = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.is_waited_on.set()
        return super().wait(timeout)


def begun(store: Store | None = None) -> tuple[World, Life]:
    """A life that has read something and is due for a checkpoint, whose copies take several slices."""
    world = World(5, cast("FaultyStore", store or FaultyStore()))
    life = Life(world, 1)
    read(life, 12)
    life.core.capture(reuse=True)  # there is memory to copy to
    read(life, 12)
    world.now_s += 5.0
    return world, life


def read(life: Life, n: int) -> None:
    for place in life.world.log:
        if (run := life.run(place, n)) is not None:
            life.core.apply([run])


def bytes_of(units: Mapping[str, Mapping[str, Any]]) -> dict[str, bytes]:
    return {
        f"{unit}.{name}": array.tobytes() for unit, found in units.items() for name, array in found.items()
    }


def test_copies_are_not_touched_before_they_are_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "SLICE_BYTES", 2_048)
    world, life = begun()
    writer = life.keeper._writer = HeldWriter()
    taken = writer.taken
    n_ticks = 0
    while not taken:
        life.core.tick()
        n_ticks += 1
    assert 1 < n_ticks <= cutting.MOST_SLICES + 1
    held = bytes_of(taken[0].cut().units)
    for _ in range(2 * cutting.MOST_SLICES):
        read(life, 1)
        world.now_s += 5.0
        life.core.tick()
    assert len(taken) == 1, "the writer has not written the first"
    assert bytes_of(taken[0].cut().units) == held
    writer.jobs.pop()()
    world.now_s += 5.0
    for _ in range(2 * cutting.MOST_SLICES):
        life.core.tick()
    assert len(taken) == 2  # written, and the next one handed over
    assert bytes_of(taken[1].cut().units) != held
    assert not world.broker.problems


def test_copies_are_not_touched_while_they_wait_for_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cutting, "SLICE_BYTES", 2_048)
    world, life = begun()
    acknowledged = life.core._letters_gate.sent(1)
    cuts = life.core._cutting
    while cuts._captured is None:
        life.core.tick()
    captured = cuts._captured
    held = bytes_of(captured.cut().units)
    for _ in range(2 * cutting.MOST_SLICES):
        read(life, 1)
        world.now_s += 5.0
        life.core.tick()
    assert cuts._captured is captured
    assert bytes_of(captured.cut().units) == held
    assert not life.keeper.positions()
    acknowledged()
    life.core.tick()
    assert life.keeper.positions() == captured.positions


def test_the_next_cut_is_an_interval_after_the_last_began() -> None:
    world, life = begun()
    while not life.keeper.positions():
        life.core.tick()
    began_s = world.now_s
    read(life, 5)
    for after_s, wanted in ((0.1, False), (1.9, False), (2.1, True)):
        world.now_s = began_s + after_s
        assert life.keeper.wants_cut() is wanted


@pytest.mark.parametrize("ends", ["close", "end", "fail"])
def test_who_ends_does_not_wait_for_the_pace(
    ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper_module, "EVEN_BYTES_S", 1.0)
    monkeypatch.setattr(keeper_module, "SPREAD", 1_000.0)  # half an hour
    _, life = begun(LocalStore(tmp_path))
    life.keeper._monotonic = time.monotonic
    life.keeper._next_s = 0.0
    hurry = life.keeper._hurry = WaitedOn()
    life.keeper._writer = ThreadPoolExecutor(1)
    while life.keeper._writing is None:
        life.core.tick()
    writing = life.keeper._writing
    assert hurry.is_waited_on.wait(60.0), "nothing paced it"
    assert not writing.done()
    if ends == "fail":
        life.keeper._fail(RuntimeError("fenced"))
    elif ends == "end":
        life.keeper.end()
    else:
        life.keeper.close(life.core.capture())
    writing.result(timeout=60.0)
    if ends != "fail":
        assert not life.failed
