"""One writer's hold on one state: journal, heartbeat, fence, checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import structlog

from schemas.errors import DamagedError, StateError, StoreError

from .format import (
    Checkpoint,
    CheckpointInfo,
    Cut,
    Manifest,
    UnitInfo,
    check_unit_name,
    digest_of_unit,
    encode_arrays,
    seal,
)
from .history import BEATS, CHECKPOINTS, MANIFEST, UNIT, History, checkpoint_name
from .journal import JournalEntry, JournalWriter
from .owners import Beat, check_fence
from .pace import Pace
from .retention import prune
from .segments import epoch_text
from .store import Store

log = structlog.get_logger(__name__)


class Tenure:
    """One writer's hold on one state; made by `claim`.

    `journal.append` and `journal.wait_durable` belong to one thread, `write` and `prune` to another,
    `check` and `beat` to any.

    Attributes
    ----------
    epoch : int
    base : Checkpoint or None
        What to go on from; None when nothing was ever stored.
    end : int
        Sequence of the last entry that was taken over.
    journal : JournalWriter
    """

    def __init__(
        self, store: Store, epoch: int, base: Checkpoint | None, end: int, now_s: Callable[[], float]
    ) -> None:
        self.epoch = epoch
        self.base = base
        self.end = end
        self.journal = JournalWriter(store, epoch, end, self.check)
        self._store = store
        self._now_s = now_s
        self._base_sequence = 0 if base is None else base.sequence
        self._newest = end
        self._verified = set() if base is None else {base.name}
        self._closed = False

    def tail(self) -> Iterator[JournalEntry]:
        """Entries after the base, in order, as far as they were taken over.

        Raises
        ------
        DamagedError
            One of them has gone since the claim.
        FencedError
            A later epoch exists, and its writer did not need them any more.
        """
        with self._or_fenced():
            yield from History(self._store).entries(after=self._base_sequence, upto=self.end)

    def check(self) -> None:
        """Look whether we are still the writer.

        Raises
        ------
        FencedError
            A later epoch exists; names its owner.
        """
        check_fence(self._store, self.epoch)

    def beat(self) -> None:
        """Leave a sign of life."""
        self._beat(released=False)

    def write(self, cut: Cut, pace: Pace | None = None) -> CheckpointInfo:
        """Write a checkpoint, once the journal up to its cut is durable; at a `pace` if one is given.

        Units first, the manifest last and exclusively; the fence is looked at before and after.
        Cost: about 2.5 ms a MB on a local disk.

        Raises
        ------
        StoreError
            Nothing was made that a reader would take.
        FencedError
            A later epoch exists.
        StateError
            The sequence is not above that of the newest checkpoint or entry taken over, or a unit
            cannot be stored.
        """
        if cut.sequence <= self._newest:
            raise StateError(f"a checkpoint of sequence {cut.sequence} cannot follow {self._newest}")
        self.check()
        self.journal.wait_durable(cut.sequence)
        name = checkpoint_name(self.epoch, cut.sequence)
        manifest = f"{CHECKPOINTS}/{name}{MANIFEST}"
        blobs = [manifest]
        units: dict[str, UnitInfo] = {}
        try:
            for unit, arrays in cut.units.items():
                check_unit_name(unit)
                blobs.append(f"{CHECKPOINTS}/{name}/{unit}{UNIT}")
                parts = encode_arrays(arrays)
                self._store.create(blobs[-1], *parts, pace=pace)
                units[unit] = UnitInfo(n_bytes=sum(map(len, parts)), xxh3_128=digest_of_unit(parts))
            self.check()
            described = Manifest(
                epoch=self.epoch,
                sequence=cut.sequence,
                written_at_ms=int(self._now_s() * 1000),
                units=units,
                meta=cut.meta,
            )
            self._store.create(manifest, seal("checkpoint", described))
        except Exception:
            # The manifest first: it may have been made although its create failed. What cannot be
            # removed now is removed by `prune`.
            with suppress(StoreError):
                for blob in blobs:
                    self._store.delete(blob)
            raise
        self.check()
        self._newest = cut.sequence
        self._verified.add(name)
        return CheckpointInfo(
            name=name,
            epoch=self.epoch,
            sequence=cut.sequence,
            n_bytes=sum(info.n_bytes for info in units.values()),
        )

    def prune(self, keep: int) -> None:
        """Remove what the newest `keep` checkpoints do not need, and what dead writers left.

        Raises
        ------
        StoreError
            Some of it could not be removed; the next call tries again.
        FencedError
            A later epoch exists.
        """
        with self._or_fenced():
            self._verified &= prune(self._store, self.epoch, keep, self._verified, self.check)

    def close(self) -> None:
        """End the tenure: the next claim need not wait. Errors are logged."""
        if self._closed:
            return
        self._closed = True
        self.journal.close()
        try:
            self._beat(released=True)
        except StoreError as error:
            log.warning("release_failed", error=str(error))

    @contextmanager
    def _or_fenced(self) -> Iterator[None]:
        """What a successor has removed is no damage."""
        try:
            yield
        except DamagedError:
            self.check()
            raise

    def _beat(self, *, released: bool) -> None:
        beat = Beat(at_s=self._now_s(), durable=self.journal.durable_sequence, released=released)
        self._store.put(f"{BEATS}/{epoch_text(self.epoch)}", seal("heartbeat", beat))
