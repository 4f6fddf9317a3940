# ruff: noqa: SLF001 - reaching into aiokafka's fetcher, as streams/transport_thread.py does
"""Takes what aiokafka's fetcher holds: runs of batch topics, records of all others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from time import monotonic
from typing import Any

import numpy as np
from aiokafka.consumer.fetcher import FetchResult
from faust.types import TP

from schemas.errors import StateError
from schemas.payloads import Payloads
from schemas.runs import RecordRun

from .batch_topic import BatchTopic
from .record_batches import Records
from .transport_pace import rest_s
from .transport_sets import MessageSets


class RunTaker:
    """Lives on the consumer's thread; knows where each partition was left.

    Parameters
    ----------
    on_lost : Callable[[BatchTopic, TP, int], None]
        Called with the number of offsets that retention deleted before they were read.

    Attributes
    ----------
    batches : Mapping[str, BatchTopic]
        The batch topics of the current assignment.
    sets : MessageSets
        To be told of every fetch.
    rest_until : float
        Monotonic time before which nothing should be fetched or taken; see `streams.transport_pace`.
    has_room : bool
        Whether the fetcher was left with nothing of some partition and has not been told of it.
    """

    def __init__(self, on_lost: Callable[[BatchTopic, TP, int], None]) -> None:
        self.batches: Mapping[str, BatchTopic] = {}
        self.sets = MessageSets(lambda topic: topic in self.batches)
        self.rest_until = 0.0
        self.has_room = False
        self._on_lost = on_lost
        self._started: dict[TP, int] = {}  # epoch of the assignment in which it was set
        self._expected: dict[TP, int] = {}
        self._reached: dict[TP, int] = {}  # what the next run follows on

    def begin(self, batches: Mapping[str, BatchTopic]) -> None:
        """Read these topics in runs; what was fetched for an earlier assignment is forgotten."""
        self.batches = batches
        self.sets.forget()

    def expect(self, tp: TP, offset: int, lost: int, epoch: int) -> None:
        """Note that a partition was set to `offset` in `epoch`; retention deleted `lost` before it."""
        self._started[tp] = epoch
        self._expected[tp] = offset
        self._reached[tp] = offset - lost

    def take(self, fetcher: Any, active: set[TP], max_records: int | None, epoch: int) -> dict[TP, list[Any]]:
        """Take from the active partitions: a run of each batch topic with room, records of others.

        A partition of a batch topic gives nothing before it was set in this `epoch`: where one rebalance
        overtakes another, Faust lets things flow on behalf of the earlier one, and what is then fetched
        begins where the group has committed. At most `max_records` of the others. An error that aiokafka
        fetched is raised, before anything is taken.
        """
        taken: dict[TP, list[Any]] = {}
        runs: dict[TP, RecordRun] = {}
        room = {name: topic.queue.room for name, topic in self.batches.items()}
        for tp in list(fetcher._records):
            if tp not in active:
                if not fetcher._subscriptions.is_assigned(tp):
                    del fetcher._records[tp]
                continue
            result = fetcher._records[tp]
            if not isinstance(result, FetchResult):
                if taken:
                    return taken  # the error comes first in the next call
                self._drop(fetcher, tp, at_once=True)
                result.check_raise()
            batch = self.batches.get(tp.topic)
            if batch is None:
                if max_records is None or max_records > 0:
                    records = result.getall(max_records)
                    if max_records is not None:
                        max_records -= len(records)
                    if records:
                        taken[tp] = records
            elif self._started.get(tp) != epoch:
                continue
            elif room[tp.topic] > 0:
                run = self._take_run(tp, result, batch)
                if run is not None:
                    taken[tp] = [run]
                    runs[tp] = run
                    room[tp.topic] -= 1
                    # Others first next time, or a full partition would starve them.
                    fetcher._records.move_to_end(tp)
            if not result.has_more():
                self._drop(fetcher, tp, at_once=batch is None)
        self._rest(runs)
        return taken

    def tell(self, fetcher: Any) -> None:
        """Let the fetcher ask for what it has room for."""
        self.has_room = False
        fetcher._notify(fetcher._wait_consume_future)

    def _drop(self, fetcher: Any, tp: TP, *, at_once: bool) -> None:
        del fetcher._records[tp]
        if at_once:
            fetcher._notify(fetcher._wait_consume_future)
        else:
            self.has_room = True

    def _take_run(self, tp: TP, result: Any, batch: BatchTopic) -> RecordRun | None:
        if not result.check_assignment(tp) or not result.has_more():
            return None
        source = result._partition_records
        first = source.next_fetch_offset
        self._check_jump(tp, first, batch)
        options = batch.options
        reader = self.sets.reader(tp, result)
        records = None if reader is None else reader.take(options.max_records, options.max_bytes)
        if reader is None or records is None or reader.doubtful:
            records = self._take_slowly(result, options.max_records)
        else:
            source.next_fetch_offset = reader.position
            result._update_position()
            if reader.exhausted:
                self.sets.done(tp)
                # Its own generator: the cycle would keep the bytes until a collection, and those are rare.
                source._records_iterator = None
                result._partition_records = None
        next_offset = source.next_fetch_offset
        self._expected[tp] = next_offset
        if not len(records.offsets) and next_offset == first:
            return None
        reached = self._reached.get(tp, first)
        self._reached[tp] = next_offset
        return RecordRun(
            topic=tp.topic,
            partition=tp.partition,
            keys=records.keys,
            values=records.values,
            offsets=records.offsets,
            timestamps_ms=records.timestamps_ms,
            next_offset=next_offset,
            first=reached,
        )

    @staticmethod
    def _take_slowly(result: Any, limit: int) -> Records:
        """As aiokafka reads, for what our reader leaves to it; raises what it raises."""
        source = result._partition_records
        source._consumer_record = _as_is  # not a third object a record
        records = list(islice(source._records_iterator, limit))
        result._update_position()
        if len(records) < limit:
            result._partition_records = None
        return Records(
            offsets=np.array([record.offset for record in records], dtype=np.int64),
            timestamps_ms=np.array([record.timestamp for record in records], dtype=np.int64),
            keys=Payloads.of(record.key for record in records),
            values=Payloads.of(record.value for record in records),
        )

    def _rest(self, runs: Mapping[TP, RecordRun]) -> None:
        """Rest before the next take, so that small runs grow; see `streams.transport_pace`."""
        if runs:
            longest_s = max(self.batches[tp.topic].options.max_wait_s for tp in runs)
            n_records = sum(map(len, runs.values()))
            self.rest_until = monotonic() + rest_s(len(runs), n_records, longest_s)

    def _check_jump(self, tp: TP, first: int, batch: BatchTopic) -> None:
        """The position moves by reading alone; aiokafka's silent reset is a jump."""
        expected = self._expected.get(tp, first)
        if first < expected:
            raise StateError(
                f"{tp.topic}[{tp.partition}] went back from offset {expected} to {first}: "
                "the log was truncated or the topic was created anew"
            )
        if first > expected:
            self._on_lost(batch, tp, first - expected)


def _as_is(_tp: object, record: Any) -> Any:
    return record
