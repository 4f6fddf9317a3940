"""Going back to an older checkpoint, by an epoch of its own."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from schemas.errors import DamagedError

from .epochs import STALE_AFTER_S, begin, claim_epoch
from .format import seal
from .history import BEATS, History, read_checkpoint, split_name
from .owners import Beat, Owner
from .segments import epoch_text
from .store import Store


class Restored(Struct, kw_only=True):
    """What a restore did, and what is no part of the history any more.

    Attributes
    ----------
    n_entries : int
        Journal entries after the checkpoint, as far as they could be read.
    n_offsets : int
        Offsets that they applied; the log is read again from the checkpoint's positions.
    checkpoints : list of str
        Newer checkpoints; they go when the next one is written.
    """

    name: str
    epoch: int
    sequence: int
    n_entries: int
    n_offsets: int
    checkpoints: list[str]
    problem: str = ""


def restore(
    store: Store, name: str, *, owner: Owner, now_s: Callable[[], float], stale_after_s: float = STALE_AFTER_S
) -> Restored:
    """Make the checkpoint `name` what the next claim goes on from; the journal after it is dropped.

    The checkpoint may be one that an earlier restore has left behind, as long as it is stored.

    Raises
    ------
    OwnedError
        A living process is the writer of the state.
    DamagedError
        The checkpoint does not verify, or how its epoch began is no longer known.
    """
    checkpoint = read_checkpoint(store, name)
    then = History(store, checkpoint.epoch)
    epoch = claim_epoch(store, owner=owner, take_over=False, now_s=now_s, stale_after_s=stale_after_s)
    try:
        restored = Restored(
            name=name, epoch=epoch, sequence=checkpoint.sequence, n_entries=0, n_offsets=0, checkpoints=[]
        )
        _count_dropped(store, restored)
        journalled = then.start is None or then.start.journalled
        begin(store, epoch, then, base=name, end=checkpoint.sequence, journalled=journalled)
    finally:
        released = Beat(at_s=now_s(), durable=0, released=True)
        store.put(f"{BEATS}/{epoch_text(epoch)}", seal("heartbeat", released))
    return restored


def _count_dropped(store: Store, restored: Restored) -> None:
    """Count what the history has after the checkpoint; a damaged one is told and does not stop us."""
    try:
        now = History(store)
        if restored.name not in now.names():
            restored.problem = f"{restored.name} is on another branch of the history"
        restored.checkpoints = [name for name in now.names() if split_name(name)[1] > restored.sequence]
        for entry in now.entries(after=restored.sequence):
            restored.n_entries += entry.kind == "batch"
            restored.n_offsets += sum(run.next - run.first for run in entry.runs)
    except DamagedError as error:
        restored.problem = str(error)
