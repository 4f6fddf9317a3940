"""Contenders that know what items are, and the baselines for new items.

An item's content is told to a contender when the item enters the catalogue: before the first question
in which it may be ranked, and never earlier.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from learners.contenders import ScoringContender
from learners.content_evidence import NEW, ContentEvidence
from learners.content_fusion import ContentFusion
from learners.content_items import ContentItems
from learners.growth import grown
from learners.mixture import INITIAL_CONTENT, Mixture
from learners.prequential import Asked
from schemas.learner import Interactions
from schemas.runs import Float32, Int32, Int64
from schemas.settings import LearnerSettings
from serving.recommender import Recommender

from .contender import PLACES, ReelflowContender, parts_of

LOOKS_BACK: Final = 20
ON_SHELF: Final = " (new items only)"


class Contents(Struct, frozen=True):
    """What N items are, by slot; a row of NaN says that an item lacks a modality."""

    vectors: dict[str, Float32]  # (N, D) each
    published_ms: Int64  # (N,)

    def of(self, item: int) -> dict[str, Float32]:
        """Vectors of one item."""
        return {name: each[item] for name, each in self.vectors.items()}


class ContentContender(ReelflowContender):
    """The worker's `Recommender` with `learner.content`.

    Parameters
    ----------
    learner : LearnerSettings
    contents : Contents
        Of which it is told an item when that is in the catalogue.
    exclude_seen : bool
    name : str
    """

    def __init__(
        self, learner: LearnerSettings, contents: Contents, *, exclude_seen: bool, name: str = "content"
    ) -> None:
        super().__init__(learner, exclude_seen=exclude_seen, name=name)
        parts = parts_of(learner, exclude_seen=exclude_seen)
        embeddings, cooccurrence, ease = parts.embeddings, parts.cooccurrence, parts.ease
        if embeddings is None or cooccurrence is None or ease is None:
            raise TypeError("the evaluation needs embeddings")
        dims = {name: each.shape[1] for name, each in contents.vectors.items()}
        self._items = ContentItems(ContentFusion(dims, learner.dim, seed=learner.seed), embeddings)
        self._contents, self._n_told = contents, 0
        self._recommender = Recommender(
            parts.transitions,
            parts.popularity,
            embeddings,
            cooccurrence,
            ease,
            Mixture(INITIAL_CONTENT),
            list_size=PLACES,
            exclude_seen=exclude_seen,
            n_never=0,
            content=ContentEvidence(self._items, embeddings, parts.popularity),
        )

    def ranks(self, asked: Asked) -> Int32:
        """See `ReelflowContender.ranks`."""
        self.tell(asked.n_items)
        return super().ranks(asked)

    def learn(self, batch: Interactions) -> None:
        """As the worker does: the mixture, the fusion, then all others."""
        self.teach_mixture()
        self.tell(int(batch.items.max(initial=-1)) + 1)
        self._items.learn_many(batch)
        self._recommender.learn(batch)

    def tell(self, n_items: int) -> None:
        """Items below this slot are in the catalogue."""
        published = self._contents.published_ms
        for item in range(self._n_told, n_items):
            self._items.set_item(item, self._contents.of(item), published_ms=int(published[item]))
        self._n_told = max(self._n_told, n_items)


class _Counted:
    """How many events items had, up to the last batch."""

    def __init__(self) -> None:
        self._events: Int32 = np.zeros(0, dtype=np.int32)

    def count(self, batch: Interactions) -> None:
        self._events = grown(self._events, int(batch.items.max(initial=-1)) + 1)
        np.add.at(self._events, batch.items, 1)

    def warm(self, n_items: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which items below `n_items` are not new."""
        warm = np.zeros(n_items, dtype=np.bool_)
        n = min(n_items, len(self._events))
        warm[:n] = self._events[:n] > NEW
        return warm


class Shelf:
    """The places that another contender gives when asked for new items only; it learns nothing itself.

    Rows whose target is not new are not asked: -1. It has to be played before its contender.
    """

    def __init__(self, of: ReelflowContender, name: str | None = None) -> None:
        self.name = name or f"{of.name}{ON_SHELF}"
        self._of, self._counted = of, _Counted()

    def ranks(self, asked: Asked) -> Int32:
        """Places among what is new; (B,)."""
        places = np.full(len(asked), -1, dtype=np.int32)
        if isinstance(self._of, ContentContender):
            self._of.tell(asked.n_items)
        warm = self._counted.warm(asked.n_items)
        rows = np.flatnonzero(~warm[asked.targets])
        if len(rows):
            contexts = replace(
                asked.contexts, users=asked.contexts.users[rows], history=asked.contexts.history[rows]
            )
            places[rows] = self._of.places(contexts, asked.targets[rows], asked.seen[rows], warm)
        return places

    def learn(self, batch: Interactions) -> None:
        """Count."""
        self._counted.count(batch)


class NewOnly(ScoringContender):
    """Another contender's scores, all that is not new below them.

    Parameters
    ----------
    of : ScoringContender
        Its own: it is taught here.
    """

    def __init__(self, of: ScoringContender, name: str | None = None) -> None:
        super().__init__(name or f"{of.name}{ON_SHELF}")
        self._of, self._counted = of, _Counted()

    def scores(self, asked: Asked) -> Float32:
        """Minus infinity for what is not new."""
        scores = self._of.scores(asked)
        scores[:, self._counted.warm(asked.n_items)] = -np.inf
        return scores

    def learn(self, batch: Interactions) -> None:
        """Teach the other, and count."""
        self._of.learn(batch)
        self._counted.count(batch)


class ContentNeighbours(ScoringContender):
    """Cosine of each item to the mean of the user's last `LOOKS_BACK` items, by what they are alone.

    Vectors are those of all modalities side by side, each less its mean over all items (of which the
    catalogue is no secret: nothing of events is in it) and of length 1.
    """

    def __init__(self, contents: Contents, name: str = "content-knn") -> None:
        super().__init__(name)
        parts = []
        for each in contents.vectors.values():
            x = np.where(np.isfinite(each), each, np.float32(0.0))
            x = x - x.mean(axis=0)
            parts.append(x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9))
        self._matrix: Float32 = np.concatenate(parts, axis=1).astype(np.float32)
        self._last: tuple[Asked, Float32] | None = None

    def scores(self, asked: Asked) -> Float32:
        """Products with the mean; 0 for users without a history. Asked twice in a row, it looks only once."""
        if self._last is not None and self._last[0] is asked:
            return self._last[1].copy()
        history = asked.contexts.history[:, -LOOKS_BACK:]
        held = (history >= 0)[:, :, None]
        mean = (self._matrix[np.maximum(history, 0)] * held).sum(axis=1)
        scores: Float32 = mean.astype(np.float32) @ self._matrix[: asked.n_items].T
        self._last = (asked, scores.copy())
        return scores

    def learn(self, batch: Interactions) -> None:
        """Nothing."""
