"""Prometheus metrics of the content worker; names and units as in `serving.metrics`."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

from .metrics import VectorHistogram


class ContentMetrics:
    """The content worker's metrics on a registry of their own."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.items = Counter(
            "reelflow_content_items",
            "Catalogue records by outcome: encoded, withdrawn, unchanged, superseded, broken",
            ["outcome"],
            registry=registry,
        )
        self.background = Counter(
            "reelflow_content_background_items", "Items encoded anew in the background", registry=registry
        )
        self.modalities = Counter(
            "reelflow_content_modalities",
            "Modalities of items by outcome: encoded, given, or the reason why there is no vector",
            ["modality", "outcome"],
            registry=registry,
        )
        self.covers = Counter(
            "reelflow_content_covers",
            "Covers on which words were looked for: words, none, or unread (reading went over a limit)",
            ["outcome"],
            registry=registry,
        )
        self.letters = Counter(
            "reelflow_content_dead_letters", "Dead letters written, by reason", ["reason"], registry=registry
        )
        self.item_to_content = VectorHistogram(
            "reelflow_item_to_content_seconds",
            "Broker timestamp of a catalogue record to the acknowledged delivery of its vectors and tags",
            registry=registry,
        )
        self.encode_seconds = Counter(
            "reelflow_content_encode_seconds",
            "Seconds spent encoding, by modality, and finding tags",
            ["modality"],
            registry=registry,
        )
        self.queue_runs = Gauge(
            "reelflow_queue_runs", "Runs waiting for the learner thread", registry=registry
        )
        self.waiting = Gauge("reelflow_content_waiting_items", "Items under way", registry=registry)
        self.scans = Gauge(
            "reelflow_content_scanning_partitions",
            "Catalogue partitions still looked through for items to encode anew",
            registry=registry,
        )
        self.lag_records = Gauge(
            "reelflow_lag_records", "Log end minus position next to read, all partitions", registry=registry
        )
        self.ready = Gauge(
            "reelflow_ready", "1 when the catalogue's records are being read", registry=registry
        )
        self.known = Gauge(
            "reelflow_content_known_items", "Items on the item-content topic", registry=registry
        )
        self.regressed = Gauge(
            "reelflow_content_regressed_records",
            "Content records that were older than what they came after, and were made anew",
            registry=registry,
        )
        self.replaced = Gauge(
            "reelflow_content_replaced_decoders",
            "Decoders that died or hung and were replaced",
            registry=registry,
        )
        self.examples = Gauge(
            "reelflow_tagger_examples", "Items with tags that the tagger has learned", registry=registry
        )
        self.tags = Gauge("reelflow_tagger_tags", "Tags that the tagger knows", registry=registry)
        self.tag_quality = Gauge(
            "reelflow_tagger_quality_ratio",
            "How well tags are found before they are learned: accuracy, precision, recall, f1, map, ece",
            ["metric"],
            registry=registry,
        )
        self.info = Gauge(
            "reelflow_content_info",
            "Constant 1; version, and model of each modality",
            ["version", "text", "image", "audio", "video"],
            registry=registry,
        )
