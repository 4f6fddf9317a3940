"""SASRec, fitted from scratch to everything so far on a schedule."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from learners.prequential import Asked
from schemas.runs import Float32, Int32

from .refits import Refitted
from .scoring import Room

LENGTH = 50


class Network(nn.Module):
    """Causal self-attention over the last 50 items; logits by the tied item table.

    Parameters
    ----------
    n_items : int
        Row 0 is padding, item i is row i + 1.
    """

    def __init__(self, n_items: int, dim: int, blocks: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.items = nn.Embedding(n_items + 1, dim, padding_idx=0)
        self.places = nn.Embedding(LENGTH, dim)
        nn.init.normal_(self.items.weight, std=dim**-0.5)
        nn.init.normal_(self.places.weight, std=0.02)
        self.dropout = nn.Dropout(dropout)
        layer = nn.TransformerEncoderLayer(
            dim, heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, blocks, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(dim)
        ahead = torch.ones(LENGTH, LENGTH, dtype=torch.bool).triu(1)
        self.register_buffer("ahead", ahead, persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """States (B, L, D) after each of `rows` (B, L), padded with 0 on the left."""
        x = self.dropout(self.items(rows) * self.items.embedding_dim**0.5 + self.places.weight)
        return cast("Tensor", self.norm(self.blocks(x, mask=self.ahead)))  # padding: zeros, of no target


class SasRec(Refitted):
    """Cross entropy over all items at every place of every window, Adam; again every `every` positives.

    Parameters
    ----------
    epochs : int
        Passes over the windows (of 50, half overlapping) at each fit.

    References
    ----------
    Kang and McAuley, Self-attentive sequential recommendation, ICDM 2018; full softmax as in
    Klenitskiy and Vasilev, Turning dross into gold loss, RecSys 2023.
    """

    def __init__(
        self, room: Room, seed: int = 0, *,
        every: int = 20_000, epochs: int = 30, dim: int = 64, blocks: int = 2, dropout: float = 0.2,
    ) -> None:  # fmt: skip
        super().__init__(room, growth=1e9, most=every)
        self.name = "sasrec"
        self._seed, self._epochs = seed, epochs
        self._dim, self._blocks, self._dropout = dim, blocks, dropout
        self._model: Network | None = None
        self._n_known = 0

    def fit(self, users: Int32, items: Int32) -> None:
        """Fit to all positives so far."""
        torch.manual_seed(self._seed)
        self._n_known = int(items.max()) + 1
        model = Network(self._n_known, self._dim, self._blocks, 2, self._dropout)
        inputs, targets = windows(users, items)
        x, y = torch.from_numpy(inputs).long(), torch.from_numpy(targets).long()
        steps = self._epochs * -(-len(x) // 64)
        optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps, pct_start=0.1)
        model.train()
        for _ in range(self._epochs):
            for part in torch.split(torch.randperm(len(x)), 64):
                wanted = y[part]
                states = model(x[part])[wanted > 0]  # (T, D)
                logits = states @ model.items.weight[1:].T  # (T, N)
                loss = functional.cross_entropy(logits, wanted[wanted > 0] - 1)
                optimiser.zero_grad()
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimiser.step()
                schedule.step()
        self._model = model.eval()

    def fitted_scores(self, asked: Asked) -> Float32:
        """Scores of all candidates, (B, n_items)."""
        assert self._model is not None
        rows = asked.contexts.history[:, -LENGTH:] + 1
        rows = np.where(rows <= self._n_known, rows, 0)
        out = np.full((len(rows), asked.n_items), -np.inf, dtype=np.float32)
        with torch.no_grad():
            last = self._model(torch.from_numpy(rows).long())[:, -1]
            out[:, : self._n_known] = (last @ self._model.items.weight[1:].T).numpy()[:, : asked.n_items]
        return out


def windows(users: Int32, items: Int32, length: int = LENGTH) -> tuple[Int32, Int32]:
    """Inputs and targets (W, length), row numbers from 1, 0 padded on the left; each target once.

    >>> inputs, targets = windows(np.zeros(3, np.int32), np.array([4, 5, 6], np.int32), length=3)
    >>> inputs.tolist(), targets.tolist()
    ([[0, 5, 6]], [[0, 6, 7]])
    """
    order = np.argsort(users, kind="stable")
    ends = np.flatnonzero(np.diff(users[order], append=-1)) + 1
    found: list[tuple[Int32, Int32]] = []
    start = 0
    for end in ends.tolist():
        own = items[order[start:end]] + 1
        start = end
        stop, stride = len(own) - 1, max(length // 2, 1)
        done = False
        while stop > 0 and not done:
            x, y = np.zeros(length, dtype=np.int32), np.zeros(length, dtype=np.int32)
            first = max(stop - length, 0)
            x[length - (stop - first) :] = own[first:stop]
            done = first == 0
            fresh = stop - first if done else min(stride, stop - first)
            y[length - fresh :] = own[stop - fresh + 1 : stop + 1]
            found.append((x, y))
            stop -= fresh
    if not found:
        return np.zeros((0, length), dtype=np.int32), np.zeros((0, length), dtype=np.int32)
    return np.stack([x for x, _ in found]), np.stack([y for _, y in found])
