"""Boards, leads, McNemar and drift."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from learners.drift import DriftMonitor
from learners.evaluation import STREAM_METRICS, PrequentialBoard, mcnemar, places_in, rank_of


def test_ranks() -> None:
    lists = np.array([[4, 2, -1], [4, 2, -1], [4, 2, -1]], dtype=np.int32)
    np.testing.assert_array_equal(rank_of(np.array([2, 9, -1], np.int32), lists), [1, -1, -1])
    assert rank_of(np.zeros(0, np.int32), lists[:0]).dtype == np.int32


def test_places_count_ties_against_the_target() -> None:
    lists = np.array([[4, 2, 7, -1]] * 5, dtype=np.int32)
    scores = np.array([[3.0, 1.0, 1.0, 0.0]] * 5, dtype=np.float32)
    targets = np.array([4, 2, 7, 9, -1], np.int32)
    np.testing.assert_array_equal(places_in(targets, lists, scores), [0, 2, 2, -1, -1])
    assert places_in(targets[:0], lists[:0], scores[:0]).dtype == np.int32


def test_metrics_by_hand() -> None:
    board = PrequentialBoard(["ours"], fading=0.5, window=2)
    board.update({"ours": np.array([0, -1, 2, 14], np.int32)})
    assert board.n == 4
    means = board.means("ours")
    assert means["recall_20"] == 3 / 4
    assert means["hit_rate_10"] == 2 / 4
    assert means["ndcg_10"] == pytest.approx((1 + 1 / 2) / 4)
    assert means["mrr_20"] == pytest.approx((1 + 1 / 3 + 1 / 15) / 4)
    assert board.sums("ours")["hit_rate_10"] == 2
    # Weights 1/8, 1/4, 1/2, 1.
    assert board.fading("ours")["hit_rate_10"] == pytest.approx((0.125 + 0.5) / 1.875)
    assert board.fading("ours")["recall_20"] == pytest.approx((0.125 + 0.5 + 1) / 1.875)
    assert board.series("recall_20") == [(2, (0.5,)), (4, (1.0,))]
    assert PrequentialBoard(["ours"]).fading("ours")["recall_20"] == 0.0


def test_a_lead_and_its_standard_error_by_hand() -> None:
    board = PrequentialBoard(["ours", "theirs"], fading=0.5)
    assert board.lead("theirs", "recall_20") == (0.0, 0.0)
    board.update({"ours": np.array([0, -1, 3], np.int32), "theirs": np.array([5, 2, -1], np.int32)})
    # Differences 0, -1, 1 with the weights 1/4, 1/2, 1.
    mean = 0.5 / 1.75
    spread = (0.25 * (0 - mean)) ** 2 + (0.5 * (-1 - mean)) ** 2 + (1 - mean) ** 2
    lead = board.lead("theirs", "recall_20")
    assert lead.value == pytest.approx(mean)
    assert lead.se == pytest.approx(np.sqrt(spread) / 1.75)


@given(st.lists(st.integers(-1, 25), max_size=120), st.integers(1, 50))
def test_a_board_does_not_depend_on_batches(ranks: list[int], size: int) -> None:
    places = np.array(ranks, np.int32)
    whole, parts = (
        PrequentialBoard(["ours", "theirs"], fading=0.9, window=7, max_windows=4) for _ in range(2)
    )
    whole.update({"ours": places, "theirs": places[::-1]})
    for start in range(0, len(ranks), size):
        part = slice(start, start + size)
        parts.update({"ours": places[part], "theirs": places[::-1][part]})
    for metric in STREAM_METRICS:
        assert [n for n, _ in whole.series(metric)] == [n for n, _ in parts.series(metric)]
        for (_, one), (_, other) in zip(whole.series(metric), parts.series(metric), strict=True):
            assert one == pytest.approx(other)
        assert whole.lead("theirs", metric) == pytest.approx(parts.lead("theirs", metric), abs=1e-9)
    assert whole.means("ours") == pytest.approx(parts.means("ours"))
    assert whole.fading("theirs") == pytest.approx(parts.fading("theirs"))
    assert len(whole.series("recall_20")) < 4
    if ranks:
        assert whole.means("ours")["hit_rate_10"] == pytest.approx(np.mean([0 <= r < 10 for r in ranks]))


def test_windows_stay_bounded_and_keep_the_hits() -> None:
    board = PrequentialBoard(["ours"], window=5, max_windows=8)
    ranks = np.random.default_rng(0).integers(-1, 1, 10_000).astype(np.int32)
    board.update({"ours": ranks})
    series = board.series("hit_rate_10")
    assert len(series) < 8
    assert sum(rate for _, (rate,) in series) * series[0][0] == pytest.approx(
        np.sum(ranks[: series[-1][0]] == 0)
    )


def test_mcnemar_known_values() -> None:
    assert mcnemar(0, 0).p == 1.0
    assert mcnemar(5, 0).p == pytest.approx(2 / 32)
    assert mcnemar(12, 12).p == 1.0
    assert mcnemar(121, 59).p == pytest.approx(5.45e-06, rel=0.01)  # chi^2 20.672, one degree of freedom
    assert mcnemar(59, 121).p == mcnemar(121, 59).p


def test_board_compares_paired_hits() -> None:
    board = PrequentialBoard(["ours", "popularity"])
    board.update(
        {"ours": np.array([0, 1, -1, 0], np.int32), "popularity": np.array([0, -1, 1, 22], np.int32)}
    )
    result = board.compare("ours", "popularity")
    assert (result.b, result.c) == (2, 1)
    assert board.compare("popularity", "ours").b == 1


def test_board_takes_all_or_nothing() -> None:
    board = PrequentialBoard(["a", "b"])
    ranks = np.zeros(3, np.int32)
    for wrong in ({"a": ranks}, {"a": ranks, "b": ranks[:2]}, {"a": ranks, "c": ranks}):
        with pytest.raises(ValueError, match="same events"):
            board.update(wrong)
    assert board.n == 0


def test_drift_is_found_where_the_rate_falls_and_not_before() -> None:
    rng = np.random.default_rng(1)
    monitor = DriftMonitor()
    for _ in range(40):
        assert monitor.update(rng.random(501) < 0.3) == 0
    assert monitor.hit_rate == pytest.approx(0.3, abs=0.02)
    assert sum(monitor.update(rng.random(501) < 0.1) for _ in range(12)) >= 1
    assert monitor.n_falls >= 1
    assert monitor.hit_rate < 0.2
    assert monitor.width < 8_000
    with pytest.raises(ValueError, match="delta"):
        DriftMonitor(0.0)


def test_drifts_are_those_that_river_finds() -> None:
    from river.drift import ADWIN

    rng = np.random.default_rng(5)
    hits = rng.random(60_000) < np.repeat([0.3, 0.1, 0.25, 0.25, 0.6], 12_000)
    theirs, n_theirs = ADWIN(delta=0.002, clock=8), 0
    monitor = DriftMonitor(0.002)
    for chunk in hits.reshape(-1, 32 * 25):
        for mean in chunk.reshape(25, 32).mean(axis=1).tolist():
            theirs.update(mean)
            n_theirs += theirs.drift_detected
        monitor.update(chunk)
        assert (monitor.n_changes, monitor.width) == (n_theirs, theirs.width * 32)
        assert monitor.hit_rate == theirs.estimation
    assert monitor.n_changes >= 3
    assert 0 < monitor.n_falls < monitor.n_changes


@pytest.mark.parametrize("options", [{"window": 0}, {"fading": 0.0}, {"max_windows": 3}])
def test_board_refuses_nonsense(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="out of range"):
        PrequentialBoard(["ours"], **options)  # type: ignore[arg-type]
