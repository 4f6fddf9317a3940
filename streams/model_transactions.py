"""Transactions of the model topics on Kafka: all records of a sync or none, and one writer a model.

The transactional id is ``<prefix>.<model name>``. Claiming it (init_transactions) aborts what an
earlier learner of that name left open, and fences it: whatever it sends from then on is refused.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import structlog
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from schemas.errors import FencedError, ReelflowError, UnavailableError
from schemas.model_values import HEAD, HeadValue, decode_value
from schemas.settings import Settings
from schemas.topics import MAX_RECORD_BYTES, model_topics

from .context import confluent_config
from .model_export import ModelRecord

log = structlog.get_logger(__name__)

CALL_S: Final = 10.0
CLAIM_S: Final = 60.0
TRANSACTION_MS: Final = 60_000
"""After so long without a word the broker aborts what a learner left open; followers wait for that."""

_FENCED: Final = frozenset(
    {
        KafkaError._FENCED,  # noqa: SLF001 - so the library names its public constants
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
    }
)  # fmt: skip


class KafkaTransactions:
    """See the module's docstring; used by one thread, but for `claim`, before.

    Parameters
    ----------
    settings : Settings
    """

    def __init__(self, settings: Settings) -> None:
        self._id = f"{settings.kafka.prefix}.{settings.worker.model_name}"
        self._producer = Producer(
            confluent_config(settings.kafka)
            | {
                "transactional.id": self._id,
                "transaction.timeout.ms": TRANSACTION_MS,
                "compression.type": "lz4",
                "linger.ms": 20,
                "queue.buffering.max.messages": 1_000_000,
                "batch.size": 1_000_000,
                "message.max.bytes": MAX_RECORD_BYTES,
                "error_cb": _on_error,
                "log_level": 2,
            }
        )

    def claim(self) -> None:
        """Become the one writer.

        Raises
        ------
        UnavailableError
            No broker answers.
        """
        deadline = time.monotonic() + CLAIM_S
        self._until(lambda: self._producer.init_transactions(CALL_S), deadline, "claim")

    def write(self, records: Sequence[ModelRecord]) -> None:
        """Write all or nothing.

        Raises
        ------
        UnavailableError
            Nothing was written; the next call may succeed.
        FencedError
            Another learner of this name has begun.
        """
        deadline = time.monotonic() + TRANSACTION_MS / 1000
        self._until(self._producer.begin_transaction, deadline, "begin")
        try:
            for record in records:
                self._produce(record, deadline)
            self._until(lambda: self._producer.commit_transaction(CALL_S), deadline, "commit")
        except UnavailableError:
            self._abort()
            raise

    def _produce(self, record: ModelRecord, deadline: float) -> None:
        while True:
            try:
                self._producer.produce(record.topic, record.value, record.key)
                return
            except BufferError:
                self._producer.poll(0.1)
                if time.monotonic() > deadline:
                    raise UnavailableError("the broker takes no more of the model") from None
            except KafkaException as error:
                raise self._meant(error, "produce") from None

    def _until(self, call: Callable[[], Any], deadline: float, what: str) -> None:
        """Call until it succeeds; what is retriable is tried again until the deadline."""
        while True:
            try:
                call()
                return
            except KafkaException as error:
                cause: KafkaError = error.args[0]
                if not cause.retriable() or time.monotonic() > deadline:
                    raise self._meant(error, what) from None

    def _abort(self) -> None:
        deadline = time.monotonic() + CALL_S
        try:
            self._until(lambda: self._producer.abort_transaction(CALL_S), deadline, "abort")
        except UnavailableError as error:
            log.warning("abort_failed", error=str(error))

    def _meant(self, error: KafkaException, what: str) -> Exception:
        cause: KafkaError = error.args[0]
        if cause.code() in _FENCED:
            return FencedError(
                f"another learner has claimed {self._id}, or this one was silent for longer than its"
                " transaction lasts: it ends"
            )
        if cause.fatal():
            return ReelflowError(f"the producer of {self._id} cannot go on: {cause}")
        return UnavailableError(f"{what} of a model transaction failed: {cause}")


def read_head(settings: Settings, *, timeout_s: float = 15.0) -> HeadValue | None:
    """Newest head of the model's topics, None when there is none; call it after `claim`.

    Raises
    ------
    UnavailableError
        No broker answers, or not in time.
    StateError
        The topics are of another version.
    """
    topic = model_topics(settings.kafka.prefix, settings.worker.model_name).dense
    consumer = Consumer(
        confluent_config(settings.kafka)
        | {
            "group.id": "reelflow-look",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
            "auto.offset.reset": "earliest",
            "error_cb": _on_error,
            "log_level": 2,
        }
    )
    head: HeadValue | None = None
    deadline = time.monotonic() + timeout_s
    try:
        # A topic that is written to all the time is never reported as at its end, so it is asked for.
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=timeout_s)
        consumer.assign([TopicPartition(topic, 0, 0)])
        while time.monotonic() < deadline:
            message = consumer.poll(1.0)
            if message is None:
                continue
            error, key, value = message.error(), message.key(), message.value()
            if error is not None:
                if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001
                    return head
                raise UnavailableError(f"cannot read {topic}: {error}")
            if key == HEAD.encode() and value is not None:
                head = decode_value(value, HeadValue)
            offset = message.offset()
            if offset is not None and offset + 1 >= end:
                return head
    except KafkaException as error:
        raise UnavailableError(f"cannot read {topic}: {error}") from None
    finally:
        consumer.close()
    raise UnavailableError(f"{topic} could not be read in {timeout_s:g} s")


def _on_error(error: KafkaError) -> None:
    log.warning("model_topics_error", cause=str(error))
