"""Reads model topics and catalogue on a thread of its own, and hands on what they say.

Read committed, from the beginning of the compacted topics: all items, the dense parameters, the
rows of those users whose partitions are held here, and the whole catalogue, which every ranker
needs. Offsets are not committed, for what is made of them does not outlive the process. A broker
that is away is waited for.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from typing import Final

import numpy as np
import structlog
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from msgspec import Struct

from schemas.errors import TopicError
from schemas.runs import RecordRun
from schemas.settings import Settings
from schemas.topics import model_topics, topic_names

from .context import confluent_config
from .model_export import shape_of
from .staging import Staged, Stager

log = structlog.get_logger(__name__)

Place = tuple[str, int]

FETCHED: Final = 2_000
MOST_STAGED: Final = 20_000
"""Records; about 30 MB at most widths. After them the thread waits for the replica."""

WAITING: Final = 2
LOOK_EVERY_S: Final = 1.0
CLOSE_S: Final = 10.0


class CatalogueRun(Struct, frozen=True, kw_only=True):
    """Consecutive catalogue records of one partition; every record from offset `first` on is in it."""

    run: RecordRun
    first: int


class ReplicaFollower:
    """See the module's docstring.

    Parameters
    ----------
    settings : Settings
    model_name : str
        Whose topics are read.
    on_failure : Callable[[BaseException], None]
        Called from the thread with what ended it; must end the process.
    """

    def __init__(
        self, settings: Settings, model_name: str, on_failure: Callable[[BaseException], None]
    ) -> None:
        names = model_topics(settings.kafka.prefix, model_name)
        self._config = confluent_config(settings.kafka) | {
            "group.id": f"{settings.kafka.prefix}.replica.{model_name}",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 32_768,
            "error_cb": _on_error,
            "log_level": 2,
        }
        self._users_topic = names.users
        self._catalogue = topic_names(settings.kafka.prefix).catalogue
        self._shelves = {(self._catalogue, p) for p in range(settings.kafka.partitions)}
        self._model = {(names.items, p) for p in range(settings.kafka.partitions)} | {(names.dense, 0)}
        self._stager = Stager(names, shape_of(settings.learner))
        self._on_failure = on_failure
        self._ready: queue.Queue[Staged | CatalogueRun] = queue.Queue(WAITING)
        self._wanted: set[Place] = self._model | self._shelves
        self._again: queue.SimpleQueue[tuple[Place, int]] = queue.SimpleQueue()
        self._shelved: dict[int, list[Message]] = {}
        self._assigned: set[Place] = set()
        self._positions: dict[Place, int] = {}
        self._ends: dict[Place, int] = {}
        self._reached: set[Place] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replica", daemon=True)
        self.lag_records = 0
        """Records behind the topics' ends, as last looked at."""

    @property
    def caught_up(self) -> bool:
        """Whether items and dense parameters were read to an end that they had since the start."""
        return self._model <= self._reached

    @property
    def catalogue_caught_up(self) -> bool:
        """The same of the catalogue."""
        return self._shelves <= self._reached

    @property
    def n_refused(self) -> int:
        """Records that were not used; see `Stager`."""
        return self._stager.n_refused

    def start(self) -> None:
        """Begin to read."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def follow_users(self, partitions: frozenset[int]) -> None:
        """Read the users of these behaviour partitions, and of no others; from any thread."""
        self._wanted = self._model | self._shelves | {(self._users_topic, p) for p in partitions}

    def read_again(self, partition: int, offset: int) -> None:
        """Hand on the catalogue's `partition` from `offset` on once more; from any thread."""
        self._again.put(((self._catalogue, partition), offset))

    def pop(self) -> Staged | CatalogueRun | None:
        """What was read, None when nothing waits; never blocks."""
        try:
            return self._ready.get_nowait()
        except queue.Empty:
            return None

    # -- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        consumer = Consumer(self._config)
        try:
            self._read(consumer)
        except BaseException as error:
            log.exception("replica_follower_died")
            self._on_failure(error)
        finally:
            consumer.close()

    def _read(self, consumer: Consumer) -> None:
        refused, looked_s = 0, 0.0
        while not self._stop.is_set():
            self._assign(consumer)
            for message in consumer.consume(FETCHED, 0.1):
                self._take(message)
            self._shelve()
            if len(self._stager):
                self._hand_over()
            if not len(self._stager):
                self._look_for_ends(consumer)
            if self._stager.n_refused > refused:
                refused = self._stager.n_refused
                log.error("model_records_refused", n=refused, last=self._stager.last_refusal)
            if time.monotonic() - looked_s > LOOK_EVERY_S:
                looked_s = time.monotonic()
                self.lag_records = self._lag(consumer)

    def _assign(self, consumer: Consumer) -> None:
        wanted = self._wanted
        while not self._again.empty():
            place, offset = self._again.get()
            if place in self._assigned and offset < self._positions.get(place, 0):
                consumer.incremental_unassign([TopicPartition(*place)])
                consumer.incremental_assign([TopicPartition(*place, offset)])
                self._positions[place] = offset
        if wanted == self._assigned:
            return
        gone, new = self._assigned - wanted, wanted - self._assigned
        if gone:
            consumer.incremental_unassign([TopicPartition(*place) for place in gone])
        if new:
            for place in new:
                self._stager.forget(*place)
                self._positions.pop(place, None)
            consumer.incremental_assign([TopicPartition(*place, 0) for place in sorted(new)])
        self._assigned = set(wanted)

    def _take(self, message: Message) -> None:
        topic, partition, offset = message.topic(), message.partition(), message.offset()
        error = message.error()
        if topic is None or partition is None or offset is None:
            if error is not None:
                log.warning("replica_read_failed", cause=str(error))
            return
        place = (topic, partition)
        if place not in self._assigned:
            return
        if error is not None:
            self._note(error, place, offset)
            return
        if topic == self._catalogue:
            if offset >= self._positions.get(place, 0):  # below: fetched before it was read again
                self._shelved.setdefault(partition, []).append(message)
            return
        self._positions[place] = offset + 1
        before = self._stager.add(topic, partition, message.key(), message.value())
        if before is not None:
            self._put(before)

    def _note(self, error: KafkaError, place: Place, offset: int) -> None:
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - so the library names its constants
            if place[0] == self._catalogue:
                self._shelve()
            self._positions[place] = offset
            if place not in self._reached:
                if len(self._stager):
                    self._put(self._stager.take())  # reached means: handed over
                self._reached.add(place)
            return
        if error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001
            raise TopicError(f"{place[0]} does not exist; create topics with `reelflow topics create`")
        log.warning("replica_read_failed", topic=place[0], partition=place[1], cause=str(error))

    def _look_for_ends(self, consumer: Consumer) -> None:
        """Note which partitions were read to the end they had when their first record came.

        One that is written to all the time is never reported as at its end.
        """
        for place in self._assigned - self._reached:
            if place in self._positions:
                _, high = consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
                if high >= 0 and self._positions[place] >= self._ends.setdefault(place, high):
                    self._reached.add(place)

    def _hand_over(self) -> None:
        """Give what is staged if there is a place; wait for one only when much is staged."""
        if not self._ready.full() or len(self._stager) >= MOST_STAGED:
            self._put(self._stager.take())

    def _shelve(self) -> None:
        """Hand on the catalogue's records that were read."""
        shelved, self._shelved = self._shelved, {}
        for partition, messages in shelved.items():
            place = (self._catalogue, partition)
            offsets = np.array([message.offset() for message in messages], dtype=np.int64)
            run = RecordRun(
                topic=self._catalogue,
                partition=partition,
                keys=[message.key() for message in messages],
                values=[message.value() for message in messages],
                offsets=offsets,
                timestamps_ms=np.array([message.timestamp()[1] for message in messages], dtype=np.int64),
                next_offset=int(offsets[-1]) + 1,
            )
            self._put(CatalogueRun(run=run, first=self._positions.get(place, 0)))
            self._positions[place] = run.next_offset

    def _put(self, what: Staged | CatalogueRun) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(what, timeout=0.2)
                return
            except queue.Full:
                continue

    def _lag(self, consumer: Consumer) -> int:
        behind = 0
        for place in self._assigned:
            ends = consumer.get_watermark_offsets(TopicPartition(*place), cached=True)
            if ends[1] >= 0:
                behind += max(0, ends[1] - self._positions.get(place, max(ends[0], 0)))
        return behind


def _on_error(error: KafkaError) -> None:
    log.warning("replica_error", cause=str(error))
