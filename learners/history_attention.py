"""Attention of an item over what a user watched before: trained on a prior history, then frozen.

The target is whether a watch was long, given the earlier watches of its user and whether each of
them was long. An item is the sum of an embedding of its own and one of each of its attributes
(creator, tag, ...). In training the item's own is left out for every fifth occurrence, so that the
attributes learn to stand in for it: an item without a history of its own has only them.
`learners.history_attention_kernels` has the equations.

References
----------
Zhou et al., Deep interest network for click-through rate prediction, KDD 2018. Vaswani et al.,
Attention is all you need, NeurIPS 2017.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from schemas.runs import Int32

from .history_attention_kernels import MAX_HISTORY, N_HIDDEN, AttentionTables

DIM: Final = 32
HEADS: Final = 4
HIDDEN: Final = (96, N_HIDDEN)
BATCH: Final = 64
RATE: Final = 2e-3
WARM_UP: Final = 100
DROP_ITEM: Final = 0.2
DROP: Final = 0.1
DECAY_ROWS: Final = 1e-2
DECAY_DENSE: Final = 1e-4
_HIDDEN_AWAY: Final = -1e9

Watched = tuple[Int32, Int32]
"""Items (U, MAX_HISTORY) of each user, oldest first, left-aligned, -1 padded; and 1 where long."""


def histories_of(users: Int32, items: Int32, long: Int32) -> Watched:
    """The last `MAX_HISTORY` watches of each user, from watches in order of time; (N,) each."""
    order = np.argsort(users, kind="stable")
    owners, starts = np.unique(users[order], return_index=True)
    ends = np.append(starts[1:], len(order))
    seen = np.full((len(owners), MAX_HISTORY), -1, dtype=np.int32)
    outcomes = np.zeros((len(owners), MAX_HISTORY), dtype=np.int32)
    for row, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        rows = order[max(start, end - MAX_HISTORY) : end]
        seen[row, : len(rows)] = items[rows]
        outcomes[row, : len(rows)] = long[rows]
    return seen, outcomes


class HistoryAttention(nn.Module):
    """The trainable form.

    Parameters
    ----------
    attributes : (I, A) int
        Of every item, each column from 0; of unknown ones any number, but the same.
    """

    def __init__(self, attributes: Int32) -> None:
        super().__init__()
        self.attributes = torch.from_numpy(attributes.astype(np.int64))
        self.item = nn.Embedding(len(attributes), DIM)
        self.sides = nn.ModuleList(
            nn.Embedding(int(attributes[:, column].max(initial=0)) + 1, DIM)
            for column in range(attributes.shape[1])
        )
        self.outcome = nn.Embedding(2, DIM)
        self.query, self.key, self.value = (nn.Linear(DIM, DIM) for _ in range(3))
        self.ages = nn.Parameter(torch.zeros(HEADS, MAX_HISTORY + 1))
        self.nothing = nn.Parameter(torch.zeros(2, DIM))
        self.bias = nn.Embedding(len(attributes), 1)
        self.first, self.second = nn.Linear(3 * DIM + 2, HIDDEN[0]), nn.Linear(*HIDDEN)
        self.last = nn.Linear(HIDDEN[1], 1)
        for table in (self.item, *self.sides):
            nn.init.normal_(table.weight, 0.0, 0.05)
        nn.init.zeros_(self.bias.weight)

    def rows(self) -> list[nn.Parameter]:
        """Parameters that are rows of items and attributes: decayed more than the dense ones."""
        return [self.item.weight, self.bias.weight, *(table.weight for table in self.sides)]  # type: ignore[list-item]

    def embedded(self, items: Tensor, kept: Tensor | None = None) -> Tensor:
        """Embeddings of items; the own one only where `kept` is 1."""
        own = self.item(items)
        total = own if kept is None else own * kept[..., None]
        for column, table in enumerate(self.sides):
            total = total + table(self.attributes[items][..., column])
        return total  # type: ignore[no-any-return]

    def forward(self, seen: Tensor, outcomes: Tensor, generator: torch.Generator) -> Tensor:
        """Logits (B, L) of every watch from those before it; `seen` and `outcomes` (B, L)."""
        n_users, length = seen.shape
        known, items = seen >= 0, seen.clamp(min=0)

        def kept(shape: torch.Size, share: float) -> Tensor:
            """What is not left out, in training; everything otherwise."""
            if not self.training:
                return torch.ones(shape)
            return (torch.rand(shape, generator=generator) > share).float()

        asked = self.embedded(items, kept(items.shape, DROP_ITEM))
        told = self.embedded(items, kept(items.shape, DROP_ITEM)) + self.outcome(outcomes)
        width = DIM // HEADS

        def split(x: Tensor) -> Tensor:
            return x.view(n_users, length, HEADS, width).transpose(1, 2)  # (B, H, L, d / H)

        q, k, v = split(self.query(asked)), split(self.key(told)), split(self.value(told))
        places = torch.arange(length)
        age = (places[:, None] - places[None]).clamp(min=0)
        earlier = (places[None] < places[:, None])[None] & known[:, None, :]  # (B, L, L)
        scores = q @ k.transpose(-1, -2) / width**0.5 + self.ages[:, age][None]
        scores = scores.masked_fill(~earlier[:, None], _HIDDEN_AWAY)
        no_key, no_value = self.nothing.view(2, HEADS, 1, width)
        empty = (q * no_key).sum(-1, keepdim=True) / width**0.5
        share = torch.softmax(torch.cat([scores, empty], -1), -1)
        context = share[..., :-1] @ v + share[..., -1:] * no_value
        context = context.transpose(1, 2).reshape(n_users, length, DIM)
        n = earlier.sum(-1, keepdim=True).float()
        n_long = (earlier * outcomes[:, None, :]).sum(-1, keepdim=True)
        rate = (n_long + 1.5) / (n + 4.0)
        x = torch.cat([asked, context, asked * context, torch.log1p(n) / 4.0, torch.logit(rate)], -1)
        hidden = torch.relu(self.first(x))
        if self.training:
            hidden = hidden * kept(hidden.shape, DROP) / (1.0 - DROP)
        logits = self.last(torch.relu(self.second(hidden)))
        return (logits + self.bias(items)).squeeze(-1)  # type: ignore[no-any-return]

    @torch.no_grad()
    def tables(self) -> AttentionTables:
        """The frozen form; copies."""
        everything = torch.arange(len(self.attributes))
        items = self.embedded(everything)
        told = items[:, None, :] + self.outcome.weight[None]  # (I, 2, d)

        def plain(x: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
            return np.ascontiguousarray(x.numpy(), dtype=np.float32).copy()

        return AttentionTables(
            items=plain(items),
            queries=plain(self.query(items)),
            keys=plain(self.key(told).reshape(-1, DIM)),
            values=plain(self.value(told).reshape(-1, DIM)),
            biases=plain(self.bias.weight[:, 0]),
            ages=plain(self.ages),
            nothing=plain(self.nothing),
            first=plain(self.first.weight),
            first_bias=plain(self.first.bias),
            second=plain(self.second.weight),
            second_bias=plain(self.second.bias),
            last=plain(self.last.weight[0]),
            last_bias=plain(self.last.bias),
        )


def train_attention(
    watched: Watched,
    attributes: Int32,
    *,
    epochs: int = 2,
    seed: int = 0,
    on_progress: Callable[[int, int, float], None] | None = None,
) -> AttentionTables:
    """Train on prior histories and freeze.

    Parameters
    ----------
    watched : tuple of (U, 50) int32
        As `histories_of` gives it.
    attributes : (I, A) int32
        Of every item, 0 for what is not known.
    on_progress : callable, optional
        Told steps done, steps in all, and the mean loss of the last hundred.

    Notes
    -----
    Cost: about a minute of one core for 26 000 users of 31 watches.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = HistoryAttention(attributes)
    generator = torch.Generator().manual_seed(seed)
    rows = model.rows()
    dense = [p for p in model.parameters() if all(p is not row for row in rows)]
    optimizer = torch.optim.AdamW(
        [{"params": rows, "weight_decay": DECAY_ROWS}, {"params": dense, "weight_decay": DECAY_DENSE}],
        lr=RATE,
    )
    seen, outcomes = (torch.from_numpy(part.astype(np.int64)) for part in watched)
    a_pass = -(-len(seen) // BATCH)
    losses: list[float] = []
    for step in range(epochs * a_pass):
        if step % a_pass == 0:
            order = torch.randperm(len(seen), generator=generator)
        chosen = order[step % a_pass * BATCH :][:BATCH]
        share = min(1.0, (step + 1) / WARM_UP) * (1.0 - 0.9 * step / (epochs * a_pass))
        for group in optimizer.param_groups:
            group["lr"] = RATE * share
        longest = max(1, int((seen[chosen] >= 0).any(0).sum()))
        watches, long = seen[chosen, :longest], outcomes[chosen, :longest]
        known = watches >= 0
        logits = model(watches, long, generator)
        loss = nn.functional.binary_cross_entropy_with_logits(logits[known], long[known].float())
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        losses.append(float(loss.detach()))
        if on_progress is not None and (step % 100 == 99 or step + 1 == epochs * a_pass):
            on_progress(step + 1, epochs * a_pass, float(np.mean(losses[-100:])))
    return model.tables()
