"""Ranges of offsets read again from the broker, in any order of partitions, with bounded memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol
from uuid import uuid4

import numpy as np
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from schemas.errors import StateError, UnavailableError
from schemas.runs import RecordRun
from schemas.settings import KafkaSettings

from .context import confluent_config

AT_ONCE = 10_000
MOST_WAITING = 50_000
TIMEOUT_S = 60.0

Place = tuple[str, int]


class LogReader(Protocol):
    """Reads the log again."""

    def start(self, positions: Mapping[Place, int]) -> None:
        """Where reading of each partition begins; only forwards from there."""

    def read(self, topic: str, partition: int, first: int, next_offset: int) -> RecordRun:
        """The records of ``[first, next_offset)`` that the log still has."""

    def begins(self, topic: str, partition: int) -> int:
        """First offset that the log still has."""


class KafkaLogReader:
    """Reads with a consumer of its own that belongs to no group and commits nothing."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._consumer = Consumer(
            {name: value for name, value in confluent_config(kafka).items() if name != "partitioner"}
            | {
                "group.id": f"reelflow-refold-{uuid4().hex}",
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "fetch.max.bytes": 32 * 2**20,
                "queued.max.messages.kbytes": 65_536,
            }
        )
        self._bootstrap = kafka.bootstrap
        self._waiting: dict[Place, list[Any]] = {}
        self._seen_to: dict[Place, int] = {}
        self._paused: set[Place] = set()
        self._bounds: dict[Place, tuple[int, int]] = {}

    def start(self, positions: Mapping[Place, int]) -> None:
        """Where reading of each partition begins; only forwards from there."""
        self._waiting = {place: [] for place in positions}
        self._seen_to = dict(positions)
        wanted = []
        for place, position in positions.items():
            begins = self.begins(*place)
            wanted.append(TopicPartition(*place, max(position, begins)))
        if wanted:
            self._consumer.assign(wanted)

    def begins(self, topic: str, partition: int) -> int:
        """First offset that the log still has.

        Raises
        ------
        UnavailableError
            No broker answers.
        """
        return self._bounds_of(topic, partition)[0]

    def ends(self, topic: str, partition: int) -> int:
        """End of the log when it was first asked for."""
        return self._bounds_of(topic, partition)[1]

    def _bounds_of(self, topic: str, partition: int) -> tuple[int, int]:
        place = (topic, partition)
        if place not in self._bounds:
            try:
                self._bounds[place] = self._consumer.get_watermark_offsets(
                    TopicPartition(topic, partition), timeout=TIMEOUT_S
                )
            except KafkaException as error:
                raise UnavailableError(f"cannot look at {topic}[{partition}]: {error}") from None
        return self._bounds[place]

    def read(self, topic: str, partition: int, first: int, next_offset: int) -> RecordRun:
        """The records of ``[first, next_offset)`` that the log still has; ranges must ascend.

        Raises
        ------
        StateError
            The log ends before `next_offset`.
        UnavailableError
            The broker answers nothing for a minute.
        """
        place = (topic, partition)
        while self._seen_to[place] < next_offset:
            self._fetch(place, next_offset)
        waiting = self._waiting[place]
        n = 0
        while n < len(waiting) and waiting[n].offset() < next_offset:
            n += 1
        taken, self._waiting[place] = waiting[:n], waiting[n:]
        taken = [message for message in taken if message.offset() >= first]
        if len(self._waiting[place]) < MOST_WAITING and place in self._paused:
            self._consumer.resume([TopicPartition(*place)])
            self._paused.discard(place)
        return RecordRun(
            topic=topic,
            partition=partition,
            keys=[message.key() for message in taken],
            values=[message.value() for message in taken],
            offsets=np.array([message.offset() for message in taken], dtype=np.int64),
            timestamps_ms=np.array([message.timestamp()[1] for message in taken], dtype=np.int64),
            next_offset=next_offset,
        )

    def _fetch(self, wanted: Place, next_offset: int) -> None:
        if wanted in self._paused:
            self._consumer.resume([TopicPartition(*wanted)])
            self._paused.discard(wanted)
        # Given a timeout, it waits for as many as were asked for, or for all of the time.
        messages: list[Any] = self._consumer.consume(AT_ONCE, timeout=0)
        waited = 0.0
        while not messages:
            if waited >= TIMEOUT_S:
                raise UnavailableError(f"{self._bootstrap} answers nothing for {TIMEOUT_S:g} s")
            messages = self._consumer.consume(1, timeout=1.0)
            waited += 1.0
        for message in messages:
            place = (message.topic(), message.partition())
            error = message.error()
            if error is None:
                self._waiting[place].append(message)
                self._seen_to[place] = message.offset() + 1
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the library's own name
                end = message.offset()
                self._seen_to[place] = max(self._seen_to[place], end)
                if place == wanted and end < next_offset:
                    raise StateError(
                        f"{place[0]}[{place[1]}] ends at offset {end}, and the journal names records up to"
                        f" {next_offset}: the log was truncated or the topic was created anew"
                    )
            else:
                raise UnavailableError(f"cannot read {place[0]}[{place[1]}] again: {error}")
        full = [place for place, held in self._waiting.items() if len(held) > MOST_WAITING]
        for place in full:
            if place != wanted and place not in self._paused:
                self._consumer.pause([TopicPartition(*place)])
                self._paused.add(place)

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close()
