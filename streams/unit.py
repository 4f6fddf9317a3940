"""A partition's user state as a ranker stores it: one unit a partition, whole in itself.

Item slots belong to a process, so a unit carries the ids of the items it names and slots of its own:
any ranker can take it over. Model users are not part of it; they belong to the replica.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
import numpy as np
from msgspec import Struct

from learners.state import pack_strings, taken, unpack_strings
from schemas.errors import StateError
from schemas.interning import Ids
from schemas.learner import Arrays
from schemas.runs import Int32, Int64
from schemas.settings import Settings

from .checkpoint.format import Cut
from .cut import check_settings, settings_of_fold, settings_of_state
from .listed import LISTED
from .partition import Counts, Partition

USER: Final = "user"
ITEM_ARRAYS: Final = ("history", "seen", "recent_items", LISTED)
"""Arrays that hold item slots, -1 for none."""

SHARED_SETTINGS: Final = frozenset(
    {"kafka.partitions", "worker.hash_key", "learner.history", "learner.seen"}
)  # fmt: skip


class CapturedUnit(Struct, kw_only=True):
    """A partition's copied state; what takes longer than copying is left to the thread that writes."""

    partition: int
    position: int
    arrays: Arrays
    item_ids: Ids
    meta: dict[str, Any]

    def cut(self, sequence: int) -> Cut:
        """Put together with slots of its own; tens of milliseconds, on any thread."""
        return Cut(sequence=sequence, units={USER: portable(self.arrays, self.item_ids)}, meta=self.meta)


class RestoredUnit(Struct, kw_only=True):
    """A stored partition as read and verified, its item ids not yet looked up."""

    arrays: Arrays
    item_ids: list[str]
    position: int
    catalogue_position: int
    counts: Counts


def capture_unit(
    part: Partition,
    owed: tuple[Int32, Int64],
    item_ids: Ids,
    *,
    topic: str,
    catalogue_position: int,
    settings: Settings,
) -> CapturedUnit:
    """Copy what a partition holds; about 1 ms for 5 MB, on the learner thread."""
    users, since_ms = owed
    arrays = (
        part.state.snapshot()
        | part.listed.snapshot(len(part.state.users))
        | {
            "owed_users": users,
            "owed_since_ms": since_ms,
            "last_broker_ts": np.array([part.last_broker_ts_ms], dtype=np.int64),
        }
    )
    shared = settings_of_state(settings)
    return CapturedUnit(
        partition=part.state.partition,
        position=part.next_offset,
        arrays=arrays,
        item_ids=item_ids,
        meta={
            "positions": {topic: {str(part.state.partition): part.next_offset}},
            "catalogue_position": catalogue_position,
            "counts": msgspec.to_builtins(part.counts),
            "settings": {name: value for name, value in shared.items() if name in SHARED_SETTINGS},
            "fold": settings_of_fold(settings),
        },
    )


def read_unit(
    meta: Mapping[str, Any], units: Mapping[str, Arrays], topic: str, partition: int, settings: Settings
) -> RestoredUnit:
    """What a checkpoint says of a partition.

    Raises
    ------
    StateError
        It is of another partition or made with other settings, or damaged.
    """
    check_settings(meta, settings)
    position = meta["positions"].get(topic, {}).get(str(partition))
    if position is None or USER not in units:
        raise StateError(f"the checkpoint holds no state of {topic}[{partition}]")
    arrays = dict(units[USER])
    letters, ends = np.zeros(0, dtype=np.uint8), np.zeros(0, dtype=np.int64)
    ids = unpack_strings(taken(arrays, "item_ids", letters), taken(arrays, "item_id_ends", ends))
    return RestoredUnit(
        arrays=arrays,
        item_ids=ids,
        position=int(position),
        catalogue_position=int(meta["catalogue_position"]),
        counts=msgspec.convert(meta["counts"], Counts),
    )


def restore_unit(unit: RestoredUnit, slots: Int32, part: Partition) -> tuple[Int32, Int64, int]:
    """Fill the empty state of `part`; `slots` (N,) are this process's of the unit's item ids.

    Returns
    -------
    Owed users, the broker time of their oldest untold event, broker time of the last event.
    """
    arrays, state = unit.arrays | renamed(unit.arrays, slots), part.state
    state.restore(arrays)
    part.listed.restore(arrays, len(state.users))
    users, times = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)
    owed = taken(arrays, "owed_users", users)
    since_ms = taken(arrays, "owed_since_ms", times, rows=len(owed))
    if state.next_offset != unit.position:
        raise StateError(f"the state of partition {state.partition} is not at its position {unit.position}")
    return owed, since_ms, int(taken(arrays, "last_broker_ts", times, rows=1)[0])


def portable(arrays: Arrays, item_ids: Ids) -> Arrays:
    """The arrays with slots 0, 1, ... of the items they name, and the ids of those."""
    used = np.zeros(len(item_ids) + 1, dtype=np.bool_)
    for name in ITEM_ARRAYS:
        used[np.asarray(arrays[name])] = True  # -1 marks the last place
    slots = np.flatnonzero(used[:-1])
    table = np.full(len(item_ids) + 1, -1, dtype=np.int32)
    table[slots] = np.arange(len(slots), dtype=np.int32)
    text, ends = pack_strings(item_ids.texts.take(slots).to_list())
    found: Arrays = {name: table[np.asarray(arrays[name])] for name in ITEM_ARRAYS}
    return arrays | found | {"item_ids": text, "item_id_ends": ends}


def renamed(arrays: Arrays, slots: Int32) -> Arrays:
    """The item arrays with slot i become ``slots[i]``."""
    table = np.append(slots, np.int32(-1))
    found: Arrays = {}
    for name in ITEM_ARRAYS:
        if name == LISTED and name not in arrays:
            continue  # a release before this one wrote it
        if name not in arrays:
            raise StateError(f"the state lacks {name!r}")
        array = taken(arrays, name, np.zeros((0, *arrays[name].shape[1:]), dtype=np.int32))
        if array.size and (int(array.max()) >= len(slots) or int(array.min()) < -1):
            raise StateError(f"{name!r} names an item that the state does not hold")
        found[name] = table[array]
    return found
