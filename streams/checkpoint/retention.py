"""What may go: all that the newest checkpoints do not need."""

from __future__ import annotations

from collections.abc import Callable, Collection

from schemas.errors import DamagedError

from .history import (
    BEATS,
    CHECKPOINTS,
    EPOCHS,
    MANIFEST,
    STARTS,
    UNIT,
    History,
    manifest_names,
    numbers,
    read_manifest,
    split_name,
    unit_folders,
)
from .segments import FOLDER as JOURNAL
from .segments import epoch_text, segments
from .store import Store


def prune(
    store: Store, epoch: int, keep: int, verified: Collection[str], check: Callable[[], None]
) -> set[str]:
    """Remove all but the newest `keep` checkpoints and the journal after the oldest of them.

    The journal stays whole until there are `keep` checkpoints. `check` (the fence) is called before
    each removal that another writer could mind.

    Returns
    -------
    set of str
        Checkpoints that stay.
    """
    check()
    history = History(store)
    kept: list[str] = []
    for name in reversed(history.names()):
        if len(kept) < keep and (name in verified or _is_whole(store, name)):
            kept.append(name)
    for name in manifest_names(store):
        if name not in kept and split_name(name)[0] <= epoch:
            check()
            store.delete(f"{CHECKPOINTS}/{name}{MANIFEST}")
    newest = max(kept, default="")
    for name in unit_folders(store):
        if name not in kept and name < newest and split_name(name)[0] <= epoch:
            _remove_units(store, name)
    if len(kept) >= keep:
        check()
        _prune_journal(store, history, epoch, split_name(kept[-1])[1])
    used = {split_name(name)[0] for name in kept} | set(numbers(store, JOURNAL))
    for folder in (EPOCHS, STARTS, BEATS):
        for number in numbers(store, folder):
            if number < epoch and (folder != STARTS or number not in used):
                store.delete(f"{folder}/{epoch_text(number)}")
    store.sweep()
    return set(kept)


def remove_unfinished(store: Store, epoch: int) -> None:
    """Remove checkpoints that writers before `epoch` did not finish: each death may have left one."""
    whole = set(manifest_names(store))
    for name in unit_folders(store):
        if name not in whole and split_name(name)[0] < epoch:
            _remove_units(store, name)
    store.sweep()


def _remove_units(store: Store, name: str) -> None:
    for blob in store.names(f"{CHECKPOINTS}/{name}"):
        store.delete(f"{CHECKPOINTS}/{name}/{blob}")


def _prune_journal(store: Store, history: History, epoch: int, sequence: int) -> None:
    """Remove segments that hold nothing after `sequence`, and those outside the history."""
    upto = {stretch.epoch: stretch.upto for stretch in history.stretches}
    for number in numbers(store, JOURNAL):
        if number > epoch:
            continue
        found = segments(store, number)
        for i, segment in enumerate(found):
            end = found[i + 1].first - 1 if i + 1 < len(found) else upto.get(number, 0)
            if min(end, upto.get(number, 0)) <= sequence:
                for blob in segment.blobs:
                    store.delete(blob)


def _is_whole(store: Store, name: str) -> bool:
    """Whether the manifest is intact and every unit is there; does not read units."""
    try:
        manifest = read_manifest(store, name)
    except DamagedError:
        return False
    there = set(store.names(f"{CHECKPOINTS}/{name}"))
    return all(f"{unit}{UNIT}" in there for unit in manifest.units)
