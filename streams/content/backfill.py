"""The catalogue read again in the background: items of older encoders, and media to be tried once more.

Every partition that is taken over is looked through once, from its beginning to where live reading starts.
What is published as it should be is passed by; the rest is encoded at a bounded rate, after all that is live.
"""

from __future__ import annotations

import heapq
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from confluent_kafka import Consumer, KafkaError, Message, TopicPartition
from msgspec import Struct

from schemas.content import CatalogueSource
from schemas.errors import ContractError
from schemas.settings import Settings
from schemas.topics import topic_names

from ..context import confluent_config
from .jobs import Job, Planner
from .positions import Hold, Holds

log = structlog.get_logger(__name__)

FETCHED: Final = 100
IDLE_S: Final = 0.2
FIND_S: Final = 10.0
CLOSE_S: Final = 10.0
MOST_WAITING: Final = 32
MOST_AGAIN: Final = 100_000


class _Again(Struct, order=True):
    due_s: float
    source: CatalogueSource
    attempt: int


class _Scan(Struct, eq=False):
    hold: Hold
    stop: int
    position: int = 0


class Backfill:
    """See the module's docstring.

    Parameters
    ----------
    settings : Settings
    planner : Planner
    holds : Holds
    offer : callable
        Takes a job.
    n_waiting : callable
        Background jobs that nobody has begun; reading waits for them.
    on_failure : callable
        Given what ended the thread; must end the process.
    """

    def __init__(
        self,
        settings: Settings,
        planner: Planner,
        holds: Holds,
        *,
        offer: Callable[[Job], None],
        n_waiting: Callable[[], int],
        on_failure: Callable[[BaseException], None],
    ) -> None:
        self._topic = topic_names(settings.kafka.prefix).catalogue
        self._config = {
            name: value for name, value in confluent_config(settings.kafka).items() if name != "partitioner"
        } | {
            "group.id": f"{settings.kafka.prefix}.content-backfill",
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "auto.offset.reset": "earliest",
            "enable.partition.eof": True,
            "queued.max.messages.kbytes": 4_096,
            "log_level": 2,
        }
        self._planner, self._holds, self._offer, self._n_waiting = planner, holds, offer, n_waiting
        self._on_failure = on_failure
        self._pause_s = 1.0 / settings.content.reencode_per_s
        self._lock = threading.Lock()
        self._scans: list[_Scan] = []
        self._again: list[_Again] = []
        self._assigned: tuple[int, int] | None = None
        self._next_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="content-backfill", daemon=True)
        self.n_offered = 0
        """Jobs made."""

    @property
    def n_scans(self) -> int:
        """Partitions that are still looked through."""
        return len(self._scans)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)

    def scan(self, hold: Hold, stop: int) -> None:
        """Look through a partition that was taken over, up to offset `stop`; from any thread."""
        with self._lock:
            self._scans = [one for one in self._scans if one.hold.partition != hold.partition]
            if stop > 0:
                self._scans.append(_Scan(hold, stop))

    def again(self, source: CatalogueSource, after_s: float, attempt: int) -> None:
        """Encode the item of a record once more after a while, if it is still the newest; from any thread."""
        with self._lock:
            if len(self._again) < MOST_AGAIN:
                heapq.heappush(self._again, _Again(time.monotonic() + after_s, source, attempt))

    # -- the thread -----------------------------------------------------------------------------

    def _run(self) -> None:
        consumer = Consumer(self._config)
        try:
            while not self._stop.is_set():
                if not self._step(consumer):
                    self._stop.wait(IDLE_S)
        except BaseException as error:
            log.exception("content_backfill_died")
            self._on_failure(error)
        finally:
            consumer.close()

    def _step(self, consumer: Consumer) -> bool:
        """Whether there was something to do."""
        if self._n_waiting() >= MOST_WAITING:
            return False
        with self._lock:
            due = self._again and self._again[0].due_s <= time.monotonic()
            again = heapq.heappop(self._again) if due else None
            scan = self._scans[0] if self._scans else None
        if again is not None:
            hold = self._holds.of(again.source.partition)
            if hold is not None:
                self._find(consumer, hold, again)
            return True
        if scan is None:
            return False
        if not self._holds.holds(scan.hold) or self._look_through(consumer, scan):
            with self._lock:
                self._scans = [one for one in self._scans if one is not scan]
        return True

    def _look_through(self, consumer: Consumer, scan: _Scan) -> bool:
        """Read on; whether the end was reached."""
        partition = scan.hold.partition
        self._place(consumer, partition, scan.position)
        for message in consumer.consume(FETCHED, 0.2):
            offset, error = message.offset(), message.error()
            if message.partition() != partition or offset is None:
                continue
            if error is None:
                if offset < scan.stop:
                    self._take(message, scan.hold)
                scan.position = offset + 1
            elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - so the library names it
                scan.position = max(scan.position, offset)
            else:
                log.warning("content_backfill_read_failed", cause=str(error))
            if self._stop.is_set():
                return False
        self._assigned = (partition, scan.position)
        return scan.position >= scan.stop

    def _find(self, consumer: Consumer, hold: Hold, again: _Again) -> None:
        """Read one record; compaction has taken it where there is a newer one."""
        partition, offset = again.source.partition, again.source.offset
        self._place(consumer, partition, offset)
        self._assigned = None
        deadline = time.monotonic() + FIND_S
        while time.monotonic() < deadline and not self._stop.is_set():
            for message in consumer.consume(1, 0.2):
                if message.partition() != partition:
                    continue
                if message.error() is None and message.offset() == offset:
                    self._take(message, hold, attempt=again.attempt, again=True)
                return

    def _place(self, consumer: Consumer, partition: int, offset: int) -> None:
        if self._assigned != (partition, offset):
            consumer.assign([TopicPartition(self._topic, partition, offset)])
            self._assigned = (partition, offset)

    def _take(self, message: Message, hold: Hold, *, attempt: int = 0, again: bool = False) -> None:
        offset = message.offset()
        source = CatalogueSource(partition=hold.partition, offset=0 if offset is None else offset)
        try:
            job = self._planner.job(
                message.key(), message.value(), source, message.timestamp()[1], hold,
                background=True, attempt=attempt, again=again,
            )  # fmt: skip
        except ContractError:
            return  # live reading has told of it
        if job is None:
            return
        self._stop.wait(max(0.0, self._next_s - time.monotonic()))
        while self._n_waiting() >= MOST_WAITING and not self._stop.is_set():
            self._stop.wait(IDLE_S)
        self._next_s = time.monotonic() + self._pause_s
        self.n_offered += 1
        self._offer(job)
