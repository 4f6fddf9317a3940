"""Prometheus metrics of the worker: one prefix, base units, no user or item as a label.

The one that matters is ``reelflow_event_to_snapshot_seconds``: from the broker's timestamp of
the oldest event a snapshot newly knows about to the acknowledged delivery of that snapshot.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge
from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector

LATENCY_BUCKETS = (
    0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.075, 0.1, 0.15, 0.2, 0.25, 0.35, 0.5, 0.75,
    1.0, 2.5, 5.0, 15.0, 60.0,
)  # fmt: skip


class VectorHistogram(Collector):
    """A histogram that takes arrays: the client's own costs a microsecond and more a value."""

    def __init__(self, name: str, documentation: str, *, registry: CollectorRegistry) -> None:
        self._name = name
        self._documentation = documentation
        self._bounds = np.array(LATENCY_BUCKETS)
        self._counts = np.zeros(len(LATENCY_BUCKETS) + 1, dtype=np.int64)
        self._sum = 0.0
        registry.register(self)

    def observe_many(self, values: NDArray[np.float64]) -> None:
        """Count `values`, in seconds."""
        places = np.searchsorted(self._bounds, values, side="left")  # le: a bound counts itself
        self._counts += np.bincount(places, minlength=len(self._counts))
        self._sum += float(values.sum())

    def collect(self) -> Iterator[HistogramMetricFamily]:
        """Cumulative buckets in the exposition format."""
        totals = np.cumsum(self._counts)
        names = [*(str(bound) for bound in LATENCY_BUCKETS), "+Inf"]
        buckets = [(name, float(total)) for name, total in zip(names, totals, strict=True)]
        yield HistogramMetricFamily(self._name, self._documentation, buckets=buckets, sum_value=self._sum)


class WorkerMetrics:
    """The worker's metrics on a registry of their own, so that two workers fit in one test."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.events = Counter(
            "reelflow_events",
            "Behaviour events by outcome: applied, duplicate, already_applied, dead_letter",
            ["outcome"],
            registry=registry,
        )
        self.applied = self.events.labels("applied")
        self.dead_letters = Counter(
            "reelflow_dead_letters",
            "Dead letters written, by input and reason",
            ["input", "reason"],
            registry=registry,
        )
        self.catalogue_items = Counter(
            "reelflow_catalogue_items", "Catalogue messages by outcome", ["outcome"], registry=registry
        )
        self.content_records = Counter(
            "reelflow_content_records",
            "Records of item-content and item-tags by outcome: taken, withdrawn, refused",
            ["outcome"],
            registry=registry,
        )
        self.new_items_listed = Counter(
            "reelflow_new_items_listed",
            "Places of lists given to new items by their content",
            registry=registry,
        )
        self.snapshots = Counter(
            "reelflow_snapshots", "Snapshots acknowledged by the broker", registry=registry
        )
        self.retracted = Counter(
            "reelflow_retracted_lists",
            "Lists made anew because an item in them was withdrawn or its time was over",
            registry=registry,
        )
        self.event_to_snapshot = VectorHistogram(
            "reelflow_event_to_snapshot_seconds",
            "Broker timestamp of an event to delivery of the snapshot that knows it",
            registry=registry,
        )
        self.held_back = VectorHistogram(
            "reelflow_event_to_snapshot_held_back_seconds",
            "The same for users whose refresh interval had not passed yet",
            registry=registry,
        )
        self.stage_seconds = Counter(
            "reelflow_stage_seconds",
            "Seconds the learner thread spent, by stage",
            ["stage"],
            registry=registry,
        )
        self.queue_runs = Gauge(
            "reelflow_queue_runs", "Runs waiting for the learner thread", registry=registry
        )
        self.lag_records = Gauge(
            "reelflow_lag_records", "Log end minus position next to read, all partitions", registry=registry
        )
        self.lag_seconds = Gauge(
            "reelflow_lag_seconds",
            "Age of the newest applied event while records wait, else 0",
            registry=registry,
        )
        self.model_lag_records = Gauge(
            "reelflow_model_lag_records",
            "Records of the model topics that a ranker has not read yet",
            registry=registry,
        )
        self.model_age = Gauge(
            "reelflow_model_age_seconds",
            "Seconds since the learner that a ranker follows was heard of",
            registry=registry,
        )
        self.refresh_interval = Gauge(
            "reelflow_refresh_interval_seconds",
            "Between two lists of one user, at least; longer than configured under overload",
            registry=registry,
        )
        self.users = Gauge("reelflow_users", "Users with state", registry=registry)
        self.items = Gauge("reelflow_items", "Items known", registry=registry)
        self.item_slots = Gauge(
            "reelflow_item_slots_ratio",
            "Share of learner.max_items that is taken; at 1 events on new items are dead letters",
            registry=registry,
        )
        self.ready = Gauge(
            "reelflow_ready", "1 when caught up with the log and publishing", registry=registry
        )
        self.recovery = Gauge(
            "reelflow_recovery_ratio", "Share of the log at start that has been folded", registry=registry
        )
        self.quality = Gauge(
            "reelflow_quality_ratio",
            "How well the next watched item is ranked before it is learned, older events fading",
            ["contender", "metric"],
            registry=registry,
        )
        self.quality_sum = Counter(
            "reelflow_quality",
            "The same summed over all of reelflow_scored_events_total",
            ["contender", "metric"],
            registry=registry,
        )
        self.lead = Gauge(
            "reelflow_lead_ratio",
            "Quality of reelflow minus that of a contender, same events, older ones fading",
            ["contender", "metric"],
            registry=registry,
        )
        self.lead_error = Gauge(
            "reelflow_lead_error_ratio",
            "Standard error of reelflow_lead_ratio",
            ["contender", "metric"],
            registry=registry,
        )
        self.coverage = Gauge(
            "reelflow_catalogue_coverage_ratio",
            "Share of available items that stood in a list published within its time to live",
            registry=registry,
        )
        self.scored_events = Counter(
            "reelflow_scored_events", "Events scored prequentially before learning", registry=registry
        )
        self.scored_share = Gauge(
            "reelflow_scored_share_ratio",
            "Share of events learned lately that were looked at for scoring",
            registry=registry,
        )
        self.scoring_seconds = Counter(
            "reelflow_scoring_seconds", "Seconds the learner thread spent scoring", registry=registry
        )
        self.stepped_events = Counter(
            "reelflow_stepped_events",
            "Events in gradient steps; fewer than those applied while the worker is behind",
            registry=registry,
        )
        self.taught_events = Counter(
            "reelflow_taught_events", "Events in the gate's steps; likewise", registry=registry
        )
        self.exposures = Counter(
            "reelflow_learned_exposures", "Showings of an item that probabilities learned", registry=registry
        )
        self.drifts = Counter(
            "reelflow_drifts",
            "Falls that ADWIN found in the reward of listed items, by surface",
            ["surface"],
            registry=registry,
        )
        self.adapting = Gauge(
            "reelflow_adapting", "1 while the model learns faster because of a drift", registry=registry
        )
        self.acceptance = Gauge(
            "reelflow_acceptance_ratio",
            "Mean reward of listed items since the last change, by surface",
            ["surface"],
            registry=registry,
        )
        self.variant_lists = Counter(
            "reelflow_variant_lists",
            "Lists made, by variant (ranker.variants)",
            ["variant"],
            registry=registry,
        )
        self.variant_share = Gauge(
            "reelflow_variant_share_ratio",
            "Share of lists that a variant is given",
            ["variant"],
            registry=registry,
        )
        self.variant_reward = Gauge(
            "reelflow_variant_reward_ratio",
            "Mean reward of the items that a variant's lists offered, older views fading",
            ["variant"],
            registry=registry,
        )
        self.heaviest_user = Gauge(
            "reelflow_heaviest_user_ratio",
            "Share of the events counted lately that one user sent: the user who sent most",
            registry=registry,
        )
        self.hit_changes = Counter(
            "reelflow_hit_rate_changes",
            "Changes ADWIN found in whether the next item is among the first ten, up or down",
            registry=registry,
        )
        self.tags_refused = Gauge(
            "reelflow_tags_refused",
            "Tags beyond the tag chain's maximum: counted, not learned",
            registry=registry,
        )
        self.skipped_steps = Counter(
            "reelflow_nonfinite_steps", "Gradient steps discarded as not finite", registry=registry
        )
        self.lost_events = Counter(
            "reelflow_lost_events", "Events that retention removed before they were read", registry=registry
        )
        self.checkpoints = Counter("reelflow_checkpoints", "Checkpoints written", registry=registry)
        self.failed_checkpoints = Counter(
            "reelflow_failed_checkpoints", "Checkpoints that the store refused", registry=registry
        )
        self.checkpoint_seconds = Gauge(
            "reelflow_checkpoint_write_seconds",
            "Seconds the newest checkpoint took to write",
            registry=registry,
        )
        self.checkpoint_bytes = Gauge(
            "reelflow_checkpoint_bytes", "Size of the newest checkpoint", registry=registry
        )
        self.checkpoint_time = Gauge(
            "reelflow_checkpoint_timestamp_seconds",
            "When the newest checkpoint was written",
            registry=registry,
        )
        self.info = Gauge(
            "reelflow_worker_info",
            "Constant 1; version, model and device",
            ["version", "model", "device"],
            registry=registry,
        )

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to the stage's seconds."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.stage_seconds.labels(name).inc(time.perf_counter() - started)
