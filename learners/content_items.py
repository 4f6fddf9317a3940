"""Items known by their content, scored together with the rows of the embeddings.

Holds the vectors that the encoders found (float16: an encoder's own noise is larger) and a
`ContentFusion`; rows, support and user vectors are those of the embeddings at hand, which learn apart
and stand still here. `learn_many` takes the fresh positives whose item has content in steps of
`STEP` rows; the items of a step are also each other's negatives, corrected by how often they come.

g(x) of every item is kept: made when its content comes, and made anew `REFRESHED` items a step, round and
round, while the fusion learns. So it is part of the state, and lags by at most N / `REFRESHED` steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.learner import Arrays, Contexts, Interactions, TouchedKeys
from schemas.runs import Float32, Int32, Int64

from .content_fusion import ContentFusion, FusionStep
from .content_kernels import UNPUBLISHED
from .content_vectors import Bools, ContentVectors
from .embeddings import Embeddings
from .growth import grown
from .state import digest_arrays, taken

STEP: Final = 64
REFRESHED: Final = 256
_LARGEST: Final = 65_000.0

Float16 = NDArray[np.float16]


class ContentItems:
    """Learner of the protocol in `schemas.learner`, name ``content``.

    Parameters
    ----------
    fusion : ContentFusion
    embeddings : Embeddings
        Whose rows are learned towards; of the same dimension. Not part of the state.
    max_items : int
        Slots from here on get no content.

    Notes
    -----
    `learn_many` differs from folding one event at a time: all of a step is learned at the same
    parameters, and a batch border is a step border.
    """

    def __init__(self, fusion: ContentFusion, embeddings: Embeddings, *, max_items: int = 1 << 20) -> None:
        self.fusion, self._embeddings, self._max_items = fusion, embeddings, max_items
        self._stored: dict[str, Float16] = {
            name: np.zeros((0, size), dtype=np.float16) for name, size in fusion.dims.items()
        }
        self._present: Bools = np.zeros((0, len(fusion.dims)), dtype=np.bool_)
        self._fused: Float32 = np.zeros((0, fusion.dim), dtype=np.float32)
        self._published: Int64 = np.zeros(0, dtype=np.int64)
        self._cursor = 0
        self._n_items = 0
        self._set_at: Int64 = np.zeros(0, dtype=np.int64)
        self.n_set = 0
        """How often content was set: whoever keeps something of it sees that it changed."""
        self._touched: list[Int32] = []

    @property
    def name(self) -> str:
        """Stable name."""
        return "content"

    def set_item(self, item: int, vectors: Mapping[str, Float32], *, published_ms: int = UNPUBLISHED) -> None:
        """What an item is, and when it was published; modalities not given, or not finite, are absent."""
        nothing = np.full(1, np.nan, dtype=np.float32)
        everything = {name: vectors.get(name, nothing) for name in self.fusion.dims}
        self.set_part(item, {**vectors, **everything}, published_ms=published_ms)

    def set_part(self, item: int, vectors: Mapping[str, Float32], *, published_ms: int | None = None) -> None:
        """Some modalities of an item, where a vector with a number that is not finite says that it lacks.

        Others, and without `published_ms` the time of publication, stay what they are.

        Raises
        ------
        ValueError
            A modality is unknown, or of another dimension.
        """
        for name, vector in vectors.items():
            if name not in self.fusion.dims or (
                vector.shape != (self.fusion.dims[name],) and bool(np.isfinite(vector).all())
            ):
                raise ValueError(f"{name!r} with the shape {vector.shape} is none of {self.fusion.dims}")
        if not 0 <= item < self._max_items:
            return
        self._present = grown(self._present, item + 1, False)
        self._n_items = max(self._n_items, item + 1)
        for column, name in enumerate(self.fusion.dims):
            self._stored[name] = grown(self._stored[name], item + 1)
            if name not in vectors:
                continue
            vector = vectors[name]
            is_there = bool(np.isfinite(vector).all())
            self._present[item, column] = is_there
            self._stored[name][item] = np.clip(vector, -_LARGEST, _LARGEST) if is_there else 0.0
        self._published = grown(self._published, item + 1, UNPUBLISHED)
        if published_ms is not None:
            self._published[item] = published_ms
        self._fused = grown(self._fused, item + 1)
        only = np.array([item], dtype=np.int32)  # alone: a batch of others might differ in the last bit
        self._fused[item] = self.fusion.vectors(self.content(only))[0] if self.known(only)[0] else 0.0
        self.n_set += 1
        self._set_at = grown(self._set_at, item + 1)
        self._set_at[item] = self.n_set
        self._touched.append(only)

    def changed_since(self, n_set: int) -> Int32:
        """Slots whose content was set after `n_set` was what it was."""
        changed: Int32 = np.flatnonzero(self._set_at[: self._n_items] > n_set).astype(np.int32)
        return changed

    def forget(self, modality: str) -> None:
        """Nobody has this modality any more; its vectors will come from another model."""
        column = list(self.fusion.dims).index(modality)
        self._touched.append(np.flatnonzero(self._present[: self._n_items, column]).astype(np.int32))
        self._present[:, column] = False
        self._stored[modality][:] = 0.0
        self.fusion.forget(modality)
        self.n_set += 1
        self._set_at[: self._n_items] = self.n_set

    def newcomers(self, n: int) -> Int32:
        """At most the `n` highest slots with content and fewer events than the fusion learns towards."""
        known = np.flatnonzero(self._present[: self._n_items].any(axis=1)).astype(np.int32)[-4 * n :]
        _, support = self._rows(known)
        new: Int32 = known[support < self.fusion.options.min_support][-n:]
        return new

    def known(self, items: Int32) -> Bools:
        """Which of `items` (N,) have content."""
        inside = (items >= 0) & (items < self._n_items)
        found = np.zeros(len(items), dtype=np.bool_)
        found[inside] = self._present[items[inside]].any(axis=1)
        return found

    def content(self, items: Int32) -> ContentVectors:
        """Vectors of `items` (N,), all below the highest slot with content."""
        vectors = {name: each[items].astype(np.float32) for name, each in self._stored.items()}
        return ContentVectors(vectors, self._present[items])

    @property
    def n_items(self) -> int:
        """Slots below have content, or have none for good."""
        return self._n_items

    @property
    def fused(self) -> Float32:
        """g(x) by slot (N, d), as of the last time it was made; a view, not to be changed."""
        return self._fused[: self._n_items]

    @property
    def published_ms(self) -> Int64:
        """When items were published (N,), `UNPUBLISHED` where that is not known; a view."""
        return self._published[: self._n_items]

    @property
    def present(self) -> Bools:
        """Which modalities items have (N, M); a view."""
        return self._present[: self._n_items]

    def item_vectors(self, items: Int32) -> Float32:
        """f_C of `items` (N,): blended, the row alone without content, 0 for an item without either."""
        rows, support = self._rows(items)
        known = self.known(items)
        if known.any():
            content = self.content(items[known])
            rows[known] = self.fusion.blended(content, rows[known], support[known])
        return rows

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """Logits ``f_U . f_C``: (B, C)."""
        logits: Float32 = self._embeddings.user_vectors(contexts) @ self.item_vectors(items).T
        return logits

    def learn_many(self, batch: Interactions) -> None:
        """Learn a batch in row order, in steps (see the module)."""
        is_target = batch.fresh & (batch.weight > 0)
        rows = np.flatnonzero(is_target & self.known(batch.items))
        for start in range(0, len(rows), STEP):
            self._learn_step(batch, rows[start : start + STEP])

    def _learn_step(self, batch: Interactions, rows: NDArray[np.intp]) -> None:
        items, target = np.unique(batch.items[rows], return_inverse=True)
        contexts = Contexts(
            users=batch.users[rows], history=batch.history[rows], now_ms=int(batch.ts_ms[rows[-1]])
        )
        values, support = self._rows(items)
        times = np.bincount(target).astype(np.float32)
        self.fusion.learn(
            FusionStep(
                content=self.content(items),
                rows=values,
                support=support,
                users=self._embeddings.user_vectors(contexts),
                target=target.astype(np.int32),
                log_q=np.log(np.maximum(support.astype(np.float32), times)),
            )
        )
        self._touched.append(items)
        self._refresh()

    def _refresh(self) -> None:
        """g(x) of the next few items, by the parameters there are now."""
        end = min(self._cursor + REFRESHED, self._n_items)
        part = np.arange(self._cursor, end, dtype=np.int32)
        self._cursor = 0 if end >= self._n_items else end
        part = part[self._present[part].any(axis=1)]
        if len(part):
            self._fused[part] = self.fusion.vectors(self.content(part))

    def _rows(self, items: Int32) -> tuple[Float32, Int32]:
        found = self._embeddings.export_rows(items)
        rows: Float32 = found["vector"].astype(np.float32)
        support: Int32 = found["support"].astype(np.int32)
        return rows * (support > 0)[:, None].astype(np.float32), support

    def touched(self) -> TouchedKeys:
        """Drain: items with new content or a step, and the fusion's parameters when they changed."""
        items = np.unique(np.concatenate([*self._touched, np.zeros(0, dtype=np.int32)]))
        self._touched = []
        found = self.fusion.touched()
        return TouchedKeys(items=items, users=found.users, dense=found.dense)

    def snapshot(self) -> Arrays:
        """Copies: the fusion's arrays, ``content.present``, ``content.fused``, ``content.published``,
        ``content.cursor`` and ``content.<modality>``, trimmed.
        """
        stored: Arrays = {f"content.{name}": each.copy() for name, each in self._arrays().items()}
        return {**self.fusion.snapshot(), **stored}

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            Arrays are missing, of other modalities or dimensions, or more items than there may be.
        """
        present = taken(arrays, "content.present", self._present)
        n = len(present)
        if n > self._max_items:
            raise StateError(f"'content.present' has {n} items, more than {self._max_items}")
        stored = {name: taken(arrays, f"content.{name}", each, rows=n) for name, each in self._stored.items()}
        fused = taken(arrays, "content.fused", self._fused, rows=n)
        published = taken(arrays, "content.published", self._published, rows=n)
        cursor = int(taken(arrays, "content.cursor", np.zeros(1, np.int64), rows=1)[0])
        if not 0 <= cursor <= n or not np.isfinite(fused).all():
            raise StateError("'content.cursor' or 'content.fused' is damaged")
        self.fusion.restore(arrays)
        self._present, self._stored, self._n_items, self._touched = present, stored, n, []
        self._fused, self._published, self._cursor = fused, published, cursor
        self.n_set += 1
        self._set_at = np.full(n, self.n_set, dtype=np.int64)

    def digest(self) -> str:
        """Hash of `snapshot` (hex)."""
        own = {f"content.{name}": each for name, each in self._arrays().items()}
        return digest_arrays({**self.fusion.snapshot(), **own})

    def _arrays(self) -> dict[str, NDArray[Any]]:
        n = self._n_items
        return {
            "present": self._present[:n],
            "fused": self._fused[:n],
            "published": self._published[:n],
            "cursor": np.array([self._cursor], dtype=np.int64),
            **{name: each[:n] for name, each in self._stored.items()},
        }
