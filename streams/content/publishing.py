"""What was found goes to the broker in an order that a crash at any moment leaves correct.

1. Tags and dead letters are sent, and acknowledged.
2. The content record is sent, and acknowledged: with it the item is done.
3. Only then may the catalogue's offset be committed.

A crash before 2 leaves the item undone: it is encoded again, and writes the same tags over the same key.
After 2 the record is on the topic that is read at the next start before anything else, so nothing of the item
is done again, whatever became of 3. Transactions would tie the topics together as well, but what a killed
process leaves open holds every reader up until it times out, and a transactional id per consumer would have
to be kept somewhere.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import structlog
from msgspec import Struct

from schemas.content import ItemContent, ItemTags, encode_content, encode_tags
from schemas.deadletters import Rejected
from schemas.errors import UnavailableError
from schemas.runs import RecordRun
from schemas.topics import TopicNames
from serving.content_metrics import ContentMetrics

from ..commits import CommitGate
from ..letters import LetterWriter
from ..sinks import Sink
from .index import source_header
from .jobs import Job

log = structlog.get_logger(__name__)

FLUSH_S = 0.5


class Result(Struct, frozen=True, kw_only=True):
    """What became of a job; both None withdraw the item."""

    job: Job
    content: ItemContent | None
    tags: ItemTags | None


class StoppedError(Exception):
    """The process ends while the broker is away: nothing was acknowledged."""


class ContentPublisher:
    """Sends results; of one thread.

    Parameters
    ----------
    sink : Sink
        Its acknowledgements mean stored.
    names : TopicNames
    metrics : ContentMetrics
    stopping : threading.Event
        Ends waiting for a broker that is away.
    """

    def __init__(
        self, sink: Sink, names: TopicNames, metrics: ContentMetrics, stopping: threading.Event
    ) -> None:
        self._sink, self._names, self._metrics, self._stopping = sink, names, metrics, stopping
        self._gate = CommitGate()
        self._letters = LetterWriter(sink, self._gate)
        self._n_failed = 0

    def publish(self, results: Sequence[Result]) -> None:
        """Send results and wait until they are stored; see the module.

        Raises
        ------
        UnavailableError
            The broker refuses a record.
        StoppedError
            The process is told to end, and no broker answers.
        """
        if not results:
            return
        self._send(
            self._names.item_tags,
            [(one, None if one.tags is None else encode_tags(one.tags)) for one in results],
        )
        for one in results:
            if one.job.letters:
                self._bury(one.job)
        self._flush()
        self._send(
            self._names.item_content,
            [(one, None if one.content is None else encode_content(one.content)) for one in results],
        )
        self._flush()

    def _send(self, topic: str, pairs: list[tuple[Result, bytes | None]]) -> None:
        def delivered(_: int, failed: int, _ago_s: float = 0.0, /) -> None:
            self._n_failed += failed

        headers = [[source_header(one.job.source)] if value is None else [] for one, value in pairs]
        keys = [one.job.item_id.encode() for one, _ in pairs]
        self._sink.send(topic, keys, [value for _, value in pairs], delivered, headers=headers)

    def _bury(self, job: Job) -> None:
        """One letter a record, with the first reason; the others stand in its message."""
        first = job.letters[0]
        run = RecordRun(
            topic=self._names.catalogue,
            partition=job.source.partition,
            keys=[job.key],
            values=[job.value],
            offsets=np.array([job.source.offset], dtype=np.int64),
            timestamps_ms=np.array([job.broker_ms], dtype=np.int64),
            next_offset=job.source.offset + 1,
        )
        message = "; ".join(letter.message for letter in job.letters)
        rejected = Rejected(
            index=0, reason=first.reason, field=first.field, message=message[:1024], exception=""
        )
        self._letters.send(run, rejected, "content", 0)
        self._metrics.letters.labels(first.reason).inc()

    def _flush(self) -> None:
        while self._sink.flush(FLUSH_S) or self._gate.n_in_flight:
            self._sink.poll()
            if self._stopping.is_set():
                raise StoppedError
        if self._n_failed:
            raise UnavailableError(f"the broker refused {self._n_failed} records of item content or tags")
