"""Item-to-item transitions: decayed two-way counts over the last few items, K neighbours a row.

For every fresh positive x of weight omega at time t, with a_d the d-th newest item of the user's
history before it, d = 1 .. n_lags::

    v = omega 2^((t - t0) / half_life)
    T_forward[a_d -> x] += v / d      T_backward[x -> a_d] += v / d      T_next[a_1 -> x] += v

and the row sums likewise. A full row gives the place of its lightest neighbour (total over the
channels) to the newcomer, which goes on from three quarters of the weight it finds there; the rest
leaves the row sum too. So sum_k w[a, k, c] = rowsum[a, c] always, and a neighbour's weight is too
high by less than the least weight in the row. (Space-saving, with a leak: see `INHERITED`.)
Scores, j = 0 for the newest history item::

    s_c(b) = sum_j gamma_c^j T_c[a_j -> b] / (sum_b' T_c[a_j -> b'] + kappa)

with both T as of the newest event time learned (so a replay of old data ranks as it did then).
An item is never its own neighbour. Skips and other negatives add nothing. How many *distinct*
users stand behind a weight is not known here.

References
----------
Metwally, Agrawal and El Abbadi, Efficient computation of frequent and top-k elements in data
streams (space-saving), ICDT 2005. Cormode et al., Forward decay, ICDE 2009.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import inf
from typing import Final

import numpy as np
from numpy.typing import NDArray

from schemas.fork_join import ALONE, ForkJoin
from schemas.learner import Arrays, Contexts, Interactions, TouchedKeys
from schemas.runs import Float32, Int32, Int64

from .growth import grown
from .markov import FirstOrderMarkov
from .row_copies import RowCopies, slice_of
from .state import digest_arrays, taken
from .transition_kernels import (
    BLOCK,
    CHANNELS,
    Rows,
    TransitionsView,
    decay_exponent,
    divide_rows,
    find_keys,
    learn_rows,
    reference_of,
    rescale,
    score_rows,
    until_rebase,
)

__all__ = ["FirstOrderMarkov", "Transitions", "TransitionsView"]

GAMMAS: Final = (0.4, 0.6, 0.7)
LEAST_SHARED: Final = 8_192
"""Events of a batch from which on two threads learn it: only a backlog has so many."""

_FIRST_ITEMS: Final = 1_024
_EXPORTED: Final = ("nbr", "w", "rowsum", "filled")
_NO_USERS: Final = np.zeros(0, dtype=np.int32)


class Transitions:
    """The learner; see the module's docstring.

    Parameters
    ----------
    width : int
        K, neighbours kept a row; 20 instead of 64 costs 3.7 points of R@20.
    half_life_ms : float
        Milliseconds after which a count weighs half; infinite for no decay.
    kappa : float
        Weight that a row must have to be trusted by half.
    gammas : three floats
        Discount of older history items: next, forward, backward.
    n_lags : int
        History items to learn from and to score from.
    max_items : int
        Rows at most; items of higher slots are not learned.
    fork_join : ForkJoin
        Threads to learn large batches with; the outcome is the same, bit by bit.

    Notes
    -----
    learn_many equals folding learn_one, bit by bit. Cost: about 1 microsecond an event at 50 000
    items and K = 64; (20 K + 17) bytes an item.
    """

    def __init__(
        self,
        width: int = 64,
        *,
        half_life_ms: float = inf,
        kappa: float = 5.0,
        gammas: tuple[float, float, float] = GAMMAS,
        n_lags: int = 8,
        max_items: int = 2_000_000,
        fork_join: ForkJoin = ALONE,
    ) -> None:
        self._fork_join = fork_join
        if width < 1 or n_lags < 1 or max_items < 1 or half_life_ms <= 0 or kappa <= 0:
            raise ValueError("width, n_lags, max_items, half_life_ms and kappa are positive")
        self._per_ms = 1.0 / half_life_ms
        self._kappa = kappa
        self._gammas = np.array(gammas, dtype=np.float32)
        self._n_lags = n_lags
        self._max_items = max_items
        self._n_items = 0
        self._clock: Int64 = np.array([0, -1], dtype=np.int64)  # reference, newest event time
        self.copies = RowCopies()
        """Memory of `snapshot` with `reuse`."""
        n = min(_FIRST_ITEMS, max_items)
        self._rows = Rows(
            nbr=np.full((n, width), -1, dtype=np.int32),
            w=np.zeros((n, width, CHANNELS), dtype=np.float32),
            rowsum=np.zeros((n, CHANNELS), dtype=np.float32),
            filled=np.zeros(n, dtype=np.int32),
            dirty=np.zeros(n, dtype=np.bool_),
            stale=np.ones(n, dtype=np.bool_),
            keys=np.zeros((n, width), dtype=np.int32),
        )

    @property
    def name(self) -> str:
        """Stable name."""
        return "transitions"

    @property
    def n_items(self) -> int:
        """Item slots met so far."""
        return self._n_items

    def view(self) -> TransitionsView:
        """The rows for a ranking kernel: shared arrays, valid until the next learn_many."""
        rows = self._rows
        age = decay_exponent(int(self._clock[1]), int(self._clock[0]), self._per_ms)
        return TransitionsView(
            nbr=rows.nbr,
            w=rows.w,
            rowsum=rows.rowsum,
            n_items=self._n_items,
            gammas=self._gammas,
            kappa=self._kappa,
            scale=2.0**-age if self._clock[1] >= 0 else 1.0,
        )

    def predict_channels(self, contexts: Contexts, items: Int32) -> Float32:
        """s_next, s_forward and s_backward of each candidate; (B, C, 3)."""
        out = np.zeros((len(contexts.history), len(items), CHANNELS), dtype=np.float32)
        score_rows(contexts.history, items, self.view(), self._n_lags, out)
        return out

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """Sum of the channels' s_c, (B, C). Cost: about 20 microseconds a context."""
        scores: Float32 = self.predict_channels(contexts, items).sum(axis=2)  # (B, C)
        return scores

    def neighbours(self, item: int, k: int) -> tuple[Int32, Float32]:
        """At most `k` neighbours of an item and their sum of normalised weights, best first."""
        if not 0 <= item < self._n_items:
            return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        view, n = self.view(), int(self._rows.filled[item])
        norm = view.scale / (view.rowsum[item] * view.scale + view.kappa)
        scores = (view.w[item, :n] * norm).sum(axis=1, dtype=np.float32)  # (n,)
        order = np.argsort(-scores, kind="stable")[:k]
        return view.nbr[item, order], scores[order]

    def learn_many(self, batch: Interactions) -> None:
        """Count the batch's fresh positives, in order."""
        if not len(batch):
            return
        newest = batch.history[:, -self._n_lags :]
        self._reserve(max(int(batch.items.max()), int(newest.max(initial=-1))) + 1)
        start, clock, per_ms = 0, self._clock, self._per_ms
        while True:
            end = until_rebase(start, batch.weight, batch.ts_ms, batch.fresh, clock, per_ms)
            self._learn_between(start, end, batch)
            if end == len(batch):
                return
            reference = reference_of(int(batch.ts_ms[end]), per_ms)
            self.fade(2.0 ** -decay_exponent(reference, int(clock[0]), per_ms))
            clock[0] = reference
            start = end

    def _learn_between(self, start: int, end: int, batch: Interactions) -> None:
        """Events ``start .. end``, by two threads where there are many: each has rows of its own."""
        shared = self._fork_join.n > 1 and end - start >= LEAST_SHARED
        owners = np.zeros(-(-len(self._rows.filled) // BLOCK) if shared else 0, dtype=np.int8)
        if shared:
            counts = np.zeros(len(owners), dtype=np.int32)
            divide_rows(batch.items[start:end], batch.fresh[start:end], counts, owners)

        def learn(me: int) -> None:
            learn_rows(
                start,
                end,
                batch.items,
                batch.weight,
                batch.ts_ms,
                batch.fresh,
                batch.history,
                self._rows,
                int(self._clock[0]),
                self._n_lags,
                self._per_ms,
                owners,
                me,
            )

        if shared:
            self._fork_join.both(lambda: learn(0), lambda: learn(1))
        else:
            learn(0)

    def fade(self, kept: float) -> None:
        """Let everything counted so far weigh `kept` of what it did. O(N K): 20 ms at 50 000 items."""
        rescale(self._rows, kept)
        self._rows.stale[:] = True
        self._rows.dirty[: self._n_items] |= self._rows.filled[: self._n_items] > 0

    def _reserve(self, n: int) -> None:
        self._n_items = max(self._n_items, min(n, self._max_items))
        self._grow(n)

    def _grow(self, n: int) -> None:
        n = min(n, self._max_items)
        if n > len(self._rows.filled):
            fills = {"nbr": -1, "stale": 1}
            self._rows = Rows(
                **{name: grown(array, n, fills.get(name, 0)) for name, array in self._rows._asdict().items()}
            )

    def touched(self) -> TouchedKeys:
        """Items whose rows changed since the last call; all, when a new reference scaled them."""
        items = np.flatnonzero(self._rows.dirty[: self._n_items]).astype(np.int32)
        self._rows.dirty[items] = False
        return TouchedKeys(items=items, users=_NO_USERS)

    def export_rows(self, items: Int32) -> Arrays:
        """Absolute values of the rows of `items` (B,), for `import_rows` of another instance.

        ``nbr`` (B, K) int32, ``w`` (B, K, 3) and ``rowsum`` (B, 3) float32, ``filled`` (B,) int32,
        and ``reference`` (B,) int64: event time in ms at which a weight of 1 weighs 1. Copies; an
        item without a row has an empty one. Cost: 0.3 microseconds a row.
        """
        held = np.where((items >= 0) & (items < self._n_items), items, -1)
        rows = self._rows
        arrays: Arrays = {name: getattr(rows, name)[held] for name in _EXPORTED}
        arrays["nbr"][held < 0] = -1
        for name in ("w", "rowsum", "filled"):
            arrays[name][held < 0] = 0
        arrays["reference"] = np.full(len(items), self._clock[0], dtype=np.int64)
        return arrays

    def import_rows(self, items: Int32, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over rows of distinct `items` (B,) as `export_rows` gave them.

        `n_items` does not change: it comes with `import_dense`.

        Rows of an older reference are scaled to the newest one, and so is what is here. Once the
        exporting learner's rows are all here, the arrays are equal, bit by bit.

        Raises
        ------
        StateError
            Arrays are missing, or of another width.
        """
        n = len(items)
        rows = {name: taken(arrays, name, getattr(self._rows, name), rows=n) for name in _EXPORTED}
        references = taken(arrays, "reference", self._clock, rows=n)
        if not n:
            return
        self._grow(int(items.max()) + 1)
        self._refer_to(int(references.max()))
        older = np.exp2((references - self._clock[0]) * self._per_ms).astype(np.float32)
        rows["w"] *= older[:, None, None]
        rows["rowsum"] *= older[:, None]
        fits = items < len(self._rows.filled)
        self._rows.stale[items[fits]] = True
        for name, array in rows.items():
            getattr(self._rows, name)[items[fits]] = array[fits]
        find_keys(items[fits], self._rows)

    def export_dense(self) -> Arrays:
        """``clock``: reference, newest event time and number of item slots; (3,) int64."""
        return {"clock": np.array([*self._clock, self._n_items], dtype=np.int64)}

    def import_dense(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Take over what `export_dense` gave.

        Raises
        ------
        StateError
            The array is missing or malformed.
        """
        reference, newest, n_items = taken(arrays, "clock", self._clock, rows=3).tolist()
        self._reserve(n_items)
        self._refer_to(reference)
        self._clock[1] = newest

    def _refer_to(self, reference: int) -> None:
        """Scale the rows to `reference` if it is newer than theirs."""
        if reference > self._clock[0]:
            rescale(self._rows, 2.0 ** -decay_exponent(reference, int(self._clock[0]), self._per_ms))
            self._rows.stale[:] = True
            self._clock[0] = reference

    def snapshot(self, *, reuse: bool = False) -> Arrays:
        """Copy of the rows by item slot; what is touched but not drained stays so.

        With `reuse` as in `PartitionState.snapshot`.
        """
        dirty = {"dirty": self._rows.dirty[: self._n_items]}
        if reuse:
            arrays = self.copies.renew(self._copied(), self._rows.stale) | self.copies.whole(dirty)
        else:
            arrays = {name: rows.copy() for name, rows in {**self._copied(), **dirty}.items()}
        arrays["clock"] = self._clock.copy()
        arrays["decay"] = np.array([self._per_ms])
        return arrays

    def make_room(self) -> None:
        """Make the memory of `snapshot` with `reuse` as large as the next one will want it."""
        self.copies.make_room(self._copied(), self._rows.stale)

    def copy_ahead(self, place: int, of: int) -> None:
        """See `PartitionState.copy_ahead`."""
        self.copies.renew(self._copied(), self._rows.stale, *slice_of(self._n_items, place, of))

    def _copied(self) -> dict[str, NDArray[np.generic]]:
        """What is copied by rows; the rest is a flag, or follows from it."""
        return {name: getattr(self._rows, name)[: self._n_items] for name in _EXPORTED}

    def restore(self, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Become what `snapshot` described; another half-life takes effect from here on.

        Raises
        ------
        StateError
            Arrays are missing, or of another width.
        """
        n = len(taken(arrays, "filled", self._rows.filled))
        kept = self._rows._asdict()
        keys = np.zeros((n, kept.pop("keys").shape[1]), dtype=np.int32)
        stale = np.ones(n, dtype=np.bool_)
        del kept["stale"]
        rows = {name: taken(arrays, name, array, rows=n) for name, array in kept.items()}
        clock = taken(arrays, "clock", self._clock, rows=2)
        per_ms = float(taken(arrays, "decay", np.zeros(1), rows=1)[0])
        if per_ms != self._per_ms and clock[1] >= 0:
            age = decay_exponent(int(clock[1]), int(clock[0]), per_ms)
            for name in ("w", "rowsum"):
                rows[name] *= np.float32(2.0**-age)
            clock[0] = clock[1]
        self._rows = Rows(**rows, keys=keys, stale=stale)
        find_keys(np.arange(n, dtype=np.int32), self._rows)
        self._clock = clock
        self._n_items = n

    def digest(self) -> str:
        """Hash of the rows by item slot."""
        arrays = self.snapshot()
        del arrays["dirty"]
        return digest_arrays(arrays)
