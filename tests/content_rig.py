"""Topics of a catalogue, content workers on it, and what they make of items, for tests and benchmarks."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from schemas.codec import encode_event, encode_item
from schemas.content import TAGS, ItemContent, ItemTags, decode_content
from schemas.errors import UnavailableError
from schemas.records import Event, Item
from schemas.settings import KafkaSettings
from schemas.topics import topic_names
from streams.context import confluent_config
from streams.topics import create_topics

from .processes import RunningWorker, start_worker

PARTITIONS = 2
PROMISED_S = 5.0


class Catalogue:
    """Topics, a producer of items, and content workers that end with the test."""

    def __init__(self, bootstrap: str, folder: Path, stack: ExitStack) -> None:
        self.bootstrap, self.folder, self._stack = bootstrap, folder, stack
        self.prefix = f"t{uuid4().hex[:12]}"
        self.kafka = KafkaSettings(bootstrap=bootstrap, prefix=self.prefix, partitions=PARTITIONS)
        create_topics(self.kafka)
        self.names = topic_names(self.prefix)
        self._readers: dict[str, TopicReader] = {}
        self.producer = Producer(
            confluent_config(self.kafka) | {"acks": "all", "linger.ms": 5, "log_level": 2}
        )

    def start(self, role: str = "content-worker", **environ: str) -> RunningWorker:
        # A machine that stands still for a while is no fault of a medium.
        limits = {"REELFLOW_CONTENT_FETCH_S": "300", "REELFLOW_CONTENT_DECODE_S": "300"}
        environ = {"REELFLOW_WORKER_INSTANCE_ID": f"{role}-1"} | limits | environ
        running = start_worker(self.bootstrap, self.prefix, PARTITIONS, self.folder, role, **environ)
        self._stack.enter_context(running.child)
        return running

    def put(self, *items: Item) -> None:
        for item in items:
            self.producer.produce(self.names.catalogue, encode_item(item), item.item_id)
        assert self.producer.flush(20) == 0

    def watch(self, *watches: tuple[str, str]) -> None:
        """Users watch items."""
        for user, item in watches:
            event = Event(
                event_id=uuid4().hex, user_id=user, item_id=item, type="watch", ts_ms=int(time.time() * 1000),
                watch_ms=9_000, duration_ms=10_000,
            )  # fmt: skip
            self.producer.produce(self.names.behaviour, encode_event(event), user)
        assert self.producer.flush(20) == 0

    def lists(self) -> dict[str, Any]:
        """The last list of each user."""
        return {m.key().decode(): json.loads(m.value()) for m in self.messages(self.names.recommendations)}

    def withdraw(self, item_id: str) -> None:
        self.producer.produce(self.names.catalogue, None, item_id)
        assert self.producer.flush(20) == 0

    def messages(self, topic: str) -> list[Any]:
        """Every record of a topic up to its end as of now; each is fetched once."""
        reader = self._readers.get(topic)
        if reader is None:
            reader = self._readers[topic] = self._stack.enter_context(
                closing(TopicReader(self.bootstrap, topic))
            )
        return reader.messages()

    def records(self) -> list[tuple[str, ItemContent | None]]:
        """Every record of the item-content topic."""
        return [
            (m.key().decode(), None if m.value() is None else decode_content(m.value(), m.key()))
            for m in self.messages(self.names.item_content)
        ]

    def contents(self) -> dict[str, ItemContent]:
        return {key: value for key, value in dict(self.records()).items() if value is not None}

    def tags(self) -> dict[str, ItemTags]:
        found = {m.key(): m.value() for m in self.messages(self.names.item_tags)}
        return {k.decode(): TAGS.decode_keyed(v, k) for k, v in found.items() if v is not None}

    def letters(self) -> dict[str, dict[str, str]]:
        """Headers of dead letters by key."""
        return {
            m.key().decode(): {name: value.decode() for name, value in m.headers()}
            for m in self.messages(self.names.catalogue_dlq)
        }


class TopicReader:
    """Follows a topic from its beginning."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": bootstrap, "group.id": "unused", "enable.auto.commit": False,
             "enable.partition.eof": True, "fetch.wait.max.ms": 20}
        )  # fmt: skip
        self._places = [TopicPartition(topic, partition, 0) for partition in range(PARTITIONS)]
        self._consumer.assign(self._places)
        self._positions = dict.fromkeys(range(PARTITIONS), 0)
        self._found: list[Any] = []

    def messages(self) -> list[Any]:
        ends = {place.partition: self._end(place) for place in self._places}
        while any(self._positions[partition] < end for partition, end in ends.items()):
            for message in self._consumer.consume(500, 0.1):
                partition, offset, error = message.partition(), message.offset(), message.error()
                assert partition is not None
                assert offset is not None
                if error is None:
                    self._found.append(message)
                    self._positions[partition] = offset + 1
                else:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    self._positions[partition] = max(self._positions[partition], offset)
        return self._found

    def _end(self, place: TopicPartition) -> int:
        while True:
            try:
                return self._consumer.get_watermark_offsets(place, timeout=10)[1]
            except KafkaException as error:  # a topic that is new to the client has no leader for a moment
                if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION:
                    raise
                time.sleep(0.05)

    def close(self) -> None:
        self._consumer.close()


def ready(worker: RunningWorker) -> None:
    worker.child.wait_ready(f"{worker.url}/health/ready", 120)


def until(condition: Callable[[], Any], what: str, timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := condition()):
        assert time.monotonic() < deadline, what
        time.sleep(0.02)
    return found


def modalities(content: ItemContent) -> dict[str, int]:
    return {one.modality: len(one.vector) for one in content.vectors}


def n_partitions(worker: RunningWorker) -> int:
    worker.child.check()
    with suppress(UnavailableError):
        return len(worker.stats()["partitions"])
    return 0


def n_done(worker: RunningWorker) -> int:
    worker.child.check()
    with suppress(UnavailableError):  # not listening yet
        return int(worker.stats()["items_done"])
    return 0
