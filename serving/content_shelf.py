"""Vectors of items by modality in memory: what is near an item, and near a text.

Each model and version has a table of its own, so that vectors of two are never compared. Rows are of unit
length and float16. Similarity of two items is the mean over the modalities that both have of::

    cos(x - mean, y - mean)        over the table's mean, for pictures and sounds have much in common

and 0 is chance. A text is compared with titles by their cosine.
"""

from __future__ import annotations

import threading
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.content import ItemContent
from schemas.runs import Float32

LEAST_ROOM: Final = 64
AT_ONCE: Final = 8_192
"""Rows that are compared at a time: 32 MB at most."""

Key = tuple[str, str, str, int]
"""Modality, model, version, dimensions."""


class ContentShelf:
    """See the module's docstring. From any thread. 2 sum D bytes an item.

    Cost of a question: 0.1 microseconds a row and 100 dimensions.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tables: dict[Key, _Table] = {}
        self._places: dict[str, list[Key]] = {}

    def __len__(self) -> int:
        return len(self._places)

    def put(self, content: ItemContent) -> None:
        """What an item is, from now on."""
        with self._lock:
            self._drop(content.item_id)
            places: list[Key] = []
            for one in content.vectors:
                vector = one.vector
                length = float(np.linalg.norm(vector))
                if not np.isfinite(length) or length <= 0.0:
                    continue
                key: Key = (one.modality, one.model, one.version, len(vector))
                table = self._tables.setdefault(key, _Table(len(vector)))
                table.put(content.item_id, vector / np.float32(length))
                places.append(key)
            if places:
                self._places[content.item_id] = places

    def drop(self, item_id: str) -> None:
        """An item is no more."""
        with self._lock:
            self._drop(item_id)

    def _drop(self, item_id: str) -> None:
        for key in self._places.pop(item_id, ()):
            self._tables[key].drop(item_id)

    def similar(self, item_id: str, limit: int) -> list[tuple[str, float]] | None:
        """At most `limit` items near an item, best first; None for one without vectors."""
        with self._lock:
            places = self._places.get(item_id)
            if places is None:
                return None
            found: dict[str, list[float]] = {}
            for key in places:
                table = self._tables[key]
                mean = table.mean()
                for other, score in table.scores(table.row(item_id) - mean, mean):
                    if other != item_id:
                        found.setdefault(other, []).append(score)
        best = sorted(
            ((sum(s) / len(s), other) for other, s in found.items()), key=lambda one: (-one[0], one[1])
        )
        return [(other, score) for score, other in best[:limit]]

    def search(self, vector: Float32, model: str, version: str, limit: int) -> list[tuple[str, float]]:
        """At most `limit` items whose titles are near a text's vector of that model, best first."""
        with self._lock:
            table = self._tables.get(("text", model, version, len(vector)))
            if table is None or not vector.any():
                return []
            scored = table.scores(vector, np.zeros_like(vector))
        return sorted(scored, key=lambda one: (-one[1], one[0]))[:limit]


class _Table:
    def __init__(self, dims: int) -> None:
        self._rows: NDArray[np.float16] = np.zeros((LEAST_ROOM, dims), dtype=np.float16)
        self._ids: list[str | None] = []
        self._at: dict[str, int] = {}
        self._free: list[int] = []
        self._sum = np.zeros(dims, dtype=np.float64)

    def put(self, item_id: str, vector: Float32) -> None:
        row = self._free.pop() if self._free else len(self._ids)
        if row == len(self._ids):
            self._ids.append(None)
        if row >= len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[row] = vector
        self._ids[row], self._at[item_id] = item_id, row
        self._sum += self._rows[row]

    def drop(self, item_id: str) -> None:
        row = self._at.pop(item_id)
        self._sum -= self._rows[row]
        self._rows[row] = 0.0
        self._ids[row] = None
        self._free.append(row)

    def row(self, item_id: str) -> Float32:
        found: Float32 = self._rows[self._at[item_id]].astype(np.float32)
        return found

    def mean(self) -> Float32:
        found: Float32 = (self._sum / max(len(self._at), 1)).astype(np.float32)
        return found

    def scores(self, vector: Float32, mean: Float32) -> list[tuple[str, float]]:
        """Cosines of all rows, less the mean, with a vector."""
        found: list[tuple[str, float]] = []
        length = float(np.linalg.norm(vector))
        for start in range(0, len(self._ids), AT_ONCE):
            ids = self._ids[start : start + AT_ONCE]
            rows = self._rows[start : start + len(ids)].astype(np.float32) - mean
            lengths = np.linalg.norm(rows, axis=1) * np.float32(length)
            cosines = np.divide(rows @ vector, lengths, out=np.zeros_like(lengths), where=lengths > 1e-6)
            found += [(one, float(score)) for one, score in zip(ids, cosines, strict=True) if one is not None]
        return found
