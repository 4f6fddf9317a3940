"""Snapshots as bytes, many at a time: what msgspec would write for `records.Snapshot`, faster.

Building structs costs 15 to 20 microseconds a list of 20; joining fragments in compiled code costs
0.8. Ids of items are escaped once.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec
import numpy as np

from schemas.interning import Interner
from schemas.runs import Int8, Int32, Int64
from schemas.texts import Texts

from .snapshot_kernels import (
    CHUNK,
    MAX_DIGITS,
    SLACK,
    Fragments,
    ListColumns,
    UInt8,
    escaped_sizes,
    put_texts,
    write_snapshots,
)

if TYPE_CHECKING:
    from .ranking import Ranked

FALLBACK_NONE: Final = 0
FALLBACK_COLD_USER: Final = 1
FALLBACK_STALE_MODEL: Final = 2


class Encoded(NamedTuple):
    """Messages of B snapshots."""

    keys: list[bytes]
    values: list[bytes]


def _joined(parts: Sequence[Texts]) -> Fragments:
    """The texts of all parts as JSON has them, without their quotes."""
    sizes = [escaped_sizes(part.data, part.starts, part.ends)[0] for part in parts]
    data = np.empty(sum(sizes) + SLACK, dtype=np.uint8)
    ends = np.zeros(sum(map(len, parts)) + 1, dtype=np.int64)
    first = end = 0
    for part in parts:
        end = put_texts(part.data, part.starts, part.ends, data, ends, first, end)
        first += len(part)
    return Fragments(data, ends)


def _keys(parts: Sequence[Texts], joined: Fragments) -> list[bytes]:
    """UTF-8 of the texts that were joined."""
    end = int(joined.ends[-1])
    if end != sum(int((part.ends - part.starts).sum()) for part in parts):  # some are escaped
        return [part.bytes_of(i) for part in parts for i in range(len(part))]
    data = joined.data[:end].tobytes()
    return [data[a:b] for a, b in pairwise(joined.ends.tolist())]


class IdTable:
    """JSON-escaped ids of an interner by slot, in one buffer that only grows.

    Cost: 0.05 microseconds a new id; memory is the escaped id and 8 bytes.
    """

    def __init__(self, ids: Interner) -> None:
        self._ids = ids
        self._n = 0
        self._longest = 0
        self._data: UInt8 = np.zeros(SLACK, dtype=np.uint8)
        self._ends: Int64 = np.zeros(1024, dtype=np.int64)

    def __len__(self) -> int:
        return self._n

    @property
    def longest(self) -> int:
        """Bytes of the longest escaped id so far."""
        return self._longest

    def sync(self) -> Fragments:
        """Take in what the interner got since the last call."""
        n = len(self._ids)
        if n > self._n:
            new = self._ids.texts(self._n)
            start = int(self._ends[self._n])
            size, longest = escaped_sizes(new.data, new.starts, new.ends)
            self._reserve(start + size + SLACK, n + 1)
            put_texts(new.data, new.starts, new.ends, self._data, self._ends, self._n, start)
            self._longest = max(self._longest, longest)
            self._n = n
        return Fragments(self._data, self._ends)

    def _reserve(self, n_bytes: int, n_ends: int) -> None:
        if n_bytes > len(self._data):
            data = np.zeros(max(n_bytes, 2 * len(self._data)), dtype=np.uint8)
            data[: len(self._data)] = self._data
            self._data = data
        if n_ends > len(self._ends):
            ends = np.zeros(max(n_ends, 2 * len(self._ends)), dtype=np.int64)
            ends[: len(self._ends)] = self._ends
            self._ends = ends


class SnapshotEncoder:
    """Writes the snapshots of one model.

    Parameters
    ----------
    item_ids : Interner
        Names of the item slots in `Ranked`.
    model_name : str
    ttl_ms : int
    first_sequence : int
        Of the publish sequence in which snapshot ids end; it must not fall over restarts.
    variants : sequence of str
        Names of the ways to make lists, where there are such.
    """

    def __init__(
        self,
        item_ids: Interner,
        *,
        model_name: str,
        ttl_ms: int,
        first_sequence: int = 0,
        variants: Sequence[str] = (),
    ) -> None:
        self._variants = [msgspec.json.encode(name).decode() for name in variants]
        self._table = IdTable(item_ids)
        self._model_name = msgspec.json.encode(model_name).decode()
        self._ttl_ms = ttl_ms
        self._next_sequence = first_sequence
        self._out: UInt8 = np.empty(0, dtype=np.uint8)

    def sync(self) -> None:
        """Prepare new items ahead of time; `encode` does it too."""
        self._table.sync()

    def encode(
        self,
        user_ids: Sequence[Texts],
        ranked: Ranked,
        *,
        partition: int | Int32,
        offsets: Int64,
        event_ids: Sequence[Texts],
        ts_ms: Int64,
        generated_at_ms: int,
        epoch: int,
        sequence: int,
        fallbacks: Int8,
        variants: Int8 | None = None,
    ) -> Encoded:
        """Snapshots of B users, in their order; 0.8 microseconds each.

        ``snapshot_id`` is ``{user_id}.{partition}.{publish sequence}``; a score, and the propensity of
        what was explored, has four decimals and stays within 0.0001 and 0.9999; places of -1 are left out.

        Parameters
        ----------
        user_ids, event_ids : sequences of Texts, B in all
            The users, and the last events that their lists know, in one or more parts.
        ranked : Ranked
            Lists of the B users.
        partition : int or Int32
            Of that event; one for all, or (B,).
        offsets, ts_ms : Int64
            (B,) of that event.
        generated_at_ms : int
        epoch, sequence : int
            Of the model.
        fallbacks : Int8
            (B,) `FALLBACK_NONE`, `FALLBACK_COLD_USER` or `FALLBACK_STALE_MODEL`.
        variants : Int8, optional
            (B,) number of the variant that made each, -1 for none.

        Raises
        ------
        ValueError
            Lengths differ, or an item, reason, offset, time, fallback or variant is out of range.
        """
        n = sum(map(len, user_ids))
        if not n:
            return Encoded([], [])
        ids = self._table.sync()
        of = np.full(n, -1, dtype=np.int8) if variants is None else variants
        self._check(n, ranked, offsets, sum(map(len, event_ids)), ts_ms, fallbacks, of)
        partitions = np.broadcast_to(np.asarray(partition, dtype=np.int64), n)
        if int(partitions.min()) < 0:
            raise ValueError("a partition is not negative")
        texts = self._texts(generated_at_ms, epoch, sequence)
        users, events = _joined(user_ids), _joined(event_ids)
        k = ranked.items.shape[1]
        per_item = 2 * self._table.longest + len(texts.data)
        room = n * (k * per_item + len(texts.data) + 5 * MAX_DIGITS) + 2 * len(users.data) + len(events.data)
        if room + CHUNK > len(self._out):
            self._out = np.empty(room + room // 4 + SLACK, dtype=np.uint8)
        bounds = np.empty(n + 1, dtype=np.int64)
        propensities = np.zeros((0, 0), np.float32) if ranked.propensities is None else ranked.propensities
        lists = ListColumns(ranked.items, ranked.relevance, ranked.sources, ranked.reasons, propensities)
        write_snapshots(
            self._out, bounds, texts, ids, users, events, lists, partitions, offsets, ts_ms, fallbacks, of,
            self._next_sequence, np.empty(MAX_DIGITS, dtype=np.uint8),
        )  # fmt: skip
        self._next_sequence += n
        places = bounds.tolist()
        view = self._out.data
        return Encoded(_keys(user_ids, users), [view[a:b].tobytes() for a, b in pairwise(places)])

    def _check(
        self,
        n: int,
        ranked: Ranked,
        offsets: Int64,
        n_events: int,
        ts_ms: Int64,
        fallbacks: Int8,
        variants: Int8,
    ) -> None:
        lengths = {len(ranked.items), len(offsets), n_events, len(ts_ms), len(fallbacks), len(variants)}
        if lengths != {n}:
            raise ValueError(f"columns of {sorted(lengths)} rows for {n} users")
        n_ids = len(self._table)
        if ranked.items.size and max(int(ranked.items.max()), int(ranked.reasons.max())) >= n_ids:
            raise ValueError(f"a list names an item that is none of the {n_ids} interned ones")
        if int(offsets.min()) < 0 or int(ts_ms.min()) < 0:
            raise ValueError("a user without an applied event has no snapshot")
        if int(fallbacks.min()) < FALLBACK_NONE or int(fallbacks.max()) > FALLBACK_STALE_MODEL:
            raise ValueError("unknown fallback")
        if int(variants.min()) < -1 or int(variants.max()) >= len(self._variants):
            raise ValueError("unknown variant")

    def _texts(self, generated_at_ms: int, epoch: int, sequence: int) -> Fragments:
        """What is the same in all snapshots of a call, in the order of the kernel's constants."""
        texts = [
            '{"schema_version":1,"snapshot_id":"',
            '","user_id":"',
            f'","generated_at_ms":{generated_at_ms},"ttl_ms":{self._ttl_ms},"knows":{{"partition":',
            ',"event_id":"',
            '","ts_ms":',
            f'}},"model":{{"name":{self._model_name},"epoch":{epoch},"sequence":{sequence}',
            '},"fallback":',
            '"none","items":[',
            '"cold_user","items":[',
            '"stale_model","items":[',
            "]}",
            '{"item_id":"',
            '","score":0.',
            ',"source":"transitions","propensity":1.0,"reasons":[{"kind":"because_you_watched","item_id":"',
            '"}]}',
            ',"source":"neighbours","propensity":1.0,"reasons":[{"kind":"because_you_watched","item_id":"',
            ',"source":"embedding","propensity":1.0,"reasons":[{"kind":"matches_your_taste"}]}',
            ',"source":"popularity","propensity":1.0,"reasons":[{"kind":"popular"}]}',
            ".",
            ',"offset":',
            ',"source":"exploration","propensity":0.',
            ',"reasons":[{"kind":"explore"}]}',
            ',"source":"content","propensity":0.',
            ',"reasons":[{"kind":"new"}]}',
            *(f',"variant":{name}}},"fallback":' for name in self._variants),
        ]
        encoded = [text.encode() for text in texts]
        ends = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in encoded], out=ends[1:])
        return Fragments(np.frombuffer(b"".join(encoded) + bytes(SLACK), dtype=np.uint8), ends)
