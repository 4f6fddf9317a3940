"""What content says of candidates, and which new items it proposes: the mixture's part of `content_kernels`.

New items are those with content and at most `NEW` events. To a user with the history h_1 (newest) .. h_20::

    p = sum_j .9^j v(h_j), without the mean of all new items, to length 1
    v = LayerNorm of each modality side by side, over the root of how many there are

Proposed are the best new items by y0 (`N_NEAR`) and by ``y0 / 2 + y1 / 2 + y2 / 2 + y4`` (`N_MIXED`), and the
most popular of them at two half-lives (`N_HOT` each). Nothing here learns; what does is the fusion
(`content_items`) and the mixture. Besides the parameters nothing is kept that could differ between two
processes that read the same log: what is cached follows from the state.

Cost, per user: P (D + F + d) multiplications for P new items and C (D + F + d) for C candidates; 4 (D + F)
bytes an item beside the learner's own.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.learner import Contexts
from schemas.runs import Float32, Int32

from .content_facts import FACTS
from .content_items import ContentItems
from .content_kernels import (
    N_AGES,
    N_HOT,
    N_MIXED,
    N_NEAR,
    Known,
    Profiles,
    fill_ages,
    fill_closeness,
    fill_content,
)
from .content_vectors import normalised
from .embeddings import Embeddings
from .growth import grown
from .mixture_candidates import Gathered
from .mixture_features import N_SOURCES
from .popularity import Popularity

NEW: Final = 5
LOOKS_BACK: Final = 20
DISCOUNT: Final = 0.9
MOST_NEW: Final = 1 << 14
"""New items that are looked at: those with the highest slots."""
HOT_AT: Final = (1, 3)
"""Half-lives of popularity, by number."""


class ContentEvidence:
    """See the module's docstring.

    Parameters
    ----------
    items : ContentItems
    embeddings : Embeddings
    popularity : Popularity
        At the half-lives of the mixture.
    """

    def __init__(self, items: ContentItems, embeddings: Embeddings, popularity: Popularity) -> None:
        self._items, self._embeddings, self._popularity = items, embeddings, popularity
        self._media = [name for name in items.fusion.dims if name != FACTS]
        width = sum(items.fusion.dims[name] for name in self._media)
        self._near: Float32 = np.zeros((0, width), dtype=np.float32)
        self._facts: Float32 = np.zeros((0, items.fusion.dims.get(FACTS, 1)), dtype=np.float32)
        self._has: Int32 = np.zeros(0, dtype=np.int32)
        self._n_set = -1
        self._known: Known | None = None
        self._users: Profiles | None = None
        self._pool: tuple[Int32, Float32, Float32] | None = None

    @property
    def n_items(self) -> int:
        """Whatever is proposed has a slot below."""
        return self._items.n_items

    # -- items ----------------------------------------------------------------------------------

    def _read(self) -> None:
        """Bring the matrices up to the items' content."""
        items = self._items
        if self._n_set == items.n_set:
            return
        n = items.n_items
        changed = items.changed_since(self._n_set)
        self._n_set, self._pool = items.n_set, None
        self._near, self._facts = grown(self._near, n), grown(self._facts, n)
        self._has = grown(self._has, n)
        for start in range(0, len(changed), 1_024):
            part = changed[start : start + 1_024]
            content = items.content(part)
            columns = {name: column for column, name in enumerate(items.fusion.dims)}
            n_media = content.present[:, [columns[name] for name in self._media]].sum(axis=1)
            scale = (1.0 / np.sqrt(np.maximum(n_media, 1))).astype(np.float32)[:, None]
            parts = [
                normalised(content.vectors[name], content.present[:, columns[name]]) * scale
                for name in self._media
            ]
            self._near[part] = np.concatenate(parts, axis=1) if parts else 0.0
            has_facts = np.zeros(len(part), dtype=np.bool_)
            if FACTS in columns:
                has_facts = content.present[:, columns[FACTS]]
                self._facts[part] = np.where(has_facts[:, None], content.vectors[FACTS], np.float32(0.0))
            self._has[part] = (n_media > 0).astype(np.int32) + 2 * has_facts.astype(np.int32)

    def _new(self) -> Int32:
        """New items, the highest slots of them."""
        n = self._items.n_items
        support = self._embeddings.support
        known = self._has[:n] > 0
        m = min(n, len(support))
        known[:m] &= support[:m] <= NEW
        new: Int32 = np.flatnonzero(known)[-MOST_NEW:].astype(np.int32)
        return new

    def _pooled(self, new: Int32) -> tuple[Float32, Float32]:
        """Matrices of the new items, the same until others are new."""
        if self._pool is None or not np.array_equal(self._pool[0], new):
            self._pool = (new, self._near[new], self._facts[new])
        return self._pool[1], self._pool[2]

    # -- users ----------------------------------------------------------------------------------

    def propose(self, contexts: Contexts, withdrawn: NDArray[np.bool_]) -> Int32:
        """New items for B users, -1 padded (B, E); then `fill` describes candidates of the same users."""
        self._read()
        items, n_users = self._items, len(contexts.users)
        n = items.n_items
        log_age: Float32 = np.empty(n, dtype=np.float32)
        fill_ages(items.published_ms, contexts.now_ms, log_age)
        self._known = Known(
            self._near[:n], self._facts[:n], items.fused, self._has[:n], log_age, self._embeddings.support
        )
        new = self._new()
        if len(withdrawn):
            inside = new < len(withdrawn)
            new = new[~(inside & withdrawn[np.where(inside, new, 0)])]
        near, facts = self._pooled(new)
        history = contexts.history[:, -LOOKS_BACK:]
        by_near = self._profiles(history, self._near, near)
        by_facts = self._profiles(history, self._facts, facts)
        vectors = self._embeddings.user_vectors(contexts)
        newest = history[:, ::-1][:, :N_AGES]
        inside = (newest >= 0) & (newest < n)
        ages = np.full(newest.shape, -1.0, dtype=np.float32)
        ages[inside] = log_age[newest[inside]]
        shifts = np.zeros((n_users, 5), dtype=np.float32)
        shifts[:, 1] = shifts[:, 3] = 1.0
        self._users = Profiles(
            by_near, by_facts, np.ascontiguousarray(vectors),
            shifts, ages,
        )  # fmt: skip
        if not len(new):
            return np.full((n_users, 0), -1, dtype=np.int32)
        s_near = _standardised(by_near @ near.T, shifts[:, 0:2])  # (B, P)
        s_facts = _standardised(by_facts @ facts.T, shifts[:, 2:4])
        logits = vectors @ items.fused[new].T
        peak = logits.max(axis=1, keepdims=True)
        shifts[:, 4] = peak[:, 0] + np.log(np.exp(logits - peak).mean(axis=1))
        mixed = np.clip(logits - shifts[:, 4:], -6.0, 10.0) + 0.5 * (s_near + s_facts)
        close = np.empty_like(mixed)
        fill_closeness(self._users.ages[:, 0].copy(), log_age[new], close)
        mixed += 0.5 * close
        found = [new[_best(s_near, N_NEAR)], new[_best(mixed, N_MIXED)]]
        counts = self._popularity.view()[0]
        for which in HOT_AT:
            heat: Float32 = np.zeros(len(new), dtype=np.float32)
            inside = new < len(counts)
            heat[inside] = counts[new[inside], which]
            hot = new[_best(heat[None, :], N_HOT)[0]]
            found.append(np.tile(hot, (n_users, 1)))
        return np.ascontiguousarray(np.concatenate(found, axis=1), dtype=np.int32)

    def _profiles(self, history: Int32, matrix: Float32, pool: Float32) -> Float32:
        """P of each user, (B, D)."""
        n = min(len(matrix), self._items.n_items)
        inside = (history >= 0) & (history < n)
        weight = np.where(inside, DISCOUNT ** np.arange(history.shape[1])[::-1], 0.0)
        sums = np.zeros((len(history), matrix.shape[1]), dtype=np.float32)
        if not n:
            return sums
        total = weight.sum(axis=1)
        for j in range(history.shape[1]):
            held = np.flatnonzero(inside[:, j])
            sums[held] += weight[held, j, None].astype(np.float32) * matrix[history[held, j]]
        if len(pool):
            sums -= total[:, None].astype(np.float32) * pool.mean(axis=0)
        length = np.linalg.norm(sums, axis=1, keepdims=True)
        unit: Float32 = np.divide(sums, length, out=np.zeros_like(sums), where=length > 1e-9)
        return unit

    def fill(self, gathered: Gathered, n_users: int) -> None:
        """Describe the candidates of the users asked last."""
        if self._known is None or self._users is None:
            raise RuntimeError("nobody was asked about")
        fill_content(n_users, gathered.filled, gathered.ids, self._known, self._users, N_SOURCES, gathered.x)


def _standardised(scores: Float32, shifts: Float32) -> Float32:
    """Scores (B, P) less their mean over their standard deviation, both written into `shifts` (B, 2)."""
    shifts[:, 0] = scores.mean(axis=1)
    spread = scores.std(axis=1)
    shifts[:, 1] = np.divide(1.0, spread, out=np.zeros_like(spread), where=spread > 1e-6)
    found: Float32 = (scores - shifts[:, :1]) * shifts[:, 1:]
    return found


def _best(scores: Float32, k: int) -> NDArray[np.intp]:
    """Columns of the `k` highest of each row, in any order; of all where there are fewer."""
    n = scores.shape[1]
    if n <= k:
        return np.tile(np.arange(n), (len(scores), 1))
    return np.argpartition(-scores, k - 1, axis=1)[:, :k]
