# ruff: noqa: SLF001 - reaching into aiokafka's fetcher, as streams/transport_thread.py does
"""The message sets that brokers sent, kept beside aiokafka's records until they are read.

aiokafka's own holder of a message set does not give its bytes back, so they are taken from the
broker's answer as it passes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from faust.types import TP

from .record_batches import BatchReader


class MessageSets:
    """Message sets by partition; one each, as aiokafka keeps them.

    Parameters
    ----------
    wanted : Callable[[str], bool]
        Whether a topic is read from here.
    """

    def __init__(self, wanted: Callable[[str], bool]) -> None:
        self._wanted = wanted
        self._sets: dict[TP, tuple[int, bytes]] = {}
        self._readers: dict[TP, tuple[Any, BatchReader]] = {}

    def keep(self, request: Any, answer: Any) -> None:
        """Note the message sets in the answer to a fetch request."""
        asked = {
            TP(topic, partition): offset
            for topic, partitions in request.topics
            if self._wanted(topic)
            for partition, offset, _ in partitions
        }
        if not asked:
            return
        for topic, partitions in answer.topics:
            for partition, error_code, _, *rest in partitions:
                tp = TP(topic, partition)
                if tp in asked and not error_code and rest[-1]:
                    self._sets[tp] = asked[tp], rest[-1]

    def reader(self, tp: TP, result: Any) -> BatchReader | None:
        """The reader of what the fetcher holds as `result`; None when its bytes are not known."""
        reading = self._readers.get(tp)
        if reading is not None and reading[0] is result:
            return reading[1]
        source = result._partition_records
        offset, data = self._sets.pop(tp, (None, b""))
        if offset != source.next_fetch_offset:
            self._readers.pop(tp, None)
            return None
        reader = BatchReader(data, source._aborted_transactions, source.next_fetch_offset)
        self._readers[tp] = result, reader
        return reader

    def done(self, tp: TP) -> None:
        """Forget what was read to its end."""
        self._readers.pop(tp, None)

    def forget(self) -> None:
        """Forget everything."""
        self._sets.clear()
        self._readers.clear()
