"""Where the worker's output goes: ports, and their Kafka implementation on confluent-kafka.

A sink accepts whole batches and calls back once, when the broker has acknowledged every message
of the batch. A report of every message would cost as much as producing it, and each hands the
interpreter's lock over once more.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, Final, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import UnavailableError
from schemas.topics import MAX_LETTER_BYTES

FULL_S: Final = 0.005
"""Pause of who sends while librdkafka's queue is full: its thread makes room meanwhile."""

HEARING_S: Final = 0.2
"""The thread of a sink that is gone ends within this."""

log = structlog.get_logger(__name__)

Headers = list[tuple[str, bytes]]


class Delivered(Protocol):
    """Called once a batch is complete."""

    def __call__(self, n: int, failed: int, ago_s: float = 0.0, /) -> None:
        """`n` were acknowledged and `failed` were not, `ago_s` before this call."""


class Sink(Protocol):
    """Takes keyed messages for a topic; acknowledged batches are reported in `poll`."""

    def send(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        delivered: Delivered,
        *,
        partition: int | None = None,
        headers: Sequence[Headers] | None = None,
    ) -> None:
        """Queue a batch."""

    def poll(self) -> None:
        """Run the callbacks of completed batches; never blocks."""

    def flush(self, timeout_s: float) -> int:
        """Wait for everything queued; returns the number of messages still in flight."""


class _Batch:
    """Counts the delivery reports of one `send`: `left` are to come, for `n` messages."""

    __slots__ = ("_ended", "_lock", "delivered", "ended_s", "failed", "left", "n")

    def __init__(self, n: int, left: int, delivered: Delivered, ended: deque[_Batch]) -> None:
        self.n = n
        self.left = left
        self.failed = 0
        self.delivered = delivered
        self.ended_s = 0.0
        self._ended = ended
        self._lock = threading.Lock()

    def report(self, error: KafkaError | None, _message: object) -> None:
        """On the thread that hears reports, and for what is refused at once on the one that sends."""
        if error is not None:
            self.refuse(error)
        with self._lock:
            self.left -= 1
            if self.left:
                return
        self.ended_s = time.monotonic()
        self._ended.append(self)

    def refuse(self, error: KafkaError) -> None:
        with self._lock:
            self.failed += 1
            is_first = self.failed == 1
        if is_first:
            log.error("delivery_failed", cause=str(error))


class _Health:
    """Whether the producers of a sink have failed for good. Apart from it: they would keep it alive."""

    def __init__(self) -> None:
        self.fatal: KafkaError | KafkaException | None = None

    def hear(self, error: KafkaError) -> None:
        if error.fatal():
            self.fatal = error
        else:
            log.warning("producer_error", cause=str(error))

    def check(self) -> None:
        if self.fatal is not None:
            raise UnavailableError(f"the producer failed for good: {self.fatal}")


class KafkaSink:
    """Idempotent producers with a short linger; one sink a process, used by one thread.

    Reports are heard on a thread of each producer's own: the broker's answers are dated when they come
    and not when somebody asks, and librdkafka lets go of its messages there, without the interpreter's lock.
    What follows from a report happens in `poll`.

    Batches for one partition go through a producer that leaves no gap: what it cannot deliver is fatal,
    and the last message of a batch answers for those before it. Everything else, which may fail alone,
    has a producer whose messages answer one by one. Only a fatal error of a producer raises.
    """

    def __init__(self, config: dict[str, Any], *, compression: str = "none", linger_ms: int = 1) -> None:
        self._health = _Health()
        self._ended: deque[_Batch] = deque()
        self._config = config | {
            "enable.idempotence": True,
            "acks": "all",
            "compression.type": compression,
            "linger.ms": linger_ms,
            "message.timeout.ms": 0,  # a broker that is away is waited for, not given up on
            "queue.buffering.max.messages": 1_000_000,
            "queue.buffering.max.kbytes": 262_144,
            "batch.size": 1_000_000,
            "message.max.bytes": MAX_LETTER_BYTES,
            "error_cb": self._health.hear,
            "log_level": 2,
        }
        self._in_order = self._begin({"enable.gapless.guarantee": True})
        self._single: Producer | None = None  # begins with the first message for it: there may be none

    def send(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        delivered: Delivered,
        *,
        partition: int | None = None,
        headers: Sequence[Headers] | None = None,
    ) -> None:
        """Queue a batch; with a partition and without headers in order, 0.6 microseconds a message.

        Otherwise each message may fail alone, librdkafka hashes the keys where no partition is given,
        and a message costs 1 microsecond and 0.9 for its report.
        """
        if not keys:
            delivered(0, 0)
            return
        extra: dict[str, Any] = {}
        if partition is None or headers is not None:
            producer = self._single = self._single or self._begin({})
            batch = _Batch(len(keys), len(keys), delivered, self._ended)
            answering = 0
        else:
            producer = self._in_order
            batch = _Batch(len(keys), 1, delivered, self._ended)
            answering = len(keys) - 1
        target = -1 if partition is None else partition  # -1: librdkafka's partitioner decides
        for i, (key, value) in enumerate(zip(keys, values, strict=True)):
            if headers is not None:
                extra["headers"] = headers[i]
            report = batch.report if i >= answering else None
            while True:
                try:
                    producer.produce(topic, value, key, target, report, **extra)
                    break
                except KafkaException as error:  # refused at once, by size for example
                    if report is None:
                        batch.refuse(error.args[0])
                    else:
                        report(error.args[0], None)
                    break
                except BufferError:  # the local queue is full: let deliveries drain
                    time.sleep(FULL_S)
                    self._health.check()

    def poll(self) -> None:
        """Run the callbacks of completed batches."""
        self._health.check()
        while self._ended:
            batch = self._ended.popleft()
            batch.delivered(batch.n - batch.failed, batch.failed, time.monotonic() - batch.ended_s)

    def flush(self, timeout_s: float) -> int:
        """Wait for everything queued."""
        until = time.monotonic() + timeout_s
        try:
            left = self._in_order.flush(timeout_s)
            if self._single is not None:
                left += self._single.flush(max(0.0, until - time.monotonic()))
        except KafkaException as error:
            raise UnavailableError(f"could not flush the producer: {error}") from None
        self.poll()
        return left

    def _begin(self, more: dict[str, Any]) -> Producer:
        producer = Producer(self._config | more)
        arguments = (weakref.ref(self), self._health, producer)
        threading.Thread(target=_hear, args=arguments, name="deliveries", daemon=True).start()
        return producer


def _hear(sink: weakref.ref[KafkaSink], health: _Health, producer: Producer) -> None:
    """Hear reports until the sink is gone."""
    while sink() is not None:
        try:
            producer.poll(HEARING_S)
        except KafkaException as error:  # how newer releases say that the producer has failed
            health.fatal = error
            return
