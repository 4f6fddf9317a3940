"""Streaming a source to the topics: catalogue first, then events at their pace."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import KafkaError, KafkaException, Producer
from msgspec import Struct

from schemas.errors import TopicError, UnavailableError
from schemas.settings import KafkaSettings
from schemas.topics import topic_names

from ..context import confluent_config
from .pacing import Pacer, Pacing
from .source import Record, Source

METADATA_TIMEOUT_S: Final = 10.0
FLUSH_TIMEOUT_S: Final = 60.0
_PROGRESS_EVERY_S: Final = 0.2
_POLL_EVERY: Final = 1_000
_LONGEST_WAIT_S: Final = 0.1


class ReplayProgress(Struct, frozen=True, kw_only=True):
    """Where a replay stands; counts are of messages handed to the producer."""

    items: int
    events: int
    ts_ms: int | None


class ReplayReport(Struct, frozen=True, kw_only=True):
    """What became of a replay.

    Attributes
    ----------
    items, events : int
        Messages that the broker acknowledged.
    failed : int
        Messages that it did not; `first_failure` says why the first one was refused.
    first_ts_ms, last_ts_ms : int or None
        Earliest and latest event time sent.
    events_per_s : float
        Events sent a second of the event phase.
    stopped : bool
        Whether it was told to stop before the end.
    """

    items: int
    events: int
    failed: int
    first_failure: str | None
    first_ts_ms: int | None
    last_ts_ms: int | None
    wall_s: float
    events_per_s: float
    stopped: bool


class TopicWriter:
    """Idempotent producer (acks=all, lz4) of events and items that counts what was delivered.

    Used by one thread.

    Raises
    ------
    UnavailableError
        The broker does not answer, or the producer failed for good.
    TopicError
        One of the two topics does not exist.
    """

    def __init__(self, kafka: KafkaSettings, *, linger_ms: int = 5) -> None:
        names = topic_names(kafka.prefix)
        self._topics = {"event": names.behaviour, "item": names.catalogue}
        self.events = self.items = self.failed = 0
        self.first_failure: str | None = None
        self._fatal: KafkaError | None = None
        self._reports = {"event": self._event_delivered, "item": self._item_delivered}
        self._producer = Producer(
            confluent_config(kafka)
            | {
                "enable.idempotence": True,
                "acks": "all",
                "compression.type": "lz4",
                "linger.ms": linger_ms,
                "queue.buffering.max.messages": 200_000,
                "queue.buffering.max.kbytes": 131_072,
                # Let the broker judge the size: its refusal is counted like any other.
                "message.max.bytes": 8_388_608,
                "error_cb": self._on_error,
                "log_level": 2,
            }
        )
        self._check_topics(kafka.bootstrap)

    def send(self, record: Record) -> None:
        """Queue a message; waits where the local queue is full. About 1 microsecond."""
        while True:
            try:
                self._producer.produce(
                    self._topics[record.kind],
                    record.value,
                    record.key,
                    on_delivery=self._reports[record.kind],
                )
                return
            except BufferError:
                self.poll(_LONGEST_WAIT_S)
            except KafkaException as error:
                self._count_failure(error.args[0])
                return

    def poll(self, timeout_s: float = 0.0) -> None:
        """Take in delivery reports, waiting for the first one at most `timeout_s`."""
        self._producer.poll(timeout_s)
        if self._fatal is not None:
            raise UnavailableError(f"the producer failed for good: {self._fatal}")

    def flush(self, timeout_s: float = FLUSH_TIMEOUT_S) -> None:
        """Wait until everything queued is acknowledged; what is not by then counts as failed."""
        left = self._producer.flush(timeout_s)
        if left:
            self._producer.purge()
            self._producer.flush(1.0)

    def _check_topics(self, bootstrap: str) -> None:
        try:
            existing = self._producer.list_topics(timeout=METADATA_TIMEOUT_S).topics
        except KafkaException as error:
            raise UnavailableError(f"no broker answers at {bootstrap}: {error.args[0].str()}") from error
        if missing := [name for name in self._topics.values() if name not in existing]:
            raise TopicError(f"{' and '.join(missing)} missing at {bootstrap}: run `reelflow topics create`")

    def _event_delivered(self, error: KafkaError | None, message: object) -> None:
        if error is None:
            self.events += 1
        else:
            self._count_failure(error)

    def _item_delivered(self, error: KafkaError | None, message: object) -> None:
        if error is None:
            self.items += 1
        else:
            self._count_failure(error)

    def _count_failure(self, error: Any) -> None:
        self.failed += 1
        if self.first_failure is None:
            self.first_failure = error.str() if isinstance(error, KafkaError) else str(error)

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error


def replay(
    source: Source,
    kafka: KafkaSettings,
    pacing: Pacing,
    on_progress: Callable[[ReplayProgress], None] | None = None,
    stop: threading.Event | None = None,
) -> ReplayReport:
    """Send a source to the topics: its catalogue, acknowledged, then its events.

    Parameters
    ----------
    source : Source
        What to send.
    kafka : KafkaSettings
        Where to.
    pacing : Pacing
        How fast; the catalogue is always sent at once.
    on_progress : callable or None
        Called about five times a second.
    stop : threading.Event or None
        Ends the replay early; what was queued is still flushed.

    Returns
    -------
    ReplayReport

    Raises
    ------
    UnavailableError, TopicError
        As `TopicWriter`.
    SourceError
        The source cannot be read further; what was queued before is flushed.
    """
    return _Replay(source, TopicWriter(kafka), pacing, on_progress, stop or threading.Event()).run()


class _Replay:
    """One run of `replay`."""

    def __init__(
        self,
        source: Source,
        writer: TopicWriter,
        pacing: Pacing,
        on_progress: Callable[[ReplayProgress], None] | None,
        stop: threading.Event,
    ) -> None:
        self._source = source
        self._writer = writer
        self._pacer = Pacer(pacing, time.monotonic)
        self._on_progress = on_progress
        self._stop = stop
        self._items = self._events = 0
        self._first_ts_ms: int | None = None
        self._last_ts_ms: int | None = None
        self._next_progress_s = 0.0

    def run(self) -> ReplayReport:
        started_s = time.monotonic()
        events_from_s = started_s
        try:
            self._send_items()
            events_from_s = time.monotonic()
            self._send_events()
        finally:
            self._writer.flush()
        ended_s = time.monotonic()
        self._progress(ended_s, force=True)
        writer = self._writer
        return ReplayReport(
            items=writer.items,
            events=writer.events,
            failed=writer.failed,
            first_failure=writer.first_failure,
            first_ts_ms=self._first_ts_ms,
            last_ts_ms=self._last_ts_ms,
            wall_s=round(ended_s - started_s, 3),
            events_per_s=round(writer.events / max(ended_s - events_from_s, 1e-9), 1),
            stopped=self._stop.is_set(),
        )

    def _send_items(self) -> None:
        for record in self._source.items():
            if self._stop.is_set():
                return
            self._writer.send(record)
            self._items += 1
            if not self._items % _POLL_EVERY:
                self._writer.poll()
                self._progress(time.monotonic())
        self._writer.flush()

    def _send_events(self) -> None:
        for record in self._source.events():
            if not self._wait_for(record):
                return
            self._writer.send(record)
            if record.kind == "item":
                self._items += 1
                continue
            self._pacer.sent()
            self._events += 1
            ts_ms = record.ts_ms
            if self._first_ts_ms is None or ts_ms < self._first_ts_ms:
                self._first_ts_ms = ts_ms
            if self._last_ts_ms is None or ts_ms > self._last_ts_ms:
                self._last_ts_ms = ts_ms
            if not self._events % _POLL_EVERY:
                self._writer.poll()
                self._progress(time.monotonic())

    def _wait_for(self, record: Record) -> bool:
        """Wait until an event is due, taking in delivery reports; False when told to stop."""
        if record.kind == "event":
            while (wait_s := self._pacer.wait_s(record.ts_ms)) > 0 and not self._stop.is_set():
                self._progress(time.monotonic())
                # A poll waits whole milliseconds: less than one would turn this loop into a spinning one.
                self._writer.poll(min(math.ceil(wait_s * 1000) / 1000, _LONGEST_WAIT_S))
        return not self._stop.is_set()

    def _progress(self, now_s: float, *, force: bool = False) -> None:
        if self._on_progress is not None and (force or now_s >= self._next_progress_s):
            self._next_progress_s = now_s + _PROGRESS_EVERY_S
            self._on_progress(ReplayProgress(items=self._items, events=self._events, ts_ms=self._last_ts_ms))
