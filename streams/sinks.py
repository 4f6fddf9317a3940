"""Where the worker's output goes: ports, and their Kafka implementation on confluent-kafka.

A sink accepts whole batches and calls back once, when the broker has acknowledged every message
of the batch: per-message closures would cost more than producing.
"""

from __future__ import annotations

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
    """Counts the delivery reports of one `send`."""

    __slots__ = ("delivered", "failed", "left", "n")

    def __init__(self, n: int, delivered: Delivered) -> None:
        self.n = self.left = n
        self.failed = 0
        self.delivered = delivered

    def report(self, error: KafkaError | None, message: object) -> None:
        if error is not None:
            self.failed += 1
            if self.failed == 1:
                log.error("delivery_failed", cause=str(error))
        self.left -= 1
        if self.left == 0:
            self.delivered(self.n - self.failed, self.failed)


class KafkaSink:
    """Idempotent producer with a short linger; one a process, used by one thread.

    Errors of a message are counted through its batch; only a fatal error of the producer raises.
    """

    def __init__(self, config: dict[str, Any], *, compression: str = "none", linger_ms: int = 5) -> None:
        self._fatal: KafkaError | None = None
        self._producer = Producer(
            config
            | {
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
        )

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
        """Queue a batch; 0.6 microseconds a message and as much for its report, to one partition.

        Without a partition librdkafka hashes keys, and batches on their way are smaller: 1 and 0.9.
        """
        if not keys:
            delivered(0, 0)
            return
        report = _Batch(len(keys), delivered).report
        produce = self._producer.produce
        target = -1 if partition is None else partition  # -1: librdkafka's partitioner decides
        extra: dict[str, Any] = {}
        for i, (key, value) in enumerate(zip(keys, values, strict=True)):
            if headers is not None:
                extra["headers"] = headers[i]
            while True:
                try:
                    produce(topic, value, key, target, report, **extra)
                    break
                except KafkaException as error:  # refused at once, by size for example
                    report(error.args[0], None)
                    break
                except BufferError:  # the local queue is full: let deliveries drain
                    self._producer.poll(0.05)
                    self._raise_fatal()

    def poll(self) -> None:
        """Run the callbacks of completed batches."""
        self._producer.poll(0)
        self._raise_fatal()

    def flush(self, timeout_s: float) -> int:
        """Wait for everything queued."""
        try:
            return self._producer.flush(timeout_s)
        except KafkaException as error:
            raise UnavailableError(f"could not flush the producer: {error}") from None

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._fatal = error
        else:
            log.warning("producer_error", cause=str(error))

    def _raise_fatal(self) -> None:
        if self._fatal is not None:
            raise UnavailableError(f"the producer failed for good: {self._fatal}")
