"""Where partitions start, what is committed, what was lost: on the consumer's thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import aiokafka
import structlog
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers.aiokafka import ensure_aiokafka_TP
from faust.types import TP

from schemas.errors import StateError

from .batch_topic import BatchTopic, PartitionStart

log = structlog.get_logger(__name__)

COMMIT_ATTEMPTS = 3
COMMIT_TIMEOUT_S = 5.0
COMMIT_BACKOFF_S = 0.2
LONGEST_COMMIT_S = COMMIT_ATTEMPTS * (COMMIT_TIMEOUT_S + COMMIT_ATTEMPTS * COMMIT_BACKOFF_S)
LOOKUP_BACKOFF_S = 0.5

COMMITTED = object()
"""Marks a partition that starts at its committed offset."""


async def start(
    consumer: aiokafka.AIOKafkaConsumer, wanted: Mapping[TP, object], still_wanted: Callable[[], bool]
) -> dict[TP, PartitionStart]:
    """Seek each partition to its wanted offset (int, None for the beginning, or `COMMITTED`).

    Waits for the brokers as long as it takes.

    Raises
    ------
    IllegalStateError
        When the partitions were revoked meanwhile, or `still_wanted` says so.
    StateError
        When a wanted offset lies behind the end of the log: the log is not the one that the
        position was taken from.
    """
    partitions = [ensure_aiokafka_TP(tp) for tp in wanted]
    beginnings, ends, committed = await _look_up(consumer, partitions)
    if not still_wanted():
        raise IllegalStateError("a rebalance began while positions were looked up")
    starts: dict[TP, PartitionStart] = {}
    for tp, wish in wanted.items():
        beginning, end = beginnings[tp], ends[tp]
        position = committed[tp] if wish is COMMITTED else wish
        if not isinstance(position, int):
            position = beginning
        if position > end:
            raise StateError(
                f"{tp.topic}[{tp.partition}] ends at offset {end}, but its position is {position}: "
                "the log was truncated or the topic was created anew"
            )
        first = max(position, beginning)
        consumer.seek(ensure_aiokafka_TP(tp), first)
        starts[tp] = PartitionStart(start=first, committed=committed[tp], end=end, lost=first - position)
    return starts


async def _look_up(
    consumer: aiokafka.AIOKafkaConsumer, partitions: list[TopicPartition]
) -> tuple[dict[TP, int], dict[TP, int], dict[TP, int | None]]:
    while True:
        if not set(partitions) <= consumer.assignment():
            raise IllegalStateError("partitions were revoked while their positions were looked up")
        try:
            (beginnings, ends), committed = await asyncio.gather(
                asyncio.gather(consumer.beginning_offsets(partitions), consumer.end_offsets(partitions)),
                asyncio.gather(*(consumer.committed(tp) for tp in partitions)),
            )
        except IllegalStateError:
            raise
        except KafkaError as error:
            log.warning("position_lookup_failed", error=repr(error))
            await asyncio.sleep(LOOKUP_BACKOFF_S)
        else:
            return beginnings, ends, {TP(*tp): at for tp, at in zip(partitions, committed, strict=True)}


async def commit_offsets(consumer: aiokafka.AIOKafkaConsumer, offsets: Mapping[TP, int]) -> bool:
    """Commit those of `offsets` that are assigned; whether that was all of them.

    A failure is logged and retried; giving up is harmless, as the next commit covers it.
    """
    for attempt in range(1, COMMIT_ATTEMPTS + 1):
        mine = {
            ensure_aiokafka_TP(tp): OffsetAndMetadata(offset, "")
            for tp, offset in offsets.items()
            if tp in consumer.assignment()
        }
        if not mine:
            return not offsets
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT_S):
                await consumer.commit(mine)
        except (CommitFailedError, IllegalStateError) as error:
            # Rebalanced: whoever holds the partitions now commits them.
            log.info("commit_overtaken_by_rebalance", error=repr(error))
            return False
        except (KafkaError, TimeoutError) as error:
            log.warning("commit_failed", error=repr(error), attempt=attempt)
            if attempt < COMMIT_ATTEMPTS:
                await asyncio.sleep(COMMIT_BACKOFF_S * attempt)
        else:
            return len(mine) == len(offsets)
    return False


def report_lost(batch: BatchTopic, tp: TP, n_lost: int) -> None:
    """Log and hand on that retention deleted `n_lost` offsets before they were read."""
    log.error("events_lost", topic=tp.topic, partition=tp.partition, n_lost=n_lost)
    if batch.options.on_lost is not None:
        batch.options.on_lost(tp, n_lost)
