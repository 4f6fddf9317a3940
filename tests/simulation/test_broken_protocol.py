"""The protocol broken on purpose: the simulation must notice each way, or it would notice nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from learners.user_state import PartitionState
from schemas.runs import EventBatch, RecordRun
from streams import core as core_module
from streams import keeper as keeper_module
from streams.checkpoint.epochs import Tenure
from streams.core import WorkerCore
from streams.keeper import Keeper
from tests.simulation.schedules import failures_of

ENOUGH = 400
Break = Callable[[pytest.MonkeyPatch], None]


def commit_before_checkpoint(patch: pytest.MonkeyPatch) -> None:
    """Offsets are committed as soon as they are applied."""
    patch.setattr(WorkerCore, "safe_positions", lambda self: self.held.positions())


def no_fencing(patch: pytest.MonkeyPatch) -> None:
    """Nobody looks whether another one has taken over."""
    patch.setattr(Tenure, "check", lambda self: None)


def no_look_after_a_pause(patch: pytest.MonkeyPatch) -> None:
    """A process that was stopped publishes what it owes without a look at the fence."""
    patch.setattr(keeper_module, "UNWATCHED_S", float("inf"))


def last_plus_one(patch: pytest.MonkeyPatch) -> None:
    """The position is that of the last record plus one, not the consumer's."""

    def cut(run: RecordRun, position: int) -> RecordRun:
        if len(run):
            run.next_offset = int(run.offsets[-1]) + 1
        return original(run, position)

    original = core_module.run_from
    patch.setattr(core_module, "run_from", cut)


def journal_not_synced(patch: pytest.MonkeyPatch) -> None:
    """Nobody waits for the disk; the fence is looked at all the same."""

    def at_once(self: Keeper, _sequence: int, _timeout_s: float | None = None) -> bool:
        self.tenure.check()
        return True

    patch.setattr(Keeper, "wait_durable", at_once)


def straddling_batch_not_cut(patch: pytest.MonkeyPatch) -> None:
    """What was read before is applied again (dedup may hide it: then it is counted)."""

    def fold(self: PartitionState, batch: EventBatch) -> object:
        if len(batch):
            self._clock[0] = min(int(self._clock[0]), int(batch.offsets[0]))
        return original(self, batch)

    original = PartitionState.fold
    patch.setattr(PartitionState, "fold", fold)
    patch.setattr(core_module, "run_from", lambda run, position: run)


def changed_users_not_copied(patch: pytest.MonkeyPatch) -> None:
    """A cut copies the rows that have changed, and a fold does not say which."""

    def fold(self: PartitionState, batch: EventBatch) -> object:
        stale = self._stale.copy()
        folded = original(self, batch)
        self._stale[: len(stale)] &= stale
        return folded

    original = PartitionState.fold
    patch.setattr(PartitionState, "fold", fold)


@pytest.mark.parametrize(
    "break_it",
    [
        commit_before_checkpoint,
        no_fencing,
        no_look_after_a_pause,
        last_plus_one,
        journal_not_synced,
        straddling_batch_not_cut,
        changed_users_not_copied,
    ],
    ids=lambda break_it: break_it.__name__,
)
def test_a_broken_protocol_is_noticed(break_it: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    break_it(monkeypatch)
    found = ((seed, problems) for seed in range(ENOUGH) if (problems := failures_of(seed)))
    noticed = next(found, None)
    assert noticed is not None, f"{break_it.__name__} passes {ENOUGH} schedules"
    print(f"\n{break_it.__name__}: noticed with seed {noticed[0]} by: {noticed[1][0]}")
