"""From what happened to what arrives: columns of events, duplicates, late ones, bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas.codec import encode_event
from schemas.records import EVENT_TYPES, SURFACES, Event

from .sim_config import DEVICES, SimulatorConfig
from .sim_items import NOTHING, Ints, item_id
from .sim_users import user_id
from .source import Record

COLUMNS: Final = np.dtype(
    [
        ("seq", "i8"),
        ("ts_ms", "i8"),
        ("arrival_ms", "i8"),
        ("user", "i8"),
        ("item", "i8"),
        ("kind", "i1"),
        ("watch_ms", "i8"),
        ("duration_ms", "i8"),
        ("surface", "i1"),
        ("device", "i1"),
        ("session", "i8"),
        ("snapshot", "i8"),
        ("position", "i8"),
        ("gift_value", "f8"),
        ("autoplay", "i1"),
    ]
)
"""An event as columns; -1 is unknown."""

Rows = NDArray[np.void]

_DUPLICATE_AFTER_MS: Final = 20_000


def blank(n: int) -> Rows:
    """Rows in which everything is unknown."""
    rows = np.zeros(n, dtype=COLUMNS)
    for name in ("watch_ms", "duration_ms", "snapshot", "position", "gift_value", "autoplay"):
        rows[name] = NOTHING
    return rows


def stacked(parts: Sequence[Rows]) -> Rows:
    """Rows of all parts; np.concatenate takes longer over comparing the fields than over copying."""
    rows = np.empty(sum(map(len, parts)), dtype=COLUMNS)
    at = 0
    for part in parts:
        rows[at : at + len(part)] = part
        at += len(part)
    return rows


class Delivery:
    """Holds events until they arrive: in order of time, but for late and repeated ones."""

    def __init__(self, config: SimulatorConfig, rng: np.random.Generator) -> None:
        self._config = config
        self._rng = rng
        self._n_events = 0
        self.pending: Rows = blank(0)

    def add(self, rows: Rows) -> None:
        """Take in what happened; numbers the events."""
        config, rng, n = self._config, self._rng, len(rows)
        rows["seq"] = np.arange(self._n_events, self._n_events + n)
        self._n_events += n
        late = rng.random(n) < config.late
        delay_ms = np.where(late, 1 + 1000 * config.late_by_s * rng.exponential(size=n), 0.0)
        rows["arrival_ms"] = rows["ts_ms"] + delay_ms.astype(np.int64)
        again = rows[rng.random(n) < config.duplicates]
        again["arrival_ms"] += 1 + (_DUPLICATE_AFTER_MS * rng.exponential(size=len(again))).astype(np.int64)
        self.pending = stacked((self.pending, rows, again))

    def due(self, until_ms: int) -> Rows:
        """Hand out, in order of arrival, what arrives before `until_ms`."""
        ready = self.pending["arrival_ms"] < until_ms
        rows = self.pending[ready]
        self.pending = self.pending[~ready]
        return rows[np.lexsort((rows["seq"], rows["arrival_ms"]))]


def records(rows: Rows, seed: int, snapshot_id_of: Callable[[int], str]) -> Iterator[Record]:
    """Messages of rows. Cost: about 2 microseconds each."""
    columns: list[list[Any]] = [rows[name].tolist() for name in COLUMNS.names or () if name != "arrival_ms"]
    for (
        seq, ts_ms, user, item, kind, watch_ms, duration_ms,
        surface, device, session, snapshot, position, gift_value, autoplay,
    ) in zip(*columns, strict=True):  # fmt: skip
        user_name = user_id(user)
        event = Event(
            event_id=f"sim{seed}-{seq}",
            user_id=user_name,
            item_id=item_id(item),
            type=EVENT_TYPES[kind],
            ts_ms=ts_ms,
            watch_ms=watch_ms if watch_ms >= 0 else None,
            duration_ms=duration_ms if duration_ms >= 0 else None,
            surface=SURFACES[surface],
            device=DEVICES[device],
            session_id=f"s{user}-{session}",
            snapshot_id=snapshot_id_of(snapshot) if snapshot >= 0 else None,
            position=position if position >= 0 else None,
            autoplay=bool(autoplay) if autoplay >= 0 else None,
            gift_value=gift_value if gift_value >= 0 else None,
        )
        yield Record(user_name.encode(), encode_event(event), ts_ms)


def used_snapshots(*columns: Ints) -> set[int]:
    """Numbers of the snapshots that are still referred to."""
    return {number for column in columns for number in np.unique(column).tolist() if number >= 0}
