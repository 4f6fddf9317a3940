"""Attention heads of a BERT: which of them say least, and a model without them.

References
----------
Michel, Levy and Neubig (2019), Are Sixteen Heads Really Better than One?
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from schemas.runs import Float32


def layers_of(model: torch.nn.Module) -> list[Any]:
    """The layers of the BERT within a model."""
    encoder = next(each for name, each in model.named_modules() if name.endswith("encoder"))
    return list(encoder.layer)


def weakest_first(model: torch.nn.Module, encode: Callable[[], Float32]) -> list[tuple[int, int]]:
    """(layer, head) in the order of how far the unit vectors of `encode` turn without the head alone.

    Cost: an `encode` a head.
    """
    whole = encode()
    turned: dict[tuple[int, int], float] = {}
    for number, layer in enumerate(layers_of(model)):
        weight = layer.attention.output.dense.weight.data
        size = layer.attention.self.attention_head_size
        for head in range(layer.attention.self.num_attention_heads):
            columns = slice(head * size, (head + 1) * size)
            kept = weight[:, columns].clone()
            weight[:, columns] = 0.0
            turned[number, head] = float(1.0 - (whole * encode()).sum(axis=1).mean())
            weight[:, columns] = kept
    return sorted(turned, key=lambda one: turned[one])


def without(model: torch.nn.Module, heads: list[tuple[int, int]]) -> None:
    """Cut heads out, in place; one a layer stays in any case."""
    for number, layer in enumerate(layers_of(model)):
        attention = layer.attention.self
        size, n = attention.attention_head_size, attention.num_attention_heads
        dropped = [head for at, head in heads if at == number][: n - 1]
        kept = [head for head in range(n) if head not in dropped]
        rows = torch.tensor(np.concatenate([np.arange(head * size, (head + 1) * size) for head in kept]))
        for name in ("query", "key", "value"):
            setattr(attention, name, _cut(getattr(attention, name), rows, axis=0))
        layer.attention.output.dense = _cut(layer.attention.output.dense, rows, axis=1)
        attention.num_attention_heads, attention.all_head_size = len(kept), size * len(kept)


def _cut(linear: torch.nn.Linear, rows: torch.Tensor, axis: int) -> torch.nn.Linear:
    weight = linear.weight.data.index_select(axis, rows)
    small = torch.nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
    small.weight.data = weight
    small.bias.data = linear.bias.data[rows] if axis == 0 else linear.bias.data
    return small
