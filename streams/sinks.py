"""Where the worker's output goes: ports, and their Kafka implementation on confluent-kafka.

A sink accepts whole batches and calls back once, when the broker has acknowledged every message
of the batch. A report of every message would cost as much as producing it, and each hands the
interpreter's lock over once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import structlog
from confluent_kafka import KafkaError, KafkaException, Producer

from schemas.errors import UnavailableError
from schemas.topics import MAX_LETTER_BYTES

log = structlog.get_logger(__name__)

Headers = list[tuple[str, bytes]]
Delivered = Callable[[int, int], None]
"""Called with (n acknowledged, n failed) once a batch is complete."""


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

    __slots__ = ("delivered", "failed", "left", "n")

    def __init__(self, n: int, left: int, delivered: Delivered) -> None:
        self.n = n
        self.left = left
        self.failed = 0
        self.delivered = delivered

    def report(self, error: KafkaError | None, message: object) -> None:
        if error is not None:
            self.refuse(error)
        self.left -= 1
        if self.left == 0:
            self.delivered(self.n - self.failed, self.failed)

    def refuse(self, error: KafkaError) -> None:
        self.failed += 1
        if self.failed == 1:
            log.error("delivery_failed", cause=str(error))


class KafkaSink:
    """Idempotent producers with a short linger; one sink a process, used by one thread.

    Batches for one partition go through a producer that leaves no gap: what it cannot deliver is fatal,
    and the last message of a batch answers for those before it. Everything else, which may fail alone,
    has a producer whose messages answer one by one. Only a fatal error of a producer raises.
    """

    def __init__(self, config: dict[str, Any], *, compression: str = "none", linger_ms: int = 1) -> None:
        self._fatal: KafkaError | None = None
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
            "error_cb": self._on_error,
            "log_level": 2,
        }
        self._in_order = Producer(self._config | {"enable.gapless.guarantee": True})
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
            producer = self._single = self._single or Producer(self._config)
            batch = _Batch(len(keys), len(keys), delivered)
            answering = 0
        else:
            producer = self._in_order
            batch = _Batch(len(keys), 1, delivered)
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
                    self._drain(producer, 0.05)

    def poll(self) -> None:
        """Run the callbacks of completed batches."""
        self._drain(self._in_order, 0.0)
        if self._single is not None:
            self._drain(self._single, 0.0)

    def flush(self, timeout_s: float) -> int:
        """Wait for everything queued."""
        until = time.monotonic() + timeout_s
        try:
            left = self._in_order.flush(timeout_s)
            if self._single is not None:
                left += self._single.flush(max(0.0, until - time.monotonic()))
            return left
        except KafkaException as error:
            raise UnavailableError(f"could not flush the producer: {error}") from None

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        else:
            log.warning("producer_error", cause=str(error))

    def _drain(self, producer: Producer, timeout_s: float) -> None:
        try:
            producer.poll(timeout_s)
        except KafkaException as error:  # how newer releases say that the producer has failed
            raise UnavailableError(f"the producer failed for good: {error}") from None
        if self._fatal is not None:
            raise UnavailableError(f"the producer failed for good: {self._fatal}")
