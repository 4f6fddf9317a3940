"""Meters, boards, McNemar and drift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.drift import DriftMonitor
from learners.evaluation import HitMeter, PrequentialBoard, mcnemar, rank_of


def test_ranks() -> None:
    lists = np.array([[4, 2, -1], [4, 2, -1], [4, 2, -1]], dtype=np.int32)
    np.testing.assert_array_equal(rank_of(np.array([2, 9, -1], np.int32), lists), [1, -1, -1])
    assert rank_of(np.zeros(0, np.int32), lists[:0]).dtype == np.int32


def test_meter_by_hand() -> None:
    meter = HitMeter(k=3, fading=0.5, window=2)
    meter.update(np.array([0, -1, 2, 3], np.int32))
    assert meter.n == 4
    assert meter.hit_rate == 0.5
    assert meter.mrr == pytest.approx((1 + 1 / 3) / 4)
    assert meter.ndcg == pytest.approx((1 + 1 / 2) / 4)
    assert meter.fading_hit_rate == pytest.approx((0.125 + 0.5) / 1.875)
    assert meter.windows == [(2, 0.5), (4, 0.5)]
    assert HitMeter().as_dict()["hit_rate"] == 0.0


@given(st.lists(st.integers(-1, 12), max_size=120), st.integers(1, 50))
def test_meter_does_not_depend_on_batches(ranks: list[int], size: int) -> None:
    whole, parts = HitMeter(window=7, max_windows=4), HitMeter(window=7, max_windows=4)
    whole.update(np.array(ranks, np.int32))
    for start in range(0, len(ranks), size):
        parts.update(np.array(ranks[start : start + size], np.int32))
    assert whole.windows == parts.windows
    assert whole.as_dict() == pytest.approx(parts.as_dict())
    assert len(whole.windows) < 4
    if ranks:
        assert whole.hit_rate == pytest.approx(np.mean([0 <= rank < 10 for rank in ranks]))


def test_windows_stay_bounded_and_keep_the_hits() -> None:
    meter = HitMeter(k=1, window=5, max_windows=8)
    ranks = np.random.default_rng(0).integers(-1, 1, 10_000).astype(np.int32)
    meter.update(ranks)
    assert len(meter.windows) < 8
    end, _ = meter.windows[-1]
    width = meter.windows[0][0]
    assert sum(rate for _, rate in meter.windows) * width == pytest.approx(np.sum(ranks[:end] == 0))


def test_mcnemar_known_values() -> None:
    assert mcnemar(0, 0).p == 1.0
    assert mcnemar(5, 0).p == pytest.approx(2 / 32)
    assert mcnemar(12, 12).p == 1.0
    assert mcnemar(121, 59).p == pytest.approx(5.45e-06, rel=0.01)  # chi^2 20.672, one degree of freedom
    assert mcnemar(59, 121).p == mcnemar(121, 59).p


def test_board_compares_paired_hits() -> None:
    board = PrequentialBoard(["ours", "popularity"], k=2, window=2)
    board.update({"ours": np.array([0, 1, -1, 0], np.int32), "popularity": np.array([0, -1, 1, 2], np.int32)})
    result = board.compare("ours", "popularity")
    assert (result.b, result.c) == (2, 1)
    assert board.compare("popularity", "ours").b == 1
    assert board.as_dict()["ours"]["hit_rate"] == 0.75
    assert board.series() == {"ours": [(2, 1.0), (4, 0.5)], "popularity": [(2, 0.5), (4, 0.5)]}


def test_board_takes_all_or_nothing() -> None:
    board = PrequentialBoard(["a", "b"])
    ranks = np.zeros(3, np.int32)
    for wrong in ({"a": ranks}, {"a": ranks, "b": ranks[:2]}, {"a": ranks, "c": ranks}):
        with pytest.raises(ValueError, match="same events"):
            board.update(wrong)
    assert board.as_dict()["a"]["n"] == 0


def test_drift_is_found_where_the_rate_falls_and_not_before() -> None:
    rng = np.random.default_rng(1)
    monitor = DriftMonitor()
    for _ in range(40):
        assert monitor.update(rng.random(501) < 0.3) == 0
    assert monitor.hit_rate == pytest.approx(0.3, abs=0.02)
    assert sum(monitor.update(rng.random(501) < 0.1) for _ in range(12)) >= 1
    assert monitor.n_drifts >= 1
    assert monitor.hit_rate < 0.2
    assert monitor.width < 8_000
    with pytest.raises(ValueError, match="delta"):
        DriftMonitor(0.0)


def test_drifts_are_those_that_river_finds() -> None:
    from river.drift import ADWIN

    rng = np.random.default_rng(5)
    hits = rng.random(60_000) < np.repeat([0.3, 0.1, 0.25, 0.25, 0.6], 12_000)
    theirs, n_theirs = ADWIN(delta=0.002, clock=8), 0
    monitor, n_ours = DriftMonitor(0.002), 0
    for chunk in hits.reshape(-1, 32 * 25):
        for mean in chunk.reshape(25, 32).mean(axis=1).tolist():
            theirs.update(mean)
            n_theirs += theirs.drift_detected
        n_ours += monitor.update(chunk)
        assert (n_ours, monitor.width) == (n_theirs, theirs.width * 32)
        assert monitor.hit_rate == theirs.estimation
    assert n_ours >= 3


@pytest.mark.parametrize("options", [{"k": 0}, {"window": 0}, {"fading": 0.0}, {"max_windows": 3}])
def test_meter_refuses_nonsense(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        HitMeter(**options)  # type: ignore[arg-type]
