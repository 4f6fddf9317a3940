"""Fusion of what an item is, by modality, into a vector in the space of the item rows.

With the modalities m that item i has::

    u_m = LayerNorm(x_m) / sqrt(D_m)        h_m = W_m u_m + b_m                    (h)
    a_m = softmax over the present m of (c_m + v_m . tanh(h_m))
    z   = sum_m a_m h_m                     g(x) = o + z + U tanh(V z + r)         (d = h)

It learns towards the rows of items that have enough events, which stand still meanwhile, and, where
users are given, from the main loss through the blended vectors, some of which lose their row::

    n_i = support, m_i = n_i / (n_i + 15)   f_i = k_i m_i e_i + (1 - k_i m_i) g(x_i)
    loss = sum_i s_i |g(x_i) - e_i|^2 / sum_i s_i
         + lambda mean_b -log softmax_R (f_U(b) . f_i - log q_i)[target b]

s_i is m_i for supported items, else 0; k_i is 0 with probability `id_dropout`, else 1. A modality that
lacks takes no part in the softmax; an item without any gets o and what the network makes of z = 0.
Serving uses f_i with k = 1, so a new item starts at g(x_i) and moves to its row as events arrive.

For ablations ``kind`` may be "concat": z = sum_m h_m, that is one linear map of all vectors side by
side, with zeros for what lacks. A single modality is a fusion of one.

All parameters move by elementwise Adagrad. A step whose loss or gradient is not finite is left out.
Same seed and same steps give the same bits on one kind of CPU with one number of threads.

References
----------
Volkovs, Yu and Poutanen, DropoutNet, NeurIPS 2017 (dropping the id). Arevalo et al., Gated multimodal
units, ICLR workshop 2017. Ba, Kiros and Hinton, Layer normalization, 2016.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

import numpy as np
import torch
from msgspec import Struct
from numpy.typing import NDArray
from torch import Tensor

from schemas.errors import StateError
from schemas.learner import Arrays, TouchedKeys
from schemas.runs import Float32, Int32

from .adagrad import DenseParameter
from .content_vectors import ContentVectors, normalised, usable
from .embedding_rows import gaussian_rows
from .state import digest_arrays, taken

FLOOR: Final = 1e-8
_ABSENT: Final = -1e30


class FusionOptions(Struct, frozen=True, kw_only=True):
    """Choices of `ContentFusion`."""

    kind: Literal["gate", "concat"] = "gate"
    half_support: float = 15.0
    """Events at which an item's row and its content count the same."""
    min_support: int = 5
    """Events from which on an item's row is worth learning towards."""
    main_loss: float = 0.3
    """lambda."""
    id_dropout: float = 0.2
    rate: float = 0.02


class FusionStep(NamedTuple):
    """What is learned at once: R items with their rows, and B users with one target each."""

    content: ContentVectors  # R items
    rows: Float32  # (R, d) item rows e_i
    support: Int32  # (R,) events so far
    users: Float32  # (B, d) f_U; none where only rows are learned
    target: Int32  # (B,) numbers among the R
    log_q: Float32  # (R,) log of how likely an item is among the R


class Fused(NamedTuple):
    """g and the gate, as tensors."""

    vectors: Tensor  # (N, d)
    weights: Tensor  # (N, M)


def share_of_row(support: Int32, half_support: float = 15.0) -> Float32:
    """Share of the row in f_C, m = n / (n + half): (N,).

    >>> share_of_row(np.array([0, 15], np.int32)).tolist()
    [0.0, 0.5]
    """
    n = support.astype(np.float32)
    m: Float32 = n / (n + np.float32(half_support))
    return m


class ContentFusion:
    """See the module's docstring. Name ``fusion``.

    Cost: O(R d sum D_m) a step, d sum D_m for a vector; 8 d sum D_m bytes.

    Parameters
    ----------
    dims : mapping of str to int
        Modalities with their dimensions D_m, in order.
    dim : int
        d, that of the item rows.
    seed : int
        Of initial weights and of the dropout of ids.
    """

    def __init__(
        self,
        dims: Mapping[str, int],
        dim: int = 64,
        *,
        seed: int = 0,
        options: FusionOptions | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.dims, self.options = dict(dims), options or FusionOptions()
        self._dim, self._seed = dim, seed
        self._device = device or torch.device("cpu")
        self._parameters = {
            name: DenseParameter(
                value.to(self._device).requires_grad_(False), rate=self.options.rate, floor=FLOOR
            )
            for name, value in self._initial().items()
        }
        self._n_steps = 0
        self._is_dirty = False
        self.discarded_steps = 0
        """Steps not taken because their loss or gradient was not finite."""

    @property
    def name(self) -> str:
        """Stable name."""
        return "fusion"

    @property
    def dim(self) -> int:
        """D."""
        return self._dim

    # -- reading ------------------------------------------------------------------------------

    def vectors(self, content: ContentVectors) -> Float32:
        """g(x) of N items: (N, d)."""
        with torch.no_grad():
            return _host(self._fuse(content, self._values()).vectors)

    def weights(self, content: ContentVectors) -> Float32:
        """The gate a of N items: (N, M), rows sum to 1, or are 0 for an item without a modality."""
        with torch.no_grad():
            return _host(self._fuse(content, self._values()).weights)

    def blended(self, content: ContentVectors, rows: Float32, support: Int32) -> Float32:
        """f_C = m e + (1 - m) g(x) of N items with rows e (N, d) and support (N,): (N, d)."""
        m = share_of_row(support, self.options.half_support)[:, None]
        blend: Float32 = m * rows + (1.0 - m) * self.vectors(content)
        return blend

    # -- learning -----------------------------------------------------------------------------

    def learn(self, step: FusionStep) -> float:
        """One step; its loss before it, NaN where nothing was learned."""
        taught = step.support >= self.options.min_support
        if not taught.any() and not len(step.users):
            return float("nan")
        values = {name: value.detach().requires_grad_() for name, value in self._values().items()}
        loss = self._loss(step, values, taught)
        found = torch.autograd.grad(loss, list(values.values()), materialize_grads=True)
        gradients = dict(zip(values, found, strict=True))
        total = loss.detach() + sum(each.square().sum() for each in gradients.values())
        self._n_steps += 1
        self._is_dirty = True
        if not bool(torch.isfinite(total)):
            self.discarded_steps += 1
            return float("nan")
        for name, each in gradients.items():
            self._parameters[name].apply(each)
        return float(loss.detach())

    def _loss(self, step: FusionStep, values: Mapping[str, Tensor], taught: NDArray[np.bool_]) -> Tensor:
        options = self.options
        fused = self._fuse(step.content, values).vectors  # (R, d)
        rows = self._tensor(step.rows)
        m = share_of_row(step.support, options.half_support)
        s = self._tensor(np.where(taught, m, np.float32(0.0)))
        loss = (s * (fused - rows).square().sum(1)).sum() / s.sum().clamp(min=1e-6)
        if len(step.users) and options.main_loss:
            # A counted seed, so that the number of steps is all there is to save.
            random = np.random.default_rng([self._seed, self._n_steps])
            kept = self._tensor(m * (random.random(len(m)) >= options.id_dropout))[:, None]
            blend = kept * rows + (1.0 - kept) * fused
            logits = self._tensor(step.users) @ blend.T - self._tensor(step.log_q)  # (B, R)
            target = self._tensor(step.target.astype(np.int64))
            loss = loss + options.main_loss * torch.nn.functional.cross_entropy(logits, target)
        return loss

    def _fuse(self, content: ContentVectors, values: Mapping[str, Tensor]) -> Fused:
        if list(content.vectors) != list(self.dims):
            raise ValueError(f"the modalities are {list(content.vectors)}, not {list(self.dims)}")
        present = usable(content)
        mask = self._tensor(present)
        hidden = torch.stack(
            [
                self._tensor(normalised(x, present[:, k])) @ values[f"map.{name}"].T + values["biases"][k]
                for k, (name, x) in enumerate(content.vectors.items())
            ],
            dim=1,
        )  # (N, M, h)
        if self.options.kind == "concat":
            weights = mask.to(hidden.dtype)
        else:
            asked = (torch.tanh(hidden) * values["queries"]).sum(2) + values["offsets"]  # (N, M)
            weights = torch.softmax(asked.masked_fill(~mask, _ABSENT), dim=1) * mask
        z = (weights[:, :, None] * hidden).sum(1)  # (N, h)
        bent = torch.tanh(z @ values["inner"].T + values["inner_bias"])
        return Fused(values["origin"] + z + bent @ values["outer"].T, weights)

    def forget(self, modality: str) -> None:
        """Begin with a modality anew, as when its vectors come from another model from now on."""
        k, fresh = list(self.dims).index(modality), self._initial()
        name = f"map.{modality}"
        self._parameters[name].load(_host(fresh[name]), np.zeros_like(_host(fresh[name])))
        for name in ("biases", "queries", "offsets"):
            each = self._parameters[name]
            value, squares = _host(each.value).copy(), _host(each.squares).copy()
            value[k], squares[k] = 0.0, 0.0
            each.load(value, squares)
        self._is_dirty = True

    # -- state --------------------------------------------------------------------------------

    def touched(self) -> TouchedKeys:
        """Drain: its parameters, when they changed."""
        none: Int32 = np.zeros(0, dtype=np.int32)
        dense = ("fusion",) if self._is_dirty else ()
        self._is_dirty = False
        return TouchedKeys(items=none, users=none, dense=dense)

    def snapshot(self) -> Arrays:
        """Copies: each parameter and its squares, and ``fusion.shape``: d, seed, steps, M, D_m."""
        found: Arrays = {"fusion.shape": np.array([*self._shape(), self._n_steps], dtype=np.int64)}
        for name, each in self._parameters.items():
            found[f"fusion.{name}"] = _host(each.value).copy()
            found[f"fusion.{name}.squares"] = _host(each.squares).copy()
        return found

    def restore(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Become what `snapshot` described.

        Raises
        ------
        StateError
            An array is missing or of another shape, or of other modalities, or not finite.
        """
        shape = taken(arrays, "fusion.shape", np.zeros(0, np.int64), rows=3 + len(self.dims)).tolist()
        if shape[:-1] != self._shape():
            raise StateError(f"'fusion.shape': {shape[:-1]} does not fit {self._shape()}")
        fresh = {}
        for name, each in self._parameters.items():
            like = _host(each.value)
            fresh[name] = tuple(
                taken(arrays, f"fusion.{name}{suffix}", like, rows=len(like)) for suffix in ("", ".squares")
            )
            if not all(np.isfinite(part).all() for part in fresh[name]):
                raise StateError(f"'fusion.{name}' holds numbers that are not finite")
        for name, (value, squares) in fresh.items():
            self._parameters[name].load(value, squares)
        self._n_steps = shape[-1]
        self._is_dirty = True

    def digest(self) -> str:
        """Hash of `snapshot` (hex)."""
        return digest_arrays(self.snapshot())

    def _shape(self) -> list[int]:
        return [self._dim, self._seed, *self.dims.values()]

    def _values(self) -> dict[str, Tensor]:
        return {name: each.value for name, each in self._parameters.items()}

    def _initial(self) -> dict[str, Tensor]:
        d, m = self._dim, len(self.dims)
        maps = {
            f"map.{name}": torch.from_numpy(gaussian_rows(0, d, size, size**0.5 * 0.1, self._seed + k))
            for k, (name, size) in enumerate(self.dims.items())
        }
        inner = torch.from_numpy(gaussian_rows(0, d, d, 1.0, self._seed + m))
        return {
            **maps,
            "biases": torch.zeros(m, d),
            "queries": torch.zeros(m, d),
            "offsets": torch.zeros(m),
            "origin": torch.zeros(d),
            "inner": inner,
            "inner_bias": torch.zeros(d),
            "outer": torch.zeros(d, d),
        }

    def _tensor(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self._device)


def _host(tensor: Tensor) -> Float32:
    array: Float32 = tensor.detach().cpu().numpy()
    return array
