"""Writes dead letters: the original bytes on ``<topic>.dlq``, same partition number, reason in headers."""

from __future__ import annotations

import hashlib

import structlog

from schemas.deadletters import Rejected, Stage, headers_of
from schemas.errors import UnavailableError
from schemas.runs import RecordRun
from schemas.topics import MAX_LETTER_BYTES

from .commits import CommitGate
from .sinks import Sink

log = structlog.get_logger(__name__)

MOST_CARRIED_BYTES = MAX_LETTER_BYTES // 2


class LetterWriter:
    """Sends letters; a position is safe to commit only when those below it are acknowledged.

    The broker limits batches as they are stored, so a compressed value can be larger than any
    letter. Such a letter has no value; length and SHA-256 of the original stand in its headers.
    """

    def __init__(self, sink: Sink, gate: CommitGate) -> None:
        self._sink = sink
        self._gate = gate

    def send(self, run: RecordRun, rejected: Rejected, stage: Stage, sequence: int) -> None:
        """Bury the record at `rejected.index` of `run`, which was applied as batch `sequence`."""
        value = run.values[rejected.index]
        fits = value is None or len(value) <= MOST_CARRIED_BYTES
        self._send(run, rejected, stage, sequence, with_value=fits)

    def _send(
        self, run: RecordRun, rejected: Rejected, stage: Stage, sequence: int, *, with_value: bool
    ) -> None:
        topic = f"{run.topic}.dlq"
        offset = int(run.offsets[rejected.index])
        value = run.values[rejected.index]
        headers = headers_of(
            rejected,
            topic=run.topic,
            partition=run.partition,
            offset=offset,
            stage=stage,
            n_bytes=0 if value is None else len(value),
            sha256="" if with_value or value is None else hashlib.sha256(value).hexdigest(),
        )
        done = self._gate.sent(sequence)

        def delivered(_: int, failed: int, _ago_s: float = 0.0, /) -> None:
            if failed and (not with_value or value is None):
                raise UnavailableError(f"the broker refused a dead letter for {topic}[{run.partition}]")
            if failed:
                log.warning("letter_without_value", topic=topic, partition=run.partition, offset=offset)
                self._send(run, rejected, stage, sequence, with_value=False)
            done()

        self._sink.send(
            topic,
            [run.keys[rejected.index]],
            [value if with_value else None],
            delivered,
            partition=run.partition,
            headers=[headers],
        )
