"""Sequence encoder with a tied item table: a user is a function of the recent items.

::

    f_U = A [e_last ; sum_j pi_j e_j] + V c + g + p_u         score of item C: f_U . e_C

over the last H items of the history, pi a softmax of learned positional logits, c the pools of
attention heads (none by default), g what all users share, p_u a row of the user, zero until a
positive of the user is learned. The user row is a residual; most of f_U answers within the event.
Loss and gradient stand in `embedding_step`; items update by row-wise Adagrad at rate 0.1 by
default, A (from [.5 I ; I]) at 0.003, V from zero.

`learn_many` cuts its batch, in row order, into steps of at most 64 targets (fresh positives, see
`EmbeddingOptions.step_targets`) and 512 rows; all of a step is learned at the same parameters. So
it differs from folding `learn_one`: the histories are immediate, the parameters lag by at most
one step, and a batch border is a step border. Positives that are not fresh teach nothing here:
their item was a target already. Before any item was a target there is nothing to draw, and the
first step only counts.

Same seed and same batches give the same state, bit by bit, on one kind of CPU with one number of
threads, and on one kind of GPU with one release of PyTorch. A CPU and a GPU agree to rounding.

References
----------
Yi et al., Sampling-bias-corrected neural modeling for large corpus item recommendations,
RecSys 2019 (logQ correction).
"""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from msgspec import structs
from numpy.typing import NDArray
from torch import Tensor

from schemas.learner import Contexts, Interactions
from schemas.records import EVENT_TYPES
from schemas.runs import Float32, Int32

from .embedding_graphs import CapturedSteps, found_of
from .embedding_rows import Numbered, number_items
from .embedding_step import MAX_ROWS, StepArrays, StepInput, encode
from .embedding_tables import EmbeddingTables, host_array
from .nearest import Ranked, best_items
from .negatives import Float64
from .transition_kernels import Bools

ENGAGING: Final = np.isin(EVENT_TYPES, ("like", "favourite", "comment", "share", "follow", "gift"))
"""Which event types say more than that something was watched."""


class Embeddings(EmbeddingTables):
    """Learner of the protocol in `schemas.learner`, name ``embeddings``.

    Cost on one core at d = 64, H = 50 and 8 000 items: 19 microseconds a target learned in
    full steps of 64, 12 in steps of 128 (a step of a few targets costs about half a millisecond
    whatever they are), 1.5 a user vector, 45 a list of 100 among all items with its normaliser.
    Steps are small: more than one torch thread does not pay. On a GPU a step is a captured graph
    (`learners.embedding_graphs`).

    Parameters
    ----------
    dim : int
        d.
    history : int
        H; longer histories are cut to their newest H.
    seed : int
        Of initial item vectors and negatives.
    device : torch.device
        Where tables and arithmetic live (default the CPU); counts and sampling stay on the CPU.
    options : EmbeddingOptions
        Attention, loss, optimiser and further choices.
    heads : tuple of two int
        Items that are scored for everybody where there are many more, and in haste.
    """

    @property
    def name(self) -> str:
        """Stable name."""
        return "embeddings"

    # -- learning -----------------------------------------------------------------------------

    def learn_many(self, batch: Interactions) -> None:
        """Learn a batch in row order, in steps (see the module); grows as slots demand."""
        if not len(batch):
            return
        newest = max(int(batch.items.max()), int(batch.history.max(initial=-1)))
        self.ensure(newest + 1, int(batch.users.max()) + 1)
        self._users.observe(batch.users, batch.ts_ms)
        batch = structs.replace(batch, weight=self._objective_weights(batch))
        is_target = batch.fresh & (batch.weight > 0)
        rows = np.flatnonzero(is_target | (batch.weight < 0))
        n_targets = np.cumsum(is_target[rows])
        start, before = 0, 0
        while start < len(rows):
            by_targets = int(np.searchsorted(n_targets, before + self.options.step_targets, side="right"))
            end = min(by_targets, start + MAX_ROWS)
            self._learn_step(batch, rows[start:end], is_target)
            start, before = end, int(n_targets[end - 1])

    def _learn_step(self, batch: Interactions, rows: NDArray[np.intp], is_target: NDArray[np.bool_]) -> None:
        counted, hits = batch.items[rows], None
        if not self._admission.is_open:
            hits = self._admission.hits(counted)
            self._admit(counted)
            rows = rows[self._admission.admits(counted)]
            if not len(rows):
                return
        chosen = is_target[rows]
        rows = np.concatenate([rows[chosen], rows[~chosen]])
        n_targets = int(np.count_nonzero(chosen))
        targets = batch.items[rows[:n_targets]]
        history = self._admission.masked(self._cut(batch.history[rows]))
        weight = np.abs(batch.weight[rows])
        real = weight[n_targets:]
        more, shifted, shifted_weight = self._shifted(history[:n_targets], weight[:n_targets])
        # Targets, the same from shifted histories, real negatives.
        place = np.concatenate([rows[:n_targets], rows[more], rows[n_targets:]])
        history = np.concatenate([history[:n_targets], shifted, history[n_targets:]])
        weight = np.concatenate([weight[:n_targets], shifted_weight, real])
        n_rows = n_targets + len(more)
        drawn_before = self._sampler.drawn
        drawn = self._sampler.draw(self.options.negatives if n_targets else 0)
        if self.options.in_batch and len(drawn):
            drawn = np.concatenate([drawn, targets])
        numbered = number_items(
            drawn, batch.items[place[:n_rows]], batch.items[place[n_rows:]], history, self._place
        )
        users, user = np.unique(batch.users[place], return_inverse=True)
        step = self._step_arrays(numbered, weight, batch.items[place[:n_rows]], user)
        captured = None if self._device.type == "cpu" else self._graphs().of(step, numbered)
        held = self._users.rows_of(users)
        if captured is None:
            slots = torch.from_numpy(numbered.slots)
            found = found_of(
                StepInput.of(step), self.item_vectors(slots), self._users.gather(held),
                self._dense_values(), self.options,
            )  # fmt: skip
        else:
            found = captured.run(step, numbered.slots, held, self._items.values, self._users.values)
            slots = captured.slots(len(numbered.slots))
        if not bool(found.finite):
            self._sampler.drawn = drawn_before
            if hits is not None:
                self._unadmit(counted, hits)
            self.discarded_steps += 1
            self.discarded_in_a_row += 1
            return
        self.discarded_in_a_row = 0
        positives = np.bincount(user[:n_targets], minlength=len(users))
        self._items.apply(slots, found.gradients.items, found.item_norms)
        self._users.apply(users, positives, found.gradients.users, found.user_norms)
        if captured is None:
            for name, parameter in self._dense.items():
                parameter.apply(getattr(found.gradients.dense, name))
        else:
            captured.apply_dense()
        opened = targets[self._sampler.counts[targets] == 0]
        self._sampler.add(targets)
        for head in (self._head, self._hasty_head):
            head.learned(targets, self._items.values[: self._n_items])
        if len(opened):
            self._closed[self._tensor(opened.astype(np.int64))] = 0.0
        self._dirty_items[numbered.slots] = True
        self._dirty_dense = True
        self._not_on_host(numbered.slots)

    def _objective_weights(self, batch: Interactions) -> Float32:
        """Omega of each event times the weight of its objective, < 0 for what counts against; (N,)."""
        chosen, omega = self.options.objectives, batch.weight
        weights: Float32 = omega * np.where(
            omega < 0,
            np.float32(chosen.rejection),
            np.where(ENGAGING[batch.types], np.float32(chosen.engagement), np.float32(chosen.watch)),
        )
        weights[omega == 0] = -np.float32(chosen.ignored)
        return weights

    def _shifted(self, history: Int32, weight: Float32) -> tuple[NDArray[np.intp], Int32, Float32]:
        """Rows of `history` (P, H) that stay histories without their last items: number, row, weight."""
        found, rows, weights = [np.zeros(0, np.intp)], [history[:0]], [weight[:0]]
        for shift in range(1, min(self.options.shifts, history.shape[1] - 1) + 1):
            held = np.flatnonzero(history[:, -1 - shift] >= 0)
            moved = np.full((len(held), history.shape[1]), -1, dtype=np.int32)
            moved[:, shift:] = history[held, :-shift]
            found.append(held)
            rows.append(moved)
            weights.append(weight[held] * np.float32(self.options.shift_weight**shift))
        return np.concatenate(found), np.concatenate(rows), np.concatenate(weights)

    def _step_arrays(
        self, numbered: Numbered, weight: Float32, targets: Int32, user: NDArray[np.intp]
    ) -> StepArrays:
        n_negatives = numbered.n_negatives
        correction = np.zeros(n_negatives, dtype=np.float32)
        target_correction = np.zeros(len(targets), dtype=np.float32)
        if self.options.loss == "softmax":
            expected = self._expected(numbered.slots[:n_negatives], len(targets))
            correction = np.log(numbered.times / expected).astype(np.float32)
            target_correction = -np.log(self._expected(targets, len(targets))).astype(np.float32)
        share = numbered.times / np.float32(max(int(numbered.times.sum()), 1))
        return StepArrays(
            history=numbered.history,
            user=user.astype(np.int32),
            weight=weight,
            target=numbered.target,
            target_correction=target_correction,
            correction=correction,
            share=share.astype(np.float32),
            negative=numbered.negative,
        )

    def _expected(self, items: Int32, n_targets: int) -> Float64:
        """How often each of `items` is to be expected among the negatives of a step."""
        expected: Float64 = self.options.negatives * self._sampler.shares(items)
        if self.options.in_batch:
            counts = np.maximum(self._sampler.counts[items], 1)
            expected = expected + n_targets * counts / max(int(self._sampler.counts.sum()), 1)
        return expected

    # -- reading ------------------------------------------------------------------------------

    def user_vectors(self, contexts: Contexts) -> Float32:
        """f_U of each context: (B, d). Slots never seen count as padding, or as no user row."""
        return host_array(self._encode(contexts))

    def predict(self, contexts: Contexts, items: Int32) -> Float32:
        """Logits ``f_U . f_C``: (B, C); 0 for an item without a row."""
        known = (items >= 0) & (items < self._n_items) & self._admission.admits(items)
        logits = np.zeros((len(contexts.users), len(items)), dtype=np.float32)
        if known.any():
            rows = self.item_vectors(self._tensor(items[known]))
            logits[:, known] = host_array(self._encode(contexts) @ rows.T)
        return logits

    def item_matrix(self) -> Float32:
        """All item vectors (N, d), not to be changed; after growth it is the old one: ask again.

        On the CPU a view of the live table; on a GPU a copy, in which rows that were learned since the
        last call are renewed first.
        """
        if self._device.type == "cpu":
            return host_array(self._items.values[: self._n_items])
        return self._mirror()

    def top_items(self, vectors: Float32, k: int, n_items: int) -> tuple[Int32, Float32]:
        """Best k of the items below `n_items` for each of `vectors` (B, d).

        Only items that were a target at least once can be found.

        Returns
        -------
        (B, k) int32, (B, k) float32
            Slots best first, and logits; -1 and -inf where there are fewer.
        """
        ranked = self._rank(vectors, k, n_items, normalise=False)
        return ranked.items, ranked.logits

    def ranked(
        self,
        vectors: Float32,
        k: int,
        n_items: int,
        withdrawn: Bools | None = None,
        *,
        hasty: bool = False,
    ) -> Ranked:
        """As `top_items`, with the normaliser: p_emb = exp(logit - log_z).

        Items that `withdrawn` (n,) by slot marks are neither found nor in the normaliser. Of a large
        catalogue on the CPU only the head is looked at, and the normaliser is an estimate: see
        `learners.item_head`. A `hasty` call looks at a smaller head.
        """
        n = min(n_items, self._n_items)
        closed = self._closed_now(withdrawn)[:n]
        head = self._hasty_head if hasty else self._head
        if head.pays and n == self._n_items and closed.device.type == "cpu":
            held = self._sampler.counts[:n] > 0
            n_closed = (
                0 if withdrawn is None else int(np.count_nonzero(held[: len(withdrawn)] & withdrawn[:n]))
            )
            return head.best(self._tensor(vectors), self._items.values[:n], closed, k, n_closed)
        return best_items(self._tensor(vectors), self._items.values[:n], closed, k, normalise=True)

    def normaliser(self, vectors: Float32, n_items: int) -> Float32:
        """Log of the summed exponentials of all supported items' logits, (B,); log N where none is."""
        return self._rank(vectors, 0, n_items, normalise=True).log_z

    def _rank(self, vectors: Float32, k: int, n_items: int, *, normalise: bool) -> Ranked:
        n = min(n_items, self._n_items)
        return best_items(
            self._tensor(vectors), self._items.values[:n], self._closed[:n], k, normalise=normalise
        )

    def similar(self, item: int, k: int, withdrawn: Bools | None = None) -> tuple[Int32, Float32]:
        """Up to k supported items by cosine to `item`; empty for an unknown item.

        Without the item itself and those that `withdrawn` (n,) by slot marks.
        """
        asked = np.array([item], dtype=np.int32)
        if not 0 <= item < self._n_items or not self._admission.admits(asked)[0]:
            return np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.float32)
        unit = torch.nn.functional.normalize(self._items.values[: self._n_items])
        closed = self._closed_now(withdrawn)[: self._n_items].clone()
        closed[item] = -torch.inf
        found = best_items(unit[item : item + 1], unit, closed, k, normalise=False)
        n = int(np.count_nonzero(found.items[0] >= 0))
        return found.items[0, :n], found.logits[0, :n]

    def relevance(self, vectors: Float32, items: Int32) -> Float32:
        """Published relevance ``sigmoid(f_U . f_C)`` of `items` (B, k) for `vectors` (B, d); 0 at -1."""
        rows = self.item_matrix()[np.maximum(items, 0)]  # (B, k, d)
        z = np.matmul(rows, vectors[:, :, None])[:, :, 0]
        relevance: Float32 = np.where(items >= 0, 0.5 + 0.5 * np.tanh(0.5 * z), 0.0).astype(np.float32)
        return relevance

    def _encode(self, contexts: Contexts) -> Tensor:
        history = self._cut(contexts.history)
        history = np.where(history < self._n_items, history, np.int32(-1))
        history = self._admission.masked(history)
        return encode(
            self._items.values, self._tensor(history), self._dense_values(),
            self._users.values, self._tensor(self._users.rows_of(contexts.users)),
        ).vectors  # fmt: skip

    # -- odds and ends ------------------------------------------------------------------------

    def _graphs(self) -> CapturedSteps:
        if self._captured is None:
            self._captured = CapturedSteps(self._dense_values(), self._dense, self.options)
        return self._captured

    def _cut(self, history: Int32) -> Int32:
        """The newest H columns, padded where there are fewer."""
        missing = self._history - history.shape[1]
        if missing > 0:
            history = np.pad(history, ((0, 0), (missing, 0)), constant_values=-1)
        return np.ascontiguousarray(history[:, history.shape[1] - self._history :])

    def _closed_now(self, withdrawn: Bools | None) -> Tensor:
        """`_closed` with withdrawn items closed too; 50 microseconds at 100 000 items where any is."""
        if withdrawn is None or not withdrawn.any():
            return self._closed
        n = min(len(withdrawn), len(self._closed))
        closed = self._closed.clone()
        closed[:n].masked_fill_(self._tensor(withdrawn[:n]), -torch.inf)
        return closed
