"""The cut of a core: model and user state of all partitions at the same positions.

Units: ``model`` (names, learners, catalogue), and ``user-P`` for every behaviour partition P (user
state, users that owe a snapshot). Copies are made on the learner thread; what takes longer than
copying, on the thread that writes.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from functools import cache, partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from learners.state import taken
from schemas.errors import StateError
from schemas.hashing import hash_one
from schemas.learner import Arrays
from schemas.settings import Settings
from schemas.signals import entries
from serving.ordering import mixes

from .checkpoint.format import Cut
from .partition import Counts, Partition, Shelf

if TYPE_CHECKING:
    from .core import WorkerCore

MODEL: Final = "model"
USER: Final = "user-"
CONTENT: Final = "content"
"""Name of the learner that knows what items are."""

DEVICE: Final = "device"
"""Part of the build: what sums were taken on."""


class Captured(Struct, kw_only=True):
    """A cut whose arrays are copied, and which still has to be put together."""

    sequence: int
    meta: dict[str, Any]
    parts: dict[str, Callable[[], Arrays]]

    def cut(self) -> Cut:
        """Put together; may take a second, on any thread."""
        units = {name: part() for name, part in self.parts.items()}
        return Cut(sequence=self.sequence, units=units, meta=self.meta)

    @property
    def positions(self) -> dict[tuple[str, int], int]:
        """Position next to read of each input partition."""
        return positions_of(self.meta)


def positions_of(meta: Mapping[str, Any]) -> dict[tuple[str, int], int]:
    """Positions that a checkpoint's meta names."""
    return {
        (topic, int(partition)): int(offset)
        for topic, offsets in meta["positions"].items()
        for partition, offset in offsets.items()
    }


def capture(core: WorkerCore, *, reuse: bool = False) -> Captured:
    """Copy what a core holds.

    With `reuse` copies are written over those of the last cut that said so, which nobody may read
    any more, where they have changed: see `learners.row_copies`.
    """
    held = core.held
    positions: dict[str, dict[str, int]] = {}
    for (topic, partition), offset in held.positions().items():
        positions.setdefault(topic, {})[str(partition)] = offset
    parts: dict[str, Callable[[], Arrays]] = {MODEL: core.model.capture(reuse=reuse)}
    for index, part in held.partitions.items():
        arrays = _captured_partition(part, *core.publisher.owed(index), reuse=reuse)
        parts[f"{USER}{index}"] = partial(dict, arrays)
    return Captured(
        sequence=core.sequence,
        parts=parts,
        meta={
            "model": core.settings.worker.model_name,
            "lineage": core.model.lineage,
            "prefix": core.settings.kafka.prefix,
            "positions": positions,
            "counts": {
                str(index): msgspec.to_builtins(part.counts) for index, part in held.partitions.items()
            },
            **core.noted_settings,
            "build": build(core.model.device_name),
        },
    )


def _captured_partition(
    part: Partition, users: NDArray[np.int32], since_ms: NDArray[np.int64], *, reuse: bool
) -> Arrays:
    part.grow()
    return (
        part.state.snapshot(reuse=reuse)
        | part.listed.snapshot(len(part.state.users), reuse=reuse)
        | {
            "model_users": part.model_users[: len(part.state.users)].copy(),
            "owed_users": users,
            "owed_since_ms": since_ms,
            "last_broker_ts": np.array([part.last_broker_ts_ms], dtype=np.int64),
        }
    )


def restore(core: WorkerCore, sequence: int, meta: Mapping[str, Any], units: Mapping[str, Arrays]) -> None:
    """Make an empty core what it was at the cut.

    Raises
    ------
    StateError
        A setting that the state depends on has changed, or a unit is missing or damaged.
    """
    check_settings(meta, core.settings)
    if MODEL not in units:
        raise StateError(f"the checkpoint lacks its unit {MODEL!r}")
    core.model.restore(units[MODEL], meta["lineage"])
    for (topic, partition), offset in positions_of(meta).items():
        shelves = core.held.shelved.get(topic)
        if shelves is not None:
            # Where the state knows no content, the topics made of the catalogue are read from the beginning.
            if topic == core.names.catalogue or f"{CONTENT}.own" in units[MODEL]:
                shelves[partition] = Shelf(next_offset=offset, end_at_start=offset)
            continue
        if topic in {core.names.item_content, core.names.item_tags}:
            continue  # learner.content was on then
        arrays = units.get(f"{USER}{partition}")
        if topic != core.names.behaviour or arrays is None:
            raise StateError(f"the checkpoint names {topic}[{partition}] and has no state for it")
        restore_partition(core.held.begin(partition, offset), arrays, meta["counts"][str(partition)])
        if core.position(topic, partition) != offset:
            raise StateError(f"the state of {topic}[{partition}] is not at its position {offset}")
    core.sequence = sequence
    core.settle()


def restore_partition(part: Partition, arrays: Mapping[str, NDArray[np.generic]], counts: Any) -> None:
    """Make a new partition what it was at the cut; owed users are touched again."""
    part.state.restore(arrays)
    n = len(part.state.users)
    like, times = np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int64)
    part.model_users = taken(arrays, "model_users", like, rows=n)
    part.listed.restore(arrays, n)
    owed = taken(arrays, "owed_users", like)
    since_ms = taken(arrays, "owed_since_ms", times, rows=len(owed))
    part.outbox.touch(owed, since_ms)
    part.last_broker_ts_ms = int(taken(arrays, "last_broker_ts", times, rows=1)[0])
    part.counts = msgspec.convert(counts, Counts)
    part.first_offset = part.end_at_start = part.next_offset


def settings_of_state(settings: Settings) -> dict[str, Any]:
    """Settings that the shape of the state depends on; a checkpoint made with others is refused."""
    learner = settings.learner
    names: tuple[str, ...] = (
        "embeddings", "dim", "history", "seen", "transition_width", "popularity_half_lives_h", "seed",
        "attention_heads", "optimizer",
    )  # fmt: skip
    if learner.probabilities:
        names = (*names, "probability_bits")
    if learner.content:
        names = (*names, "content_models")
    return {
        "kafka.partitions": settings.kafka.partitions,
        # Of the key only what shows that it is another one.
        "worker.hash_key": f"{hash_one('reelflow', int(settings.worker.hash_key, 16)):016x}",
    } | {f"learner.{name}": _plain(getattr(learner, name)) for name in names}


def settings_of_fold(settings: Settings) -> dict[str, Any]:
    """Settings that decide what becomes of an event; others from here on are no reason to refuse."""
    worker = settings.worker
    names = ("lateness_ms", "future_skew_ms", "session_gap_ms", "dedup_window")
    return (
        {f"worker.{name}": getattr(worker, name) for name in names}
        | {
            "learner.transition_half_life_h": settings.learner.transition_half_life_h,
            "learner.live_half_life_min": settings.learner.live_half_life_min,
            "learner.household_hours": settings.learner.household_hours,
            "learner.max_items": settings.learner.max_items,
            "learner.max_users": settings.learner.max_users,
            "learner.item_admission": settings.learner.item_admission,
            "learner.loss": settings.learner.loss,
            "learner.learning_rate": settings.learner.learning_rate,
            "learner.in_batch_negatives": settings.learner.in_batch_negatives,
            "learner.shifted_contexts": settings.learner.shifted_contexts,
            "learner.mixed_precision": settings.learner.mixed_precision,
            "ranker.evaluate_ratio": settings.ranker.evaluate_ratio,
            "ranker.list_size": settings.ranker.list_size,
            "ranker.exclude_seen": settings.ranker.exclude_seen,
        }
        | _fold_of_probabilities(settings)
        | {f"learner.{name}": True for name in ("content", "tastes") if getattr(settings.learner, name)}
        | {f"signals.{name}": values for name, values in entries(settings.signals).items()}
    )


def _fold_of_probabilities(settings: Settings) -> dict[str, Any]:
    """What the fold depends on where they are learned; a state without them says nothing of it."""
    learner = settings.learner
    if not learner.probabilities:
        return {}
    names = ("probabilities", "probabilities_per_s", "attribution_s")
    return {f"learner.{name}": getattr(learner, name) for name in names} | {
        "ranker.order_weights": mixes(settings.ranker)  # then the gate learns from longer lists
    }


def check_settings(meta: Mapping[str, Any], settings: Settings) -> None:
    """Refuse a checkpoint that these settings cannot go on from.

    Raises
    ------
    StateError
        Names the first setting that differs, with both values.
    """
    now = settings_of_state(settings)
    for name, then in meta["settings"].items():
        if name in now and now[name] != then:
            raise StateError(
                f"{name} is {now[name]!r} now and was {then!r} when the state was written; set it back, or"
                " give worker.model_name (or worker.state_dir) another value to fold the log anew"
            )


@cache
def build(device_name: str) -> dict[str, str]:
    """What bit-by-bit equality depends on beside the input; not to be changed.

    Read once: versions come from files, and every cut names them on the learner thread.
    """
    return {
        "reelflow": version("reelflow"),
        "numpy": version("numpy"),
        "numba": version("numba"),
        "torch": version("torch"),
        "python": platform.python_version(),
        "machine": platform.machine(),
        DEVICE: device_name,
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
