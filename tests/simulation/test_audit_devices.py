"""An audit where the model was learned on a GPU that is not here: named, and all else is compared."""

from __future__ import annotations

import msgspec
import pytest

from streams.audit import Report, audit, scratch_core
from streams.checkpoint.history import History
from tests.simulation.world import SETTINGS, Life, World
from tests.stores import FaultyStore

ELSEWHERE = "NVIDIA H200"


def audited(*, learned_on: str, model_off: float = 0.0, counts_off: int = 0) -> Report:
    """What is found of a life that kept all it learned, but for a total of its model and a count."""
    world = World(0, FaultyStore())
    life = Life(world, 1)
    life.core.model.device_name = learned_on
    close = life.core.close

    def tampered() -> None:
        _, totals = life.core.model.popularity.view()
        totals += model_off
        life.core.partitions[0].counts.applied += counts_off
        close()

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(life.core, "close", tampered)
        life.finish()
    return audit(History(world.store), SETTINGS, world.reader)


def test_a_model_from_another_device_is_named_and_not_compared() -> None:
    report = audited(learned_on=ELSEWHERE, model_off=1.0)
    assert report.problems == []
    (told,) = report.not_compared
    assert ELSEWHERE in told
    assert "cpu" in told
    assert not report.same_build


def test_all_else_is_compared() -> None:
    report = audited(learned_on=ELSEWHERE, counts_off=1)
    assert len(report.problems) == 1
    assert "partition 0 counts" in report.problems[0]


def test_a_model_from_here_is_compared() -> None:
    assert audited(learned_on="cpu").problems == []
    report = audited(learned_on="cpu", model_off=1.0)
    assert not report.not_compared
    (problem,) = report.problems
    assert "the model is not the fold of the log" in problem


def test_a_fold_takes_the_device_that_is_here() -> None:
    """Where settings name a GPU of the machine that learned, an audit elsewhere still folds."""
    learner = msgspec.structs.replace(SETTINGS.learner, device="cuda:63", embeddings=True)
    core = scratch_core(msgspec.structs.replace(SETTINGS, learner=learner))
    assert core.model.device in {"cpu", "cuda:0"}
