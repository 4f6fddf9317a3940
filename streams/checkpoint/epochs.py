"""Who may write a state: epochs, claimed one after the other.

A claim, in numbered steps:

1. Find the newest epoch; refuse while its owner lives (unless told to take over).
2. Create ``epochs/N+1``, exclusively. From here on nothing that epoch N makes durable counts: its
   journal looks for a later epoch after each sync, before it calls anything durable.
3. Read start records, checkpoints and journal; choose the newest checkpoint that verifies.
4. Create ``starts/N+1``: the base, and where each earlier epoch ends. Later entries of a writer that
   does not know yet that it is fenced are no part of the history.
5. Look whether a still later epoch exists.

A claim that ends between 2 and 4 leaves an epoch that never started; the next one passes over it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from schemas.errors import DamagedError, ExistsError, OwnedError, StoreError

from .format import Checkpoint, seal
from .history import BEATS, EPOCHS, OPEN_END, STARTS, History, Start, Stretch, numbers, split_name
from .owners import Beat, EpochRecord, Owner, check_fence, holder_of, last_beat
from .retention import remove_unfinished
from .segments import FOLDER as JOURNAL
from .segments import epoch_text
from .store import Store
from .tenure import Tenure

__all__ = ["Owner", "Tenure", "claim"]

STALE_AFTER_S: Final = 10.0
_CLAIM_TRIES: Final = 100


def claim_epoch(
    store: Store, *, owner: Owner, take_over: bool, now_s: Callable[[], float], stale_after_s: float
) -> int:
    """Steps 1 and 2: a new epoch.

    Raises
    ------
    OwnedError
        The newest epoch's owner lives.
    """
    for _ in range(_CLAIM_TRIES):
        holder = holder_of(store, now_s())
        if holder is not None and not take_over and holder.lives(stale_after_s):
            raise OwnedError(
                f"{holder.owner or 'another process'} writes this state (epoch {holder.epoch}, last seen"
                f" {max(0.0, holder.age_s):.1f} s ago): stop it, or start with --take-over to end it"
            )
        epoch = 1 + (0 if holder is None else holder.epoch)
        record = EpochRecord(owner=owner, claimed_at_s=now_s())
        try:
            store.create(f"{EPOCHS}/{epoch_text(epoch)}", seal("epoch", record))
        except ExistsError:
            continue  # another one was quicker
        return epoch
    raise StoreError(f"no epoch could be claimed in {_CLAIM_TRIES} tries")


def claim(
    store: Store,
    *,
    owner: Owner,
    take_over: bool,
    now_s: Callable[[], float] = time.time,
    stale_after_s: float = STALE_AFTER_S,
    journalled: bool = True,
) -> Tenure:
    """Become the writer of a state; see the module's docstring.

    Parameters
    ----------
    store : Store
        Folder of the state.
    owner : Owner
    take_over : bool
        Claim although the newest epoch's owner seems to live; it is fenced.
    now_s : Callable[[], float]
        Seconds since 1970.
    stale_after_s : float
        An owner on another host that left no sign of life for so long is taken for dead.
    journalled : bool
        Whether a journal says what came after a checkpoint. Where not, the newest checkpoint that
        verifies is all there is, and the one before it stands in for a damaged one.

    Raises
    ------
    OwnedError
        The owner of the newest epoch lives.
    DamagedError
        What is stored cannot be brought to where it ended; says what is missing.
    FencedError
        Another process claimed after us.
    """
    epoch = claim_epoch(store, owner=owner, take_over=take_over, now_s=now_s, stale_after_s=stale_after_s)
    try:
        history = History(store)
        base = history.newest()
        end = end_of(store, history, base, journalled=journalled)
        # A writer that was killed before its sync returned leaves entries that can be read and that a
        # power loss would take away: what is taken over must not go before what is built on it.
        history.sync(after=0 if base is None else base.sequence)
        name = None if base is None else base.name
        begin(store, epoch, history, base=name, end=end, journalled=journalled)
        tenure = Tenure(store, epoch, base, end, now_s)
        tenure.check()
        tenure.beat()
        with suppress(StoreError):
            remove_unfinished(store, epoch)
    except Exception as error:
        with suppress(StoreError):
            released = seal("heartbeat", Beat(at_s=now_s(), durable=0, released=True))
            store.put(f"{BEATS}/{epoch_text(epoch)}", released)
        if isinstance(error, DamagedError):
            check_fence(store, epoch)  # what a successor has removed is no damage
        raise
    return tenure


def end_of(store: Store, history: History, base: Checkpoint | None, *, journalled: bool) -> int:
    """Sequence of the last entry of a history; reads the whole tail.

    What was durable is known from the epoch that wrote last, whatever claims have failed since: a state
    that was refused is refused at the next start too.

    Raises
    ------
    DamagedError
        The tail is not whole, or ends before where it is known to have been durable.
    """
    names = history.names()
    if base is None and (names if not journalled else not history.from_the_beginning()):
        raise DamagedError(
            "no checkpoint can be used, and the journal does not go back to the beginning; see"
            " `reelflow checkpoint verify`"
        )
    end = 0 if base is None else base.sequence
    if not journalled:
        return end
    for entry in history.entries(after=end):
        end = entry.sequence
    known = max((split_name(name)[1] for name in names), default=0)
    beat = None if history.start is None else last_beat(store, history.start.epoch)
    if beat is not None:
        known = max(known, beat.durable)
    if end < known:
        raise DamagedError(f"the journal ends at entry {end} and was durable up to {known}")
    return end


def begin(
    store: Store, epoch: int, history: History, *, base: str | None, end: int, journalled: bool
) -> None:
    """Step 4: create the start record of an epoch that goes on after `end`."""
    with_journal = set(numbers(store, JOURNAL))
    with_checkpoint = {split_name(name)[0] for name in history.names()}
    stretches = []
    for stretch in history.stretches:
        if stretch.epoch in with_journal | with_checkpoint and stretch.first <= end:
            upto = end if stretch.upto == OPEN_END else min(end, stretch.upto)
            stretches.append(Stretch(epoch=stretch.epoch, first=stretch.first, upto=upto))
    start = Start(epoch=epoch, base=base, journalled=journalled, stretches=stretches, first=end + 1)
    store.create(f"{STARTS}/{epoch_text(epoch)}", seal("start", start))
