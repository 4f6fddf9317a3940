"""What the worker says on /metrics of how well it and the baselines rank, on the real broker."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from confluent_kafka import Producer

from learners.evaluation import STREAM_METRICS
from schemas.codec import encode_event
from schemas.records import Event
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.broker import LocalBroker
from streams.context import confluent_config
from streams.processes import http_text
from tests.processes import RunningWorker, running_worker

pytestmark = pytest.mark.integration

PARTITIONS = 4
CONTENDERS = ("reelflow", "popularity", "markov")
N_USERS = 40
RING = 120
STEPS = 30


def send(broker: LocalBroker, topics: str, watches: list[tuple[str, str]], first: int) -> None:
    """Watches (user, item), in order."""
    producer = Producer(confluent_config(KafkaSettings(bootstrap=broker.bootstrap)) | {"acks": "all"})
    now_ms = int(time.time() * 1000)
    for i, (user, item) in enumerate(watches):
        event = Event(
            event_id=f"e{first + i}", user_id=user, item_id=item, type="watch", ts_ms=now_ms + i,
            watch_ms=9_000, duration_ms=10_000,
        )  # fmt: skip
        producer.produce(topic_names(topics).behaviour, encode_event(event), user)
    assert producer.flush(30) == 0


def scraped(worker: RunningWorker) -> dict[str, float]:
    """Samples of /metrics by name and labels."""
    text = http_text(f"{worker.url}/metrics")
    return {name: float(value) for name, value in re.findall(r"^(reelflow_\S+) (\S+)$", text, re.MULTILINE)}


def of(samples: dict[str, float], name: str, contender: str, metric: str) -> float:
    return samples[f'{name}{{contender="{contender}",metric="{metric}"}}']


def test_every_contender_is_scored_on_the_same_events_before_they_are_learned(
    broker: LocalBroker, topics: str, tmp_path: Path
) -> None:
    with running_worker(
        broker.bootstrap, topics, PARTITIONS, tmp_path,
        REELFLOW_RANKER_EVALUATE_BUDGET_US="1000000", REELFLOW_RANKER_EVALUATE_FADING="0.999",
    ) as worker:  # fmt: skip
        # Everybody watches what nobody ever watched: whoever hits has looked at the event.
        new = [(f"u{i % N_USERS}", f"new{i}") for i in range(400)]
        send(broker, topics, new, 0)
        worker.wait(lambda stats: stats["events_learned"] >= len(new))
        samples = scraped(worker)
        assert 0 < samples["reelflow_scored_events_total"] <= len(new)  # of a large batch only some are
        for contender in CONTENDERS:
            for metric in STREAM_METRICS:
                assert of(samples, "reelflow_quality_total", contender, metric) == 0.0
                assert of(samples, "reelflow_quality_ratio", contender, metric) == 0.0

        # Then all walk one ring, each from another place: the chain knows, popularity does not.
        ring = [
            (f"u{user}", f"v{(3 * user + step) % RING}") for step in range(STEPS) for user in range(N_USERS)
        ]
        send(broker, topics, ring, len(new))
        sent = len(new) + len(ring)
        stats = worker.wait(lambda found: found["events_learned"] >= sent and found["snapshots"] >= N_USERS)
        samples = scraped(worker)
        n = int(samples["reelflow_scored_events_total"])
        assert len(new) < n == stats["n_scored"] <= sent
        assert samples["reelflow_scored_share_ratio"] <= 1.0
        assert samples["reelflow_scoring_seconds_total"] > 0.0
        assert 0.0 < samples["reelflow_catalogue_coverage_ratio"] <= 1.0
        for contender in CONTENDERS:
            hits, hits_10, gains, reciprocal = (
                of(samples, "reelflow_quality_total", contender, metric) for metric in STREAM_METRICS
            )
            assert hits == int(hits) >= hits_10 == int(hits_10)
            assert hits_10 >= gains
            assert hits >= reciprocal
            assert stats["quality"][contender]["recall_20"] == pytest.approx(hits / n)
            assert 0.0 <= of(samples, "reelflow_quality_ratio", contender, "mrr_20") <= 1.0
        assert of(samples, "reelflow_quality_total", "markov", "mrr_20") > of(
            samples, "reelflow_quality_total", "popularity", "mrr_20"
        )
        for other in ("popularity", "markov"):
            lead = of(samples, "reelflow_lead_ratio", other, "recall_20")
            ours, theirs = (
                of(samples, "reelflow_quality_ratio", name, "recall_20") for name in ("reelflow", other)
            )
            assert lead == pytest.approx(ours - theirs)
            error = of(samples, "reelflow_lead_error_ratio", other, "recall_20")
            # Who knows the ring may hit the very same events as we do: then nothing differs, nor varies.
            assert error > 0.0 or (other == "markov" and error == lead == 0.0)
        labels = {label for name in samples for label in re.findall(r'[{,](\w+)="', name)}
        assert not labels & {"user", "user_id", "item", "item_id"}
        last = stats["quality_series"]["recall_20"][-1]
        assert last[0] == n // 100 * 100
        assert len(last) == 1 + len(CONTENDERS)
