"""Rates and quantiles over sliding windows."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from serving.metrics import LATENCY_BUCKETS, VectorHistogram
from streams.latency import Rate, Reservoir


def test_reservoir_keeps_the_newest() -> None:
    reservoir = Reservoir(100)
    assert reservoir.quantile(0.5) is None
    reservoir.extend(np.arange(50.0))
    assert reservoir.quantile(1.0) == 49
    reservoir.extend(np.arange(50.0, 1_050.0))
    assert len(reservoir) == 100
    assert reservoir.quantile(0.0) == 950
    reservoir.extend(np.array([7.0]))
    assert reservoir.quantile(0.0) == 7
    assert reservoir.quantile(1.0) == 1_049


def test_rate_forgets() -> None:
    rate = Rate(window_s=5.0)
    rate.add(0.0, 100)
    rate.add(4.0, 100)
    assert rate.per_second(4.0) == 40
    assert rate.per_second(6.0) == 20
    assert rate.per_second(20.0) == 0


def test_vector_histogram_counts_as_the_exposition_format_says() -> None:
    registry = CollectorRegistry()
    histogram = VectorHistogram("x_seconds", "help", registry=registry)
    values = np.array([0.0, LATENCY_BUCKETS[0], 0.2, 0.2, 1_000.0])
    histogram.observe_many(values)
    text = generate_latest(registry).decode()
    assert 'x_seconds_bucket{le="0.005"} 2.0' in text
    assert 'x_seconds_bucket{le="0.15"} 2.0' in text
    assert 'x_seconds_bucket{le="0.25"} 4.0' in text
    assert 'x_seconds_bucket{le="+Inf"} 5.0' in text
    assert "x_seconds_count 5.0" in text
    assert registry.get_sample_value("x_seconds_sum") == pytest.approx(values.sum())
