"""One vector from the vectors of several moments."""

from __future__ import annotations

import torch
from torch import Tensor


def attention_pool(frames: Tensor, query: Tensor, mask: Tensor | None = None) -> Tensor:
    """sum_t a_t x_t with a = softmax_t(q . x_t / sqrt(d)) over the moments that are there.

    With the query at zero, where learning it starts, this is their mean.

    Parameters
    ----------
    frames : Tensor
        float32 (B, T, d).
    query : Tensor
        float32 (d,).
    mask : Tensor, optional
        bool (B, T): which moments are there; at least one of each row. All by default.

    Returns
    -------
    Tensor
        float32 (B, d).

    >>> attention_pool(torch.tensor([[[1.0, 0.0], [0.0, 1.0]]]), torch.zeros(2)).tolist()
    [[0.5, 0.5]]

    References
    ----------
    Yang et al. (2016), Hierarchical Attention Networks, without the hidden layer.
    """
    scores = frames @ query / frames.shape[2] ** 0.5  # (B, T)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.einsum("bt,btd->bd", torch.softmax(scores, dim=1), frames)
