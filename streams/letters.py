"""Writes dead letters: the original bytes on ``<topic>.dlq``, same partition number, reason in headers."""

from __future__ import annotations

from schemas.deadletters import Rejected, Stage, headers_of
from schemas.errors import UnavailableError
from schemas.runs import RecordRun

from .commits import CommitGate
from .sinks import Sink


class LetterWriter:
    """Sends letters; a position is safe to commit only when those below it are acknowledged."""

    def __init__(self, sink: Sink, gate: CommitGate) -> None:
        self._sink = sink
        self._gate = gate

    def send(self, run: RecordRun, rejected: Rejected, stage: Stage, sequence: int) -> None:
        """Bury the record at `rejected.index` of `run`, which was applied as batch `sequence`."""
        topic = f"{run.topic}.dlq"
        offset = int(run.offsets[rejected.index])
        headers = headers_of(rejected, topic=run.topic, partition=run.partition, offset=offset, stage=stage)
        done = self._gate.sent(sequence)

        def delivered(_: int, failed: int) -> None:
            if failed:
                raise UnavailableError(f"the broker refused a dead letter for {topic}")
            done()

        self._sink.send(
            topic,
            [run.keys[rejected.index]],
            [run.values[rejected.index]],
            delivered,
            partition=run.partition,
            headers=[headers],
        )
