"""Items known by their content, scored together with the rows of the embeddings.

Holds the vectors that the encoders found (float16: an encoder's own noise is larger) and a
`ContentFusion`; rows, support and user vectors are those of the embeddings at hand, which learn apart
and stand still here. `learn_many` takes the fresh positives whose item has content in steps of
`STEP` rows; the items of a step are also each other's negatives, corrected by how often they come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from schemas.errors import StateError
from schemas.learner import Arrays, Contexts, Interactions, TouchedKeys
from schemas.runs import Float32, Int32

from .content_fusion import ContentFusion, FusionStep
from .content_vectors import Bools, ContentVectors
from .embeddings import Embeddings
from .state import digest_arrays, grown, taken

STEP: Final = 64
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
        self._n_items = 0
        self._touched: list[Int32] = []

    @property
    def name(self) -> str:
        """Stable name."""
        return "content"

    def set_item(self, item: int, vectors: Mapping[str, Float32]) -> None:
        """What an item is, from now on; modalities not given, or not finite, are absent.

        Raises
        ------
        ValueError
            A modality is unknown, or of another dimension.
        """
        for name, vector in vectors.items():
            if name not in self.fusion.dims or vector.shape != (self.fusion.dims[name],):
                raise ValueError(f"{name!r} with the shape {vector.shape} is none of {self.fusion.dims}")
        if not 0 <= item < self._max_items:
            return
        self._present = grown(self._present, item + 1, False)
        self._n_items = max(self._n_items, item + 1)
        for column, name in enumerate(self.fusion.dims):
            self._stored[name] = grown(self._stored[name], item + 1)
            vector = vectors[name] if name in vectors else np.full(1, np.nan, np.float32)
            is_there = bool(np.isfinite(vector).all())
            self._present[item, column] = is_there
            self._stored[name][item] = np.clip(vector, -_LARGEST, _LARGEST) if is_there else 0.0
        self._touched.append(np.array([item], dtype=np.int32))

    def forget(self, modality: str) -> None:
        """Nobody has this modality any more; its vectors will come from another model."""
        column = list(self.fusion.dims).index(modality)
        self._touched.append(np.flatnonzero(self._present[: self._n_items, column]).astype(np.int32))
        self._present[:, column] = False
        self._stored[modality][:] = 0.0
        self.fusion.forget(modality)

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
        """Copies: the fusion's arrays, ``content.present`` and ``content.<modality>``, trimmed."""
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
        self.fusion.restore(arrays)
        self._present, self._stored, self._n_items, self._touched = present, stored, n, []

    def digest(self) -> str:
        """Hash of `snapshot` (hex)."""
        own = {f"content.{name}": each for name, each in self._arrays().items()}
        return digest_arrays({**self.fusion.snapshot(), **own})

    def _arrays(self) -> dict[str, NDArray[Any]]:
        n = self._n_items
        return {"present": self._present[:n], **{name: each[:n] for name, each in self._stored.items()}}
