"""Losses over a target and shared negatives, with their slopes.

For row b with weight omega_b, score s_bt of its target and s_bc of the distinct negatives, drawn
with share r_c (how often c was drawn, over all draws)::

    softmax   omega_b (log(exp(s_bt) + sum_c exp(s_bc)) - s_bt)         scores with logQ correction
    bce       omega_b (softplus(-s_bt) + k sum_c r_c softplus(s_bc))    k = 16
    bpr       omega_b sum_c r_c softplus(s_bc - s_bt)

A masked negative has the score -inf.

References
----------
Rendle et al., BPR: Bayesian personalized ranking from implicit feedback, UAI 2009.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor

from .embedding_options import Loss

BCE_NEGATIVES: Final = 16.0
"""k: what the negatives weigh together, in targets."""


class Slopes(NamedTuple):
    """Loss summed over rows, and its derivatives by the scores."""

    loss: Tensor  # ()
    negatives: Tensor  # (P, C)
    targets: Tensor  # (P,)


def slopes(loss: Loss, own: Tensor, scores: Tensor, share: Tensor, omega: Tensor) -> Slopes:
    """Loss and slopes; `own` and `scores` are written over.

    Parameters
    ----------
    own, omega : (P,) float32
        s_bt and weights.
    scores : (P, C) float32
        s_bc.
    share : (C,) float32
        r_c.
    """
    if loss == "softmax":
        return _softmax(own, scores, omega)
    if loss == "bce":
        weight = BCE_NEGATIVES * share
        negative = (torch.nn.functional.softplus(scores) * weight).sum(1)
        value = torch.dot(omega, torch.nn.functional.softplus(-own) + negative)
        return Slopes(
            value, scores.sigmoid_().mul_(weight).mul_(omega[:, None]), -omega * torch.sigmoid(-own)
        )
    scores.sub_(own[:, None])
    value = torch.dot(omega, (torch.nn.functional.softplus(scores) * share).sum(1))
    negatives = scores.sigmoid_().mul_(share).mul_(omega[:, None])
    return Slopes(value, negatives, -negatives.sum(1))


def _softmax(own: Tensor, scores: Tensor, omega: Tensor) -> Slopes:
    top = torch.maximum(scores.amax(1), own)
    own -= top
    scores.sub_(top[:, None]).exp_()
    total = scores.sum(1) + own.exp()
    negatives = scores.mul_((omega / total)[:, None])
    return Slopes(torch.dot(omega, total.log() - own), negatives, omega * (own.exp() / total - 1.0))
