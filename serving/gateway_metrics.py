"""The gateway's metrics, prefix ``reelflow_gateway_``; no user or item in any label."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from .reader import RecommendationsReader

_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class GatewayMetrics:
    """One registry an application."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "reelflow_gateway_requests",
            "Requests answered",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "reelflow_gateway_request_seconds",
            "Time to the first byte of the answer",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.events = Counter(
            "reelflow_gateway_events", "Events posted, by outcome", ["outcome"], registry=self.registry
        )
        self.lists = Counter(
            "reelflow_gateway_lists",
            "Lists served: fresh, stale or popular",
            ["kind"],
            registry=self.registry,
        )
        self.streams = Gauge("reelflow_gateway_streams", "Open event streams", registry=self.registry)
        self.streams_refused = Counter(
            "reelflow_gateway_streams_refused",
            "Event streams refused because the maximum was open",
            registry=self.registry,
        )

    def watch(self, reader: RecommendationsReader) -> None:
        """Report the reader's state at each scrape."""
        self.registry.register(_ReaderCollector(reader))


class _ReaderCollector(Collector):
    def __init__(self, reader: RecommendationsReader) -> None:
        self._reader = reader

    def describe(self) -> Iterable[Metric]:
        return ()

    def collect(self) -> Iterable[Metric]:
        state = self._reader.state
        prefix = "reelflow_gateway_reader"
        gauges = {
            "ready": ("1 once the topic was read to its end", state.ready),
            "users": ("Users in the local view", state.users),
            "lag_records": ("Log end minus position, all partitions", state.lag_records),
        }
        counters = {
            "records": ("Records read", state.read),
            "older": ("Snapshots dropped because a newer one was known", state.dropped_older),
            "invalid": ("Records that are no snapshot", state.invalid),
            "evicted": ("Users forgotten because the view was full", state.evicted),
        }
        for name, (text, value) in gauges.items():
            yield GaugeMetricFamily(f"{prefix}_{name}", text, value=float(value))
        for name, (text, value) in counters.items():
            yield CounterMetricFamily(f"{prefix}_{name}", text, value=float(value))
