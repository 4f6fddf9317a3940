"""Makes a core's work durable: journal, checkpoints on a thread of their own, heartbeat and fence.

The learner thread appends to the journal and hands over cuts; it waits for the disk only where
something is about to be published. Another thread writes checkpoints. A third keeps the heartbeat
and looks whether a later epoch has been claimed; a process that was stopped for a while looks
again before it publishes anything.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor

import structlog

from schemas.errors import StoreError
from serving.metrics import WorkerMetrics

from .checkpoint.epochs import Tenure
from .checkpoint.journal import JournalEntry
from .checkpoint.pace import EvenPace
from .commits import Positions
from .cut import Captured, positions_of

log = structlog.get_logger(__name__)

BEAT_EVERY_S = 1.0
UNWATCHED_S = 3.0
"""After so long without a look at the fence, publishing looks first: the process was stopped."""

WRITE_SHARE = 0.05
"""Most of the time that writing checkpoints may take, pauses aside; the interval grows with the state."""

SPREAD = 0.25
"""Part of the interval that a checkpoint is written over at most, see `streams.checkpoint.pace`."""

EVEN_BYTES_S = 64 << 20
"""Bytes a second that nobody notices: a small state does not take a quarter of a long interval."""


class Keeper:
    """Keeps one core under one tenure; `append`, `wait_durable`, `wants_cut`, `take` on one thread.

    Parameters
    ----------
    tenure : Tenure
    interval_s : float
        Seconds between checkpoints, at least.
    kept : int
        Checkpoints that stay.
    metrics : WorkerMetrics
    on_failure : Callable[[BaseException], None]
        Called from any thread with what must end the process.
    monotonic : Callable[[], float]
        Seconds.
    writer : Executor, optional
        Where checkpoints are written; by default a thread.
    """

    def __init__(
        self,
        tenure: Tenure,
        *,
        interval_s: float,
        kept: int,
        metrics: WorkerMetrics,
        on_failure: Callable[[BaseException], None],
        monotonic: Callable[[], float] = time.monotonic,
        writer: Executor | None = None,
    ) -> None:
        self.tenure = tenure
        self._interval_s = interval_s
        self._kept = kept
        self._metrics = metrics
        self._on_failure = on_failure
        self._monotonic = monotonic
        base = tenure.base
        self._positions: Positions = {} if base is None else positions_of(base.meta)
        self._noted = 0 if base is None else base.sequence
        self._written = self._noted  # sequence of the newest checkpoint
        self._next_s = monotonic() + interval_s
        self._writer = writer or ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._writing: Future[None] | None = None
        self._looked_s = monotonic()
        self._ended = threading.Event()
        self._hurry = threading.Event()  # the last checkpoint is waited for
        self._guard = threading.Thread(target=self._watch, name="tenure", daemon=True)

    def start(self) -> None:
        """Begin to keep the heartbeat."""
        self._guard.start()

    def append(self, entry: JournalEntry) -> None:
        """Note an entry in the journal; microseconds."""
        self._noted = entry.sequence
        self.tenure.journal.append(entry)

    def wait_durable(self, sequence: int, timeout_s: float | None = None) -> bool:
        """Whether the journal is durable up to `sequence` in time, and we are still its writer.

        Raises
        ------
        FencedError
            A later epoch was claimed.
        StoreError
            The journal cannot be written.
        """
        if not self.tenure.journal.wait_durable(sequence, timeout_s):
            return False
        if self._monotonic() - self._looked_s > UNWATCHED_S:
            self._look()
        return True

    def wants_cut(self) -> bool:
        """Whether the interval has passed, something was learned, and the writer is free."""
        idle = self._writing is None or self._writing.done()
        return idle and self._noted > self._written and self._monotonic() >= self._next_s

    def take(self, captured: Captured) -> None:
        """Write a cut on the writer's thread; a store that fails is tried again with a later cut."""
        self._writing = self._writer.submit(self._write, captured)

    def positions(self) -> Positions:
        """Positions of the newest durable checkpoint; from any thread."""
        return self._positions

    def close(self, captured: Captured) -> None:
        """Write the last cut, end the tenure.

        Raises
        ------
        StoreError
            It could not be written; the journal has what it would have held.
        """
        self._hurry.set()
        if self._writing is not None:
            self._writing.result()
        self.tenure.journal.wait_durable(captured.sequence)
        self._store(captured)
        self.end()

    def end(self) -> None:
        """Stop the heartbeat and close the journal; a checkpoint being written is waited for."""
        self._hurry.set()
        self._ended.set()
        if self._guard.is_alive():
            self._guard.join(5.0)
        self._writer.shutdown(wait=True, cancel_futures=True)
        self.tenure.close()

    def _write(self, captured: Captured) -> None:
        try:
            self._store(captured)
        except StoreError as error:
            self._metrics.failed_checkpoints.inc()
            self._next_s = self._monotonic() + self._interval_s
            log.warning("checkpoint_failed", error=str(error))
        except BaseException as error:
            log.exception("checkpoint_writer_died")
            self._fail(error)

    def _store(self, captured: Captured) -> None:
        started = self._monotonic()
        cut = captured.cut()
        n_bytes = sum(array.nbytes for unit in cut.units.values() for array in unit.values())
        over_s = min(SPREAD * self._interval_s, n_bytes / EVEN_BYTES_S)
        pace = EvenPace(n_bytes, over_s, self._hurry, self._monotonic)
        info = self.tenure.write(cut, pace)
        self._positions = captured.positions
        self._written = captured.sequence
        took = self._monotonic() - started
        busy_s = took - pace.waited_s
        self._next_s = max(started + self._interval_s, self._monotonic() + busy_s / WRITE_SHARE)
        self._metrics.checkpoints.inc()
        self._metrics.checkpoint_seconds.set(took)
        self._metrics.checkpoint_bytes.set(info.n_bytes)
        self._metrics.checkpoint_time.set(time.time())
        log.info(
            "checkpoint_written",
            name=info.name,
            sequence=captured.sequence,
            mib=round(info.n_bytes / 2**20, 1),
            seconds=round(took, 3),
        )
        self.tenure.prune(self._kept)

    def _look(self) -> None:
        before = self._monotonic()
        self.tenure.check()
        self._looked_s = before

    def _watch(self) -> None:
        while not self._ended.wait(BEAT_EVERY_S):
            try:
                self._look()
                self.tenure.beat()
            except StoreError as error:
                log.warning("heartbeat_failed", error=str(error))
            except Exception as error:  # noqa: BLE001 - whatever it was ends the process
                self._fail(error)
                return

    def _fail(self, error: BaseException) -> None:
        self._hurry.set()
        self._looked_s = -math.inf  # the drain that follows publishes only after a look of its own
        self._on_failure(error)
