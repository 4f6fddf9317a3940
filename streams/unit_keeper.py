"""Keeps a ranker's partitions durable: one tenure a partition, all written by one thread.

The learner thread copies a partition when its turn has come (`due`), and hands the copy over once
the broker has every dead letter of it (`take`). The keeper's thread writes it, looks whether the
tenures still are ours, and leaves signs of life. Whoever takes a partition over claims a later
epoch; what an earlier owner still writes then is refused.
"""

from __future__ import annotations

import math
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

import structlog
from msgspec import Struct

from schemas.errors import FencedError, OwnedError, StoreError
from serving.metrics import WorkerMetrics

from .checkpoint.epochs import Tenure, claim
from .checkpoint.owners import Owner
from .checkpoint.store import Store
from .unit import CapturedUnit

log = structlog.get_logger(__name__)

BEAT_EVERY_S: Final = 2.0
UNWATCHED_S: Final = 3.0
"""After so long without a look at the fence, publishing looks first: the process was stopped."""

YIELD_S: Final = 5.0
"""So long a claim waits for the owner before to write its last state; then it takes over."""

CLOSE_S: Final = 30.0


class _Unit(Struct):
    tenure: Tenure
    sequence: int
    written: int  # position of the newest durable checkpoint
    due_s: float
    busy: bool = False


class _Job(Struct):
    unit: _Unit
    captured: CapturedUnit | None
    last: bool


class UnitKeeper:
    """See the module's docstring.

    Parameters
    ----------
    store : Store
        Where the group's partitions have their folders.
    owner : Owner
    interval_s : float
        Seconds between checkpoints of one partition.
    kept : int
        Checkpoints of a partition that stay.
    metrics : WorkerMetrics
    on_failure : Callable[[BaseException], None]
        Called from the keeper's thread with what must end the process.
    """

    def __init__(
        self,
        store: Store,
        *,
        owner: Owner,
        interval_s: float,
        kept: int,
        metrics: WorkerMetrics,
        on_failure: Callable[[BaseException], None],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._owner = owner
        self._interval_s = interval_s
        self._kept = kept
        self._metrics = metrics
        self._on_failure = on_failure
        self._monotonic = monotonic
        self._units: dict[int, _Unit] = {}
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._looked_s = monotonic()
        self._thread = threading.Thread(target=self._run, name="checkpoint", daemon=True)

    def start(self) -> None:
        """Begin to write and to beat."""
        self._thread.start()

    def claim(self, partition: int, cancelled: threading.Event) -> Tenure:
        """Become the owner of a partition's state; blocks for seconds while its owner before yields.

        The consumer group has given the partition to this process, so an owner that does not yield
        is fenced.

        Raises
        ------
        DamagedError, StoreError
            The state cannot be read.
        FencedError
            Another process claimed after us.
        OwnedError
            It was cancelled while the owner before had not yielded, who may stay the owner.
        """
        store = self._store.sub(f"p-{partition}")
        deadline = self._monotonic() + YIELD_S
        while True:
            take_over = self._monotonic() >= deadline
            try:
                return claim(store, owner=self._owner, take_over=take_over, journalled=False)
            except OwnedError as error:
                if cancelled.is_set():
                    raise
                log.info("partition_owned", partition=partition, by=str(error))
                cancelled.wait(0.25)

    def hold(self, partition: int, tenure: Tenure, position: int) -> None:
        """Keep a partition from now on; its checkpoint, if there is one, is at `position`."""
        spread = self._interval_s * (0.5 + 0.5 * (partition % 8) / 8)  # not all at once
        sequence = max(tenure.end, 0 if tenure.base is None else tenure.base.sequence)
        written = position if tenure.base is not None else -1
        self._units[partition] = _Unit(tenure, sequence, written, self._monotonic() + spread)

    def due(self) -> list[int]:
        """Partitions whose state should be copied now."""
        now_s = self._monotonic()
        return [p for p, unit in list(self._units.items()) if not unit.busy and now_s >= unit.due_s]

    def take(self, captured: CapturedUnit) -> None:
        """Write a copy on the keeper's thread."""
        unit = self._units[captured.partition]
        unit.busy = True
        self._jobs.put(_Job(unit, captured, last=False))

    def release(self, partition: int, captured: CapturedUnit | None) -> None:
        """Keep a partition no longer: write its last state, if given, and let others claim it."""
        unit = self._units.pop(partition, None)
        if unit is not None:
            self._jobs.put(_Job(unit, captured, last=True))

    def positions(self) -> dict[int, int]:
        """Position of the newest durable checkpoint of each partition that has one."""
        return {p: unit.written for p, unit in list(self._units.items()) if unit.written >= 0}

    def before_send(self, sequence: int, timeout_s: float | None) -> bool:
        """Look at the fence when nobody looked for a while; nothing has to be durable first.

        Raises
        ------
        FencedError
            Another process has taken a partition.
        """
        if self._monotonic() - self._looked_s > UNWATCHED_S:
            self._look()
        return True

    def close(self) -> bool:
        """Write what was handed over and end; False when that took too long."""
        for partition in list(self._units):
            self.release(partition, None)
        self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join(CLOSE_S)
        return not self._thread.is_alive()

    # -- the keeper's thread --------------------------------------------------------------------

    def _run(self) -> None:
        next_beat_s = self._monotonic()
        while True:
            try:
                job = self._jobs.get(timeout=max(0.0, next_beat_s - self._monotonic()))
            except queue.Empty:
                job = None
                next_beat_s = self._monotonic() + BEAT_EVERY_S
                self._guarded(self._beat)
                continue
            if job is None:
                return
            self._guarded(lambda job=job: self._write(job))  # type: ignore[misc]

    def _guarded(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            log.exception("unit_keeper_failed")
            self._looked_s = -math.inf  # the drain that follows publishes only after a look of its own
            self._on_failure(error)

    def _look(self) -> None:
        before = self._monotonic()
        for unit in list(self._units.values()):
            unit.tenure.check()
        self._looked_s = before

    def _beat(self) -> None:
        try:
            self._look()
            for unit in list(self._units.values()):
                unit.tenure.beat()
        except StoreError as error:
            log.warning("heartbeat_failed", error=str(error))

    def _write(self, job: _Job) -> None:
        unit, captured = job.unit, job.captured
        try:
            if captured is not None and not (job.last and captured.position == unit.written):
                self._store_unit(unit, captured)
        except StoreError as error:
            self._metrics.failed_checkpoints.inc()
            log.warning("checkpoint_failed", error=str(error))
        except FencedError:
            if not job.last:
                raise
            log.info("released_partition_was_taken", partition=captured.partition if captured else None)
        finally:
            unit.busy = False
            unit.due_s = self._monotonic() + self._interval_s
            if job.last:
                unit.tenure.close()

    def _store_unit(self, unit: _Unit, captured: CapturedUnit) -> None:
        started = self._monotonic()
        unit.sequence += 1
        info = unit.tenure.write(captured.cut(unit.sequence))
        unit.written = captured.position
        self._metrics.checkpoints.inc()
        self._metrics.checkpoint_seconds.set(self._monotonic() - started)
        self._metrics.checkpoint_bytes.set(info.n_bytes)
        self._metrics.checkpoint_time.set(time.time())
        log.debug("unit_written", partition=captured.partition, name=info.name, n_bytes=info.n_bytes)
        unit.tenure.prune(self._kept)
