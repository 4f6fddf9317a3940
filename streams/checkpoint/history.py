"""What a store holds of one state: the epochs its history goes through, checkpoints, journal.

Each epoch begins with a start record. It names the checkpoint that the epoch goes on from, and the
*stretches* before it: of each earlier epoch, the sequences that belong to the history. Whatever
else a store holds (what a fenced writer wrote afterwards, what a restore has dropped) is no part of
the history, and is never read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import structlog
from msgspec import Struct

from schemas.errors import DamagedError, MissingError, StateError
from schemas.learner import Arrays

from .format import Checkpoint, Manifest, decode_arrays, digest_of_unit, unseal
from .segments import FOLDER as JOURNAL
from .segments import JournalEntry, epoch_text, read_entries, segments
from .store import Store

__all__ = ["Checkpoint", "History", "Start", "Stretch"]

log = structlog.get_logger(__name__)

EPOCHS: Final = "epochs"
STARTS: Final = "starts"
CHECKPOINTS: Final = "checkpoints"
BEATS: Final = "heartbeats"
MANIFEST: Final = ".json"
UNIT: Final = ".safetensors"
OPEN_END: Final = 2**62
_NAME: Final = re.compile(r"\d{8,}-\d{16,}")


class Stretch(Struct, kw_only=True, frozen=True):
    """Sequences ``first`` to ``upto`` of the history were applied in `epoch`."""

    epoch: int
    first: int
    upto: int


class Start(Struct, kw_only=True, frozen=True):
    """What an epoch starts from.

    Attributes
    ----------
    base : str or None
        Name of the checkpoint.
    journalled : bool
        Whether entries follow checkpoints; where not, a checkpoint is all there is.
    stretches : list of Stretch
        History before this epoch, oldest first, as far back as something is kept.
    first : int
        Sequence with which this epoch's own part begins.
    """

    epoch: int
    base: str | None
    journalled: bool
    stretches: list[Stretch]
    first: int


def checkpoint_name(epoch: int, sequence: int) -> str:
    """Name of a checkpoint; names sort by epoch, then sequence.

    >>> split_name(checkpoint_name(3, 9120))
    (3, 9120)
    """
    return f"{epoch_text(epoch)}-{sequence:016d}"


def split_name(name: str) -> tuple[int, int]:
    """Epoch and sequence of a checkpoint's name.

    Raises
    ------
    StateError
        It is no such name.
    """
    if not _NAME.fullmatch(name):
        raise StateError(f"{name!r} is no name of a checkpoint (epoch-sequence)")
    epoch, _, sequence = name.partition("-")
    return int(epoch), int(sequence)


def numbers(store: Store, folder: str) -> list[int]:
    """Epochs that have something in a folder, ascending."""
    return sorted(int(name) for name in store.names(folder) if name.isdecimal())


def manifest_names(store: Store) -> list[str]:
    """Names of all complete checkpoints in a store, of its history or not; oldest first."""
    found = (name.removesuffix(MANIFEST) for name in store.names(CHECKPOINTS) if name.endswith(MANIFEST))
    return sorted(name for name in found if _NAME.fullmatch(name))


def unit_folders(store: Store) -> list[str]:
    """Names of checkpoints that units were written for, complete or not; oldest first."""
    return sorted(name for name in store.names(CHECKPOINTS) if _NAME.fullmatch(name))


def newest_epoch(store: Store, folders: Sequence[str] = (EPOCHS, STARTS, JOURNAL)) -> int:
    """The newest epoch that has left a trace among checkpoints or in `folders`, 0 without one."""
    used = [number for folder in folders for number in numbers(store, folder)]
    return max([*used, *(split_name(name)[0] for name in manifest_names(store))], default=0)


def read_manifest(store: Store, name: str) -> Manifest:
    """Manifest of a checkpoint.

    Raises
    ------
    DamagedError
        It is missing or not what was written.
    """
    try:
        data = store.read(f"{CHECKPOINTS}/{name}{MANIFEST}")
    except MissingError:
        raise DamagedError(f"checkpoint {name} does not exist") from None
    manifest = unseal("checkpoint", f"checkpoint {name}", data, Manifest)
    if (manifest.epoch, manifest.sequence) != split_name(name):
        raise DamagedError(f"checkpoint {name} holds another one")
    return manifest


def read_checkpoint(store: Store, name: str) -> Checkpoint:
    """Read and verify a whole checkpoint. Cost: about 2 ms a MB.

    Raises
    ------
    DamagedError
        Names the unit that is missing, or not what was written.
    StateError
        A version wrote it that this one cannot read.
    """
    manifest = read_manifest(store, name)
    units: dict[str, Arrays] = {}
    for unit, info in manifest.units.items():
        try:
            data = store.read(f"{CHECKPOINTS}/{name}/{unit}{UNIT}")
        except MissingError:
            raise DamagedError(f"checkpoint {name} lacks its unit {unit!r}") from None
        if len(data) != info.n_bytes or digest_of_unit((data,)) != info.xxh3_128:
            raise DamagedError(f"unit {unit!r} of checkpoint {name} is damaged: its digest differs")
        units[unit] = decode_arrays(data)
    return Checkpoint(
        name=name,
        epoch=manifest.epoch,
        sequence=manifest.sequence,
        n_bytes=sum(info.n_bytes for info in manifest.units.values()),
        written_at_ms=manifest.written_at_ms,
        units=units,
        meta=manifest.meta,
    )


def read_start(store: Store, epoch: int) -> Start:
    """Start record of an epoch.

    Raises
    ------
    DamagedError
        It is missing or not what was written.
    """
    name = f"{STARTS}/{epoch_text(epoch)}"
    try:
        data = store.read(name)
    except MissingError:
        raise DamagedError(f"the start record of epoch {epoch} is missing") from None
    return unseal("start", name, data, Start)


def _newest_start(store: Store) -> Start | None:
    while newest := newest_epoch(store, (STARTS, JOURNAL)):
        try:
            return read_start(store, newest)
        except DamagedError:
            if newest_epoch(store, (STARTS, JOURNAL)) == newest:
                raise
        # A later epoch has begun meanwhile, and removed what it does not need.
    return None


class History:
    """The history of one state as it stands in its store now; reads only.

    Parameters
    ----------
    store : Store
        Folder of the state.
    epoch : int, optional
        The history as this epoch saw it; by default the newest that started.

    Raises
    ------
    DamagedError
        The epoch's start record is missing or damaged.
    """

    def __init__(self, store: Store, epoch: int | None = None) -> None:
        self._store = store
        self.start = _newest_start(store) if epoch is None else read_start(store, epoch)

    @property
    def stretches(self) -> list[Stretch]:
        """All stretches, oldest first; the last one is that of the epoch itself and open."""
        start = self.start
        if start is None:
            return []
        return [*start.stretches, Stretch(epoch=start.epoch, first=start.first, upto=OPEN_END)]

    def names(self) -> list[str]:
        """Names of the checkpoints in the history, oldest first."""
        within = {stretch.epoch: stretch for stretch in self.stretches}
        found = []
        for name in manifest_names(self._store):
            epoch, sequence = split_name(name)
            stretch = within.get(epoch)
            if stretch is not None and stretch.first <= sequence <= stretch.upto:
                found.append((sequence, name))
        return [name for _, name in sorted(found)]

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that verifies; damaged ones are reported in the log."""
        return next(self._verified(reversed(self.names())), None)

    def oldest_first(self) -> Iterator[Checkpoint]:
        """All checkpoints that verify, one in memory at a time."""
        return self._verified(self.names())

    def sync(self, *, after: int) -> None:
        """Return when all segments with entries after a sequence are durable."""
        for stretch in self.stretches:
            if stretch.upto > after:
                for segment in segments(self._store, stretch.epoch):
                    for blob in segment.blobs:
                        self._store.sync(blob)

    def entries(self, *, after: int, upto: int | None = None) -> Iterator[JournalEntry]:
        """Journal entries with ``after < sequence <= upto``, across epochs, in order.

        Raises
        ------
        DamagedError
            One of them is missing or damaged. The end of the newest epoch may be torn.
        """
        if self.start is not None and not self.start.journalled:
            return
        last = OPEN_END if upto is None else upto
        expected = after + 1
        for stretch in self.stretches:
            end = min(stretch.upto, last)
            if end < expected:
                continue
            if stretch.first > expected:
                raise DamagedError(f"the journal before entry {stretch.first} is no longer kept")
            for entry in read_entries(self._store, stretch.epoch, after=expected - 1, upto=end):
                expected = entry.sequence + 1
                yield entry
            if stretch.upto != OPEN_END and expected <= end:
                raise DamagedError(f"the journal of epoch {stretch.epoch} lacks entries {expected} to {end}")

    def from_the_beginning(self) -> bool:
        """Whether the journal goes back to the first entry that ever was."""
        start = self.start
        if start is None:
            return True
        oldest = self.stretches[0]
        if not start.journalled or oldest.first != 1:
            return False
        kept = segments(self._store, oldest.epoch)
        return kept[0].first == 1 if kept else not self.names() and len(self.stretches) == 1

    def _verified(self, names: Iterator[str] | list[str]) -> Iterator[Checkpoint]:
        for name in names:
            try:
                checkpoint = read_checkpoint(self._store, name)
            except DamagedError as error:
                if name in manifest_names(self._store):  # else its writer has removed it meanwhile
                    log.warning("checkpoint_damaged", name=name, error=str(error))
                continue
            yield checkpoint
            del checkpoint
